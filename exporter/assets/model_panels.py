"""One model: is it served, is it right, is it asked what it was trained for, and do its labels come?

Scores are those of the fleet, from recording rules. Where there is no such rule, series are those of each replica: its
largest is shown, which says that one of them sees something, and never an average.
"""

from exporter.assets.panels import RATE, Panel, Query, View, drill_row, table, timeseries
from exporter.catalog import drift_rules, metrics, quality_rules, segment_metrics, traffic_rules
from exporter.catalog.labels import (
    FEATURE,
    GAP_METRIC,
    KIND,
    MODEL,
    MOMENT,
    QUALITY_METRIC,
    QUANTILE,
    SEGMENT,
    SEGMENT_NAME,
    STATE,
    VERSION,
    WINDOW,
)
from exporter.catalog.metric import Label, Metric

MORE_IS_BETTER = "accuracy|precision|recall|f1|roc_auc"
LESS_IS_BETTER = "log_loss|brier|ece|mae|rmse"
"""Of bias neither is."""


def model_panels(view: View) -> tuple[Panel, ...]:
    """Panels of the dashboard."""
    return (*_serving(view), *_quality(view), *_drift(view), *_labels(view), _segments(view))


def _serving(view: View) -> tuple[Panel, ...]:
    chosen, by, window = view.where(MODEL, VERSION), view.settings.by(MODEL, VERSION), view.settings.windows[0]
    predictions = f"rate({metrics.PREDICTIONS.name}{chosen}[{RATE}])"
    errors = f"rate({metrics.PREDICTION_ERRORS.name}{chosen}[{RATE}])"
    objective = metrics.LATENCY_OBJECTIVE
    burn = traffic_rules.traffic("prediction_errors_burn", window.text)
    return (
        timeseries(
            "Predictions",
            "Is the model asked, and by which version is it answered? Failed ones are included.",
            "reqps",
            Query(f"sum by ({by}) ({predictions})", "{{version}}"),
            alerts=("MLPredictionTrafficAbsent",),
            width=6,
        ),
        timeseries(
            "Share that failed",
            "How many predictions fail, and why? The dashed line is the error budget: as much may fail on average.",
            "percentunit",
            Query(
                f"sum by ({by}, reason) ({errors})\n/ on ({by}) group_left ()\n(sum by ({by}) ({predictions}) > 0)",
                "{{version}} {{reason}}",
            ),
            Query(f"max by ({by}) ({metrics.ERROR_BUDGET.name}{chosen})", "budget {{version}}", limit=True),
            alerts=("MLErrorBudgetBurn",),
            width=6,
        ),
        timeseries(
            "Use of the error budget",
            "How fast is the budget used up? At 1 it lasts as long as it should. What pages burns fast over a long and "
            "a short window.",
            "short",
            Query(view.shown(burn) + chosen, "{{version}}"),
            alerts=("MLErrorBudgetBurn",),
            width=6,
        ),
        timeseries(
            "Latency",
            "How long do predictions take? Quantiles of all replicas over the window; dashed lines are objectives.",
            "s",
            Query(view.shown(traffic_rules.latency(window)) + chosen, "{{version}} {{objective_quantile}}"),
            Query(
                f"max by ({view.settings.by(MODEL, VERSION, QUANTILE)}) ({objective.name}{chosen})",
                "objective {{version}} {{objective_quantile}}",
                limit=True,
            ),
            width=6,
        ),
    )


