"""What belongs together, by the times of events alone; the whole is held to a bookkeeper in test_join."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.monitor.settling import Rules, _pairs

RULES = Rules(maturity_s=3600.0, patience_s=600.0, bucket_s=60.0, pane_s=60.0)


def test_a_bucket_is_over_when_its_last_moment_is_old_enough():
    assert RULES.bucket(np.array([0.0, 59.9, 60.0, -0.1])).tolist() == [0, 0, 1, -1]
    assert not RULES.over(0, 3600.0, 3659.9)
    assert RULES.over(0, 3600.0, 3660.0)
    assert not RULES.over(0, 0.0, -np.inf)


def test_predictions_count_in_the_pane_in_which_they_are_mature():
    assert RULES.maturity_pane(np.array([0.0, 59.0, 60.0])).tolist() == [60, 60, 61]


@given(st.lists(st.integers(0, 8), max_size=12), st.lists(st.integers(0, 8), max_size=12))
def test_every_pair_of_equal_ids_is_found(left: list[int], right: list[int]):
    sorted_right = sorted(right)
    rows, places = _pairs(np.array(left, np.uint64), np.array(sorted_right, np.uint64))
    expected = [(i, j) for i, one in enumerate(left) for j, other in enumerate(sorted_right) if one == other]
    assert sorted(zip(rows.tolist(), places.tolist(), strict=True)) == expected


def test_ids_of_64_bits_are_told_apart():
    large = 2**63 + 1
    rows, _ = _pairs(np.array([large, large + 1], np.uint64), np.array([large], np.uint64))
    assert rows.tolist() == [0]


@pytest.mark.parametrize("ids", [[], [1]])
def test_nothing_pairs_with_nothing(ids: list[int]):
    assert [len(part) for part in _pairs(np.array(ids, np.uint64), np.zeros(0, np.uint64))] == [0, 0]
