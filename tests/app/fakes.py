"""A world that a test controls: time passes only when somebody sleeps, and a sleep is when the world changes."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from exporter.ingest.source import Chunk, Messages, Positions, Receipt, Table, Trouble


class Over(Exception):
    """The script has ended; whoever still polls is stopped."""


class FakeSurroundings:
    """Implements ingest.source.Surroundings. Each sleep plays the next step of the script."""

    def __init__(self, script: Sequence[Callable[[], object]] = (), now: float = 1_800_000_000.0) -> None:
        self.time = now
        self.reads = 0
        self._script = list(script)

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds
        if not self._script:
            raise Over
        self._script.pop(0)()
        await asyncio.sleep(0)

    async def forever(self) -> None:
        await asyncio.Event().wait()

    async def in_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        self.reads += 1
        await asyncio.sleep(0)
        return call(*arguments)


@dataclass
class FakeSink:
    """Keeps what it was given. While `open` is not set it blocks; chunk number `fails_at` is refused.

    All of it is durable once a checkpoint is asked for, unless it is not `writable`.
    """

    fails_at: int | None = None
    writable: bool = True
    chunks: list[Chunk] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    calls: int = 0
    open: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.open.set()

    async def __call__(self, chunk: Chunk) -> Receipt:
        self.calls += 1
        await self.open.wait()
        if self.calls - 1 == self.fails_at:
            raise RuntimeError("the sink has failed")
        self.chunks.append(chunk)
        size = len(chunk.payloads) if isinstance(chunk, Messages) else chunk.rows + len(chunk.rejects)
        return Receipt(size, (), 0)

    async def checkpoint(self) -> Positions | None:
        return self.positions if self.writable else None

    def report(self, trouble: Trouble) -> None:
        self.troubles.append(trouble)

    @property
    def positions(self) -> dict[str, str]:
        return {chunk.partition: chunk.position for chunk in self.chunks}

    @property
    def payloads(self) -> list[bytes]:
        return [payload for chunk in self.chunks if isinstance(chunk, Messages) for payload in chunk.payloads]

    @property
    def tables(self) -> list[Table]:
        return [chunk for chunk in self.chunks if isinstance(chunk, Table)]


async def settle(turns: int = 100) -> None:
    """Let everybody who can go on do so."""
    for _ in range(turns):
        await asyncio.sleep(0)
