"""All models, versions and references of one process: events in, an immutable snapshot out.

State is keyed by (model, version, reference); another reference starts empty. Rows wait in small batches until a few
thousand can be counted at once; a tick counts the rest. What a model name or version in an event can claim is bounded:
unconfigured models and surplus versions are turned away once their places are taken, and counted as dropped.
"""

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from exporter.catalog import thresholds
from exporter.monitor.accuracy import AccuracyTracker
from exporter.monitor.archive import ArchiveView
from exporter.monitor.blocks import Shelf, is_block
from exporter.monitor.counted import Counted, T
from exporter.monitor.drift import DriftTracker
from exporter.monitor.entries import FleetEntry
from exporter.monitor.events import Batch, Decoded, LabelBatch, Schema
from exporter.monitor.feed import SourceFeed
from exporter.monitor.join import LabelJoin
from exporter.monitor.learner import Learner
from exporter.monitor.multivariate import MomentsTracker
from exporter.monitor.reference import Reference
from exporter.monitor.rows import unlabelled
from exporter.monitor.settings import ModelSettings
from exporter.monitor.settling import Work
from exporter.monitor.slots import Split
from exporter.monitor.snapshot import Snapshot
from exporter.monitor.state import Holder, Ledger, Place, all_entries, read
from exporter.monitor.traffic import TrafficTracker
from exporter.monitor.versions import ModelState
from exporter.monitor.views import archived, views

TRACKERS = (TrafficTracker, DriftTracker, AccuracyTracker, MomentsTracker, Split)
"""Every tracker; the contract suite holds each to the laws of a sum."""

_CELLS: dict[str, type[np.integer[Any]]] = {
    "traffic": TrafficTracker.cells,
    "drift": DriftTracker.cells,
    "accuracy": AccuracyTracker.cells,
    "moments": MomentsTracker.cells,
}


