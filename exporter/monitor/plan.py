"""Where a feature's counters lie, and what each of them is a part of.

A feature's slots are
  numeric:      wrong type | below, = r_1, between, = r_2, ..., = r_K, above | not finite | missing
  categorical:  a slot a frequent category | other | unseen | wrong type | missing
so PSI bins, KS cells and fault rates are all sums of the same counters and can never disagree. Slots follow from the
names and knots of the reference alone; which bins they make also from its counts and the settings.

A bin is live if the reference has enough values in it to compare with. Bins that would expect fewer than five of the
smallest window that gets a verdict are merged with a neighbour, or into `other`; a category, missing or invalid values
that were (nearly) absent from the reference are no live bins but rates, watched as data faults.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from exporter.catalog import thresholds
from exporter.monitor.events import FeatureKey, Schema, codes_to
from exporter.monitor.features import Categorical, Feature, Numeric, is_constant, key, psi_bins
from exporter.monitor.settings import ModelSettings
from exporter.stats import Counts, Floats
from exporter.stats.bins import merge_small

FAULTS = ("missing", "wrong_type", "non_finite", "out_of_range", "unseen")

CATEGORY_BYTES = 64


@dataclass(frozen=True, slots=True)
class Bin:
    """An exported bin. `live` ones take part in PSI; `upper` is the upper edge of a numeric bin."""

    label: str
    reference: int
    live: bool
    upper: float | None = None


@dataclass(frozen=True)
class FeaturePlan:
    """Where a feature's counters lie and what they mean."""

    feature: Feature
    column: int
    threshold: float
    bins: tuple[Bin, ...]
    bin_of_slot: Counts
    fault_of_slot: Counts  # index into FAULTS, -1 for a sound value
    slot_of_code: Counts  # categorical only: indexed by vocabulary code, negative codes from the end
    search: Floats  # numeric only: -inf, knots, +inf

    @property
    def width(self) -> int:
        """Number of slots."""
        return len(self.bin_of_slot)

    @property
    def key(self) -> FeatureKey:
        """Kind and name."""
        return key(self.feature)


def plan_feature(feature: Feature, schema: Schema, settings: ModelSettings) -> FeaturePlan:
    """The plan of a feature whose values stand in a column of `schema`."""
    if isinstance(feature, Numeric):
        return _plan_numeric(feature, schema, settings)
    return _plan_categorical(feature, schema, settings)


def _plan_numeric(feature: Numeric, schema: Schema, settings: ModelSettings) -> FeaturePlan:
    cell_bin = psi_bins(feature)
    counts = sum_by(cell_bin, np.array(feature.cells), len(feature.bins))
    least = _least(feature, settings)
    if not is_constant(feature):
        merged = merge_small(counts, least)
        cell_bin = merged[cell_bin]
        counts = sum_by(cell_bin, np.array(feature.cells), int(merged.max()) + 1)
    knots = np.array(feature.knots)
    # A bin that ends with an "equal" cell is closed by that knot; one that ends between knots by the next knot.
    ends = np.flatnonzero(np.diff(cell_bin))
    uppers = [*knots[np.minimum(ends // 2, len(knots) - 1)].tolist(), np.inf]
    width = max(2, len(str(len(counts) - 1)))
    exported = [
        Bin(f"{i:0{width}d}", int(count), bool(count > 0), upper)
        for i, (count, upper) in enumerate(zip(counts, uppers, strict=True))
    ]
    missing, invalid = _special_bins(feature.missing, feature.wrong_type + feature.non_finite, least)
    first = len(exported)
    n_cells = len(cell_bin)
    fault_of_cell = np.full(n_cells, -1)
    if len(feature.knots) <= thresholds.DISCRETE_VALUES.count and not any(feature.cells[::2]):
        fault_of_cell[::2] = FAULTS.index("unseen")  # between the values of a discrete feature
    fault_of_cell[[0, -1]] = FAULTS.index("out_of_range")
    return FeaturePlan(
        feature=feature,
        column=schema.numeric.index(key(feature)),
        threshold=settings.threshold(key(feature)),
        bins=(*exported, missing, invalid),
        bin_of_slot=np.concatenate(([first + 1], cell_bin, [first + 1, first])),
        fault_of_slot=np.concatenate(
            (
                [FAULTS.index("wrong_type")],
                fault_of_cell,
                [FAULTS.index("non_finite"), FAULTS.index("missing")],
            )
        ),
        slot_of_code=np.zeros(0, np.int64),
        search=np.concatenate(([-np.inf], knots, [np.inf])),
    )


def _plan_categorical(feature: Categorical, schema: Schema, settings: ModelSettings) -> FeaturePlan:
    least = _least(feature, settings)
    column = schema.categorical.index(key(feature))
    kept = [i for i, count in enumerate(feature.counts) if count >= least]
    other_count = feature.values - sum(feature.counts[i] for i in kept)
    missing, invalid = _special_bins(feature.missing, feature.wrong_type, least)
    frequent = len(feature.categories)
    other, unseen, invalid_at, missing_at = range(frequent, frequent + 4)
    slot_of_text = dict.fromkeys((*feature.categories, *feature.others), other)
    slot_of_text |= {text: slot for slot, text in enumerate(feature.categories)}
    unknown = unseen if feature.others_complete else other
    bin_of_slot = np.full(frequent + 4, len(kept))
    bin_of_slot[kept] = np.arange(len(kept))
    bin_of_slot[unseen:] += np.arange(1, 4)
    vocabulary = schema.vocabularies[column]
    slot_of_code = codes_to(slot_of_text, vocabulary, unseen=unknown, wrong_type=invalid_at, missing=missing_at)
    return FeaturePlan(
        feature=feature,
        column=column,
        threshold=settings.threshold(key(feature)),
        bins=(
            *(Bin(_category_label(feature.categories[i]), feature.counts[i], True) for i in kept),
            Bin("other", other_count, other_count > 0),
            Bin("unseen", 0, False),
            invalid,
            missing,
        ),
        bin_of_slot=bin_of_slot,
        fault_of_slot=np.array(
            [-1] * (frequent + 1) + [FAULTS.index(name) for name in ("unseen", "wrong_type", "missing")]
        ),
        slot_of_code=slot_of_code,
        search=np.zeros(0),
    )


def _least(feature: Feature, settings: ModelSettings) -> float:
    """Reference count below which a bin would expect too few of the smallest window that gets a verdict."""
    invalid = feature.wrong_type + (feature.non_finite if isinstance(feature, Numeric) else 0)
    rows = feature.values + feature.missing + invalid
    return rows * thresholds.EXPECTED_PER_BIN.value / max(settings.min_samples, 1)


def _special_bins(missing: int, invalid: int, least: float) -> tuple[Bin, Bin]:
    return (
        Bin("missing", missing, missing >= max(least, 1)),
        Bin("invalid", invalid, invalid >= max(least, 1)),
    )


def _category_label(text: str) -> str:
    if len(text.encode()) <= CATEGORY_BYTES:
        return f"={text}"
    return f"=sha256:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def sum_by(number: Counts, counts: Counts, length: int) -> Counts:
    """Sums of counts by number. Exact: doubles hold integers up to 2^53."""
    return np.bincount(number, weights=counts, minlength=length).astype(np.int64)
