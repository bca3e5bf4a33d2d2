"""One model and its versions: counters, windows, and rows that wait to be counted."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np

from exporter.catalog import thresholds
from exporter.monitor.accuracy import AccuracyTracker
from exporter.monitor.archive import Archive
from exporter.monitor.blocks import Shelf
from exporter.monitor.buffer import Buffer
from exporter.monitor.drift import DriftTracker
from exporter.monitor.events import LABEL, Batch, Rows, Schema
from exporter.monitor.faults import FaultDetector
from exporter.monitor.join import LabelJoin
from exporter.monitor.labels import LabelsView
from exporter.monitor.learner import Learner
from exporter.monitor.multivariate import MomentsTracker
from exporter.monitor.panes import OUTSIDE, PaneRing, Watermarks, Window
from exporter.monitor.plan import FeaturePlan
from exporter.monitor.reference import Reference, schema_of
from exporter.monitor.settings import ModelSettings
from exporter.monitor.settling import Work
from exporter.monitor.state import (
    LIFETIME,
    CountedEntry,
    Holder,
    Learned,
    ModelEntry,
    Piece,
    Place,
    Saved,
    Vectors,
    VersionEntry,
    pack,
)
from exporter.monitor.tracker import Tracker
from exporter.monitor.traffic import TrafficTracker
from exporter.stats import Counts, Floats

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


@dataclass(slots=True)
class VersionState:
    """One version of a model against one reference (or none)."""

    version: str
    traffic: Counted[TrafficTracker]
    drift: Counted[DriftTracker] | None
    accuracy: Counted[AccuracyTracker] | None
    moments: Counted[MomentsTracker] | None
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
        """Traffic, drift if there is a reference, accuracy if that knows what is predicted, and its moments if any."""
        return tuple(one for one in (self.traffic, self.drift, self.accuracy, self.moments) if one is not None)

    def count(self, end: int) -> None:
        """Move the windows to pane `end` and count the rows that wait."""
        for counted in self.counted:
            counted.ring.advance(end)
        if self.buffer is not None:
            for rows, panes in self.buffer.take(end - self.traffic.ring.window.panes):
                for counted in self.counted:
                    counted.add(rows, panes)

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

    def archive(self, traffic: Counted[TrafficTracker], drift: Counted[DriftTracker] | None) -> Archive:
        """An empty archive of these counters."""
        return Archive(self.settings.window, traffic.tracker.width + (0 if drift is None else len(drift.tracker.bins)))

    def faults(self, drift: Counted[DriftTracker] | None) -> FaultDetector | None:
        """A detector without evidence; None without a reference."""
        return None if drift is None else FaultDetector(drift.tracker)

    def use(self, references: Sequence[Reference]) -> None:
        """Compare with these references from now on. Raises BadReference if they disagree; then nothing has changed."""
        schema = schema_of(references) if references else Schema()
        labelled = LABEL in schema.numeric or LABEL in schema.categorical
        self.schema = replace(schema, joins=True) if self.join is not None and labelled else schema
        self.references = tuple(references)
        self._learned = tuple(map(Learned, references)) if self.learns else ()
        self._plans: dict[str, tuple[FeaturePlan, ...]] = {}

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
        outcomes = {} if self.join is None else self.join.done(work, self.schema, self._outcomes())
        for version, by_pane in outcomes.items():
            accuracy = self.versions[version].accuracy
            if accuracy is not None:
                accuracy.ring.advance(self.watermarks.end)
                accuracy.add_sums(by_pane)

    def _outcomes(self) -> dict[str, AccuracyTracker]:
        return {name: state.accuracy.tracker for name, state in self.versions.items() if state.accuracy is not None}

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
