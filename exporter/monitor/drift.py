"""Drift of every feature of one reference: one counter vector, and every score as a read-out of it.

The vector holds, feature behind feature,
  numeric:      wrong type | below, = r_1, between, = r_2, ..., = r_K, above | not finite | missing
  categorical:  a counter a category of the schema's vocabulary, in its order of slots | other | unseen | wrong type | missing
so PSI bins, KS cells and fault rates are all sums of the same counters and can never disagree.

Counting has two routes with equal results. Rows of one group are sorted and the knots looked up among them (SIMD sort,
and 2K searches whatever the number of rows): 7 to 20 ns a value. Small groups look each value up among the knots and
count the cells of all groups at once: 30 to 40 ns a value, but no cost per group.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter.catalog import metrics, thresholds
from exporter.catalog.metric import Metric, Sample, Series
from exporter.monitor.events import NO_ERROR, FeatureKey, Rows, Schema
from exporter.monitor.reference import Categorical, Feature, Numeric, Reference, key, psi_bins
from exporter.monitor.settings import ModelSettings
from exporter.stats import Counts, Floats, bins, distances, significance

SORT_ROWS = 512
"""Rows a group needs for sorting to beat looking up each value."""

FAULTS = ("missing", "wrong_type", "non_finite", "out_of_range", "unseen")

CATEGORY_BYTES = 64
_FAULT_Z = 3.29  # two-sided 99.9 %


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
    search: Floats  # numeric only: -inf, knots, +inf, NaN

    @property
    def width(self) -> int:
        return len(self.bin_of_slot)

    @property
    def key(self) -> FeatureKey:
        return key(self.feature)


class DriftTracker:
    """Counters of all features of one reference, in columns of `schema`."""

    def __init__(self, reference: Reference, schema: Schema, settings: ModelSettings, version: str) -> None:
        self.reference = reference
        self.settings = settings
        self.version = version
        self.features = tuple(
            _plan_numeric(feature, schema, settings)
            if isinstance(feature, Numeric)
            else _plan_categorical(feature, schema, settings)
            for feature in reference.features
        )
        self._starts = _starts([plan.width for plan in self.features])
        self.width = sum(plan.width for plan in self.features)
        self._series: dict[str, tuple[Series, ...]] = {}

    def add(self, sums: Counts, rows: Rows) -> None:
        """Count rows into `sums[rows.groups, width]`. A failed prediction has inputs but no output to compare."""
        answered = None if len(rows) == 0 or rows.error.max() == NO_ERROR else rows.error == NO_ERROR
        for plan, start in zip(self.features, self._starts, strict=True):
            group = rows.group
            numeric = isinstance(plan.feature, Numeric)
            values: NDArray[Any] = (rows.numeric if numeric else rows.codes)[:, plan.column]
            if answered is not None and plan.feature.kind != "input":
                values = values[answered]
                group = None if group is None else group[answered]
            target = sums[:, start : start + plan.width]
            if not numeric:
                _count(target, plan.slot_of_code[values], group)
            elif group is None and len(values) >= SORT_ROWS:
                target[0] += _sorted_counts(values, plan.search)
            else:
                cell = np.searchsorted(plan.search[:-1], values)
                _count(target, 2 * cell - 1 + (plan.search[cell] == values), group)

    def samples(self, lifetime: Counts) -> Iterable[Sample]:
        """Lifetime counters by bin and by fault."""
        yield from map(Sample, self.bin_series(metrics.BIN_OBSERVATIONS), self.bin_counts(lifetime).tolist())
        yield from self.fault_samples(lifetime)

    def fault_samples(self, lifetime: Counts) -> Iterator[Sample]:
        """Lifetime counters of invalid values."""
        yield from map(Sample, self._fault_series, self.fault_counts(lifetime).ravel().tolist())

    # ---- layout, computed once -------------------------------------------------------------------------------------

    @cached_property
    def bins(self) -> tuple[tuple[FeaturePlan, Bin], ...]:
        """Every exported bin, feature behind feature."""
        return tuple((plan, exported) for plan in self.features for exported in plan.bins)

    @cached_property
    def bin_starts(self) -> Counts:
        """Where each feature's bins begin in `bins`."""
        return _starts([len(plan.bins) for plan in self.features])

    def bin_series(self, metric: Metric) -> tuple[Series, ...]:
        """The series of `metric` for each of `bins`."""
        known = self._series.get(metric.name)
        if known is None:
            known = self._series[metric.name] = tuple(
                metric.series(**self._labels, reference=self.reference.id, **_names(plan), bin=exported.label)
                for plan, exported in self.bins
            )
        return known

    def feature_series(self, metric: Metric) -> tuple[Series, ...]:
        """The series of `metric` for each of `features`."""
        known = self._series.get(metric.name)
        if known is None:
            extra = {metrics.WINDOW: self.settings.window.label, metrics.REFERENCE: self.reference.id}
            labels = {label.name: value for label, value in extra.items() if label in metric.labels}
            known = self._series[metric.name] = tuple(
                metric.series(**self._labels, **_names(plan), **labels) for plan in self.features
            )
        return known

    @cached_property
    def live(self) -> Counts:
        """Indices into `bins` of the live ones."""
        return np.flatnonzero([exported.live for _, exported in self.bins])

    @cached_property
    def live_starts(self) -> Counts:
        """Where each feature's bins begin among the live ones."""
        return _starts([sum(exported.live for exported in plan.bins) for plan in self.features])

    @cached_property
    def live_bins(self) -> Counts:
        """Number of live bins a feature."""
        return np.diff(np.append(self.live_starts, len(self.live)))

    @cached_property
    def live_reference(self) -> Counts:
        """Reference counts of the live bins."""
        return np.array([self.bins[i][1].reference for i in self.live], np.int64)

    @cached_property
    def live_reference_share(self) -> Floats:
        """Smoothed reference shares of the live bins."""
        return distances.smoothed(self.live_reference, self.live_starts)

    @cached_property
    def reference_n(self) -> Counts:
        """Reference values in live bins, a feature."""
        return np.add.reduceat(self.live_reference, self.live_starts)

    @cached_property
    def thresholds(self) -> Floats:
        """PSI that counts as an effect, a feature."""
        return np.array([plan.threshold for plan in self.features])

    @cached_property
    def numeric(self) -> Counts:
        """Indices of the numeric features."""
        return np.flatnonzero([isinstance(plan.feature, Numeric) for plan in self.features])

    @cached_property
    def cell_slots(self) -> Counts:
        """Slots of the KS cells of all numeric features."""
        spans = [np.arange(self._starts[i] + 1, self._starts[i] + self.features[i].width - 2) for i in self.numeric]
        return np.concatenate(spans) if spans else np.zeros(0, np.int64)

    @cached_property
    def cell_starts(self) -> Counts:
        """Where each numeric feature begins in `cell_slots`."""
        return _starts([self.features[i].width - 3 for i in self.numeric])

    @cached_property
    def reference_cells(self) -> Counts:
        """Reference counts of the KS cells."""
        cells = [count for plan in self.features if isinstance(plan.feature, Numeric) for count in plan.feature.cells]
        return np.array(cells, np.int64)

    @cached_property
    def reference_cdf(self) -> Floats:
        """Reference distribution function at the end of each KS cell."""
        return distances.cdf(self.reference_cells, self.cell_starts)

    @cached_property
    def reference_faults(self) -> Floats:
        """Share of each fault in the reference [features, faults]."""
        rates = np.zeros((len(self.features), len(FAULTS)))
        for i, plan in enumerate(self.features):
            feature = plan.feature
            rates[i, FAULTS.index("missing")] = feature.missing
            rates[i, FAULTS.index("wrong_type")] = feature.wrong_type
            if isinstance(feature, Numeric):
                rates[i, FAULTS.index("non_finite")] = feature.non_finite
        return rates / max(self.reference.rows, 1)

    # ---- sums of counters ------------------------------------------------------------------------------------------

    def bin_counts(self, counts: Counts) -> Counts:
        """Counts of every exported bin."""
        return _sum_by(self._bin_of_slot, counts, len(self.bins))

    def fault_counts(self, counts: Counts) -> Counts:
        """Counts of every fault [features, faults]."""
        sums = _sum_by(self._fault_of_slot, counts, len(self.features) * len(FAULTS) + 1)
        return sums[:-1].reshape(len(self.features), len(FAULTS))

    def totals(self, counts: Counts) -> Counts:
        """All values seen of each feature."""
        return np.add.reduceat(counts, self._starts)

    @cached_property
    def _bin_of_slot(self) -> Counts:
        return np.concatenate(
            [plan.bin_of_slot + start for plan, start in zip(self.features, self.bin_starts, strict=True)]
        )

    @cached_property
    def _fault_of_slot(self) -> Counts:
        none = len(self.features) * len(FAULTS)
        return np.concatenate(
            [
                np.where(plan.fault_of_slot < 0, none, plan.fault_of_slot + i * len(FAULTS))
                for i, plan in enumerate(self.features)
            ]
        )

    @cached_property
    def _labels(self) -> dict[str, str]:
        return {"model": self.settings.name, "version": self.version}

    @cached_property
    def _fault_series(self) -> tuple[Series, ...]:
        return tuple(
            metrics.INVALID_VALUES.series(**self._labels, **_names(plan), reason=reason)
            for plan in self.features
            for reason in FAULTS
        )


