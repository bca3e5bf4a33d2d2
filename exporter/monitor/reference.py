"""A reference: what a model was trained on, as counters. Fixed once built; its id is a hash of its content.

The document carries a schema number and its own hash, so that a foreign, damaged or edited file is refused instead of
silently making every score wrong. Building needs only columns in memory; files are read on the top floor.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
import numpy as np

from exporter.catalog import thresholds
from exporter.monitor import calibration, moments, slices
from exporter.monitor.events import (
    LABEL,
    NON_FINITE_NUMBER,
    OUTPUT,
    WRONG_TYPE_NUMBER,
    Column,
    FeatureKey,
    Schema,
    as_number_column,
    category_text,
    vocabulary,
)
from exporter.monitor.features import BadReference, Categorical, Feature, Numeric, check, coarse_slots, key
from exporter.monitor.moments import Moments
from exporter.monitor.outcomes import Task, task_of
from exporter.monitor.slices import SliceCounts
from exporter.stats import Counts, Floats
from exporter.stats.bins import cell_counts, choose_bins, choose_knots

SCHEMA = 3


class Columns(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which columns of the training data meant what; `scores` maps a score's name to its column."""

    prediction: str | None = None
    scores: dict[str, str] = {}
    label: str | None = None
    timestamp: str | None = None
    timestamp_format: str | None = None
    id: str | None = None


