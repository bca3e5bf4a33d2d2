"""Every exported metric: each is emitted by a running exporter, and nothing else is. Segments: segment_metrics."""

from exporter.catalog import segment_metrics
from exporter.catalog.labels import (
    ACTUAL,
    BIN,
    DROP_REASON,
    ERROR_REASON,
    EXPORTER_VERSION,
    FEATURE,
    GAP_METRIC,
    GUARANTEE,
    INFO_LABELS,
    INVALID_REASON,
    KIND,
    LATE_REASON,
    MODEL,
    MOMENT,
    PREDICTED,
    QUALITY_METRIC,
    QUANTILE,
    REFERENCE,
    REJECT_REASON,
    SCORE_BIN,
    SET_ASIDE_REASON,
    SOURCE,
    STATE,
    THRESHOLD,
    TROUBLE_REASON,
    UNJOINED_REASON,
    VERSION,
    WINDOW,
)
from exporter.catalog.metric import Metric

_BASE = (MODEL, VERSION)
_FEATURE = (*_BASE, KIND, FEATURE)
_WINDOWED = (*_FEATURE, WINDOW)
_BINNED = (*_BASE, REFERENCE, KIND, FEATURE, BIN)
_REFERENCED = (*_BASE, REFERENCE, KIND, FEATURE)

PREDICTIONS = Metric("ml_predictions_total", "counter", "Predictions seen, failed ones included.", _BASE)
PREDICTION_ERRORS = Metric(
    "ml_prediction_errors_total", "counter", "Predictions that failed, by reason.", (*_BASE, ERROR_REASON)
)
PREDICTION_DURATION = Metric(
    "ml_prediction_duration_seconds", "histogram", "Latency of predictions as reported in the events.", _BASE
)
PREDICTION_LAST_TIMESTAMP = Metric(
    "ml_prediction_last_timestamp_seconds", "gauge", "Event time of the newest prediction.", _BASE
)

BIN_OBSERVATIONS = Metric(
    "ml_feature_bin_observations_total", "counter", "Values that fell into each bin of the reference.", _BINNED
)
REFERENCE_RATIO = Metric(
    "ml_feature_reference_ratio",
    "gauge",
    "Share of the reference in each live bin, smoothed as (count + 1/2) / (N + B/2).",
    _BINNED,
)
BIN_UPPER_BOUND = Metric(
    "ml_feature_bin_upper_bound", "gauge", "Upper bound of each numeric bin, in units of the feature.", _BINNED
)
REFERENCE_SAMPLES = Metric("ml_feature_reference_samples", "gauge", "Reference values in live bins.", _REFERENCED)
REFERENCE_CHI2_CRITICAL = Metric(
    "ml_feature_reference_chi2_critical",
    "gauge",
    "Chi-square quantile at ml_drift_alpha, stretched by the calibration, that PSI / (1/n + 1/m) must pass.",
    _REFERENCED,
)

