"""The fleet: what fires, and which versions drift, get worse, fail or grow old. Everything leads to one model."""

from exporter.assets.panels import Panel, Query, View, drill, drill_row, stat, table, timeseries
from exporter.catalog import drift_rules, metrics, quality_rules, thresholds, traffic_rules
from exporter.catalog.labels import MODEL, VERSION
from exporter.catalog.rules import ALERTS

_LINK = "Health of this model"


def fleet_panels(view: View) -> tuple[Panel, ...]:
    """Panels of the dashboard."""
    by, chosen, window = view.settings.by(MODEL, VERSION), view.where(MODEL), view.settings.windows[0]
    labels = (*view.settings.targets, MODEL.name, VERSION.name)
    drifted, evaluated = (view.shown(drift_rules.counts(name, window)) + chosen for name in ("drifted", "evaluated"))
    predictions, errors = (
        view.shown(traffic_rules.traffic(name, window.text)) + chosen
        for name in ("predictions", "prediction_errors_ratio")
    )
    lost, degraded = (
        view.shown(quality_rules.qualities(f"quality_{name}", window)) + chosen for name in ("lost", "degraded")
    )
    asked = f"{predictions} > 0"
    share = f"{drifted} / {evaluated}"
    limit = f"max by ({by}) ({metrics.DRIFTED_FEATURES_THRESHOLD.name}{chosen})"
    quarter = f"sum by ({view.settings.by(MODEL)}) ({traffic_rules.traffic('predictions', '15m')}{chosen})"
    yesterday = quarter.removesuffix(")") + " offset 1d)"
    age = f"time() - max by ({by}) ({metrics.TRAINED_TIMESTAMP.name}{chosen})"
    firing = view.where(more=f'alertname=~"ML.+",alertstate="firing",{MODEL.name}=~"|$model"')
    return (
        table(
            "Alerts that fire",
            "What needs someone now? critical pages, warning is a ticket. Empty is good only if the exporter's "
            "dashboard is: an alert that cannot be evaluated does not fire. Alerts that Grafana evaluates are not "
            "here.",
            Query(f"sum by (severity, alertname, {MODEL.name}, {VERSION.name}) ({ALERTS.name}{firing})", "series"),
            width=16,
            link=("model", drill_row(_LINK, "model-health", (MODEL.name,))),
            height=8,
        ),
        stat(
            "Versions to look at",
            "How many versions drift, have become worse, or cannot be judged? No number says that none of them could "
            "be judged at all.",
            "short",
            Query(f"count({evaluated})", "judged"),
            Query(f"sum({share} >= bool {limit})", "drifted"),
            Query(f"sum(max by ({by}) ({degraded}))", "worse than baseline"),
            Query(f"count({asked} unless on ({by}) {evaluated}) or 0 * count({asked})", "not judged"),
        ),
        table(
            "Versions",
            "How is each version doing over the window? An empty cell is too little data, or no labels. Quality lost "
            "is against the baseline of the reference, above 0 if worse. Click a version for its health.",
            Query(f"max by ({by}) ({predictions})", "predictions", unit="short"),
            Query(f"max by ({by}) ({errors})", "failed", unit="percentunit"),
            Query(f"max by ({by}) ({drifted})", "inputs drifted"),
            Query(f"max by ({by}) ({evaluated})", "inputs judged"),
            Query(f"max by ({by}) ({lost})", "quality lost"),
            link=("version", drill_row(_LINK, "model-health", labels)),
            sort="inputs drifted",
        ),
        timeseries(
            "Share of inputs that drifted",
            "Does the traffic of a version look like what it was trained for? Above its dashed line, with predictions "
            "that drift too, it pages.",
            "percentunit",
            Query(share, "{{model}} {{version}}"),
            Query(limit, "threshold {{model}} {{version}}", limit=True),
            alerts=("MLModelDrift",),
            link=drill(_LINK, "model-health", labels),
        ),
        timeseries(
            "Predictions in 15 minutes",
            "Is every model asked as often as a day before? Below the dashed line it is a stop and not a lull.",
            "short",
            Query(quarter, "{{model}}"),
            Query(f"{view.threshold(thresholds.TRAFFIC_RATIO)} * {yesterday}", "stopped {{model}}", limit=True),
            alerts=("MLPredictionTrafficAbsent",),
            link=drill(_LINK, "model-health", (*view.settings.targets, MODEL.name)),
        ),
        timeseries(
            "Age in units of the age at which a model is stale",
            "Which models are due to be trained again? Above 1 one is older than configured; it is a ticket if its "
            "inputs drift as well.",
            "percentunit",
            Query(f"({age}) / max by ({by}) ({metrics.MAX_AGE.name}{chosen})", "{{model}} {{version}}"),
            alerts=("MLStaleModelDrifting",),
            link=drill(_LINK, "model-health", labels),
        ),
    )
