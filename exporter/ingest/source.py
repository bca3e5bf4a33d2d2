"""The contract between sources and the rest: chunks of one partition, in order, awaited one by one."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

from exporter.monitor.events import Decoded, Reject
from exporter.stats import Floats

T = TypeVar("T")

Cells: TypeAlias = Sequence[object] | Floats


@dataclass(frozen=True, slots=True)
class Messages:
    """Undecoded events of one partition. `time` is their arrival or record time, `position` where to resume after."""

    partition: str
    payloads: Sequence[bytes]
    time: float
    position: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one partition as columns of Python values or numbers (None, NaN and "" are missing).

    `rejects` are rows that had no columns at all; they are not counted in `rows`.
    """

    partition: str
    columns: Mapping[str, Cells]
    rows: int
    time: float
    position: str = ""
    rejects: Sequence[Reject] = ()


Chunk: TypeAlias = Messages | Table


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a chunk."""

    accepted: int
    rejects: Sequence[Reject]
    dropped: int


Sink: TypeAlias = Callable[[Chunk], Awaitable[Receipt]]
Positions: TypeAlias = Mapping[str, str]
"""Where each partition is to be resumed: the `position` of the last chunk whose counts are kept."""


class Surroundings(Protocol):
    """What a source needs of the world beside its input; below the top floor nobody asks the time or waits."""

    def now(self) -> float:
        """Wall clock, epoch seconds."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Let others work for a while."""
        ...

    async def forever(self) -> None:
        """Wait until cancelled."""
        ...

    async def in_thread(self, call: Callable[..., T], *arguments: Any) -> T:
        """The result of a call that may block, made elsewhere."""
        ...


class Source(Protocol):
    """Brings chunks to a sink. Awaiting the sink is back-pressure: nothing is read ahead."""

    name: str

    async def run(self, sink: Sink, resume: Positions) -> None:
        """Deliver everything after `resume`, in order; returns at the end of input. Raises Unavailable to give up."""
        ...

    def not_ready(self) -> str | None:
        """Why the source cannot deliver now, for /readyz; None when it can."""
        ...


class Codec(Protocol):
    """Makes columns of a chunk; never raises on data."""

    def decode(self, chunk: Chunk) -> Decoded:
        """Batches, rejects with reasons, and what was dropped."""
        ...


class Unavailable(Exception):
    """A source cannot be read; the message names it and says why."""
