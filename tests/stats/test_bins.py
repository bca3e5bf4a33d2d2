from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.stats.bins import cell_counts, choose_bins, choose_knots, merge_small

values = st.one_of(st.floats(-1e6, 1e6), st.integers(-3, 3).map(float))
samples = st.lists(values, min_size=1, max_size=300).map(lambda drawn: np.sort(np.array(drawn)))
limits = st.integers(1, 40)


def intervals(sample: np.ndarray, bins: int = 10, discrete_values: int = 20, limit: int = 259) -> list[tuple]:
    """Non-empty bins as (smallest, largest, count) of the values in them."""
    sample = np.sort(sample)
    knots = choose_knots(sample, limit)
    number = choose_bins(cell_counts(sample, knots), bins, discrete_values)
    position = np.searchsorted(knots, sample)
    equal = knots[np.minimum(position, len(knots) - 1)] == sample
    of_value = number[2 * position + equal]
    return [(part.min(), part.max(), len(part)) for i in range(number.max() + 1) if len(part := sample[of_value == i])]


@given(samples, limits)
def test_knots_are_observed_values_that_leave_little_between_them(sample: np.ndarray, limit: int):
    knots = choose_knots(sample, limit)

    assert (np.diff(knots) > 0).all()
    assert set(knots) <= set(sample)
    assert len(knots) <= limit + 2
    assert (knots[0], knots[-1]) == (sample[0], sample[-1])
    if len(set(sample)) <= limit:
        assert set(knots) == set(sample)
    for left, right in pairwise(knots):
        assert np.sum((sample > left) & (sample < right)) < len(sample) / (limit + 1)


def test_deciles_and_ventiles_are_among_the_default_knots():
    sample = np.arange(1.0, 26_001.0)

    knots = choose_knots(sample, 259)

    assert {1300.0 * k for k in range(1, 20)} <= set(knots)


@given(samples, samples, limits)
def test_cells_count_what_lies_at_and_between_the_knots(reference: np.ndarray, sample: np.ndarray, limit: int):
    knots = choose_knots(reference, limit)
    borders = [-np.inf, *knots, np.inf]
    between = [np.sum((sample > left) & (sample < right)) for left, right in pairwise(borders)]
    equal = [np.sum(sample == knot) for knot in knots]

    cells = cell_counts(sample, knots)

    assert cells[::2].tolist() == between
    assert cells[1::2].tolist() == equal


@given(samples, limits, st.integers(2, 20), st.integers(0, 30))
def test_bins_are_neighbouring_runs_of_cells(sample: np.ndarray, limit: int, bins: int, discrete_values: int):
    cells = cell_counts(sample, choose_knots(sample, limit))

    number = choose_bins(cells, bins, discrete_values)

    assert len(number) == len(cells)
    assert number[0] == 0
    assert set(np.diff(number)) <= {0, 1}
    exact = not cells[::2].any()
    if len(cells) == 3:
        assert number.tolist() == [0, 1, 2]
    elif exact and len(cells) // 2 <= discrete_values:
        assert number.max() + 1 == len(cells) // 2, "a bin a value"
        assert number[1::2].tolist() == list(range(len(cells) // 2)), "closed above: a bin ends with its value"
    else:
        # A mass point shares its bin with nothing.
        for knot in np.flatnonzero(cells[1::2] * 2 * bins >= len(sample)):
            of_knot = number[2 * knot + 1]
            others = cells[number == of_knot].sum() - cells[2 * knot + 1]
            assert others == 0


def test_a_constant_has_bins_below_at_and_above():
    cells = cell_counts(np.full(50, 3.0), np.array([3.0]))

    assert choose_bins(cells, 10, 20).tolist() == [0, 1, 2]
    assert choose_bins(cells, 10, 0).tolist() == [0, 1, 2]


def test_continuous_values_get_bins_of_equal_mass():
    sample = np.random.default_rng(0).normal(size=26_000)

    found = intervals(sample)

    assert len(found) == 10
    assert max(count for *_, count in found) - min(count for *_, count in found) <= 20


def test_few_distinct_values_get_a_bin_each_and_one_more_makes_quantiles():
    twenty = np.repeat(np.arange(20.0), 10)
    many = np.repeat(np.arange(200.0), 10)

    assert intervals(twenty) == [(v, v, 10) for v in range(20)]
    assert len(intervals(many)) == 10


def test_mass_points_come_first_and_the_rest_shares_what_is_left():
    """Half zeros, a cap with 10 %, and 40 % between: 2 mass points and round(10 * 0.4) quantile bins."""
    rng = np.random.default_rng(1)
    sample = np.concatenate((np.zeros(5000), np.full(1000, 100.0), rng.uniform(1, 99, 4000)))

    found = intervals(sample)

    assert found[0] == (0, 0, 5000)
    assert found[-1] == (100, 100, 1000)
    assert len(found) == 6
    assert all(950 <= count <= 1050 for *_, count in found[1:-1])


def test_a_quantile_bin_is_cut_at_a_mass_point_inside_it():
    rng = np.random.default_rng(2)
    sample = np.concatenate((np.full(8000, 50.0), rng.uniform(0, 100, 2000)))

    found = intervals(sample)

    assert (50, 50, 8000) in found
    assert all(high < 50 or low > 50 for low, high, count in found if count != 8000)
    assert sum(count for *_, count in found) == 10_000


def test_mass_just_below_the_limit_is_no_mass_point():
    rng = np.random.default_rng(3)
    at_limit, below = (
        np.concatenate((np.full(k, 0.5), rng.random(1000 - k).round(9))) for k in (50, 49)
    )  # the limit is 1 / (2 * 10)

    assert (0.5, 0.5, 50) in intervals(at_limit)
    assert (0.5, 0.5, 49) not in intervals(below)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=15), st.floats(0, 100))
def test_merging_keeps_order_and_total_and_stops_when_every_bin_is_large_enough(counts: list[int], least: float):
    merged = merge_small(np.array(counts), least)
    sums = np.bincount(merged, weights=counts)

    assert merged[0] == 0
    assert set(np.diff(merged)) <= {0, 1}
    assert sums.min() >= least or len(sums) == 1
    if min(counts) >= least:
        assert merged.tolist() == list(range(len(counts)))


@pytest.mark.parametrize(
    ("counts", "merged"),
    [
        ([3, 9, 9], [0, 0, 1]),
        ([9, 9, 3], [0, 1, 1]),
        ([9, 3, 20, 20], [0, 0, 1, 2]),
        ([20, 3, 9, 20], [0, 1, 1, 2]),
        ([3, 3, 20], [0, 0, 1]),
    ],
)
def test_a_small_bin_joins_its_smaller_neighbour(counts: list[int], merged: list[int]):
    assert merge_small(np.array(counts), 5).tolist() == merged
