"""The command `rules`: the rules of the catalogue with a user's own labels, windows and thresholds, to be piped."""

import re

import click

from exporter.catalog import thresholds
from exporter.catalog.rules import OVERRIDABLE, Settings, Window

FORMATS = ("prometheus", "prometheusrule", "alertmanager", "grafana", "docs")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


@click.command()
@click.option("--format", "output_format", type=click.Choice(FORMATS), default="prometheus", show_default=True)
@click.option(
    "--label",
    "targets",
    multiple=True,
    default=("namespace",),
    show_default=True,
    help="Label of the scrape that tells deployments apart, e.g. cluster; give each.",
)
@click.option(
    "--window",
    "windows",
    multiple=True,
    default=("1h", "1d"),
    show_default=True,
    help="Window of the scores, e.g. 30d; give each. Alerts read the first.",
)
@click.option("--bins", default=thresholds.DISCRETE_VALUES.count, show_default=True, type=click.IntRange(2, 100))
@click.option("--score-bins", default=thresholds.SCORE_BINS.count, show_default=True, type=click.IntRange(2, 100))
@click.option("--set", "overrides", multiple=True, help=f"NAME=VALUE of {', '.join(OVERRIDABLE)}.")
@click.option("--runbooks", default=Settings().runbooks, show_default=True, help="URL below which runbooks lie.")
@click.option("--dashboards", default=Settings().dashboards, show_default=True, help="URL of Grafana's dashboards.")
@click.option("--rule-label", "rule_labels", multiple=True, help="NAME=VALUE that the operator selects rules by.")
@click.option("--folder", default="model-health", show_default=True, help="Uid of Grafana's folder.")
@click.option("--datasource", default="prometheus", show_default=True, help="Uid of Grafana's data source.")
def rules(
    output_format: str,
    targets: tuple[str, ...],
    windows: tuple[str, ...],
    bins: int,
    score_bins: int,
    overrides: tuple[str, ...],
    runbooks: str,
    dashboards: str,
    rule_labels: tuple[str, ...],
    folder: str,
    datasource: str,
) -> None:
    """Print recording and alert rules."""
    from exporter.assets.alertmanager import alertmanager  # noqa: PLC0415 - commands import what they need
    from exporter.assets.grafana_rules import grafana  # noqa: PLC0415
    from exporter.assets.rules import OPERATOR_LABELS, prometheus, prometheus_rule  # noqa: PLC0415
    from exporter.assets.rules_table import rules_page  # noqa: PLC0415

    for label in targets:
        if not _LABEL.fullmatch(label):
            raise click.BadParameter(f"{label!r} is no label name", param_hint="--label")
    settings = Settings(
        targets=tuple(dict.fromkeys(targets)),
        windows=_windows(windows),
        bins=bins,
        score_bins=score_bins,
        overrides=dict(map(_override, overrides)),
        runbooks=runbooks.rstrip("/"),
        dashboards=dashboards.rstrip("/"),
    )
    printed = {
        "prometheus": lambda: prometheus(settings),
        "prometheusrule": lambda: prometheus_rule(
            settings, dict(_pair(one, "--rule-label") for one in rule_labels) or OPERATOR_LABELS
        ),
        "alertmanager": lambda: alertmanager(settings),
        "grafana": lambda: grafana(settings, folder, datasource),
        "docs": lambda: rules_page(settings),
    }
    click.echo(printed[output_format](), nl=False)


def _windows(texts: tuple[str, ...]) -> tuple[Window, ...]:
    try:
        windows = tuple(map(Window, dict.fromkeys(texts)))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--window") from None
    lengths = [window.minutes for window in windows]
    if len(set(lengths)) < len(lengths):
        raise click.BadParameter("two windows have the same length", param_hint="--window")
    return windows


def _override(text: str) -> tuple[str, float]:
    name, value = _pair(text, "--set")
    if name not in OVERRIDABLE:
        raise click.BadParameter(f"{name} is none of {', '.join(OVERRIDABLE)}", param_hint="--set")
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise click.BadParameter(f"{name}: a positive number expected, got {value!r}", param_hint="--set")
    return name, number


def _pair(text: str, option: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not (name and separator):
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint=option)
    return name, value
