"""Quality against ground truth: predictions whose label is known, and what their sums say.

An event that carries its label is settled at once. Every value comes with the bounds of a 95 % interval and its number
of labels; with too few of them, or only one class, there is none. The baseline is the same read-out of the reference's
own rows.

For a binary model with a score there is an estimate too that needs no labels in the window, only some in the reference,
and, once labels come, the gap between what they say and what was to be expected of just these predictions.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from exporter.catalog import metrics, thresholds
from exporter.catalog.metric import Sample, Series
from exporter.monitor.blocks import Table
from exporter.monitor.events import LABEL, NO_ERROR, OUTPUT, FeatureKey, Rows, Schema, codes_to
from exporter.monitor.outcomes import INVALID_LABEL, LOSS, NO_LABEL, OTHER, PROBABILITY, Outcomes, Task
from exporter.monitor.rows import score_field, score_names
from exporter.monitor.settings import ModelSettings
from exporter.stats import Counts, Floats, scores
from exporter.stats.scores import Calibration, Estimate, Interval

QualityState: TypeAlias = Literal["ok", "degraded", "insufficient_labels", "no_labels", "catching_up"]

QUALITIES = ("accuracy", "precision", "recall", "f1", "roc_auc")
"""Between 0 and 1; more is better."""
LOSSES = ("log_loss", "brier", "ece", "mae", "rmse")
"""Less is better."""
ESTIMATED = QUALITIES
"""What can be expected of a binary model without labels."""
GAPS = ("accuracy", "positives")
"""Shares that are realised and expected."""
BIAS = "bias"
"""Mean error of a regression; neither more nor less is better."""


class AccuracyTracker:
    """Sums of one task (see outcomes), in columns of `schema`."""

    cells = np.int64  # billionths

    def __init__(self, task: Task, schema: Schema, settings: ModelSettings, version: str) -> None:
        self.task = task
        self.settings = settings
        self.outcomes = Outcomes(task)
        self.width = self.outcomes.width
        self._labels = {"model": settings.name, "version": version}
        columns = schema.numeric if task.kind == "regression" else schema.categorical
        self._predicted, self._actual = columns.index(OUTPUT), columns.index(LABEL)
        self._scores = [schema.numeric.index(FeatureKey("score", name)) for name in task.scores]
        self._score_fields = [score_field(score_names(schema).index(name)) for name in task.scores]
        if task.kind != "regression":
            number = {name: place for place, name in enumerate(task.classes)}
            self._classes = [
                codes_to(number, schema.vocabularies[i], unseen=len(number), wrong_type=INVALID_LABEL, missing=NO_LABEL)
                for i in (self._predicted, self._actual)
            ]

    def add(self, sums: Counts, rows: Rows) -> None:
        """Add rows to `sums[rows.groups, width]`. A failed prediction can be neither right nor wrong."""
        predicted: NDArray[Any]
        actual: NDArray[Any]
        if self.task.kind == "regression":
            predicted, actual = rows.numeric[:, self._predicted], rows.numeric[:, self._actual]
            answered = np.isfinite(predicted)
        else:
            of_prediction, of_label = self._classes
            predicted = of_prediction[rows.codes[:, self._predicted]]
            actual = of_label[rows.codes[:, self._actual]]
            answered = predicted >= 0
        answered &= rows.error == NO_ERROR
        group = np.zeros(len(rows), np.int64) if rows.group is None else rows.group
        if not answered.all():
            group, predicted, actual = group[answered], predicted[answered], actual[answered]
        table = rows.numeric[:, self._scores]
        table = table if len(group) == len(rows) else table[answered]
        self.outcomes.expect(sums, group, predicted, table)
        if self.settings.join is not None:
            # The others wait for their labels (see join).
            labelled = ~np.isnan(actual) if self.task.kind == "regression" else actual != NO_LABEL
            group, predicted, actual, table = group[labelled], predicted[labelled], actual[labelled], table[labelled]
        self.outcomes.add(sums, group, predicted, actual, table)

    def settle(self, sums: Counts, group: Counts, rows: Table, label: Floats) -> None:
        """Add predictions that are mature, with their labels, to `sums[groups, width]`; as codes, if they are classes.

        `rows` have the layout of this tracker's schema (see join).
        """
        predicted: NDArray[Any] = rows["predicted"]
        actual: NDArray[Any] = label
        if self.task.kind != "regression":
            of_prediction, of_label = self._classes
            predicted, actual = of_prediction[predicted.astype(np.int64)], of_label[label.astype(np.int64)]
        table = np.column_stack([np.zeros((len(rows), 0)), *(rows[name] for name in self._score_fields)])
        self.outcomes.add(sums, group, predicted, actual, table)

    def samples(self, lifetime: Counts) -> Iterable[Sample]:
        """Lifetime counters."""
        outcomes = self.outcomes
        yield from map(Sample, self._series, self._values(lifetime))
        if self.task.kind == "regression":
            over, under = outcomes.total(lifetime, "over"), outcomes.total(lifetime, "under")
            yield metrics.LABEL_ABSOLUTE_ERROR.sample((over + under) * self.task.unit, **self._labels)
            squares = outcomes.total(lifetime, "squares") * self.task.unit**2
            yield metrics.LABEL_SQUARED_ERROR.sample(squares, **self._labels)
        elif self.task.scores:
            yield metrics.LABEL_LOG_LOSS.sample(outcomes.total(lifetime, "losses") * LOSS, **self._labels)
            if self.task.kind == "binary":
                yield metrics.LABEL_SQUARED_ERROR.sample(_brier(outcomes, lifetime), **self._labels)

    def read(self, counts: Counts, *, catching_up: bool = False) -> "AccuracyReadout":
        """What a window's counts say; without a verdict while the source catches up."""
        return AccuracyReadout(self, counts, catching_up)

    @cached_property
    def baseline(self) -> Mapping[str, Interval]:
        """Qualities of the reference's own rows; empty without labels."""
        return _read(self.outcomes, np.array(self.task.counts, np.int64)) if self.task.counts else {}

    @cached_property
    def calibration(self) -> Calibration | None:
        """What scores stand for in the reference; None where it has too few labels to say, or there are no scores."""
        counts = np.array(self.task.counts, np.int64)
        if not self.outcomes.binned or not len(counts):
            return None
        labels, positives = (self.outcomes.by_side(counts, name) for name in ("bin_labels", "bin_positives"))
        return Calibration(labels, positives) if labels.sum() >= max(self.settings.min_labels, 1) else None

    def tolerance(self, metric: str) -> float | None:
        """How much worse than the baseline this quality may be; None if it has none."""
        baseline = self.baseline.get(metric)
        if baseline is None or math.isnan(baseline.value) or metric == BIAS:
            return None
        configured = self.settings.quality_tolerances.get(metric)
        if configured is not None:
            return configured
        if metric in (*QUALITIES, "ece"):
            return thresholds.QUALITY_TOLERANCE.value
        return thresholds.LOSS_TOLERANCE.value * baseline.value

    @cached_property
    def _series(self) -> list[Series]:
        classes = (*self.task.classes, OTHER) if self.task.kind != "regression" else ("",)
        bins = [f"{place:02d}" for place in range(len(self.task.edges) + 1)] if self.outcomes.binned else []
        by_bin = (metrics.SCORE_BIN_LABELS, metrics.SCORE_BIN_POSITIVES, metrics.SCORE_BIN_SCORE)
        return [
            metrics.LABELS_MATURED.series(**self._labels),
            metrics.INVALID_VALUES.series(**self._labels, kind="output", feature="label", reason="wrong_type"),
            *(
                metrics.LABELS_JOINED.series(**self._labels, predicted=predicted, actual=actual)
                for predicted in classes
                for actual in classes
            ),
            *(metric.series(**self._labels, bin=bin_) for metric in by_bin for bin_ in bins),
        ]

    def _values(self, lifetime: Counts) -> Iterator[float]:
        outcomes = self.outcomes
        parts = ["predictions", "invalid", "labels" if self.task.kind == "regression" else "confusion"]
        for name in parts:
            yield from outcomes.part(lifetime, name).tolist()
        if outcomes.binned:
            for name in ("bin_labels", "bin_positives"):
                yield from outcomes.by_side(lifetime, name).sum(axis=1).tolist()
            yield from (outcomes.part(lifetime, "bin_scores") * PROBABILITY).tolist()


