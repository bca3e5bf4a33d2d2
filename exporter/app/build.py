"""`reference build`: training data to a reference."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exporter.catalog import thresholds
from exporter.ingest import tables
from exporter.ingest.source import Cells, Table
from exporter.monitor import reference
from exporter.monitor.coarse import with_slices
from exporter.monitor.events import LABEL, OUTPUT, SCORE, Column, FeatureKey
from exporter.monitor.features import BadReference, Categorical, Feature
from exporter.monitor.outcomes import Outcomes
from exporter.monitor.reference import Columns, Reference, Resolution

_ORDERED = 10.0
"""PSI of the smallest blocks over that of independent rows: ten times is a PSI of 0.4 of 250 rows, without drift."""

_TAGS = ("tags",)
"""No feature of a native event."""

_NATIVE = ("prediction", "score", "label", "timestamp", "id")


@dataclass(frozen=True, slots=True)
class Choice:
    """What the command line says of the columns."""

    columns: Columns
    exclude: frozenset[str] = frozenset()
    categorical: frozenset[str] = frozenset()
    numeric: frozenset[str] = frozenset()
    tags: tuple[str, ...] = ()


def build_reference(
    path: Path,
    model: str,
    version: str,
    choice: Choice,
    resolution: Resolution,
    progress: Callable[[int], None],
) -> Reference:
    """Read a table and build. `progress` is told the rows read so far. Raises BadReference or Unavailable."""
    cells = _read(tables.read(path), progress)
    file_format = tables.format_of(path)
    columns = _native(choice.columns, cells) if file_format == "jsonl" else choice.columns
    cells = _in_order_of_time(cells, columns)
    if file_format == "csv":  # its cells are texts, whatever they mean; other formats know a text from a number
        cells = {name: tables.typed(cells[name], categorical=name in choice.categorical) for name in cells}
    _require(cells, choice, columns)
    reserved = {
        *(_TAGS if file_format == "jsonl" else ()),
        columns.prediction,
        columns.label,
        columns.timestamp,
        columns.id,
        *columns.scores.values(),
    }
    features: dict[FeatureKey, str] = {
        FeatureKey("input", name): name for name in cells if name not in reserved and name not in choice.exclude
    }
    if columns.prediction is not None:
        features[OUTPUT] = columns.prediction
    features |= {FeatureKey("score", name): column for name, column in columns.scores.items()}
    built = {name: _column(name, column, cells[column], choice) for name, column in features.items()}
    if columns.label is not None:
        built[LABEL] = tables.python_values(cells[columns.label])
    whole = reference.build(
        built,
        model=model,
        version=version,
        created=time.time(),
        mapping=columns,
        resolution=resolution,
    )
    if not choice.tags:
        return whole
    return with_slices(whole, built, {name: _tag(name, cells) for name in choice.tags}, thresholds.SEGMENT_TOP.count)


def warnings(built: Reference) -> list[str]:
    """What a careful person would look at twice."""
    said = []
    for feature in built.features:
        if isinstance(feature, Categorical):
            distinct = len(feature.categories) + len(feature.others)
            if not feature.others_complete or distinct > built.rows / 2:
                said.append(f"{feature.name}: {distinct:,} categories in {built.rows:,} rows; an id? then --exclude it")
        elif len(feature.knots) == 1:
            said.append(f"{feature.name}: constant; any other value will be reported as out of range")
        if built.columns.timestamp is None and _sorted_by_something(feature):
            rows = feature.calibration[0].rows
            said.append(
                f"{feature.name}: any {rows} rows in a row differ a lot; if not ordered by time, shuffle the file"
            )
        if feature.missing == built.rows - feature.values and feature.missing > built.rows / 2:
            said.append(f"{feature.name}: missing in {feature.missing / built.rows:.0%} of the rows")
    task = built.task
    if task is not None and task.counts and task.kind != "regression":
        confusion = Outcomes(task).part(np.array(task.counts), "confusion")
        if not np.trace(confusion.reshape(len(task.classes) + 1, -1)):
            said.append(f"label: no prediction is right; is it spelt otherwise? classes: {', '.join(task.classes)}")
    return said


def _sorted_by_something(feature: Feature) -> bool:
    """Whether its blocks differ so much that hardly any drift could be told from them; time seldom does that."""
    return any(one.g * one.freedom_ratio > _ORDERED for one in feature.calibration[:1])


def parse_scores(scores: Iterable[str]) -> dict[str, str]:
    """`column` for the score of a binary model, `class=column` for each class of a multiclass one."""
    pairs = [score.partition("=") for score in scores]
    return {name if separator else SCORE: column if separator else name for name, separator, column in pairs}


def _read(read: Iterable[Table], progress: Callable[[int], None]) -> dict[str, Cells]:
    parts: dict[str, list[Cells]] = {}
    rows = rejected = 0
    for table in read:
        for name, values in table.columns.items():
            parts.setdefault(name, []).append(values)
        rows += table.rows
        rejected += len(table.rejects)
        progress(rows)
    if rejected:
        raise BadReference(f"{rejected} rows could not be read; a reference must not be built from part of the data")
    if not rows:
        raise BadReference("no rows")
    return {name: _joined(values) for name, values in parts.items()}


def _in_order_of_time(cells: dict[str, Cells], columns: Columns) -> dict[str, Cells]:
    """Rows by their timestamps, those without a usable one last; without such a column as they are in the file."""
    if columns.timestamp not in cells:
        return cells
    times = tables.times(cells[columns.timestamp], columns.timestamp_format)
    order = np.argsort(times, kind="stable")
    if np.array_equal(order, np.arange(len(order))):
        return cells
    return {
        name: values[order] if isinstance(values, np.ndarray) else [values[row] for row in order.tolist()]
        for name, values in cells.items()
    }


def _joined(parts: Sequence[Cells]) -> Cells:
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate([np.asarray(part, np.float64) for part in parts])
    return [value for part in parts for value in part]


def _native(columns: Columns, cells: Mapping[str, Cells]) -> Columns:
    """Native events name their fields themselves."""
    given = {name: name for name in _NATIVE if name in cells and name != "score"}
    return Columns(
        prediction=columns.prediction or given.get("prediction"),
        scores=columns.scores or ({SCORE: SCORE} if SCORE in cells else {}),
        label=columns.label or given.get("label"),
        timestamp=columns.timestamp or given.get("timestamp"),
        timestamp_format=columns.timestamp_format,
        id=columns.id or given.get("id"),
    )


def _require(cells: Mapping[str, Cells], choice: Choice, columns: Columns) -> None:
    named = {
        "--prediction": [columns.prediction],
        "--score": columns.scores.values(),
        "--label": [columns.label],
        "--timestamp": [columns.timestamp],
        "--id": [columns.id],
        "--exclude": choice.exclude,
        "--categorical": choice.categorical,
        "--numeric": choice.numeric,
        "--segment": [] if _TAGS[0] in cells else choice.tags,
    }
    for option, names in named.items():
        for name in names:
            if name is not None and name not in cells:
                raise BadReference(f"{option}: no column {name}; there are {', '.join(cells)}")


def _tag(name: str, cells: Mapping[str, Cells]) -> Sequence[object]:
    """Values of a column, or of a tag of native events."""
    if name in cells:
        return tables.python_values(cells[name])
    return [tags.get(name) if isinstance(tags, dict) else None for tags in cells[_TAGS[0]]]


def _column(feature: FeatureKey, name: str, values: Cells, choice: Choice) -> Column:
    if name in choice.numeric:
        return tables.numbers(values)
    cells = tables.python_values(values)
    return cells if name in choice.categorical else reference.infer_column(feature, cells)
