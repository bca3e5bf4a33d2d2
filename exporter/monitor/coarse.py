"""A reference cut at its PSI bins alone: all of it, a slice, or what slices leave. Segments are compared with these.

Slots are the same for all three, for they follow from names and edges; so rows of every segment are counted in one pass
and slices of a reference are what a running exporter would have counted of its rows. Each has bins of its own, because
which ones have enough values depends on the counts.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from exporter.monitor import calibration
from exporter.monitor.accuracy import AccuracyTracker
from exporter.monitor.calibration import Calibration
from exporter.monitor.drift import DriftTracker, slots
from exporter.monitor.events import (
    MISSING,
    NO_ERROR,
    UNSEEN,
    WRONG_TYPE,
    Codes,
    Column,
    FeatureKey,
    Names,
    Rows,
    as_number_column,
    category_text,
    tag,
)
from exporter.monitor.features import Feature, Numeric, is_constant, psi_bins
from exporter.monitor.outcomes import Outcomes
from exporter.monitor.plan import FeaturePlan
from exporter.monitor.reference import Reference, schema_of, sealed
from exporter.monitor.settings import ModelSettings
from exporter.monitor.slices import SliceCounts
from exporter.monitor.slots import Slots, Split
from exporter.stats import Counts, Floats


def coarse(reference: Reference) -> Reference:
    """The reference with a knot at each edge of a bin, and no other."""
    features = tuple(_coarse(one) if isinstance(one, Numeric) else one for one in reference.features)
    return msgspec.structs.replace(reference, features=features)


def of_slice(whole: Reference, one: SliceCounts) -> Reference:
    """A slice as a reference; `whole` is coarse. A feature that the slice has no value of is that of the whole."""
    return _counted(whole, one.rows, np.array(one.counts), np.array(one.outcomes, np.int64), one.calibrations)


def rest(whole: Reference, slices: Sequence[SliceCounts]) -> Reference:
    """What these slices of one tag leave of a coarse reference, as a reference; it may have no rows."""
    counts = np.concatenate([_slots_of(feature) for feature in whole.features])
    outcomes = np.array(() if whole.task is None else whole.task.counts, np.int64)
    for one in slices:
        counts -= one.counts
        outcomes -= one.outcomes or 0
    rows = whole.rows - sum(one.rows for one in slices)
    return _counted(whole, rows, counts, outcomes, [feature.calibration for feature in whole.features])


def with_slices(
    reference: Reference, columns: Mapping[FeatureKey, Column], tags: Mapping[str, Sequence[object]], top: int
) -> Reference:
    """The reference with the counts of the `top` largest slices by each tag; it was built from these columns.

    `tags` are columns of values, a value a row.
    """
    whole, settings, schema = coarse(reference), ModelSettings(reference.model), schema_of([reference])
    drift = DriftTracker(whole, schema, settings, reference.version)
    task = None if whole.task is None or not whole.task.counts else whole.task
    accuracy = None if task is None else AccuracyTracker(task, schema, settings, reference.version)
    none = [None] * reference.rows
    numeric = np.array([_numbers(columns.get(name, none)) for name in schema.numeric]).reshape(-1, reference.rows)
    found: list[SliceCounts] = []
    for name, values in tags.items():
        names = Names()
        names.learn(map(_hashable, values))
        vocabularies = (*zip(schema.categorical, schema.vocabularies, strict=True), (tag(name), names))
        codes = [_codes(values if key == tag(name) else columns.get(key, none), known) for key, known in vocabularies]
        rows = Rows(numeric.T, np.array(codes).T, np.full(reference.rows, np.nan), _answered(reference.rows), None, 1)
        volumes = np.bincount(codes[-1][codes[-1] >= 0], minlength=len(names.texts))
        largest = sorted(range(len(volumes)), key=lambda code: (-volumes[code], names.texts[code]))[:top]
        slots_of = Slots(names, len(largest), [names.texts[code] for code in largest])
        of_row = slots_of.of(codes[-1])
        counts = _sums(Split(drift, slots_of, len(codes) - 1), rows)
        outcomes = None if accuracy is None else _sums(Split(accuracy, slots_of, len(codes) - 1), rows)
        bins = [(_bins(plan, rows), len(plan.bins)) for plan in drift.features]
        found += [
            SliceCounts(
                tag=name,
                value=names.texts[code],
                rows=int(volumes[code]),
                counts=tuple(counts[slot].tolist()),
                outcomes=() if outcomes is None else tuple(outcomes[slot].tolist()),
                calibrations=tuple(calibration.calibrate(of[of_row == slot], count) for of, count in bins),
            )
            for slot, code in enumerate(largest)
        ]
    return sealed(msgspec.structs.replace(reference, segments=tuple(found)))


def _coarse(feature: Numeric) -> Numeric:
    if is_constant(feature):
        return feature
    bin_of_cell, cells, knots = psi_bins(feature), np.array(feature.cells), np.array(feature.knots)
    ends = np.flatnonzero(np.diff(bin_of_cell))
    # A bin that ends between two knots is open at the next one: its edge is the last number before that.
    after = knots[np.minimum(ends // 2, len(knots) - 1)]
    edges = np.where(ends % 2 == 1, after, np.nextafter(after, -np.inf))
    merged = np.zeros(2 * len(ends) + 1, np.int64)
    merged[1::2] = np.where(ends % 2 == 1, cells[ends], 0)
    merged[::2] = np.bincount(bin_of_cell, weights=cells).astype(np.int64) - np.append(merged[1::2], 0)
    return msgspec.structs.replace(
        feature, knots=tuple(edges.tolist()), cells=tuple(merged.tolist()), bins=(2,) * len(ends) + (1,)
    )


def _slots_of(feature: Feature) -> Counts:
    """Counts of the slots of a feature's own values."""
    if isinstance(feature, Numeric):
        return np.array([feature.wrong_type, *feature.cells, feature.non_finite, feature.missing])
    return np.array([*feature.counts, feature.others_count, 0, feature.wrong_type, feature.missing])


