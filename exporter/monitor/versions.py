"""One model and its versions: counters, windows, and rows that wait to be counted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from exporter.catalog import thresholds
from exporter.monitor.buffer import Buffer
from exporter.monitor.drift import DriftTracker
from exporter.monitor.events import Batch, Rows, Schema
from exporter.monitor.learner import Learner
from exporter.monitor.panes import OUTSIDE, PaneRing, Watermarks, Window
from exporter.monitor.plan import FeaturePlan
from exporter.monitor.reference import Reference, schema_of
from exporter.monitor.settings import ModelSettings
from exporter.monitor.tracker import Tracker
from exporter.monitor.traffic import TrafficTracker
from exporter.stats import Counts

T = TypeVar("T", bound=Tracker)


class Counted(Generic[T]):
    """A tracker with its lifetime sums and its window."""

    def __init__(self, tracker: T, window: Window) -> None:
        self.tracker = tracker
        self.lifetime: Counts = np.zeros(tracker.width, np.int64)
        self.ring = PaneRing(window, tracker.width, tracker.cells)

    def add(self, rows: Rows, panes: Counts) -> None:
        """Count rows whose group is an index into `panes`."""
        sums = np.zeros((rows.groups, self.tracker.width), np.int64)
        self.tracker.add(sums, rows)
        self.lifetime += sums.sum(axis=0) if rows.groups > 1 else sums[0]
        for pane, counts in zip(panes.tolist(), sums, strict=True):
            if pane != OUTSIDE:
                self.ring.add(pane, counts)


@dataclass(slots=True)
class VersionState:
    """One version of a model against one reference (or none)."""

    version: str
    traffic: Counted[TrafficTracker]
    drift: Counted[DriftTracker] | None
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
        """Traffic, and drift if there is a reference."""
        return (self.traffic,) if self.drift is None else (self.traffic, self.drift)

    def count(self, end: int) -> None:
        """Move the windows to pane `end` and count the rows that wait."""
        for counted in self.counted:
            counted.ring.advance(end)
        if self.buffer is not None:
            for rows, panes in self.buffer.take(end - self.traffic.ring.window.panes):
                for counted in self.counted:
                    counted.add(rows, panes)

    def merge(self, other: "VersionState") -> None:
        """Add what another process counted of the same version against the same reference."""
        self.last_seen = max(self.last_seen, other.last_seen)
        if other.last_prediction is not None:
            self.last_prediction = max(other.last_prediction, self.last_prediction or other.last_prediction)
        for ours, theirs in zip(self.counted, other.counted, strict=True):
            ours.lifetime += theirs.lifetime
            ours.ring.merge(theirs.ring)

    def dump(self) -> dict[str, Any]:
        """State as plain values."""
        return {
            "reference": None if self.reference is None else self.reference.id,
            "first_seen": self.first_seen,
            "last_seen": self.last_seen,
            "last_prediction": self.last_prediction,
            "reasons": list(self.traffic.tracker.reasons),
            "counted": [
                {"lifetime": counted.lifetime.tobytes(), "ring": counted.ring.dump()} for counted in self.counted
            ],
        }

    def load(self, state: dict[str, Any], *, same_window: bool) -> None:
        """Take over a state made by `dump`.

        What other settings have made meaningless is left: counts against another reference, panes of another length.
        """
        self.first_seen, self.last_seen = state["first_seen"], state["last_seen"]
        self.last_prediction = state["last_prediction"]
        same_reference = state["reference"] == (None if self.reference is None else self.reference.id)
        comparable = (state["reasons"] == list(self.traffic.tracker.reasons), same_reference)
        for same, counted, dumped in zip(comparable, self.counted, state["counted"], strict=False):
            lifetime = np.frombuffer(dumped["lifetime"], np.int64)
            # The settings have a say in which categories have counters of their own.
            if same and len(lifetime) == counted.tracker.width:
                counted.lifetime[:] = lifetime
                if same_window:
                    counted.ring.load(dumped["ring"])


class ModelState:
    """One model: its references, the columns they need, its watermarks and versions."""

    def __init__(self, settings: ModelSettings, references: Sequence[Reference] = ()) -> None:
        self.settings = settings
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
        return VersionState(
            version=version,
            traffic=Counted(TrafficTracker(self.settings, version), window),
            drift=None if reference is None else self.drift(reference, version),
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

    def use(self, references: Sequence[Reference]) -> None:
        """Compare with these references from now on. Raises BadReference if they disagree; then nothing has changed."""
        self.schema = schema_of(references) if references else Schema()
        self.references = tuple(references)
        self._plans: dict[str, tuple[FeaturePlan, ...]] = {}

    def is_known(self, version: str) -> bool:
        """Whether the version is configured or has a reference of its own: such a version always has a place."""
        return version == self.settings.version or any(version == known.version for known in self.references)
