"""`replay --format openmetrics`: what an exporter would have shown while the recorded predictions were made.

Windows slide as in a running exporter, whose clock is the event time; between two moments that are asked for it is
wound on in pieces of the window, so that detectors see every pane before it has left the ring. Labels count with their
predictions or, where the model joins them, when they would have: at their own times, and at one age of the predictions.
"""

import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from exporter.app.config import ConfigError, seconds
from exporter.app.replay import Found, Replay, WindowSpec, by_key, iso
from exporter.export.recording import Recording
from exporter.ingest.native import NativeCodec
from exporter.ingest.source import Messages
from exporter.monitor.events import Batch, Decoded, LabelBatch, join
from exporter.monitor.fleet import Fleet
from exporter.monitor.panes import sliding_window

STEPS = 12
"""Moments a window, if no step is given; and the pieces in which the clock is wound on at the most."""

MOST_STRIDES = 200_000
"""Two years of windows of an hour. More are no history but a wrong timestamp, or a window that is far too short."""


LABELS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class Pace:
    """A moment every `step_s` seconds, and the `strides` in which the clock gets there."""

    step_s: float
    strides: int

    @property
    def stride_s(self) -> float:
        """Seconds of one stride."""
        return self.step_s / self.strides


def pace(window: WindowSpec, step: str | None) -> Pace:
    """How often a window is looked at: each step (`6h`), or else each twelfth of it. Raises ValueError."""
    if window.seconds is None:
        raise ValueError(f"a history has windows of event time (1h), found {window.label!r}")
    step_s = window.seconds / STEPS if step is None else seconds(step)
    return Pace(step_s, math.ceil(STEPS * step_s / window.seconds))


def record(playing: Replay, path: Path, every: Pace) -> tuple[Recording, bool]:
    """What was exposed at each step, and whether any of it is a finding. Raises as `moments`."""
    recording, finding = Recording(), False
    for found in moments(playing, path, every):
        recording.add(found.start, found.snapshot.exposed[0])
        finding |= found.finding
    return recording, finding


def moments(playing: Replay, path: Path, every: Pace) -> Iterator[Found]:
    """What there was to see at each step; at the first, before the first prediction, counters are 0.

    The last is when the last prediction has come, or would have been joined with its label.
    The key of each is its moment, in epoch seconds. Raises ConfigError without readable rows and for those that have no
    place in a history, Unavailable when the file cannot be read.
    """
    window_s = playing.window.seconds
    assert window_s is not None  # noqa: S101 - else there is no pace
    settings = replace(playing.settings, window=sliding_window(window_s, playing.window.label))
    fleet = Fleet([settings], {settings.name: [playing.reference]}, series_limit=sys.maxsize)
    labels = _labels(playing, fleet, every.stride_s) if settings.join is not None else {}
    with_labels = playing.labels if settings.join is None else None
    strides = replace(playing, window=replace(playing.window, seconds=every.stride_s), labels=with_labels)
    rows = {int(str(key)): batches for key, batches in by_key(strides.parts(path, fleet), in_order=False)}
    first, last = _checked(rows, every, path, 0.0 if settings.join is None else settings.join.maturity_s)
    yield _look(fleet, first * every.step_s)
    for number in range(first * every.strides, last * every.strides):
        if number in rows:
            batch = _in_order(rows.pop(number))
            fleet.observe(Decoded("replay", len(batch), [batch], [], Counter()), float(batch.time[-1]))
        for told in labels.pop(number, ()):
            decoded = Decoded("labels", len(told), [], [], Counter(), [told])
            fleet.observe(decoded, float(told.time[-1]))
        found = _look(fleet, (number + 1) * every.stride_s)
        if (number + 1) % every.strides == 0:
            yield found


def _labels(playing: Replay, fleet: Fleet, stride_s: float) -> dict[int, list[LabelBatch]]:
    """The labels of each stride, in the order of time."""
    codec = NativeCodec(fleet, "labels", default_model=playing.reference.model)
    lines = iter(()) if playing.labels is None else playing.labels.events(playing.reference.model)
    found: dict[int, list[LabelBatch]] = {}
    while some := list(islice(lines, LABELS_AT_ONCE)):
        decoded = codec.decode(Messages("labels", some, 0.0))
        playing.rejected.update(reject.reason for reject in decoded.rejects)
        for batch in decoded.labels:
            numbers = np.floor(batch.time / stride_s).astype(np.int64)
            for number in np.unique(numbers).tolist():
                found.setdefault(number, []).append(batch.take(np.flatnonzero(numbers == number)))
    return found


def _checked(rows: dict[int, list[Batch]], every: Pace, path: Path, maturity_s: float) -> tuple[int, int]:
    """The numbers of the first and the last step."""
    if any((batch.time == 0).any() for batch in rows.get(0, ())):
        raise ConfigError(f"{path}: rows without a timestamp are in no history; see --timestamp")
    end = max(rows) + math.ceil(maturity_s / every.stride_s)
    first, last = min(rows) // every.strides, end // every.strides + 1
    strides = (last - first) * every.strides
    if strides > MOST_STRIDES:
        span = f"from {iso(first * every.step_s)} to {iso(last * every.step_s)}"
        raise ConfigError(f"{path}: {span} is too long by --step and --window; are the timestamps right?")
    return first, last


def _in_order(batches: Sequence[Batch]) -> Batch:
    """All rows in the order of time, so that none is late."""
    batch = join(batches)
    return replace(batch.take(np.argsort(batch.time, kind="stable")), partition="replay")


def _look(fleet: Fleet, moment: float) -> Found:
    """Just before a moment, at which the next pane may begin."""
    now = math.nextafter(moment, 0)
    for _ in fleet.settle():
        pass
    for model, work in fleet.label_work(now):
        work.run()
        model.label_done(work)
    snapshot = fleet.tick(now)
    return Found(moment, moment, moment, snapshot.models[0], snapshot)
