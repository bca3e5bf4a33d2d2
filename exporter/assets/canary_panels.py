"""The canary beside the primary. A difference is shown in units of what chance makes of so many predictions."""

from exporter.assets.panels import Panel, Query, View, timeseries
from exporter.catalog import drift_rules, metrics, quality_rules, thresholds, traffic_rules
from exporter.catalog.labels import MODEL, VERSION
from exporter.catalog.traffic_rules import ROLE, ROLES


def canary_panels(view: View) -> tuple[Panel, ...]:
    """Panels of the dashboard."""
    by, chosen, window = view.settings.by(MODEL, VERSION), view.where(MODEL), view.settings.windows[0]
    errors, predictions = (
        view.shown(traffic_rules.of_role(name, window)) for name in ("prediction_errors", "predictions")
    )

    def of(record: str, role: str) -> str:
        selector = view.where(MODEL, more=f'role=~"{role}"')
        return f"sum without (role) ({record}{selector})"

    def with_role(expr: str) -> str:
        def of_versions(role: str) -> str:
            info = metrics.MODEL_INFO.name + view.where(MODEL, more=f'{ROLE.name}="{role}"')
            return f'label_replace(\n  {expr}\n  and on ({by}) {info},\n  "{ROLE.name}", "{role}", "", ""\n)'

        return "\nor\n".join(map(of_versions, ROLES))

    margin, least = view.threshold(thresholds.CANARY_MARGIN), view.threshold(thresholds.CANARY_PREDICTIONS)
    both = f"({of(errors, 'canary|primary')} / {of(predictions, 'canary|primary')})"
    canary, primary = (f"{of(errors, role)} / {of(predictions, role)}" for role in ROLES)
    noise = traffic_rules.standard_error(both, *(f"({of(predictions, role)} >= {least})" for role in ROLES))
    quality = view.shown(quality_rules.qualities("quality", window)) + chosen
    lower, upper = (
        view.shown(quality_rules.qualities(f"quality_{bound}", window)) + chosen for bound in ("lower", "upper")
    )
    drifted, evaluated = (view.shown(drift_rules.counts(name, window)) + chosen for name in ("drifted", "evaluated"))
    latency = view.shown(traffic_rules.latency(window))
    slow = latency + view.where(MODEL, more='objective_quantile="0.99"')
    objective = metrics.LATENCY_OBJECTIVE.name + view.where(MODEL, more='objective_quantile="0.99"')
    return (
        timeseries(
            "Predictions in the window",
            "Has the canary seen enough? Below the dashed line nothing is said of it.",
            "short",
            Query(predictions + chosen, "{{role}}"),
            Query(least, "least", limit=True),
        ),
        timeseries(
            "Share that failed",
            "Does the canary fail more often? A small share of few predictions says little: see the next panel.",
            "percentunit",
            Query(f"{errors}{chosen} / ({predictions}{chosen} > 0)", "{{role}}"),
            alerts=("MLCanaryWorseThanPrimary",),
        ),
        timeseries(
            "Failures beyond what is tolerated, in standard errors",
            "Could that be chance? Above the dashed line it is not, and the margin is already taken off: roll back. "
            "Absent with too few predictions.",
            "short",
            Query(f"({canary} - {primary} - {margin})\n/ ({noise} > 0)", "{{model}}"),
            Query(view.threshold(thresholds.CANARY_Z), "rollback", limit=True),
            alerts=("MLCanaryWorseThanPrimary",),
        ),
        timeseries(
            "99th percentile of latency",
            "Is the canary slower? The dashed line is the objective, where one is configured.",
            "s",
            Query(with_role(slow), "{{role}} {{version}}"),
            Query(f"max by ({view.settings.by(MODEL)}) ({objective})", "objective", limit=True),
        ),
        timeseries(
            "Quality with its bounds",
            "Is the canary right as often? Where the bounds overlap there is no telling yet; labels come late.",
            "short",
            Query(with_role(quality), "{{role}} {{version}} {{metric}}"),
            Query(with_role(lower), "{{role}} {{version}} {{metric}} lower"),
            Query(with_role(upper), "{{role}} {{version}} {{metric}} upper"),
        ),
        timeseries(
            "Share of inputs that drifted",
            "Are both asked the same? If only the canary's inputs drift, its traffic, or its reference, is another.",
            "percentunit",
            Query(with_role(f"{drifted} / {evaluated}"), "{{role}} {{version}}"),
        ),
    )