@dataclass(frozen=True)
class Fault:
    """A rate of bad values clearly above the reference's, with its 99.9 % interval and sample size."""

    reason: str
    ratio: float
    lower: float
    upper: float
    reference: float
    n: int


@dataclass(frozen=True)
class DriftReadout:
    """Scores of one window, an element a feature in `tracker.features`; NaN where there is too little data.

    `n` counts values in live bins. `drifted` follows the one definition: n >= min_samples and PSI above both the
    threshold and its critical value.
    """

    tracker: DriftTracker
    counts: Counts
    n: Counts
    enough: NDArray[np.bool_]
    psi: Floats
    psi_null_mean: Floats
    psi_critical: Floats
    js_divergence: Floats
    p_value: Floats
    p_above_threshold: Floats
    ks: Floats
    ks_upper: Floats
    ks_critical: Floats
    drifted: NDArray[np.bool_]

    @cached_property
    def bin_counts(self) -> Counts:
        """Window counts of every exported bin."""
        return self.tracker.bin_counts(self.counts)

    @cached_property
    def fault_ratios(self) -> Floats:
        """Share of each fault in the window [features, faults]; NaN without data."""
        with np.errstate(invalid="ignore"):
            return self.tracker.fault_counts(self.counts) / self.tracker.totals(self.counts)[:, None]

    @cached_property
    def faults(self) -> tuple[tuple[Fault, ...], ...]:
        """The faults of each feature."""
        totals = self.tracker.totals(self.counts)
        counts = self.tracker.fault_counts(self.counts)
        lower, upper = significance.wilson(counts.astype(np.float64), totals[:, None].astype(np.float64), _FAULT_Z)
        expected = self.tracker.reference_faults
        clear = (lower > expected + thresholds.FAULT_TOLERANCE.value) & (
            totals[:, None] >= self.tracker.settings.min_samples
        )
        return tuple(
            tuple(
                Fault(
                    FAULTS[j],
                    float(self.fault_ratios[i, j]),
                    float(lower[i, j]),
                    float(upper[i, j]),
                    float(expected[i, j]),
                    int(totals[i]),
                )
                for j in np.flatnonzero(clear[i])
            )
            for i in range(len(totals))
        )


