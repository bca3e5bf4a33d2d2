"""The promises of the false-page budget, through the configuration and the Fleet.

Healthy traffic stays within it, drift is found in spite of it, and dependent rows do not break it.
"""

import dataclasses
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.signal import lfilter
from scipy.stats import chi2

from exporter.app.config import model_settings, parse
from exporter.catalog import metrics
from exporter.monitor.fleet import Fleet
from exporter.monitor.readout import DriftReadout
from exporter.monitor.reference import Reference
from exporter.stats import Floats
from tests.app import healthy
from tests.app.healthy import Healthy
from tests.builders import MODEL, NOW, X, a_batch, a_reference, an_input, decoded, observe, values_of, view
from tests.e2e.lengthy import long

CATEGORIES = [f"c{i}" for i in range(10)]
SHARES = np.full(10, 0.1)
START = NOW - NOW % 86400
WINDOW_S = 900
FEATURES = 50
DRIFT = 0.9
"""Share of the budget that is not for data faults."""


def configured(*references: Reference, **model: Any) -> Fleet:
    """A fleet as `run` makes it of a configuration file, with windows of 15 minutes."""
    text = msgspec.json.encode({"models": [{"name": MODEL, "version": "1", "window": "15m", **model}]}).decode()
    (config,) = parse(text, "c.yaml", {}).models
    return Fleet([model_settings(config)], {MODEL: references})


def categorical(rows: int, seed: int) -> Reference:
    rng = np.random.default_rng(seed)
    return a_reference({an_input(f"f{i}"): rng.choice(CATEGORIES, rows).tolist() for i in range(FEATURES)})


def feed(fleet: Fleet, codes: np.ndarray, times: Floats, now: float) -> None:
    batch = a_batch(fleet.schema(MODEL), {}, time=times.tolist())
    fleet.observe(decoded(dataclasses.replace(batch, codes=codes.astype(np.int32))), now)


def read(fleet: Fleet, now: float) -> DriftReadout:
    readout = view(fleet.tick(now)).drift_readout
    assert readout is not None
    return readout


# ---- false pages -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "models", "most"),
    [(500, 5, 10), pytest.param(500, 20, 29, marks=long), pytest.param(1000, 20, 29, marks=long)],
)
def test_healthy_traffic_stays_within_a_budget_of_one_page_a_day(n: int, models: int, most: int):
    """Models that used up their budget would have more than `most` pages with a probability of 2 %.

    One that looks at nothing has none. A whole quarter of them takes half an hour (tests.bench.quarters).
    """
    seen = next(healthy.days(Healthy(n, tuple(range(models)), per_days=1)))
    assert seen.looks == 96 * 60
    assert 0 < seen.pages.total() <= most


# ---- detection -------------------------------------------------------------------------------------------------------


def test_a_psi_of_a_tenth_in_one_feature_is_found_within_two_windows():
    """500 runs, one after the other, of two windows with 1,000 events each; another feature drifts in each run."""
    tilt = brentq(lambda d: d * np.arctanh(d) - 0.1, 0.01, 0.9)
    drifted_shares = SHARES * (1 + tilt * np.resize([1, -1], 10))
    assert np.sum((drifted_shares - SHARES) * np.log(drifted_shares / SHARES)) == pytest.approx(0.1)
    rng = np.random.default_rng(1)
    fleet = configured(categorical(32_000, 2), thresholds={"psi": 0.05}, budget={"pages": 1, "per": "90d"})

    found, others = 0, 0
    for run in range(500):
        place, verdicts = run % FEATURES, []
        for window in (2 * run, 2 * run + 1):
            start = START + WINDOW_S * window
            codes = rng.integers(10, size=(1000, FEATURES))
            codes[:, place] = rng.choice(10, 1000, p=drifted_shares)
            times = start + np.arange(1000) * (WINDOW_S / 1000)
            feed(fleet, codes, times, times[-1])
            readout = read(fleet, times[-1])
            assert readout.n.tolist() == [1000] * FEATURES
            assert not readout.extrapolated.any()
            verdicts.append(readout.drifted[place])
            others += int(readout.drifted.sum()) - int(readout.drifted[place])
        found += any(verdicts)

    assert found >= 495
    assert others == 0


