from collections.abc import Mapping, Sequence

import pytest

from exporter.app.alerting import Rule, Rules
from exporter.app.backtest import Alert, as_json, looks, run
from exporter.app.config import ConfigError
from exporter.app.prometheus import Prometheus
from exporter.catalog.rules import Group, Recording
from tests.app.answering import Answer, answering, matrix

A = {"__name__": "ml_x", "feature": "a"}
B = {"__name__": "ml_x", "feature": "b"}
SLOW = Rule("Slow", "ml_x > 1", 60_000, 120_000, 0, {"severity": "page"})
NOTHING = Rule("Nothing", "ml_none > 1", 60_000, 0, 0, {})
SHORT = Rule("Short", "ml_y > 1", 60_000, 120_000, 0, {})


def rules(*alerts: Rule, records: Sequence[Group] = ()) -> Rules:
    return Rules(alerts, records)


def answer(path: str, asked: Mapping[str, str]) -> Answer:
    if path == "series":
        return 200, [] if "none" in asked["match[]"] else [{"__name__": "there"}]
    if asked["query"] == NOTHING.expression:
        return 200, matrix()
    if asked["query"] == SHORT.expression:
        return 200, matrix(({}, {600: 5, 660: 5}))
    if asked["query"] == SLOW.expression:
        return 200, matrix((B, {1000 + 20 + 60 * step: 2 + step for step in range(4)}), (A, {600: 7, 660: 8, 720: 9}))
    return 400, "parse error"


def test_alerts_are_told_in_the_order_of_time_with_all_that_makes_silence_doubtful():
    with answering(answer) as server:
        steps = list[int]()
        found = run(Prometheus(server.url), rules(SLOW, SHORT, NOTHING), 600, 1200, progress=steps.append)
    assert found.alerts == [
        Alert("Slow", {"feature": "a", "severity": "page"}, 600, 720, 780, 9),
        Alert("Slow", {"feature": "b", "severity": "page"}, 1020, 1140, None, 5),
    ]
    assert (found.pending, found.absent, steps) == (["Short"], ["ml_none"], [11, 22, 33])
    assert looks(rules(SLOW, SHORT, NOTHING), 600, 1200) == 33
    told = as_json(found)
    assert (told["start"], told["rules"]) == ("1970-01-01T00:10:00.000Z", ["Slow", "Short", "Nothing"])
    assert told["alerts"][1] == {
        "alert": "Slow",
        "labels": {"feature": "b", "severity": "page"},
        "pending": "1970-01-01T00:17:00.000Z",
        "from": "1970-01-01T00:19:00.000Z",
        "until": None,
        "peak": 5,
    }


def test_a_step_of_ones_own_goes_before_the_interval_of_the_group():
    with answering(lambda *_: (200, matrix())) as server:
        run(Prometheus(server.url), rules(SLOW), 600, 1200, 300)
    assert server.asked[0] == {
        "path": "query_range",
        "query": "ml_x > 1",
        "start": "600.000",
        "end": "1200.000",
        "step": "300.000",
    }


def test_an_expression_that_is_refused_is_told_with_its_alert():
    broken = Rule("Broken", "ml_x >", 60_000, 0, 0, {})
    with answering(answer) as server, pytest.raises(ConfigError, match=r"alert Broken: .*'ml_x >': parse error"):
        run(Prometheus(server.url), rules(broken), 600, 1200)


RECORDS = [
    Group("g", (Recording("a:steps", "sum by (b) (increase(ml_x_total[5m]))"), Recording("a:much", "sum(ml_y)")), "5m")
]
HOUR = Rule("Hour", "sum_over_time(a:steps[59m59s]) > a:much offset 1h", 300_000, 0, 0, {})


READ = "sum_over_time(a:steps[59m59s]) > a:much offset 1h"
WORKED_OUT = "sum by (b) (increase(ml_x_total[1h])) > "
BOTH = f"{WORKED_OUT}last_over_time((sum(ml_y))[5m:5m] offset 1h)"


@pytest.mark.parametrize(
    "there, dense, asked, worked_out",
    [
        ((0, 7200), True, READ, []),
        ((300, 6900), True, READ, []),
        ((0, 5000), True, BOTH, ["a:much", "a:steps"]),
        ((500, 7200), True, BOTH, ["a:much", "a:steps"]),
        # Recorded less often than the range is long.
        ((0, 7200), False, f"{WORKED_OUT}a:much offset 1h", ["a:steps"]),
    ],
)
def test_what_was_not_recorded_all_the_time_is_worked_out(
    there: tuple[float, float], dense: bool, asked: str, worked_out: Sequence[str]
):
    """Records are there in this time, from 0 to 2 hours; metrics always."""

    def some(path: str, asked: Mapping[str, str]) -> Answer:
        if path != "series":
            holds = dense or "a:" not in asked["query"]
            return 200, matrix(({}, {3600: 1})) if holds else matrix()
        known = there[0] <= float(asked["end"]) and float(asked["start"]) <= there[1]
        return 200, [{}] if known or "ml_" in asked["match[]"] else []

    with answering(some) as server:
        found = run(Prometheus(server.url), rules(HOUR, records=RECORDS), 0, 7200)
    queries = [one["query"] for one in server.asked if "query" in one]
    assert [query for query in queries if not query.startswith("count(")] == [asked] * 2
    assert (found.worked_out, found.absent, found.sparse) == (worked_out, [], {})
    assert as_json(found)["worked_out"] == worked_out


def test_ranges_that_never_hold_enough_samples_are_told_with_their_alerts():
    def few(path: str, asked: Mapping[str, str]) -> Answer:
        if path == "series":
            return 200, [] if "none" in asked["match[]"] else [{}]
        return 200, matrix(({}, {600: 1})) if "1h" in asked["query"] else matrix()

    burn = Rule("Burn", 'rate(ml_x_total{a="b"}[5m]) > rate(ml_x_total[1h]) and rate(ml_none[5m])', 60_000, 0, 0, {})
    late = Rule("Late", "quantile_over_time(0.5, ml_y[5m]) > 1 and max_over_time(ml_y[5m:1m]) > 1", 60_000, 0, 0, {})
    with answering(few) as server:
        found = run(Prometheus(server.url), rules(burn, late), 600, 1200)
    assert found.absent == ["ml_none"]
    assert found.sparse == {"Burn": {"5m": ["ml_x_total"]}, "Late": {"5m": ["ml_y"]}}
    checks = [one["query"] for one in server.asked if one.get("query", "").startswith("count(")]
    assert checks == ["count(rate(ml_x_total[5m]))", "count(rate(ml_x_total[1h]))", "count(last_over_time(ml_y[5m]))"]
