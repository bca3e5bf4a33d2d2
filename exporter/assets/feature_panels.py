"""One feature against its reference: by bin over the time that is shown, and by score over a window.

Bins over the time shown are sums of recorded steps, so that whatever is dragged is compared, replicas summed.
"""

from exporter.assets.panels import RANGE, RATE, Panel, Query, View, bars, stat, table, timeseries
from exporter.catalog import drift_rules, metrics, thresholds
from exporter.catalog.labels import BIN, FEATURE, KIND, MODEL, REFERENCE, VERSION


def feature_panels(view: View) -> tuple[Panel, ...]:
    """Panels of the dashboard."""
    chosen = view.where(MODEL, VERSION, KIND, FEATURE)
    expected = f"max by ({REFERENCE.name}, {BIN.name}) ({metrics.REFERENCE_RATIO.name}{chosen})"
    seen = f"sum by ({REFERENCE.name}, {BIN.name}) (sum_over_time({drift_rules.OBSERVATIONS}{chosen}[{RANGE}]))"
    live = f"(({seen} or 0 * {expected}) and {expected})"
    n = f"sum by ({REFERENCE.name}) ({live})"
    enough = f"({n} >= scalar(max({metrics.DRIFT_MIN_SAMPLES.name}{view.where(MODEL, VERSION)})))"
    share = f"({live} + 0.5)\n/ on (reference) group_left ()\n({n} + 0.5 * count by (reference) ({expected}))"
    gap = f"({share} - {expected})\n* ln(({share}) / {expected})"
    chi2 = f"max by (reference) ({metrics.REFERENCE_CHI2_CRITICAL.name}{chosen})"
    m = f"max by (reference) ({metrics.REFERENCE_SAMPLES.name}{chosen})"
    threshold = f"max({metrics.DRIFT_THRESHOLD.name}{chosen})"
    return (
        bars(
            "Bins over the time shown",
            "Which values are more, or less, frequent than in the reference? Both shares are smoothed alike; bins of "
            "numbers are ordinals from low to high, their bounds are in the table below. Drag a time on any graph.",
            "percentunit",
            BIN,
            Query(f"sum by (bin) ({share})", "live"),
            Query(f"sum by (bin) ({expected})", "reference"),
            width=16,
        ),
        stat(
            "PSI over the time shown",
            "Has the feature drifted over what is shown? It has if PSI is above the threshold and above the critical "
            "value, which chance passes at this number of samples only at the level of the test. Absent with too few.",
            "short",
            Query(f"sum by (reference) ({gap}) and {enough}", "PSI"),
            Query(threshold, "threshold"),
            Query(f"{chi2} * (1 / ({n} > 0) + 1 / {m})", "critical"),
            Query(n, "samples"),
            height=9,
        ),
        *_scores(view),
        table(
            "What each bin adds to PSI over the time shown",
            "Where does the drift come from? Bounds are upper ones, in units of the feature; categories have none.",
            Query(f"sum by (bin) ({gap})", "PSI"),
            Query(f"max by (bin) ({metrics.BIN_UPPER_BOUND.name}{chosen})", "upper bound"),
            Query(f"sum by (bin) ({live})", "samples"),
            width=12,
            sort="PSI",
        ),
        *_history(view),
    )


def _scores(view: View) -> tuple[Panel, ...]:
    """Scores over the window, beside what they must not pass."""
    chosen, window = view.where(MODEL, VERSION, KIND, FEATURE), view.settings.windows[0]

    def score(name: str) -> str:
        return view.shown(drift_rules.scores(name, window)) + chosen

    return (
        timeseries(
            "Population stability index",
            "Since when has the feature drifted? It has where PSI is above both dashed lines.",
            "short",
            Query(score("psi"), "PSI {{version}}"),
            Query(score("psi_critical"), "critical {{version}}", limit=True),
            Query(
                f"max by ({view.settings.by(MODEL, VERSION, KIND, FEATURE)}) ({metrics.DRIFT_THRESHOLD.name}{chosen})",
                "threshold {{version}}",
                limit=True,
            ),
            alerts=("MLFeatureDrift",),
        ),
        timeseries(
            "Kolmogorov-Smirnov distance",
            "How far apart are the two distributions of a number at most? A lower bound, from the bins; below the "
            "dashed line it may be chance. Categories have none.",
            "short",
            Query(score("ks"), "KS {{version}}"),
            Query(score("ks_critical"), "critical {{version}}", limit=True),
        ),
        timeseries(
            "Jensen-Shannon divergence",
            "How different are the distributions on a scale with an end? ln 2 is the most, of distributions that share "
            "nothing.",
            "short",
            Query(score("js_divergence"), "JS {{version}}"),
        ),
    )


def _history(view: View) -> tuple[Panel, ...]:
    """Bins, faults and samples over time."""
    chosen = view.where(MODEL, VERSION, KIND, FEATURE)
    binned = f"rate({metrics.BIN_OBSERVATIONS.name}{chosen}[{RATE}])"
    invalid = f"rate({metrics.INVALID_VALUES.name}{chosen}[{RATE}])"
    samples = view.shown(drift_rules.scores("live_observations", view.settings.windows[0]))
    return (
        timeseries(
            "Share of each bin",
            "Did it change at once, slowly, or with the hour? Sudden is a deployment or a fault, slow is the world.",
            "percentunit",
            Query(f"sum by (bin) ({binned})\n/ on () group_left ()\nsum({binned})", "{{bin}}"),
            width=12,
            height=9,
            stacked=True,
        ),
        timeseries(
            "Share of faulty values",
            "Is it the data's fault? Values that are missing, of the wrong type, not finite, out of range or unseen; "
            "`faulty` is 1 while a rate is above what is in order, and a feature above `failed` has failed.",
            "percentunit",
            Query(f"sum by (reason) ({invalid})\n/ on () group_left ()\nsum({binned})", "{{reason}}"),
            Query(f"max by ({FEATURE.name}) ({metrics.FAULTY.name}{chosen})", "faulty", limit=True),
            Query(view.threshold(thresholds.FAULTY_RATIO), "failed", limit=True),
            width=12,
            alerts=("MLInputPipelineFailure",),
        ),
        timeseries(
            "Samples in the window",
            "Is there enough to judge by? Below the dashed line there is no score.",
            "short",
            Query(samples + chosen, "{{version}}"),
            Query(
                f"max by ({view.settings.by(MODEL, VERSION)})"
                f" ({metrics.DRIFT_MIN_SAMPLES.name}{view.where(MODEL, VERSION)})",
                "least {{version}}",
                limit=True,
            ),
            width=12,
            alerts=("MLDriftNotEvaluable",),
        ),
    )
