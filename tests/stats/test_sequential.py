"""Expected numbers: reference/statistics.md 3.1-3.7, and exact enumeration of small panes.

Simulated shares are compared through their exact intervals and tests, never through a tolerance chosen by eye.
"""

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from exporter.stats import sequential, significance
from exporter.stats.sequential import (
    DistributionEProcess,
    Pane,
    RateEProcess,
    RiskDifference,
    ShiryaevRoberts,
    outcomes,
)

LOOKS = 60
HISTORY = outcomes(500, 50_000)
NO_HISTORY = outcomes(0, 0)
# Canary's share of 1000 requests a look: up from 5 to 50 %. Half-way an incident strikes both versions.
RAMP = np.repeat(np.arange(50, 501, 50), LOOKS // 10)
INCIDENT = np.where(np.arange(LOOKS) < LOOKS // 2, 0.01, 0.03)

Panes = Iterator[Pane]


def rate_panes(seed: int, runs: int, canary, primary, *, n=100, m=900, looks: int = LOOKS) -> Panes:
    rng = np.random.default_rng(seed)
    for p, q, a, b in zip(*(np.broadcast_to(each, looks) for each in (canary, primary, n, m)), strict=True):
        yield Pane(outcomes(rng.binomial(a, p, runs), a), outcomes(rng.binomial(b, q, runs), b))


def distribution_panes(seed: int, runs: int, canary, primary, *, n=100, m=900, looks: int = LOOKS) -> Panes:
    rng = np.random.default_rng(seed)
    laws = (np.broadcast_to(law, (looks, 10)) for law in (canary, primary))
    for p, q, a, b in zip(*laws, *(np.broadcast_to(each, looks) for each in (n, m)), strict=True):
        yield Pane(rng.multinomial(a, p, runs), rng.multinomial(b, q, runs))


def normal_bins(mean: float = 0.0, sd: float = 1.0) -> np.ndarray:
    """Probabilities of N(mean, sd) between the deciles of N(0, 1)."""
    edges = stats.norm.ppf(np.arange(11) / 10)
    return np.diff(stats.norm.cdf(edges, mean, sd))


def log_es(state: RateEProcess | DistributionEProcess, panes: Panes) -> np.ndarray:
    """The e-process after every look, [looks, runs]."""
    each = []
    for pane in panes:
        state = state.update(pane)
        each.append(state.log_e)
    return np.array(each)


def first_alarm(log_e: np.ndarray, alpha: float) -> np.ndarray:
    """Look at which each run reaches 1 / alpha; infinite where it does not."""
    reached = log_e >= np.log(1 / alpha)
    return np.where(reached.any(axis=0), reached.argmax(axis=0) + 1, np.inf)


def alarmed(log_e: np.ndarray, alpha: float) -> np.ndarray:
    return first_alarm(log_e, alpha) < np.inf


def share(hits: np.ndarray) -> tuple[float, float]:
    """99.9 % interval of the probability of which these are draws (Clopper-Pearson)."""
    interval = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(0.999)
    return interval.low, interval.high


def agrees(hits: np.ndarray, printed: float) -> bool:
    """Nothing (p < .001, Fisher) tells our runs from the reference's, of which there were 1500."""
    theirs, ours = round(1500 * printed), int(hits.sum())
    return stats.fisher_exact([[ours, len(hits) - ours], [theirs, 1500 - theirs]]).pvalue > 0.001


def is_median(looks: np.ndarray, expected: float) -> bool:
    """Nothing speaks against `expected` being the median of the law that these were drawn from."""
    return share(looks < np.floor(expected))[0] <= 0.5 <= share(looks <= np.ceil(expected))[1]


def naive_z_alarms(panes: Panes, alpha: float) -> np.ndarray:
    """One-sided z test on the totals, read at every look."""
    total, ever = None, False
    for pane in panes:
        total = pane if total is None else total + pane
        n, m = total.canary.sum(axis=-1), total.primary.sum(axis=-1)
        pooled = (total.canary + total.primary)[..., 0] / (n + m)
        z = (total.canary[..., 0] / n - total.primary[..., 0] / m) / np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
        ever = ever | (z >= stats.norm.isf(alpha))
    return ever


def naive_chi_square_alarms(panes: Panes, alpha: float) -> np.ndarray:
    total, ever = None, False
    for pane in panes:
        total = pane if total is None else total + pane
        starts = np.arange(len(total.canary)) * 10
        ever = ever | (significance.pearson_p(total.primary.ravel(), total.canary.ravel(), starts) < alpha)
    return ever


# Numbers printed in the reference


@pytest.mark.parametrize(
    ("rho", "expected"),
    [
        (1.0, [-0.253757, 0.135996, 1.432386, 1.687331, 4.162404]),
        (1.2, [-0.300914, -0.039592, 0.838903, 0.959373, 2.803931]),
    ],
)
def test_rate_vectors(rho: float, expected: list[float]):
    state, seen = RateEProcess.start(rho, history=HISTORY), []
    for canary, primary in ((1, 9), (3, 8), (4, 10), (2, 9), (5, 9)):
        state = state.update(Pane(outcomes(canary, 100), outcomes(primary, 900)))
        seen.append(state.log_e)

    assert seen == pytest.approx(expected, abs=5e-7)


def test_distribution_vectors():
    state, seen = DistributionEProcess.start(np.zeros(4)), []
    for canary, primary in (
        ([25] * 4, [225] * 4),
        ([10, 20, 30, 40], [230, 220, 225, 225]),
        ([12, 18, 30, 40], [220, 230, 225, 225]),
    ):
        state = state.update(Pane(np.array(canary), np.array(primary)))
        seen.append(state.log_e)

    assert seen == pytest.approx([0, 0, 5.208522], abs=5e-7)


# Canary against primary: error rates


def test_equal_rates_alarm_seldom_however_often_one_looks():
    def panes() -> Panes:
        return rate_panes(1, 4000, 0.01, 0.01)

    for history in (NO_HISTORY, HISTORY):
        log_e = log_es(RateEProcess.start(history=history), panes())
        at_5, at_1 = alarmed(log_e, 0.05), alarmed(log_e, 0.01)
        assert share(at_5)[1] <= 0.05
        assert agrees(at_5, 0.015)
        assert share(at_1)[1] <= 0.01
        assert agrees(at_1, 0.0024)
    assert agrees(naive_z_alarms(panes(), 0.05), 0.301)


def test_a_ramp_with_a_shared_incident_is_no_defect():
    def panes() -> Panes:
        return rate_panes(2, 4000, INCIDENT, INCIDENT, n=RAMP, m=1000 - RAMP)

    ours = alarmed(log_es(RateEProcess.start(history=HISTORY), panes()), 0.05)

    assert share(ours)[1] <= 0.05
    assert agrees(ours, 0.024)
    assert agrees(naive_z_alarms(panes(), 0.05), 0.999)


@pytest.mark.parametrize(
    ("rho", "delta", "canary", "at_5", "at_1"), [(1.2, 0, 0.012, 0.011, 0.002), (1.0, 0.005, 0.015, 0.0125, 0.003)]
)
def test_the_highest_tolerated_rate_is_tolerated(rho: float, delta: float, canary: float, at_5: float, at_1: float):
    log_e = log_es(RateEProcess.start(rho, delta), rate_panes(3, 4000, canary, 0.01))
    for alpha, expected in ((0.05, at_5), (0.01, at_1)):
        assert share(alarmed(log_e, alpha))[1] <= alpha
        assert agrees(alarmed(log_e, alpha), expected)


@pytest.mark.parametrize(
    ("canary", "history", "median"),
    [
        (0.02, NO_HISTORY, 18),
        (0.02, HISTORY, 16.5),
        (0.03, HISTORY, 6),
        (0.05, NO_HISTORY, 3),
        (0.05, HISTORY, 2),
        (0.10, NO_HISTORY, 2),
        (0.10, HISTORY, 1),
    ],
)
def test_power_against_a_worse_canary(canary: float, history: np.ndarray, median: float):
    log_e = log_es(RateEProcess.start(history=history), rate_panes(4, 1000, canary, 0.01))

    assert is_median(first_alarm(log_e, 0.01), median)
    assert share(alarmed(log_e, 0.01))[0] > 0.98


def test_power_against_a_slightly_worse_canary():
    log_e = log_es(RateEProcess.start(), rate_panes(5, 2000, 0.015, 0.01))

    assert agrees(alarmed(log_e, 0.01), 0.56)


@pytest.mark.parametrize(("canary", "median"), [(0.02, 28), (0.03, 8)])
def test_power_beyond_what_is_tolerated(canary: float, median: float):
    log_e = log_es(RateEProcess.start(rho=1.2), rate_panes(6, 1000, canary, 0.01))

    assert is_median(first_alarm(log_e, 0.01), median)


def test_a_canary_three_times_as_bad_is_found_by_look_20_and_five_times_as_bad_by_look_10():
    for canary, look in ((0.03, 20), (0.05, 10)):
        log_e = log_es(RateEProcess.start(history=HISTORY), rate_panes(8, 2000, canary, 0.01, looks=look))
        assert share(alarmed(log_e, 0.01))[0] >= 0.99


# Canary against primary: distributions


def test_equal_distributions_alarm_seldom_however_often_one_looks():
    def panes() -> Panes:
        return distribution_panes(11, 6000, normal_bins(), normal_bins())

    log_e = log_es(DistributionEProcess.start(np.zeros(10)), panes())
    at_5, at_1 = alarmed(log_e, 0.05), alarmed(log_e, 0.01)

    assert share(at_5)[1] <= 0.05
    assert agrees(at_5, 0.017)
    assert share(at_1)[1] <= 0.01
    assert agrees(at_1, 0.0035)
    assert agrees(naive_chi_square_alarms(panes(), 0.05), 0.346)


def test_a_ramp_with_a_shared_shift_is_no_difference():
    laws = np.where((np.arange(LOOKS) < LOOKS // 2)[:, None], normal_bins(), normal_bins(0.3))

    def panes() -> Panes:
        return distribution_panes(12, 2000, laws, laws, n=RAMP, m=1000 - RAMP)

    ours = alarmed(log_es(DistributionEProcess.start(np.zeros(10)), panes()), 0.05)

    assert share(ours)[1] <= 0.05
    assert agrees(ours, 0.020)
    assert share(naive_chi_square_alarms(panes(), 0.05))[0] > 0.99


@pytest.mark.parametrize(
    ("canary", "median", "by_look_60"),
    [
        (normal_bins(0.1), 29, 0.95),
        (normal_bins(0.2), 7, 1.0),
        (normal_bins(0.5), 2, 1.0),
        (normal_bins(0, 1.3), 4, 1.0),
        (0.95 * normal_bins() + 0.05 * np.eye(10)[9], 13, 1.0),
        (0.90 * normal_bins() + 0.10 * np.eye(10)[9], 4, 1.0),
    ],
    ids=["shift .1", "shift .2", "shift .5", "sd x 1.3", "5 % in one bin", "10 % in one bin"],
)
def test_power_against_another_distribution(canary: np.ndarray, median: float, by_look_60: float):
    log_e = log_es(DistributionEProcess.start(np.zeros(10)), distribution_panes(13, 1000, canary, normal_bins()))

    assert is_median(first_alarm(log_e, 0.01), median)
    assert agrees(alarmed(log_e, 0.01), by_look_60)


# Canary against primary: laws


counts = st.integers(0, 30)
rate_state = st.builds(
    lambda rho, delta, history, past: RateEProcess.start(rho, delta, outcomes(history, 60)).update(past),
    st.one_of(st.just(1.0), st.floats(0.5, 3)),
    st.one_of(st.just(0.0), st.floats(0, 0.3)),
    counts,
    st.builds(lambda x, y: Pane(outcomes(x, 40), outcomes(y, 30)), counts, counts),
)
distribution_state = st.builds(
    lambda history, canary, primary: DistributionEProcess.start(np.array(history)).update(
        Pane(np.array(canary), np.array(primary))
    ),
    *[st.tuples(counts, counts, counts)] * 3,
)


def every_pane(n: int, m: int, categories: int) -> Pane:
    """All tables with n canary and m primary outcomes: canary along the first axis, primary along the second."""

    def tables(total: int) -> np.ndarray:
        return np.array([t for t in product(range(total + 1), repeat=categories) if sum(t) == total])

    return Pane(tables(n)[:, None, :], tables(m)[None, :, :])


def probabilities(pane: Pane, canary: np.ndarray, primary: np.ndarray) -> np.ndarray:
    n, m = pane.canary.sum(axis=-1), pane.primary.sum(axis=-1)
    return stats.multinomial.pmf(pane.canary, n, canary) * stats.multinomial.pmf(pane.primary, m, primary)


@given(rate_state, st.integers(1, 7), st.integers(1, 7), st.floats(0, 1), st.floats(0, 1))
def test_no_pane_raises_the_evidence_on_average_while_the_rate_is_tolerated(
    state: RateEProcess, n: int, m: int, primary: float, below: float
):
    canary = below * min(1.0, state.rho * primary + state.delta)
    pane = every_pane(n, m, 2)
    chance = probabilities(pane, np.array([canary, 1 - canary]), np.array([primary, 1 - primary]))

    assert chance.sum() == pytest.approx(1)
    assert (chance * np.exp(state.update(pane).log_e)).sum() <= np.exp(state.log_e) * (1 + 1e-9)


@given(distribution_state, st.integers(1, 4), st.integers(1, 5), st.tuples(counts, counts, counts).filter(any))
def test_no_pane_raises_the_evidence_on_average_while_the_law_is_shared(
    state: DistributionEProcess, n: int, m: int, law: tuple[int, ...]
):
    pane = every_pane(n, m, 3)
    shared = np.array(law) / sum(law)
    chance = probabilities(pane, shared, shared)

    assert chance.sum() == pytest.approx(1)
    assert (chance * np.exp(state.update(pane).log_e)).sum() <= np.exp(state.log_e) * (1 + 1e-9)


@given(rate_state, counts)
def test_a_pane_of_one_version_is_no_evidence_about_rates(state: RateEProcess, bad: int):
    some, none = outcomes(bad, 50), outcomes(0, 0)
    for pane in (Pane(none, none), Pane(some, none), Pane(none, some)):
        after = state.update(pane)
        assert after.log_e == state.log_e
        assert (after.canary - state.canary).tolist() == pane.canary.tolist()
        assert (after.primary - state.primary).tolist() == pane.primary.tolist()


@given(distribution_state, st.tuples(counts, counts, counts))
def test_a_pane_of_one_version_is_no_evidence_about_distributions(state: DistributionEProcess, table: tuple[int, ...]):
    some, none = np.array(table), np.zeros(3, np.int64)
    for pane in (Pane(none, none), Pane(some, none), Pane(none, some)):
        assert state.update(pane).log_e == state.log_e


@given(rate_state, counts, counts)
def test_an_update_leaves_the_state_before_it_alone(state: RateEProcess, x: int, y: int):
    before = state.canary.copy(), state.primary.copy(), state.log_bets.copy()
    pane = Pane(outcomes(x, 30), outcomes(y, 90))

    once, again = state.update(pane), state.update(pane)

    assert once.log_e == again.log_e
    for was, now in zip(before, (state.canary, state.primary, state.log_bets), strict=True):
        assert was.tolist() == now.tolist()


def test_runs_side_by_side_are_the_runs_one_by_one():
    panes = list(rate_panes(14, 3, 0.03, 0.01, looks=5))
    together, difference = RateEProcess.start(1.2), RiskDifference()
    for pane in panes:
        together, difference = together.update(pane), difference.update(pane)

    for run in range(3):
        alone, apart = RateEProcess.start(1.2), RiskDifference()
        for pane in panes:
            one = Pane(pane.canary[run], pane.primary[run])
            alone, apart = alone.update(one), apart.update(one)
        assert alone.log_e == pytest.approx(together.log_e[run], rel=1e-12)
        assert apart.difference == pytest.approx(difference.difference[run], rel=1e-12)


def test_panes_of_several_processes_add():
    first, second = Pane(outcomes(1, 40), outcomes(3, 300)), Pane(outcomes(2, 60), outcomes(5, 600))
    both = first + second

    assert both.canary.tolist() == outcomes(3, 100).tolist()
    assert both.primary.tolist() == outcomes(8, 900).tolist()


# Drift from a fixed rate


def test_e_sr_of_one_alternative_is_the_likelihood_ratio():
    p_null, bad, n = 0.11, 17, 100
    odds = sequential.ODDS_RATIOS * p_null / (1 - p_null)
    ratios = stats.binom.pmf(bad, n, odds / (1 + odds)) / stats.binom.pmf(bad, n, p_null)

    once = ShiryaevRoberts.start(p_null).update(bad, n)
    twice = once.update(bad, n)

    assert np.exp(once.log_m) == pytest.approx(ratios)
    assert np.exp(twice.log_m) == pytest.approx((ratios + 1) * ratios)
    assert np.exp(twice.log_statistic) == pytest.approx(((ratios + 1) * ratios).mean())


@given(st.floats(1e-5, 0.999), st.floats(0, 1), st.integers(0, 30), st.integers(1, 30))
def test_e_sr_rises_by_one_a_pane_on_average_at_the_null_rate_and_by_less_below(
    p_null: float, below: float, past: int, n: int
):
    state = ShiryaevRoberts.start(p_null).update(past, 30)
    bad = np.arange(n + 1)
    after = np.exp(state.update(bad, n).log_statistic)
    limit = np.exp(state.log_statistic) + 1

    assert (stats.binom.pmf(bad, n, below * p_null) * after).sum() <= limit * (1 + 1e-9)
    assert (stats.binom.pmf(bad, n, p_null) * after).sum() == pytest.approx(limit, rel=1e-9)


def test_e_sr_does_not_count_panes_without_data_however_many():
    state = ShiryaevRoberts.start(np.array([0.11, 0.01])).update(np.array([17, 3]), np.array([100, 100]))
    after = state.update(np.array([0, 0]), np.array([0, 100]))

    assert after.log_m[0].tolist() == state.log_m[0].tolist()
    assert np.all(np.exp(after.log_m[1]) < np.exp(state.log_m[1]) + 1)


def test_e_sr_watches_each_of_many_rates_by_itself():
    rng = np.random.default_rng(20)
    p_null = rng.uniform(1e-4, 0.5, 500)
    n = rng.integers(0, 200, (10, 500))
    bad = rng.binomial(n, p_null)
    together = ShiryaevRoberts.start(p_null)
    for k, m in zip(bad, n, strict=True):
        together = together.update(k, m)
    assert together.log_m.shape == (500, len(sequential.ODDS_RATIOS))

    for feature in (0, 250, 499):
        alone = ShiryaevRoberts.start(p_null[feature])
        for k, m in zip(bad[:, feature], n[:, feature], strict=True):
            alone = alone.update(k, m)
        assert together.log_statistic[feature] == pytest.approx(alone.log_statistic)
        assert together.alarms(20.0)[feature] == alone.alarms(20.0)


def e_sr_alarms(seed: int, rates: np.ndarray, runs: int, panes: int, a: float) -> np.ndarray:
    """Pane of the first alarm against p_null = .11, 100 labels a pane, [runs, rates]."""
    rng = np.random.default_rng(seed)
    state, first = ShiryaevRoberts.start(np.full(len(rates), 0.11)), np.full((runs, len(rates)), np.inf)
    for pane in range(1, panes + 1):
        state = state.update(rng.binomial(100, rates, first.shape), 100)
        first[state.alarms(a) & np.isinf(first)] = pane
        if np.all(first < np.inf):
            break
    return first


def test_false_alarms_of_e_sr_within_h_panes_are_at_most_h_in_a():
    first = e_sr_alarms(21, np.array([0.10, 0.11]), 4000, 200, a=200)
    for h in (5, 20, 50, 100, 200):
        for column in first.T:
            assert share(column <= h)[1] <= h / 200


def test_false_alarms_of_e_sr_that_starts_again_are_h_in_a_at_most_on_average():
    rng = np.random.default_rng(24)
    state, alarms = ShiryaevRoberts.start(np.full(4000, 0.11)), np.zeros(4000)
    for pane in range(1, 201):
        state = state.update(rng.binomial(100, 0.11, 4000), 100)
        alarmed = state.alarms(20)
        alarms += alarmed
        state = state.restart(alarmed)
        assert not state.alarms(20).any()
        if pane % 20 == 0:
            assert alarms.mean() + 3.3 * alarms.std() / np.sqrt(4000) <= pane / 20
    assert alarms.max() > 1


def test_false_alarms_of_e_sr_in_30_days_of_panes():
    in_order, edge = e_sr_alarms(22, np.array([0.10, 0.11]), 400, 8640, a=8640).T

    assert agrees(in_order < np.inf, 0.005)
    assert agrees(edge < np.inf, 0.24)


def test_delay_of_e_sr():
    first = e_sr_alarms(23, np.array([0.13, 0.15, 0.20, 0.30]), 1000, 600, a=8640)

    for looks, median in zip(first.T, (41, 12, 3, 1), strict=True):
        assert is_median(looks, median)


# Effect size


def missed(panes: Panes, truth: np.ndarray, alpha: float = 0.05, tau: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    """Runs in which the true difference ever left the interval: ours, and that with the variance of equal rates."""
    state, pooled, ours, theirs = RiskDifference(), 0.0, False, False
    for pane, difference in zip(panes, np.broadcast_to(truth, LOOKS), strict=True):
        state = state.update(pane)
        lower, upper = state.interval(alpha, tau)
        ours = ours | (lower > difference) | (upper < difference)
        n, m = pane.canary.sum(axis=-1), pane.primary.sum(axis=-1)
        pool = (pane.canary + pane.primary)[..., 0] / (n + m)
        pooled += n * m / (n + m) * pool * (1 - pool)
        v = np.maximum(pooled / state.weight**2, 1e-12)
        half = np.sqrt(v * (v + tau**2) / tau**2 * (np.log((v + tau**2) / v) + 2 * np.log(1 / alpha)))
        theirs = theirs | (np.abs(state.difference - difference) > half)
    return ours, theirs


def test_interval_of_equal_rates_holds_at_all_looks():
    for panes, expected in (
        (rate_panes(31, 4000, 0.01, 0.01), 0.023),
        (rate_panes(32, 4000, INCIDENT, INCIDENT, n=RAMP, m=1000 - RAMP), 0.030),
    ):
        ours, theirs = missed(panes, np.array(0.0))
        assert share(ours)[1] <= 0.05
        assert agrees(ours, expected)
        assert share(theirs)[1] <= 0.05


@pytest.mark.parametrize(
    ("canary", "primary", "n", "m"),
    [
        (0.03, 0.01, 100, 900),
        (0.10, 0.01, 100, 900),
        (0.01, 0.03, 100, 900),
        (0.03, 0.01, 5, 45),
        (0.25, 0.20, 500, 500),
    ],
)
def test_interval_of_different_rates_holds_at_all_looks(canary: float, primary: float, n: int, m: int):
    ours, _ = missed(rate_panes(33, 4000, canary, primary, n=n, m=m), np.array(canary - primary))

    assert share(ours)[1] <= 0.05


def test_the_variance_of_equal_rates_misses_a_canary_that_is_three_times_as_bad():
    _, theirs = missed(rate_panes(34, 4000, 0.03, 0.01), np.array(0.02))

    assert share(theirs)[0] > 0.2


@given(st.integers(1, 500), st.integers(1, 500), st.floats(0, 1), st.floats(0, 1))
def test_risk_difference_of_one_pane(n: int, m: int, p: float, q: float):
    x, y = round(n * p), round(m * q)
    state = RiskDifference().update(Pane(outcomes(x, n), outcomes(y, m)))
    variance = (state.difference * state.sato_p + state.sato_q) / state.weight**2

    assert state.difference == pytest.approx(x / n - y / m, abs=1e-12)
    assert variance == pytest.approx(x / n * (1 - x / n) / n + y / m * (1 - y / m) / m, abs=1e-12)


def test_risk_difference_weighs_panes_as_mantel_and_haenszel_do():
    state = RiskDifference()
    for x, n, y, m in ((1, 50, 10, 950), (9, 500, 4, 500), (0, 0, 3, 100)):
        state = state.update(Pane(outcomes(x, n), outcomes(y, m)))
    light, heavy = 1 / (1 / 50 + 1 / 950), 1 / (1 / 500 + 1 / 500)

    expected = (light * (1 / 50 - 10 / 950) + heavy * (9 / 500 - 4 / 500)) / (light + heavy)
    lower, upper = state.interval(0.05, 0.01)
    assert state.difference == pytest.approx(expected)
    assert lower < expected < upper


def test_risk_difference_without_data_knows_nothing():
    without_canary = RiskDifference().update(Pane(outcomes(0, 0), outcomes(3, 100)))
    for state in (RiskDifference(), without_canary):
        assert np.isnan(state.difference)
        assert state.interval(0.05, 0.01) == (-1.0, 1.0)


def test_no_bad_outcome_yet_is_not_no_difference():
    few, many = (RiskDifference().update(Pane(outcomes(0, n), outcomes(0, 9 * n))) for n in (100, 10_000))
    (few_low, few_high), (low, high) = few.interval(0.05, 0.01), many.interval(0.05, 0.01)

    # Not a single bad outcome of n has probability 5 % at a rate of 3 / n: no earlier may the interval exclude that.
    assert few_high == pytest.approx(-few_low)
    assert few_high > 3 / 100
    assert high == pytest.approx(-low)
    assert 3 / 10_000 < high < 0.001


# Impossible input


def two(*values: float) -> np.ndarray:
    return np.array(values)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: outcomes(5, 4), "more bad outcomes than outcomes"),
        (lambda: outcomes(-1, 4), "negative count of bad outcomes"),
        (lambda: outcomes(np.array([1, 9]), np.array([2, 3])), "more bad outcomes"),
        (lambda: outcomes(np.nan, 4), "bad outcomes"),
        (lambda: Pane(two(1, 2), two(1, 2, 3)), "2 categories where 3 are expected"),
        (lambda: Pane(two(1, -2), two(1, 2)), "canary: negative counts"),
        (lambda: Pane(two(1, 2), two(1, np.nan)), "primary: negative counts"),
        (lambda: Pane(two(1, 2), two(1, 2)) + Pane(two(1, 2, 3), two(1, 2, 3)), "3 categories where 2"),
        (lambda: RateEProcess.start(rho=0), "rho must be above 0: 0"),
        (lambda: RateEProcess.start(rho=np.nan), "rho must be"),
        (lambda: RateEProcess.start(delta=-0.01), "delta must be at least 0"),
        (lambda: RateEProcess.start(delta=1), "delta must be .* below 1: 1"),
        (lambda: RateEProcess.start(history=two(1, 2, 3)), "history: 3 categories where 2"),
        (lambda: RateEProcess.start().update(Pane(two(1, 2, 3), two(1, 2, 3))), "pane: 3 categories where 2"),
        (lambda: RiskDifference().update(Pane(two(1, 2, 3), two(1, 2, 3))), "pane: 3 categories where 2"),
        (lambda: DistributionEProcess.start(two(1, -1)), "history: negative"),
        (lambda: DistributionEProcess.start(np.zeros(4)).update(Pane(two(1, 2), two(1, 2))), "2 categories where 4"),
        (lambda: ShiryaevRoberts.start(0.0), "p_null must lie between 0 and 1"),
        (lambda: ShiryaevRoberts.start(np.array([0.5, 1.0])), "p_null must lie"),
        (lambda: ShiryaevRoberts.start(0.1).update(5, 4), "more bad outcomes"),
        (lambda: ShiryaevRoberts.start(0.1).update(-1, 4), "negative count"),
    ],
)
def test_impossible_input_is_named(call, message: str):
    with pytest.raises(ValueError, match=message):
        call()
