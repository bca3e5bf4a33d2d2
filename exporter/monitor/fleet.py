"""All models, versions and references of one process: events in, an immutable snapshot out.

State is keyed by (model, version, reference); another reference starts empty. Rows wait in small batches until a few
thousand can be counted at once; a tick counts the rest. What a model name or version in an event can claim is bounded:
unconfigured models and surplus versions are turned away once their places are taken, and counted as dropped.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import dataclasses
import numpy as np

from exporter.catalog import thresholds
from exporter.monitor.drift import SORT_ROWS, DriftTracker
from exporter.monitor.events import Batch, Decoded, Rows, Schema
from exporter.monitor.feed import SourceFeed
from exporter.monitor.learner import Learner
from exporter.monitor.panes import OUTSIDE, PaneRing, Watermarks, Window
from exporter.monitor.reference import Reference, schema_of
from exporter.monitor.settings import ModelSettings
from exporter.monitor.snapshot import ModelView, Snapshot
from exporter.monitor.tracker import Tracker
from exporter.monitor.traffic import TrafficTracker
from exporter.stats import Counts

TRACKERS = (TrafficTracker, DriftTracker)
"""Every tracker; the contract suite holds each to the laws of a sum."""

FLUSH_ROWS = 8192
"""Rows that wait to be counted together: enough for the sorting route, and at most about 3 ms of work at once."""

_STATE = 1


T = TypeVar("T", bound=Tracker)


class Counted(Generic[T]):
    """A tracker with its lifetime sums and its window."""

    def __init__(self, tracker: T, window: Window) -> None:
        self.tracker = tracker
        self.lifetime: Counts = np.zeros(tracker.width, np.int64)
        self.ring = PaneRing(window, tracker.width)

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
        return (self.traffic,) if self.drift is None else (self.traffic, self.drift)


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
            if len(self.versions) >= thresholds.VERSION_LIMIT.count and not self._is_known(version):
                idle = [
                    name
                    for name, other in self.versions.items()
                    if not self._is_known(name) and other.last_seen < now - self.settings.window.seconds
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

    def _is_known(self, version: str) -> bool:
        return version == self.settings.version or any(version == known.version for known in self.references)


class Fleet:
    """The product without IO. Times are epoch seconds; methods are for one thread."""

    def __init__(
        self,
        settings: Sequence[ModelSettings] = (),
        references: Mapping[str, Sequence[Reference]] | None = None,
        *,
        unconfigured: ModelSettings | None = None,
        series_limit: int = thresholds.SERIES_LIMIT.count,
    ) -> None:
        """`unconfigured` gives the settings (but the name) of models that only turn up in events.

        Raises BadReference when references of one model disagree on the type of a feature.
        """
        self._models = {one.name: ModelState(one, (references or {}).get(one.name, ())) for one in settings}
        self._unconfigured = unconfigured or ModelSettings(name="", configured=False)
        self._series_limit = series_limit
        self._feeds: dict[str, SourceFeed] = {}
        self._waiting = 0
        self.revision = 0
        """Changes when a model's schema does: codecs made before must be made anew."""
        for model in self._models.values():
            # The expected version is watched from the start: its series exist at 0 before the first event.
            expected = {model.settings.version}
            if model.settings.version is None and model.references:
                expected = {max(model.references, key=lambda reference: reference.created).version}
            for version in expected - {None}:
                model.open(str(version), 0.0)

    # ---- what codecs need ------------------------------------------------------------------------------------------

    @property
    def models(self) -> tuple[ModelSettings, ...]:
        """Settings of the configured models."""
        return tuple(model.settings for model in self._models.values() if model.settings.configured)

    def schema(self, model: str) -> Schema:
        """Columns to decode for a model; empty for one without references."""
        state = self._models.get(model)
        return Schema() if state is None else state.schema

    def learns(self, model: str) -> bool:
        """Whether a model wants the undigested features of its events."""
        state = self._models.get(model)
        return state is not None and not state.references and state.settings.learn is not None

    def references(self, model: str) -> tuple[Reference, ...]:
        """The references of a configured model."""
        return self._models[model].references

    # ---- events in -------------------------------------------------------------------------------------------------

    def watch(self, source: str) -> None:
        """Account for a source from its start, before it brings anything."""
        self._feeds.setdefault(source, SourceFeed())

    def observe(self, decoded: Decoded, now: float) -> Counter[str]:
        """Take in what a codec decoded; returns how many of its events were dropped, by reason."""
        feed = self._feeds.setdefault(decoded.source, SourceFeed())
        feed.events += decoded.events
        dropped = Counter(decoded.dropped)
        if decoded.rejects:
            feed.reject(decoded.rejects, now)
        for batch in decoded.batches:
            if len(batch):
                self._observe_batch(batch, feed, dropped, now)
        feed.dropped += dropped
        if self._waiting >= FLUSH_ROWS:
            self._flush()
        return dropped

    def _observe_batch(self, batch: Batch, feed: SourceFeed, dropped: Counter[str], now: float) -> None:
        model = self._open(batch.model, now)
        if model is None:
            dropped["model_limit"] += len(batch)
            return
        pane, late, future = model.watermarks.advance(batch.partition, batch.time, now)
        if late:
            feed.late["late"] += late
        if future:
            feed.late["future"] += future
        for index, version in enumerate(batch.versions):
            rows: Counts | slice = slice(None)
            if len(batch.versions) > 1:
                rows = np.flatnonzero(batch.version == index)
            times = batch.time[rows]
            state = model.open(version, now)
            if state is None:
                dropped["version_limit"] += len(times)
                continue
            state.last_seen = now
            times = times[times <= now + model.settings.window.pane_s]
            if len(times):
                newest = float(times.max())
                feed.newest(newest)
                state.last_prediction = max(newest, state.last_prediction or newest)
            state.pending.append(Pending(batch, rows, pane[rows]))
            self._waiting += len(pane) if isinstance(rows, slice) else len(rows)
            if state.learner is not None and batch.raw is not None:
                chosen = range(len(batch)) if isinstance(rows, slice) else rows.tolist()
                state.learner.observe([batch.raw[i] for i in chosen])

    def _open(self, name: str, now: float) -> ModelState | None:
        model = self._models.get(name)
        if model is None:
            others = [other for other in self._models.values() if not other.settings.configured]
            if len(others) >= thresholds.MODEL_LIMIT.count:
                return None
            model = self._models[name] = ModelState(dataclasses.replace(self._unconfigured, name=name))
        return model

    # ---- learned and replaced references ---------------------------------------------------------------------------

    def learned(self) -> tuple[Learner, ...]:
        """Learners that have seen enough; `Learner.build` may run elsewhere, then `adopt` its reference."""
        return tuple(
            state.learner
            for model in self._models.values()
            for state in model.versions.values()
            if state.learner is not None and state.learner.complete and not model.references
        )

    def adopt(self, model: str, references: Sequence[Reference]) -> None:
        """Use these references for a configured model from now on. Counters against a reference that stays are kept.

        Raises BadReference when they disagree on the type of a feature; then nothing has changed.
        """
        schema = schema_of(references) if references else Schema()
        self._flush()
        state = self._models[model]
        state.references, state.schema = tuple(references), schema
        self.revision += 1
        for version in state.versions.values():
            reference = state.reference_for(version.version)
            kept = version.drift
            if reference is None:
                version.drift = None
            elif version.reference is None or reference.id != version.reference.id or kept is None:
                version.drift = state.drift(reference, version.version)
            else:
                # Same counters, but the columns of a batch may have moved.
                kept.tracker = state.drift(reference, version.version).tracker
            version.reference = reference
            if reference is not None:
                version.learner = None

    # ---- counting --------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Count every waiting row."""
        for model in self._models.values():
            end = model.watermarks.end
            for state in model.versions.values():
                for counted in state.counted:
                    counted.ring.advance(end)
                if state.pending:
                    for rows, panes in _grouped(state.pending):
                        for counted in state.counted:
                            counted.add(rows, panes)
                    state.pending.clear()
        self._waiting = 0

    # ---- snapshots out ---------------------------------------------------------------------------------------------

    def tick(self, now: float) -> Snapshot:
        """Count what waits, move the windows, and return the state as it is now."""
        for model in self._models.values():
            model.watermarks.tick(now)
        self._flush()
        self._forget_idle(now)
        return Snapshot(
            now=now,
            models=tuple(view for model in self._models.values() for view in self._views(model, now)),
            feeds={source: feed.copy() for source, feed in self._feeds.items()},
            series_limit=self._series_limit,
        )

    def _views(self, model: ModelState, now: float) -> Iterator[ModelView]:
        settings, end = model.settings, model.watermarks.end
        newest_first = sorted(
            model.versions.values(),
            key=lambda state: (model._is_known(state.version), state.first_seen),
            reverse=True,
        )
        for place, state in enumerate(newest_first):
            learner = state.learner
            traffic, drift = state.traffic, state.drift
            yield ModelView(
                settings=settings,
                version=state.version,
                reference=state.reference,
                # Of a configured model, two versions are never withheld: the current one and a canary.
                protected=settings.configured and place < 2,
                learning=None if learner is None else (learner.seen, learner.needed),
                catching_up=model.watermarks.lag_s(now) > settings.window.seconds,
                end_pane=None if end == OUTSIDE else end,
                last_prediction=state.last_prediction,
                traffic=traffic.tracker,
                traffic_lifetime=traffic.lifetime.copy(),
                traffic_window=traffic.ring.running.copy(),
                drift=None if drift is None else drift.tracker,
                drift_lifetime=None if drift is None else drift.lifetime.copy(),
                drift_window=None if drift is None else drift.ring.running.copy(),
            )

    def _forget_idle(self, now: float) -> None:
        """Free the places of unconfigured models that have been silent for a window."""
        for name, model in list(self._models.items()):
            if not model.settings.configured and all(
                state.last_seen < now - model.settings.window.seconds for state in model.versions.values()
            ):
                del self._models[name]

    # ---- state -----------------------------------------------------------------------------------------------------

    def merge(self, other: "Fleet") -> None:
        """Add another process's counts of the same configured models: a stream spread over both equals one process.

        Both must know the same watermarks (see Watermarks.merge) at every step, as partitions do that move together.
        """
        self._flush()
        other._flush()
        for name, theirs in other._models.items():
            model = self._models[name]
            model.watermarks.merge(theirs.watermarks)
            for version, source in theirs.versions.items():
                target = model.open(version, source.first_seen)
                if target is None:
                    raise ValueError(f"no place for version {version} of {name}")
                target.last_seen = max(target.last_seen, source.last_seen)
                if source.last_prediction is not None:
                    target.last_prediction = max(
                        source.last_prediction, target.last_prediction or source.last_prediction
                    )
                for ours, added in zip(target.counted, source.counted, strict=True):
                    ours.lifetime += added.lifetime
                    ours.ring.merge(added.ring)
        for source_name, feed in other._feeds.items():
            self._feeds.setdefault(source_name, SourceFeed()).merge(feed)

    def merge_watermarks(self, other: "Fleet") -> None:
        """Learn how far another process is, so that both windows end at the same pane."""
        for name, model in self._models.items():
            if name in other._models:
                model.watermarks.merge(other._models[name].watermarks)

    def dump(self) -> dict[str, Any]:
        """The state as plain values (dicts, lists, numbers, text, bytes), for `load`."""
        self._flush()
        return {
            "state": _STATE,
            "models": {
                name: {
                    "watermarks": model.watermarks.dump(),
                    "versions": {version: _dump_version(state) for version, state in model.versions.items()},
                }
                for name, model in self._models.items()
            },
            "feeds": {source: feed.dump() for source, feed in self._feeds.items()},
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over a state made by `dump` into a fleet that has seen nothing. Counts against other references are left."""
        for name, dumped in state["models"].items():
            model = self._open(name, 0.0)
            if model is None:
                continue
            model.watermarks.load(dumped["watermarks"])
            for version, values in dumped["versions"].items():
                target = model.versions[version] = model.start(version, values["first_seen"])
                _load_version(target, values)
        for source, values in state["feeds"].items():
            self._feeds.setdefault(source, SourceFeed()).load(values)


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


def _dump_version(state: VersionState) -> dict[str, Any]:
    return {
        "reference": None if state.reference is None else state.reference.id,
        "first_seen": state.first_seen,
        "last_seen": state.last_seen,
        "last_prediction": state.last_prediction,
        "counted": [{"lifetime": counted.lifetime.tobytes(), "ring": counted.ring.dump()} for counted in state.counted],
    }


def _load_version(state: VersionState, values: dict[str, Any]) -> None:
    state.last_seen = values["last_seen"]
    state.last_prediction = values["last_prediction"]
    same_reference = values["reference"] == (None if state.reference is None else state.reference.id)
    for place, (counted, dumped) in enumerate(zip(state.counted, values["counted"], strict=False)):
        if place == 0 or same_reference:
            counted.lifetime[:] = np.frombuffer(dumped["lifetime"], np.int64)
            counted.ring.load(dumped["ring"])
