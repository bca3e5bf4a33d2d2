"""One model and its versions: counters, windows, and rows that wait to be counted."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from exporter.catalog import thresholds
from exporter.monitor.drift import SORT_ROWS, DriftTracker
from exporter.monitor.events import Batch, Rows, Schema
from exporter.monitor.learner import Learner
from exporter.monitor.panes import OUTSIDE, PaneRing, Watermarks, Window
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
class Pending:
    """Columns of rows that are not counted yet, and their panes."""

    batch: Batch
    rows: Counts | slice
    pane: Counts


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
    pending: list[Pending] = field(default_factory=list)

    @property
    def counted(self) -> tuple[Counted[Any], ...]:
        """Traffic, and drift if there is a reference."""
        return (self.traffic,) if self.drift is None else (self.traffic, self.drift)

    def count(self, end: int) -> None:
        """Move the windows to pane `end` and count the rows that wait."""
        for counted in self.counted:
            counted.ring.advance(end)
        if self.pending:
            for rows, panes in _grouped(self.pending):
                for counted in self.counted:
                    counted.add(rows, panes)
            self.pending.clear()

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
        self.references = tuple(references)
        self.schema = schema_of(self.references) if references else Schema()
        self.watermarks = Watermarks(settings.window)
        self.versions: dict[str, VersionState] = {}

    def reference_for(self, version: str) -> Reference | None:
        """The version's own reference, else the default one: of the configured version, else the newest."""
        if not self.references:
            return None
        own = [reference for reference in self.references if reference.version == version]
        default = [reference for reference in self.references if reference.version == self.settings.version]
        return max(own or default or self.references, key=lambda reference: reference.created)

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
        return Counted(DriftTracker(reference, self.schema, self.settings, version), self.settings.window)

    def is_known(self, version: str) -> bool:
        return version == self.settings.version or any(version == known.version for known in self.references)


def _grouped(pending: Sequence[Pending]) -> Iterator[tuple[Rows, Counts]]:
    """Waiting rows joined and grouped by pane, as few blocks as is fast: see monitor.drift for the two routes."""
    pane = _joined([waiting.pane for waiting in pending])
    numeric = _joined([waiting.batch.numeric[waiting.rows] for waiting in pending])
    codes = _joined([waiting.batch.codes[waiting.rows] for waiting in pending])
    latency_s = _joined([waiting.batch.latency_s[waiting.rows] for waiting in pending])
    error = _joined([waiting.batch.error[waiting.rows] for waiting in pending])
    if pane.min() == pane.max():
        yield Rows(numeric, codes, latency_s, error, None, 1), pane[:1]
        return
    panes, group = np.unique(pane, return_inverse=True)
    if len(pane) < SORT_ROWS * len(panes):
        yield Rows(numeric, codes, latency_s, error, group, len(panes)), panes
        return
    for index in range(len(panes)):
        rows = group == index
        yield Rows(numeric[rows], codes[rows], latency_s[rows], error[rows], None, 1), panes[index : index + 1]


def _joined(parts: list[Any]) -> Any:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
