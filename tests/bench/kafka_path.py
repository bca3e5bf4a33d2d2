"""Kafka to windowed counters, on one core, beside what the client library alone can do.

Three readers of the same topic, in interleaved rounds: the library's own loop with our settings, which only counts what
it is given; the source, with a sink that only counts; and the source with codec and fleet. Their ratios are how much of
the library's speed is kept, whatever the machine does meanwhile.

CPU times are of this process, the library's own threads included; the broker has another core. Time is taken in the
middle of a topic only: connecting is before it, and the library's queue is as full at its end as at its beginning.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time
from typing import Any

import kafka
from confluent_kafka import Consumer, TopicPartition

from exporter.app.clock import LiveSurroundings
from exporter.app.runtime import Feed, Inlet, Runtime
from exporter.app.state import Store
from exporter.ingest import confluent, kafka_python
from exporter.ingest.envelopes import HEADERS
from exporter.ingest.http import EVENTS_AT_ONCE
from exporter.ingest.kafka import RECORDS_AT_ONCE, KafkaSource
from exporter.ingest.kafka_client import Connect, Connection, Share
from exporter.ingest.source import Chunk, Codec, Messages, Positions, Receipt, Sink, Source, Trouble
from exporter.monitor.fleet import Fleet
from exporter.monitor.reference import Reference
from tests.bench.figures import Figure, interleaved, paired
from tests.bench.hot_path import bodies_of, settle
from tests.bench.streams import CLIENTS, PARTITIONS, broker, fill
from tests.bench.workloads import W1, W2, Workload, pipeline

BUDGETS = {"confluent": 200_000, "kafka-python": 80_000}
"""W1 events a second and core."""
OF_THE_LIBRARY = 0.6
"""What kafka-python may keep of its own speed instead, where it is slow itself."""
EDGE = 40_000
"""Events before and after those that time is taken for: more than any client holds ready."""
READERS = ("library", "source", "counted")


@dataclass
class Span:
    """CPU and wall seconds from the event at which the first is passed to the one that makes it enough."""

    first: int
    last: int
    seen: int = 0
    began: tuple[int, float, float] = (0, 0.0, 0.0)
    ended: tuple[int, float, float] = (0, 0.0, 0.0)

    def passed(self, events: int) -> bool:
        """Take note of events; whether it is enough."""
        self.seen += events
        if not self.began[0] and self.seen >= self.first:
            self.began = self.seen, process_time(), time.monotonic()
        if not self.ended[0] and self.seen >= self.last:
            self.ended = self.seen, process_time(), time.monotonic()
        return bool(self.ended[0])

    @property
    def cpu_s(self) -> float:
        """CPU seconds an event."""
        return (self.ended[1] - self.began[1]) / (self.ended[0] - self.began[0])

    @property
    def wall_s(self) -> float:
        """Seconds an event, by the clock."""
        return (self.ended[2] - self.began[2]) / (self.ended[0] - self.began[0])


@dataclass
class Counting:
    """A sink that counts and nothing else."""

    span: Span
    enough: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, chunk: Chunk) -> Receipt:
        assert isinstance(chunk, Messages)
        if self.span.passed(len(chunk.payloads)):
            self.enough.set()
        await asyncio.sleep(0)
        return Receipt(len(chunk.payloads), (), 0)

    async def checkpoint(self) -> Positions | None:
        return None

    def report(self, trouble: Trouble) -> None:
        raise AssertionError(trouble)


class Observing:
    """A source's own inlet, watched."""

    def __init__(self, inlet: Inlet, span: Span) -> None:
        self._inlet = inlet
        self._span = span
        self.enough = asyncio.Event()

    async def __call__(self, chunk: Chunk) -> Receipt:
        receipt = await self._inlet(chunk)
        assert not receipt.rejects, receipt
        if self._span.passed(receipt.accepted):
            self.enough.set()
        return receipt

    async def checkpoint(self) -> Positions | None:
        return None

    def report(self, trouble: Trouble) -> None:
        raise AssertionError(trouble)


