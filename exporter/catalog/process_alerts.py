"""Every alert about exporters, by target: one that does not see must not look like healthy models."""

from collections.abc import Iterator

from exporter.catalog import metrics, thresholds
from exporter.catalog.labels import SOURCE
from exporter.catalog.rules import ALERTS, INSTANCE, JOB, PROCESS_START, UP, Alert, Settings

_TARGET = (JOB.name, INSTANCE.name)
_WHO = "{{ $labels.instance }}"
_DASHBOARD = "model-health-exporter"


def process_alerts(settings: Settings) -> Iterator[Alert]:
    """Alerts of a target, and the watchdog."""
    by = settings.by(JOB, INSTANCE)
    up = f"max by ({by}) ({UP.name})"
    down = "MLExporterDown"
    # An outage does not end when what the target was is a day ago: once it fires it knows.
    known = f'count_over_time({metrics.BUILD_INFO.name}[1d]) or {ALERTS.name}{{alertname="{down}"}}'
    yield Alert(
        down,
        f"{up} == 0\nand on ({by})\n({known})",
        "critical",
        "exporter",
        f"Exporter {_WHO} cannot be scraped.",
        "Until lately it could. Its models are not watched, and most alerts about them are silent.",
        _TARGET,
        pending="5m",
        dashboard=_DASHBOARD,
    )
    yield Alert(
        "MLExporterTicksStalled",
        f"time() - max by ({by}) ({metrics.LAST_TICK_TIMESTAMP.name}) > {settings.number(thresholds.STALLED_S)}\n"
        f"and on ({by})\n{up} == 1",
        "critical",
        "exporter",
        f"Exporter {_WHO} answers, but with old values.",
        "Its last tick ended {{ $value | humanizeDuration }} ago.",
        _TARGET,
        pending="2m",
        dashboard=_DASHBOARD,
    )
    yield Alert(
        "MLSeriesBudgetReached",
        # Series are withheld in groups, some of them large: how much of the limit is used says nothing.
        f"max by ({by}) ({metrics.SERIES.name}) / max by ({by}) ({metrics.SERIES_LIMIT.name})\n"
        f"and\nsum by ({by}) (increase({metrics.SERIES_DROPPED.name}[5m])) > 0",
        "warning",
        "exporter",
        f"Exporter {_WHO} withholds series.",
        "{{ $value | humanizePercentage }} of its series limit are used, and it leaves out what does not fit.",
        _TARGET,
        pending="15m",
        dashboard=_DASHBOARD,
    )
    source = settings.by(JOB, INSTANCE, SOURCE)
    # Those that are no predictions are dropped by design.
    dropped = (
        f'sum by ({source}) (increase({metrics.INGEST_DROPPED.name}{{reason!~"not_a_prediction|tombstone"}}[15m]))'
    )
    yield Alert(
        "MLEventsDropped",
        f"{dropped} / sum by ({source}) (increase({metrics.INGEST_EVENTS.name}[15m]))"
        f" > {settings.number(thresholds.DROPPED_RATIO)}\n"
        f"and\n{dropped} >= {settings.number(thresholds.DROPPED_EVENTS)}",
        "warning",
        "exporter",
        f"Exporter {_WHO} drops events.",
        "{{ $value | humanizePercentage }} of the events of {{ $labels.source }} could be read but were not counted.",
        (*_TARGET, SOURCE.name),
        pending="10m",
        dashboard=_DASHBOARD,
    )
    # One that has never written lacks since its start what it should have written.
    written = f"max by ({by}) ({metrics.STATE_LAST_WRITE.name}) or max by ({by}) ({PROCESS_START.name})"
    yield Alert(
        "MLStateWritesFailing",
        f"time() - ({written}) > {settings.number(thresholds.STATE_AGE_S)}\n"
        f"and\nsum by ({by}) (increase({metrics.STATE_WRITE_FAILURES.name}[10m])) > 0",
        "critical",
        "exporter",
        f"Exporter {_WHO} cannot write its state.",
        "It has written nothing for {{ $value | humanizeDuration }}: a crash would lose what came since.",
        _TARGET,
        pending="5m",
        dashboard=_DASHBOARD,
    )
    yield Alert(
        "MLWatchdog",
        "vector(1)",
        "none",
        "exporter",
        "Alerts arrive.",
        "Always firing: whoever expects it and misses it knows that alerts no longer arrive.",
        (),
        dashboard=_DASHBOARD,
    )
