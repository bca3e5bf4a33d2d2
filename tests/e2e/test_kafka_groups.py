"""A consumer group through crashes and changes: nothing is lost, and what counts twice is bounded and told."""

import itertools
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import topics
from tests.brokers.apache import Apache
from tests.e2e import streams
from tests.e2e.crashing import changed, torn
from tests.e2e.lengthy import clients, long
from tests.e2e.running import Running, run
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

PARTITIONS = 6
PER_S = 5000
TICK_S = 0.3
POLL_S = 0.25
SLACK = 4
"""How much longer than planned a tick and a poll may take on a busy machine."""


class Members:
    """Exporters of one group, each with a folder and a state of its own."""

    def __init__(self, folder: Path, source: Mapping[str, Any]) -> None:
        self._folder = folder
        self._told: dict[str, Any] = {"state": {"path": "state"}, "tick": f"{TICK_S * 1000:.0f}ms"}
        self._source = source
        self._models = ([streams.MODEL_CONFIG], streams.REFERENCES)

    def join(self, stack: ExitStack, name: str) -> Running:
        return stack.enter_context(run(self._folder / name, *self._models, sources=[self._source], **self._told))

    def durable(self, name: str) -> dict[tuple[str, int], int]:
        """How far each partition is counted in the state of a member that has ended."""
        with tempfile.TemporaryDirectory() as copy:
            for path in (self._folder / name / "state").iterdir():
                shutil.copy(path, copy)
            with closing(sqlite3.connect(Path(copy) / "state.sqlite3")) as connection:
                rows = connection.execute("SELECT partition, position FROM positions WHERE source = 'kafka'").fetchall()
        places = (partition.rsplit("/", 2) for partition, _ in rows)
        return {(topic, int(number)): int(end) for (_, topic, number), (_, end) in zip(places, rows, strict=True)}

    def counted(self, *names: str) -> dict[str, float]:
        """What the states of members that have ended hold, read by exporters that read nothing else."""
        events = dict[str, float]()
        for name in names:
            with run(self._folder / name, *self._models, sources=[{"type": "http"}], **self._told) as exporter:
                events[name] = exporter.value("ml_ingest_events_total", source="kafka") or 0
        return events


def owed(durable: Mapping[tuple[str, int], int], committed: Mapping[tuple[str, int], int]) -> int:
    """Records that are counted, and will be counted again by whoever gets the partitions of a member that crashed."""
    return sum(max(end - committed.get(partition, 0), 0) for partition, end in durable.items())


@long
@clients
def test_a_group_loses_nothing_over_a_crash_and_rebalances_and_the_surplus_is_what_was_not_committed(
    apache_kafka: Apache, tmp_path: Path, client: str
):
    at = apache_kafka.bootstrap
    topic = topics.create(at, PARTITIONS)
    events = PER_S * 20
    members = Members(tmp_path, streams.kafka(at, [topic], client, group_id=topic))
    with streams.Producing(at, {topic: PARTITIONS}, events, PER_S) as producing, ExitStack() as stack:
        a, b = members.join(stack, "a"), members.join(stack, "b")
        shared_out(at, topic, 2)
        for member in (a, b):
            has_more_than(member, 1000)

        # Between a write and its commit, if it is quick enough: there is most to count again.
        wal = tmp_path / "a" / "state" / "state.sqlite3-wal"
        changed(wal, a.process)
        eventually(lambda: not torn(wal), "the end of the write")
        a.process.kill()
        a.process.wait()
        surplus = owed(members.durable("a"), topics.committed(at, topic))
        a = members.join(stack, "a")
        shared_out(at, topic, 2)
        c = members.join(stack, "c")
        shared_out(at, topic, 3)
        has_more_than(c, 1000)
        assert c.terminate(15) == 0, c.said()
        shared_out(at, topic, 2)
        producing.finish()
        ends = {(topic, number): end for number, end in topics.end_offsets(at, topic).items()}
        eventually(lambda: topics.committed(at, topic) == ends, a.said, within_s=30)
        again = sum(member.value("ml_ingest_redelivered_total") or 0 for member in (a, b))
        for member in (a, b):
            assert member.value("ml_ingest_guarantee", guarantee="at_least_once") == 1
            assert member.terminate(15) == 0, member.said()
    counted = members.counted("a", "b", "c")
    print(f"{client}: {events} events, {counted}, surplus {surplus}, of which known to be {again:g}")
    assert sum(counted.values()) == events + surplus
    assert surplus <= PER_S * (TICK_S + POLL_S) * SLACK
    assert again <= surplus


@long
@clients
def test_who_gets_back_what_it_has_counted_tells_how_much_counts_again(
    apache_kafka: Apache, tmp_path: Path, client: str
):
    at = apache_kafka.bootstrap
    topic = topics.create(at, PARTITIONS)
    members = Members(tmp_path, streams.kafka(at, [topic], client, group_id=topic, session_timeout="1s"))
    rng = random.Random(client)
    surplus, events = 0, 0
    producing = streams.Producing(at, {topic: PARTITIONS}, 0, 1)
    for kills in itertools.count():
        with ExitStack() as stack:
            one = members.join(stack, "one")
            has_more_than(one, events + surplus - 1)
            producing.bring(40_000)
            events += 40_000
            has_more_than(one, events + surplus - rng.randint(10_000, 39_000))
            one.process.kill()
            one.process.wait()
        surplus += owed(members.durable("one"), topics.committed(at, topic))
        if surplus and kills >= 2:
            break
        assert kills < 10, "a kill between a write and its commit"
    with ExitStack() as stack:
        one = members.join(stack, "one")
        has_more_than(one, events + surplus - 1)
        print(f"{client}: {events} events, {kills + 1} kills, surplus {surplus}")
        assert one.value("ml_ingest_events_total", source="kafka") == events + surplus
        assert one.value("ml_ingest_redelivered_total", source="kafka") == surplus
        assert one.value("ml_ingest_source_errors_total", reason="redelivered")


def shared_out(at: str, group: str, members: int) -> None:
    def done() -> bool:
        found = topics.members(at, group)
        return len(found) == members and sum(map(len, found)) == PARTITIONS and all(found)

    eventually(done, lambda: f"{members} members: {topics.members(at, group)}", within_s=30)


def has_more_than(member: Running, events: float) -> None:
    eventually(lambda: (member.value("ml_ingest_events_total", source="kafka") or 0) > events, member.said, within_s=45)
