"""Trouble of a server that may be over the next time is waited out, a few times; all else is told at once."""

from collections.abc import Callable
from typing import TypeVar

from exporter.ingest.source import Unavailable

Result = TypeVar("Result")

_PAUSES_S = (1.0, 3.0)
"""Before the second attempt and the third, which is the last."""
_LONGEST_S = 60.0
"""A server that asks for more is not waited for: whoever runs a command may do so later."""


class Trouble(Unavailable):
    """A server that may answer the next time; `after_s` is how long it asks to be left alone, if it does."""

    def __init__(self, message: str, after_s: float | None = None) -> None:
        super().__init__(message)
        self.after_s = after_s


def patiently(call: Callable[[], Result], pause: Callable[[float], None]) -> Result:
    """What a call returns, at the third attempt at the latest. Raises Trouble if that fails too, or is too far off.

    What is attempted must come to the same done twice: an answer may be lost after the deed is done.
    """
    for pause_s in (*_PAUSES_S, None):
        try:
            return call()
        except Trouble as trouble:
            if pause_s is None or (trouble.after_s or 0.0) > _LONGEST_S:
                raise
            pause(pause_s if trouble.after_s is None else trouble.after_s)
    raise AssertionError("the last attempt returns or raises")