PSI = Metric("ml_feature_psi", "gauge", "Population stability index of the window against the reference.", _WINDOWED)
PSI_NULL_MEAN = Metric(
    "ml_feature_psi_null_mean", "gauge", "PSI expected by chance alone at this sample size.", _WINDOWED
)
PSI_CRITICAL = Metric(
    "ml_feature_psi_critical", "gauge", "PSI that chance alone passes only at the level ml_drift_alpha.", _WINDOWED
)
KS = Metric(
    "ml_feature_ks", "gauge", "Kolmogorov-Smirnov distance at the knots: a lower bound of the exact one.", _WINDOWED
)
KS_UPPER = Metric("ml_feature_ks_upper", "gauge", "Upper bound of the exact Kolmogorov-Smirnov distance.", _WINDOWED)
KS_CRITICAL = Metric(
    "ml_feature_ks_critical",
    "gauge",
    "Kolmogorov-Smirnov distance that chance alone passes only at the level ml_drift_alpha, if rows are independent.",
    _WINDOWED,
)
JS_DIVERGENCE = Metric(
    "ml_feature_js_divergence",
    "gauge",
    "Jensen-Shannon divergence of the window from the reference, in nats.",
    _WINDOWED,
)
DRIFT_PVALUE = Metric(
    "ml_feature_drift_pvalue",
    "gauge",
    "P-value of no change at all: calibrated Pearson chi-square on the live bins.",
    _WINDOWED,
)
DRIFTED = Metric(
    "ml_feature_drifted",
    "gauge",
    "1 if samples >= min_samples and PSI > threshold and PSI > critical value and the likelihood ratio agrees, else 0; "
    "absent without a verdict.",
    _WINDOWED,
)
DRIFT_PAGING = Metric(
    "ml_feature_drift_paging",
    "gauge",
    "1 if the feature may page alone, 0 if its calibration is extrapolated: from none, or blocks below the window.",
    _WINDOWED,
)
FAULTY = Metric(
    "ml_feature_faulty",
    "gauge",
    "1 if a rate of missing, invalid, out-of-range or unseen values rose above what is in order (level: "
    "ml_fault_alpha) within the window, else 0; absent without a verdict.",
    _FEATURE,
)
FAULT_ALPHA = Metric(
    "ml_fault_alpha",
    "gauge",
    "False alarms of one rate of data faults a pane, on average at most: as configured, or what the budget leaves.",
    _BASE,
)
WINDOW_SAMPLES = Metric("ml_feature_window_samples", "gauge", "Values in live bins in the window.", _WINDOWED)
FEATURE_STATE = Metric("ml_feature_state", "gauge", "1 for the state the feature is in.", (*_FEATURE, STATE))
FEATURES_DRIFTED = Metric("ml_features_drifted", "gauge", "Features that are drifted.", (*_BASE, WINDOW))
FEATURES_EVALUATED = Metric("ml_features_evaluated", "gauge", "Features that have a verdict.", (*_BASE, WINDOW))
DRIFT_THRESHOLD = Metric("ml_feature_drift_threshold", "gauge", "PSI that counts as an effect.", _FEATURE)
DRIFT_ALPHA = Metric(
    "ml_drift_alpha",
    "gauge",
    "Level of each test, of a feature or of several together: as configured, or what the budget leaves to it.",
    _BASE,
)
DRIFT_MIN_SAMPLES = Metric("ml_drift_min_samples", "gauge", "Samples needed for a verdict.", _BASE)
DRIFTED_FEATURES_THRESHOLD = Metric(
    "ml_drifted_features_threshold_ratio",
    "gauge",
    "Share of drifted features that counts as drift of the model.",
    _BASE,
)
INVALID_VALUES = Metric(
    "ml_feature_invalid_values_total",
    "counter",
    "Values that are missing, of the wrong type, not finite, outside the reference range, or of an unseen category.",
    (*_FEATURE, INVALID_REASON),
)

