"""One model and its versions: counters, windows, and rows that wait to be counted."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from exporter.catalog import thresholds
from exporter.monitor.accuracy import AccuracyTracker
from exporter.monitor.archive import Archive
from exporter.monitor.blocks import Shelf
from exporter.monitor.buffer import Buffer
from exporter.monitor.coarse import coarse
from exporter.monitor.counted import Counted
from exporter.monitor.drift import DriftTracker
from exporter.monitor.entries import ModelEntry, VersionEntry
from exporter.monitor.events import LABEL, Batch, Names, Schema, tag
from exporter.monitor.faults import FaultDetector
from exporter.monitor.join import LabelJoin
from exporter.monitor.labels import LabelsView
from exporter.monitor.learner import Learner
from exporter.monitor.maturing import Maturing
from exporter.monitor.multivariate import MomentsTracker
from exporter.monitor.panes import Watermarks
from exporter.monitor.plan import FeaturePlan
from exporter.monitor.reference import Reference, schema_of
from exporter.monitor.segments import Segments
from exporter.monitor.settings import ModelSettings
from exporter.monitor.settling import Work
from exporter.monitor.state import Holder, Learned, Place, Saved
from exporter.monitor.traffic import TrafficTracker
from exporter.stats import Counts, Floats


@dataclass(slots=True)
class VersionState:
    """One version of a model against one reference (or none)."""

    version: str
    traffic: Counted[TrafficTracker]
    drift: Counted[DriftTracker] | None
    accuracy: Counted[AccuracyTracker] | None
    moments: Counted[MomentsTracker] | None
    segments: dict[str, Segments]
    archive: Archive
    faults: FaultDetector | None
    reference: Reference | None
    learner: Learner | None
    first_seen: float
    last_seen: float
    last_prediction: float | None = None
    buffer: Buffer | None = None

    def observe(self, batch: Batch, rows: Counts | None, pane: Counts, end: int) -> None:
        """Keep rows of a batch (all, or those of the given indices) to be counted; count when enough have come."""
        if self.buffer is None:
            self.buffer = Buffer(batch.schema)
        while len(pane):
            taken = self.buffer.put(batch, rows, pane)
            if self.buffer.full:
                self.count(end)
            if taken < len(pane):
                rows = np.arange(taken, len(pane)) if rows is None else rows[taken:]
            pane = pane[taken:]

    @property
    def counted(self) -> tuple[Counted[Any], ...]:
        """Traffic, drift with a reference, accuracy and moments if that knows of them; and most of it by segment."""
        parts = (counted for one in self.segments.values() for counted in one.counted)
        own = (self.traffic, self.drift, self.accuracy, self.moments)
        return tuple(one for one in (*own, *parts) if one is not None)

    def count(self, end: int) -> None:
        """Move the windows to pane `end` and count the rows that wait."""
        for counted in self.counted:
            counted.ring.advance(end)
        if self.buffer is not None:
            for one in self.segments.values():
                one.admit(self.buffer.codes(one.column))
            for rows, panes in self.buffer.take(end - self.traffic.ring.window.panes):
                for counted in self.counted:
                    counted.add(rows, panes)

    def maturing(self) -> Maturing | None:
        """What settles predictions that waited for labels; None if it is not known what is predicted."""
        if self.accuracy is None:
            return None
        return Maturing(self.accuracy.tracker, tuple(one.maturing() for one in self.segments.values()))

    def matured(self, maturing: Maturing, by_pane: Mapping[int, Counts], end: int) -> None:
        """Count what came of predictions, by pane; the window ends at pane `end`."""
        parts = {pane: maturing.parts(sums) for pane, sums in by_pane.items()}
        for place, counted in enumerate((self.accuracy, *(one.accuracy for one in self.segments.values()))):
            assert counted is not None  # noqa: S101 - else nothing would have waited
            counted.ring.advance(end)
            counted.add_sums({pane: sums[place] for pane, sums in parts.items()})

    def weigh(self, end: int) -> None:
        """Let segments that have outgrown others take their place; no row may wait."""
        for one in self.segments.values():
            one.weigh(end)

    def seal(self, end: int) -> None:
        """Let archive and detector have what is sealed while the window ends at pane `end`; no row may wait."""
        self.archive.seal(end, self.traffic.ring.panes, self._sealed)
        if self.faults is not None and self.drift is not None:
            self.faults.seal(end, self.drift.tracker, self.drift.ring)

    def _sealed(self, pane: int) -> Counts:
        """Traffic, and bins of each feature."""
        traffic = self.traffic.ring.counts(pane).astype(np.int64)
        if self.drift is None:
            return traffic
        ring, tracker = self.drift.ring, self.drift.tracker
        cells = ring.counts(pane) if pane in ring.panes else np.zeros(tracker.width, np.int64)
        return np.concatenate((traffic, tracker.bin_counts(cells)))

    def merge(self, other: "VersionState") -> None:
        """Add what another process counted of the same version against the same reference."""
        self.last_seen = max(self.last_seen, other.last_seen)
        if other.last_prediction is not None:
            self.last_prediction = max(other.last_prediction, self.last_prediction or other.last_prediction)
        for name, one in self.segments.items():
            one.align(other.segments[name])
        for ours, theirs in zip(self.counted, other.counted, strict=True):
            ours.merge(theirs)
        self.archive.merge(other.archive)
        if self.faults is not None and other.faults is not None:
            self.faults.merge(other.faults)

    def entry(self) -> VersionEntry:
        """Everything light."""
        return VersionEntry(
            reference=None if self.reference is None else self.reference.id,
            first_seen=self.first_seen,
            last_seen=self.last_seen,
            last_prediction=self.last_prediction,
            reasons=self.traffic.tracker.reasons,
            traffic=self.traffic.entry(),
            drift=None if self.drift is None else self.drift.entry(),
            accuracy=None if self.accuracy is None else self.accuracy.entry(),
            moments=None if self.moments is None else self.moments.entry(),
            archive=self.archive.entry(),
            learned=None if self.learner is None else self.learner.seen,
            faults=None if self.faults is None else self.faults.entry(),
            segments={name: one.entry() for name, one in self.segments.items()},
        )

    def load(self, name: str, entry: VersionEntry, saved: Saved, end: int | None) -> None:
        """Take over a version of model `name`; panes only if the window, which ends at pane `end`, is the same.

        What other settings have made meaningless is left: counts against another reference, of other error reasons.
        """
        self.first_seen, self.last_seen = entry.first_seen, entry.last_seen
        self.last_prediction = entry.last_prediction
        if entry.reasons == self.traffic.tracker.reasons:
            self.traffic.load(saved.vectors["traffic", name, self.version], end)
        same = entry.reference == (None if self.reference is None else self.reference.id)
        for concern, counted in (("drift", self.drift), ("accuracy", self.accuracy), ("moments", self.moments)):
            vectors = saved.vectors.get((concern, name, self.version))
            if counted is not None and vectors is not None and same:
                counted.load(vectors, end)
        for tag_name, segments in self.segments.items() if same else ():
            if tag_name in entry.segments:
                places = ((concern, (concern, name, self.version, tag_name)) for concern, _ in segments.holders())
                known = {concern: saved.vectors[place] for concern, place in places if place in saved.vectors}
                segments.load(entry.segments[tag_name], known, end)
        if same and end is not None and entry.reasons == self.traffic.tracker.reasons:
            self.archive.load(entry.archive, saved.vectors["archive", name, self.version])
        if same and end is not None and self.faults is not None and entry.faults is not None:
            self.faults.load(entry.faults, saved.evidence["faults", name, self.version])
        if self.learner is not None and entry.learned is not None:
            self.learner.load(entry.learned, saved.blocks["learner", name, self.version])


class ModelState:
    """One model: its references, the columns they need, its watermarks and versions."""

    def __init__(
        self, settings: ModelSettings, references: Sequence[Reference] = (), shelf: Shelf | None = None
    ) -> None:
        """`shelf` is where predictions that wait for labels lie once they are durable."""
        self.settings = settings
        self.join = None if settings.join is None else LabelJoin(settings.name, settings.join, settings.window, shelf)
        self.last_label: float | None = None
        self._tags = {tag(one.tag): Names() for one in settings.segments}
        self.learns = settings.learn is not None and not references
        """Whether its references are learned: then they are part of the state."""
        self.use(references)
        self.watermarks = Watermarks(settings.window)
        self.versions: dict[str, VersionState] = {}

    @property
    def default_reference(self) -> Reference | None:
        """The reference of versions without one: the configured version's, else the newest."""
        return self._newest(self.settings.version) or self._newest()

    @property
    def expected_version(self) -> str | None:
        """The version to watch from the start: the configured one, else that of the default reference."""
        default = self.default_reference
        return self.settings.version or (None if default is None else default.version)

    def reference_for(self, version: str) -> Reference | None:
        """The version's own reference, else the default one."""
        return self._newest(version) or self.default_reference

    def _newest(self, version: str | None = None) -> Reference | None:
        """The newest reference, of a version if one is given."""
        of_version = (one for one in self.references if version in (None, one.version))
        return max(of_version, key=lambda reference: reference.created, default=None)

    def open(self, version: str, now: float) -> VersionState | None:
        """The state of a version; a new one needs a place. None when all places are taken by versions in use."""
        state = self.versions.get(version)
        if state is None:
            if len(self.versions) >= thresholds.VERSION_LIMIT.count and not self.is_known(version):
                idle = [
                    name
                    for name, other in self.versions.items()
                    if not self.is_known(name) and other.last_seen < now - self.settings.window.seconds
                ]
                if not idle:
                    return None
                del self.versions[min(idle, key=lambda name: self.versions[name].last_seen)]
            state = self.versions[version] = self.start(version, now)
        return state

    def start(self, version: str, now: float) -> VersionState:
        """An empty state for a version."""
        window = self.settings.window
        reference = self.reference_for(version)
        learns = reference is None and self.settings.learn is not None
        traffic = Counted(TrafficTracker(self.settings, version), window)
        drift = None if reference is None else self.drift(reference, version)
        return VersionState(
            version=version,
            traffic=traffic,
            drift=drift,
            segments={} if reference is None else self.segments(reference, version),
            archive=self.archive(traffic, drift),
            faults=self.faults(drift),
            accuracy=None if reference is None else self.accuracy(reference, version),
            moments=None if reference is None else self.moments(reference, version),
            reference=reference,
            learner=Learner(self.settings, version) if learns else None,
            first_seen=now,
            last_seen=now,
        )

    def drift(self, reference: Reference, version: str) -> Counted[DriftTracker]:
        """Empty drift counters against a reference."""
        plans = self._plans.get(reference.id)
        tracker = DriftTracker(reference, self.schema, self.settings, version, plans)
        self._plans[reference.id] = tracker.features
        return Counted(tracker, self.settings.window)

    def accuracy(self, reference: Reference, version: str) -> Counted[AccuracyTracker] | None:
        """Empty counters of right and wrong predictions; None if the reference does not know what is predicted."""
        if reference.task is None:
            return None
        return Counted(AccuracyTracker(reference.task, self.schema, self.settings, version), self.settings.window)

    def moments(self, reference: Reference, version: str) -> Counted[MomentsTracker] | None:
        """Empty sums of several inputs together; None if the reference does not know enough of them."""
        if reference.moments is None:
            return None
        return Counted(MomentsTracker(reference.moments, self.schema, self.settings, version), self.settings.window)

    def segments(self, reference: Reference, version: str) -> dict[str, Segments]:
        """Empty counters by the values of each tag."""
        if not self.settings.segments:
            return {}
        whole = self._wholes.get(reference.id)
        if whole is None:
            whole = self._wholes[reference.id] = DriftTracker(coarse(reference), self.schema, self.settings, version)
        return {one.tag: Segments(one, whole, self.schema, self.settings, version) for one in self.settings.segments}

    def archive(self, traffic: Counted[TrafficTracker], drift: Counted[DriftTracker] | None) -> Archive:
        """An empty archive of these counters."""
        return Archive(self.settings.window, traffic.tracker.width + (0 if drift is None else len(drift.tracker.bins)))

    def faults(self, drift: Counted[DriftTracker] | None) -> FaultDetector | None:
        """A detector without evidence; None without a reference."""
        return None if drift is None else FaultDetector(drift.tracker)

    def use(self, references: Sequence[Reference]) -> None:
        """Compare with these references from now on. Raises BadReference if they disagree; then nothing has changed."""
        schema = schema_of(references).with_tags(self._tags) if references else Schema()
        labelled = LABEL in schema.numeric or LABEL in schema.categorical
        self.schema = replace(schema, joins=True) if self.join is not None and labelled else schema
        self.references = tuple(references)
        self._learned = tuple(map(Learned, references)) if self.learns else ()
        self._plans: dict[str, tuple[FeaturePlan, ...]] = {}
        self._wholes: dict[str, DriftTracker] = {}

    def labels_view(self) -> LabelsView:
        """What is known of labels now."""
        join = None if self.join is None else self.join.view()
        baseline = any(one.task is not None and one.task.counts for one in self.references)
        return LabelsView(self.last_label, join, expected=baseline or join is not None)

    def label_work(self, now: float, to_come: Collection[str] | None) -> Work | None:
        """What is to be done for labels now (see Fleet.label_work)."""
        if self.join is None:
            return None
        return self.join.work(self.watermarks, self.schema, self._outcomes(), now, to_come)

    def label_done(self, work: Work) -> None:
        """Count what came of predictions that are mature."""
        trackers = self._outcomes()
        outcomes = {} if self.join is None else self.join.done(work, self.schema, trackers)
        for version, by_pane in outcomes.items():
            self.versions[version].matured(trackers[version], by_pane, self.watermarks.end)

    def _outcomes(self) -> dict[str, Maturing]:
        found = {name: state.maturing() for name, state in self.versions.items()}
        return {name: one for name, one in found.items() if one is not None}

    def labelled(self, times: Floats) -> None:
        """Take note of when labels were of."""
        if len(times):
            self.last_label = max(float(times.max()), -math.inf if self.last_label is None else self.last_label)

    def is_known(self, version: str) -> bool:
        """Whether the version is configured or has a reference of its own: such a version always has a place."""
        return version == self.settings.version or any(version == known.version for known in self.references)

    # ---- state -----------------------------------------------------------------------------------------------------

    def entry(self) -> ModelEntry:
        """Everything light."""
        window = self.settings.window
        end, partitions = self.watermarks.dump()
        return ModelEntry(
            pane_s=window.pane_s,
            panes=window.panes,
            end=end,
            partitions=partitions,
            references=tuple(one.reference.id for one in self._learned),
            versions={version: state.entry() for version, state in self.versions.items()},
            last_label=self.last_label,
            joins=self.join is not None,
        )

    def holders(self) -> Iterator[tuple[Place, Holder]]:
        """Everything that is not light, by its place."""
        name = self.settings.name
        for one in self._learned:
            yield ("reference", name, one.reference.id), one
        if self.join is not None:
            yield ("labels", name, ""), self.join
        for version, state in self.versions.items():
            yield ("traffic", name, version), state.traffic
            yield ("archive", name, version), state.archive
            if state.drift is not None:
                yield ("drift", name, version), state.drift
            if state.faults is not None:
                yield ("faults", name, version), state.faults
            if state.accuracy is not None:
                yield ("accuracy", name, version), state.accuracy
            if state.moments is not None:
                yield ("moments", name, version), state.moments
            if state.learner is not None:
                yield ("learner", name, version), state.learner
            for tag_name, segments in state.segments.items():
                for concern, holder in segments.holders():
                    yield (concern, name, version, tag_name), holder

    def merge_watermarks(self, other: "ModelState") -> None:
        """Learn how far another process is."""
        self.watermarks.merge(other.watermarks)
        if self.join is not None and other.join is not None:
            self.join.watermarks.merge(other.join.watermarks)

    def merge_labels(self, other: "ModelState") -> None:
        """Add what another process has of labels, and of predictions that wait for them."""
        if other.last_label is not None:
            self.labelled(np.array([other.last_label]))
        if self.join is not None and other.join is not None:
            self.join.merge(other.join)

    def load(self, entry: ModelEntry, saved: Saved, blocks: Mapping[str, bytes]) -> None:
        """Take over watermarks and versions; those of a window of another length are left."""
        window = self.settings.window
        same_window = (entry.pane_s, entry.panes) == (window.pane_s, window.panes)
        if same_window:
            self.watermarks.load(entry.end, entry.partitions)
        self.last_label = entry.last_label
        if self.join is not None and entry.joins:
            self.join.load(saved.labels[self.settings.name], blocks)
        for version, values in entry.versions.items():
            state = self.versions[version] = self.start(version, values.first_seen)
            state.load(self.settings.name, values, saved, entry.end if same_window else None)
