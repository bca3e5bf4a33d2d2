"""Series of one slice of a model version: few a feature, because there are many slices, and the first to be withheld.

Values are counted in the bins of the whole, so that its reference ratios and bounds are those of every slice too.
"""

from collections.abc import Iterator

import numpy as np

from exporter.catalog import segment_metrics
from exporter.catalog.labels import SEGMENT, SEGMENT_NAME
from exporter.catalog.metric import Metric, Sample
from exporter.monitor.model_view import ModelView
from exporter.stats import Counts, Floats

_SCORES = 3
"""Series a feature that need enough data: PSI, its critical value, and whether the slice is drifted."""


def scores(view: ModelView) -> Iterator[Sample]:
    """Traffic, drift and quality of a slice."""
    segment, drift, accuracy = view.segment, view.drift_readout, view.accuracy_readout
    if segment is None or drift is None:
        return
    labels = {
        "model": view.settings.name,
        "version": view.version,
        SEGMENT_NAME.name: segment.tag,
        SEGMENT.name: segment.value,
    }
    lifetime = view.traffic.read(view.traffic_lifetime)
    yield segment_metrics.PREDICTIONS.sample(lifetime.predictions, **labels)
    yield segment_metrics.PREDICTION_ERRORS.sample(sum(lifetime.errors.values()), **labels)
    yield segment_metrics.BORROWED.sample(int(not segment.known), **labels)
    drifted = np.where(view.judged, np.array(view.drifted, np.float64), np.nan)
    values: tuple[tuple[Metric, Floats | Counts], ...] = (
        (segment_metrics.SAMPLES, drift.n),
        (segment_metrics.PSI, drift.psi),
        (segment_metrics.PSI_CRITICAL, drift.psi_critical),
        (segment_metrics.DRIFTED, drifted),
    )
    for metric, column in values:
        for series, value in zip(segment.observer.feature_series(metric), column.tolist(), strict=True):
            if not np.isnan(value):
                yield Sample(series, value)
    if accuracy is None:
        return
    named = {**labels, "window": view.settings.window.label}
    yield segment_metrics.LABELS.sample(accuracy.labels, **named)
    for name, one in accuracy.values.items():
        bounds = (segment_metrics.QUALITY, segment_metrics.QUALITY_LOWER, segment_metrics.QUALITY_UPPER)
        for metric, value in zip(bounds, one, strict=True):
            yield metric.sample(value, **named, metric=name)
    for name, one in accuracy.tracker.baseline.items():
        if not np.isnan(one.value):
            yield segment_metrics.QUALITY_BASELINE.sample(one.value, **named, metric=name)


def observations(view: ModelView) -> Iterator[Sample]:
    """Values of a slice in each bin."""
    if view.segment is not None and view.drift_lifetime is not None:
        observer = view.segment.observer
        counts = observer.bin_counts(view.drift_lifetime).tolist()
        yield from map(Sample, observer.bin_series(segment_metrics.OBSERVATIONS), counts)


def full_series(view: ModelView) -> int:
    """How many series a slice has when every score has enough data."""
    drift, accuracy = view.drift_readout, view.accuracy_readout
    found = sum(1 for _ in scores(view)) + sum(1 for _ in observations(view))
    if drift is not None:
        found += _SCORES * int(np.sum((drift.tracker.live_bins > 1) & np.isnan(drift.psi)))
    if accuracy is not None:
        known = {name for name, one in accuracy.tracker.baseline.items() if not np.isnan(one.value)}
        found += 3 * len(known - accuracy.values.keys())
    return found