@dataclass(frozen=True)
class AccuracyReadout:
    """Qualities of one window. `values` is empty with too few labels, and lacks what these labels do not define."""

    tracker: AccuracyTracker
    counts: Counts
    catching_up: bool = False

    @cached_property
    def labels(self) -> int:
        """Predictions whose label is known."""
        return self.tracker.outcomes.joined(self.counts)

    @cached_property
    def coverage(self) -> float | None:
        """Share of predictions whose label is known; None without predictions."""
        predictions = self.tracker.outcomes.total(self.counts, "predictions")
        return self.labels / predictions if predictions else None

    @cached_property
    def values(self) -> Mapping[str, Interval]:
        """By name: value and bounds."""
        if self.labels < max(self.tracker.settings.min_labels, 1):
            return {}
        found = _read(self.tracker.outcomes, self.counts)
        return {name: one for name, one in found.items() if not math.isnan(one.value)}

    @cached_property
    def estimates(self) -> Mapping[str, Estimate]:
        """What these predictions lead one to expect, by name, labels or not; empty with too few predictions."""
        calibration, outcomes = self.tracker.calibration, self.tracker.outcomes
        if calibration is None:
            return {}
        predictions = outcomes.by_side(self.counts, "bin_predictions")
        if predictions.sum() < max(self.tracker.settings.min_samples, 1):
            return {}
        return {name: one for name, one in calibration.estimate(predictions).items() if not math.isnan(one.value)}

    @cached_property
    def gaps(self) -> Mapping[str, Estimate]:
        """Realised less expected shares of the labelled predictions, right ones and positives; empty with too few."""
        calibration, outcomes = self.tracker.calibration, self.tracker.outcomes
        if calibration is None:
            return {}
        labels, positives = (outcomes.by_side(self.counts, name) for name in ("bin_labels", "bin_positives"))
        enough = labels.sum() >= max(self.tracker.settings.min_labels, 1)
        return calibration.gap(labels, positives) if enough else {}

    @cached_property
    def degraded(self) -> tuple[str, ...]:
        """Qualities that are worse than the baseline by more than the tolerance, even at the better bound."""
        found = []
        for name, one in () if self.catching_up else self.values.items():
            tolerance = self.tracker.tolerance(name)
            if tolerance is None:
                continue
            baseline = self.tracker.baseline[name].value
            if (one.upper < baseline - tolerance) if name in QUALITIES else (one.lower > baseline + tolerance):
                found.append(name)
        return tuple(found)

    @property
    def state(self) -> QualityState:
        """Whether there are enough labels, and if so what they say."""
        if self.catching_up:
            return "catching_up"
        if not self.labels:
            return "no_labels"
        if not self.values:
            return "insufficient_labels"
        return "degraded" if self.degraded else "ok"

    @property
    def absent(self) -> int:
        """How many series this window lacks of what one with enough predictions and labels has."""
        tracker = self.tracker
        expected = {name for name, one in tracker.baseline.items() if not math.isnan(one.value)}
        estimated = 0 if tracker.calibration is None else len(ESTIMATED) - len(self.estimates)
        gaps = 0 if tracker.calibration is None else len(GAPS) - len(self.gaps)
        return int(self.coverage is None) + 3 * len(expected - self.values.keys()) + estimated + 2 * gaps


