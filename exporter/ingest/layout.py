"""How events of one model become columns: the layout of its schema, and a msgspec Struct with exactly its fields."""

import math
import re
import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import astuple

from exporter.ingest.fields import Fields, Path
from exporter.ingest.timestamps import column_s
from exporter.monitor.events import (
    LABEL,
    NO_ERROR,
    SCORE,
    UNSEEN,
    Batch,
    ErrorReasons,
    FeatureKey,
    LabelBatch,
    Names,
    Schema,
    as_number_column,
    category_text,
    ids_of,
    is_text,
)
from exporter.stats import Counts

NAME_LIMIT = 128

_UNFIT = re.compile(r'["\\\x00-\x1f]')
"""What msgspec refuses in the name of a field."""


@dataclass(slots=True)
class Row:
    """One event, leniently read."""

    model: str
    version: str
    time: float
    numeric: list[float]
    codes: list[int]
    latency_s: float
    error: int
    raw: Mapping[FeatureKey, object] | None
    identity: object


@dataclass(slots=True)
class LabelRow:
    """One label without its prediction, leniently read."""

    model: str
    time: float
    label: float
    identity: object


class Layout:
    """How events of one model become columns of its schema."""

    def __init__(
        self, model: str, schema: Schema, reasons: ErrorReasons, version: str, fields: Fields, *, learns: bool
    ) -> None:
        self.model = model
        self.schema = schema
        self.reasons = reasons
        self.learns = learns
        self.numeric_paths = [_path(fields, name) for name in schema.numeric]
        self.categorical_paths = [_path(fields, name) for name in schema.categorical]
        self.label_vocabulary = (
            schema.vocabularies[schema.categorical.index(LABEL)] if LABEL in schema.categorical else None
        )
        """Codes of labels; None where they are numbers, or nobody asks for them."""
        columns = zip(self.categorical_paths, schema.vocabularies, strict=True)
        self.tags = [(path, names) for path, names in columns if isinstance(names, Names)]
        self._default_version = version

    def version_text(self, version: object, default: str = "") -> str:
        """The version as text; if there is none the default, else the configured one. TypeError if it cannot be one."""
        return category_text(version) or default or self._default_version

    def clashes(self, fields: Fields) -> bool:
        """Whether no Struct can have these fields: a path is asked for twice, or msgspec cannot look for a key."""
        own = [fields.model, fields.version, fields.timestamp, fields.latency_seconds, fields.error]
        own += [fields.id] if self.schema.joins else []
        paths = (*self.numeric_paths, *self.categorical_paths, *own)
        return len(set(paths)) < len(paths) or any(_UNFIT.search(key) for path in paths for key in path)

    def lenient_batch(self, model: str, partition: str, rows: Collection[Row]) -> Batch:
        """Columns of leniently read rows."""
        n = len(rows)
        versions, version = _numbered([row.version for row in rows])
        return Batch(
            model=model,
            partition=partition,
            versions=versions,
            version=version,
            time=np.array([row.time for row in rows], np.float64),
            numeric=np.array([row.numeric for row in rows], np.float64).reshape(n, len(self.numeric_paths)),
            codes=np.array([row.codes for row in rows], np.int32).reshape(n, len(self.categorical_paths)),
            latency_s=np.array([row.latency_s for row in rows], np.float64),
            error=np.array([row.error for row in rows], np.int16),
            schema=self.schema,
            raw=[row.raw or {} for row in rows] if self.learns else None,
            id=ids_of(row.identity for row in rows) if self.schema.joins else None,
        )

    def lenient_labels(self, model: str, partition: str, rows: Collection[LabelRow]) -> LabelBatch:
        """Columns of leniently read labels."""
        return LabelBatch(
            model=model,
            partition=partition,
            id=ids_of(row.identity for row in rows),
            time=np.array([row.time for row in rows], np.float64),
            label=np.array([row.label for row in rows], np.float64),
            schema=self.schema,
        )