@dataclass(frozen=True)
class Topic:
    """A topic that is filled, and where it is."""

    bootstrap: str
    name: str
    workload: Workload
    references: Mapping[str, Sequence[Reference]]

    def source(self, client: str) -> KafkaSource:
        """A source that reads all of it, from its beginning."""
        share = Share(0, 1)
        return KafkaSource("kafka", LiveSurroundings(), connect(client), self.connection, [self.name], share=share)

    @property
    def connection(self) -> Connection:
        return Connection([self.bootstrap], group_id=None, earliest=True, client_id="bench")

    def fleet(self) -> tuple[Fleet, Codec]:
        """An empty fleet and the codec of its events."""
        piped = pipeline(self.references)
        return piped.fleet, piped.codec


def rates(*, quick: bool) -> list[Figure]:
    """Events a second and core of both clients, and how much of the library's own speed that is."""
    sizes = {"confluent": 60_000, "kafka-python": 40_000} if quick else {"confluent": 200_000, "kafka-python": 80_000}
    rounds = 3 if quick else 7
    with broker() as (bootstrap, kind):
        filled = [
            Topic(
                bootstrap,
                fill(bootstrap, workload, max(sizes.values()) + 2 * EDGE),
                workload,
                {workload.model: [workload.reference()]},
            )
            for workload in (W1, W2)
        ]
        spans: dict[str, list[Span]] = {}
        contenders: dict[str, Callable[[], float]] = {}
        for topic in filled:
            for client in CLIENTS:
                for name, read in (("library", alone), ("source", sourced), ("counted", counted)):
                    key = f"{topic.workload.name} {client} {name}"
                    contenders[key] = reading(read, topic, client, sizes[client], spans.setdefault(key, []))
        found = interleaved(contenders, rounds)
    figures = []
    for topic in filled:
        for client in CLIENTS:
            key = f"{topic.workload.name} {client}"
            library, source, whole = (found[f"{key} {name}"] for name in ("library", "source", "counted"))
            by_clock = {name: 1 / statistics.median(s.wall_s for s in spans[f"{key} {name}"]) for name in READERS}
            budget: float | None = None
            note = f"best {1 / min(whole):,.0f}; {by_clock['counted']:,.0f} by the clock; {kind}"
            if topic.workload is W1:
                budget = BUDGETS[client]
                if client == "kafka-python":
                    budget = min(budget, OF_THE_LIBRARY / statistics.median(library))
                    note += f"; {BUDGETS[client]:,}, or {OF_THE_LIBRARY:g} of the library alone"
            figures += [
                Figure(
                    f"{topic.workload.name} Kafka, {client} -> windowed counters",
                    1 / statistics.median(whole),
                    "events/s",
                    budget,
                    note=note,
                ),
                Figure(
                    f"{topic.workload.name} {client}, library alone",
                    1 / statistics.median(library),
                    "events/s",
                    note=f"best {1 / min(library):,.0f}; {by_clock['library']:,.0f} by the clock",
                ),
                Figure(
                    f"{topic.workload.name} {client}, source alone / library alone",
                    paired(library, source),
                    note=f"{1 / statistics.median(source):,.0f} events/s",
                ),
                Figure(
                    f"{topic.workload.name} {client}, counted / library alone",
                    paired(library, whole),
                    note="median of rounds",
                ),
            ]
    return figures


def durable(*, quick: bool) -> list[Figure]:
    """What keeping the state costs: CPU seconds of a tick that writes it, less those of one that does not.

    A tick has as many events to count as the budget's rate brings between two.
    """
    ticks, rate = (4, 50_000) if quick else (12, BUDGETS["confluent"])
    bodies = bodies_of(W1.events(20_000))
    figures = []
    for tick_s in (1, 5):
        spent = asyncio.run(_ticks(bodies, tick_s * rate, ticks))
        cost = statistics.median(spent["kept"]) - statistics.median(spent["not kept"])
        size, wrote = spent["bytes"][-1], spent["wrote"]
        figures.append(
            Figure(
                f"durable state, tick {tick_s} s: share of a core",
                100 * cost / tick_s,
                "%",
                note=f"{1000 * cost:.1f} ms a tick; {1000 * statistics.median(wrote):.1f} ms by the clock; "
                f"{size / 2**20:.1f} MiB",
            )
        )
    return figures


