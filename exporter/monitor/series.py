"""Series of a model version, in groups with a priority: if not all fit the budget, the lowest are withheld whole."""

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from exporter.catalog import metrics
from exporter.catalog.labels import INFO_LABELS
from exporter.catalog.metric import Metric, Sample
from exporter.monitor import accuracy, freshness, multivariate, slice_series
from exporter.monitor.drift import DriftTracker
from exporter.monitor.faults import Alarms
from exporter.monitor.model_view import ModelView
from exporter.monitor.readout import DriftReadout
from exporter.monitor.settings import ModelSettings
from exporter.stats import Counts, Floats

SCORES_NEEDING_DATA = 7
"""Series a feature that need enough data: PSI with null mean and critical value, JS, p-value, drifted, paging."""
KS_SCORES = 3
"""Likewise a numeric feature."""

# Priorities, in the order in which series are kept.
ALWAYS, CONFIGURED, SCORES, BINS, EXTRAS, UNCONFIGURED, SEGMENTS = range(7)

Group = tuple[tuple[int, int], list[Sample]]
"""Series with their priority (lower is kept longer); a group is exposed whole or not at all."""


def thresholds(settings: ModelSettings) -> Group:
    """What alerts compare a model with, whatever its versions: rules read it, and are the same for every value."""
    return (ALWAYS if settings.configured else UNCONFIGURED, 0), [
        metrics.ALERT_THRESHOLD.sample(value, model=settings.name, threshold=name)
        for name, value in settings.alert_thresholds.items()
    ]


def full_series(view: ModelView) -> int:
    """How many series this version exports when every score has enough data."""
    absent = int(view.last_prediction is None)
    if view.accuracy_readout is not None:
        absent += view.accuracy_readout.absent
    if view.moments_readout is not None:
        absent += view.moments_readout.absent
    readout = view.drift_readout
    if readout is not None:
        testable = readout.tracker.live_bins > 1  # a constant has no score, whatever the data
        absent += SCORES_NEEDING_DATA * int(np.sum(testable & np.isnan(readout.psi)))
        absent += KS_SCORES * int(np.isnan(readout.ks[readout.tracker.numeric]).sum())
    if readout is not None and view.alarms is not None:
        absent += int(np.isnan(_faulty(view, readout, view.alarms))[view.alarms.watched].sum())
    own = sum(len(samples) for (priority, _), samples in groups(view) if priority != SEGMENTS)
    # Of all slices `other` is there from the start.
    of_slices = slice_series.full_series(view.segments[-1]) * view.settings.slices if view.segments else 0
    return own + absent + of_slices


def groups(view: ModelView) -> Iterator[Group]:
    """All of a version."""
    own = CONFIGURED if view.settings.configured else UNCONFIGURED
    first = ALWAYS if view.protected else own
    yield (first, 0), [*_traffic_samples(view), *_model_samples(view), *_quality_samples(view)]
    readout = view.drift_readout
    tracker = view.drift
    if readout is None or tracker is None or view.drift_lifetime is None:
        return
    scores = max(own, SCORES)
    yield (ALWAYS if view.protected else scores, 0), [*_score_samples(view, readout)]
    yield (scores, 0), list(tracker.fault_samples(view.drift_lifetime))
    observed = tracker.bin_counts(view.drift_lifetime).tolist()
    series = tracker.bin_series(metrics.BIN_OBSERVATIONS)
    for place, (start, end) in enumerate(pairwise([*tracker.bin_starts.tolist(), len(observed)])):
        counters = list(map(Sample, series[start:end], observed[start:end]))
        yield (max(own, BINS), place), [*counters, *_reference_samples(tracker, place)]
    yield (max(own, EXTRAS), 0), list(_edge_samples(tracker))
    yield (max(own, EXTRAS), 1), list(_values(view, metrics.JS_DIVERGENCE, readout.js_divergence))
    for place, one in enumerate(view.segments):
        yield (SEGMENTS, place), list(slice_series.scores(one))
        yield (SEGMENTS, view.settings.slices + place), list(slice_series.observations(one))


def _traffic_samples(view: ModelView) -> Iterator[Sample]:
    yield from view.traffic.samples(view.traffic_lifetime)
    yield from freshness.samples(view.settings, view.version, view.reference, view.last_prediction)


