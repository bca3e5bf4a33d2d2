"""Labels in a file of their own, joined to recorded predictions by id.

The last label of an id counts: the newest where labels have a time, else the one that stands last. Ids are compared as
texts, so that 7, "7" and 7.0 are one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from exporter.ingest import tables
from exporter.ingest.lenient import without_nan
from exporter.ingest.source import Cells, Table, Unavailable
from exporter.monitor.events import LABEL, text_of
from exporter.monitor.reference import Columns


@dataclass(slots=True)
class Labels:
    """What was true, by the id of the prediction."""

    columns: Columns
    by_id: dict[str, object]
    times: dict[str, float] = field(default_factory=dict)
    """When each came, epoch seconds; 0 where nothing says so."""
    joined: set[str] = field(default_factory=set)
    """Ids that a prediction had."""

    @property
    def unmatched(self) -> int:
        """Labels of which no prediction was seen."""
        return len(self.by_id) - len(self.joined)

    def events(self, model: str) -> Iterator[bytes]:
        """The labels as events of their own, in the order of time. Raises Unavailable where one has no time."""
        for identity in sorted(self.by_id, key=lambda one: self.times.get(one, 0.0)):
            time = self.times.get(identity)
            if not time:
                raise Unavailable(f"label of {identity}: no timestamp, so it can only count with its prediction")
            yield msgspec.json.encode(
                {"model": model, tables.ID: identity, "timestamp": time, LABEL.name: self.by_id[identity]}
            )

    def into_table(self, table: Table) -> Table:
        """The table with its labels in the column of labels. Raises Unavailable without a column of ids."""
        ids = _column(table, self.columns.id or tables.ID, table.partition)
        labels = [self._find(value) for value in tables.python_values(ids)]
        return replace(table, columns={**table.columns, self.columns.label or LABEL.name: labels})

    def into_lines(self, lines: Sequence[bytes]) -> list[bytes]:
        """JSON objects with their labels; what is no object stays as it is."""
        return [self._into_line(line) for line in lines]

    def _into_line(self, line: bytes) -> bytes:
        try:
            event = msgspec.json.decode(without_nan(line), type=dict[str, Any])
        except (msgspec.MsgspecError, RecursionError):
            return line
        label = self._find(event.get(tables.ID))
        return line if label is None else msgspec.json.encode({**event, LABEL.name: label})

    def _find(self, identity: object) -> object:
        text = text_of(identity)
        if text is None or text not in self.by_id:
            return None
        self.joined.add(text)
        return self.by_id[text]


def read(path: Path, columns: Columns) -> Labels:
    """All labels of a table or of JSONL. Raises Unavailable, naming file and column."""
    native = tables.format_of(path) == "jsonl"
    identity = tables.ID if native else columns.id or tables.ID
    label = LABEL.name if native else columns.label or LABEL.name
    stamp, time_format = ("timestamp", None) if native else (columns.timestamp, columns.timestamp_format)
    newest: dict[str, float] = {}
    found: dict[str, object] = {}
    for table in tables.read(path):
        ids = tables.python_values(_column(table, identity, str(path)))
        values = tables.python_values(_column(table, label, str(path)))
        stamps = table.columns.get(stamp or "", [None] * table.rows)
        times = np.nan_to_num(tables.times(stamps, time_format)).tolist()
        for one, value, moment in zip(ids, values, times, strict=True):
            text = text_of(one)
            if text is None or tables.is_missing(text) or tables.is_missing(value):
                continue
            if moment >= newest.get(text, 0.0):
                newest[text], found[text] = moment, value
    return Labels(columns, found, newest)


def _column(table: Table, name: str, where: str) -> Cells:
    values = table.columns.get(name)
    if values is None:
        raise Unavailable(f"{where}: no column {name}; there are {', '.join(table.columns)}")
    return values
