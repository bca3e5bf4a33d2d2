"""Every label of a metric: what its values mean, and what bounds their number."""

from exporter.catalog.metric import Label

_CONFIG = "the configuration"
MODEL = Label("model", "Name of the served model.", "configured models and a limited number of others")
VERSION = Label("version", "Version of the served model.", "a limited number of versions a model")
REFERENCE = Label("reference", "Id of the reference: 12 hex digits of the hash of its content.", "one a model version")
KIND = Label("kind", "What the feature is to the model: input, output (its prediction) or score.", "three values")
FEATURE = Label("feature", "Feature name as in the reference.", "the reference")
BIN = Label(
    "bin",
    "Ordinal `00`, `01`, ... for numbers; `=value` for categories; `missing`, `invalid`, `unseen`, `other`.",
    "the reference",
)
WINDOW = Label("window", "Length of the sliding window, as configured.", _CONFIG)
STATE = Label(
    "state",
    "ok, drifting, learning, insufficient_data, borrowed_reference, no_reference or catching_up.",
    "seven values",
)
SOURCE = Label("source", "Source of events: its type, with a number when there are several of a type.", _CONFIG)
ERROR_REASON = Label("reason", "Why the prediction failed; reasons that are not configured are `other`.", _CONFIG)
INVALID_REASON = Label("reason", "missing, wrong_type, non_finite, out_of_range or unseen.", "five values")
REJECT_REASON = Label("reason", "Why the event could not be read.", "a fixed list")
LATE_REASON = Label(
    "reason",
    "`late`: older than its partition's sealed panes; `behind`: of a partition that the window could not wait for; "
    "`future`: ahead of the clock.",
    "three values",
)
DROP_REASON = Label("reason", "Why a readable event was not counted.", "a fixed list")
TROUBLE_REASON = Label("reason", "What went wrong between the source and where it reads.", "a fixed list")
UNJOINED_REASON = Label(
    "reason",
    "`no_id`; `max_pending`: too many wait already; `future`: ahead of the clock; `lost`: what waited cannot be read.",
    "four values",
)
GUARANTEE = Label("guarantee", "exactly_once, at_least_once or at_most_once.", "three values")
SET_ASIDE_REASON = Label("reason", "damaged, newer or foreign.", "three values")
QUALITY_METRIC = Label(
    "metric",
    "accuracy, precision, recall, f1, roc_auc, log_loss, brier, ece; of a regression mae, rmse, bias.",
    "eleven values",
)
GAP_METRIC = Label("metric", "accuracy (predictions that were right) or positives.", "two values")
PREDICTED = Label("predicted", "Class that was predicted, or `other`; empty for a regression.", "20 classes and other")
ACTUAL = Label("actual", "Class that was true, or `other`; empty for a regression.", "20 classes and other")
SCORE_BIN = Label("bin", "Ordinal `00`, `01`, ... of the score's bins.", "the reference")
MOMENT = Label("moment", "mean or covariance.", "two values")
SEGMENT_NAME = Label("segment_name", "Tag by whose values predictions are told apart.", _CONFIG)
SEGMENT = Label("segment", "Value of the tag, or `other`.", "the most frequent values of a tag, and `other`")
THRESHOLD = Label("threshold", "Its name in `thresholds` of the configuration.", "seven values")
QUANTILE = Label("objective_quantile", "Quantile of the objective, e.g. 0.99.", _CONFIG)
EXPORTER_VERSION = Label("exporter_version", "Version of model-health-exporter.", "one value")

INFO_LABELS: tuple[Label, ...] = tuple(
    Label(name, f"`info.{name}` of the configuration.", _CONFIG)
    for name in ("role", "team", "project", "environment", "owner", "framework", "task", "tier")
)
