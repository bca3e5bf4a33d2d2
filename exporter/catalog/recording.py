"""Every recording rule, in groups that Prometheus evaluates side by side."""

from exporter.catalog.drift_rules import drift_group
from exporter.catalog.quality_rules import quality_group
from exporter.catalog.rules import Group, Settings
from exporter.catalog.traffic_rules import traffic_group


def recording_groups(settings: Settings) -> tuple[Group, ...]:
    """Groups of recording rules."""
    return (drift_group(settings), quality_group(settings), traffic_group(settings))
