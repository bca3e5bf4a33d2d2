"""Expected numbers: reference/statistics.md 1.4 and 1.6, and scipy.stats as an independent oracle."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from exporter.stats import distances, significance


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def psi_of(reference: np.ndarray, current: np.ndarray) -> np.ndarray:
    starts = ints(0)
    return distances.psi(distances.smoothed(reference, starts), distances.smoothed(current, starts), starts)


def test_seeded_multinomials():
    rng = np.random.default_rng(12345)
    reference, current = rng.multinomial(10_000, [0.1] * 10), rng.multinomial(500, [0.1] * 10)
    freedom = ints(9)
    c = significance.psi_scale(ints(10_000), ints(500))
    psi = psi_of(reference, current)

    assert current.tolist() == [55, 49, 52, 47, 52, 45, 39, 65, 39, 57]
    assert psi == pytest.approx([0.029199], abs=5e-7)
    assert significance.psi_null_mean(c, freedom) == pytest.approx([0.0189], abs=1e-12)
    assert significance.psi_critical(c, 0.01, freedom) == pytest.approx([0.045499], abs=5e-7)
    assert significance.p_above(psi, 0.0, c, freedom) == pytest.approx([0.125765], abs=5e-7)


def test_numbers_printed_in_the_readme_of_psi_inference():
    reference, current = ints(253, 302, 204, 134, 72, 26, 8), ints(177, 262, 285, 158, 88, 25, 6)
    freedom = ints(6)
    c = significance.psi_scale(reference.sum(keepdims=True), current.sum(keepdims=True))
    psi = psi_of(reference, current)

    assert psi == pytest.approx([0.067254], abs=5e-7)
    assert significance.psi_critical(c, 0.05, freedom) == pytest.approx([0.0252], abs=5e-5)
    assert significance.p_above(psi, 0.0, c, freedom) == pytest.approx([7.9e-6], abs=5e-8)


@pytest.mark.parametrize(
    ("n", "m", "ten_bins", "twenty_bins"),
    [
        (1_000, 1_000, (0.03384, 0.04333, 0.06744), (0.06029, 0.07238, 0.10159)),
        (10_000, 10_000, (0.00338, 0.00433, 0.00674), (0.00603, 0.00724, 0.01016)),
        (100_000, 100_000, (0.00034, 0.00043, 0.00067), (0.00060, 0.00072, 0.00102)),
        (10_000, 500, (0.03553, 0.04550, 0.07081), (0.06330, 0.07600, 0.10667)),
        (10_000, 1_000, (0.01861, 0.02383, 0.03709), (0.03316, 0.03981, 0.05588)),
        (100_000, 200, (0.08476, 0.10855, 0.16894), (0.15102, 0.18132, 0.25449)),
        (100_000, 1_000, (0.01709, 0.02188, 0.03406), (0.03044, 0.03655, 0.05130)),
    ],
)
def test_table_of_critical_values(n: int, m: int, ten_bins: tuple[float, ...], twenty_bins: tuple[float, ...]):
    c = significance.psi_scale(ints(n), ints(m))

    for bins, row in ((10, ten_bins), (20, twenty_bins)):
        for alpha, expected in zip((0.05, 0.01, 0.0001), row, strict=True):
            assert significance.psi_critical(c, alpha, ints(bins - 1)) == pytest.approx([expected], abs=5e-6)


def test_needed_samples_quoted_by_the_default_of_min_samples():
    """90 % power at PSI 0.1: 417 samples at alpha 1e-4 and 263 at 1e-2 (reference of 50,000, 10 bins)."""
    for m, alpha in ((417, 1e-4), (263, 1e-2)):
        c = significance.psi_scale(ints(50_000), ints(m))
        critical = significance.psi_critical(c, alpha, ints(9))
        power = stats.ncx2.sf(critical / c, 9, 0.1 / c)
        assert power == pytest.approx([0.9], abs=0.002)


@given(
    st.floats(1e-6, 1),
    st.floats(0, 0.5),
    st.integers(100, 100_000),
    st.integers(100, 100_000),
    st.floats(1, 39),
)
def test_p_above_is_the_tail_of_the_noncentral_chi_square(psi: float, threshold: float, n: int, m: int, df: float):
    c = significance.psi_scale(ints(n), ints(m))
    p = significance.p_above(np.array([psi]), threshold, c, np.array([df]))

    x, nc = psi / c, threshold / c
    expected = stats.ncx2.sf(x, df, nc) if threshold else stats.chi2.sf(x, df)
    assert p == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert 0 <= p[0] <= 1


def test_p_above_takes_a_threshold_for_each_feature():
    c, freedom = np.array([0.002, 0.002]), ints(9, 9)
    both = significance.p_above(np.array([0.12, 0.12]), np.array([0.1, 0.0]), c, freedom)
    one, other = (significance.p_above(np.array([0.12]), t, c[:1], freedom[:1])[0] for t in (0.1, 0.0))

    assert both.tolist() == [one, other]
    assert other < one


count = st.one_of(st.just(0), st.integers(0, 400))
table = st.lists(st.tuples(count, count), min_size=2, max_size=12).filter(
    lambda rows: sum(n > 0 for n, _ in rows) > 1 and any(m for _, m in rows)
)


@given(st.lists(table, min_size=1, max_size=4))
def test_pearson_is_the_two_sample_chi_square_test_without_correction(tables: list[list[tuple[int, int]]]):
    flat = np.array([row for rows in tables for row in rows], np.int64)
    starts = np.cumsum([0, *map(len, tables[:-1])])

    p = significance.pearson_p(flat[:, 0], flat[:, 1], starts)

    for value, rows in zip(p, tables, strict=True):
        # A bin that is empty in both samples is no part of the table for scipy.
        occupied = np.array([row for row in rows if sum(row)]).T
        expected = stats.chi2_contingency(occupied, correction=False).pvalue
        assert value == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_too_little_to_compare_is_nan_and_never_a_number():
    no_freedom, none = ints(0), ints(0)
    c = significance.psi_scale(ints(1000), none)

    assert np.isinf(c)
    assert np.isnan(significance.psi_null_mean(np.array([0.1]), no_freedom))
    assert np.isnan(significance.psi_critical(np.array([0.1]), 0.05, no_freedom))
    assert np.isnan(significance.p_above(np.array([0.1]), 0.1, np.array([0.1]), no_freedom))
    assert np.isnan(significance.pearson_p(ints(10), ints(10), ints(0)))
    assert np.isnan(significance.pearson_p(ints(10, 10), ints(0, 0), ints(0)))
    assert np.isnan(significance.ks_critical(ints(1000), none, 0.05))


@given(
    st.lists(
        st.lists(st.tuples(st.integers(1, 500), st.integers(0, 500)), min_size=2, max_size=12), min_size=1, max_size=4
    )
)
def test_the_likelihood_ratio_is_that_of_two_samples(tables: list[list[tuple[int, int]]]):
    reference, current = (ints(*(pair[i] for table in tables for pair in table)) for i in (0, 1))
    starts = np.cumsum([0, *map(len, tables[:-1])])
    found = significance.likelihood_ratio(reference, current, starts)
    for table, value in zip(tables, found, strict=True):
        counts = np.array(table).T
        if counts[1].any():
            expected = stats.chi2_contingency(counts, correction=False, lambda_="log-likelihood").statistic
            assert value == pytest.approx(expected, abs=1e-8)
        else:
            assert value == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize(
    ("shares", "m", "at_least"),
    [
        ([0.1] * 10, 250, 4),
        ([0.5, 0.25, 0.12, 0.06, 0.03, 0.02, 0.02], 500, 15),
        ([0.95, 0.05], 500, 10),
        ([0.98, 0.02], 1000, 15),
    ],
)
def test_only_with_the_likelihood_ratio_the_level_is_kept_where_a_budget_puts_it(
    shares: list[float], m: int, at_least: float
):
    """Once in 26 million looks, so by importance sampling: from a Dirichlet that is as wide as what is rare."""
    rng = np.random.default_rng(1)
    alpha, draws, n = 3.86e-8, 100_000, 40_000
    p, bins = np.array(shares), len(shares)
    critical = float(stats.chi2.isf(alpha, bins - 1))
    concentration = p * ((m - 1) / (critical / (bins - 1) - 1) - 1)
    current = rng.multinomial(m, rng.dirichlet(concentration, draws))
    reference = rng.multinomial(n, p, draws)
    rare = stats.dirichlet_multinomial(concentration, m)
    weight = np.exp(stats.multinomial(m, p).logpmf(current) - rare.logpmf(current))
    starts = np.arange(draws) * bins
    psi = distances.psi(
        distances.smoothed(reference.ravel(), starts), distances.smoothed(current.ravel(), starts), starts
    )
    passes = psi > critical * (1 / n + 1 / m)
    both = passes & (significance.likelihood_ratio(reference.ravel(), current.ravel(), starts) > critical)

    assert np.mean(weight * passes) / alpha > at_least
    assert np.mean(weight * both) / alpha < 1.15


@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.001])
def test_ks_critical_is_where_the_p_value_of_stephens_equals_alpha(alpha: float):
    n, m = ints(1000, 10_000, 200_000), ints(1000, 500, 3_000_000)
    critical = significance.ks_critical(n, m, alpha)

    root = np.sqrt(n * (m / (n + m)))
    assert stats.kstwobign.sf((root + 0.12 + 0.11 / root) * critical) == pytest.approx([alpha] * 3)
    # Close to the exact law for samples of this size.
    assert stats.kstwo.sf(critical[0], 500) == pytest.approx(alpha, rel=0.05)


@given(st.integers(0, 3000), st.integers(1, 3000), st.sampled_from([0.9, 0.95, 0.999]))
def test_wilson_interval(successes: int, n: int, level: float):
    successes = min(successes, n)
    lower, upper = significance.wilson(np.array([successes]), np.array([n]), stats.norm.isf((1 - level) / 2))

    expected = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    assert (lower[0], upper[0]) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_wilson_without_data_knows_nothing():
    lower, upper = significance.wilson(np.array([0.0]), np.array([0.0]), 1.96)

    assert (lower[0], upper[0]) == (0.0, 1.0)


def test_the_highest_rate_is_the_one_that_so_few_would_be_bad_of_just_as_rarely():
    bad, n = np.array([0, 1, 7, 99, 0]), np.array([100, 50, 2000, 100, 1])
    for k, m, rate in zip(bad, n, significance.highest_rate(bad, n, 0.999), strict=True):
        assert stats.binom.cdf(k, m, rate) == pytest.approx(0.001)
    assert significance.highest_rate(np.array([0, 5]), np.array([0, 5]), 0.999).tolist() == [1.0, 1.0]


def test_the_level_that_a_budget_leaves_to_a_test():
    """50 features in tumbling windows of 15 minutes, a page a quarter: 2.3e-6 (statistics.md 0.3)."""
    quarter_s = 90 * 86400

    tumbling = significance.budgeted_alpha(1, quarter_s, 50, 900, 1)
    assert tumbling == pytest.approx(2.3e-6, rel=0.01)
    assert significance.budgeted_alpha(1, quarter_s, 50, 900, 60) == pytest.approx(tumbling / 60)
    assert significance.budgeted_alpha(3, quarter_s, 25, 900, 1) == pytest.approx(tumbling * 6)
    assert significance.budgeted_alpha(1, 3600, 10, 86400, 1) == 0.1, (
        "a window longer than the period is looked at once"
    )
    assert significance.budgeted_alpha(1, 900, 0, 900, 1) == 1, "nothing is tested"


def test_blocks_of_independent_rows_calibrate_to_the_chi_square_law():
    rng = np.random.default_rng(3)
    found = np.array(
        [significance.calibrate(blocks, blocks.sum(axis=0)) for blocks in rng.multinomial(1000, [0.1] * 10, (300, 200))]
    )
    g, freedom, p = found.T

    assert np.median(g) == pytest.approx(1, abs=0.03)
    assert np.median(freedom) == pytest.approx(9, abs=0.3)
    assert (2 * g * g * freedom).min() >= 18 - 1e-9, "the variance is never less than independent rows have"
    assert (g * freedom).min() >= 9 - 1e-9, "nor is the mean"
    # Smoothed PSI is a touch smaller than the statistic whose law this is.
    assert 0.02 <= np.mean(p < 0.05) <= 0.08


def test_a_calibration_has_the_mean_and_variance_of_the_blocks():
    """Blocks that differ by a season: Satterthwaite's g and nu give both moments back."""
    rng = np.random.default_rng(4)
    tilt = 1 + 0.3 * np.outer(np.sin(np.arange(50)), np.resize([1, -1], 10))
    blocks = np.array([rng.multinomial(1000, 0.1 * one) for one in tilt])
    reference = blocks.sum(axis=0)

    g, freedom, p = significance.calibrate(blocks, reference)

    x = [psi_of(reference, one)[0] / (1 / 1000 - 1 / 50_000) for one in blocks]
    assert g * freedom == pytest.approx(np.mean(x))
    assert 2 * g * g * freedom == pytest.approx(np.var(x, ddof=1))
    assert p < 1e-100


def test_a_pearson_p_value_is_calibrated_by_scale_and_freedom():
    reference, current, starts = ints(500, 300, 200), ints(70, 20, 10), ints(0)
    statistic = stats.chi2_contingency([reference, current], correction=False).statistic

    p = significance.pearson_p(reference, current, starts, 1.5, 0.8)

    assert p == pytest.approx([stats.chi2.sf(statistic / 1.5, 2 * 0.8)])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.sampled_from([0.01, 0.05, 0.5]))
def test_discoveries_are_those_of_benjamini_and_hochberg(values: list[float], q: float):
    p = np.array(values)

    found = significance.discoveries(p, q)

    adjusted = stats.false_discovery_control(p)
    clear = np.abs(adjusted - q) > 1e-12
    assert found[clear].tolist() == (adjusted <= q)[clear].tolist()


def test_what_was_not_tested_is_no_discovery_and_makes_none_harder():
    p = np.array([0.03, np.nan, 0.9])

    assert significance.discoveries(p, 0.05).tolist() == [False, False, False]
    assert significance.discoveries(p[:2], 0.05).tolist() == [True, False]
    assert significance.discoveries(p[:0], 0.05).tolist() == []
