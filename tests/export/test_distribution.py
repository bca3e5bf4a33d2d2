"""What the page draws, against counting the values themselves."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.export.distribution import BARS, distribution
from exporter.monitor.events import FeatureKey
from exporter.monitor.reference import Resolution
from tests.builders import NOW, X, a_fleet, a_reference, an_input, observe, view

C = an_input("c")
ANY_NUMBER = st.floats(allow_nan=False, allow_infinity=False)


def drawn(key: FeatureKey, reference: Any, current: Any, *, knots: int = 259, **settings: Any) -> dict[str, Any]:
    """The distribution of one feature after these values were seen."""
    known = a_reference({key: reference}, resolution=Resolution(knots))
    fleet = a_fleet(known, **settings)
    if len(current):
        observe(fleet, {key: current})
    readout = view(fleet.tick(NOW)).drift_readout
    assert readout is not None
    (plan,) = readout.tracker.features
    return distribution(plan, readout.counts, readout.bin_counts)


def numbers(reference: Sequence[float], current: Sequence[float], **options: Any) -> dict[str, Any]:
    return drawn(X, np.array(reference, np.float64), np.array(current, np.float64), **options)


def shares(values: Any, edges: Sequence[float]) -> np.ndarray:
    """Shares between edges of which the outer ones are open."""
    inner = np.array(edges)[1:-1]
    return np.bincount(np.searchsorted(inner, values, "right"), minlength=len(inner) + 1) / len(values)


def check(found: dict[str, Any]) -> None:
    bars = len(found["labels"])
    assert len(found["reference"]) == bars
    assert found["edges"] is None or len(found["edges"]) == bars + 1
    for side in ("reference", "current"):
        if found[side] is not None:
            assert sum(found[side]) == pytest.approx(1, abs=1e-5 * bars)
            assert all(0 <= share <= 1 for share in found[side])


class TestHistogram:
    def test_bars_are_the_shares_of_the_values(self):
        rng = np.random.default_rng(1)
        reference, current = rng.normal(size=20_000), rng.normal(0.5, 1, size=5000)
        found = numbers(reference, current)
        check(found)
        assert BARS / 2.5 <= len(found["labels"]) <= BARS + 2
        widths = np.diff(found["edges"])
        np.testing.assert_allclose(widths, widths[0])
        for side, values in (("reference", reference), ("current", current)):
            # Values between two knots are taken as spread evenly: a 260th of the mass at most is in doubt at each edge.
            np.testing.assert_allclose(found[side], shares(values, found["edges"]), atol=2 / 260)

    def test_with_every_value_a_knot_reference_bars_are_exact(self):
        rng = np.random.default_rng(2)
        reference = rng.exponential(size=900)
        found = numbers(reference, reference, knots=1000)
        check(found)
        np.testing.assert_allclose(found["reference"], shares(reference, found["edges"]), atol=2e-3)
        assert found["current"] == found["reference"]

    def test_outer_bars_are_open_and_say_so(self):
        found = numbers(np.arange(1000.0), [-1e9, 1e9, 1e300, -1e300])
        assert found["labels"][0].startswith("< ")
        assert found["labels"][-1].startswith("\N{GREATER-THAN OR EQUAL TO} ")
        assert (found["current"][0], found["current"][-1]) == (0.5, 0.5)

    @given(
        st.lists(st.floats(-1e6, 1e6) | ANY_NUMBER, min_size=30, max_size=200),
        st.lists(ANY_NUMBER, min_size=1, max_size=50),
    )
    def test_shares_always_sum_to_one(self, reference: list[float], current: list[float]):
        check(numbers(reference, current, knots=20))

    @pytest.mark.parametrize(
        "reference",
        [
            np.arange(-50, 50) * 3.4e306,
            np.arange(25) * 5e-324,
            1e18 + 128 * np.arange(100),
            1e299 + np.spacing(1e299) * np.arange(100),
            1e305 + np.spacing(1e305) * np.arange(100),
            1e15 + np.arange(100) / 8,
        ],
        ids=["whole range", "subnormal", "huge steps", "neighbours", "huge neighbours", "far from zero"],
    )
    def test_numbers_at_the_limits_of_floats_are_drawn(self, reference: Any):
        found = numbers(reference, [0.0, 1.0, *reference])
        check(found)
        assert len(found["labels"]) <= 2 * BARS


class TestValues:
    def test_few_values_have_a_bar_each(self):
        found = numbers([1, 2, 2, 5], [2, 5, 5, 5])
        assert (found["labels"], found["edges"]) == (["1", "2", "5"], None)
        assert (found["reference"], found["current"]) == ([0.25, 0.5, 0.25], [0, 0.25, 0.75])

    def test_other_values_have_one_together_once_there_are_some(self):
        found = numbers([1, 2, 2, 5], [2, 3, 4, -7])
        assert found["labels"] == ["1", "2", "5", "other values"]
        assert (found["reference"], found["current"]) == ([0.25, 0.5, 0.25, 0], [0, 0.25, 0, 0.75])

    def test_a_constant(self):
        assert numbers([3] * 10, [3, 4])["current"] == [0.5, 0.5]


class TestCategories:
    def test_a_bar_each_and_the_unseen_once_there_are_some(self):
        known = ["red"] * 6 + ["green"] * 4
        found = drawn(C, known, ["red", "green"])
        assert (found["labels"], found["edges"]) == (["red", "green"], None)
        assert (found["reference"], found["current"]) == ([0.6, 0.4], [0.5, 0.5])
        found = drawn(C, known, ["red", "blue", "blue", "blue"])
        assert found["labels"] == ["red", "green", "unseen"]
        assert found["current"] == [0.25, 0, 0.75]

    def test_a_label_is_the_category_whatever_it_is(self):
        hostile = "=<script>\n\N{PILE OF POO}"
        assert drawn(C, [hostile, "b"], [])["labels"] == [hostile, "b"]


@pytest.mark.parametrize("key, reference", [(X, np.arange(500.0)), (X, np.arange(3.0)), (C, ["a", "b"])])
def test_no_data_is_not_a_flat_line(key: FeatureKey, reference: Any):
    found = drawn(key, reference, [])
    check(found)
    assert found["current"] is None


def test_missing_and_invalid_values_are_in_no_bar():
    found = numbers([1, 2, np.nan, np.inf], [1, np.nan, -np.inf, np.inf])
    assert found["current"] == [1, 0]
    assert found["reference"] == [0.5, 0.5]