def _quality(view: View) -> tuple[Panel, ...]:
    chosen, window = view.where(MODEL, VERSION, QUALITY_METRIC), view.settings.windows[0]
    by = view.settings.by(MODEL, VERSION, QUALITY_METRIC)

    def limit(sign: str, names: str) -> str:
        these = view.where(MODEL, VERSION, QUALITY_METRIC, more=f'{QUALITY_METRIC.name}=~"{names}"')
        return f"max by ({by}) ({metrics.QUALITY_BASELINE.name}{these} {sign} {metrics.QUALITY_TOLERANCE.name}{these})"

    def quality(name: str) -> str:
        return view.shown(quality_rules.qualities(name, window)) + chosen

    return (
        timeseries(
            "Quality with its bounds",
            "Is the model as right as it was? It has become worse if even the better bound is worse than the dashed "
            "line, which is the baseline of the reference and its tolerance. Pick one metric for its bounds.",
            "short",
            Query(quality("quality"), "{{version}} {{metric}}"),
            Query(quality("quality_lower"), "{{version}} {{metric}} lower"),
            Query(quality("quality_upper"), "{{version}} {{metric}} upper"),
            Query(
                f"{limit('-', MORE_IS_BETTER)}\nor {limit('+', LESS_IS_BETTER)}",
                "tolerated {{version}} {{metric}}",
                limit=True,
            ),
            width=12,
            alerts=("MLModelRollbackAdvised", "MLConceptDriftSuspected"),
        ),
        timeseries(
            "Quality to be expected, without labels",
            "What does the model make of its traffic before labels come? Estimated from the scores of binary models, "
            "if those mean what they did.",
            "short",
            Query(_worst(view, metrics.QUALITY_ESTIMATED, QUALITY_METRIC, least=True), "{{version}} {{metric}}"),
            width=6,
        ),
        timeseries(
            "Realised less expected, in standard errors",
            "Do scores still mean what they did? Beyond 3 or 4 they do not (concept drift); if not, a change of "
            "quality is one of the traffic.",
            "short",
            Query(
                f"max by ({view.settings.by(MODEL, VERSION, GAP_METRIC)}) (abs(\n"
                f"  {metrics.QUALITY_GAP.name}{_of_window(view, GAP_METRIC)}\n"
                f"  / ({metrics.QUALITY_GAP_SIGMA.name}{_of_window(view, GAP_METRIC)} > 0)\n))",
                "{{version}} {{metric}}",
            ),
            width=6,
            alerts=("MLConceptDriftSuspected",),
        ),
    )


def _drift(view: View) -> tuple[Panel, ...]:
    chosen, by, window = view.where(MODEL, VERSION), view.settings.by(MODEL, VERSION), view.settings.windows[0]
    feature = view.settings.by(MODEL, VERSION, KIND, FEATURE)
    drifted, evaluated = (view.shown(drift_rules.counts(name, window)) + chosen for name in ("drifted", "evaluated"))

    def score(name: str, more: str = "") -> str:
        return view.shown(drift_rules.scores(name, window)) + view.where(MODEL, VERSION, more=more)

    def threshold(more: str = "") -> str:
        return f"max by ({feature}) ({metrics.DRIFT_THRESHOLD.name}{view.where(MODEL, VERSION, more=more)})"

    outputs = 'kind=~"output|score"'
    states = f"max by ({feature}, state) ({metrics.FEATURE_STATE.name}{chosen})"
    return (
        timeseries(
            "Share of inputs that drifted",
            "Is the model asked what it was trained for? Above the dashed line, with predictions that drift too, it "
            "pages.",
            "percentunit",
            Query(f"{drifted} / {evaluated}", "{{version}}"),
            Query(
                f"max by ({by}) ({metrics.DRIFTED_FEATURES_THRESHOLD.name}{chosen})",
                "threshold {{version}}",
                limit=True,
            ),
            alerts=("MLModelDrift", "MLStaleModelDrifting"),
            width=6,
        ),
        timeseries(
            "PSI of predictions and scores",
            "Does it answer otherwise than it did? It does where PSI is above both dashed lines.",
            "short",
            Query(score("psi", outputs), "{{version}} {{feature}}"),
            Query(score("psi_critical", outputs), "critical {{version}} {{feature}}", limit=True),
            Query(threshold(outputs), "threshold {{version}} {{feature}}", limit=True),
            alerts=("MLModelDrift",),
            width=6,
        ),
        timeseries(
            "Distance of all numeric inputs together",
            "Do inputs drift together, or their correlations, which no single one shows? They do above both dashed "
            "lines.",
            "short",
            Query(_worst(view, metrics.MULTIVARIATE_DISTANCE, MOMENT), "{{version}} {{moment}}"),
            Query(_worst(view, metrics.MULTIVARIATE_CRITICAL, MOMENT), "critical {{version}} {{moment}}", limit=True),
            Query(
                f"max by ({by}) ({metrics.MULTIVARIATE_THRESHOLD.name}{chosen})", "threshold {{version}}", limit=True
            ),
            width=6,
        ),
        timeseries(
            "Features by state",
            "Can drift be judged? Not while references are missing, samples too few, or events read with delay.",
            "short",
            Query(f"sum by ({view.settings.by(MODEL, VERSION, STATE)}) ({states})", "{{version}} {{state}}"),
            alerts=("MLDriftNotEvaluable",),
            width=6,
            stacked=True,
        ),
        table(
            "Features",
            "Which features drift, and how sure is that? Drifted is 1 if PSI is above the threshold and above the "
            "critical value; faulty is 1 if a rate of bad values rose. Click a feature for its bins.",
            Query(f"max by ({feature}) ({score('psi')})", "PSI"),
            Query(threshold(), "threshold"),
            Query(f"max by ({feature}) ({score('psi_critical')})", "critical"),
            Query(f"max by ({feature}) ({score('live_observations')})", "samples", unit="short"),
            Query(f"max by ({feature}) ({score('drifted')})", "drifted"),
            Query(f"max by ({feature}) ({metrics.FAULTY.name}{chosen})", "faulty"),
            link=(
                FEATURE.name,
                drill_row(
                    "Bins of this feature",
                    "model-health-feature",
                    (*view.settings.targets, MODEL.name, VERSION.name, KIND.name, FEATURE.name),
                ),
            ),
            sort="PSI",
        ),
    )


