"""A version by the values of one tag: each value that has a slot is like a small version of its own.

A slice is compared with itself, if the reference knows it; `other` with what the slices in slots leave of it. A slice
that the reference does not know is compared with the whole, and borrows that: it may differ from it by nature.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from exporter.catalog.labels import SEGMENT, SEGMENT_NAME
from exporter.monitor.accuracy import AccuracyTracker
from exporter.monitor.coarse import of_slice, rest
from exporter.monitor.counted import Counted
from exporter.monitor.drift import DriftTracker
from exporter.monitor.entries import SegmentsEntry
from exporter.monitor.events import OTHER, Codes, Names, Schema, tag
from exporter.monitor.maturing import MaturingSlices
from exporter.monitor.model_view import ModelView, Segment
from exporter.monitor.outcomes import Outcomes
from exporter.monitor.reference import Reference
from exporter.monitor.rows import tag_field, tag_names
from exporter.monitor.settings import ModelSettings, Segmentation
from exporter.monitor.slots import Slots, Split
from exporter.monitor.state import Holder, Vectors
from exporter.monitor.traffic import TrafficTracker
from exporter.stats import Counts


@dataclass(frozen=True, slots=True)
class _Reader:
    """What reads the counters of a slot."""

    beside: frozenset[str]
    segment: Segment
    reference: Reference
    drift: DriftTracker
    accuracy: AccuracyTracker | None


class Segments:
    """The slices of one version of a model by one tag, against one reference."""

    def __init__(
        self, by: Segmentation, whole: DriftTracker, schema: Schema, settings: ModelSettings, version: str
    ) -> None:
        """`whole` counts against the coarse reference, which knows some segments, the largest first."""
        self._by = by
        self._whole = whole.reference
        self._schema = schema
        self._settings = settings
        self._version = version
        self._known = {one.value: one for one in whole.reference.segments if one.tag == by.tag}
        self.column = schema.categorical.index(tag(by.tag))
        names = schema.vocabularies[self.column]
        assert isinstance(names, Names)  # noqa: S101 - the column of a tag
        slots = self._slots = Slots(names, by.top, self._known)
        window = settings.window
        self.traffic = Counted(Split(TrafficTracker(settings, version), slots, self.column), window)
        self.drift = Counted(Split(whole, slots, self.column), window)
        task = self._whole.task
        self.accuracy = (
            None
            if task is None
            else Counted(Split(AccuracyTracker(task, schema, settings, version), slots, self.column), window)
        )
        self._readers: dict[str, _Reader] = {}

    @property
    def counted(self) -> tuple[Counted[Any], ...]:
        """As of the version itself: traffic, drift, and accuracy if the reference knows what is predicted."""
        return tuple(one for one in (self.traffic, self.drift, self.accuracy) if one is not None)

    def maturing(self) -> MaturingSlices:
        """What settles predictions that waited for labels, by slot."""
        assert self.accuracy is not None  # noqa: S101 - else nothing waits
        field = tag_field(tag_names(self._schema).index(self._by.tag))
        return MaturingSlices(field, tuple(self._slots.values), self.accuracy.tracker.tracker)

    def admit(self, codes: Codes) -> None:
        """Take note of the tags of rows that are about to be counted, in the order of their arrival."""
        self._slots.admit(codes)

    def weigh(self, end: int) -> None:
        """Once a window, which ends at pane `end`, let values that have outgrown others take their slots."""
        to = self._slots.weigh(end, self._settings.window.panes, self._settings.min_samples)
        if to is not None:
            self._regroup(to)

    def align(self, other: "Segments") -> None:
        """Bring another process's slots into the order of ours, so that counters of both can be added."""
        self._slots.take(value for value in other._slots.values[:-1] if value is not None)
        other._regroup(other._slots.follow(self._slots))
        self._slots.add(other._slots)

    def move(self, kept: "Segments") -> None:
        """Go on with the counters of the same reference whose rows had other columns."""
        self._slots.load(*kept._slots.dump())
        for fresh, old in zip(self.counted, kept.counted, strict=True):
            old.tracker = fresh.tracker
        self.traffic, self.drift, self.accuracy = kept.traffic, kept.drift, kept.accuracy

    def _regroup(self, to: Counts) -> None:
        for counted in self.counted:
            counted.regroup(to)

    # ---- state -----------------------------------------------------------------------------------------------------

    def entry(self) -> SegmentsEntry:
        """Everything light."""
        values, volumes, since = self._slots.dump()
        accuracy = None if self.accuracy is None else self.accuracy.entry()
        return SegmentsEntry(values, volumes, since, self.traffic.entry(), self.drift.entry(), accuracy)

    def holders(self) -> Iterator[tuple[str, Holder]]:
        """Everything that is not light, by concern."""
        yield "traffic", self.traffic
        yield "drift", self.drift
        if self.accuracy is not None:
            yield "accuracy", self.accuracy

    def load(self, entry: SegmentsEntry, vectors: Mapping[str, Vectors], end: int | None) -> None:
        """Take over counts by concern; none if there were more or fewer slots, or other error reasons."""
        widths = [getattr(entry, concern).width for concern in vectors]
        if len(entry.values) == self._by.top and widths == [one.tracker.width for one in self.counted]:
            self._slots.load(entry.values, entry.volumes, entry.since)
            for counted, one in zip(self.counted, vectors.values(), strict=True):
                counted.load(one, end)

    # ---- what they say ---------------------------------------------------------------------------------------------

    def views(self, view: ModelView) -> Iterator[ModelView]:
        """Each slice as a version of its own; `view` is that of all of them together."""
        values = self._slots.values
        known = frozenset(self._known.keys() & set(values))
        for slot, value in enumerate(values):
            if value is None:
                continue
            reader = self._reader(value, known)
            traffic, drift, accuracy = self.traffic, self.drift, self.accuracy
            yield replace(
                view,
                reference=reader.reference,
                segment=reader.segment,
                traffic_lifetime=traffic.tracker.part(traffic.lifetime, slot),
                traffic_window=traffic.tracker.part(traffic.ring.running, slot),
                drift=reader.drift,
                drift_lifetime=drift.tracker.part(drift.lifetime, slot),
                drift_window=drift.tracker.part(drift.ring.running, slot),
                accuracy=reader.accuracy,
                accuracy_lifetime=None if accuracy is None else accuracy.tracker.part(accuracy.lifetime, slot),
                accuracy_window=None if accuracy is None else accuracy.tracker.part(accuracy.ring.running, slot),
                # Faults, and what inputs are together, are watched of the whole alone.
                alarms=None,
                moments=None,
                moments_lifetime=None,
                moments_window=None,
            )

    def _reader(self, value: str, known: frozenset[str]) -> _Reader:
        """The reader of a value; of `other` beside slices that the reference knows."""
        found = self._readers.get(value)
        if found is None or (value == OTHER and found.beside != known):
            found = self._readers[value] = self._make_reader(value, known)
        return found

    def _make_reader(self, value: str, known: frozenset[str]) -> _Reader:
        reference = self._reference(value, known)
        labels = {SEGMENT_NAME.name: self._by.tag, SEGMENT.name: value}
        settings, version, schema, whole = self._settings, self._version, self._schema, self._whole
        observer = DriftTracker(whole, schema, settings, version, self.drift.tracker.tracker.features, labels)
        own = reference or whole
        return _Reader(
            beside=known,
            segment=Segment(self._by.tag, value, reference is not None, observer),
            reference=own,
            drift=observer if reference is None else DriftTracker(own, schema, settings, version, segment=labels),
            accuracy=None if own.task is None else AccuracyTracker(own.task, schema, settings, version),
        )

    def _reference(self, value: str, known: frozenset[str]) -> Reference | None:
        """What the slice is to be compared with; None if the reference knows too little of it."""
        if value == OTHER:
            found = rest(self._whole, [self._known[one] for one in known]) if self._known else None
        else:
            found = of_slice(self._whole, self._known[value]) if value in self._known else None
        if found is None or found.rows < self._settings.min_samples:
            return None
        task = found.task
        if task is not None and task.counts:
            labels = Outcomes(task).joined(np.array(task.counts, np.int64))
            if labels < self._settings.min_labels:  # no baseline: it would be noise itself
                found = msgspec.structs.replace(found, task=msgspec.structs.replace(task, counts=()))
        return found