def read(tracker: DriftTracker, counts: Counts) -> DriftReadout:
    """Every score of a window's counts."""
    settings = tracker.settings
    current = tracker.bin_counts(counts)[tracker.live]
    starts = tracker.live_starts
    n = np.add.reduceat(current, starts)
    enough = n >= max(settings.min_samples, 1)
    c = np.where(enough, significance.psi_scale(tracker.reference_n, n), np.nan)
    share, reference = distances.smoothed(current, starts), tracker.live_reference_share
    psi = np.where(enough & (tracker.live_bins > 1), distances.psi(reference, share, starts), np.nan)
    critical = significance.psi_critical(c, settings.alpha, tracker.live_bins)
    ks, ks_upper, ks_critical = (np.full(len(n), np.nan) for _ in range(3))
    numeric = tracker.numeric
    if len(numeric):
        cells = counts[tracker.cell_slots]
        values = np.add.reduceat(cells, tracker.cell_starts)
        known = np.where(values >= max(settings.min_samples, 1), 1.0, np.nan)
        lower, upper = distances.ks(tracker.reference_cdf, cells, tracker.cell_starts)
        ks[numeric], ks_upper[numeric] = lower * known, upper * known
        reference_values = np.add.reduceat(tracker.reference_cells, tracker.cell_starts)
        ks_critical[numeric] = significance.ks_critical(reference_values, values, settings.alpha) * known
    with np.errstate(invalid="ignore"):
        drifted = enough & (psi > tracker.thresholds) & (psi > critical)
    return DriftReadout(
        tracker=tracker,
        counts=counts,
        n=n,
        enough=enough,
        psi=psi,
        psi_null_mean=significance.psi_null_mean(c, tracker.live_bins),
        psi_critical=critical,
        js_divergence=np.where(np.isnan(psi), np.nan, distances.js_divergence(reference, share, starts)),
        p_value=np.where(np.isnan(psi), np.nan, significance.pearson_p(tracker.live_reference, current, starts)),
        p_above_threshold=significance.p_above(psi, tracker.thresholds, c, tracker.live_bins),
        ks=ks,
        ks_upper=ks_upper,
        ks_critical=ks_critical,
        drifted=drifted,
    )


