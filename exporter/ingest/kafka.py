"""Kafka as a source, whichever client library reads it.

Two ways to own partitions:

- `group`: a consumer group shares them out. When one is taken away, the state is made durable and its offset committed
  first. After a crash the committed offsets win, and whoever gets the partition counts again what came after them: at
  least once, the surplus being at most what one tick brings. Where the surplus is known it is counted.
- `static`: partition p belongs to member p mod N, for ever. The offsets lie in the state, in one transaction with the
  counts they stand for: exactly once. Offsets are committed to Kafka as well, for tools that show lag.

The client is asked one thing at a time, on a worker thread; what it fetched waits in bounded lanes (`lanes.Lanes`).
Whatever is wrong with the cluster is counted and told to /readyz, and tried again until it is right: broker gone, topic
missing, not authorised. A record that cannot be read costs nobody else anything. The one thing that blocks a partition
is a compression codec that is not installed: its records are good, and come when it is.

Profile (one core, 829-byte events, lz4): of 4.5 us an event through confluent-kafka, decoding and counting take 3.4,
making values and times of its messages 0.75, fetching and decompressing on its own threads 0.45. Through kafka-python
it is 8.1 us, 4.8 of them its unpacking of records in Python. Hops between threads, grouping by partition, pausing and
the lanes are 1 to 2 % together; asking for 2000 records at once gains 4 % and holds the event loop twice as long.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from exporter.ingest.kafka_client import Blocked, Bounds, Client, Connect, Connection, Share, Unreachable
from exporter.ingest.lanes import Lanes, Partition, Records
from exporter.ingest.lenient import MESSAGE_LIMIT_BYTES
from exporter.ingest.source import Messages, Positions, Sink, Surroundings, Trouble
from exporter.monitor.events import Reject
from exporter.monitor.health import SourceHealth

POLL_S = 0.25
"""Longest wait for records; commits and a shutdown wait for it."""

RECORDS_AT_ONCE = 1000
"""Records asked for at once; more of them no longer fit the cache, which costs more than it saves."""

CHECK_S = 5.0
"""How often topics, partitions and lag are looked at, and a cluster that is away is tried again."""

RETRY_S = 1.0


class KafkaSource:
    """Topics of one cluster."""

    def __init__(
        self,
        name: str,
        surroundings: Surroundings,
        connect: Connect,
        connection: Connection,
        topics: Sequence[str],
        *,
        share: Share | None = None,
        equal_partitions: bool = False,
        slack_s: float = 900.0,
    ) -> None:
        """`share` makes ownership static; `slack_s` is how far apart in record time partitions may be read.

        With `equal_partitions` topics are only read if all have equally many: what is keyed alike then lies alike.
        """
        self.name = name
        self._surroundings = surroundings
        self._connect = connect
        self._connection = connection
        self._topics = tuple(dict.fromkeys(topics))
        self._share = share
        self._equal_partitions = equal_partitions
        self._slack_s = slack_s
        self._lanes = Lanes(slack_s)
        self._counted: dict[Partition, int] = {}
        self._read_to: dict[Partition, int] = {}
        self._gaps: list[tuple[Partition, int, int]] = []
        self._fresh: set[Partition] = set()
        self._owned: set[Partition] = set()
        self._ends: dict[Partition, int] = {}
        self._blocked: dict[Partition, str] = {}
        self._committed: dict[Partition, int] = {}
        self._to_commit: dict[Partition, int] = {}
        self._reachable = False
        self._trouble: str | None = "not connected yet"
        self._sink: Sink | None = None
        self._leaving = False

    # ---- for others ------------------------------------------------------------------------------------------------

    def not_ready(self) -> str | None:
        """What is wrong with the cluster, a topic or a partition."""
        wrong = self._trouble or next(iter(self._blocked.values()), None)
        return None if wrong is None else f"{self.name}: {wrong}"

    def waiting(self, positions: Positions) -> Collection[str]:
        """Partitions of which the broker holds more; all that were ever read while it cannot be asked."""
        return {self._key(partition) for partition in self._pending()} if self._reachable else positions.keys()

    def health(self) -> SourceHealth:
        """Guarantee, partitions and lag."""
        lags = [end - self._counted[partition] for partition, end in self._ends.items() if partition in self._counted]
        return SourceHealth(
            "at_least_once" if self._share is None else "exactly_once",
            ready=self.not_ready() is None,
            partitions=len(self._owned),
            lag_records=sum(max(lag, 0) for lag in lags) if self._ends or not self._owned else None,
        )

    async def commit(self, positions: Positions) -> None:
        """Note what can be committed; the next turn of the loop does it."""
        if self._connection.group_id is not None:
            self._to_commit = {self._partition(key): int(position) for key, position in positions.items()}

    async def run(self, sink: Sink, resume: Positions) -> None:
        """Read until cancelled; whatever goes wrong with the cluster is tried again."""
        self._sink = sink
        self._counted = {self._partition(key): int(position) for key, position in resume.items()}
        while True:
            try:
                await self._read(sink)
            except Unreachable as error:
                self._went_wrong(sink, error)
                self._reachable = False
            await self._surroundings.sleep(RETRY_S)

    # ---- one connection --------------------------------------------------------------------------------------------

    async def _read(self, sink: Sink) -> None:
        """Connect and read until something is so wrong that only another connection helps."""
        in_thread = self._surroundings.in_thread
        self._lanes = Lanes(self._slack_s)
        self._read_to, self._gaps, self._leaving = {}, [], False
        self._owned, self._fresh, self._blocked, self._ends, self._committed = set(), set(), {}, {}, {}
        # A static member tells every start itself; what is deleted while it reads, it goes on behind.
        connection = self._connection if self._share is None else replace(self._connection, earliest=True)
        client = await in_thread(self._connect, connection, self)
        try:
            if self._share is None:
                await in_thread(client.subscribe, self._topics)
            next_check = 0.0
            while True:
                now = self._surroundings.now()
                if now >= next_check:
                    await self._check(client, sink)
                    next_check = now + CHECK_S
                await self._acknowledge(client, sink)
                await in_thread(client.pause, self._lanes.full() | self._blocked.keys())
                polled = await in_thread(client.poll, POLL_S, RECORDS_AT_ONCE)
                if self._fresh:
                    await self._settle_in(client, sink)
                await self._look_behind(client, polled)
                self._put(polled, sink)
                while (records := self._lanes.take(self._surroundings.now(), self._pending())) is not None:
                    await self._deliver(records, sink)
        finally:
            await self._leave(client, sink)

    def _put(self, polled: Sequence[Records | Blocked], sink: Sink) -> None:
        for records in polled:
            partition = records.partition
            if isinstance(records, Blocked):
                self._blocked[partition] = records.detail
                sink.report(Trouble(records.reason, records.detail))
            elif partition in self._owned and self._goes_on(records, sink):
                self._lanes.put(records)

    async def _look_behind(self, client: Client, polled: Sequence[Records | Blocked]) -> None:
        """Ask anew where partitions end that the group goes back in: one that was made anew ends before it."""
        back = {
            one.partition
            for one in polled
            if isinstance(one, Records) and one.offsets and one.start < self._read_to.get(one.partition, 0)
        }
        if back and self._share is None:
            bounds = await self._surroundings.in_thread(client.bounds, back)
            self._ends |= {partition: bound.end for partition, bound in bounds.items()}

    def _goes_on(self, records: Records, sink: Sink) -> bool:
        """Compare where records begin with where the last ones ended; whether they bring anything new."""
        partition, start = records.partition, records.start
        read_to = self._read_to.get(partition)
        if read_to is not None:
            if not records.offsets and records.next_offset <= read_to:
                return False
            if start > read_to:
                self._gaps.append((partition, read_to, start))
            elif start < read_to:
                self._goes_back(partition, start, read_to, sink)
        self._read_to[partition] = records.next_offset
        return True

    async def _settle_in(self, client: Client, sink: Sink) -> None:
        """Learn where the group lets us begin with partitions that it gave us, and say what that counts again."""
        fresh, self._fresh = self._fresh & self._owned, set()
        committed = await self._surroundings.in_thread(client.committed, fresh)
        bounds = await self._surroundings.in_thread(client.bounds, fresh - committed.keys())
        self._committed |= committed
        self._read_to |= committed
        for partition in fresh:
            if partition not in committed and not self._connection.earliest:
                self._counted.pop(partition, None)  # it begins with what comes
                continue
            start = committed[partition] if partition in committed else bounds[partition].first
            self._begins(partition, start, sink)

    def _goes_back(self, partition: Partition, start: int, read_to: int, sink: Sink) -> None:
        """Say why records come that lie before where the last ones ended."""
        if self._share is None and self._ends.get(partition, read_to) >= read_to:
            # A commit of ours reached the group after the client had been told where to begin.
            self._begins(partition, start, sink)
        else:
            self._is_another_one(partition, read_to, sink)

    def _begins(self, partition: Partition, start: int, sink: Sink) -> None:
        """Take note of where the group lets us begin, and say what that counts again."""
        surplus = self._counted.get(partition, start) - start
        self._counted[partition] = start
        if surplus > 0:
            detail = f"{partition}: begins at {start}, counted up to {start + surplus}: {surplus} count again"
            sink.report(Trouble("redelivered", detail, redelivered=surplus))

    async def _deliver(self, records: Records, sink: Sink) -> None:
        partition = records.partition
        if partition not in self._owned:
            return  # taken away while its turn came
        await sink(self._messages(records))
        self._counted[partition] = records.next_offset

    def _messages(self, records: Records) -> Messages:
        key, position = self._key(records.partition), str(records.next_offset)
        if not any(value is not None and len(value) > MESSAGE_LIMIT_BYTES for value in records.values):
            beside = (records.envelopes, records.rejects, records.offsets)
            return Messages(key, records.values, records.times, position, *beside)
        small, rejects = list[int](), list(records.rejects)
        for place, value in enumerate(records.values):
            if value is not None and len(value) > MESSAGE_LIMIT_BYTES:
                detail = f"{records.partition} offset {records.offsets[place]}: {len(value)} bytes"
                rejects.append(Reject(place, "too_large", f"{detail}; at most {MESSAGE_LIMIT_BYTES}"))
            else:
                small.append(place)
        return Messages(
            key,
            [records.values[place] for place in small],
            [records.times[place] for place in small],
            position,
            [records.envelopes[place] for place in small] if records.envelopes else (),
            rejects,
            [records.offsets[place] for place in small],
        )

    def _pending(self) -> set[Partition]:
        """Partitions of which the broker holds more than was counted, as far as is known."""
        return {
            partition
            for partition, end in self._ends.items()
            if self._counted.get(partition, 0) < end and partition not in self._blocked
        }

    async def _acknowledge(self, client: Client, sink: Sink) -> None:
        """Commit what is durable, of partitions that are ours. Never backwards: others may have read on meanwhile."""
        offsets = {
            partition: offset
            for partition, offset in self._to_commit.items()
            if partition in self._owned and offset > self._committed.get(partition, -1)
        }
        self._to_commit = {}
        if not offsets:
            return
        try:
            await self._surroundings.in_thread(client.commit, offsets)
            self._committed |= offsets
        except Unreachable as error:
            sink.report(Trouble("commit_failed", f"offsets not committed: {error}"))

    # ---- topics and partitions -------------------------------------------------------------------------------------

    async def _check(self, client: Client, sink: Sink) -> None:
        """Look at topics, partitions and lag. A cluster that is away for a while is no reason to connect anew."""
        in_thread = self._surroundings.in_thread
        try:
            found = await in_thread(client.partitions, self._topics)
            unequal = self._unequal(found)
            if unequal is None and self._share is not None:
                await self._own(client, found, self._share, sink)
            there = {partition for partition in self._owned if partition.number in found.get(partition.topic, ())}
            bounds = await in_thread(client.bounds, there)
        except Unreachable as error:
            self._went_wrong(sink, error)
            self._reachable = False
            return
        if unequal is not None:
            raise Unreachable("partition_counts", unequal)
        self._reachable = True
        self._ends = {partition: bound.end for partition, bound in bounds.items()}
        gaps, self._gaps = self._gaps, []
        for partition, start, end in gaps:  # most are markers and aborted records
            if partition in bounds and start < bounds[partition].first:
                self._lost(partition, min(end, bounds[partition].first) - start, sink)
        missing = [topic for topic in self._topics if topic not in found]
        if missing:
            self._went_wrong(sink, Unreachable("topic_missing", f"no such topic: {', '.join(missing)}"))
        else:
            self._trouble = None

    def _unequal(self, found: Mapping[str, Collection[int]]) -> str | None:
        """Why topics that are to be partitioned alike are not."""
        if not self._equal_partitions or len({len(numbers) for numbers in found.values()}) <= 1:
            return None
        sizes = ", ".join(f"{topic} has {len(numbers)}" for topic, numbers in found.items())
        return f"label_join: copartitioned needs equally many partitions, but {sizes}; use label_join: broadcast"

    async def _own(self, client: Client, found: Mapping[str, Collection[int]], share: Share, sink: Sink) -> None:
        """Take what is ours of the partitions that exist and that are not read yet."""
        ours = {
            Partition(topic, n) for topic, numbers in found.items() for n in numbers if n % share.of == share.member
        }
        new = ours - self._owned
        if not new:
            return
        bounds = await self._surroundings.in_thread(client.bounds, tuple(new))
        known = {partition.topic for partition in self._counted}
        starts = {partition: self._start(partition, bounds[partition], known, sink) for partition in new}
        # The first that the client tells of a new partition makes its start durable.
        self._read_to |= {partition: start for partition, start in starts.items() if partition in self._counted}
        self._counted |= starts
        await self._surroundings.in_thread(client.assign, starts)
        self._owned |= new

    def _start(self, partition: Partition, bounds: Bounds, known: Collection[str], sink: Sink) -> int:
        """Where to begin with a partition of ours."""
        counted = self._counted.get(partition)
        if counted is None:
            # A partition that was added to a topic that we read is read whole, whatever the start was to be.
            return bounds.first if self._connection.earliest or partition.topic in known else bounds.end
        if counted > bounds.end:
            self._is_another_one(partition, counted, sink)
            return bounds.first
        if counted < bounds.first:
            self._lost(partition, bounds.first - counted, sink)
        return max(counted, bounds.first)

    # ---- a group's changes, told by the client on a thread of its own ----------------------------------------------

    def revoked(self, partitions: Collection[Partition], *, lost: bool) -> Mapping[Partition, int]:
        """Told by the client, on its thread, that partitions are taken away."""
        return self._surroundings.from_thread(lambda: self._give_up(set(partitions), lost=lost))

    def assigned(self, partitions: Collection[Partition]) -> None:
        """Told by the client, on its thread, that partitions are ours."""
        self._surroundings.from_thread(lambda: self._take_over(set(partitions)))

    async def _give_up(self, partitions: set[Partition], *, lost: bool) -> Mapping[Partition, int]:
        """Forget partitions; the offsets to commit are those that are durable, unless `_leave` has seen to that."""
        durable = None if lost or self._leaving or self._sink is None else await self._sink.checkpoint()
        offsets = {
            partition: int(position)
            for key, position in (durable or {}).items()
            if (partition := self._partition(key)) in partitions & self._owned
        }
        self._lanes.drop(partitions)
        self._owned -= partitions
        for partition in partitions:
            for known in (self._ends, self._blocked, self._committed, self._read_to):
                known.pop(partition, None)
        return offsets

    async def _take_over(self, partitions: set[Partition]) -> None:
        self._owned |= partitions
        self._fresh |= partitions

    async def _leave(self, client: Client, sink: Sink) -> None:
        """Let go in good order: durable, committed, gone. What a cluster does not answer is asked once."""
        self._leaving = True
        durable = await sink.checkpoint()
        if durable is not None:
            await self.commit(durable)
            await self._acknowledge(client, sink)
        await self._surroundings.in_thread(client.close)

    # ---- small things ----------------------------------------------------------------------------------------------

    def _went_wrong(self, sink: Sink, error: Unreachable) -> None:
        self._trouble = str(error)
        sink.report(Trouble(error.reason, str(error)))

    @staticmethod
    def _lost(partition: Partition, records: int, sink: Sink) -> None:
        detail = f"{partition}: the broker has deleted {records} records before they were read"
        sink.report(Trouble("expired", detail, lost=records))

    def _is_another_one(self, partition: Partition, offset: int, sink: Sink) -> None:
        self._committed.pop(partition, None)
        detail = f"{partition}: offset {offset} is beyond its end: the topic is another one; reading it whole"
        sink.report(Trouble("expired", detail))

    def _key(self, partition: Partition) -> str:
        return f"{self.name}/{partition.topic}/{partition.number}"

    @staticmethod
    def _partition(key: str) -> Partition:
        _, topic, number = key.rsplit("/", 2)
        return Partition(topic, int(number))
