"""What alerts compare a model with, as series: rules read them, and are the same for every model and value."""

from collections.abc import Iterator

from exporter.catalog import metrics
from exporter.catalog.metric import Sample
from exporter.monitor.settings import ModelSettings


def samples(settings: ModelSettings) -> Iterator[Sample]:
    """The thresholds of one model, whatever its versions."""
    for name, value in settings.alert_thresholds.items():
        yield metrics.ALERT_THRESHOLD.sample(value, model=settings.name, threshold=name)
