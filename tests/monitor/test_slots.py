from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from exporter.monitor.events import MISSING, UNSEEN, Names, Rows
from exporter.monitor.panes import OUTSIDE
from exporter.monitor.settings import ModelSettings
from exporter.monitor.slots import Slots, Split
from exporter.monitor.traffic import TrafficTracker


def codes(names: Names, values: Sequence[str | None]) -> np.ndarray:
    names.learn(values)
    return np.array([names.get(value, UNSEEN) for value in values], np.int32)


def admitted(slots: Slots, names: Names, values: Sequence[str | None]) -> list[str | None]:
    """The segment that each row is counted in."""
    rows = codes(names, values)
    slots.admit(rows)
    return [slots.values[slot] for slot in slots.of(rows)]


def test_values_take_slots_in_the_order_of_their_arrival_and_the_rest_is_other():
    names = Names()
    names.learn(["a", "b", "c"])
    slots = Slots(names, 2)

    assert admitted(slots, names, ["c", "a", "c", "b", None]) == ["c", "a", "c", "other", "other"]
    assert slots.values == ("c", "a", "other")


def test_known_values_have_slots_from_the_start_the_first_first():
    slots = Slots(Names(), 2, ["eu", "us", "asia"])

    assert slots.values == ("eu", "us", "other")


def test_what_names_no_segment_is_other():
    slots = Slots(Names(), 2)

    assert slots.of(np.array([MISSING, UNSEEN, -2], np.int32)).tolist() == [2, 2, 2]


def weighed(first: int, second: int, newcomer: int, *, least: int = 10) -> tuple[Sequence[str | None], object]:
    """Slots after a window in which values came so often."""
    names = Names()
    slots = Slots(names, 2, ["first", "second"])
    assert slots.weigh(OUTSIDE, 6, least) is None
    assert slots.weigh(100, 6, least) is None, "the count begins"
    admitted(slots, names, ["first"] * first + ["second"] * second + ["newcomer"] * newcomer)
    assert slots.weigh(105, 6, least) is None, "a window is not over"
    to = slots.weigh(106, 6, least)
    return slots.values[:-1], None if to is None else to.tolist()


def test_a_value_that_came_more_than_twice_as_often_takes_the_place_of_the_least():
    assert weighed(50, 20, 41) == (("first", "newcomer"), [0, 2, 2])


def test_a_value_that_is_not_clearly_larger_or_too_rare_for_a_verdict_waits():
    assert weighed(50, 20, 40) == (("first", "second"), None)
    assert weighed(50, 0, 9) == (("first", "second"), None)
    assert weighed(50, 0, 10) == (("first", "newcomer"), [0, 2, 2])


def test_volumes_are_those_of_one_window():
    names = Names()
    slots = Slots(names, 1, ["old"])
    slots.weigh(0, 6, 10)
    for end in range(6, 60, 6):
        admitted(slots, names, ["old"] * 8 + ["new"] * 15)
        assert slots.weigh(end, 6, 10) is None
    admitted(slots, names, ["new"] * 15)
    assert slots.weigh(60, 6, 10) is not None


def test_a_dump_knows_values_by_name_whatever_their_codes():
    names = Names()
    slots = Slots(names, 2)
    admitted(slots, names, ["b", "a", "c", "c"])
    slots.weigh(7, 6, 10)
    other = Names()
    other.learn(["z", "c", "a"])
    again = Slots(other, 2)

    again.load(*slots.dump())

    assert again.dump() == slots.dump() == (("b", "a"), {"a": 1, "b": 1, "c": 2}, 7)
    assert admitted(again, other, ["a", "b", "c"]) == ["a", "b", "other"]


@pytest.mark.parametrize("groups", [1, 3])
def test_each_slot_counts_what_the_tracker_counts_of_its_rows(groups: int):
    rng = np.random.default_rng(0)
    names = Names()
    names.learn("abcd")
    slots = Slots(names, 2, ["c", "a"])
    rows = Rows(
        numeric=np.empty((600, 0)),
        codes=rng.integers(-3, 4, (600, 1)).astype(np.int32),
        latency_s=rng.exponential(0.1, 600),
        error=rng.integers(-1, 3, 600).astype(np.int16),
        group=rng.integers(0, groups, 600) if groups > 1 else None,
        groups=groups,
    )
    inner = TrafficTracker(ModelSettings("m"), "1")
    split = Split(inner, slots, 0)
    sums = np.zeros((groups, split.width), np.int64)

    split.add(sums, rows)

    for group in range(groups):
        of_group = np.full(600, True) if rows.group is None else rows.group == group
        for slot, code in ((0, 2), (1, 0), (2, None)):
            chosen = of_group & (~np.isin(rows.codes[:, 0], [0, 2]) if code is None else rows.codes[:, 0] == code)
            alone = replace(
                rows,
                codes=rows.codes[chosen],
                latency_s=rows.latency_s[chosen],
                error=rows.error[chosen],
                group=None,
                groups=1,
            )
            expected = np.zeros((1, inner.width), np.int64)
            inner.add(expected, alone)
            assert split.part(sums[group], slot).tolist() == expected[0].tolist()


def test_another_process_follows_and_what_has_no_slot_here_is_other():
    ours, theirs = Slots(Names(), 3, ["a", "b", "c"]), Slots(Names(), 3, ["c", "x", "a"])

    assert theirs.follow(ours).tolist() == [2, 3, 0, 3]
    assert theirs.values == ours.values
