"""Waiting for a condition with a deadline, never for a length of time."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_POLL_S = 0.05


def eventually(condition: Callable[[], T], what: str | Callable[[], str], *, within_s: float = 10.0) -> T:
    """The first true value of the condition. A refused or broken connection counts as not yet."""
    deadline = time.monotonic() + within_s
    last: object = None
    while time.monotonic() < deadline:
        try:
            if last := condition():
                return last
        except OSError as error:
            last = error
        time.sleep(_POLL_S)
    said = what if isinstance(what, str) else what()
    raise AssertionError(f"not within {within_s:g} s: {said}; last seen: {last!r}")


async def soon(condition: Callable[[], T], what: Callable[[], str], *, within_s: float = 10.0) -> T:
    """The first true value of the condition, while others in the event loop go on."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if last := condition():
            return last
        await asyncio.sleep(0.001)
    raise AssertionError(f"not within {within_s:g} s: {what()}")
