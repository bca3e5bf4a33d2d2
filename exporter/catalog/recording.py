"""Every recording rule: steps first, then what is made of them, in groups that Prometheus evaluates side by side."""

from exporter.catalog.drift_rules import drift_group, drift_steps
from exporter.catalog.quality_rules import quality_group, quality_steps
from exporter.catalog.rules import STEP, Group, Settings
from exporter.catalog.threshold_rules import threshold_group
from exporter.catalog.traffic_rules import traffic_group, traffic_steps


def recording_groups(settings: Settings) -> tuple[Group, ...]:
    """Groups of recording rules."""
    steps = (*drift_steps(settings), *quality_steps(settings), *traffic_steps(settings))
    return (
        Group("model-health-steps", steps, interval=STEP),
        drift_group(settings),
        quality_group(settings),
        traffic_group(settings),
        threshold_group(settings),
    )
