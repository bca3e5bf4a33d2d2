"""The exporter itself: one that does not see must not look like healthy models."""

from exporter.assets.panels import RATE, Panel, Query, View, stat, timeseries
from exporter.catalog import metrics, thresholds
from exporter.catalog.labels import SOURCE
from exporter.catalog.metric import Metric
from exporter.catalog.rules import INSTANCE, JOB, UP

_INSTANCE = "{{instance}}"
_SOURCE = "{{instance}} {{source}}"


def exporter_panels(view: View) -> tuple[Panel, ...]:
    """Panels of the dashboard."""
    return (*_process(view), *_ingest(view), *_state(view))


def _process(view: View) -> tuple[Panel, ...]:
    chosen, by = view.where(JOB, INSTANCE), view.settings.by(JOB, INSTANCE)
    tick = f"time() - max by ({by}) ({metrics.LAST_TICK_TIMESTAMP.name}{chosen})"
    version = metrics.BUILD_INFO.labels[0].name
    return (
        stat(
            "Exporters that run",
            "Is every exporter there, and of which version? The first number is 0 for one that cannot be scraped: its "
            "models are not watched.",
            "short",
            Query(f"max by ({by}) ({UP.name}{chosen})", f"up {_INSTANCE}"),
            Query(
                f"count by ({version}) ({metrics.BUILD_INFO.name}{chosen})",
                f"of {{{{{version}}}}}",
            ),
            alerts=("MLExporterDown", "MLWatchdog"),
        ),
        timeseries(
            "Age of the last tick",
            "Are the values those of now? Above the dashed line they are old. Duration is what a tick takes to "
            "evaluate and render.",
            "s",
            Query(tick, f"age {_INSTANCE}"),
            Query(f"max by ({by}) ({metrics.TICK_DURATION.name}{chosen})", f"duration {_INSTANCE}"),
            Query(f"vector({view.settings.number(thresholds.STALLED_S)})", "stalled", limit=True),
            alerts=("MLExporterTicksStalled",),
        ),
        timeseries(
            "Series",
            "Is anything withheld? At the limit, the dashed line, series that do not fit are left out.",
            "short",
            Query(f"max by ({by}) ({metrics.SERIES.name}{chosen})", f"exposed {_INSTANCE}"),
            Query(f"max by ({by}) ({metrics.SERIES_LIMIT.name}{chosen})", f"limit {_INSTANCE}", limit=True),
            Query(f"sum by ({by}) (increase({metrics.SERIES_DROPPED.name}{chosen}[{RATE}]))", f"withheld {_INSTANCE}"),
            alerts=("MLSeriesBudgetReached",),
        ),
    )


def _ingest(view: View) -> tuple[Panel, ...]:
    chosen, by = view.where(JOB, INSTANCE, SOURCE), view.settings.by(JOB, INSTANCE, SOURCE)

    def rate(metric: Metric, label: str = "") -> str:
        return f"sum by ({by}{label and f', {label}'}) (rate({metric.name}{chosen}[{RATE}]))"

    def newest(metric: Metric) -> str:
        return f"max by ({by}) ({metric.name}{chosen})"

    return (
        timeseries(
            "Events received",
            "Does every source deliver? Counted are all events, readable or not.",
            "eps",
            Query(rate(metrics.INGEST_EVENTS), _SOURCE),
        ),
        timeseries(
            "Events that are not counted, or in no window",
            "What is lost, and why? Rejected could not be read, dropped could but were not counted, late ones count "
            "in lifetime counters only, redelivered ones count twice.",
            "eps",
            Query(rate(metrics.INGEST_REJECTED, "reason"), f"rejected {_SOURCE} {{{{reason}}}}"),
            Query(rate(metrics.INGEST_DROPPED, "reason"), f"dropped {_SOURCE} {{{{reason}}}}"),
            Query(rate(metrics.INGEST_LATE, "reason"), f"late {_SOURCE} {{{{reason}}}}"),
            Query(rate(metrics.INGEST_REDELIVERED), f"redelivered {_SOURCE}"),
            alerts=("MLEventsDropped",),
        ),
        timeseries(
            "Failed attempts to reach a source",
            "Is a source in trouble? A few while a broker moves are in order; steady ones are a fault of network, "
            "rights or broker. Ready is 1 while it can deliver.",
            "cps",
            Query(rate(metrics.INGEST_SOURCE_ERRORS, "reason"), f"{_SOURCE} {{{{reason}}}}"),
            Query(newest(metrics.INGEST_READY), f"ready {_SOURCE}", unit="short"),
        ),
        timeseries(
            "Records behind",
            "Does it keep up? A lag that grows is more than a process can count: add replicas, up to the partitions.",
            "short",
            Query(newest(metrics.INGEST_LAG), f"behind {_SOURCE}"),
            Query(newest(metrics.INGEST_PARTITIONS), f"partitions {_SOURCE}"),
            alerts=("MLFeedCatchingUp",),
        ),
        timeseries(
            "Age of the newest event",
            "How old is what is judged? Of a quiet source it grows without a fault.",
            "s",
            Query(f"time() - {newest(metrics.INGEST_WATERMARK)}", _SOURCE),
            alerts=("MLFeedCatchingUp",),
        ),
    )


def _state(view: View) -> tuple[Panel, ...]:
    chosen, by = view.where(JOB, INSTANCE), view.settings.by(JOB, INSTANCE)
    written = f"max by ({by}) ({metrics.STATE_LAST_WRITE.name}{chosen})"
    return (
        timeseries(
            "Age of the state",
            "What would a crash lose? Above the dashed line more than is tolerated; each write that failed adds to it.",
            "s",
            Query(f"time() - {written}", f"age {_INSTANCE}"),
            Query(f"max by ({by}) ({metrics.STATE_WRITE_DURATION.name}{chosen})", f"write {_INSTANCE}"),
            Query(f"vector({view.settings.number(thresholds.STATE_AGE_S)})", "tolerated", limit=True),
            alerts=("MLStateWritesFailing",),
        ),
        timeseries(
            "Writes of state that failed",
            "Is the disk full, slow or broken? Each is a tick whose state was not durable in time.",
            "short",
            Query(f"sum by ({by}) (increase({metrics.STATE_WRITE_FAILURES.name}{chosen}[{RATE}]))", _INSTANCE),
            Query(
                f"max by ({by}, reason) ({metrics.STATE_SET_ASIDE.name}{chosen})",
                f"database set aside {_INSTANCE} {{{{reason}}}}",
            ),
            width=12,
            alerts=("MLStateWritesFailing",),
        ),
        timeseries(
            "Size of the state",
            "Does the disk last? It grows with models, versions, and predictions that wait for their labels.",
            "bytes",
            Query(f"max by ({by}) ({metrics.STATE_SIZE.name}{chosen})", _INSTANCE),
            width=12,
        ),
    )
