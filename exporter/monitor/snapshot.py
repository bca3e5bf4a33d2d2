"""What a fleet was at one moment: immutable, so that evaluating and rendering it can happen on another thread."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from exporter.catalog.metric import Sample
from exporter.monitor import series
from exporter.monitor.feed import SourceFeed
from exporter.monitor.labels import LabelsView
from exporter.monitor.model_view import ModelView
from exporter.monitor.settings import ModelSettings


@dataclass(frozen=True)
class Snapshot:
    """Everything a fleet knows at `now`."""

    now: float
    models: Sequence[ModelView]
    labels: Mapping[str, LabelsView]
    feeds: Mapping[str, SourceFeed]
    series_limit: int

    @cached_property
    def settings(self) -> Mapping[str, ModelSettings]:
        """The settings of each model that has a version."""
        return {model.settings.name: model.settings for model in self.models}

    @cached_property
    def exposed(self) -> tuple[Sequence[Sample], int]:
        """The samples within the series budget, and how many series were withheld."""
        groups = list(map(series.thresholds, self.settings.values()))
        groups += [group for model in self.models for group in series.groups(model)]
        groups.sort(key=lambda group: group[0])
        samples = [sample for source, feed in self.feeds.items() for sample in feed.samples(source)]
        samples += [sample for model, labels in self.labels.items() for sample in labels.samples(model)]
        withheld = 0
        for (priority, _), group in groups:
            if withheld == 0 and (priority == series.ALWAYS or len(samples) + len(group) <= self.series_limit):
                samples += group
            else:
                withheld += len(group)
        return samples, withheld

    @property
    def full_series(self) -> Mapping[str, int]:
        """How many series each model exports when every score has enough data."""
        counts = Counter({model: labels.full_series for model, labels in self.labels.items()})
        for settings in self.settings.values():
            counts[settings.name] += len(series.thresholds(settings)[1])
        for view in self.models:
            counts[view.settings.name] += series.full_series(view)
        return counts
