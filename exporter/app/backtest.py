"""`backtest`: the alerts that would have fired over a time that is past, had their rules been there.

A range query gives what an expression would have been at each evaluation; `alerting` makes of it what Prometheus would
have. Where a record was not recorded all the time, the expression that makes it is asked instead. An expression whose
series are not there, or too far apart, fires nothing: they are named, for silence is no good news then.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from exporter.app.alerting import Rule, Rules, Watch, watch
from exporter.app.config import ConfigError
from exporter.app.prometheus import Grid, Prometheus, grid
from exporter.app.replay import iso
from exporter.catalog.flat import Records
from exporter.catalog.promql import Selector, selectors

_EDGE = 0.05
"""Share of the time at either end in which a record must be there, or it is not believed to be in between."""
_CURRENT_S = 300
"""How long Prometheus takes a value for current."""


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

    `pending` are rules that held at times but never for long enough, `absent` metrics without a sample in that time;
    `sparse` are by alert the ranges, and whose, in which there were never as many samples as it takes; `worked_out` are
    records that were not there all the time.
    """

    start: float
    end: float
    rules: Sequence[Rule]
    alerts: Sequence[Alert]
    pending: Sequence[str]
    absent: Sequence[str]
    sparse: Mapping[str, Mapping[str, Sequence[str]]]
    worked_out: Sequence[str]


def looks(rules: Rules, start: float, end: float, step_s: float | None = None) -> int:
    """How often rules are looked at, all together."""
    return sum(_grid(rule, start, end, step_s).count for rule in rules.alerts)


def run(
    server: Prometheus,
    rules: Rules,
    start: float,
    end: float,
    step_s: float | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Backtest:
    """Look at each rule every `step_s`, or else at the interval of its group, at multiples of that.

    `progress` is told how many moments have been looked at. Raises ConfigError for an expression that Prometheus
    refuses, Unavailable when it does not answer.
    """
    edge_s = _EDGE * (end - start)
    edges = (start - _CURRENT_S, start + edge_s), (end - edge_s - _CURRENT_S, end)
    throughout = cache(lambda name: all(server.has(name, *edge) for edge in edges))
    enough = cache(lambda call, moments: any(True for _ in server.range(f"count({call})", moments)))

    def recorded(one: Selector) -> bool:
        """A history may be recorded less often than a range over it is long."""
        call = _call(one)
        return throughout(one.name) and (not call or enough(call, _grid(rules.alerts[0], start, end, step_s)))

    records = Records(rules.records, recorded, round((step_s or 0) * 1000))
    asked = [
        (replace(rule, expression=records.flat(rule.expression)), _grid(rule, start, end, step_s))
        for rule in rules.alerts
    ]
    alerts: list[Alert] = []
    pending: list[str] = []
    done = 0

    def looked(count: int) -> None:
        nonlocal done
        done += count
        progress(done)

    for rule, moments in asked:
        held, fired = _fired(server, rule, moments, looked)
        alerts += fired
        pending += [rule.alert] if held and not fired else []
    alerts.sort(key=lambda one: (one.since, one.alert, sorted(one.labels.items())))
    absent, sparse = _missing(asked, cache(lambda name: server.has(name, start, end)), enough)
    return Backtest(start, end, rules.alerts, alerts, pending, absent, sparse, records.replaced)


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
        "sparse": found.sparse,
        "worked_out": found.worked_out,
    }


def _grid(rule: Rule, start: float, end: float, step_s: float | None) -> Grid:
    return grid(start, end, step_s or rule.interval_ms / 1000)


def _call(one: Selector) -> str:
    """What takes samples in a range; "" without one. A subquery is as good as what it asks."""
    plain = one.range and ":" not in one.range
    return f"{one.function or 'last_over_time'}({one.name}[{one.range}])" if plain else ""


def _missing(
    asked: Sequence[tuple[Rule, Grid]], there: Callable[[str], bool], enough: Callable[[str, Grid], bool]
) -> tuple[list[str], dict[str, dict[str, list[str]]]]:
    """Metrics that are not there, and by alert the ranges of others that never hold enough."""
    read = [(rule.alert, moments, one) for rule, moments in asked for one in selectors(rule.expression)]
    sparse: dict[str, dict[str, set[str]]] = {}
    for alert, moments, one in read:
        call = _call(one)
        if call and there(one.name) and not enough(call, moments):
            sparse.setdefault(alert, {}).setdefault(one.range, set()).add(one.name)
    absent = sorted({one.name for *_, one in read if not there(one.name)})
    return absent, {
        alert: {length: sorted(names) for length, names in ranges.items()} for alert, ranges in sparse.items()
    }


def _fired(server: Prometheus, rule: Rule, moments: Grid, looked: Callable[[int], None]) -> tuple[bool, list[Alert]]:
    """Whether the expression ever held, and the alerts that came of it."""
    watches: dict[tuple[tuple[str, str], ...], Watch] = {}
    try:
        for series, values in server.range(rule.expression, moments, looked):
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
