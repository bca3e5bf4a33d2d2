"""Thresholds of models, which alerts must still know when the exporters that export them are gone.

One holds for a day after it was last seen: as long as an alert can compare a model with the day before. Where
replicas differ, as while a configuration is rolled out, it is the largest. Exporters older than their rules have none,
and no such alert: they go first.
"""

from collections.abc import Iterator

from exporter.catalog import metrics
from exporter.catalog.labels import MODEL, THRESHOLD
from exporter.catalog.rules import Group, Recording, Settings, latest
from exporter.catalog.thresholds import Default

_NOW = "model_threshold:ml_alert_threshold:max"
_KNOWN = "model_threshold:ml_alert_threshold:last1d"


def threshold(default: Default) -> str:
    """What one of ALERT_THRESHOLDS is for each model, by the labels of the target and `model`."""
    return f'sum without (threshold) ({_KNOWN}{{{THRESHOLD.name}="{default.name}"}})'


def threshold_group(settings: Settings) -> Group:
    """What is exported, and what is known."""
    return Group("model-health-thresholds", tuple(_rules(settings)))


def _rules(settings: Settings) -> Iterator[Recording]:
    # A day is read of one series, not of those of all replicas.
    yield Recording(_NOW, f"max by ({settings.by(MODEL, THRESHOLD)}) ({latest(metrics.ALERT_THRESHOLD)})")
    yield Recording(_KNOWN, f"last_over_time({_NOW}[1d])")
