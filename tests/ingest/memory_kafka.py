"""A Kafka cluster in memory and a client of it: what happens, and when, is up to the test. Waiting is what time is."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from exporter.ingest.envelopes import HEADERS, envelopes_of
from exporter.ingest.kafka_client import Blocked, Bounds, Connection, Rebalancing, Unreachable
from exporter.ingest.lanes import Partition, Records
from exporter.monitor.events import Reject
from tests.brokers.topics import Record
from tests.builders import NOW

_names = count(1)


@dataclass
class Log:
    """One partition: records by offset, of which some may be missing, and some unreadable."""

    records: dict[int, Record] = field(default_factory=dict)
    spoilt: set[int] = field(default_factory=set)
    packed: set[int] = field(default_factory=set)
    first: int = 0
    end: int = 0


@dataclass
class Group:
    """A consumer group. Whoever comes, goes or is lost makes all others give up what they have, and join anew."""

    members: list["MemoryClient"] = field(default_factory=list)
    offsets: dict[Partition, int] = field(default_factory=dict)
    waiting: list["MemoryClient"] = field(default_factory=list)
    generation: int = 0


class MemoryKafka:
    """The cluster. While it is `away` nothing is answered; what it `refuses` is told to whoever connects."""

    def __init__(self) -> None:
        self.time = NOW
        self.away = False
        self.refuses: Unreachable | None = None
        self.refuses_commits = False
        self.logs: dict[str, list[Log]] = {}
        self.groups: dict[str, Group] = {}
        self.clients: list[MemoryClient] = []

    def connect(self, connection: Connection, rebalancing: Rebalancing) -> "MemoryClient":
        """Implements kafka_client.Connect."""
        self.answer()
        if self.refuses is not None:
            raise self.refuses
        client = MemoryClient(self, connection, rebalancing)
        self.clients.append(client)
        return client

    # ---- what tests do to it, as tests.brokers.topics does to real ones ----------------------------------------------

    def create(self, partitions: int = 1, *, name: str | None = None) -> str:
        name = name or f"topic-{next(_names)}"
        self.logs[name] = [Log() for _ in range(partitions)]
        return name

    def add_partitions(self, topic: str, total: int) -> None:
        self.logs[topic] += [Log() for _ in range(total - len(self.logs[topic]))]
        for group in self.groups.values():
            group.generation += 1

    def delete(self, topic: str) -> None:
        del self.logs[topic]

    def trim(self, topic: str, before: Mapping[int, int]) -> None:
        for number, first in before.items():
            log = self.logs[topic][number]
            log.first = first
            log.records = {offset: record for offset, record in log.records.items() if offset >= first}

    def produce(self, topic: str, records: Iterable[Record], compression: str = "none") -> None:
        for record in records:
            log = self.logs[topic][max(record.partition, 0)]
            log.records[log.end] = record._replace(timestamp_ms=record.timestamp_ms or int(self.time * 1000))
            log.end += 1

    def produce_in_transaction(self, topic: str, records: Sequence[Record], *, commit: bool) -> None:
        for record in records:
            if commit:
                self.produce(topic, [record])
            else:
                self.logs[topic][max(record.partition, 0)].end += 1
        for number in {max(record.partition, 0) for record in records}:
            self.logs[topic][number].end += 1

    def committed(self, group: str) -> dict[tuple[str, int], int]:
        return {(one.topic, one.number): offset for one, offset in self.groups.get(group, Group()).offsets.items()}

    def lose(self, client: "MemoryClient") -> None:
        """The client's session has timed out: the group goes on without it."""
        group = self.groups[client.connection.group_id or ""]
        group.members.remove(client)
        group.generation += 1

    # ---- for clients -----------------------------------------------------------------------------------------------

    def answer(self) -> None:
        if self.away:
            raise Unreachable("connection", "cannot reach the cluster: it is away")

    def log(self, partition: Partition) -> Log | None:
        logs = self.logs.get(partition.topic, [])
        return logs[partition.number] if partition.number < len(logs) else None