def _plan_numeric(feature: Numeric, schema: Schema, settings: ModelSettings) -> FeaturePlan:
    cell_bin = psi_bins(feature)
    counts = _sum_by(cell_bin, np.array(feature.cells), len(feature.bins))
    least = _least(feature, settings)
    constant = len(feature.knots) == 1 and len(feature.bins) == 3
    if not constant:
        merged = bins.merge_small(counts, least)
        cell_bin = merged[cell_bin]
        counts = _sum_by(cell_bin, np.array(feature.cells), int(merged.max()) + 1)
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
        search=np.concatenate(([-np.inf], knots, [np.inf, np.nan])),
    )


def _plan_categorical(feature: Categorical, schema: Schema, settings: ModelSettings) -> FeaturePlan:
    least = _least(feature, settings)
    column = schema.categorical.index(key(feature))
    kept = [i for i, count in enumerate(feature.counts) if count >= least]
    other_count = feature.values - sum(feature.counts[i] for i in kept)
    missing, invalid = _special_bins(feature.missing, feature.wrong_type, least)
    other, unseen, invalid_at, missing_at = range(len(kept), len(kept) + 4)
    slot_of_text = dict.fromkeys((*feature.categories, *feature.others), other)
    slot_of_text |= {feature.categories[i]: slot for slot, i in enumerate(kept)}
    unknown = unseen if feature.others_complete else other
    vocabulary = schema.vocabularies[column]
    slot_of_code = np.full(max((code for code in vocabulary.values()), default=-1) + 1 + 3, unknown)
    for value, code in vocabulary.items():
        if isinstance(value, str) and code >= 0 and value in slot_of_text:
            slot_of_code[code] = slot_of_text[value]
    slot_of_code[-3:] = (unknown, invalid_at, missing_at)
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
        bin_of_slot=np.arange(len(kept) + 4),
        fault_of_slot=np.array(
            [-1] * (len(kept) + 1) + [FAULTS.index(name) for name in ("unseen", "wrong_type", "missing")]
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


def _names(plan: FeaturePlan) -> dict[str, str]:
    return {"kind": plan.key.kind, "feature": plan.key.name}


def _starts(widths: list[int]) -> Counts:
    return np.cumsum([0, *widths[:-1]], dtype=np.int64) if widths else np.zeros(0, np.int64)


def _sum_by(number: Counts, counts: Counts, length: int) -> Counts:
    """Sums of counts by number. Exact: doubles hold integers up to 2^53."""
    return np.bincount(number, weights=counts, minlength=length).astype(np.int64)


def _count(target: Counts, slots: Counts, group: Counts | None) -> None:
    """Add one to `target[group, slot]` for each row."""
    groups, width = target.shape
    if group is not None:
        slots = slots + group * width
    target += np.bincount(slots, minlength=groups * width).reshape(groups, width)


def _sorted_counts(values: Floats, search: Floats) -> Counts:
    """Counts of a numeric feature's slots: boundaries of each knot in the sorted column, then differences."""
    ordered = np.sort(values)  # NaN last
    edges = np.empty(2 * len(search) - 1, np.int64)
    edges[:-1:2] = np.searchsorted(ordered, search[:-1], "left")
    edges[1:-1:2] = np.searchsorted(ordered, search[:-1], "right")
    edges[-1] = len(ordered)
    return np.diff(edges)
