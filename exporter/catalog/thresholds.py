"""Every default with its reason. Configuration overrides them; the effective value is exported as a series."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Default:
    """A default value, its unit ("" for a plain number) and why it is what it is."""

    name: str
    value: float
    unit: str
    reason: str

    @property
    def count(self) -> int:
        """The value of a default that counts something."""
        return int(self.value)


PSI_THRESHOLD = Default(
    "psi",
    0.1,
    "",
    "Effect size that is worth a look, the customary lower band. It never alerts alone: the critical value counts too.",
)
MULTIVARIATE_THRESHOLD = Default(
    "multivariate",
    0.1,
    "",
    "Squared Mahalanobis distance that is worth a look: between normal populations it is what PSI is of bins, so it "
    "has the threshold of PSI.",
)
ALPHA = Default(
    "alpha",
    0.001,
    "",
    "Level of `replay`, which looks once at a window that is over and pages nobody; a running exporter derives its own "
    "from the budget.",
)
BUDGET_PAGES = Default(
    "budget_pages", 1, "pages", "False pages a model may cause in the period: more, and people learn to ignore them."
)
BUDGET_PER_S = Default(
    "budget_per", 90 * 86400, "s", "A quarter: about as long as a model lives between two trainings."
)
FAULT_BUDGET_RATIO = Default(
    "fault_budget_ratio",
    0.1,
    "ratio",
    "Share of the budget that is for data faults, the rest is for drift: with all of it they would be found a tenth "
    "sooner, because their evidence grows with every row.",
)
LOOSEST_ALPHA = Default(
    "loosest_alpha", 0.05, "", "However generous the budget: above this a critical value is no evidence."
)
FALSE_DISCOVERY_RATIO = Default(
    "false_discovery_ratio",
    0.05,
    "ratio",
    "Share of unchanged features to expect in the list of those to look at first, of which one in twenty harms nobody.",
)
CALIBRATION_BLOCKS = Default(
    "calibration_blocks",
    20,
    "blocks",
    "Blocks of the reference whose PSI tell how much dependent rows vary; from fewer the variance is known to a half.",
)
CALIBRATION_ROWS = Default(
    "calibration_rows",
    100,
    "rows",
    "The smallest block: ten values a decile, so that the chi-square law holds for rows without dependence.",
)
CALIBRATION_ALPHA = Default(
    "calibration_alpha",
    0.05,
    "",
    "Level at which blocks must vary more than those of independent rows to count as dependent; if in doubt they do.",
)
CALIBRATION_STEP_ROWS = Default(
    "calibration_step",
    250,
    "rows",
    "Blocks are this long, twice, four times, ...: dependence that a factor of two in length changes much is rare.",
)
MIN_SAMPLES = Default(
    "min_samples",
    500,
    "samples",
    "A PSI of 0.1 over 10 bins is found with 90 % power from 417 samples at alpha 1e-4, 263 at 1e-2.",
)
DRIFTED_FEATURES_RATIO = Default(
    "drifted_features_ratio",
    1 / 3,
    "ratio",
    "Fewer than a third of the features drifting at once is mostly one upstream cause; more is a change of population.",
)
WINDOW_S = Default(
    "window",
    3600,
    "s",
    "Long enough for 500 samples at one request in 7 seconds, short enough that a bad deploy shows within minutes.",
)
WINDOW_PANES = Default(
    "window_panes",
    60,
    "panes",
    "A window slides in steps of a sixtieth; 128 pane slots leave room for partitions that run ahead.",
)
ALLOWED_LATENESS_PANES = Default(
    "allowed_lateness",
    1,
    "panes",
    "Producers that share a partition interleave by seconds; one pane absorbs it at every pane border.",
)
IDLE_PARTITION_S = Default(
    "idle_partition",
    60,
    "s",
    "A partition without a message for this long no longer holds the window back.",
)
ARCHIVE_SPAN_S = Default(
    "archive_span", 60, "s", "Sealed panes are kept by the minute or longer: canaries are judged once a minute."
)
ARCHIVE_S = Default("archive", 86_400, "s", "Sealed panes are kept for a day: a rollout is over by then.")
BINS = Default(
    "bins",
    10,
    "bins",
    "Deciles: the resolution that PSI thresholds are customarily read at; 20 needs twice the samples.",
)
KNOTS = Default(
    "knots",
    259,
    "knots",
    "Reference quantiles k/260 bracket the exact KS within 1/260; deciles and ventiles are among them.",
)
DISCRETE_VALUES = Default(
    "discrete_values", 20, "values", "A numeric feature with no more distinct reference values gets one bin a value."
)
NUMERIC_SHARE = Default(
    "numeric_share",
    0.95,
    "ratio",
    "A column is numeric when this share of its values are numbers: a stray text must not turn it categorical.",
)
TOP_CATEGORIES = Default(
    "top_categories", 30, "categories", "Categories with a bin of their own; the rest of the reference is `other`."
)
KNOWN_CATEGORIES = Default(
    "known_categories",
    10_000,
    "categories",
    "Names a reference keeps to tell `other` from `unseen`; past it every unknown value is `other`.",
)
MULTIVARIATE_FEATURES = Default(
    "multivariate_features",
    30,
    "features",
    "Numeric inputs that are watched together, the first of the reference: 465 covariances, half a megabyte of it.",
)
ROWS_PER_MOMENT = Default(
    "rows_per_moment",
    50,
    "rows",
    "Reference rows for each covariance that is watched: with a fifth of it, rare or heavy-tailed values give several "
    "times the false alarms.",
)
EXPECTED_PER_BIN = Default(
    "expected_per_bin",
    5,
    "samples",
    "Bins expected to hold fewer of min_samples are merged: the chi-square law needs 5.",
)
FAULT_TOLERANCE = Default(
    "fault_tolerance",
    0.01,
    "ratio",
    "A rate of bad values may be this far above the reference's, or as far as 99.9 % of such references leave open.",
)
CLASSES = Default(
    "classes",
    20,
    "classes",
    "Classes with counters of their own, predicted by actual; the rest is `other`: 441 series are enough for a model.",
)
SCORE_BINS = Default(
    "score_bins",
    20,
    "bins",
    "Twenty bins leave ROC AUC uncertain by 0.01; the bound is exported, and a bin a value makes it exact.",
)
MIN_LABELS = Default(
    "min_labels",
    200,
    "labels",
    "An accuracy of 0.9 is then known to 0.04; fewer say too little to be a number.",
)
MAX_PENDING = Default(
    "max_pending",
    10_000_000,
    "predictions",
    "About 350 MB on disk: a day of 115 predictions a second, each of which waits for its label.",
)
QUALITY_Z = Default(
    "quality_z", 1.96, "standard deviations", "Bounds of qualities are those of a two-sided 95 % interval."
)
QUALITY_TOLERANCE = Default(
    "quality_tolerance",
    0.02,
    "",
    "A quality between 0 and 1, or a calibration error, may be this much worse than the baseline: two in a hundred.",
)
LOSS_TOLERANCE = Default(
    "loss_tolerance",
    0.1,
    "ratio",
    "A loss or an error, which has the scale of its model, may be worse by this share of the baseline.",
)
ERROR_BUDGET = Default(
    "error_budget",
    0.001,
    "ratio",
    "Share of predictions that may fail: three nines are customary.",
)
BURN_ERRORS = Default(
    "burn_errors",
    10,
    "failures",
    "Fewer in the long window are no rate: with 5 a model that just keeps its budget would page by chance several "
    "times a year, with 10 once in decades.",
)
FAULTY_RATIO = Default(
    "faulty_ratio", 0.2, "ratio", "Share of values that are missing, invalid or unseen in a feature that has failed."
)
FAULTY_FEATURES = Default(
    "faulty_features",
    3,
    "features",
    "Features that fail together when their pipeline does; one alone is its own producer's fault. A model with fewer "
    "inputs needs less.",
)
CANARY_PREDICTIONS = Default(
    "canary_predictions", 100, "predictions", "From fewer the normal law of a share of failures does not hold."
)
CANARY_Z = Default(
    "canary_z",
    3,
    "standard deviations",
    "A look every 5 minutes at an hour's failures: at 3 a healthy canary is accused once in hundreds of rollouts.",
)
CANARY_MARGIN = Default("canary_margin", 0.01, "ratio", "Failures a canary may have more: one in a hundred.")
STOPPED_LABELS = Default(
    "stopped_labels", 20, "labels", "In two hours of the day before; where there were fewer, chance may leave none."
)
TRAFFIC_RATIO = Default(
    "traffic_ratio", 0.1, "ratio", "Traffic below a tenth of that of the day before at this time is a stop, not a lull."
)
TRAFFIC_PREDICTIONS = Default(
    "traffic_predictions",
    100,
    "predictions",
    "In a quarter of an hour of the day before; where there were fewer, chance may leave none.",
)
ALERT_THRESHOLDS = (
    FAULTY_RATIO,
    FAULTY_FEATURES,
    CANARY_PREDICTIONS,
    CANARY_Z,
    CANARY_MARGIN,
    TRAFFIC_RATIO,
    TRAFFIC_PREDICTIONS,
)
"""What only alerts read and models may differ in: exported so that another value needs no other rule."""
DROPPED_RATIO = Default(
    "dropped_ratio", 0.01, "ratio", "Events dropped that bias no score noticeably: one in a hundred."
)
DROPPED_EVENTS = Default("dropped_events", 100, "events", "Fewer dropped in a quarter of an hour are no trend.")
STALLED_S = Default("stalled", 60, "s", "Twelve ticks of the customary length: scores this old are not those of now.")
STATE_AGE_S = Default("state_age", 300, "s", "What a crash may lose: five minutes; shorter troubles mend themselves.")
SEGMENT_TOP = Default(
    "segments_top",
    10,
    "values",
    "Values of a tag with counters of their own: a slice of less than a tenth seldom has min_samples in a window, and "
    "each takes its share of the false-page budget.",
)
SEGMENT_NAMES = Default(
    "segment_names",
    1000,
    "values",
    "Values of a tag that are told apart, to find the largest; a tag with more is an id, and names no segments.",
)
SEGMENT_OUTGROWN = Default(
    "segment_outgrown",
    2,
    "ratio",
    "A value takes the place of one with less than half of its predictions in a window: closer ones would take turns.",
)
SERIES_LIMIT = Default(
    "series_limit", 20_000, "series", "What one exporter may cost a Prometheus; about 2 MB a scrape before compression."
)
MODEL_LIMIT = Default(
    "model_limit", 50, "models", "Models that are not configured are watched for traffic up to this many names."
)
VERSION_LIMIT = Default("version_limit", 8, "versions", "Versions watched at once for a model; idle ones make room.")
LEARN_FEATURES_LIMIT = Default(
    "learn_features_limit", 500, "features", "Features a learned reference takes; names beyond it are not kept."
)
TICK_S = Default(
    "tick", 5, "s", "A third of the customary 15 s scrape interval, so that a scrape is never two ticks old."
)
BODY_LIMIT_BYTES = Default(
    "body_limit", 8 * 2**20, "bytes", "About 10,000 events a request; larger batches cost latency without saving work."
)
EVENTS_LIMIT = Default(
    "events_limit",
    50_000,
    "events",
    "Events a request; more are many tiny ones, which cost far more memory than bytes.",
)
INFLIGHT_LIMIT_BYTES = Default(
    "inflight_limit", 64 * 2**20, "bytes", "Request bodies held at once; past it POST answers 429 and accepts nothing."
)

DEFAULTS: tuple[Default, ...] = tuple(value for value in globals().values() if isinstance(value, Default))
