"""docs/alerts.md: every alert and what it means, and every record."""

import re
from collections.abc import Iterator

from exporter.assets.rules import all_groups
from exporter.catalog.rules import Alert, Recording, Settings


def rules_page(settings: Settings) -> str:
    """The text of docs/alerts.md. Names link to the runbooks of the settings."""
    return "\n".join(_lines(settings)) + "\n"


def _lines(settings: Settings) -> Iterator[str]:
    groups = all_groups(settings)
    yield "<!-- Generated from exporter/catalog by `python -m exporter.assets`; do not edit. -->"
    yield "# Alerts and recording rules"
    yield ""
    yield "`model-health-exporter rules` prints them with your labels, windows and thresholds, for Prometheus (2.42 or"
    yield "newer), its operator, Alertmanager or Grafana. critical pages, warning is a ticket, info is context."
    yield ""
    yield "What models may differ in are series: `thresholds` of a model, in the configuration of its exporter, need no"
    yield "other rule. Upgrade exporters before their rules: what reads a series that is not there yet stays silent."
    yield ""
    yield "## Alerts"
    yield ""
    yield "| alert | severity | holds for | says |"
    yield "|---|---|---|---|"
    for rule in (rule for group in groups for rule in group.rules):
        if isinstance(rule, Alert):
            says = _cell(f"{rule.summary} {rule.description}")
            name = f"[`{rule.name}`]({settings.runbooks}/{rule.runbook})"
            yield f"| {name} | {rule.severity} | {rule.pending or '-'} | {says} |"
    yield ""
    yield "## Records"
    yield ""
    yield "Absent with too few samples, as everything is. Windows other than the first are left out here."
    yield ""
    yield "| record | labels | group | every |"
    yield "|---|---|---|---|"
    others = tuple(f"increase{window.text}" for window in settings.windows[1:])
    for group in groups:
        for rule in group.rules:
            if isinstance(rule, Recording) and not rule.record.endswith(others) and "bin" not in rule.labels:
                added = ", ".join(f"`{name}={value}`" for name, value in rule.labels.items())
                yield f"| `{rule.record}` | {added} | {group.name} | {group.interval or '-'} |"


def _cell(text: str) -> str:
    """A template without its braces: `{{ $labels.model }}` is <model>, a value is <value>."""
    text = re.sub(r"\{\{ \$labels\.(\w+) \}\}", r"&lt;\1&gt;", text)
    return re.sub(r"\{\{ \$value[^}]*\}\}", "&lt;value&gt;", text).replace("|", "\\|")