class Fleet:
    """The product without IO. Times are epoch seconds; methods are for one thread."""

    def __init__(
        self,
        settings: Sequence[ModelSettings] = (),
        references: Mapping[str, Sequence[Reference]] | None = None,
        *,
        unconfigured: ModelSettings | None = None,
        series_limit: int = thresholds.SERIES_LIMIT.count,
        shelf: Shelf | None = None,
    ) -> None:
        """`unconfigured` gives the settings (but the name) of models that only turn up in events.

        Predictions that wait for labels lie on the `shelf` once they are durable, without one in memory.

        Raises BadReference when references of one model disagree on the type of a feature.
        """
        self._models = {one.name: ModelState(one, (references or {}).get(one.name, ()), shelf) for one in settings}
        self._unconfigured = unconfigured or ModelSettings(name="", configured=False)
        self._series_limit = series_limit
        self._feeds: dict[str, SourceFeed] = {}
        self._ledger = Ledger()
        self.revision = 0
        """Changes when a model's schema does: codecs made before must be made anew."""
        for model in self._models.values():
            # The expected version is watched from the start: its series exist at 0 before the first event.
            version = model.expected_version
            if version is not None:
                model.open(version, 0.0)

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

    def default_reference(self, model: str) -> Reference | None:
        """The reference of a configured model's versions that have none of their own."""
        return self._models[model].default_reference

    def expected_version(self, model: str) -> str | None:
        """The version of a configured model that is watched from the start."""
        return self._models[model].expected_version

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
        for labels in decoded.labels:
            self._observe_labels(labels, feed, now)
        feed.dropped += dropped
        return dropped

    def admits(self, decoded: Decoded) -> bool:
        """Whether all of it would be counted: nothing was rejected, and every model and version has its place."""
        return not (decoded.rejects or decoded.dropped) and all(
            batch.model in self._models and self._models[batch.model].versions.keys() >= set(batch.versions)
            for batch in decoded.batches
        )

    def report(self, source: str, trouble: str, *, lost: int = 0, redelivered: int = 0) -> None:
        """Account for something that went wrong between a source and where it reads (one of TROUBLE_REASONS)."""
        feed = self._feeds.setdefault(source, SourceFeed())
        feed.troubles[trouble] += 1
        feed.redelivered += redelivered
        if lost:
            feed.dropped["expired"] += lost

    def _observe_batch(self, batch: Batch, feed: SourceFeed, dropped: Counter[str], now: float) -> None:
        model = self._open(batch.model)
        if model is None:
            dropped["model_limit"] += len(batch)
            return
        left = model.watermarks.left
        pane, late, future = model.watermarks.advance(batch.partition, batch.time, now)
        behind = int((pane <= left).sum()) - late - future  # those have no pane, which is less than any
        if late:
            feed.late["late"] += late
        if behind > 0:
            feed.late["behind"] += behind
        if future:
            feed.late["future"] += future
        for index, version in enumerate(batch.versions):
            rows = None if len(batch.versions) == 1 else np.flatnonzero(batch.version == index)
            times, panes = (batch.time, pane) if rows is None else (batch.time[rows], pane[rows])
            state = model.open(version, now)
            if state is None:
                dropped["version_limit"] += len(times)
                continue
            state.last_seen = now
            sound = times <= now + model.settings.window.pane_s
            if state.accuracy is not None:
                model.labelled(times[sound & ~unlabelled(batch, slice(None) if rows is None else rows)])
            times = times[sound]
            if len(times):
                newest = float(times.max())
                feed.newest(newest)
                state.last_prediction = max(newest, state.last_prediction or newest)
            state.observe(batch, rows, panes, model.watermarks.end)
            if model.join is not None and state.accuracy is not None:
                model.join.predict(batch, rows, version, now)
            if state.learner is not None and batch.raw is not None:
                state.learner.observe(batch.raw if rows is None else [batch.raw[i] for i in rows.tolist()])

    def _observe_labels(self, labels: LabelBatch, feed: SourceFeed, now: float) -> None:
        """Take in labels of a model that joins them."""
        model = self._models[labels.model]
        times = labels.time[labels.time <= now + model.settings.window.pane_s]
        if len(times):
            feed.newest(float(times.max()))
            model.labelled(times)
        if model.join is not None:
            model.join.label(labels)
        for join in self._joins():  # how far a partition is says something of the labels of all models
            join.watermarks.advance(labels.partition, labels.time, now)

    def _open(self, name: str) -> ModelState | None:
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
            if state.learner is not None
            and state.learner.complete
            and not state.learner.hopeless
            and not model.references
        )

    def adopt(self, model: str, references: Sequence[Reference]) -> None:
        """Use these references for a configured model from now on. Counters against a reference that stays are kept.

        Raises BadReference when they disagree on the type of a feature; then nothing has changed.
        """
        self._flush()  # rows that wait have the columns of the old schema
        state = self._models[model]
        state.use(references)
        self.revision += 1
        for version in state.versions.values():
            reference = state.reference_for(version.version)
            drift = None if reference is None else state.drift(reference, version.version)
            accuracy = None if reference is None else state.accuracy(reference, version.version)
            moments = None if reference is None else state.moments(reference, version.version)
            segments = {} if reference is None else state.segments(reference, version.version)
            if reference is not None and version.reference is not None and reference.id == version.reference.id:
                # Same counters, but the columns of a batch may have moved.
                drift, accuracy = _moved(version.drift, drift), _moved(version.accuracy, accuracy)
                moments = _moved(version.moments, moments)
                for name, one in segments.items():
                    one.move(version.segments[name])
            else:
                version.archive, version.faults = state.archive(version.traffic, drift), state.faults(drift)
            version.drift, version.accuracy, version.moments = drift, accuracy, moments
            version.segments = segments
            version.reference = reference
            version.buffer = None
            if reference is not None:
                version.learner = None

    # ---- counting --------------------------------------------------------------------------------------------------

    def settle(self) -> Iterator[None]:
        """Count every waiting row, a version at a time: between two of them other work can have its turn."""
        for model in tuple(self._models.values()):
            for state in tuple(model.versions.values()):
                state.count(model.watermarks.end)
                yield

    def _flush(self) -> None:
        for _ in self.settle():
            pass

    def label_work(self, now: float, to_come: Collection[str] | None = ()) -> Iterator[tuple[ModelState, Work]]:
        """What is to be done for labels, a model at a time: `Work.run` may run elsewhere, then `ModelState.label_done`.

        Rows that came meanwhile are left to the next time. `to_come` are partitions that have more labels to deliver,
        None if nobody knows: predictions wait for them.
        """
        for model in tuple(self._models.values()):
            work = model.label_work(now, to_come)
            if work is not None:
                yield model, work

    # ---- snapshots out ---------------------------------------------------------------------------------------------

    def tick(self, now: float, waiting: Collection[str] = ()) -> Snapshot:
        """Count what waits, move the windows, and return the state as it is now.

        `waiting` are partitions that have, or may have, more to deliver: windows wait for them, however silent.
        """
        for model in self._models.values():
            for watermarks in (model.watermarks, *([] if model.join is None else [model.join.watermarks])):
                watermarks.hold(waiting, now)
                watermarks.tick(now)
        self._flush()
        for model in self._models.values():
            for state in model.versions.values() if model.settings.configured else ():
                state.seal(model.watermarks.end)
                state.weigh(model.watermarks.end)
        self._forget_idle(now)
        return Snapshot(
            now=now,
            models=tuple(view for model in self._models.values() for view in views(model, now)),
            labels={name: model.labels_view() for name, model in self._models.items()},
            feeds={source: feed.copy() for source, feed in self._feeds.items()},
            series_limit=self._series_limit,
        )

    def archived(self, since: float) -> tuple[ArchiveView, ...]:
        """The sealed spans of every version that have ended after `since` (epoch seconds)."""
        return tuple(view for model in self._models.values() for view in archived(model, since))

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
            model.merge_labels(theirs)
            for version, source in theirs.versions.items():
                target = model.open(version, source.first_seen)
                if target is None:
                    raise ValueError(f"no place for version {version} of {name}")
                target.merge(source)
        for source_name, feed in other._feeds.items():
            self._feeds.setdefault(source_name, SourceFeed()).merge(feed)

    def merge_watermarks(self, other: "Fleet") -> None:
        """Learn how far another process is, so that both windows end at the same pane."""
        for name, model in self._models.items():
            if name in other._models:
                model.merge_watermarks(other._models[name])

    def dump(self) -> dict[str, bytes]:
        """The whole state as entries for `load`."""
        self._flush()
        blocks = {key: block for join in self._joins() for key, block in join.all_blocks().items()}
        return all_entries(self._entry(), self._holders()) | blocks

    def changes(self) -> dict[str, bytes | None]:
        """Entries that are new, have changed or (None) are gone since the last call; all of them at the first."""
        self._flush()
        return self._ledger.changes(self._entry(), self._holders())

    def changed_blocks(self) -> dict[str, bytes | None]:
        """Rows that wait for labels, likewise; they belong to the same moment as `changes`."""
        return {key: block for join in self._joins() for key, block in join.changed_blocks().items()}

    def block_keys(self) -> set[str]:
        """The keys of all rows that wait."""
        return {key for join in self._joins() for key in join.block_keys()}

    def durable(self, blocks: Collection[str]) -> None:
        """Let go of blocks that are on the shelf."""
        for join in self._joins():
            join.durable(blocks)

    @property
    def held_bytes(self) -> int:
        """What is in memory until it is durable."""
        return sum(join.held_bytes for join in self._joins())

    def load(self, entries: Mapping[str, bytes]) -> None:
        """Take over a state made by `dump` into a fleet that has seen nothing. Raises BadState, and then has not.

        What other settings have made meaningless is left: counts against other references, panes of another length.
        """
        blocks = {key: value for key, value in entries.items() if is_block(key)}
        saved = read({key: value for key, value in entries.items() if key not in blocks}, _CELLS)
        for name, entry in saved.fleet.models.items():
            model = self._open(name)
            if model is None:
                continue
            if self.learns(name) and saved.references[name]:
                self.adopt(name, saved.references[name])
            model.load(entry, saved, blocks)
        for source, account in saved.fleet.feeds.items():
            self._feeds.setdefault(source, SourceFeed()).load(account)

    def _entry(self) -> FleetEntry:
        return FleetEntry(
            {name: model.entry() for name, model in self._models.items()},
            {source: feed.dump() for source, feed in self._feeds.items()},
        )

    def _joins(self) -> Iterator[LabelJoin]:
        return (model.join for model in self._models.values() if model.join is not None)

    def _holders(self) -> dict[Place, Holder]:
        return dict(holder for model in self._models.values() for holder in model.holders())


def _moved(kept: Counted[T] | None, fresh: Counted[T] | None) -> Counted[T] | None:
    """The counters that are kept, with the tracker of fresh ones."""
    if kept is None or fresh is None:
        return fresh
    kept.tracker = fresh.tracker
    return kept