def _read(outcomes: Outcomes, counts: Counts) -> dict[str, Interval]:
    """Every quality of the task; NaN where it is not defined."""
    task, z = outcomes.task, thresholds.QUALITY_Z.value
    if task.kind == "regression":
        return _read_errors(outcomes, counts, z)
    classes = len(task.classes) + 1
    positive = task.classes.index(task.positive) if task.positive is not None else None
    found = scores.confusion(outcomes.part(counts, "confusion").reshape(classes, classes), positive, z)
    if not task.scores:
        return found
    scored = outcomes.total(counts, "scored")
    losses, squared_losses = (outcomes.total(counts, name) * LOSS for name in ("losses", "squared_losses"))
    found["log_loss"] = scores.mean(losses, squared_losses, scored, z)
    if task.kind == "binary":
        labels, positives = (outcomes.by_side(counts, name).sum(axis=1) for name in ("bin_labels", "bin_positives"))
        sums: Floats = outcomes.part(counts, "bin_scores").astype(np.float64) * PROBABILITY
        squares: Floats = outcomes.part(counts, "bin_squares").astype(np.float64) * PROBABILITY
        auc, bound = scores.roc_auc(labels, positives, z)
        # Bins leave open how their own labels are ordered: that widens the interval.
        found["roc_auc"] = auc._replace(lower=max(auc.lower - bound, 0.0), upper=min(auc.upper + bound, 1.0))
        squared_briers = outcomes.total(counts, "squared_briers") * PROBABILITY
        found["brier"] = scores.mean(_brier(outcomes, counts), squared_briers, scored, z)
        found["ece"] = scores.calibration_error(labels, positives, sums, sums - squares, z)
    return found


