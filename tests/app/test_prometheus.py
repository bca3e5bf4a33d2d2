import math
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate, chain, repeat

import pytest

from exporter.app.config import ConfigError
from exporter.app.prometheus import MOST_POINTS, Grid, Prometheus, grid
from exporter.ingest.source import Unavailable
from tests.app.answering import Answer, Answering, answering, matrix

MINUTES = Grid(600_000, 60_000, 3)


def series(server: Answering, moments: Grid = MINUTES) -> list[tuple[dict[str, str], list[tuple[int, float]]]]:
    asked = Prometheus(server.url, pause=lambda _: None).range("up == 1", moments)
    return [(dict(labels), list(values)) for labels, values in asked]


def test_a_grid_has_both_ends_and_lies_on_multiples_of_its_step():
    assert grid(600, 720, 60) == MINUTES
    assert grid(610.5, 779.9, 60) == MINUTES
    assert grid(600, 600, 60).count == 1
    assert grid(0.5, 1, 0.25) == Grid(500, 250, 3)


def test_values_come_with_the_number_of_their_moment():
    values = {600: 1, 720: math.inf}
    with answering(lambda *_: (200, matrix(({"job": "a"}, values)))) as server:
        assert series(server) == [({"job": "a"}, [(0, 1.0), (2, math.inf)])]
    assert server.asked == [
        {"path": "query_range", "query": "up == 1", "start": "600.000", "end": "720.000", "step": "60.000"}
    ]


def edges(_: str, asked: Mapping[str, str]) -> Answer:
    return 200, matrix(({}, {float(asked["start"]): 1, float(asked["end"]): 2}))


def parts(answer: Callable[[str, Mapping[str, str]], Answer], count: int, took_s: Iterable[float] = ()) -> list[int]:
    """How many moments each answer had, if they took so long and the rest no time; they must be all, in order."""
    told = list[int]()
    now = chain.from_iterable((0.0, one) for one in chain(took_s, repeat(0.0)))
    with answering(answer) as server:
        asked = Prometheus(server.url, clock=lambda: next(now)).range("up", grid(60, count * 60, 60), told.append)
        places = [place for _, values in asked for place, _ in values]
    lasts = [done - 1 for done in accumulate(told)]
    assert places == sorted({0, *lasts, *(last + 1 for last in lasts[:-1])})
    assert lasts[-1] == count - 1
    return told


def test_no_more_points_are_asked_for_than_prometheus_gives():
    assert parts(edges, 25_000) == [16, 160, 1600, MOST_POINTS, MOST_POINTS, 1224]


def test_as_much_is_asked_for_as_is_answered_in_ten_seconds():
    assert parts(edges, 100, [5, 20, 40, 200]) == [16, 32, 16, 4, 1, 10, 21]


@pytest.mark.parametrize(
    "status, reason",
    [
        (503, "query timed out in expression evaluation"),
        (422, "query processing would load too many samples into memory in query execution"),
    ],
)
def test_a_question_that_is_too_much_is_put_in_parts(status: int, reason: str):
    def small(path: str, asked: Mapping[str, str]) -> Answer:
        few = float(asked["end"]) - float(asked["start"]) < 120
        return edges(path, asked) if few else (status, reason)

    assert parts(small, 4) == [1, 1, 2]
    with answering(lambda *_: (status, reason)) as server, pytest.raises(Unavailable, match=reason):
        series(server)
    assert len(server.asked) == 2


@pytest.mark.parametrize("trouble", [503, 500, 429])
def test_a_server_in_trouble_is_asked_again(trouble: int):
    answers = iter([(trouble, "starting"), (trouble, "starting"), (200, matrix())])
    pauses = list[float]()
    with answering(lambda *_: next(answers)) as server:
        assert list(Prometheus(server.url, pause=pauses.append).range("up", MINUTES)) == []
    assert pauses == [1, 3]


@pytest.mark.parametrize(
    "answer, message, attempts",
    [
        ((503, "starting"), "answers 503 Service Unavailable", 3),
        ((401, "who?"), "answers 401 Unauthorized", 1),
        ((302, "there"), "answers 302 Found", 1),
        ((200, b"<html>"), "what answers there is no Prometheus", 1),
        ((200, b"[]"), "what answers there is no Prometheus", 1),
    ],
)
def test_one_that_has_no_answer_is_named(answer, message: str, attempts: int):
    with answering(lambda *_: answer) as server, pytest.raises(Unavailable, match=f"{server.url}: {message}"):
        series(server)
    assert len(server.asked) == attempts


def test_one_that_is_not_there_is_named():
    with answering(lambda *_: (200, matrix())) as server:
        pass
    with pytest.raises(Unavailable, match=f"{server.url}: .*refused"):
        series(server)


def test_a_wrong_expression_is_asked_once_and_what_is_wrong_is_told():
    with (
        answering(lambda *_: (400, "parse error: unclosed left parenthesis")) as server,
        pytest.raises(ConfigError, match="refuses 'up == 1': parse error: unclosed left parenthesis"),
    ):
        series(server)
    assert len(server.asked) == 1


def test_the_token_is_sent_to_this_server():
    with answering(lambda *_: (200, [{"__name__": "up"}])) as server:
        assert Prometheus(server.url + "/", token="open").has("up", 0, 1)
        assert Prometheus(server.url).has("up", 0, 1)
    assert server.tokens == ["Bearer open", None]
    span = {"start": "0.000", "end": "1.000", "limit": "1"}
    assert server.asked[0] == {"path": "series", "match[]": '{__name__="up"}', **span}


@pytest.mark.parametrize("url", ["prometheus:9090", "file:///etc/passwd", "http://", ""])
def test_only_http_is_asked(url: str):
    with pytest.raises(ConfigError, match=r"--prometheus: a URL such as .* expected"):
        Prometheus(url)
