import pytest

from exporter.app.patience import Trouble, patiently
from exporter.ingest.source import Unavailable


def attempts(*troubles: Exception) -> tuple[object, list[float], int]:
    """What comes of calls that fail in turn before one succeeds, the pauses, and how many are never made."""
    pauses: list[float] = []
    left = list(troubles)

    def call() -> str:
        if left:
            raise left.pop(0)
        return "done"

    try:
        return patiently(call, pauses.append), pauses, len(left)
    except Unavailable as error:
        return error, pauses, len(left)


def test_trouble_is_waited_out_longer_each_time():
    assert attempts() == ("done", [], 0)
    assert attempts(Trouble("a"), Trouble("b")) == ("done", [1.0, 3.0], 0)


def test_the_third_attempt_is_the_last():
    found, pauses, left = attempts(Trouble("a"), Trouble("b"), Trouble("c"), Trouble("d"))
    assert (str(found), pauses, left) == ("c", [1.0, 3.0], 1)


@pytest.mark.parametrize(("after_s", "pauses"), [(0.0, [0.0]), (7.0, [7.0]), (60.0, [60.0]), (61.0, [])])
def test_a_server_is_left_alone_as_long_as_it_asks_within_reason(after_s: float, pauses: list[float]):
    found, paused, _ = attempts(Trouble("busy", after_s))
    assert paused == pauses
    assert str(found) == ("done" if pauses else "busy")


def test_what_is_no_trouble_is_told_at_once():
    refused = Unavailable("no")
    assert attempts(refused) == (refused, [], 0)
