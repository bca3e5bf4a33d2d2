"""Metrics of segments: what one of a whole version says, said of its predictions with one value of a tag."""

from exporter.catalog.labels import (
    BIN,
    FEATURE,
    KIND,
    MODEL,
    QUALITY_METRIC,
    REFERENCE,
    SEGMENT,
    SEGMENT_NAME,
    VERSION,
    WINDOW,
)
from exporter.catalog.metric import Metric

_SEGMENT = (MODEL, VERSION, SEGMENT_NAME, SEGMENT)
_WINDOWED = (*_SEGMENT, KIND, FEATURE, WINDOW)
_OF_QUALITY = (*_SEGMENT, QUALITY_METRIC, WINDOW)
PREDICTIONS = Metric(
    "ml_segment_predictions_total", "counter", "Predictions of the segment seen, failed ones included.", _SEGMENT
)
PREDICTION_ERRORS = Metric(
    "ml_segment_prediction_errors_total", "counter", "Predictions of the segment that failed.", _SEGMENT
)
OBSERVATIONS = Metric(
    "ml_segment_observations_total",
    "counter",
    "Values of the segment that fell into each bin of ml_feature_bin_observations_total.",
    (*_SEGMENT, REFERENCE, KIND, FEATURE, BIN),
)
SAMPLES = Metric("ml_segment_samples", "gauge", "Values of the segment in live bins in the window.", _WINDOWED)
PSI = Metric(
    "ml_segment_psi",
    "gauge",
    "Population stability index of the segment against its own reference, or a borrowed one.",
    _WINDOWED,
)
PSI_CRITICAL = Metric(
    "ml_segment_psi_critical",
    "gauge",
    "PSI that chance alone passes only at the segment's share of the false-page budget.",
    _WINDOWED,
)
DRIFTED = Metric(
    "ml_segment_drifted", "gauge", "1 if drifted, as ml_feature_drifted; absent without a verdict.", _WINDOWED
)
BORROWED = Metric(
    "ml_segment_reference_borrowed",
    "gauge",
    "1 if the reference has too little of the segment, which is then compared with the whole: by nature it may differ.",
    _SEGMENT,
)
LABELS = Metric(
    "ml_segment_labels_window_samples", "gauge", "Labels of the segment in the window.", (*_SEGMENT, WINDOW)
)
QUALITY = Metric(
    "ml_segment_quality", "gauge", "Quality of the segment's predictions; absent with too few labels.", _OF_QUALITY
)
QUALITY_LOWER = Metric(
    "ml_segment_quality_lower", "gauge", "Lower bound of the 95 % interval of ml_segment_quality.", _OF_QUALITY
)
QUALITY_UPPER = Metric(
    "ml_segment_quality_upper", "gauge", "Upper bound of the 95 % interval of ml_segment_quality.", _OF_QUALITY
)
QUALITY_BASELINE = Metric(
    "ml_segment_quality_baseline",
    "gauge",
    "Quality of the segment in the reference, or a borrowed one.",
    _OF_QUALITY,
)

METRICS: tuple[Metric, ...] = tuple(value for value in globals().values() if isinstance(value, Metric))
