"""What each version did, span by span of a day, for whoever compares versions with each other.

Verdicts about a canary need counts of both versions within the same spans of time, summed over all processes in one
place; Prometheus cannot keep them apart so finely. A pane is sealed at the first tick at which no partition that is
being read can bring anything for it any more. What comes for it later, of a partition that was idle, is in the window
but not here; nor is a pane that the window left between two ticks, as it does while a backlog is read. Panes shorter
than a minute are added up.
"""

import math
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter.catalog import thresholds
from exporter.monitor.drift import DriftTracker
from exporter.monitor.entries import ArchiveEntry
from exporter.monitor.panes import OUTSIDE, Window
from exporter.monitor.state import Piece, Vectors, pack
from exporter.monitor.traffic import TrafficTracker
from exporter.stats import Counts


class Archive:
    """Sealed spans of one version: counts [width] by number; a span's number is floor(time / span_s)."""

    def __init__(self, window: Window, width: int) -> None:
        self._window = window
        self._panes = math.ceil(thresholds.ARCHIVE_SPAN_S.value / window.pane_s)
        self.span_s = self._panes * window.pane_s
        self._width = width
        self._spans: dict[int, NDArray[Any]] = {}
        self._sealed = OUTSIDE
        self._changed: set[Piece] = set()

    @property
    def spans(self) -> Mapping[int, NDArray[Any]]:
        """What is complete; a span without events is not there. The arrays never change."""
        return {span: counts for span, counts in self._spans.items() if (span + 1) * self._panes - 1 <= self._sealed}

    def seal(self, end: int, panes: AbstractSet[int], counts_of: Callable[[int], Counts]) -> None:
        """Take over the counts [width] of those of `panes` that are sealed while the window ends at pane `end`."""
        if end == OUTSIDE:
            return
        last = self._window.sealed(end)
        for pane in sorted(pane for pane in panes if self._sealed < pane <= last):
            self._add(pane // self._panes, counts_of(pane))
        self._sealed = max(self._sealed, last)
        oldest = (self._sealed + 1) // self._panes - math.ceil(thresholds.ARCHIVE_S.value / self.span_s)
        for span in [span for span in self._spans if span < oldest]:
            del self._spans[span]

    def merge(self, other: "Archive") -> None:
        """Add what another process has sealed; both have sealed as far (see Watermarks.merge)."""
        for span, counts in other._spans.items():
            self._add(span, counts)
        self._sealed = max(self._sealed, other._sealed)

    def _add(self, span: int, counts: NDArray[Any]) -> None:
        known = self._spans.get(span)
        together = counts.astype(np.int64) if known is None else counts + known.astype(np.int64)
        self._spans[span] = together.astype(np.min_scalar_type(together.max(initial=0)))  # a day of small numbers
        self._changed.add(span)

    # ---- state -----------------------------------------------------------------------------------------------------

    def pieces(self) -> AbstractSet[Piece]:
        """The spans."""
        return self._spans.keys()

    def piece(self, piece: Piece) -> bytes:
        """One of them."""
        return pack(self._spans[int(piece)])

    def take_changed(self) -> AbstractSet[Piece]:
        """Those that something was added to since the last call."""
        changed, self._changed = self._changed, set()
        return changed

    def entry(self) -> ArchiveEntry:
        """Which spans there are, and how far panes are sealed."""
        return ArchiveEntry(self._width, self._sealed, tuple(sorted(self._spans)))

    def load(self, entry: ArchiveEntry, vectors: Vectors) -> None:
        """Take over spans of equal windows into an archive that has none; not those of another width."""
        if entry.width == self._width:
            self._sealed = entry.sealed
            self._spans = dict(vectors.panes)


@dataclass(frozen=True)
class ArchiveView:
    """Complete spans of one version, which never change; a span's counts are those of traffic and of all bins."""

    model: str
    version: str
    reference: str | None
    traffic: TrafficTracker
    drift: DriftTracker | None
    span_s: float
    spans: Mapping[int, NDArray[Any]]
