"""Whatever is counted, is counted twice: since the beginning, and in a window of panes."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Generic, TypeVar

import numpy as np

from exporter.monitor.entries import CountedEntry
from exporter.monitor.events import Rows
from exporter.monitor.panes import OUTSIDE, PaneRing, Window, regrouped
from exporter.monitor.state import LIFETIME, Piece, Vectors, pack
from exporter.monitor.tracker import Tracker
from exporter.stats import Counts

T = TypeVar("T", bound=Tracker)


class Counted(Generic[T]):
    """A tracker with its lifetime sums and its window."""

    def __init__(self, tracker: T, window: Window) -> None:
        self.tracker = tracker
        self.lifetime: Counts = np.zeros(tracker.width, np.int64)
        self.ring = PaneRing(window, tracker.width, tracker.cells)
        self._changed = False

    def add(self, rows: Rows, panes: Counts) -> None:
        """Count rows whose group is an index into `panes`."""
        sums = np.zeros((rows.groups, self.tracker.width), np.int64)
        self.tracker.add(sums, rows)
        self.lifetime += sums.sum(axis=0) if rows.groups > 1 else sums[0]
        self._changed = True
        for pane, counts in zip(panes.tolist(), sums, strict=True):
            if pane != OUTSIDE:
                self.ring.add(pane, counts)

    def add_sums(self, by_pane: Mapping[int, Counts]) -> None:
        """Add what was counted elsewhere, by pane."""
        for pane, counts in by_pane.items():
            self.lifetime += counts
            self.ring.add(pane, counts)
        self._changed = True

    def merge(self, other: "Counted[T]") -> None:
        """Add what another process counted."""
        self.lifetime += other.lifetime
        self._changed = True
        self.ring.merge(other.ring)

    def regroup(self, to: Counts) -> None:
        """Move counts that lie in equal parts: those of part i are added to part `to[i]` of empty ones."""
        self.lifetime = regrouped(self.lifetime, to)
        self._changed = True
        self.ring.regroup(to)

    # ---- state -----------------------------------------------------------------------------------------------------

    def pieces(self) -> AbstractSet[Piece]:
        """The lifetime counts and the panes."""
        return {LIFETIME, *self.ring.panes}

    def piece(self, piece: Piece) -> bytes:
        """One of them."""
        return pack(self.ring.counts(piece) if isinstance(piece, int) else self.lifetime)

    def take_changed(self) -> AbstractSet[Piece]:
        """Those that something was added to since the last call."""
        changed, self._changed = self._changed, False
        return self.ring.take_changed() | ({LIFETIME} if changed else set())

    def entry(self) -> CountedEntry:
        """Which pieces there are."""
        return CountedEntry(self.tracker.width, tuple(sorted(self.ring.panes)))

    def load(self, vectors: Vectors, end: int | None) -> None:
        """Take over counts into empty ones; the panes only if the window, which ends at pane `end`, is the same."""
        # Of error reasons, which are settings, there can be another number.
        if len(vectors.lifetime) == self.tracker.width:
            self.lifetime[:] = vectors.lifetime
            if end is not None:
                self.ring.load(end, vectors.panes)
