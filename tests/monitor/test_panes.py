import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.monitor.panes import OUTSIDE, RING_PANES, PaneRing, Watermarks, Window, sliding_window

PANE_S = 60.0
WINDOW = Window(PANE_S, 60, "1h")
NOW = 1_800_000_000.0  # a pane border
PANE = int(NOW / PANE_S)


def advance(marks: Watermarks, times: list[float], partition: str = "p0", now: float = NOW) -> list[int | None]:
    """Panes of events, relative to the pane of NOW; None for one that is in no window."""
    panes, late, future = marks.advance(partition, np.array(times, np.float64), now)
    assert late + future == np.sum(panes == OUTSIDE)
    return [None if pane == OUTSIDE else pane - PANE for pane in panes.tolist()]


def test_the_usual_window_slides_in_sixtieths():
    window = sliding_window(3600, "1h")

    assert (window.pane_s, window.seconds, window.panes) == (60, 3600, 60)
    assert window.panes + window.ahead <= RING_PANES


def test_a_pane_is_sealed_when_a_partition_may_bring_none_of_its_events_any_more():
    assert sliding_window(3600.0, "1h").sealed(100) == 98
    assert Window(1.0, 1, "5000", open_panes=0).sealed(100) == 100, "nothing comes late in a recording"


def test_panes_are_aligned_and_an_event_on_a_border_opens_the_next():
    assert advance(Watermarks(WINDOW), [NOW - 0.001, NOW, NOW + 59.999]) == [-1, 0, 0]


def test_an_event_is_late_when_its_pane_lies_more_than_one_before_the_newest_of_its_partition():
    marks = Watermarks(WINDOW)

    # 119 s before: the pane before the newest one, which is allowed; 121 s before: one more.
    assert advance(marks, [NOW, NOW - 60, NOW - 61]) == [0, -1, None]
    assert advance(marks, [NOW - 60, NOW - 61]) == [-1, None], "also in a later batch"
    assert advance(marks, [NOW - 61], "p1") == [-2], "another partition has its own progress"


def test_whether_an_event_is_late_depends_on_arrival_order_within_a_batch_too():
    assert advance(Watermarks(WINDOW), [NOW - 600, NOW, NOW - 600]) == [-10, 0, None]


def test_an_event_ahead_of_the_clock_by_more_than_a_pane_is_in_no_window_and_moves_no_watermark():
    marks = Watermarks(WINDOW)

    _, late, future = marks.advance("p0", np.array([NOW, NOW + 60, NOW + 61, NOW + 1e9, NOW]), NOW)

    assert (late, future) == (0, 2)
    assert marks.partitions["p0"].watermark == NOW + 60


def test_a_partition_whose_first_events_are_all_from_the_future_is_not_there_yet():
    marks = Watermarks(WINDOW)

    assert advance(marks, [NOW + 1e6, NOW + 1e6]) == [None, None]
    assert marks.partitions == {}
    assert marks.end == OUTSIDE


def test_a_producer_with_a_fast_clock_does_not_hold_the_window_back():
    marks = Watermarks(WINDOW)
    advance(marks, [NOW], "good")
    advance(marks, [NOW], "fast")

    for now in np.arange(NOW, NOW + 1800, 10):
        advance(marks, [now], "good", now)
        advance(marks, [now + 3600], "fast", now)

    assert marks.end == marks._pane(now)
    assert marks.lag_s(now) == 0


def test_a_producer_with_a_slow_clock_holds_the_window_back_by_no_more_than_the_ring_keeps():
    marks = Watermarks(WINDOW)
    advance(marks, [1.0], "ancient")

    advance(marks, [NOW], "good")
    assert marks.end == PANE - WINDOW.ahead

    marks.tick(NOW + 61)  # only the ancient one is idle if the good one goes on
    advance(marks, [NOW + 61], "good", NOW + 61)
    assert marks.end == PANE + 1


