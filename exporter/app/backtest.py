"""`backtest`: the alerts that would have fired over a time that is past, had their rules been there.

A range query gives what an expression would have been at each evaluation; `alerting` makes of it what Prometheus would
have. An expression whose series are not there fires nothing: they are named, for silence is no good news then.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from exporter.app.alerting import Rule, Watch, metrics_of, watch
from exporter.app.config import ConfigError
from exporter.app.prometheus import Grid, Prometheus, grid
from exporter.app.replay import iso


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert that would have fired from `since` on, pending since `pending`, until `until` (None: to the end).

    Times are epoch seconds; `peak` is the highest value of its expression while it was pending or firing.
    """

    alert: str
    labels: dict[str, str]
    pending: float
    since: float
    until: float | None
    peak: float


@dataclass(frozen=True, slots=True)
class Backtest:
    """What would have fired from `start` to `end` (epoch seconds).

    `pending` are rules that held at times but never for long enough, `absent` metrics without a sample in that time.
    """

    start: float
    end: float
    rules: Sequence[Rule]
    alerts: Sequence[Alert]
    pending: Sequence[str]
    absent: Sequence[str]


def run(
    server: Prometheus,
    rules: Sequence[Rule],
    start: float,
    end: float,
    step_s: float | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Backtest:
    """Look at each rule every `step_s`, or else at the interval of its group, at multiples of that.

    Raises ConfigError for an expression that Prometheus refuses, Unavailable when it does not answer.
    """
    alerts: list[Alert] = []
    pending: list[str] = []
    for number, rule in enumerate(rules):
        held, fired = _fired(server, rule, grid(start, end, step_s or rule.interval_ms / 1000))
        alerts += fired
        pending += [rule.alert] if held and not fired else []
        progress(number + 1)
    alerts.sort(key=lambda one: (one.since, one.alert, sorted(one.labels.items())))
    absent = [name for name in metrics_of(rules) if not server.has(name, start, end)]
    return Backtest(start, end, rules, alerts, pending, absent)


def as_json(found: Backtest) -> dict[str, Any]:
    """The object of `--format json`."""
    return {
        "start": iso(found.start),
        "end": iso(found.end),
        "rules": [rule.alert for rule in found.rules],
        "alerts": [
            {
                "alert": one.alert,
                "labels": one.labels,
                "pending": iso(one.pending),
                "from": iso(one.since),
                "until": None if one.until is None else iso(one.until),
                "peak": one.peak,
            }
            for one in found.alerts
        ],
        "pending": found.pending,
        "absent": found.absent,
    }


def _fired(server: Prometheus, rule: Rule, moments: Grid) -> tuple[bool, list[Alert]]:
    """Whether the expression ever held, and the alerts that came of it."""
    watches: dict[tuple[tuple[str, str], ...], Watch] = {}
    try:
        for series, values in server.range(rule.expression, moments):
            identity = tuple(rule.labels_of(series).items())
            watched = watches.setdefault(identity, watch(rule, moments.step_ms))
            for place, value in values:
                watched.see(place, value)
    except ConfigError as error:
        raise ConfigError(f"alert {rule.alert}: {error}") from None
    return bool(watches), [
        Alert(
            rule.alert,
            dict(labels),
            moments.at_s(one.pending),
            moments.at_s(one.since),
            None if one.until is None else moments.at_s(one.until),
            one.peak,
        )
        for labels, watched in watches.items()
        for one in watched.end(moments.count)
    ]