_MOMENT = (*_BASE, MOMENT, WINDOW)
MULTIVARIATE_DISTANCE = Metric(
    "ml_multivariate_distance",
    "gauge",
    "Squared Mahalanobis distance of the window's means, or covariances, of numeric inputs from the reference's, less "
    "what chance is expected to add; on the scale of PSI.",
    _MOMENT,
)
MULTIVARIATE_CRITICAL = Metric(
    "ml_multivariate_distance_critical",
    "gauge",
    "Distance that chance alone passes only at the level ml_drift_alpha.",
    _MOMENT,
)
MULTIVARIATE_PVALUE = Metric(
    "ml_multivariate_drift_pvalue", "gauge", "P-value of no change at all: calibrated Hotelling test.", _MOMENT
)
MULTIVARIATE_DRIFTED = Metric(
    "ml_multivariate_drifted",
    "gauge",
    "1 if samples >= min_samples and distance > threshold and distance > critical value, else 0; absent without a "
    "verdict.",
    _MOMENT,
)
MULTIVARIATE_PAGING = Metric(
    "ml_multivariate_drift_paging",
    "gauge",
    "1 if the test may page alone, 0 if its calibration is extrapolated: from none, or blocks below the window.",
    _MOMENT,
)
MULTIVARIATE_STATE = Metric(
    "ml_multivariate_state", "gauge", "1 for the state the test is in.", (*_BASE, MOMENT, STATE)
)
MULTIVARIATE_SAMPLES = Metric("ml_multivariate_window_samples", "gauge", "Predictions in the window.", (*_BASE, WINDOW))
MULTIVARIATE_THRESHOLD = Metric("ml_multivariate_drift_threshold", "gauge", "Distance that counts as an effect.", _BASE)
MULTIVARIATE_CLIPPED = Metric(
    "ml_multivariate_clipped_values_total",
    "counter",
    "Values that counted as 4 standard deviations from the mean because they lay beyond.",
    _BASE,
)

LABELS_RECEIVED = Metric("ml_labels_received_total", "counter", "Labels that came without their predictions.", (MODEL,))
LABELS_UNMATCHED = Metric(
    "ml_labels_unmatched_total",
    "counter",
    "Those of them whose prediction was not found in time. Where each of several members reads all labels, those of "
    "the others' predictions too.",
    (MODEL,),
)
LABELS_DUPLICATE = Metric(
    "ml_labels_duplicate_total", "counter", "Labels that said once more what their prediction's label was.", (MODEL,)
)
LABELS_CORRECTED = Metric(
    "ml_labels_corrected_total", "counter", "Labels that replaced another one of their prediction.", (MODEL,)
)
LABELS_LATE = Metric(
    "ml_labels_late_total", "counter", "Labels that came when their prediction was already settled.", (MODEL,)
)
LABELS_PENDING = Metric("ml_labels_pending", "gauge", "Predictions that wait to be settled.", (MODEL,))
LABELS_PENDING_LIMIT = Metric("ml_labels_pending_limit", "gauge", "How many may wait: `labels.max_pending`.", (MODEL,))
LABELS_MATURITY = Metric(
    "ml_labels_maturity_seconds", "gauge", "Age at which predictions are settled: `labels.maturity`.", (MODEL,)
)
PREDICTIONS_UNJOINED = Metric(
    "ml_predictions_unjoined_total", "counter", "Predictions that no label can be joined to.", (MODEL, UNJOINED_REASON)
)
LABEL_DELAY = Metric(
    "ml_label_delay_seconds", "histogram", "How much later than their predictions labels were, late ones too.", (MODEL,)
)
LABEL_LAST_TIMESTAMP = Metric("ml_label_last_timestamp_seconds", "gauge", "Event time of the newest label.", (MODEL,))
LABELS_MATURED = Metric("ml_labels_matured_total", "counter", "Predictions that could have a label by now.", _BASE)
LABELS_JOINED = Metric(
    "ml_labels_joined_total",
    "counter",
    "Predictions whose label is known, by what was predicted and what was true.",
    (*_BASE, PREDICTED, ACTUAL),
)
LABEL_ABSOLUTE_ERROR = Metric(
    "ml_label_absolute_error_total", "counter", "Sum of the absolute errors of a regression.", _BASE
)
LABEL_SQUARED_ERROR = Metric(
    "ml_label_squared_error_total",
    "counter",
    "Sum of squared errors of a regression, or of the score of a binary model (whose mean is the Brier score).",
    _BASE,
)
LABEL_LOG_LOSS = Metric(
    "ml_label_log_loss_total", "counter", "Sum of log losses, of probabilities clipped at 1e-7.", _BASE
)
SCORE_BIN_LABELS = Metric(
    "ml_score_bin_labels_total", "counter", "Labelled predictions by bin of their score.", (*_BASE, SCORE_BIN)
)
SCORE_BIN_POSITIVES = Metric(
    "ml_score_bin_positives_total", "counter", "Those of them that were of the positive class.", (*_BASE, SCORE_BIN)
)
SCORE_BIN_SCORE = Metric("ml_score_bin_score_total", "counter", "Sum of their scores.", (*_BASE, SCORE_BIN))
LABEL_COVERAGE = Metric(
    "ml_label_coverage_ratio", "gauge", "Share of the window's predictions whose label is known.", (*_BASE, WINDOW)
)
LABELS_MIN_SAMPLES = Metric("ml_labels_min_samples", "gauge", "Labels needed for a quality.", _BASE)
LABELS_WINDOW_SAMPLES = Metric("ml_labels_window_samples", "gauge", "Labels in the window.", (*_BASE, WINDOW))
_QUALITY = (*_BASE, QUALITY_METRIC, WINDOW)
QUALITY = Metric(
    "ml_model_quality", "gauge", "Quality of the window's predictions; absent with too few labels.", _QUALITY
)
QUALITY_LOWER = Metric("ml_model_quality_lower", "gauge", "Lower bound of its 95 % interval.", _QUALITY)
QUALITY_UPPER = Metric("ml_model_quality_upper", "gauge", "Upper bound of its 95 % interval.", _QUALITY)
QUALITY_ESTIMATED = Metric(
    "ml_model_estimated_quality",
    "gauge",
    "Quality to be expected of the window's predictions, labelled or not, if scores mean what they did in the "
    "reference: accuracy, precision, recall, f1 and roc_auc of a binary model; absent with too few predictions.",
    _QUALITY,
)
_GAP = (*_BASE, GAP_METRIC, WINDOW)
QUALITY_GAP = Metric(
    "ml_model_quality_gap",
    "gauge",
    "Realised less expected share among the window's labelled predictions; absent with too few labels.",
    _GAP,
)
QUALITY_GAP_SIGMA = Metric(
    "ml_model_quality_gap_sigma",
    "gauge",
    "Its standard error by chance alone: a gap of many of them says that scores mean something else (concept drift).",
    _GAP,
)
QUALITY_BASELINE = Metric(
    "ml_model_quality_baseline", "gauge", "Quality of the predictions in the reference.", _QUALITY
)
QUALITY_TOLERANCE = Metric(
    "ml_model_quality_tolerance", "gauge", "How much worse than its baseline the quality may be.", _QUALITY
)

