"""The surroundings of sources in a running process: the wall clock and the event loop."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class LiveSurroundings:
    """Implements ingest.source.Surroundings."""

    def now(self) -> float:
        """Wall clock, epoch seconds."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Let others work for a while."""
        await asyncio.sleep(seconds)

    async def forever(self) -> None:
        """Wait until cancelled."""
        await asyncio.Event().wait()

    async def in_thread(self, call: Callable[..., T], *arguments: Any) -> T:
        """The result of a call that may block."""
        return await asyncio.to_thread(call, *arguments)
