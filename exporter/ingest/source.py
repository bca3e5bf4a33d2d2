"""The contract between sources and the rest: chunks of one partition, in order, awaited one by one.

What a source was told is durable (`commit`) it may acknowledge to where it came from, and nothing before that.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from exporter.monitor.events import Decoded, Reject
from exporter.monitor.health import SourceHealth
from exporter.stats import Floats

T = TypeVar("T")

Cells: TypeAlias = Sequence[object] | Floats


class Envelope(NamedTuple):
    """What the transport says about a message beside its bytes; "" where it says nothing."""

    model: str = ""
    version: str = ""
    content_type: str = ""


EMPTY = Envelope()


@dataclass(frozen=True, slots=True)
class Messages:
    """Undecoded events of one partition; a payload of None is a null value.

    `time` is the arrival or record time, of all or of each; `position` is where to resume after them. `envelopes`, one
    a payload, may be left out when all are empty. `rejects` are records that could not even be had as bytes. `offsets`
    tell a person where in the partition each payload is, if it is a log that can be looked up.
    """

    partition: str
    payloads: Sequence[bytes | None]
    time: float | Sequence[float]
    position: str = ""
    envelopes: Sequence[Envelope] = ()
    rejects: Sequence[Reject] = ()
    offsets: Sequence[int] = ()

    def time_of(self, index: int) -> float:
        """The arrival or record time of one message."""
        return self.time if isinstance(self.time, float) else self.time[index]


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


Positions: TypeAlias = Mapping[str, str]
"""Where each partition is to be resumed: the `position` of the last chunk whose counts are kept."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that went wrong between a source and where it reads; `reason` is one of TROUBLE_REASONS.

    `lost` records are gone for good; `redelivered` ones were counted before and will be counted again.
    """

    reason: str
    detail: str
    lost: int = 0
    redelivered: int = 0


class Sink(Protocol):
    """Where the chunks of one source go. Awaiting it is back-pressure."""

    async def __call__(self, chunk: Chunk) -> Receipt:
        """Decode and count a chunk."""
        ...

    async def checkpoint(self) -> Positions | None:
        """Make everything counted so far durable; how far that is, or None if it failed."""
        ...

    def report(self, trouble: Trouble) -> None:
        """Count and log a trouble."""
        ...


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
        """The result of a call that may block, made elsewhere. Cancelled, it waits for the call to end."""
        ...

    def from_thread(self, call: Callable[[], Awaitable[T]]) -> T:
        """The result of work that belongs to the event loop, asked for from another thread."""
        ...


class Source(Protocol):
    """Brings chunks to a sink; while the sink is awaited nothing more is read than fits a bounded queue."""

    name: str

    async def run(self, sink: Sink, resume: Positions) -> None:
        """Deliver everything after `resume`, in order; returns at the end of input. Raises Unavailable to give up.

        Cancelled, it lets go of what it holds in good order: what was counted is made durable and acknowledged.
        """
        ...

    async def commit(self, positions: Positions) -> None:
        """Take note that everything up to these positions is durable."""
        ...

    def not_ready(self) -> str | None:
        """Why the source cannot deliver now, for /readyz; None when it can."""
        ...

    def waiting(self, positions: Positions) -> Collection[str]:
        """Partitions that have, or may have, more to deliver than up to these positions: their silence is not idle."""
        ...

    def health(self) -> SourceHealth:
        """How the source is now, for the exposition."""
        ...


class Codec(Protocol):
    """Makes columns of a chunk; never raises on data."""

    def decode(self, chunk: Chunk) -> Decoded:
        """Batches, rejects with reasons, and what was dropped."""
        ...


class Unavailable(Exception):
    """A source cannot be read; the message names it and says why."""