TRAINED_TIMESTAMP = Metric("ml_model_trained_timestamp_seconds", "gauge", "When the model was trained.", _BASE)
MAX_AGE = Metric("ml_model_max_age_seconds", "gauge", "Age at which the model counts as stale.", _BASE)
REFERENCE_CREATED_TIMESTAMP = Metric(
    "ml_reference_created_timestamp_seconds", "gauge", "When the reference was built.", _BASE
)
REFERENCE_BORROWED = Metric(
    "ml_reference_borrowed",
    "gauge",
    "1 if the reference is another version's: what differs from it need not be a change since this one was trained.",
    _BASE,
)
LATENCY_OBJECTIVE = Metric(
    "ml_latency_objective_seconds", "gauge", "Latency the model is meant to keep.", (*_BASE, QUANTILE)
)
ERROR_BUDGET = Metric("ml_error_budget_ratio", "gauge", "Share of predictions that may fail: `error_budget`.", _BASE)
ALERT_THRESHOLD = Metric(
    "ml_alert_threshold",
    "gauge",
    "What alerts compare the model with: faulty_ratio, canary_margin and traffic_ratio are shares, canary_z is in "
    "standard errors; the others are numbers of features or predictions.",
    (MODEL, THRESHOLD),
)

MODEL_INFO = Metric(
    "ml_model_info", "gauge", "1; joins what is known of the model to its series.", (*_BASE, *INFO_LABELS)
)
REPLICA_INFO = Metric(
    "ml_replica_info", "gauge", "1; joins the scraped pod to the models and versions it has seen.", _BASE
)

