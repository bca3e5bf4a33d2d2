"""A Kafka source at work: on the cluster in memory, or with a client library on a broker."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial, wraps
from types import TracebackType
from typing import Any, ParamSpec, Protocol, Self

from exporter.app.clock import LiveSurroundings
from exporter.ingest.confluent import ConfluentClient
from exporter.ingest.envelopes import HEADERS
from exporter.ingest.kafka import KafkaSource
from exporter.ingest.kafka_client import Connect, Connection, Sasl, Share, Tls
from exporter.ingest.kafka_python import KafkaPythonClient
from exporter.ingest.source import Messages, Positions, Reject, Surroundings
from tests.app.fakes import FakeSink
from tests.brokers import topics
from tests.brokers.security import PASSWORD, USER, Access, token
from tests.e2e.waiting import soon
from tests.ingest.memory_kafka import MemoryKafka, MemorySurroundings

P = ParamSpec("P")

WHOLE = Share(0, 1)
CLIENTS = {"kafka-python": KafkaPythonClient, "confluent": ConfluentClient}

_HURRY = 20
_SESSION_S = 6.0


def runs(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """A test in an event loop of its own."""

    @wraps(test)
    def run(*arguments: P.args, **named: P.kwargs) -> None:
        asyncio.run(test(*arguments, **named))

    return run


class World(Protocol):
    """A cluster, what tests do to it (`kafka` as tests.brokers.topics), and how a source gets there."""

    kafka: Any
    access: Access
    connect: Connect

    def surroundings(self) -> Surroundings:
        """A clock and threads that fit the cluster."""
        ...


class Memory:
    def __init__(self) -> None:
        self.kafka = MemoryKafka()
        self.access = Access("memory")
        self.connect = self.kafka.connect

    def surroundings(self) -> Surroundings:
        return MemorySurroundings(self.kafka)


class Real:
    def __init__(self, client: str, bootstrap: str, access: Access | None = None) -> None:
        """Sources connect by `access`; the test itself always without security."""
        self.kafka = _Cluster(bootstrap)
        self.access = access or Access(bootstrap)
        self.connect = partial(CLIENTS[client], headers=HEADERS)

    def surroundings(self) -> Surroundings:
        return HurriedSurroundings()


class _Cluster:
    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return partial(getattr(topics, name), self._bootstrap)


class HurriedSurroundings(LiveSurroundings):
    """A process whose clock runs so fast that nobody waits long for what is done every few seconds."""

    def __init__(self) -> None:
        self._started, self._began = time.time(), time.monotonic()

    def now(self) -> float:
        return self._started + (time.monotonic() - self._began) * _HURRY

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / _HURRY)


class Reader:
    """A source that runs while the context lasts, and whoever waits for it."""

    def __init__(
        self,
        world: World,
        *names: str,
        sink: FakeSink | None = None,
        resume: Mapping[tuple[str, int], int] | None = None,
        share: Share | None = WHOLE,
        group: str | None = None,
        earliest: bool = True,
        slack_s: float = 900.0,
        equal_partitions: bool = False,
        **secrets: str,
    ) -> None:
        """Reads all partitions by itself, unless another `share` or none (a group) is given."""
        self.sink = sink or FakeSink()
        connection = Connection(
            world.access.bootstrap.split(","),
            group,
            earliest,
            "tests",
            session_timeout_s=_SESSION_S,
            tls=Tls(ca_file=str(world.access.ca)) if world.access.ca else None,
            sasl=_sasl(world.access, **secrets) if world.access.mechanism else None,
        )
        self.source = KafkaSource(
            "kafka",
            world.surroundings(),
            world.connect,
            connection,
            names,
            share=share,
            equal_partitions=equal_partitions,
            slack_s=slack_s,
        )
        self._resume = {f"kafka/{topic}/{number}": str(offset) for (topic, number), offset in (resume or {}).items()}
        self._running: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self.source.run(self.sink, self._resume))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Cancel it, and wait until it is gone."""
        if self._running is not None:
            running, self._running = self._running, None
            running.cancel()
            (ended,) = await asyncio.gather(running, return_exceptions=True)
            if not isinstance(ended, asyncio.CancelledError):
                raise AssertionError("the source has ended by itself") from ended

    async def until(self, condition: Callable[[], object], *, within_s: float = 20.0) -> None:
        """Wait for a condition, as long as the source runs."""

        def met() -> object:
            assert self._running is None or not self._running.done(), "the source has ended"
            return condition()

        await soon(met, self.said, within_s=within_s)

    async def has(self, count: int) -> None:
        """Wait for so many records, rejected ones included."""
        await self.until(lambda: len(self.messages) + len(self.rejects) >= count)

    async def ready(self) -> None:
        await self.until(lambda: self.source.not_ready() is None)

    async def tick(self) -> None:
        """As the runtime does every few seconds: make durable, acknowledge."""
        positions = await self.sink.checkpoint()
        if positions is not None:
            await self.source.commit(positions)

    def said(self) -> str:
        shown = (self.source.not_ready(), self.source.health(), self.sink.troubles[-5:], self.sink.positions)
        return f"{len(self.messages)} messages, {len(self.rejects)} rejects, {shown}"

    @property
    def chunks(self) -> list[Messages]:
        return [chunk for chunk in self.sink.chunks if isinstance(chunk, Messages)]

    @property
    def messages(self) -> list[bytes | None]:
        """What was delivered, in order."""
        return [payload for chunk in self.chunks for payload in chunk.payloads]

    @property
    def rejects(self) -> list[Reject]:
        return [reject for chunk in self.chunks for reject in chunk.rejects]

    def by_partition(self) -> dict[tuple[str, int], list[bytes | None]]:
        """What was delivered of each topic and partition, in order."""
        found: dict[tuple[str, int], list[bytes | None]] = {}
        for chunk in self.chunks:
            _, topic, number = chunk.partition.split("/")
            found.setdefault((topic, int(number)), []).extend(chunk.payloads)
        return {place: payloads for place, payloads in found.items() if payloads}

    @property
    def positions(self) -> dict[tuple[str, int], int]:
        return places(self.sink.positions)

    def troubles(self, reason: str) -> list[str]:
        return [trouble.detail for trouble in self.sink.troubles if trouble.reason == reason]

    def lost(self) -> int:
        return sum(trouble.lost for trouble in self.sink.troubles)

    def redelivered(self) -> int:
        return sum(trouble.redelivered for trouble in self.sink.troubles)


def places(positions: Positions) -> dict[tuple[str, int], int]:
    """Positions of a source by topic and partition."""
    split = {key: key.split("/") for key in positions}
    return {(topic, int(number)): int(positions[key]) for key, (_, topic, number) in split.items()}


def numbered(count: int, partitions: int = 1, start: int = 0) -> list[topics.Record]:
    """Records that say their number, dealt out in turn."""
    return [topics.Record(b"%d" % number, partition=number % partitions) for number in range(start, start + count)]


def values(records: Sequence[topics.Record]) -> dict[int, list[bytes | None]]:
    """Values by partition."""
    found: dict[int, list[bytes | None]] = {}
    for record in records:
        found.setdefault(max(record.partition, 0), []).append(record.value)
    return found


def _sasl(access: Access, username: str = USER, password: str = PASSWORD) -> Sasl:
    mechanism = access.mechanism or ""
    return Sasl(mechanism, token=token) if mechanism == "OAUTHBEARER" else Sasl(mechanism, username, password)