def _quality_samples(view: ModelView) -> Iterator[Sample]:
    readout = view.accuracy_readout
    if readout is None or view.accuracy_lifetime is None:
        return
    yield from readout.tracker.samples(view.accuracy_lifetime)
    yield from accuracy.samples(readout, {"model": view.settings.name, "version": view.version})


def _model_samples(view: ModelView) -> Iterator[Sample]:
    settings = view.settings
    labels = {"model": settings.name, "version": view.version}
    info = {label.name: settings.info.get(label.name, "") for label in INFO_LABELS}
    yield metrics.MODEL_INFO.sample(1, **labels, **info)
    yield metrics.REPLICA_INFO.sample(1, **labels)
    yield metrics.DRIFT_MIN_SAMPLES.sample(settings.min_samples, **labels)
    yield metrics.LABELS_MIN_SAMPLES.sample(settings.min_labels, **labels)
    yield metrics.ERROR_BUDGET.sample(settings.error_budget, **labels)
    yield metrics.DRIFTED_FEATURES_THRESHOLD.sample(settings.drifted_features_ratio, **labels)
    for quantile, seconds in settings.latency_objective_s.items():
        yield metrics.LATENCY_OBJECTIVE.sample(seconds, **labels, objective_quantile=quantile)
    if view.reference is None:
        # No feature is known yet; the prediction is the one that every model has.
        state = metrics.FEATURE_STATE.series(**labels, kind="output", feature="prediction", state=view.state)
        yield state(1)
        return
    yield metrics.REFERENCE_BORROWED.sample(int(view.borrowed), **labels)
    yield metrics.FEATURES_DRIFTED.sample(sum(view.drifted), **labels, window=settings.window.label)
    yield metrics.FEATURES_EVALUATED.sample(int(view.judged.sum()), **labels, window=settings.window.label)


def _score_samples(view: ModelView, readout: DriftReadout) -> Iterator[Sample]:
    yield from _values(view, metrics.WINDOW_SAMPLES, readout.n)
    for metric, values in (
        (metrics.PSI, readout.psi),
        (metrics.PSI_NULL_MEAN, readout.psi_null_mean),
        (metrics.PSI_CRITICAL, readout.psi_critical),
        (metrics.KS, readout.ks),
        (metrics.KS_UPPER, readout.ks_upper),
        (metrics.KS_CRITICAL, readout.ks_critical),
        (metrics.DRIFT_PVALUE, readout.p_value),
    ):
        yield from _values(view, metric, values)
    yield from _values(view, metrics.DRIFTED, np.where(view.judged, np.array(view.drifted, np.float64), np.nan))
    yield from _values(view, metrics.DRIFT_PAGING, np.where(view.judged, 1.0 - readout.extrapolated, np.nan))
    yield from _values(view, metrics.DRIFT_THRESHOLD, readout.tracker.thresholds)
    for plan, state in zip(readout.tracker.features, view.feature_states, strict=True):
        yield metrics.FEATURE_STATE.sample(1, **readout.tracker.labels(plan), state=state)
    yield from _values(view, metrics.REFERENCE_SAMPLES, readout.tracker.reference_n)
    yield from _values(view, metrics.REFERENCE_CHI2_CRITICAL, readout.chi2_critical)
    yield metrics.DRIFT_ALPHA.sample(readout.tracker.alpha, model=view.settings.name, version=view.version)
    if view.alarms is not None:
        yield from _values(view, metrics.FAULTY, _faulty(view, readout, view.alarms))
        yield metrics.FAULT_ALPHA.sample(view.alarms.level, model=view.settings.name, version=view.version)
    together = view.moments_readout
    if together is not None and view.moments_lifetime is not None:
        yield from together.tracker.samples(view.moments_lifetime)
        yield from multivariate.samples(together, view.moment_states)


def _faulty(view: ModelView, readout: DriftReadout, alarms: Alarms) -> Floats:
    return np.full(len(readout.n), np.nan) if view.catching_up else alarms.verdicts(readout)


def _values(view: ModelView, metric: Metric, values: Floats | Counts) -> Iterator[Sample]:
    """A sample a feature; one that is not a number is not exposed."""
    series = () if view.drift is None else view.drift.feature_series(metric)
    for one, value in zip(series, values.tolist(), strict=True):
        if not math.isnan(value):
            yield Sample(one, value)


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
