"""What a fleet was at one moment: immutable, so that evaluating and rendering it can happen on another thread.

Scores are computed on first use from copied counters. Series leave in groups with a priority; when they do not all fit
the budget, the groups of the lowest priority are withheld whole.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from exporter.catalog import metrics
from exporter.catalog.labels import INFO_LABELS
from exporter.catalog.metric import Metric, Sample
from exporter.monitor import accuracy, alert_thresholds, freshness, multivariate, slice_series
from exporter.monitor.accuracy import AccuracyReadout, AccuracyTracker
from exporter.monitor.drift import DriftTracker
from exporter.monitor.faults import Alarms, Fault
from exporter.monitor.feed import SourceFeed
from exporter.monitor.labels import LabelsView
from exporter.monitor.multivariate import MomentsReadout, MomentsTracker
from exporter.monitor.readout import DriftReadout, read
from exporter.monitor.reference import Reference
from exporter.monitor.settings import ModelSettings
from exporter.monitor.traffic import TrafficReadout, TrafficTracker
from exporter.stats import Counts, Floats

State = Literal["ok", "drifting", "learning", "insufficient_data", "borrowed_reference", "no_reference", "catching_up"]

SCORES_NEEDING_DATA = 7
"""Series a feature that need enough data: PSI with null mean and critical value, JS, p-value, drifted, paging."""
KS_SCORES = 3
"""Likewise a numeric feature."""

# Priorities, in the order in which series are kept.
ALWAYS, CONFIGURED, SCORES, BINS, EXTRAS, UNCONFIGURED, SEGMENTS = range(7)


@dataclass(frozen=True, slots=True)
class Segment:
    """The predictions of a version whose tag has this value, or (`other`) one that is not watched by itself.

    Not `known` are those that the reference has too few of, which are compared with the whole of it. `observer` reads
    its counts in the bins of the whole.
    """

    tag: str
    value: str
    known: bool
    observer: DriftTracker


@dataclass(frozen=True)
class ModelView:
    """One version of a model. Counter arrays are copies; `end_pane` is the window's last pane, if there is one.

    `segments` are its slices, each a view of its own with `segment` set, whose drift is seen at the edges of bins.
    """

    settings: ModelSettings
    version: str
    reference: Reference | None
    protected: bool
    learning: tuple[int, int] | None
    catching_up: bool
    end_pane: int | None
    last_prediction: float | None
    traffic: TrafficTracker
    traffic_lifetime: Counts
    traffic_window: Counts
    drift: DriftTracker | None
    drift_lifetime: Counts | None
    drift_window: Counts | None
    alarms: Alarms | None
    accuracy: AccuracyTracker | None
    accuracy_lifetime: Counts | None
    accuracy_window: Counts | None
    moments: MomentsTracker | None
    moments_lifetime: Counts | None
    moments_window: Counts | None
    segment: Segment | None = None
    segments: tuple["ModelView", ...] = ()

    @property
    def borrowed(self) -> bool:
        """Whether the reference is another version's, or that of a slice is the whole."""
        if self.segment is not None and not self.segment.known:
            return True
        return self.reference is not None and self.reference.version != self.version

    @property
    def window(self) -> tuple[float, float] | None:
        """Start and end of the window, epoch seconds; None before any event."""
        if self.end_pane is None:
            return None
        window = self.settings.window
        end = (self.end_pane + 1) * window.pane_s
        return end - window.seconds, end

    @cached_property
    def traffic_readout(self) -> TrafficReadout:
        """Traffic of the window."""
        return self.traffic.read(self.traffic_window)

    @cached_property
    def drift_readout(self) -> DriftReadout | None:
        """Scores of the window; None without a reference."""
        if self.drift is None or self.drift_window is None:
            return None
        return read(self.drift, self.drift_window)

    @cached_property
    def accuracy_readout(self) -> AccuracyReadout | None:
        """Quality of the window; None where it is not known what is predicted, or nobody ever told what was true."""
        if self.accuracy is None or self.accuracy_window is None or self.accuracy_lifetime is None:
            return None
        labelled = self.accuracy.task.counts or self.accuracy.outcomes.joined(self.accuracy_lifetime)
        return self.accuracy.read(self.accuracy_window, catching_up=self.catching_up) if labelled else None

    @cached_property
    def moments_readout(self) -> MomentsReadout | None:
        """Several inputs of the window together; None where the reference does not know enough of them."""
        if self.moments is None or self.moments_window is None or self.drift is None:
            return None
        return self.moments.read(self.moments_window, self.drift.alpha, catching_up=self.catching_up)

    @cached_property
    def drifted(self) -> Sequence[bool]:
        """The verdict on each feature; none is drifted while the source catches up."""
        readout = self.drift_readout
        if readout is None:
            return ()
        return [bool(value) and not self.catching_up for value in readout.drifted]

    @cached_property
    def listed(self) -> Sequence[bool]:
        """Which features to name when something has drifted; none while the source catches up."""
        readout = self.drift_readout
        return () if readout is None else [bool(value) and not self.catching_up for value in readout.listed]

    @cached_property
    def faults(self) -> Sequence[Sequence[Fault]]:
        """The data faults of each feature; none while the source catches up."""
        readout = self.drift_readout
        if readout is None or self.alarms is None:
            return ()
        return ((),) * len(readout.n) if self.catching_up else self.alarms.faults(readout)

    @cached_property
    def judged(self) -> NDArray[np.bool_]:
        """Which features have a verdict."""
        readout = self.drift_readout
        return np.zeros(0, np.bool_) if readout is None else np.isfinite(readout.psi) & (not self.catching_up)

    @cached_property
    def feature_states(self) -> Sequence[State]:
        """The state of each feature of the reference."""
        readout = self.drift_readout
        if readout is None:
            return ()
        return [
            self._feature_state(drifted, bool(enough))
            for drifted, enough in zip(self.drifted, readout.enough, strict=True)
        ]

    @cached_property
    def moment_states(self) -> Sequence[State]:
        """The state of each test of several inputs together."""
        readout = self.moments_readout
        return [] if readout is None else [self._feature_state(test.drifted, test.enough) for test in readout.tests]

    @cached_property
    def state(self) -> State:
        """The state of the model version: the worst that is known of it."""
        if self.learning is not None:
            return "learning"
        if self.reference is None:
            return "no_reference"
        for state in ("catching_up", "drifting", "borrowed_reference", "ok"):
            if state in (*self.feature_states, *self.moment_states):
                return state
        return "insufficient_data"

    def _feature_state(self, drifted: bool, enough: bool) -> State:
        if self.catching_up:
            return "catching_up"
        if not enough:
            return "insufficient_data"
        if drifted:
            return "drifting"
        return "borrowed_reference" if self.borrowed else "ok"

    # ---- series ----------------------------------------------------------------------------------------------------

    @property
    def full_series(self) -> int:
        """How many series this version exports when every score has enough data."""
        absent = int(self.last_prediction is None)
        if self.accuracy_readout is not None:
            absent += self.accuracy_readout.absent
        if self.moments_readout is not None:
            absent += self.moments_readout.absent
        readout = self.drift_readout
        if readout is not None:
            testable = readout.tracker.live_bins > 1  # a constant has no score, whatever the data
            absent += SCORES_NEEDING_DATA * int(np.sum(testable & np.isnan(readout.psi)))
            absent += KS_SCORES * int(np.isnan(readout.ks[readout.tracker.numeric]).sum())
        if readout is not None and self.alarms is not None:
            absent += int(np.isnan(self._faulty(readout, self.alarms))[self.alarms.watched].sum())
        own = sum(len(samples) for (priority, _), samples in self.groups() if priority != SEGMENTS)
        # Of all slices `other` is there from the start.
        of_slices = slice_series.full_series(self.segments[-1]) * self.settings.slices if self.segments else 0
        return own + absent + of_slices

    def groups(self) -> Iterator[tuple[tuple[int, int], list[Sample]]]:
        """Series with their priority (lower is kept longer); a group is exposed whole or not at all."""
        own = CONFIGURED if self.settings.configured else UNCONFIGURED
        first = ALWAYS if self.protected else own
        yield (first, 0), [*self._traffic_samples(), *self._model_samples(), *self._quality_samples()]
        readout = self.drift_readout
        tracker = self.drift
        if readout is None or tracker is None or self.drift_lifetime is None:
            return
        scores = max(own, SCORES)
        yield (ALWAYS if self.protected else scores, 0), [*self._score_samples(readout)]
        yield (scores, 0), list(tracker.fault_samples(self.drift_lifetime))
        observed = tracker.bin_counts(self.drift_lifetime).tolist()
        series = tracker.bin_series(metrics.BIN_OBSERVATIONS)
        for place, (start, end) in enumerate(pairwise([*tracker.bin_starts.tolist(), len(observed)])):
            counters = list(map(Sample, series[start:end], observed[start:end]))
            yield (max(own, BINS), place), [*counters, *_reference_samples(tracker, place)]
        yield (max(own, EXTRAS), 0), list(_edge_samples(tracker))
        yield (max(own, EXTRAS), 1), list(self._values(metrics.JS_DIVERGENCE, readout.js_divergence))
        for place, one in enumerate(self.segments):
            yield (SEGMENTS, place), list(slice_series.scores(one))
            yield (SEGMENTS, self.settings.slices + place), list(slice_series.observations(one))

    def _traffic_samples(self) -> Iterator[Sample]:
        yield from self.traffic.samples(self.traffic_lifetime)
        yield from freshness.samples(self.settings, self.version, self.reference, self.last_prediction)

    def _quality_samples(self) -> Iterator[Sample]:
        readout = self.accuracy_readout
        if readout is None or self.accuracy_lifetime is None:
            return
        yield from readout.tracker.samples(self.accuracy_lifetime)
        yield from accuracy.samples(readout, {"model": self.settings.name, "version": self.version})

    def _model_samples(self) -> Iterator[Sample]:
        settings = self.settings
        labels = {"model": settings.name, "version": self.version}
        info = {label.name: settings.info.get(label.name, "") for label in INFO_LABELS}
        yield metrics.MODEL_INFO.sample(1, **labels, **info)
        yield metrics.REPLICA_INFO.sample(1, **labels)
        yield metrics.DRIFT_MIN_SAMPLES.sample(settings.min_samples, **labels)
        yield metrics.LABELS_MIN_SAMPLES.sample(settings.min_labels, **labels)
        yield metrics.ERROR_BUDGET.sample(settings.error_budget, **labels)
        yield metrics.DRIFTED_FEATURES_THRESHOLD.sample(settings.drifted_features_ratio, **labels)
        for quantile, seconds in settings.latency_objective_s.items():
            yield metrics.LATENCY_OBJECTIVE.sample(seconds, **labels, objective_quantile=quantile)
        if self.reference is None:
            # No feature is known yet; the prediction is the one that every model has.
            state = metrics.FEATURE_STATE.series(**labels, kind="output", feature="prediction", state=self.state)
            yield state(1)
            return
        yield metrics.REFERENCE_BORROWED.sample(int(self.borrowed), **labels)
        yield metrics.FEATURES_DRIFTED.sample(sum(self.drifted), **labels, window=settings.window.label)
        yield metrics.FEATURES_EVALUATED.sample(int(self.judged.sum()), **labels, window=settings.window.label)

    def _score_samples(self, readout: DriftReadout) -> Iterator[Sample]:
        yield from self._values(metrics.WINDOW_SAMPLES, readout.n)
        for metric, values in (
            (metrics.PSI, readout.psi),
            (metrics.PSI_NULL_MEAN, readout.psi_null_mean),
            (metrics.PSI_CRITICAL, readout.psi_critical),
            (metrics.KS, readout.ks),
            (metrics.KS_UPPER, readout.ks_upper),
            (metrics.KS_CRITICAL, readout.ks_critical),
            (metrics.DRIFT_PVALUE, readout.p_value),
        ):
            yield from self._values(metric, values)
        yield from self._values(metrics.DRIFTED, np.where(self.judged, np.array(self.drifted, np.float64), np.nan))
        yield from self._values(metrics.DRIFT_PAGING, np.where(self.judged, 1.0 - readout.extrapolated, np.nan))
        yield from self._values(metrics.DRIFT_THRESHOLD, readout.tracker.thresholds)
        for plan, state in zip(readout.tracker.features, self.feature_states, strict=True):
            yield metrics.FEATURE_STATE.sample(1, **readout.tracker.labels(plan), state=state)
        yield from self._values(metrics.REFERENCE_SAMPLES, readout.tracker.reference_n)
        yield from self._values(metrics.REFERENCE_CHI2_CRITICAL, readout.chi2_critical)
        yield metrics.DRIFT_ALPHA.sample(readout.tracker.alpha, model=self.settings.name, version=self.version)
        if self.alarms is not None:
            yield from self._values(metrics.FAULTY, self._faulty(readout, self.alarms))
            yield metrics.FAULT_ALPHA.sample(self.alarms.level, model=self.settings.name, version=self.version)
        together = self.moments_readout
        if together is not None and self.moments_lifetime is not None:
            yield from together.tracker.samples(self.moments_lifetime)
            yield from multivariate.samples(together, self.moment_states)

    def _faulty(self, readout: DriftReadout, alarms: Alarms) -> Floats:
        return np.full(len(readout.n), np.nan) if self.catching_up else alarms.verdicts(readout)

    def _values(self, metric: Metric, values: Floats | Counts) -> Iterator[Sample]:
        """A sample a feature; one that is not a number is not exposed."""
        series = () if self.drift is None else self.drift.feature_series(metric)
        for one, value in zip(series, values.tolist(), strict=True):
            if not math.isnan(value):
                yield Sample(one, value)