def _labels(view: View) -> tuple[Panel, ...]:
    chosen, alone, window = view.where(MODEL, VERSION), view.where(MODEL), view.settings.windows[0]
    by = view.settings.by(MODEL)

    def rate(metric: Metric, label: str = "") -> str:
        return f"sum by ({by}{label and f', {label}'}) (rate({metric.name}{alone}[{RATE}]))"

    delay = f"sum by ({by}, le) (rate({metrics.LABEL_DELAY.name}_bucket{alone}[{RATE}]))"
    return (
        timeseries(
            "Share of predictions whose label is known",
            "Is quality that of all predictions? Labels that come for some only may choose them.",
            "percentunit",
            Query(view.shown(quality_rules.coverage(window)) + chosen, "{{version}}"),
            alerts=("MLLabelPipelineStopped",),
        ),
        timeseries(
            "Labels that come alone",
            "Do labels find their predictions? Unmatched ones came for none, unjoined predictions can get none.",
            "eps",
            Query(rate(metrics.LABELS_RECEIVED), "received"),
            Query(rate(metrics.LABELS_UNMATCHED), "unmatched"),
            Query(rate(metrics.LABELS_LATE), "late"),
            Query(rate(metrics.LABELS_DUPLICATE), "doubled"),
            Query(rate(metrics.LABELS_CORRECTED), "corrected"),
            Query(rate(metrics.PREDICTIONS_UNJOINED, "reason"), "unjoined {{reason}}"),
            Query(
                f"max by ({by}) ({metrics.LABELS_PENDING.name}{alone} / {metrics.LABELS_PENDING_LIMIT.name}{alone})",
                "waiting, of the limit",
                unit="percentunit",
            ),
            alerts=("MLLabelPipelineStopped",),
        ),
        timeseries(
            "Delay of labels",
            "Do labels come before their predictions are settled? Nineteen of twenty come within what is drawn; above "
            "the dashed line too many are too late.",
            "s",
            Query(f"histogram_quantile(0.95, {delay})", "95th percentile"),
            Query(f"max by ({by}) ({metrics.LABELS_MATURITY.name}{alone})", "settled", limit=True),
            Query(f"time() - max by ({by}) ({metrics.LABEL_LAST_TIMESTAMP.name}{alone})", "since the newest"),
        ),
    )


def _segments(view: View) -> Panel:
    labels = (SEGMENT_NAME, SEGMENT, KIND, FEATURE)
    by = view.settings.by(MODEL, VERSION, SEGMENT_NAME, SEGMENT)
    errors, predictions = (
        f"sum by ({by}) (rate({metric.name}{view.where(MODEL, VERSION)}[$__range]))"
        for metric in (segment_metrics.PREDICTION_ERRORS, segment_metrics.PREDICTIONS)
    )
    return table(
        "Segments",
        "Does a part of the traffic suffer that the whole hides? Rows with a feature are its drift against the "
        "segment's own reference, rows with a metric its quality. Failed is over the time that is shown.",
        Query(_worst(view, segment_metrics.PSI, *labels), "PSI"),
        Query(_worst(view, segment_metrics.PSI_CRITICAL, *labels), "critical"),
        Query(_worst(view, segment_metrics.DRIFTED, *labels), "drifted"),
        Query(_worst(view, segment_metrics.QUALITY, SEGMENT_NAME, SEGMENT, QUALITY_METRIC, least=True), "quality"),
        Query(_worst(view, segment_metrics.QUALITY_BASELINE, SEGMENT_NAME, SEGMENT, QUALITY_METRIC), "baseline"),
        Query(f"{errors} / ({predictions} > 0)", "failed", unit="percentunit"),
        sort="PSI",
    )


def _of_window(view: View, label: Label) -> str:
    more = f'{WINDOW.name}="$window"'
    return view.where(MODEL, VERSION, *((label,) if label is QUALITY_METRIC else ()), more=more)


def _worst(view: View, metric: Metric, *labels: Label, least: bool = False) -> str:
    """What the replica says that sees most of it, over the window as the exporter has it."""
    chosen = _of_window(view, labels[-1])
    return f"{'min' if least else 'max'} by ({view.settings.by(MODEL, VERSION, *labels)}) ({metric.name}{chosen})"
