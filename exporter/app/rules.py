"""The command `rules`: the rules of the catalogue with a user's own labels, windows and thresholds, to be piped."""

from dataclasses import replace

import click

from exporter.app.rule_options import pair, rule_options
from exporter.catalog.rules import Settings

FORMATS = ("prometheus", "prometheusrule", "alertmanager", "grafana", "docs")


@click.command()
@click.option("--format", "output_format", type=click.Choice(FORMATS), default="prometheus", show_default=True)
@rule_options
@click.option("--flat", is_flag=True, help="Let no rule read what another records: for the past, see docs/backtest.md.")
@click.option("--no-alerts", is_flag=True, help="Recording rules only: Grafana evaluates the alerts.")
@click.option("--rule-label", "rule_labels", multiple=True, help="NAME=VALUE that the operator selects rules by.")
@click.option("--folder", default="model-health", show_default=True, help="Uid of Grafana's folder.")
@click.option("--datasource", default="prometheus", show_default=True, help="Uid of Grafana's data source.")
def rules(
    output_format: str,
    settings: Settings,
    flat: bool,
    no_alerts: bool,
    rule_labels: tuple[str, ...],
    folder: str,
    datasource: str,
) -> None:
    """Print recording and alert rules."""
    from exporter.assets.alertmanager import alertmanager  # noqa: PLC0415 - commands import what they need
    from exporter.assets.grafana_rules import grafana  # noqa: PLC0415
    from exporter.assets.rules import OPERATOR_LABELS, prometheus, prometheus_rule  # noqa: PLC0415
    from exporter.assets.rules_table import rules_page  # noqa: PLC0415

    if no_alerts and not output_format.startswith("prometheus"):
        raise click.UsageError("--no-alerts is for rules of Prometheus")
    settings = replace(settings, flat=flat)
    selected = dict(pair(one, "--rule-label") for one in rule_labels) or OPERATOR_LABELS
    printed = {
        "prometheus": lambda: prometheus(settings, alerts=not no_alerts),
        "prometheusrule": lambda: prometheus_rule(settings, selected, alerts=not no_alerts),
        "alertmanager": lambda: alertmanager(settings),
        "grafana": lambda: grafana(settings, folder, datasource),
        "docs": lambda: rules_page(settings),
    }
    click.echo(printed[output_format](), nl=False)
