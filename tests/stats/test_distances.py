import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats
from scipy.spatial.distance import jensenshannon

from exporter.stats import bins, distances

ONE = np.zeros(1, np.int64)


def counts_of(*rows: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Features of different width, one behind the other, and where each begins."""
    return np.concatenate(rows), np.cumsum([0, *(len(row) for row in rows[:-1])])


feature = st.lists(st.integers(0, 1000), min_size=1, max_size=8)
pairs = st.lists(
    st.integers(1, 8).flatmap(
        lambda width: st.tuples(*(st.lists(st.integers(0, 1000), min_size=width, max_size=width) for _ in range(2)))
    ),
    min_size=1,
    max_size=5,
)


@given(st.lists(feature, min_size=1, max_size=5))
def test_smoothing_adds_half_a_count_to_every_bin(features: list[list[int]]):
    counts, starts = counts_of(*features)
    expected = [(count + 0.5) / (sum(row) + len(row) / 2) for row in features for count in row]

    assert distances.smoothed(counts, starts) == pytest.approx(expected)


@given(pairs)
def test_scores_of_many_features_at_once_are_those_of_each_alone(features: list[tuple[list[int], list[int]]]):
    reference, starts = counts_of(*(one for one, _ in features))
    current, _ = counts_of(*(other for _, other in features))
    q, p = distances.smoothed(reference, starts), distances.smoothed(current, starts)

    psi, js = distances.psi(q, p, starts), distances.js_divergence(q, p, starts)

    for i, (one, other) in enumerate(features):
        q_i = (np.array(one) + 0.5) / (sum(one) + len(one) / 2)
        p_i = (np.array(other) + 0.5) / (sum(other) + len(other) / 2)
        # PSI is the Jeffreys divergence; scipy knows its two halves.
        assert psi[i] == pytest.approx(special.rel_entr(q_i, p_i).sum() + special.rel_entr(p_i, q_i).sum(), abs=1e-12)
        assert js[i] == pytest.approx(jensenshannon(q_i, p_i) ** 2, abs=1e-9)
        assert -1e-12 <= js[i] <= np.log(2)
    assert distances.psi(p, q, starts) == pytest.approx(psi), "symmetric"


def test_psi_of_a_peer_on_shares_that_need_no_smoothing():
    """Evidently's multitest: reference 3, 2, 2 against 1, 2, 3, its zero fill of 0.0001 done by hand."""
    reference, current = np.array([0.0001, 2 / 3, 1 / 3]), np.array([1 / 3, 1 / 3, 1 / 3])

    assert distances.psi(reference, current, ONE) == pytest.approx([2.9341472484810085], abs=1e-12)


def test_psi_of_another_peer_on_a_seeded_sample():
    """Frouros' integration test: 10 bins of equal width over both samples of N(1, 1)."""
    old = np.random.RandomState(31)
    reference, current = old.normal(1, 1, 500), old.normal(1, 1, 500)
    span = (min(reference.min(), current.min()), max(reference.max(), current.max()))
    q, p = (np.histogram(sample, 10, span)[0] / 500 for sample in (reference, current))

    assert distances.psi(q, p, ONE) == pytest.approx([0.01840072], abs=1e-8)


def test_jensen_shannon_of_a_peer():
    """TFDV, anomalies/metrics_test.cc: buckets [1,2)(2,3] against [2,4)(4,6], in bits."""
    reference, current = np.array([0.5, 0.5, 0, 0]), np.array([0, 0.25, 0.25, 0.5])

    js = distances.js_divergence(reference + 1e-15, current + 1e-15, ONE)

    assert js / np.log(2) == pytest.approx([0.65563906], abs=5e-9)


def samples_with_and_without_ties(count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    pairs = []
    for i in range(count):
        n, m = rng.integers(1, 250, 2)
        shift = rng.choice([0.0, 0.3, 2.0])
        reference, current = rng.normal(size=n), rng.normal(shift, 1, size=m)
        if i % 2:
            digits = int(rng.integers(0, 2))
            reference, current = reference.round(digits), current.round(digits)
        pairs.append((np.sort(reference), np.sort(current)))
    return pairs


def ks_bounds(pairs: list[tuple[np.ndarray, np.ndarray]], limit: int) -> tuple[np.ndarray, np.ndarray]:
    knots = [bins.choose_knots(reference, limit) for reference, _ in pairs]
    reference, starts = counts_of(*(bins.cell_counts(one, k) for (one, _), k in zip(pairs, knots, strict=True)))
    current, _ = counts_of(*(bins.cell_counts(other, k) for (_, other), k in zip(pairs, knots, strict=True)))
    return distances.ks(distances.cdf(reference, starts), current, starts)


def test_ks_is_exact_with_ties_when_every_distinct_value_is_a_knot():
    pairs = samples_with_and_without_ties(1200, seed=1)
    exact = np.array([stats.ks_2samp(one, other, method="asymp").statistic for one, other in pairs])

    lower, upper = ks_bounds(pairs, limit=10_000)

    assert np.abs(lower - exact).max() < 1e-12
    assert (upper == lower).all()


@pytest.mark.parametrize("limit", [1, 2, 5, 16, 64])
def test_fewer_knots_bracket_the_exact_ks(limit: int):
    pairs = samples_with_and_without_ties(400, seed=limit)
    exact = np.array([stats.ks_2samp(one, other, method="asymp").statistic for one, other in pairs])

    lower, upper = ks_bounds(pairs, limit)

    assert (lower <= exact + 1e-12).all()
    assert (exact <= upper + 1e-12).all()
    # Between two neighbouring knots lies less than 1 / (limit + 1) of the reference.
    assert (upper - lower < 1 / (limit + 1)).all()
    assert (upper > lower + 1e-3).any(), "the bracket is open somewhere, or this test shows nothing"


def test_any_knots_bracket_the_exact_ks():
    """Also such as leave values of the reference below the first and above the last of them."""
    rng = np.random.default_rng(3)
    pairs = samples_with_and_without_ties(300, seed=3)
    knots = [np.unique(rng.choice(reference, rng.integers(1, 6))) for reference, _ in pairs]
    reference, starts = counts_of(*(bins.cell_counts(one, k) for (one, _), k in zip(pairs, knots, strict=True)))
    current, _ = counts_of(*(bins.cell_counts(other, k) for (_, other), k in zip(pairs, knots, strict=True)))

    lower, upper = distances.ks(distances.cdf(reference, starts), current, starts)

    exact = np.array([stats.ks_2samp(one, other, method="asymp").statistic for one, other in pairs])
    assert (lower <= exact + 1e-12).all()
    assert (exact <= upper + 1e-12).all()
    assert (upper <= 1).all()


def test_no_current_data_is_nan_beside_features_that_have_some():
    reference, starts = counts_of([0, 5, 0, 5, 0], [0, 5, 0, 5, 0])
    current, _ = counts_of([0, 0, 0, 0, 0], [0, 2, 0, 0, 0])

    lower, upper = distances.ks(distances.cdf(reference, starts), current, starts)

    assert np.isnan([lower[0], upper[0]]).all()
    assert (lower[1], upper[1]) == (0.5, 0.5)
