"""Samples to the text formats of Prometheus, once a tick; this file alone knows prometheus_client.

Model series are written here from prefixes made once a series: 10,000 series take 6 ms, where prometheus_client's
`generate_latest` takes 57 to 70 (measured with 0.26). Its collectors provide the process, platform and garbage
collector metrics, and its rules choose the format a scraper asked for.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from exporter.catalog import metrics
from exporter.catalog.metric import Metric, Sample, format_float

TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_EOF = b"# EOF\n"


@dataclass(frozen=True, slots=True)
class ExporterState:
    """What the exporter says of itself."""

    version: str
    started: float
    series_limit: int
    series_withheld_total: int
    tick_duration_s: float | None
    last_tick: float | None


def self_samples(state: ExporterState, series: int) -> Iterator[Sample]:
    """The exporter's own series."""
    yield metrics.BUILD_INFO.sample(1, exporter_version=state.version)
    yield metrics.SERIES.sample(series)
    yield metrics.SERIES_LIMIT.sample(state.series_limit)
    yield metrics.SERIES_DROPPED.sample(state.series_withheld_total)
    if state.tick_duration_s is not None:
        yield metrics.TICK_DURATION.sample(state.tick_duration_s)
    if state.last_tick is not None:
        yield metrics.LAST_TICK_TIMESTAMP.sample(state.last_tick)


def render(samples: Iterable[Sample], *, openmetrics: bool) -> bytes:
    """The exposition of samples, families in the order of their first sample, with HELP and TYPE."""
    families: dict[str, list[str]] = {}
    declared: dict[str, Metric] = {}
    for series, value in samples:
        metric = series.metric
        lines = families.get(metric.name)
        if lines is None:
            lines = families[metric.name] = []
            declared[metric.name] = metric
        lines.append(f"{series.text} {value if type(value) is int else format_float(value)}\n")
    parts = list[str]()
    for name, lines in families.items():
        parts.append(declaration(declared[name], openmetrics=openmetrics))
        parts += lines
    if openmetrics:
        parts.append("# EOF\n")
    return "".join(parts).encode()


def declaration(metric: Metric, *, openmetrics: bool) -> str:
    """The lines of HELP and TYPE that go before the samples of a family."""
    family = metric.name.removesuffix("_total") if openmetrics and metric.kind == "counter" else metric.name
    return f"# HELP {family} {metric.help}\n# TYPE {family} {metric.kind}\n"


class ProcessMetrics:
    """CPU, memory, file descriptors and Python of this process, by prometheus_client's own collectors."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    def render(self, *, openmetrics: bool) -> bytes:
        """Their exposition, without the end marker."""
        if openmetrics:
            return bytes(generate_openmetrics(self._registry)).removesuffix(_EOF)  # type: ignore[no-untyped-call]
        return bytes(generate_latest(self._registry))


def wants_openmetrics(accept: str) -> bool:
    """Whether an Accept header prefers OpenMetrics to the text format."""
    _, content_type = choose_encoder(accept)
    return content_type.startswith("application/openmetrics-text")