# ---- dependent rows --------------------------------------------------------------------------------------------------


def autoregressive(phi: float, rows: int, rng: np.random.Generator) -> Floats:
    """Rows of 100 streams that each resemble the row before: x_t = phi x_{t-1} + noise, of variance 1."""
    noise = rng.normal(0, np.sqrt(1 - phi * phi), (rows + 200, 100))
    return lfilter([1.0], [1.0, -phi], noise, axis=0)[200:]


@pytest.mark.parametrize(("phi", "naive", "calibrated"), [(0.0, 0.02, 0.02), (0.6, 0.08, 0.03), (0.9, 0.5, 0.04)])
def test_calibration_restores_the_level_for_dependent_rows(phi: float, naive: float, calibrated: float):
    """At 1 %, windows of 1,000 against 50,000 rows; statistics.md 3.5 has .013, .110, .644 and .010, .016, .022."""
    rng = np.random.default_rng(int(phi * 10))
    keys = [an_input(f"f{i}") for i in range(100)]
    reference = a_reference(dict(zip(keys, autoregressive(phi, 50_000, rng).T, strict=True)))
    plain = msgspec.structs.replace(
        reference, features=tuple(msgspec.structs.replace(one, calibration=()) for one in reference.features)
    )
    fleets = [configured(one, thresholds={"psi": 0.0001, "alpha": 0.01}) for one in (plain, reference)]
    stream = autoregressive(phi, 60 * 1000, rng)

    drifted: list[list[float]] = [[], []]
    for window in range(60):
        now = START + WINDOW_S * window
        columns = dict(zip(keys, stream[1000 * window : 1000 * (window + 1)].T, strict=True))
        for fleet, seen in zip(fleets, drifted, strict=True):
            observe(fleet, columns, time=now)
            seen.append(float(read(fleet, now).drifted.mean()))

    assert (np.mean(drifted[0]) > naive) == (phi > 0), "without calibration"
    assert 0.005 < np.mean(drifted[1]) < calibrated


def test_a_window_beyond_the_blocks_of_the_reference_has_a_verdict_but_pages_nobody():
    reference = a_reference({X: np.random.default_rng(0).normal(size=20_000)})
    fleet = configured(reference)

    for rows, paging in ((1000, 1.0), (1001, 0.0)):
        now = START + rows * WINDOW_S
        observe(fleet, {X: np.random.default_rng(1).normal(1, 1, rows)}, time=now)
        snapshot = fleet.tick(now)
        assert list(values_of(snapshot, metrics.DRIFTED).values()) == [1.0]
        assert list(values_of(snapshot, metrics.DRIFT_PAGING).values()) == [paging]


def test_the_level_is_that_of_the_budget_and_the_critical_value_that_of_the_level():
    reference = a_reference({an_input(f"f{i}"): np.random.default_rng(i).normal(size=20_000) for i in range(4)})
    tests = 4 + 2  # the inputs, and their means and covariances together
    alphas = {}
    for name, model in {
        "default": {},
        "budget": {"budget": {"pages": 2, "per": "30d"}},
        "alpha": {"thresholds": {"alpha": 0.01}},
        "generous": {"budget": {"pages": 1_000_000, "per": "30d"}},
    }.items():
        snapshot = configured(reference, **model).tick(START)
        ((alpha,), (critical, *_)) = (
            values_of(snapshot, metric, version="1").values()
            for metric in (metrics.DRIFT_ALPHA, metrics.REFERENCE_CHI2_CRITICAL)
        )
        alphas[name] = alpha
        assert critical == pytest.approx(chi2.isf(alpha, 9))
    assert alphas == pytest.approx(
        {
            "default": DRIFT / (tests * 8640 * 60),
            "budget": DRIFT * 2 / (tests * 2880 * 60),
            "alpha": 0.01,
            "generous": 0.05,
        }
    )
