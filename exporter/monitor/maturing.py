"""What comes of a version's mature predictions, and of each of its segments, as one vector of sums.

A prediction that waits knows its tags by the ids of their values: names have other codes in another process. Who has a
slot is as it was when work began; if that has changed since, the work is done anew (see join.LabelJoin.done).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from exporter.monitor.accuracy import AccuracyTracker
from exporter.monitor.blocks import Table
from exporter.monitor.events import Ids, ids_of
from exporter.stats import Counts, Floats


@dataclass(frozen=True, slots=True)
class MaturingSlices:
    """The segments of one tag: the value of each slot (None for a free one), the last being `other`."""

    field: str
    values: tuple[str | None, ...]
    tracker: AccuracyTracker

    @property
    def width(self) -> int:
        """Sums of all slots."""
        return len(self.values) * self.tracker.width

    def slots(self, ids: Ids) -> Counts:
        """The slot of each row with these ids of its value."""
        slots = np.full(len(ids), len(self.values) - 1)
        for slot, own in enumerate(ids_of(self.values[:-1])):
            if own:
                slots[ids == own] = slot
        return slots

    def settle(self, group: Counts, groups: int, rows: Table, label: Floats) -> Counts:
        """Sums [groups, width] of predictions with these labels."""
        count = len(self.values)
        sums = np.zeros((groups * count, self.tracker.width), np.int64)
        self.tracker.settle(sums, group * count + self.slots(rows[self.field]), rows, label)
        return sums.reshape(groups, self.width)


@dataclass(frozen=True, slots=True)
class Maturing:
    """The whole, and its segments by tag. Implements settling.Settles."""

    whole: AccuracyTracker
    slices: tuple[MaturingSlices, ...] = ()

    @property
    def width(self) -> int:
        """Length of the vector of sums."""
        return self.whole.width + sum(one.width for one in self.slices)

    def settle(self, sums: Counts, group: Counts, rows: Table, label: Floats) -> None:
        """Add predictions with these labels to `sums[groups, width]`."""
        own, *others = np.split(sums, self._ends, axis=1)
        self.whole.settle(own, group, rows, label)
        for part, one in zip(others, self.slices, strict=True):
            np.add(part, one.settle(group, len(sums), rows, label), out=part)

    def parts(self, sums: Counts) -> Sequence[Counts]:
        """The sums [width] of the whole, and of each tag."""
        return np.split(sums, self._ends)

    @property
    def _ends(self) -> list[int]:
        """Where in the vector each part but the last ends."""
        return list(accumulate((self.whole.width, *(one.width for one in self.slices))))[:-1]
