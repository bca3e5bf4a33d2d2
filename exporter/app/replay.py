"""`replay`: recorded predictions through the same codecs and the same Fleet as a running exporter, window by window.

Windows are tumbling. The clock of the fleet is the number of the window, so rows and groups need no time of their own.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from exporter.app.config import ConfigError, seconds
from exporter.app.labels import Labels
from exporter.export.status import feature_scores, multivariate_scores, quality_gaps, quality_scores
from exporter.ingest import tables
from exporter.ingest.native import NativeCodec
from exporter.ingest.source import Messages, Table, Unavailable
from exporter.ingest.tables import TableCodec
from exporter.monitor.events import Batch, Decoded
from exporter.monitor.fleet import Fleet
from exporter.monitor.model_view import ModelView
from exporter.monitor.panes import Window
from exporter.monitor.reference import Columns, Reference
from exporter.monitor.settings import ModelSettings, Segmentation
from exporter.monitor.snapshot import Snapshot

VALUES = 100
"""Values of a tag that are told apart: no budget of pages or series limits a replay, only memory."""


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """Tumbling windows of `rows` rows, of `seconds` of event time, or one a value of `column`."""

    label: str
    rows: int | None = None
    seconds: float | None = None
    column: str | None = None


@dataclass(slots=True)
class Found:
    """One window: its number or group, first and last event time, and what was found."""

    key: object
    start: float
    end: float
    view: ModelView
    snapshot: Snapshot

    @property
    def drifted(self) -> bool:
        """Whether a feature has drifted, or several together."""
        return any(self.view.drifted) or "drifting" in self.view.moment_states

    @property
    def degraded(self) -> bool:
        """Whether a quality is worse than it may be."""
        return is_degraded(self.view)

    @property
    def finding(self) -> bool:
        """Whether any of it is worth an exit code."""
        return self.drifted or self.degraded or self.alarming

    @property
    def suspects(self) -> list[ModelView]:
        """Segments that are drifted or degraded."""
        return [one for one in self.view.segments if any(one.drifted) or is_degraded(one)]

    @property
    def alarming(self) -> bool:
        """Whether a segment is, compared with itself."""
        return not all(one.borrowed for one in self.suspects)


def is_degraded(view: ModelView) -> bool:
    """Whether a quality is worse than it may be."""
    readout = view.accuracy_readout
    return readout is not None and bool(readout.degraded)


@dataclass(slots=True)
class Part:
    """Rows of one window."""

    key: object
    batch: Batch


@dataclass(slots=True)
class Replay:
    """A replay of one file against one reference."""

    reference: Reference
    settings: ModelSettings
    window: WindowSpec
    columns: Columns
    labels: Labels | None = None
    progress: Callable[[int], None] = lambda _: None
    rejected: Counter[str] = field(default_factory=Counter)

    def run(self, path: Path) -> Iterator[Found]:
        """What each window shows, in order.

        Raises ConfigError when no row can be read, and Unavailable when the file cannot.
        """
        settings = replace(self.settings, window=Window(1.0, 1, self.window.label, open_panes=0))
        fleet = Fleet([settings], {settings.name: [self.reference]})
        parts = self.parts(path, fleet)
        for number, (key, batches) in enumerate(by_key(parts, in_order=self.window.rows is not None)):
            yield self._window(fleet, number, key, batches)

    def _window(self, fleet: Fleet, number: int, key: object, batches: Sequence[Batch]) -> Found:
        now = float(number)
        for batch in batches:
            timeless = replace(batch, time=np.full(len(batch), now), partition="replay")
            fleet.observe(Decoded("replay", len(batch), [timeless], [], Counter()), now)
        snapshot = fleet.tick(now)
        start = min(float(batch.time.min()) for batch in batches)
        end = max(float(batch.time.max()) for batch in batches)
        return Found(key, start, end, snapshot.models[0], snapshot)

    def parts(self, path: Path, fleet: Fleet) -> Iterator[Part]:
        """The rows of each window, in the columns of a fleet and the order of the file. Raises as `run`."""
        done = 0
        for decoded, table in self._decoded(path, fleet):
            self.rejected.update(reject.reason for reject in decoded.rejects)
            for batch in decoded.batches:
                if batch.model != self.reference.model:
                    self.rejected["other_model"] += len(batch)
                elif len(batch):
                    yield from self._split(batch, table, done)
                    done += len(batch)
            self.progress(done)
        if not done:
            raise ConfigError(f"{path}: no prediction could be read; rejected: {dict(self.rejected) or 'none'}")

    def _decoded(self, path: Path, fleet: Fleet) -> Iterator[tuple[Decoded, Table | None]]:
        version = self.reference.version
        if tables.format_of(path) == "jsonl":
            if self.window.column is not None:
                raise Unavailable(f"{path}: windows by column need a table (CSV or Parquet)")
            native = NativeCodec(fleet, "replay", default_model=self.reference.model)
            for lines in _lines(path):
                lines = lines if self.labels is None else self.labels.into_lines(lines)  # noqa: PLW2901
                decoded = native.decode(Messages("replay", lines, 0.0))
                decoded.batches = [_as_version(batch, version) for batch in decoded.batches]
                yield decoded, None
            return
        codec = TableCodec(fleet, "replay", self.reference.model, version, self.columns)
        for table in tables.read(path):
            labelled = table if self.labels is None else self.labels.into_table(table)
            yield codec.decode(labelled), table

    def _split(self, batch: Batch, table: Table | None, done: int) -> Iterator[Part]:
        if self.window.rows is not None:
            keys = (done + np.arange(len(batch))) // self.window.rows
        elif self.window.seconds is not None:
            keys = np.floor(batch.time / self.window.seconds).astype(np.int64)
        else:
            keys = self._groups(batch, table)
        for key in dict.fromkeys(keys.tolist()):
            yield Part(key, batch.take(np.flatnonzero(keys == key)))

    def _groups(self, batch: Batch, table: Table | None) -> Any:
        column = self.window.column
        if table is None or column is None or column not in table.columns:
            raise Unavailable(f"--window column:{column}: there is no such column")
        if len(batch) != table.rows:
            raise Unavailable(f"--window column:{column}: rows without a timestamp cannot be grouped; fix --timestamp")
        values = [tables.number_or_text(value) for value in table.columns[column]]
        return np.array(
            [int(value) if isinstance(value, float) and value.is_integer() else value for value in values], object
        )


def parse_window(text: str) -> WindowSpec:
    """`5000` (rows), `1h` (event time) or `column:year` (groups). Raises ValueError."""
    if text.startswith("column:") and len(text) > len("column:"):
        return WindowSpec(text, column=text.removeprefix("column:"))
    if re.fullmatch(r"[1-9]\d*", text):
        return WindowSpec(text, rows=int(text))
    try:
        return WindowSpec(text, seconds=seconds(text))
    except ValueError:
        raise ValueError(f"rows (5000), event time (1h) or column:NAME expected, found {text!r}") from None


def segmentations(reference: Reference, tags: Sequence[str]) -> tuple[Segmentation, ...]:
    """Segments by these tags, or else by those that the reference knows; all values that can be told apart, nearly."""
    known = dict.fromkeys(one.tag for one in reference.segments)
    return tuple(Segmentation(tag, VALUES) for tag in dict.fromkeys(tags or known))


def as_json(
    reference: Reference, found: Sequence[Found], rejected: Counter[str], labels: Labels | None = None
) -> dict[str, Any]:
    """The object of `--format json` (design 5.4)."""
    return {
        "model": reference.model,
        "version": reference.version,
        "reference": reference.id,
        "rejected": dict(rejected),
        "labels_unmatched": None if labels is None else labels.unmatched,
        "windows": [
            {
                "start": iso(window.start),
                "end": iso(window.end),
                "key": window.key,
                "samples": window.view.traffic_readout.predictions,
                "features": [
                    {**scores, "segment": segment_of(one), "faults": faults_of(one, place, found)}
                    for one in (window.view, *window.view.segments)
                    for place, scores in enumerate(scores_of(one))
                ],
                "multivariate": multivariate_of(window.view),
                "quality": quality_of(window.view),
                "segments": [
                    {
                        "segment": segment_of(one),
                        "samples": one.traffic_readout.predictions,
                        "borrowed_reference": one.borrowed,
                        "quality": quality_of(one),
                    }
                    for one in window.view.segments
                ],
                "quality_gaps": gaps_of(window.view),
            }
            for window in found
        ],
    }


def segment_of(view: ModelView) -> str | None:
    """How a slice is called, e.g. `region=eu`; None for a whole version."""
    return None if view.segment is None else f"{view.segment.tag}={view.segment.value}"


def scores_of(view: ModelView) -> list[dict[str, Any]]:
    """Scores of every feature of a window."""
    readout = view.drift_readout
    return [] if readout is None else [feature_scores(view, readout, i) for i in range(len(readout.n))]


def faults_of(view: ModelView, place: int, found: Sequence[Found]) -> list[dict[str, Any]]:
    """Data faults of a feature in a window; `since` is the key of the first of the windows in a row that have it.

    Of a segment there are none: they are watched of the whole alone.
    """
    faults = view.faults[place] if view.segment is None else ()
    return [asdict(fault) | {"since": found[int(fault.since)].key} for fault in faults]


def multivariate_of(view: ModelView) -> dict[str, Any] | None:
    """Drift of several inputs of a window together; None where the reference does not know enough of them."""
    readout = view.moments_readout
    return None if readout is None else multivariate_scores(view, readout)


def quality_of(view: ModelView) -> dict[str, Any]:
    """Qualities of a window by name, known from enough labels or estimated."""
    readout = view.accuracy_readout
    return {} if readout is None else quality_scores(readout)


def gaps_of(view: ModelView) -> dict[str, Any]:
    """Realised less expected shares of a window; empty where there are too few labels."""
    readout = view.accuracy_readout
    return {} if readout is None else quality_gaps(readout)


def by_key(parts: Iterator[Part], *, in_order: bool) -> Iterator[tuple[object, list[Batch]]]:
    """Batches by key. In order, a window ends when the next begins; otherwise everything is read first, then sorted."""
    groups: dict[Any, list[Batch]] = {}
    for part in parts:
        if in_order and groups and part.key not in groups:
            yield from groups.items()
            groups = {}
        groups.setdefault(part.key, []).append(part.batch)
    for key in groups if in_order else sorted(groups, key=_sortable):
        yield key, groups[key]


def _sortable(key: object) -> tuple[int, Any]:
    return (0, key) if isinstance(key, int | float) else (1, str(key))


def _as_version(batch: Batch, version: str) -> Batch:
    return replace(batch, versions=(version,), version=np.zeros(len(batch), np.int64))


def _lines(path: Path) -> Iterator[list[bytes]]:
    try:
        with path.open("rb") as file:
            while lines := file.readlines(1 << 20):
                yield [line for line in map(bytes.strip, lines) if line]
    except OSError as error:
        raise Unavailable(f"cannot read {path}: {error.strerror}") from None


def iso(moment: float) -> str | None:
    """A moment (epoch seconds) in RFC 3339."""
    if moment == 0:
        return None  # rows without a timestamp
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