def test_the_window_ends_at_the_slowest_partition_that_is_not_idle():
    marks = Watermarks(WINDOW)
    advance(marks, [NOW - 300], "slow")
    advance(marks, [NOW], "fast")
    assert marks.end == PANE - 5
    assert marks.lag_s(NOW) == 300

    advance(marks, [NOW + 60], "fast", NOW + 60)
    assert marks.end == PANE - 5, "silent for a minute: not idle yet"

    advance(marks, [NOW + 61], "fast", NOW + 61)
    assert marks.end == PANE + 1


def test_a_partition_that_wakes_up_holds_the_window_back_again_but_never_moves_it_back():
    marks = Watermarks(WINDOW)
    advance(marks, [NOW], "fast")

    advance(marks, [NOW - 600], "slow")
    assert marks.end == PANE

    advance(marks, [NOW + 60], "fast", NOW + 60)
    assert marks.end == PANE


def test_without_events_the_window_follows_the_clock():
    marks = Watermarks(WINDOW)
    marks.tick(NOW)
    assert marks.end == OUTSIDE, "nothing has ever come"

    advance(marks, [NOW - 300])
    marks.tick(NOW + 60)
    assert marks.end == PANE - 5
    marks.tick(NOW + 3600)
    assert marks.end == PANE + 60
    assert marks.lag_s(NOW + 3600) == 0


def test_a_partition_that_cannot_be_read_yet_holds_the_window_however_silent_it_is():
    marks = Watermarks(WINDOW)
    advance(marks, [NOW - 300], "waiting")
    advance(marks, [NOW], "fast")
    marks.hold(["waiting", "never seen"], NOW + 3600)
    marks.tick(NOW + 3600)
    assert marks.end == PANE - 5
    assert marks.lag_s(NOW + 3600) == 3900
    assert set(marks.partitions) == {"waiting", "fast"}
    marks.tick(NOW + 3661)
    assert marks.end == PANE + 61


offsets = st.one_of(st.floats(-10, 10), st.floats(-8000, 400), st.sampled_from([-1.7e9, 1e9]))
steps = st.lists(
    st.tuples(st.floats(0, 100), st.sampled_from("abc"), st.lists(offsets, max_size=4)), min_size=1, max_size=30
)


@given(steps)
def test_the_window_never_goes_back_nor_ahead_of_the_clock_nor_out_of_reach_of_any_event_in_it(
    taken: list[tuple[float, str, list[float]]],
):
    marks, now = Watermarks(WINDOW), NOW
    for wait, partition, offsets in taken:
        now += wait
        before = marks.end
        if offsets:
            panes, _, _ = marks.advance(partition, now + np.array(offsets), now)
            inside = panes[panes != OUTSIDE]
            assert (inside <= marks.end + WINDOW.ahead).all()
        else:
            marks.tick(now)
        assert marks.end >= before
        assert marks.end <= marks._pane(now + PANE_S)


@given(steps)
def test_what_two_processes_tell_each_other_is_what_one_would_know(taken: list[tuple[float, str, list[float]]]):
    one, mine, other, now = Watermarks(WINDOW), Watermarks(WINDOW), Watermarks(WINDOW), NOW
    for wait, partition, offsets in taken:
        now += wait
        owner = mine if partition == "a" else other
        if offsets:
            times = now + np.array(offsets)
            panes, late, future = owner.advance(partition, times, now)
            expected, expected_late, expected_future = one.advance(partition, times, now)
            assert panes.tolist() == expected.tolist()
            assert (late, future) == (expected_late, expected_future)
        else:
            for marks in (one, mine, other):
                marks.tick(now)
        mine.merge(other)
        other.merge(mine)
        assert mine.dump() == other.dump() == one.dump() or mine.partitions == other.partitions == one.partitions
        assert mine.end == other.end == one.end


def test_watermarks_outlive_a_restart():
    marks, again = Watermarks(WINDOW), Watermarks(WINDOW)
    advance(marks, [NOW], "a")
    advance(marks, [NOW - 99], "b")

    again.load(*marks.dump())

    assert again == marks


