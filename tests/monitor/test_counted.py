import numpy as np

from exporter.monitor.counted import Counted
from exporter.monitor.events import NO_ERROR, Rows
from exporter.monitor.panes import Window
from exporter.monitor.settings import ModelSettings
from exporter.monitor.traffic import TrafficTracker

WINDOW = Window(10.0, 6, "1m")


class Two:
    """Two counters side by side: rows without and with an error."""

    width = 2
    cells = np.uint32

    def add(self, sums: np.ndarray, rows: Rows) -> None:
        group = np.zeros(len(rows), np.int64) if rows.group is None else rows.group
        np.add.at(sums, (group, (rows.error != NO_ERROR).astype(int)), 1)

    def samples(self, lifetime: np.ndarray) -> tuple[()]:
        return ()


def rows(error: list[int], group: list[int], groups: int) -> Rows:
    n = len(error)
    nothing = np.empty((n, 0))
    codes = np.empty((n, 0), np.int32)
    return Rows(nothing, codes, np.full(n, np.nan), np.array(error, np.int16), np.array(group), groups)


def counted() -> Counted[Two]:
    """Pane 5, the window's last, holds 2 and 1, pane 7 beyond it 0 and 3."""
    one = Counted(Two(), WINDOW)
    one.ring.advance(5)
    one.add(rows([-1, -1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1], 2), np.array([5, 7]))
    return one


def test_what_is_moved_is_moved_in_the_past_in_the_window_and_beyond_it():
    one = counted()
    one.take_changed()

    one.regroup(np.array([1, 1]))

    assert one.lifetime.tolist() == [0, 6]
    assert one.ring.running.tolist() == [0, 3]
    assert {pane: one.ring.counts(pane).tolist() for pane in one.ring.panes} == {5: [0, 3], 7: [0, 3]}
    assert one.take_changed() == {"lifetime", 5, 7}
    one.ring.advance(7)
    assert one.ring.running.tolist() == [0, 6]
    one.ring.advance(100)
    assert one.ring.running.tolist() == [0, 0]


def test_parts_can_change_places():
    one = counted()

    one.regroup(np.array([1, 0]))

    assert one.lifetime.tolist() == [4, 2]
    assert one.ring.running.tolist() == [1, 2]


def test_a_tracker_of_another_width_takes_over_nothing():
    settings = ModelSettings("m")
    narrow, wide = counted(), Counted(TrafficTracker(settings, "1"), WINDOW)
    from exporter.monitor.state import Vectors

    wide.load(Vectors(narrow.lifetime, {}), 5)

    assert not wide.lifetime.any()