class Reference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A reference profile (design 5.2). `created` is RFC 3339; `id` is computed, see `encode`.

    `task` is how its predictions are scored, None for a model without a prediction; `moments` is what it knows of its
    numeric inputs together, None with fewer than two that vary, or too few rows. `segments` are slices of its rows.
    """

    schema: int
    id: str
    model: str
    version: str
    created: datetime
    rows: int
    columns: Columns
    features: tuple[Feature, ...]
    task: Task | None = None
    moments: Moments | None = None
    segments: tuple[SliceCounts, ...] = ()


@dataclass(frozen=True, slots=True)
class Resolution:
    """How finely a reference is cut."""

    knots: int = thresholds.KNOTS.count
    bins: int = thresholds.BINS.count
    discrete_values: int = thresholds.DISCRETE_VALUES.count
    top_categories: int = thresholds.TOP_CATEGORIES.count
    score_bins: int = thresholds.SCORE_BINS.count


def build(
    columns: Mapping[FeatureKey, Column],
    *,
    model: str,
    version: str,
    created: float,
    mapping: Columns | None = None,
    resolution: Resolution | None = None,
) -> Reference:
    """Build a reference from columns of equal length, in the order given; labels, if there are any, are no feature.

    Rows are to be in the order of time: the calibration is fitted to it, and nothing else depends on it, but which rows
    of very many are taken for the tails of moments. Raises BadReference when there is nothing to build from; the
    message names the feature.
    """
    resolution = resolution or Resolution()
    if not columns.keys() - {LABEL}:
        raise BadReference("no feature to build a reference from")
    rows = {len(column) for column in columns.values()}
    if len(rows) != 1 or rows == {0}:
        raise BadReference("no rows" if rows == {0} else "columns differ in length")
    features = tuple(
        _numeric(name, column, resolution) if isinstance(column, np.ndarray) else _categorical(name, column, resolution)
        for name, column in columns.items()
        if name != LABEL
    )
    reference = Reference(
        schema=SCHEMA,
        id="",
        model=model,
        version=version,
        created=datetime.fromtimestamp(created, UTC),
        rows=rows.pop(),
        columns=mapping or Columns(),
        features=features,
        task=task_of(columns, resolution.score_bins),
        moments=moments.build(columns),
    )
    return sealed(reference)


def sealed(reference: Reference) -> Reference:
    """The reference with the id that its content gives it."""
    return msgspec.structs.replace(reference, id=_content_hash(reference))


def infer_column(feature: FeatureKey, values: Sequence[object]) -> Column:
    """Numbers if nearly all values present are; but a prediction with few whole values is a class, so categorical."""
    if not is_mostly_numeric(values):
        return values
    numbers = as_number_column(values)
    return values if is_class(feature, numbers) else numbers


def is_mostly_numeric(values: Sequence[object]) -> bool:
    """Whether nearly all values that are present are numbers."""
    numbers = as_number_column(values)
    present = numbers[~np.isnan(numbers)]
    return bool(np.sum(present != WRONG_TYPE_NUMBER) >= thresholds.NUMERIC_SHARE.value * max(len(present), 1))


def is_class(feature: FeatureKey, numbers: Floats) -> bool:
    """Whether a numeric column is the class a classifier predicts rather than a quantity."""
    if feature.kind != "output":
        return False
    distinct = np.unique(numbers[np.isfinite(numbers)])
    return len(distinct) <= thresholds.DISCRETE_VALUES.count and bool(np.all(distinct == np.rint(distinct)))


def encode(reference: Reference) -> bytes:
    """The reference as a JSON document, indented to be read and compared."""
    return msgspec.json.format(msgspec.json.encode(reference), indent=1) + b"\n"


def decode(document: bytes) -> Reference:
    """Read a document made by `encode`. Raises BadReference: not JSON, another schema, a broken hash, inconsistent."""
    try:
        schema = msgspec.json.decode(document, type=dict[str, msgspec.Raw]).get("schema")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadReference(f"not a reference: {error}") from None
    if schema is None or bytes(schema) != b"%d" % SCHEMA:
        found = "none" if schema is None else bytes(schema).decode(errors="replace")[:20]
        raise BadReference(f"schema {SCHEMA} expected, found {found}: rebuild it with `reference build`")
    try:
        reference = msgspec.json.decode(document, type=Reference)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadReference(f"not a reference: {error}") from None
    if reference.id != _content_hash(reference):
        raise BadReference(f"content does not match its id {reference.id}: the file was damaged or edited")
    if len({key(feature) for feature in reference.features}) != max(len(reference.features), 1):
        raise BadReference("no feature, or one twice")
    for feature in reference.features:
        check(feature)
    if reference.task is not None and not reference.task.sound:
        raise BadReference("task: classes, scores and counts do not fit together")
    _check_moments(reference)
    outcomes = 0 if reference.task is None else len(reference.task.counts)
    if not slices.sound(reference.segments, list(map(coarse_slots, reference.features)), outcomes):
        raise BadReference("segments: their counts do not fit the features")
    return reference


def schema_of(references: Sequence[Reference]) -> Schema:
    """The columns that serve all these references of one model. Raises BadReference if they disagree on a type.

    Labels are a column like any other, where it is known what they can be.
    """
    numeric: dict[FeatureKey, None] = {}
    categorical: dict[FeatureKey, dict[str, None]] = {}
    for reference in references:
        for feature in reference.features:
            name = key(feature)
            if isinstance(feature, Numeric):
                numeric[name] = None
            else:
                categorical.setdefault(name, {}).update(dict.fromkeys((*feature.categories, *feature.others)))
    for task in (reference.task for reference in references if reference.task is not None):
        if task.kind == "regression":
            numeric[LABEL] = None
        else:
            categorical.setdefault(LABEL, {}).update(dict.fromkeys(task.classes))
    for name in numeric.keys() & categorical.keys():
        raise BadReference(f"references of {references[0].model} disagree: {name.name} is numeric and categorical")
    return Schema(
        numeric=tuple(numeric),
        categorical=tuple(categorical),
        vocabularies=tuple(vocabulary(tuple(names)) for names in categorical.values()),
    )


def _content_hash(reference: Reference) -> str:
    """Hash of everything but the id and the moment of building: the same data give the same id."""
    content = msgspec.structs.replace(reference, id="", created=datetime.fromtimestamp(0, UTC))
    return hashlib.sha256(msgspec.json.encode(content)).hexdigest()[:12]


def _numeric(name: FeatureKey, column: Floats, resolution: Resolution) -> Numeric:
    finite = np.sort(column[np.isfinite(column)])
    if not len(finite):
        raise BadReference(f"{name.name}: no usable number in {len(column)} rows; exclude it")
    knots = choose_knots(finite, resolution.knots)
    cells = cell_counts(finite, knots)
    bins = choose_bins(cells, resolution.bins, resolution.discrete_values)
    invalid, missing = int(bins[-1]) + 1, int(bins[-1]) + 2
    bin_of_row = bins[np.searchsorted(knots, column, "left") + np.searchsorted(knots, column, "right")]
    bin_of_row = np.where(np.isfinite(column), bin_of_row, np.where(np.isnan(column), missing, invalid))
    bin_of_row[column == WRONG_TYPE_NUMBER] = invalid
    return Numeric(
        name=name.name,
        kind=name.kind,
        knots=tuple(knots.tolist()),
        cells=tuple(cells.tolist()),
        bins=tuple(np.bincount(bins).tolist()),
        missing=int(np.isnan(column).sum()),
        wrong_type=int((column == WRONG_TYPE_NUMBER).sum()),
        non_finite=int((column == NON_FINITE_NUMBER).sum()),
        calibration=calibration.calibrate(bin_of_row, missing + 1),
    )


def _categorical(name: FeatureKey, column: Sequence[object], resolution: Resolution) -> Categorical:
    counts: Counter[str] = Counter()
    missing = wrong_type = 0
    for value, count in _value_counts(column).items():
        try:
            text = category_text(value)
        except TypeError:
            wrong_type += count
            continue
        if text is None:
            missing += count
        else:
            counts[text] += count
    if not counts:
        raise BadReference(f"{name.name}: no usable category in {len(column)} rows; exclude it")
    # Ties in count are ordered by name: the reference must not depend on the order of rows.
    ranked = sorted(counts, key=lambda text: (-counts[text], text))
    # A prediction's classes are few and each matters; an ordinary feature keeps its most frequent ones.
    top = ranked[: len(ranked) if name == OUTPUT and len(ranked) <= 100 else resolution.top_categories]
    rest = ranked[len(top) :]
    known = rest[: thresholds.KNOWN_CATEGORIES.count]
    return Categorical(
        name=name.name,
        kind=name.kind,
        categories=tuple(top),
        counts=tuple(counts[text] for text in top),
        others=tuple(known),
        others_count=sum(counts[text] for text in rest),
        others_complete=len(known) == len(rest),
        singletons=sum(count == 1 for count in counts.values()),
        missing=missing,
        wrong_type=wrong_type,
        calibration=calibration.calibrate(_bin_of_row(column, top), len(top) + 3),
    )


def _bin_of_row(column: Sequence[object], top: Sequence[str]) -> Counts:
    """A bin for each of the frequent categories, then other, invalid and missing."""
    other = len(top)
    bins: dict[str | None, int] = {None: other + 2, **{text: place for place, text in enumerate(top)}}

    def of_value(value: object) -> int:
        try:
            return bins.get(category_text(value), other)
        except TypeError:
            return other + 1

    return np.fromiter(map(of_value, column), np.int64, len(column))


def _value_counts(column: Sequence[object]) -> Counter[object]:
    """How often each value occurs; values that cannot be counted (lists, objects) are counted as one empty tuple."""
    try:
        return Counter(column)
    except TypeError:
        return Counter(value if isinstance(value, str | int | float | None) else () for value in column)


def _check_moments(reference: Reference) -> None:
    """Raise BadReference unless moments fit together, and are of numeric inputs of the reference."""
    known = reference.moments
    inputs = {one.name for one in reference.features if isinstance(one, Numeric) and one.kind == "input"}
    if known is not None and not (known.sound and inputs.issuperset(known.features)):
        raise BadReference("moments: features, counts and covariance do not fit together")
