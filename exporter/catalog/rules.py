"""What a rule is, and what may differ between the places where rules run; the rules are in recording and alerts.

Counters are summed over replicas in steps of five minutes, and every window is a sum of steps: no rule reads raw
counters over more than 5 minutes to get a window, so a window of a month costs a Prometheus what its steps cost. Steps
are evaluated once a step, and only read as ranges; all else is evaluated more often than the 5 minutes for which
Prometheus takes a value for current, or alerts would flicker.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from exporter.catalog import thresholds
from exporter.catalog.labels import MODEL, VERSION
from exporter.catalog.metric import Label, Metric
from exporter.catalog.thresholds import Default

_SCRAPE = "the scrape configuration"
CLUSTER = Label("cluster", "Cluster of the scraped target, where several share a Prometheus.", _SCRAPE)
NAMESPACE = Label("namespace", "Namespace of the scraped target.", _SCRAPE)
JOB = Label("job", "Job of the scraped target.", _SCRAPE)
INSTANCE = Label("instance", "Address of the scraped target.", _SCRAPE)
LE = Label("le", "Upper bound of a histogram's bucket.", "a fixed list")
TARGET_LABELS = (CLUSTER, NAMESPACE, JOB, INSTANCE, LE)
"""Labels that rules may use though no metric declares them: Prometheus, or the format, adds them."""

UP = Metric("up", "gauge", "1 if the last scrape of the target succeeded, else 0.", (JOB, INSTANCE))
PROCESS_START = Metric(
    "process_start_time_seconds", "gauge", "When the process started, as prometheus_client says.", (JOB, INSTANCE)
)
_PROMETHEUS = "the rules"
ALERTS = Metric(
    "ALERTS",
    "gauge",
    "1 for each alert that is pending or fires.",
    (
        Label("alertname", "Name of the alert.", _PROMETHEUS),
        Label("alertstate", "pending or firing.", "two values"),
        Label("severity", "critical, warning, info or none.", "four values"),
        MODEL,
        VERSION,
    ),
)
EXTERNAL = (UP, PROCESS_START, ALERTS)
"""Metrics of others that rules and dashboards read. They are not ours to emit."""

STEP_M = 5
"""Minutes of a step: at least four scrapes of the customary 15 s, up to a minute, lie in it."""
STEP = f"{STEP_M}m"
INTERVAL = "2m"
"""Between evaluations of what is made of steps."""
DEFAULT_INTERVAL = "1m"
"""How often Prometheus evaluates a group that does not say."""
_UNITS_M = {"m": 1, "h": 60, "d": 1440}


OVERRIDABLE: Mapping[str, Default] = {
    default.name: default
    for default in (
        thresholds.DROPPED_RATIO,
        thresholds.DROPPED_EVENTS,
        thresholds.STALLED_S,
        thresholds.STATE_AGE_S,
    )
}
"""What alerts about exporters compare them with, by name. No series, as what models may differ in is: an exporter that
is down, or whose ticks stall, is not asked how much of that is in order."""


def latest(metric: Metric, selector: str = "") -> str:
    """The last value of a gauge within a step.

    A scrape that fails ends every series of its target until the next one: a verdict that was judged in between would
    be gone, and what waits or fires with it.
    """
    return f"last_over_time({metric.name}{selector}[{STEP}])"


@dataclass(frozen=True, slots=True)
class Window:
    """A window as Prometheus writes it: `1h`, `30d`. Raises ValueError unless it is a number of steps, two or more."""

    text: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[1-9][0-9]*[mhd]", self.text) or self.minutes % STEP_M or self.minutes < 2 * STEP_M:
            raise ValueError(f"{self.text}: a window is a multiple of {STEP}, e.g. 1h, 1d or 30d")

    @property
    def minutes(self) -> int:
        """Its length."""
        return int(self.text[:-1]) * _UNITS_M[self.text[-1]]

    def sum(self, record: str, offset: str = "") -> str:
        """The sum of a record's steps. A range that lacks a second holds the same number of steps whenever it ends.

        With that second it might hold one more: Prometheus 2 counts samples at both ends of a range, 3 at one.
        """
        return f"sum_over_time({record}[{self.minutes - 1}m59s]{offset and f' offset {offset}'})"


@dataclass(frozen=True, slots=True)
class Settings:
    """What may differ between the places where rules run.

    `targets` are the labels that tell one deployment from another; `windows` those of the recorded scores, of which
    alerts read the first; `bins` and `score_bins` how many ordinal bins the rules of KS and AUC go through;
    `overrides` replace defaults by name; `runbooks` and `dashboards` are where links lead, without a slash at the end;
    `flat` rules read no records.
    """

    targets: tuple[str, ...] = (NAMESPACE.name,)
    windows: tuple[Window, ...] = (Window("1h"), Window("1d"))
    bins: int = thresholds.DISCRETE_VALUES.count
    score_bins: int = thresholds.SCORE_BINS.count
    overrides: Mapping[str, float] = field(default_factory=dict)
    runbooks: str = "https://runbooks.example.com/model-health-exporter"
    dashboards: str = "https://grafana.example.com/d"
    flat: bool = False

    def by(self, *labels: Label) -> str:
        """Labels of an aggregation or a join: those of the target, and these."""
        return ", ".join((*self.targets, *(label.name for label in labels)))

    def number(self, default: Default) -> str:
        """A default, or what overrides it, as PromQL writes it."""
        return f"{self.overrides.get(default.name, default.value):.10g}"


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording rule; `labels` are added to what its expression yields."""

    record: str
    expr: str
    labels: Mapping[str, str] = field(default_factory=dict)


Severity = Literal["critical", "warning", "info", "none"]
"""critical pages, warning is a ticket, info is context; none is for the watchdog."""


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert whose condition has parts that must hold together.

    `pending` is how long it must hold, `keep` how long it fires on when it no longer does, "" for not at all. Texts are
    templates of Prometheus. `dashboard` is the uid of the dashboard to look at, with `labels` as its variables; `extra`
    are labels that tell a reader, or a route, more.
    """

    name: str
    expr: str
    severity: Severity
    component: str
    summary: str
    description: str
    labels: tuple[str, ...]
    pending: str = ""
    keep: str = ""
    dashboard: str = "model-health"
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def runbook(self) -> str:
        """File name of its runbook."""
        return f"{self.name.lower()}.md"


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated in this order, each seeing what those before it recorded.

    `interval` is how often, "" for as often as its Prometheus does if nobody says otherwise.
    """

    name: str
    rules: tuple[Recording | Alert, ...]
    interval: str = INTERVAL
