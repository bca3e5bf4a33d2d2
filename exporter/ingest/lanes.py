"""Records that wait their turn, a lane a partition, delivered in the order of their record times.

A client hands over whatever partition it fetched last, by the thousand. Counted in that order, a day of backlog would
have one partition hours ahead of the others, and the window, which cannot wait for hours, would leave the others'
events behind. So the lane whose next record is oldest goes first, and only as far as `slack_s` beyond the next lane's;
a partition that has more at the broker, but nothing here yet, is waited for. That is the order in which a consumer
would have seen the records as they were produced (Kafka Streams picks its tasks' records alike). Records that are as
young as `slack_s` are delivered as they come.
"""

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from exporter.catalog import thresholds
from exporter.ingest.source import Envelope
from exporter.monitor.events import Reject

ROWS_AT_ONCE = 1000
"""Records delivered at once: 3 ms of work for the event loop."""

LANES_BYTES = 24 * 2**20
"""Bytes that may wait in all lanes together before the client is asked to pause the fullest."""

RECORD_BYTES = 100
"""What a record takes beside its value, so that empty ones are bounded too."""


class Partition(NamedTuple):
    """A partition of a topic."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.number}"


@dataclass(frozen=True, slots=True)
class Records:
    """Consecutive records of one partition. `times` are epoch seconds; a value of None is a null value.

    `envelopes` may be left out when all are empty. `rejects` are records that could not be had, in the offsets before
    `next_offset`, which is where reading goes on.
    """

    partition: Partition
    next_offset: int
    times: Sequence[float]
    values: Sequence[bytes | None]
    offsets: Sequence[int]
    envelopes: Sequence[Envelope] = ()
    rejects: Sequence[Reject] = ()

    def split(self, rows: int) -> tuple["Records", "Records | None"]:
        """The first rows, and the rest if there is one."""
        if rows >= len(self.values):
            return self, None
        first = replace(
            self,
            next_offset=self.offsets[rows - 1] + 1,
            times=self.times[:rows],
            values=self.values[:rows],
            offsets=self.offsets[:rows],
            envelopes=self.envelopes[:rows],
        )
        rest = replace(
            self,
            times=self.times[rows:],
            values=self.values[rows:],
            offsets=self.offsets[rows:],
            envelopes=self.envelopes[rows:],
            rejects=(),
        )
        return first, rest

    @property
    def start(self) -> int:
        """The first offset; where reading goes on if there is none."""
        return self.offsets[0] if self.offsets else self.next_offset - len(self.rejects)

    @property
    def size_bytes(self) -> int:
        """Bytes in memory, roughly."""
        return sum(map(len, filter(None, self.values))) + RECORD_BYTES * len(self.values)


class Lanes:
    """The records of all partitions that were fetched and not delivered yet."""

    def __init__(self, slack_s: float) -> None:
        self._slack_s = slack_s
        self._lanes: dict[Partition, deque[Records]] = {}
        self._bytes: dict[Partition, int] = {}
        self._last: dict[Partition, float] = {}
        self._waiting_since: float | None = None
        self._given_up: set[Partition] = set()

    def put(self, records: Records) -> None:
        """Let records wait for their turn."""
        lane = self._lanes.setdefault(records.partition, deque())
        lane.append(records)
        self._bytes[records.partition] = self._bytes.get(records.partition, 0) + records.size_bytes

    def drop(self, partitions: Iterable[Partition]) -> None:
        """Forget partitions and what waits of them."""
        for partition in partitions:
            for known in (self._lanes, self._bytes, self._last):
                known.pop(partition, None)
            self._given_up.discard(partition)

    def full(self) -> set[Partition]:
        """The partitions of which nothing more should be fetched now."""
        if sum(self._bytes.values()) < LANES_BYTES:
            return set()
        share = LANES_BYTES / len(self._bytes)
        return {partition for partition, waiting in self._bytes.items() if waiting >= share}

    def take(self, now: float, pending: Collection[Partition]) -> Records | None:
        """The records whose turn it is; None when there are none, or when some of `pending` are to be waited for.

        `pending` are the partitions of which the broker holds more than was fetched.
        """
        heads = {partition: lane[0].times[0] for partition, lane in self._lanes.items() if lane and lane[0].times}
        first = next((partition for partition, lane in self._lanes.items() if lane and not lane[0].times), None)
        if first is not None:  # only rejects, or nothing: they have no time
            return self._pop(first, ROWS_AT_ONCE)
        if not heads:
            return None
        oldest = min(heads, key=heads.__getitem__)
        time = heads.pop(oldest)
        if time >= now - self._slack_s:
            return self._pop(oldest, ROWS_AT_ONCE)
        empty = {
            partition: self._last.get(partition, -math.inf)
            for partition in pending
            if partition != oldest and partition not in heads and partition not in self._given_up
        }
        if any(last < time - self._slack_s for last in empty.values()):
            if self._waiting_since is None:
                self._waiting_since = now
            if now - self._waiting_since < thresholds.IDLE_PARTITION_S.value:
                return None
            self._given_up.update(empty)
            empty = {}
        self._waiting_since = None
        limit = min((*heads.values(), *empty.values()), default=time) + self._slack_s
        times = self._lanes[oldest][0].times
        within = ROWS_AT_ONCE
        if (heads or empty) and times[-1] > limit:
            within = min(within, max(bisect_right(times, limit), 1))
        return self._pop(oldest, within)

    def _pop(self, partition: Partition, rows: int) -> Records:
        lane = self._lanes[partition]
        records, rest = lane.popleft().split(rows)
        if rest is not None:
            lane.appendleft(rest)
        self._bytes[partition] -= records.size_bytes
        if records.times:
            self._last[partition] = records.times[-1]
            self._given_up.discard(partition)
        return records