def _read_errors(outcomes: Outcomes, counts: Counts, z: float) -> dict[str, Interval]:
    unit, n = outcomes.task.unit, outcomes.total(counts, "labels")
    over, under, squares = (outcomes.total(counts, name) for name in ("over", "under", "squares"))
    found = {
        "mae": scores.mean(over + under, squares, n, z),
        "rmse": scores.root_mean_square(squares, outcomes.fourths(counts), n, z),
        BIAS: scores.mean(over - under, squares, n, z),
    }
    return {name: Interval(*(unit * bound for bound in one)) for name, one in found.items()}


def _brier(outcomes: Outcomes, counts: Counts) -> float:
    """Sum of (p - y)^2."""
    squares, of_positives = (outcomes.total(counts, name) for name in ("bin_squares", "bin_positive_scores"))
    return (squares - 2 * of_positives) * PROBABILITY + outcomes.total(counts, "bin_positives")


def samples(readout: AccuracyReadout, labels: Mapping[str, str]) -> Iterator[Sample]:
    """Gauges of a window: qualities with bounds, estimate, baseline and tolerance, and how many labels they rest on."""
    named = {**labels, "window": readout.tracker.settings.window.label}
    if readout.coverage is not None:
        yield metrics.LABEL_COVERAGE.sample(readout.coverage, **named)
    yield metrics.LABELS_WINDOW_SAMPLES.sample(readout.labels, **named)
    for name, one in readout.values.items():
        for metric, value in zip((metrics.QUALITY, metrics.QUALITY_LOWER, metrics.QUALITY_UPPER), one, strict=True):
            yield metric.sample(value, **named, metric=name)
    for name, estimate in readout.estimates.items():
        yield metrics.QUALITY_ESTIMATED.sample(estimate.value, **named, metric=name)
    for name, gap in readout.gaps.items():
        yield metrics.QUALITY_GAP.sample(gap.value, **named, metric=name)
        yield metrics.QUALITY_GAP_SIGMA.sample(gap.error, **named, metric=name)
    for name, one in readout.tracker.baseline.items():
        if not math.isnan(one.value):
            yield metrics.QUALITY_BASELINE.sample(one.value, **named, metric=name)
        tolerance = readout.tracker.tolerance(name)
        if tolerance is not None:
            yield metrics.QUALITY_TOLERANCE.sample(tolerance, **named, metric=name)