class FastLayout:
    """The Struct of a layout's events, and how a few hundred of them become columns."""

    def __init__(self, layout: Layout, fields: Fields, *, event_time: bool) -> None:
        self.layout = layout
        self._fields = fields
        self._event_time = event_time
        self._tree = StructTree()
        for path in (*layout.numeric_paths, fields.latency_seconds):
            self._tree.add(path, float | None, math.nan)
        for path in layout.categorical_paths:
            self._tree.add(path, str | int | float | bool | None, None)
        self._tree.add(fields.version, str | int | float | None, None)  # `true` and 1 are one key, but two versions
        self._tree.add(fields.error, str | None, None)
        self._served = [fields.prediction, fields.latency_seconds, fields.error]
        """What tells a prediction from a label, beside features and scores."""
        if layout.schema.joins:
            self._tree.add(fields.id, str | int | float | bool | None, None)
            several = any(path[: len(fields.scores)] == fields.scores for path in layout.numeric_paths)
            for path, wanted in (
                (fields.score, fields.score not in layout.numeric_paths),
                (fields.scores, not several),
            ):
                if wanted:
                    self._tree.add(path, object, None)
            self._served += [fields.score, fields.scores]
        if event_time:
            self._tree.add(fields.timestamp, str | float | None, None)
        if not fields.flat:
            self._tree.add_object(fields.features)
        self.struct = self._tree.struct("Event", tag_field=fields.model[0], tag=layout.model)
        blank = self._tree.columns([self.struct()])
        self._no_features = None if fields.flat else blank[fields.features][0]
        self._no_scores = blank[fields.scores][0] if layout.schema.joins else None

    def doubtful(self, events: Sequence[Any], version: str = "") -> list[int]:
        """Indices of events to be read leniently: perhaps no prediction, or an impossible timestamp or version."""
        columns = self._tree.columns(events)
        texts = self._version_texts(columns, version)
        doubtful = np.array([not is_name(texts[own]) for own in columns[self._fields.version]])
        if self._fields.flat:
            doubtful[self._empty(columns)] = True
        else:
            doubtful |= np.array([features is self._no_features for features in columns[self._fields.features]])
        if self._event_time:
            doubtful |= np.isnan(column_s(columns[self._fields.timestamp], 0.0))
        return np.flatnonzero(doubtful).tolist()

    def batch(
        self, partition: str, events: Sequence[Any], now: float | Sequence[float], version: str = ""
    ) -> Batch | None:
        """Columns of decoded events; None if one of them is doubtful.

        Those without a timestamp are of `now` (of all or of each), those without a version of `version`.
        """
        n = len(events)
        columns = self._tree.columns(events)
        if self._event_time:
            time = column_s(columns[self._fields.timestamp], now)
        else:
            time = np.full(n, now) if isinstance(now, float) else np.array(now)
        texts = self._version_texts(columns, version)
        if self._any_doubtful(columns) or np.isnan(time).any() or not all(map(is_name, texts.values())):
            return None
        layout = self.layout
        for path, names in layout.tags:
            names.learn(columns[path])
        codes = b"".join(
            [
                struct.pack(f"{n}i", *map(vocabulary.get, columns[path], repeat(UNSEEN)))
                for path, vocabulary in zip(layout.categorical_paths, layout.schema.vocabularies, strict=True)
            ]
        )
        numbers = b"".join([_doubles(columns[path]) for path in layout.numeric_paths])
        errors = columns[self._fields.error]
        reasons = layout.reasons
        failed = [] if set(errors) == {None} else list(map(reasons.codes.get, errors, repeat(reasons.other)))
        named = (
            [next(iter(texts.values()))] if len(texts) == 1 else map(texts.__getitem__, columns[self._fields.version])
        )
        versions, numbered = _numbered(list(named), n)
        return Batch(
            model=layout.model,
            partition=partition,
            versions=versions,
            version=numbered,
            time=time,
            numeric=np.frombuffer(numbers).reshape(-1, n).T,
            codes=np.frombuffer(codes, np.int32).reshape(-1, n).T,
            latency_s=np.frombuffer(_doubles(columns[self._fields.latency_seconds])),
            error=np.array(failed, np.int16) if failed else np.full(n, NO_ERROR, np.int16),
            schema=layout.schema,
            id=ids_of(columns[self._fields.id]) if layout.schema.joins else None,
        )

    def labels(
        self, partition: str, events: Sequence[Any], now: float | Sequence[float], version: str = ""
    ) -> tuple[LabelBatch, list[int]] | None:
        """Those of decoded events that are labels without a prediction, and their places; None if there is none.

        One that is doubtful is not among them.
        """
        layout, fields = self.layout, self._fields
        if not layout.schema.joins or fields.flat:
            return None
        columns = self._tree.columns(events)
        features, label, identity = (columns[path] for path in (fields.features, fields.label, fields.id))
        alone = [
            place for place, one in enumerate(features) if one is self._no_features and not _is_blank(label[place])
        ]
        for path in self._served:
            column = columns[path]
            alone = [place for place in alone if _is_blank(column[place]) or column[place] is self._no_scores]
        versions, texts = columns[fields.version], self._version_texts(columns, version)
        alone = [place for place in alone if is_name(texts[versions[place]])]
        if not alone:
            return None
        stamps = columns[fields.timestamp] if self._event_time else [None] * len(events)
        moments = now if isinstance(now, float) else [now[place] for place in alone]
        time = column_s([stamps[place] for place in alone], moments)
        values = [label[place] for place in alone]
        if layout.label_vocabulary is None:
            labels = as_number_column(values)
        else:
            labels = np.array([layout.label_vocabulary.get(value, UNSEEN) for value in values], np.float64)
        batch = LabelBatch(
            model=layout.model,
            partition=partition,
            id=ids_of(identity[place] for place in alone),
            time=time,
            label=labels,
            schema=layout.schema,
        )
        sound = np.flatnonzero(~np.isnan(time) & (batch.id != 0))
        if not len(sound):
            return None
        return batch.take(sound), [alone[place] for place in sound.tolist()]

    def _any_doubtful(self, columns: Mapping[Path, Sequence[Any]]) -> bool:
        """Whether some event lacks its object of features, or (where features lie flat) all of them."""
        if self._fields.flat:
            return bool(self._empty(columns))
        return self._no_features in columns[self._fields.features]

    def _empty(self, columns: Mapping[Path, Sequence[Any]]) -> list[int]:
        """Indices of flat events without one known feature."""
        rows: Sequence[int] = range(len(columns[self._fields.version]))
        other = {self._fields.label, *(path for path, _ in self.layout.tags)}
        for path in (*self.layout.numeric_paths, *self.layout.categorical_paths):
            if path in other:
                continue
            column = columns[path]
            rows = [i for i in rows if column[i] is None or column[i] != column[i]]
        return list(rows)

    def _version_texts(self, columns: Mapping[Path, Sequence[Any]], default: str) -> dict[Any, str]:
        return {version: self.layout.version_text(version, default) for version in set(columns[self._fields.version])}


