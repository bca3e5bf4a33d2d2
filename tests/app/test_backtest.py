from collections.abc import Mapping

import pytest

from exporter.app.alerting import Rule
from exporter.app.backtest import Alert, as_json, run
from exporter.app.config import ConfigError
from exporter.app.prometheus import Prometheus
from tests.app.answering import Answer, answering, matrix

A = {"__name__": "ml_x", "feature": "a"}
B = {"__name__": "ml_x", "feature": "b"}
SLOW = Rule("Slow", "ml_x > 1", 60_000, 120_000, 0, {"severity": "page"})
NOTHING = Rule("Nothing", "ml_none > 1", 60_000, 0, 0, {})
SHORT = Rule("Short", "ml_y > 1", 60_000, 120_000, 0, {})


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
        found = run(Prometheus(server.url), [SLOW, SHORT, NOTHING], 600, 1200, progress=steps.append)
    assert found.alerts == [
        Alert("Slow", {"feature": "a", "severity": "page"}, 600, 720, 780, 9),
        Alert("Slow", {"feature": "b", "severity": "page"}, 1020, 1140, None, 5),
    ]
    assert (found.pending, found.absent, steps) == (["Short"], ["ml_none"], [1, 2, 3])
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
        run(Prometheus(server.url), [SLOW], 600, 1200, 300)
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
        run(Prometheus(server.url), [broken], 600, 1200)