def _counted(
    whole: Reference, rows: int, counts: Counts, outcomes: Counts, calibrations: Sequence[tuple[Calibration, ...]]
) -> Reference:
    """The reference with other counts."""
    ends = np.cumsum([0, *(len(_slots_of(feature)) for feature in whole.features)]).tolist()
    features = tuple(
        _with_counts(feature, np.maximum(counts[start:end], 0).tolist(), one)
        for feature, (start, end), one in zip(whole.features, pairwise(ends), calibrations, strict=True)
    )
    task = whole.task
    if task is not None:
        labelled = len(outcomes) > 0 and Outcomes(task).joined(outcomes) > 0
        task = msgspec.structs.replace(task, counts=tuple(outcomes.tolist()) if labelled else ())
    return msgspec.structs.replace(whole, rows=rows, features=features, task=task)


def _with_counts(feature: Feature, counts: list[int], calibrations: tuple[Calibration, ...]) -> Feature:
    found: Feature
    if isinstance(feature, Numeric):
        wrong_type, *cells, non_finite, missing = counts
        found = msgspec.structs.replace(
            feature,
            cells=tuple(cells),
            wrong_type=wrong_type,
            non_finite=non_finite,
            missing=missing,
            calibration=calibrations,
        )
    else:
        *frequent, others, unseen, wrong_type, missing = counts
        found = msgspec.structs.replace(
            feature,
            counts=tuple(frequent),
            others_count=others + unseen,
            wrong_type=wrong_type,
            missing=missing,
            calibration=calibrations,
        )
    return found if found.values else feature


def _bins(plan: FeaturePlan, rows: Rows) -> Counts:
    """The bin of each row."""
    table: NDArray[Any] = rows.numeric if isinstance(plan.feature, Numeric) else rows.codes
    found: Counts = plan.bin_of_slot[slots(plan, table[:, plan.column])]
    return found


def _sums(split: Split[Any], rows: Rows) -> Counts:
    """Counts of each slot [slots, width]."""
    sums = np.zeros((1, split.width), np.int64)
    split.add(sums, rows)
    return sums.reshape(-1, split.tracker.width)


def _numbers(values: Column) -> Floats:
    return values if isinstance(values, np.ndarray) else as_number_column(values)


def _answered(rows: int) -> NDArray[np.int16]:
    return np.full(rows, NO_ERROR, np.int16)


def _hashable(value: object) -> object:
    return value if isinstance(value, str | int | float) else None


def _codes(values: Column, vocabulary: Mapping[object, int]) -> Codes:
    """As codecs make them of values."""

    def code(value: object) -> int:
        try:
            text = category_text(value)
        except TypeError:
            return WRONG_TYPE
        return MISSING if text is None else vocabulary.get(text, UNSEEN)

    return np.fromiter(map(code, values), np.int32, len(values))
