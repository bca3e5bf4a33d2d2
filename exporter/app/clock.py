"""The surroundings of sources in a running process: the wall clock and the event loop."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")


class LiveSurroundings:
    """Implements ingest.source.Surroundings; belongs to the event loop in which it is first asked to wait."""

    _loop: asyncio.AbstractEventLoop

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
        """The result of a call that may block. Cancelled, it waits for its end: nobody else may use its objects yet."""
        self._loop = asyncio.get_running_loop()
        calling = asyncio.ensure_future(asyncio.to_thread(call, *arguments))
        try:
            return await asyncio.shield(calling)
        except asyncio.CancelledError:
            await asyncio.wait([calling])
            if not calling.cancelled():
                calling.exception()  # nobody else will ask, and asyncio would complain
            raise

    def from_thread(self, call: Callable[[], Awaitable[T]]) -> T:
        """The result of work that belongs to the event loop, asked for from another thread."""

        async def work() -> T:
            return await call()

        return asyncio.run_coroutine_threadsafe(work(), self._loop).result()
