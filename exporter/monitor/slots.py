"""Which values of a tag have counters of their own, and how rows are counted for each of them side by side.

Every row of a version is in exactly one segment of each tag: that of its value if it has a slot, else `other`, where
rows without the tag are too. Who has a slot depends on the order of rows and on ticks, never on when rows are counted.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

import numpy as np

from exporter.catalog import thresholds
from exporter.catalog.metric import Sample
from exporter.monitor.events import OTHER, Codes, Names, Rows, codes_to
from exporter.monitor.panes import OUTSIDE
from exporter.monitor.tracker import Tracker
from exporter.stats import Counts

T = TypeVar("T", bound=Tracker)


class Slots:
    """A slot for each of some values of a tag and, at last, one for `other`. Values come in codes of `names`."""

    def __init__(self, names: Names, top: int, known: Iterable[str] = ()) -> None:
        """`known` values have a slot from the start, as far as there are slots."""
        self._names = names
        self._values: list[str | None] = [None] * top
        self._volumes: Counts = np.zeros(0, np.int64)
        self._since = OUTSIDE
        self._slot_of_code: Counts = np.zeros(0, np.int64)
        self._places: dict[str, int] = {}
        self._place()
        self.take(known)

    @property
    def values(self) -> Sequence[str | None]:
        """The value of each slot, None for a free one; the last is `other`."""
        return (*self._values, OTHER)

    def of(self, codes: Codes) -> Counts:
        """The slot of each row."""
        if len(self._volumes) < len(self._names.texts):
            self._place()
        return self._slot_of_code[codes]

    def admit(self, codes: Codes) -> None:
        """Take note of rows in the order of their arrival: new values take slots while there are free ones."""
        slots = self.of(codes)
        self._volumes += np.bincount(codes[codes >= 0], minlength=len(self._volumes))
        if None in self._values:
            new = codes[(slots == len(self._values)) & (codes >= 0)]
            self.take(self._names.texts[code] for code in dict.fromkeys(new.tolist()))

    def take(self, values: Iterable[str]) -> None:
        """Give these values slots while there are free ones."""
        for value in values:
            if value not in self._places and None in self._values:
                self._values[self._values.index(None)] = value
                self._names.learn((value,))
                self._place()

    def weigh(self, end: int, panes: int, least: int) -> Counts | None:
        """Once a window of so many panes, see who has outgrown whom; `end` is the window's last pane.

        A value without a slot that came at least `least` times since, and clearly more often than one with a slot,
        takes that slot. Returns where the counters of each slot go, those of a value that lost its own to `other`; None
        when all stay.
        """
        if end == OUTSIDE or (self._since != OUTSIDE and end - self._since < panes):
            return None
        first, self._since = self._since == OUTSIDE, end
        if first:
            return None
        volumes = dict(zip(self._names.texts, self._volumes.tolist(), strict=False))
        self._volumes[:] = 0
        to = np.arange(len(self._values) + 1)
        candidates = sorted(
            (value for value in volumes if value not in self._places and volumes[value] >= least),
            key=lambda value: (-volumes[value], value),
        )
        for value in candidates if None not in self._values else ():
            smallest = min(self._places, key=lambda known: (volumes.get(known, 0), known))
            if volumes[value] <= thresholds.SEGMENT_OUTGROWN.value * volumes.get(smallest, 0):
                break
            slot = self._places[smallest]
            to[slot] = len(self._values)
            self._values[slot] = value
            self._place()
        return to if (to != np.arange(len(to))).any() else None

    def follow(self, other: "Slots") -> Counts:
        """Take the order of another process's slots, whose values are as many as they can be; where counters go.

        Values that have no slot there go to `other`.
        """
        theirs, ours = other._places, self._values
        top = len(ours)
        to = np.array([*(top if value is None else theirs.get(value, top) for value in ours), top])
        self._values = list(other._values)
        self._place()
        return to

    def add(self, other: "Slots") -> None:
        """Add what another process saw come."""
        for value, volume in other.dump()[1].items():
            self._names.learn((value,))
            self._place()
            if value in self._names:
                self._volumes[self._names[value]] += volume
        self._since = max(self._since, other._since)

    def dump(self) -> tuple[tuple[str | None, ...], dict[str, int], int]:
        """The values of the slots but `other`, how often values came, and the pane since which that is counted."""
        volumes = zip(self._names.texts, self._volumes.tolist(), strict=False)
        return tuple(self._values), dict(sorted((value, volume) for value, volume in volumes if volume)), self._since

    def load(self, values: Sequence[str | None], volumes: Mapping[str, int], since: int) -> None:
        """Take over what `dump` has told."""
        self._values, self._since = list(values), since
        self._names.learn((*(value for value in values if value is not None), *volumes))
        self._place()
        for value, volume in volumes.items():
            if value in self._names:
                self._volumes[self._names[value]] = volume

    def _place(self) -> None:
        """Look up anew which code has which slot."""
        self._places = {value: slot for slot, value in enumerate(self._values) if value is not None}
        other = len(self._values)
        self._slot_of_code = codes_to(self._places, self._names, unseen=other, wrong_type=other, missing=other)
        grown = np.zeros(len(self._names.texts), np.int64)
        grown[: len(self._volumes)] = self._volumes
        self._volumes = grown


class Split(Generic[T]):
    """A tracker of each slot, side by side: `tracker.width` counts a slot."""

    def __init__(self, tracker: T, slots: Slots, column: int) -> None:
        """The values of the tag stand in a column of codes."""
        self.tracker = tracker
        self.slots = slots
        self.column = column
        self.width = len(slots.values) * tracker.width
        self.cells = tracker.cells

    def add(self, sums: Counts, rows: Rows) -> None:
        """Add rows to `sums[rows.groups, width]`."""
        count = len(self.slots.values)
        group = self.slots.of(rows.codes[:, self.column])
        if rows.group is not None:
            group = group + rows.group * count
        split = replace(rows, group=group, groups=rows.groups * count)
        self.tracker.add(sums.reshape(split.groups, self.tracker.width), split)

    def samples(self, lifetime: Counts) -> Iterable[Sample]:
        """Nothing: what is exposed of a segment depends on its value (see slice_series)."""
        del lifetime
        return ()

    def part(self, counts: Counts, slot: int) -> Counts:
        """A copy of the counts of a slot."""
        found: Counts = counts.reshape(-1, self.tracker.width)[slot].copy()
        return found
