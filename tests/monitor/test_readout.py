"""What drift looks like to a user: columns into a fleet, scores and verdicts out."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from scipy import stats

from exporter.monitor.events import NON_FINITE_NUMBER, WRONG_TYPE_NUMBER, FeatureKey
from exporter.monitor.readout import DriftReadout
from exporter.monitor.reference import Reference, Resolution
from tests.builders import (
    COLOUR,
    COLOURS,
    NOW,
    X,
    a_fleet,
    a_reference,
    an_input,
    exposed,
    observe,
    view,
)


def read(reference: Reference, columns: Mapping[FeatureKey, Any], **settings: Any) -> DriftReadout:
    """The scores of a window with these values."""
    fleet = a_fleet(reference, **settings)
    observe(fleet, columns)
    readout = view(fleet.tick(NOW)).drift_readout
    assert readout is not None
    return readout


# ---- sameness --------------------------------------------------------------------------------------------------------


def test_a_stream_of_the_training_data_counts_exactly_as_the_reference():
    rng = np.random.default_rng(0)
    zero_inflated = np.concatenate((np.zeros(900), rng.exponential(size=1100)))
    columns = {
        X: rng.normal(size=2000),
        an_input("zero"): zero_inflated,
        an_input("rounded"): rng.normal(size=2000).round(1),
        an_input("discrete"): rng.integers(0, 12, 2000).astype(float),
        an_input("constant"): np.full(2000, 7.0),
        an_input("holes"): np.where(rng.random(2000) < 0.2, np.nan, rng.normal(size=2000)),
        an_input("faulty"): np.where(rng.random(2000) < 0.1, NON_FINITE_NUMBER, zero_inflated),
        COLOUR: rng.choice([*COLOURS, "rare", None], 2000, p=[0.4, 0.3, 0.2, 0.002, 0.098]).tolist(),
    }

    readout = read(a_reference(columns), columns)

    tracker = readout.tracker
    for (plan, exported), count in zip(tracker.bins, readout.bin_counts, strict=True):
        assert count == exported.reference, (plan.key, exported)
    tested = tracker.live_bins > 1
    assert tested.tolist() == [plan.key.name != "constant" for plan in tracker.features]
    assert np.abs(readout.psi[tested]).max() < 1e-20
    assert np.nanmax(readout.ks) < 1e-12
    assert readout.p_value[tested] == pytest.approx(1)
    assert not readout.drifted.any()


def test_scores_are_those_of_the_values():
    """Psi, p and KS from the raw samples by scipy; the reference has few enough values for KS to be exact."""
    rng = np.random.default_rng(1)
    reference, current = rng.normal(size=200), rng.normal(0.4, 1.2, size=900)
    resolution = Resolution(knots=300)

    readout = read(a_reference({X: reference}, resolution=resolution), {X: current}, min_samples=100, alpha=0.001)

    uppers = [exported.upper for exported in readout.tracker.features[0].bins if exported.upper is not None]
    n, m = (np.histogram(sample, [-1e9, *np.nextafter(uppers[:-1], 9), 1e9])[0] for sample in (reference, current))
    q, p = (n + 0.5) / (200 + 5), (m + 0.5) / (900 + 5)
    assert len(uppers) == 10
    assert readout.psi[0] == pytest.approx(np.sum((p - q) * np.log(p / q)))
    assert readout.p_value[0] == pytest.approx(stats.chi2_contingency([n, m], correction=False).pvalue)
    c = 1 / 200 + 1 / 900
    assert readout.psi_null_mean[0] == pytest.approx(c * 9)
    assert readout.psi_critical[0] == pytest.approx(c * stats.chi2.isf(0.001, 9))
    assert readout.p_above_threshold[0] == pytest.approx(stats.ncx2.sf(readout.psi[0] / c, 9, 0.1 / c))
    exact = stats.ks_2samp(reference, current, method="asymp").statistic
    assert readout.ks[0] == pytest.approx(exact, abs=1e-12)
    assert readout.ks_upper[0] == readout.ks[0]


def test_many_reference_values_bracket_the_exact_ks():
    rng = np.random.default_rng(2)
    reference, current = rng.normal(size=50_000), rng.normal(0.1, 1, size=5000)

    readout = read(a_reference({X: reference}), {X: current})

    exact = stats.ks_2samp(reference, current, method="asymp").statistic
    assert readout.ks[0] <= exact <= readout.ks_upper[0]
    assert readout.ks_upper[0] - readout.ks[0] < 1 / 260


# ---- verdicts --------------------------------------------------------------------------------------------------------


def shifted(by: float, rows: int, seed: int = 5) -> dict[FeatureKey, np.ndarray]:
    return {X: np.random.default_rng(seed).normal(by, 1, rows)}


def test_drift_needs_samples_an_effect_and_significance():
    reference = a_reference({X: np.random.default_rng(4).normal(size=20_000)})

    clear = read(reference, shifted(1.0, 600), min_samples=500)
    assert clear.drifted[0]
    assert clear.psi[0] > clear.tracker.thresholds[0] > clear.psi_critical[0]

    too_few = read(reference, shifted(1.0, 499), min_samples=500)
    assert not too_few.drifted[0]
    assert np.isnan(too_few.psi[0])

    significant_but_small = read(reference, shifted(0.15, 20_000), min_samples=500)
    assert not significant_but_small.drifted[0]
    assert significant_but_small.psi_critical[0] < significant_but_small.psi[0] < 0.1

    large_but_chance = read(reference, shifted(0.0, 25), min_samples=20, alpha=1e-9, psi_threshold=0.01)
    assert not large_but_chance.drifted[0]
    assert large_but_chance.psi_critical[0] > large_but_chance.psi[0] > 0.01


def test_an_effect_below_the_threshold_of_its_feature_is_none():
    reference = a_reference({X: np.random.default_rng(4).normal(size=20_000)})

    assert read(reference, shifted(0.5, 5000)).drifted[0]
    assert not read(reference, shifted(0.5, 5000), feature_psi_thresholds={"x": 0.5}).drifted[0]


def test_one_outlier_does_not_move_psi():
    """Peers that bin over the range of both samples go blind here."""
    rng = np.random.default_rng(6)
    reference = a_reference({X: rng.normal(size=5000)})
    current = rng.normal(0.5, 1, 2000)
    with_outlier = current.copy()
    with_outlier[0] = 1e6

    before, after = (read(reference, {X: values}) for values in (current, with_outlier))

    assert before.drifted[0]
    assert abs(after.psi[0] - before.psi[0]) < 0.01
    assert abs(after.ks[0] - before.ks[0]) < 0.01


def test_a_change_of_categories_is_drift():
    reference = a_reference({COLOUR: ["red", "blue"] * 1000})

    readout = read(reference, {COLOUR: ["red"] * 700 + ["blue"] * 300})

    assert readout.drifted[0]
    assert np.isnan(readout.ks[0]), "categories have no order"


def test_a_rare_category_that_is_missing_by_chance_is_no_drift():
    """Of one in twenty, 250 rows have none with a probability of 3e-6; PSI makes 4e-10 of that, a budget asks 4e-8."""
    rows = np.array(["red"] * 19 + ["blue"])
    reference = a_reference({COLOUR: np.tile(rows, 2000).tolist()})

    without = {n: read(reference, {COLOUR: ["red"] * n}, min_samples=200, alpha=4e-8) for n in (250, 400)}

    assert all(one.psi[0] > max(one.psi_critical[0], 0.1) for one in without.values())
    assert [bool(one.drifted[0]) for one in without.values()] == [False, True]


@pytest.mark.parametrize("bad", [np.nan, WRONG_TYPE_NUMBER, NON_FINITE_NUMBER])
def test_what_is_no_value_takes_no_part_in_the_distribution(bad: float):
    readout = read(a_reference({X: np.arange(5000.0)}), {X: [bad] * 900 + [1.0] * 100})

    assert readout.n[0] == 100
    assert not readout.enough[0]


def test_missing_values_that_the_reference_knows_are_a_bin_and_their_growth_is_drift():
    rng = np.random.default_rng(8)
    holes = np.where(rng.random(5000) < 0.1, np.nan, rng.normal(size=5000))
    current = np.where(rng.random(1000) < 0.9, np.nan, rng.normal(size=1000))

    readout = read(a_reference({X: holes}), {X: current})

    assert readout.n[0] == 1000
    assert readout.drifted[0]


def test_an_unknown_category_of_a_reference_with_too_many_names_is_other():
    names = [f"id-{i}" for i in range(10_100)] + ["common"] * 10_100
    readout = read(a_reference({COLOUR: names}), {COLOUR: ["never seen"] * 400 + ["common"] * 600})

    assert readout.bin_counts.tolist()[:3] == [600, 400, 0]


def test_a_constant_that_starts_to_vary_has_no_score():
    readout = read(a_reference({X: np.full(2000, 7.0)}), {X: np.where(np.arange(1000) % 10 == 0, 7.5, 7.0)})

    assert np.isnan(readout.psi[0]), "one live bin has nothing to compare"


def test_prometheus_can_redo_the_verdict_from_counters():
    """PSI and its critical value from exported counters, ratios, samples and the chi-square quantile alone."""
    fleet = a_fleet(a_reference({X: np.random.default_rng(1).normal(size=5000)}))
    fleet_empty = exposed(fleet.tick(NOW))
    observe(fleet, shifted(0.3, 2000))
    lines = exposed(fleet.tick(NOW))

    def by_bin(metric: str, of: dict[str, float]) -> dict[str, float]:
        return {key.split('bin="')[1]: value for key, value in of.items() if key.startswith(metric + "{")}

    q = by_bin("ml_feature_reference_ratio", lines)
    before, after = (by_bin("ml_feature_bin_observations_total", of) for of in (fleet_empty, lines))
    counts = np.array([after[key] - before[key] for key in q])
    p = (counts + 0.5) / (counts.sum() + len(q) / 2)
    psi = np.sum((p - list(q.values())) * np.log(p / list(q.values())))
    one = {key.split("{")[0]: value for key, value in lines.items()}
    c = 1 / one["ml_feature_reference_samples"] + 1 / counts.sum()
    assert psi == pytest.approx(one["ml_feature_psi"])
    assert c * one["ml_feature_reference_chi2_critical"] == pytest.approx(one["ml_feature_psi_critical"])


def test_a_fleet_of_only_categories_has_no_ks():
    fleet = a_fleet(a_reference({COLOUR: ["a", "b"] * 1000}))
    observe(fleet, {COLOUR: ["a", "b"] * 500})

    assert not any(key.startswith("ml_feature_ks") for key in exposed(fleet.tick(NOW)))


# ---- the list of what to look at first -------------------------------------------------------------------------------


def test_listed_are_features_with_an_effect_at_a_false_discovery_rate_of_five_percent():
    """Forty features without drift and two with a little: enough to be named, too little to page for a quarter."""
    rng = np.random.default_rng(3)
    keys = [an_input(f"f{i}") for i in range(42)]
    reference = a_reference({key: rng.normal(size=20_000) for key in keys})

    readout = read(
        reference, {key: rng.normal(0.2 * (i < 2), 1, 600) for i, key in enumerate(keys)}, psi_threshold=0.03
    )

    assert not readout.drifted.any()
    assert np.flatnonzero(readout.listed).tolist() == [0, 1]
    assert (readout.p_value[2:] < 0.05).any(), "what a level of 5 % for each feature would have listed"
    assert not (readout.listed & (readout.psi <= 0.03)).any()
