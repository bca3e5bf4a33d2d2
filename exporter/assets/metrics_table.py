"""docs/metrics.md: every metric, its labels and what bounds them, and every default with its reason."""

from collections.abc import Iterator

from exporter.catalog import thresholds
from exporter.catalog.metric import Label
from exporter.catalog.metrics import METRICS


def metrics_page() -> str:
    """The text of docs/metrics.md."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "<!-- Generated from exporter/catalog by `python -m exporter.assets`; do not edit. -->"
    yield "# Metrics and defaults"
    yield ""
    yield "A value that is not known is absent, never 0 or NaN. `namespace`, `pod` and `job` come from the scrape."
    yield "Process, platform and garbage collector metrics are those of prometheus_client."
    yield ""
    yield "## Metrics"
    yield ""
    yield "| metric | type | labels | meaning |"
    yield "|---|---|---|---|"
    for metric in METRICS:
        labels = ", ".join(f"`{label.name}`" for label in metric.labels)
        yield f"| `{metric.name}` | {metric.kind} | {labels} | {_cell(metric.help)} |"
    yield ""
    yield "## Labels"
    yield ""
    yield "| label | on | meaning | bounded by |"
    yield "|---|---|---|---|"
    for label in dict.fromkeys(label for metric in METRICS for label in metric.labels):
        yield f"| `{label.name}` | {_users(label)} | {_cell(label.help)} | {_cell(label.bound)} |"
    yield ""
    yield "## Defaults"
    yield ""
    yield "| default | value | reason |"
    yield "|---|---|---|"
    for default in thresholds.DEFAULTS:
        value = f"{default.value:.10g} {default.unit}".strip()
        yield f"| `{default.name}` | {value} | {_cell(default.reason)} |"


def _users(label: Label) -> str:
    """The metrics that carry a label, when they are few enough to be named."""
    users = [metric.name for metric in METRICS if label in metric.labels]
    return ", ".join(f"`{name}`" for name in users) if len(users) <= 2 else f"{len(users)} metrics"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