async def _ticks(bodies: Sequence[bytes], events: int, ticks: int) -> dict[str, list[float]]:
    """CPU seconds of ticks with and without state, in turn; wall seconds of the writes, and bytes of the state."""
    spent: dict[str, list[float]] = {"kept": [], "not kept": [], "wrote": [], "bytes": []}
    with tempfile.TemporaryDirectory() as name:
        store = Store.open(Path(name))
        runtimes = {"kept": _runtime(store), "not kept": _runtime(None)}
        settle()
        for number in range(ticks + 1):
            for kind, (runtime, inlet) in runtimes.items():
                for place in range(events // EVENTS_AT_ONCE):
                    payloads = bodies[place % len(bodies)].split(b"\n")
                    await inlet(Messages("kafka/t/0", payloads, time.time(), str(place)))
                began = process_time()
                await runtime.tick_once()
                if number:  # the first writes the whole state
                    spent[kind].append(process_time() - began)
            health = runtimes["kept"][0]._state
            assert health is not None
            assert health.trouble is None
            assert health.write_duration_s is not None
            spent["wrote"].append(health.write_duration_s)
            spent["bytes"].append(health.size_bytes)
        store.close()
    return spent


def _runtime(store: Store | None) -> tuple[Runtime, Inlet]:
    piped = pipeline({W1.model: [W1.reference()]})
    feed = Feed(_Silent("kafka"), piped.codec)
    runtime = Runtime(piped.fleet, [feed], tick_s=5, store=store)
    return runtime, Inlet(runtime, feed)


class _Silent(KafkaSource):
    """A source of which only the name and health are asked."""

    def __init__(self, name: str) -> None:
        connection = Connection([], None, earliest=True, client_id="bench")
        super().__init__(name, LiveSurroundings(), connect("confluent"), connection, [], share=Share(0, 1))


# ---- readers ---------------------------------------------------------------------------------------------------------


def reading(
    read: Callable[[Topic, str, Span], None], topic: Topic, client: str, events: int, spans: list[Span]
) -> Callable[[], float]:
    """A round: CPU seconds an event."""

    def once() -> float:
        span = Span(EDGE, EDGE + events)
        settle()
        read(topic, client, span)
        spans.append(span)
        return span.cpu_s

    return once


def alone(topic: Topic, client: str, span: Span) -> None:
    """The library's own loop, as its users write it, with our settings."""
    places = range(PARTITIONS)
    if client == "confluent":
        theirs = Consumer(confluent._options(topic.connection))
        theirs.assign([TopicPartition(topic.name, number, 0) for number in places])
        while not span.passed(len(theirs.consume(RECORDS_AT_ONCE, 0.25))):
            pass
        theirs.close()
        return
    consumer = kafka.KafkaConsumer(**kafka_python._options(topic.connection))
    consumer.assign([kafka.TopicPartition(topic.name, number) for number in places])
    consumer.seek_to_beginning()
    while not span.passed(sum(map(len, consumer.poll(250, RECORDS_AT_ONCE).values()))):
        pass
    consumer.close()


def sourced(topic: Topic, client: str, span: Span) -> None:
    """Our source, its chunks thrown away."""

    async def read() -> None:
        sink = Counting(span)
        await _until(sink.enough, topic.source(client), sink)

    asyncio.run(read())


def counted(topic: Topic, client: str, span: Span) -> None:
    """Our source, its chunks decoded and counted by a runtime that does not tick; rows that wait are counted last."""

    async def read() -> None:
        fleet, codec = topic.fleet()
        feed = Feed(topic.source(client), codec)
        runtime = Runtime(fleet, [feed], tick_s=5)
        settle()
        sink = Observing(Inlet(runtime, feed), span)
        await _until(sink.enough, feed.source, sink)
        assert sum(feed.events for feed in fleet.tick(time.time()).feeds.values()) >= span.last

    asyncio.run(read())


async def _until(enough: asyncio.Event, source: Source, sink: Sink) -> None:
    """Run a source until it has brought enough."""
    running = asyncio.create_task(source.run(sink, {}))
    waiting = asyncio.create_task(enough.wait())
    done, _ = await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
    if running in done:
        running.result()
        raise AssertionError("the source has ended")
    running.cancel()
    await asyncio.wait([running])


def connect(client: str) -> Connect:
    """How the exporter makes a client."""
    made: dict[str, Callable[..., Any]] = {
        "confluent": confluent.ConfluentClient,
        "kafka-python": kafka_python.KafkaPythonClient,
    }
    return lambda connection, rebalancing: made[client](connection, rebalancing, HEADERS)
