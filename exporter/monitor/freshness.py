"""How old things are, as timestamps: ages are computed by who reads them (`time() - x`), so they cannot go stale."""

from collections.abc import Iterator

from exporter.catalog import metrics
from exporter.catalog.metric import Sample
from exporter.monitor.reference import Reference
from exporter.monitor.settings import ModelSettings


def samples(
    settings: ModelSettings, version: str, reference: Reference | None, last_prediction: float | None
) -> Iterator[Sample]:
    """Last prediction seen, and what is configured or known of the model's and its reference's age."""
    labels = {"model": settings.name, "version": version}
    if last_prediction is not None:
        yield metrics.PREDICTION_LAST_TIMESTAMP.sample(last_prediction, **labels)
    if settings.trained is not None:
        yield metrics.TRAINED_TIMESTAMP.sample(settings.trained, **labels)
    if settings.max_age_s is not None:
        yield metrics.MAX_AGE.sample(settings.max_age_s, **labels)
    if reference is not None:
        yield metrics.REFERENCE_CREATED_TIMESTAMP.sample(reference.created.timestamp(), **labels)