def _numbered(names: Sequence[str], rows: int | None = None) -> tuple[tuple[str, ...], Counts]:
    """Distinct names, and for each row which it has; one name can stand for all of so many rows."""
    distinct = tuple(dict.fromkeys(names))
    if len(distinct) == 1:
        return distinct, np.zeros(rows or len(names), np.int64)
    number = {name: i for i, name in enumerate(distinct)}
    return distinct, np.array([number[name] for name in names])


class StructTree:
    """Nested Structs from dotted paths; JSON keys can be anything, attributes are numbered."""

    def __init__(self) -> None:
        self._leaves: dict[str, tuple[Any, Any]] = {}
        self._objects: dict[str, StructTree] = {}

    def add(self, path: Path, kind: Any, default: Any) -> None:
        """Declare a value at a path."""
        head, *rest = path
        if rest:
            self._objects.setdefault(head, StructTree()).add(tuple(rest), kind, default)
        else:
            self._leaves[head] = (kind, default)

    def add_object(self, path: Path) -> None:
        """Declare an object at a path, even if nothing is wanted of it."""
        head, *rest = path
        child = self._objects.setdefault(head, StructTree())
        if rest:
            child.add_object(tuple(rest))

    def struct(self, name: str, **options: Any) -> Any:
        """The Struct type; an absent object is one fixed empty Struct. ValueError for a value that is an object too."""
        twice = self._leaves.keys() & self._objects.keys()
        if twice:
            raise ValueError(f"{min(twice)}: is a field itself and holds fields")
        fields: list[Any] = [(f"f{i}", *leaf) for i, leaf in enumerate(self._leaves.values())]
        for i, child in enumerate(self._objects.values()):
            kind = child.struct(f"{name}{i}")
            fields.append((f"o{i}", kind, kind()))
        rename = {field[0]: key for field, key in zip(fields, (*self._leaves, *self._objects), strict=True)}
        return msgspec.defstruct(name, fields, rename=rename, gc=False, eq=False, frozen=True, **options)

    def columns(self, objects: Sequence[Any], prefix: Path = ()) -> dict[Path, Sequence[Any]]:
        """Values by path, a sequence a path: transposing tuples is cheaper than fetching attributes one by one."""
        paths = [(*prefix, key) for key in (*self._leaves, *self._objects)]
        columns: dict[Path, Sequence[Any]] = dict(zip(paths, zip(*map(astuple, objects), strict=True), strict=True))
        for key, child in self._objects.items():
            path = (*prefix, key)
            columns |= child.columns(columns[path], path)
        return columns


def is_name(text: str) -> bool:
    """Whether a text from an event may name a model, a version or a feature."""
    return 0 < len(text) <= NAME_LIMIT and text.isprintable() and is_text(text)


def _path(fields: Fields, name: FeatureKey) -> Path:
    """Where an event carries a feature."""
    if name.kind == "input":
        return fields.feature(name.name)
    if name.kind == "output":
        return fields.prediction
    if name.kind == "label":
        return fields.label
    if name.kind == "tag":
        return (*fields.tags, name.name)
    return fields.score if name.name == SCORE else (*fields.scores, name.name)


def _is_blank(value: object) -> bool:
    """Whether a decoded value was not there: None, or the NaN of a number."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _doubles(values: Sequence[float | None]) -> bytes:
    """Numbers as native doubles; None is NaN."""
    try:
        return struct.pack(f"{len(values)}d", *values)
    except struct.error:
        return np.array(values, np.float64).tobytes()