INGEST_EVENTS = Metric("ml_ingest_events_total", "counter", "Events received, readable or not.", (SOURCE,))
INGEST_REJECTED = Metric(
    "ml_ingest_rejected_total", "counter", "Events that could not be read.", (SOURCE, REJECT_REASON)
)
INGEST_LATE = Metric(
    "ml_ingest_late_total",
    "counter",
    "Events counted in the lifetime counters but in no window.",
    (SOURCE, LATE_REASON),
)
INGEST_DROPPED = Metric(
    "ml_ingest_dropped_total", "counter", "Readable events that were not counted.", (SOURCE, DROP_REASON)
)
INGEST_SOURCE_ERRORS = Metric(
    "ml_ingest_source_errors_total",
    "counter",
    "Failed attempts to reach, read or acknowledge to a source.",
    (SOURCE, TROUBLE_REASON),
)
INGEST_REDELIVERED = Metric(
    "ml_ingest_redelivered_total",
    "counter",
    "Events counted again because their acknowledgement was lost: the surplus of at_least_once, where it is known.",
    (SOURCE,),
)
INGEST_GUARANTEE = Metric(
    "ml_ingest_guarantee",
    "gauge",
    "1 for what the source guarantees over a crash: exactly_once, at_least_once (surplus: one tick), at_most_once.",
    (SOURCE, GUARANTEE),
)
INGEST_READY = Metric("ml_ingest_ready", "gauge", "1 while the source can deliver, else 0.", (SOURCE,))
INGEST_PARTITIONS = Metric("ml_ingest_partitions", "gauge", "Kafka partitions that this process reads.", (SOURCE,))
INGEST_LAG = Metric(
    "ml_ingest_lag_records", "gauge", "Records in this process's partitions that are not counted yet.", (SOURCE,)
)
INGEST_WATERMARK = Metric(
    "ml_ingest_watermark_timestamp_seconds", "gauge", "Newest event time of the source.", (SOURCE,)
)

BUILD_INFO = Metric(
    "ml_exporter_build_info",
    "gauge",
    "1; what is running.",
    (EXPORTER_VERSION,),
)
SERIES = Metric("ml_exporter_series", "gauge", "Series of models and sources exposed.")
SERIES_LIMIT = Metric("ml_exporter_series_limit", "gauge", "Series that may be exposed.")
SERIES_DROPPED = Metric(
    "ml_exporter_series_dropped_total", "counter", "Series withheld to stay within the limit, counted once a tick."
)
TICK_DURATION = Metric("ml_exporter_tick_duration_seconds", "gauge", "Time the last tick took to evaluate and render.")
LAST_TICK_TIMESTAMP = Metric("ml_exporter_last_tick_timestamp_seconds", "gauge", "When the last tick ended.")
STATE_WRITE_FAILURES = Metric(
    "ml_exporter_state_write_failures_total", "counter", "Ticks whose state could not be made durable in time."
)
STATE_LAST_WRITE = Metric(
    "ml_exporter_state_last_write_timestamp_seconds", "gauge", "When the state was last made durable."
)
STATE_WRITE_DURATION = Metric("ml_exporter_state_write_duration_seconds", "gauge", "Time the last write of state took.")
STATE_SIZE = Metric("ml_exporter_state_size_bytes", "gauge", "Size of the state database, its log included.")
STATE_SET_ASIDE = Metric(
    "ml_exporter_state_set_aside",
    "gauge",
    "1 if a database was not used but renamed since the start: damaged, newer, or foreign (another program's).",
    (SET_ASIDE_REASON,),
)

METRICS: tuple[Metric, ...] = (
    *(value for value in globals().values() if isinstance(value, Metric)),
    *segment_metrics.METRICS,
)