@dataclass(frozen=True)
class Snapshot:
    """Everything a fleet knows at `now`."""

    now: float
    models: Sequence[ModelView]
    labels: Mapping[str, LabelsView]
    feeds: Mapping[str, SourceFeed]
    series_limit: int

    @cached_property
    def settings(self) -> Mapping[str, ModelSettings]:
        """The settings of each model that has a version."""
        return {model.settings.name: model.settings for model in self.models}

    @cached_property
    def exposed(self) -> tuple[Sequence[Sample], int]:
        """The samples within the series budget, and how many series were withheld."""
        groups = [
            ((ALWAYS if one.configured else UNCONFIGURED, 0), list(alert_thresholds.samples(one)))
            for one in self.settings.values()
        ]
        groups += [group for model in self.models for group in model.groups()]
        groups.sort(key=lambda group: group[0])
        samples = [sample for source, feed in self.feeds.items() for sample in feed.samples(source)]
        samples += [sample for model, labels in self.labels.items() for sample in labels.samples(model)]
        withheld = 0
        for (priority, _), group in groups:
            if withheld == 0 and (priority == ALWAYS or len(samples) + len(group) <= self.series_limit):
                samples += group
            else:
                withheld += len(group)
        return samples, withheld


def _reference_samples(tracker: DriftTracker, place: int) -> Iterator[Sample]:
    live = tracker.live
    start, size = tracker.live_starts[place], tracker.live_bins[place]
    series = tracker.bin_series(metrics.REFERENCE_RATIO)
    for index in range(start, start + size):
        yield Sample(series[live[index]], float(tracker.live_reference_share[index]))


def _edge_samples(tracker: DriftTracker) -> Iterator[Sample]:
    for series, (_, exported) in zip(tracker.bin_series(metrics.BIN_UPPER_BOUND), tracker.bins, strict=True):
        if exported.upper is not None:
            yield Sample(series, exported.upper)