SMALL = Window(1.0, 3, "3s")
moves = st.one_of(
    st.tuples(st.just("advance"), st.integers(-1, 12)),
    st.tuples(st.just("add"), st.integers(-6, 8)),
    st.tuples(st.just("reload"), st.just(0)),
    st.tuples(st.just("merge"), st.integers(-6, 8)),
)


@given(st.lists(moves, max_size=60), st.sampled_from([SMALL, Window(1.0, 1, "1s"), Window(1.0, 100, "100s")]))
def test_the_ring_is_a_sum_over_the_panes_of_the_window(taken: list[tuple[str, int]], window: Window):
    """Against a plain table of panes that are summed anew each time."""
    ring, panes, end, serial = PaneRing(window, 2), dict[int, np.ndarray](), 0, 1
    ring.advance(end)

    def add(target: PaneRing, pane: int) -> None:
        nonlocal serial
        serial += 1
        counts = np.array([serial, 2**20 + serial])
        target.add(pane, counts)
        if end - window.panes < pane <= end + window.ahead:
            panes[pane] = panes.get(pane, 0) + counts

    for kind, step in taken:
        if kind == "advance":
            end = max(end, end + step)
            ring.advance(end)
        elif kind == "add":
            add(ring, end + step)
        elif kind == "merge":
            other = PaneRing(window, 2)
            other.advance(end)
            add(other, end + step)
            ring.merge(other)
        else:
            ring = reloaded(ring)
        expected = sum((counts for pane, counts in panes.items() if end - window.panes < pane <= end), np.zeros(2))
        assert ring.running.tolist() == expected.tolist()


def reloaded(ring: PaneRing) -> PaneRing:
    again = PaneRing(ring.window, len(ring.running), ring._rows.dtype.type)
    again.load(ring._end, {pane: ring.counts(pane).copy() for pane in ring.panes})
    assert again.running.tolist() == ring.running.tolist()
    return again


@given(st.lists(moves, max_size=60))
def test_panes_that_changed_are_told_once_and_no_other_has(taken: list[tuple[str, int]]):
    ring, end, seen = PaneRing(SMALL, 1), 0, dict[int, int]()
    ring.advance(end)
    for kind, step in taken:
        if kind == "advance":
            end = max(end, end + step)
            ring.advance(end)
        elif kind == "add":
            ring.add(end + step, np.array([1]))
        else:
            changed = ring.take_changed() & ring.panes
            seen = {pane: seen[pane] for pane in ring.panes - changed} | {
                pane: int(ring.counts(pane)[0]) for pane in changed
            }
            assert seen == {pane: int(ring.counts(pane)[0]) for pane in ring.panes}
            assert ring.take_changed() == set()


def test_a_pane_ahead_of_the_window_enters_it_when_the_window_gets_there():
    ring = PaneRing(SMALL, 1)
    ring.advance(10)
    ring.add(12, np.array([7]))
    assert ring.running.tolist() == [0]

    ring.advance(12)
    assert ring.running.tolist() == [7]

    ring.advance(14)
    assert ring.running.tolist() == [7]
    ring.advance(15)
    assert ring.running.tolist() == [0]


def test_a_pane_can_hold_sums_beyond_32_bits_where_a_tracker_sums_more_than_ones():
    """2,000 requests a second of 50 ms are 6e9 microseconds a minute."""
    ring = PaneRing(SMALL, 1, np.int64)
    ring.advance(10)
    for _ in range(3):
        ring.add(10, np.array([3 * 10**9]))
    ring = reloaded(ring)
    ring.add(12, np.array([9 * 10**9]))

    assert ring.running.tolist() == [9 * 10**9]
    ring.advance(13)
    assert ring.running.tolist() == [9 * 10**9]


@pytest.mark.parametrize("panes", [1, 2, 60, 127, 128, 500])
def test_the_ring_never_runs_out_of_rows(panes: int):
    window = Window(1.0, panes, "w")
    ring = PaneRing(window, 1)
    for end in (10_000, 10_001, 10_000 + 2 * panes):
        ring.advance(end)
        for pane in range(end - panes - 2, end + window.ahead + 3):
            ring.add(pane, np.array([1]))
        assert ring.running[0] >= panes
