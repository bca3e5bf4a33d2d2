"""Time: aligned panes, a watermark per partition, and the window as a running sum over panes.

A pane is floor(event time / pane length). Everything here is a function of event times, partitions and `now`, never of
how a stream was cut into batches or spread over processes: whether an event is late depends on its own partition only,
and the window's end only on the watermarks.
"""

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter.catalog import thresholds
from exporter.stats import Counts, Floats

RING_PANES = 128
"""Panes a window can hold back for partitions that run ahead of the slowest one, the window itself included."""

OUTSIDE = np.iinfo(np.int64).min
"""Pane of a row that enters the lifetime counters only (late, or ahead of the clock)."""


@dataclass(frozen=True, slots=True)
class Window:
    """A sliding window of `panes` panes of `pane_s` seconds; `label` is its length as configured.

    The newest `open_panes` may still get rows: none does in a recording that is looked at pane by pane.
    """

    pane_s: float
    panes: int
    label: str
    open_panes: int = thresholds.ALLOWED_LATENESS_PANES.count + 1

    @property
    def seconds(self) -> float:
        """Length of the window."""
        return self.pane_s * self.panes

    @property
    def ahead(self) -> int:
        """Panes kept beyond the window's end."""
        return max(min(self.panes, RING_PANES - self.panes), 1)

    def sealed(self, end: int) -> int:
        """The newest pane for which nothing can come any more while the window ends at pane `end`."""
        return end - self.open_panes


def sliding_window(seconds: float, label: str) -> Window:
    """The usual window: as long as asked, sliding in sixtieths."""
    panes = thresholds.WINDOW_PANES.count
    return Window(seconds / panes, panes, label)


@dataclass(slots=True)
class Partition:
    """What is known of one partition: its newest event time and when (wall clock) it last brought anything."""

    watermark: float
    seen: float


@dataclass(slots=True)
class Watermarks:
    """The watermarks of the partitions that carry one model."""

    window: Window
    partitions: dict[str, Partition] = field(default_factory=dict)
    end: int = OUTSIDE
    """The window's last pane; it never goes back."""

    @property
    def left(self) -> int:
        """The last pane that the window has left behind."""
        return OUTSIDE if self.end == OUTSIDE else self.end - self.window.panes

    def advance(self, partition: str, time: Floats, now: float) -> tuple[Counts, int, int]:
        """Take note of events in arrival order: the pane of each (or OUTSIDE), how many were late, how many future.

        An event is late when its pane lies more than the allowed lateness before that of its partition's watermark. One
        further ahead of the clock than a pane is in no window and moves no watermark: a wrong clock cannot wedge it.
        """
        pane_s = self.window.pane_s
        horizon = now + pane_s
        known = self.partitions.get(partition)
        future = time > horizon
        any_future = bool(future.any())
        if any_future and future.all():
            # Nothing to go by: nothing moves, and a partition that brings nothing else becomes idle.
            return np.full(len(time), OUTSIDE), 0, len(time)
        running = np.maximum.accumulate(np.where(future, -np.inf, time) if any_future else time)
        if known is not None:
            running = np.maximum(running, known.watermark)
        self.partitions[partition] = Partition(float(running[-1]), now)
        panes = np.floor(time / pane_s)
        outside = panes < np.floor(running / pane_s) - thresholds.ALLOWED_LATENESS_PANES.value
        late = int(outside.sum())
        if any_future:
            late -= int((outside & future).sum())
            outside |= future
        result = panes.astype(np.int64)
        if late or any_future:
            result[outside] = OUTSIDE
        self._move_end(now)
        return result, late, int(future.sum()) if any_future else 0

    def hold(self, partitions: Collection[str], now: float) -> None:
        """Let these partitions not become idle: they are silent because they cannot be read, or not yet."""
        for name in self.partitions.keys() & set(partitions):
            self.partitions[name].seen = now

    def tick(self, now: float) -> None:
        """Let time pass without events: partitions become idle, and when all are, the window follows the clock."""
        self._move_end(now)

    def lag_s(self, now: float) -> float:
        """How old events are when the slowest partition brings them; 0 when all are idle. Silence is no lag."""
        return max((known.seen - known.watermark for known in self._active(now)), default=0.0)

    def merge(self, other: "Watermarks") -> None:
        """Learn what another process knows of the partitions."""
        for name, theirs in other.partitions.items():
            ours = self.partitions.get(name, theirs)
            self.partitions[name] = Partition(max(ours.watermark, theirs.watermark), max(ours.seen, theirs.seen))
        self.end = max(self.end, other.end)

    def dump(self) -> tuple[int, dict[str, tuple[float, float]]]:
        """The window's last pane, and by partition its watermark and when it was seen."""
        return self.end, {name: (known.watermark, known.seen) for name, known in self.partitions.items()}

    def load(self, end: int, partitions: Mapping[str, tuple[float, float]]) -> None:
        """Take over what `dump` has told."""
        self.end = end
        self.partitions = {name: Partition(*values) for name, values in partitions.items()}

    def _active(self, now: float) -> list[Partition]:
        since = now - thresholds.IDLE_PARTITION_S.value
        return [known for known in self.partitions.values() if known.seen >= since]

    def _move_end(self, now: float) -> None:
        if not self.partitions:
            return
        active = self._active(now)
        if active:
            lowest = self._pane(min(known.watermark for known in active))
            newest = self._pane(max(known.watermark for known in self.partitions.values()))
            # A partition far behind the others cannot hold the window back beyond what the ring can keep.
            self.end = max(self.end, lowest, newest - self.window.ahead)
        else:
            self.end = max(self.end, self._pane(now))

    def _pane(self, time: float) -> int:
        return int(np.floor(time / self.window.pane_s))


