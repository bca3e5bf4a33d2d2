"""Drift of several inputs together: the promised error rates and power, the verdict, and what it names.

The simulation that this is built after: 20 features, a reference of 20,000 rows, windows of 1,000, alpha 1 %. Without
drift .013; correlation 0 -> 0.3 in two pairs: covariances 1.00, means .010; mean + 0.05 in all: means .993.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy import stats
from scipy.signal import lfilter

from exporter.catalog import metrics, thresholds
from exporter.monitor.events import NO_ERROR, FeatureKey, Rows, Schema
from exporter.monitor.fleet import Fleet
from exporter.monitor.moments import build
from exporter.monitor.multivariate import MomentsReadout, MomentsTracker
from exporter.monitor.panes import Window
from exporter.monitor.series import full_series
from exporter.monitor.settings import ModelSettings
from exporter.stats import Floats
from tests.builders import MODEL, NOW, a_fleet, a_reference, an_input, exposed, observe, values_of, view

Draw = Callable[[np.random.Generator, int, int], Floats]


def named(table: Floats) -> dict[FeatureKey, Any]:
    return {an_input(f"f{i}"): np.ascontiguousarray(column) for i, column in enumerate(table.T)}


def a_tracker(table: Floats, **settings: Any) -> MomentsTracker:
    known = build(named(table))
    assert known is not None
    schema = Schema(numeric=tuple(an_input(name) for name in known.features))
    return MomentsTracker(known, schema, ModelSettings(MODEL, **({"min_samples": 100} | settings)), "1")


def readouts(tracker: MomentsTracker, windows: Floats, alpha: float) -> list[MomentsReadout]:
    """What each of `windows` [windows, rows, features] says, all of them counted at once."""
    count, n, d = windows.shape
    sums = np.zeros((count, tracker.width), np.int64)
    rows = windows.reshape(-1, d).T.copy().T
    group = np.repeat(np.arange(count), n)
    codes, error = np.zeros((len(rows), 0), np.int32), np.full(len(rows), NO_ERROR, np.int16)
    tracker.add(sums, Rows(rows, codes, np.full(len(rows), np.nan), error, group, count))
    return [tracker.read(one, alpha) for one in sums]


# ---- error rates and power -------------------------------------------------------------------------------------------


def normal(rng: np.random.Generator, rows: int, d: int) -> Floats:
    return rng.normal(size=(rows, d))


def correlated(rng: np.random.Generator, rows: int, d: int) -> Floats:
    """Correlation 0.3 in two pairs."""
    table = rng.normal(size=(rows, d))
    table[:, [1, 3]] = 0.3 * table[:, [0, 2]] + np.sqrt(1 - 0.09) * table[:, [1, 3]]
    return table


def shifted(rng: np.random.Generator, rows: int, d: int) -> Floats:
    return rng.normal(0.05, 1, (rows, d))


def heavy(rng: np.random.Generator, rows: int, d: int) -> Floats:
    return rng.lognormal(size=(rows, d))


def binary(rng: np.random.Generator, rows: int, d: int) -> Floats:
    """Of shares from 2 % to a half."""
    return (rng.random((rows, d)) < np.linspace(0.02, 0.5, d)).astype(np.float64)


def collinear(rng: np.random.Generator, rows: int, d: int) -> Floats:
    """The last is the first in another unit, the one before a sum."""
    table = rng.normal(size=(rows, d))
    table[:, -1], table[:, -2] = 32 * table[:, 0] - 300, table[:, 1] + table[:, 2]
    return table


@cache
def of_twenty(draw: Draw) -> MomentsTracker:
    return a_tracker(draw(np.random.default_rng(7), 20_000, 20))


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (normal, normal, ((0.0, 0.03), (0.0, 0.03))),
        (normal, correlated, ((0.0, 0.03), (0.99, 1.0))),
        (normal, shifted, ((0.97, 1.0), (0.0, 0.03))),
        (heavy, heavy, ((0.0, 0.03), (0.0, 0.035))),
        (binary, binary, ((0.0, 0.03), (0.0, 0.035))),
        (collinear, collinear, ((0.0, 0.03), (0.0, 0.03))),
    ],
)
def test_how_often_a_test_is_passed_at_one_percent(before: Draw, now: Draw, expected: tuple[tuple[float, float], ...]):
    runs = 200
    windows = now(np.random.default_rng(8), runs * 1000, 20).reshape(runs, 1000, 20)

    found = readouts(of_twenty(before), windows, 0.01)

    passed = np.array([[test.distance > test.critical for test in one.tests] for one in found])
    assert (passed == [[test.p_value < 0.01 for test in one.tests] for one in found]).all()
    for share, (least, most) in zip(passed.mean(axis=0), expected, strict=True):
        assert least <= share <= most


def test_the_distance_does_not_depend_on_the_sample_size():
    """Nor is anything expected of it without drift: it is an estimate of the true one."""
    rng = np.random.default_rng(0)
    tracker = a_tracker(rng.normal(size=(20_000, 5)))
    for n in (200, 2000):
        shifts = [0.0, 0.4] * 100
        windows = rng.normal(size=(200, n, 5)) + np.array(shifts)[:, None, None] * [1, 0, 0, 0, 0]
        distances = np.array([one.tests[0].distance for one in readouts(tracker, windows, 0.01)])
        assert distances[::2].mean() == pytest.approx(0.0, abs=0.006)
        assert distances[1::2].mean() == pytest.approx(0.16, abs=0.015)


def test_p_values_are_uniform_without_drift():
    rng = np.random.default_rng(1)
    found = readouts(a_tracker(rng.normal(size=(50_000, 3))), rng.normal(size=(1000, 300, 3)), 0.01)
    for place in range(2):
        assert stats.kstest([one.tests[place].p_value for one in found], "uniform").pvalue > 0.01


def dependent(rng: np.random.Generator, windows: int, rows: int, correlation: float) -> Floats:
    """Five inputs, each value of which resembles the one before."""
    steps = rng.normal(size=(windows, rows + 100, 5)) * np.sqrt(1 - correlation**2)
    found: Floats = lfilter([1], [1, -correlation], steps, axis=1)[:, 100:]
    return found


@pytest.mark.parametrize("correlation", [0.3, 0.9])
def test_dependent_rows_are_calibrated_from_the_reference(correlation: float):
    """Otherwise the tests of means are passed by chance in 15 and 98 of 100 windows, not in 1."""
    rng = np.random.default_rng(3)
    calibrated = a_tracker(dependent(rng, 1, 50_000, correlation)[0])
    without = msgspec.structs.replace(calibrated.moments, calibration=((), ()))
    schema = Schema(numeric=tuple(an_input(name) for name in without.features))
    plain = MomentsTracker(without, schema, calibrated.settings, "1")
    windows = dependent(rng, 150, 1000, correlation)

    rates = [
        np.mean([[test.p_value < 0.01 for test in one.tests] for one in readouts(tracker, windows, 0.01)], axis=0)
        for tracker in (calibrated, plain)
    ]

    assert rates[0].max() <= 0.05
    assert rates[1][0] > 3 * 0.03


# ---- verdicts --------------------------------------------------------------------------------------------------------

REFERENCE = a_reference(named(np.random.default_rng(1).normal(size=(20_000, 4)) * [1, 10, 100, 1] + [0, 0, 0, 50]))


def watched(table: Floats, **settings: Any) -> Fleet:
    fleet = a_fleet(REFERENCE, **({"min_samples": 500, "alpha": 0.001} | settings))
    observe(fleet, named(table), now=NOW)
    return fleet


def a_window(n: int = 1000, *, correlation: float = 0.0, shift: float = 0.0, seed: int = 2) -> Floats:
    """Rows as those of the reference but for the correlation of the first two and the mean of the third."""
    table = np.random.default_rng(seed).normal(size=(n, 4))
    table[:, 1] = correlation * table[:, 0] + np.sqrt(1 - correlation**2) * table[:, 1]
    return (table + np.array([0, 0, shift, 50])) * [1, 10, 100, 1]


def readout_of(fleet: Fleet, now: float = NOW) -> MomentsReadout:
    found = view(fleet.tick(now)).moments_readout
    assert found is not None
    return found


def test_a_correlation_that_no_single_feature_shows_is_drift_and_is_named():
    fleet = watched(a_window(correlation=0.6))
    one = view(fleet.tick(NOW))

    assert not any(one.drifted)
    assert (one.moment_states, one.state) == (["ok", "drifting"], "drifting")
    change = readout_of(fleet).changes("covariance")[0]
    assert (change.statistic, change.features) == ("correlation", ("f0", "f1"))
    assert (change.reference, change.window) == pytest.approx((0.0, 0.6), abs=0.03)
    assert values_of(fleet.tick(NOW), metrics.MULTIVARIATE_DRIFTED, version="1", model=MODEL) == {
        ("mean", "1h"): 0,
        ("covariance", "1h"): 1,
    }


def test_a_shift_is_a_change_of_means_alone_and_told_in_the_features_unit():
    fleet = watched(a_window(shift=0.5))
    means, covariances = readout_of(fleet).tests

    assert means.drifted
    assert not covariances.drifted
    change = readout_of(fleet).changes("mean")[0]
    assert change[:2] == ("mean", ("f2",))
    assert change[2:] == pytest.approx((0.0, 50.0, 0.5 / np.sqrt(1 / 1000 + 1 / 20_000)), abs=5)


def test_a_spread_is_named_as_a_deviation():
    table = a_window()
    table[:, 2] *= 1.5
    change = readout_of(watched(table)).changes("covariance")[0]

    assert change[:2] == ("deviation", ("f2",))
    assert change[2:4] == pytest.approx((100.0, 150.0), rel=0.05)


def test_every_change_has_its_standard_error():
    """Simulated: z of each mean, deviation and correlation varies by one."""
    rng = np.random.default_rng(0)
    factor = np.linalg.cholesky([[1, 0.8, 0], [0.8, 1, 0.3], [0, 0.3, 1]]).T
    tracker = a_tracker(rng.normal(size=(50_000, 3)) @ factor)
    found = readouts(tracker, rng.normal(size=(400, 500, 3)) @ factor, 0.01)
    z: dict[tuple[str, tuple[str, ...]], list[float]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("exporter.monitor.multivariate.CHANGES", 99)
        for readout in found:
            for change in (*readout.changes("mean"), *readout.changes("covariance")):
                z.setdefault((change.statistic, change.features), []).append(change.z)

    assert len(z) == 3 + 3 + 3
    for values in z.values():
        assert np.std(values) == pytest.approx(1.0, abs=0.12)
        assert np.mean(values) == pytest.approx(0.0, abs=0.35), "the reference has an error too"


@pytest.mark.parametrize(
    ("correlation", "n", "drifted"), [(0.2, 20_000, False), (0.4, 20_000, True), (0.4, 500, True), (0.4, 499, False)]
)
def test_drifted_is_enough_samples_and_effect_and_significance(correlation: float, n: int, drifted: bool):
    test = readout_of(watched(a_window(n, correlation=correlation))).tests[1]

    assert test.drifted is drifted
    assert test.enough is (n >= 500)
    if n > 500:
        assert test.p_value < 1e-9, "significance alone is no drift"
        assert test.distance == pytest.approx(correlation**2, rel=0.4)


def test_an_effect_that_chance_can_make_is_no_drift():
    test = readout_of(watched(a_window(500, correlation=0.1), multivariate_threshold=1e-9)).tests[1]
    assert 1e-9 < test.distance < test.critical
    assert not test.drifted


def test_too_few_rows_are_a_state_and_no_number():
    few, nothing = watched(a_window(499)), watched(a_window(1)[:0])
    for fleet, n in ((few, 499), (nothing, 0)):
        snapshot = fleet.tick(NOW)
        lines = {line.split("{")[0] for line in exposed(snapshot) if line.startswith("ml_multivariate")}
        assert lines == {
            "ml_multivariate_window_samples",
            "ml_multivariate_drift_threshold",
            "ml_multivariate_state",
            "ml_multivariate_clipped_values_total",
        }
        assert [*values_of(snapshot, metrics.MULTIVARIATE_SAMPLES).values()] == [n]
        assert view(snapshot).moment_states == ["insufficient_data"] * 2
        assert not readout_of(fleet).changes("covariance")
    enough = watched(a_window(1000)).tick(NOW)
    assert full_series(view(few.tick(NOW))) == full_series(view(enough))


def test_covariances_that_cannot_vary_are_never_judged():
    """Of a fair coin and its copy, every product of deviations is the same."""
    coins = np.repeat(np.arange(2000.0)[:, None] % 2, 2, axis=1)
    means, covariances = readouts(a_tracker(coins), coins[None, :1000], 0.01)[0].tests

    assert means.enough
    assert not covariances.enough
    assert not covariances.drifted


def test_no_verdict_while_the_source_catches_up():
    fleet = watched(a_window(correlation=0.9))
    late = fleet.tick(NOW + 7200, waiting=["p0"])

    assert view(late).moment_states == ["catching_up"] * 2
    assert not values_of(late, metrics.MULTIVARIATE_DRIFTED)
    assert values_of(late, metrics.MULTIVARIATE_DISTANCE)


@pytest.mark.parametrize(("n", "paging"), [(1000, 1), (1001, 0)])
def test_beyond_the_blocks_of_the_reference_it_does_not_page_alone(n: int, paging: int):
    snapshot = watched(a_window(n, correlation=0.9)).tick(NOW)
    assert set(values_of(snapshot, metrics.MULTIVARIATE_PAGING).values()) == {paging}


def test_clipped_values_are_counted():
    table = a_window(600)
    table[:7, 3] = 1e9
    fleet = watched(table)

    clipped = values_of(fleet.tick(NOW), metrics.MULTIVARIATE_CLIPPED, model=MODEL)[("1",)]
    assert clipped == 7 + sum(abs(np.delete(table, 3, 1) / [1, 10, 100]).ravel() > 4.0 * 1.02)
    assert readout_of(fleet).clipped_ratio == clipped / 2400


def test_failed_predictions_have_inputs_like_any_other_and_missing_ones_move_nothing():
    failed = a_fleet(REFERENCE, min_samples=500, alpha=0.001)
    observe(failed, named(a_window()), error=[0] * 1000, now=NOW)
    assert readout_of(failed).tests == readout_of(watched(a_window())).tests

    holed = readout_of(watched(np.full((1000, 4), np.nan)))
    assert holed.tests[0].distance == pytest.approx(0.0, abs=0.01)
    assert holed.tests[1].drifted, "a feature that no longer varies has another spread"


def test_a_window_slides_and_both_tests_count_in_the_budget():
    fleet = a_fleet(REFERENCE, window=Window(60.0, 10, "10m"), min_samples=500)
    observe(fleet, named(a_window(correlation=0.9)), now=NOW)
    assert readout_of(fleet).tests[1].drifted
    observe(fleet, named(a_window()), time=NOW + 660, now=NOW + 660)
    later = readout_of(fleet, NOW + 660)

    assert later.n == 1000
    assert not later.tests[1].drifted
    assert later.alpha == pytest.approx(0.9 / ((4 + 2) * 90 * 144 * 10))


def test_the_threshold_is_that_of_psi_because_both_measure_the_same():
    """Of two normal populations, PSI over ever finer bins is the Jeffreys divergence; so is the distance."""
    shift = 0.3
    edges = np.linspace(-6, 6, 2001)
    p, q = (np.diff(stats.norm.cdf(edges, mean)) for mean in (0.0, shift))
    assert np.sum((p - q) * np.log(p / q)) == pytest.approx(shift**2, rel=1e-3)
    assert thresholds.MULTIVARIATE_THRESHOLD.value == thresholds.PSI_THRESHOLD.value