class MemoryClient:
    """Implements kafka_client.Client."""

    def __init__(self, broker: MemoryKafka, connection: Connection, rebalancing: Rebalancing) -> None:
        self.connection = connection
        self.paused: set[Partition] = set()
        self.closed = False
        self.fetched = 0
        self.topics: Sequence[str] = ()
        self.positions: dict[Partition, int] = {}
        self._broker = broker
        self._rebalancing = rebalancing
        self._group: Group | None = None
        self._generation = 0
        self._turn = 0

    def subscribe(self, topics: Sequence[str]) -> None:
        self._broker.answer()
        self.topics = topics
        self._group = self._broker.groups.setdefault(self.connection.group_id or "", Group())
        self._group.members.append(self)
        self._group.generation += 1

    def assign(self, offsets: Mapping[Partition, int]) -> None:
        self._broker.answer()
        self.positions |= offsets

    def poll(self, timeout_s: float, limit: int) -> Sequence[Records | Blocked]:
        found: list[Records | Blocked] = []
        if not self._broker.away:
            self._rebalance()
            partitions = [one for one in self.positions if one not in self.paused]
            self._turn += 1
            for place in range(len(partitions)):
                found += self._fetch(partitions[(place + self._turn) % len(partitions)], limit)
        if not any(isinstance(one, Records) and one.values for one in found):
            self._broker.time += timeout_s
        return found

    def pause(self, partitions: Collection[Partition]) -> None:
        self.paused = set(partitions)

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        self._broker.answer()
        if self._broker.refuses_commits:
            raise Unreachable("other", "the group is busy")
        self._broker.groups.setdefault(self.connection.group_id or "", Group()).offsets.update(offsets)

    def committed(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        self._broker.answer()
        offsets = self._group.offsets if self._group else {}
        return {partition: offsets[partition] for partition in partitions if partition in offsets}

    def partitions(self, topics: Iterable[str]) -> Mapping[str, Collection[int]]:
        self._broker.answer()
        return {topic: set(range(len(self._broker.logs[topic]))) for topic in topics if topic in self._broker.logs}

    def bounds(self, partitions: Collection[Partition]) -> Mapping[Partition, Bounds]:
        self._broker.answer()
        logs = {partition: self._broker.log(partition) for partition in partitions}
        return {partition: Bounds(log.first, log.end) for partition, log in logs.items() if log is not None}

    def close(self) -> None:
        self.closed = True
        if self._group and self in self._group.members and not self._broker.away:
            self._give_up(lost=False)
            self._broker.lose(self)

    # ---- groups ----------------------------------------------------------------------------------------------------

    def _rebalance(self) -> None:
        group = self._group
        if group is None or self._generation == group.generation:
            return
        if self not in group.members:
            self._give_up(lost=True)
            group.members.append(self)
            group.generation += 1
        if self not in group.waiting:
            self._give_up(lost=False)
            group.waiting.append(self)
        if not set(group.members) <= set(group.waiting):
            return
        for member in group.members:
            member.join(group)
        group.waiting = []

    def _give_up(self, *, lost: bool) -> None:
        offsets = self._rebalancing.revoked(set(self.positions), lost=lost) if self.positions else {}
        self.positions = {}
        if self._group and offsets and not lost:
            self._group.offsets.update(offsets)

    def join(self, group: Group) -> None:
        """Get a share of a group that is complete."""
        self._generation = group.generation
        place, of = group.members.index(self), len(group.members)
        ours = {
            Partition(topic, number)
            for topic in self.topics
            for number in range(len(self._broker.logs.get(topic, ())))
            if number % of == place
        }
        for partition in ours:
            self.positions[partition] = group.offsets.get(partition, self._reset(partition))
        self._rebalancing.assigned(ours)

    # ---- reading ---------------------------------------------------------------------------------------------------

    def _reset(self, partition: Partition) -> int:
        log = self._broker.log(partition)
        assert log is not None
        return log.first if self.connection.earliest else log.end

    def _fetch(self, partition: Partition, limit: int) -> list[Records | Blocked]:
        log = self._broker.log(partition)
        if log is None:
            return []
        if not log.first <= self.positions[partition] <= log.end:
            self.positions[partition] = self._reset(partition)
        position = self.positions[partition]
        offsets: list[int] = []
        while position < log.end and len(offsets) < limit and position not in log.spoilt | log.packed:
            if position in log.records:
                offsets.append(position)
            position += 1
        if position in log.packed and not offsets:
            self.paused.add(partition)
            return [Blocked(partition, "unsupported_compression", f"{partition} at offset {position}: no codec")]
        rejects = []
        if position in log.spoilt and not offsets:
            rejects = [Reject(0, "corrupt_record", f"{partition} offset {position}: spoilt")]
            position += 1
        self.positions[partition] = position
        self.fetched += len(offsets)
        records = [log.records[offset] for offset in offsets]
        return [
            Records(
                partition,
                position,
                [record.timestamp_ms / 1000 for record in records],
                [record.value for record in records],
                offsets,
                envelopes_of([record.headers for record in records], HEADERS),
                rejects,
            )
        ]


class MemorySurroundings:
    """Implements ingest.source.Surroundings: the cluster's time, and one thread for all."""

    def __init__(self, broker: MemoryKafka) -> None:
        self._broker = broker

    def now(self) -> float:
        return self._broker.time

    async def sleep(self, seconds: float) -> None:
        self._broker.time += seconds
        await asyncio.sleep(0)

    async def forever(self) -> None:
        raise AssertionError("nobody asked for this")

    async def in_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        await asyncio.sleep(0)
        return call(*arguments)

    def from_thread(self, call: Callable[[], Any]) -> Any:
        work = call().__await__()
        try:
            while True:
                next(work)
        except StopIteration as done:
            return done.value