class PaneRing:
    """Counts by pane, and their sum over the window.

    Rows of the ring are reused, and uint32 unless a tracker sums more than ones (`cells`); the running sum is exact
    because counts are integers: a pane is added when the window's end reaches it and subtracted when it leaves.
    """

    def __init__(self, window: Window, width: int, cells: type[np.integer[Any]] = np.uint32) -> None:
        self.window = window
        self.running: Counts = np.zeros(width, np.int64)
        self._rows: NDArray[Any] = np.zeros((window.panes + window.ahead + 1, width), cells)
        self._row_of: dict[int, int] = {}
        self._free = list(range(len(self._rows)))
        self._changed: set[int] = set()
        self._end = OUTSIDE

    def advance(self, end: int) -> None:
        """Move the window's end to pane `end`: panes that it reaches are added, panes that it leaves are dropped."""
        if end <= self._end:
            return
        first = end - self.window.panes + 1
        for pane in sorted(self._row_of):
            counted = pane <= self._end
            if pane < first:
                row = self._row_of.pop(pane)
                if counted:
                    self.running -= self._rows[row]
                self._rows[row] = 0
                self._free.append(row)
            elif pane <= end and not counted:
                self.running += self._rows[self._row_of[pane]]
        self._end = end

    def add(self, pane: int, counts: NDArray[Any]) -> None:
        """Add counts to a pane; one that the window has left is ignored, as it would have been dropped by now."""
        if not self._end - self.window.panes < pane <= self._end + self.window.ahead:
            return
        row = self._row_of.get(pane)
        if row is None:
            row = self._row_of[pane] = self._free.pop()
        # Unsafe only in name: counts of a pane are far below 2^32, and sums of more than ones have wider cells.
        np.add(self._rows[row], counts, out=self._rows[row], casting="unsafe")
        self._changed.add(pane)
        if pane <= self._end:
            self.running += counts

    def merge(self, other: "PaneRing") -> None:
        """Add another process's counts of the same window; both ends must be equal (see Watermarks.merge)."""
        end = max(self._end, other._end)
        self.advance(end)
        for pane, row in other._row_of.items():
            self.add(pane, other._rows[row].astype(np.int64))

    def regroup(self, to: Counts) -> None:
        """Move counts that lie in equal parts, as `regrouped` does."""
        self.running = regrouped(self.running, to)
        self._rows = regrouped(self._rows, to)
        self._changed |= self._row_of.keys()

    @property
    def panes(self) -> AbstractSet[int]:
        """The panes that hold counts."""
        return self._row_of.keys()

    def counts(self, pane: int) -> NDArray[Any]:
        """The counts of a pane, to be read at once."""
        row: NDArray[Any] = self._rows[self._row_of[pane]]
        return row

    def take_changed(self) -> set[int]:
        """Panes to which something was added since the last call; the window may have left them since."""
        changed, self._changed = self._changed, set()
        return changed

    def load(self, end: int, panes: Mapping[int, NDArray[Any]]) -> None:
        """Take over the panes of a window that ends at pane `end` into an empty ring."""
        self._end = end
        for pane, counts in panes.items():
            self.add(pane, counts)


def regrouped(counts: NDArray[Any], to: Counts) -> NDArray[Any]:
    """Counts [..., parts x width] whose part i has become, or was added to, part `to[i]`."""
    parts = counts.reshape(*counts.shape[:-1], len(to), -1)
    found = np.zeros_like(parts)
    for part, place in enumerate(to.tolist()):
        found[..., place, :] += parts[..., part, :]
    return found.reshape(counts.shape)
