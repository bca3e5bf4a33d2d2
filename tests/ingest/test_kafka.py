"""What the source decides by itself, on a cluster in memory; what clients do is tests/contract/test_kafka.py."""

import asyncio

import pytest

from exporter.ingest import kafka, lanes
from exporter.ingest.kafka_client import Share, Unreachable
from exporter.ingest.lanes import Partition
from tests.app.fakes import FakeSink
from tests.brokers.topics import Record
from tests.builders import NOW
from tests.ingest.kafka_worlds import WHOLE, Memory, Reader, numbered, runs, values


@pytest.fixture
def world() -> Memory:
    return Memory()


class TestReadiness:
    @runs
    async def test_before_the_first_look_at_the_cluster(self, world: Memory):
        reader = Reader(world, "topic")
        assert reader.source.not_ready() == "kafka: not connected yet"
        assert not reader.source.health().ready

    @runs
    async def test_of_a_cluster_that_goes_away_and_comes_back(self, world: Memory):
        topic = world.kafka.create()
        async with Reader(world, topic) as reader:
            await reader.ready()
            world.kafka.away = True
            await reader.until(reader.source.not_ready)
            assert reader.source.not_ready() == "kafka: cannot reach the cluster: it is away"
            world.kafka.away = False
            world.kafka.produce(topic, [Record(b"x")])
            await reader.has(1)
            await reader.ready()
        assert len(world.kafka.clients) == 1, "a cluster that is away for a while is no reason to connect anew"

    @runs
    async def test_of_a_cluster_that_cannot_be_connected_to(self, world: Memory):
        topic = world.kafka.create()
        world.kafka.refuses = Unreachable("authentication", "not authenticated: wrong password")
        async with Reader(world, topic) as reader:
            await reader.until(lambda: len(reader.troubles("authentication")) >= 3)
            assert reader.source.not_ready() == "kafka: not authenticated: wrong password"
            world.kafka.refuses = None
            await reader.ready()
        assert reader.sink.troubles.pop().reason == "authentication"

    @runs
    async def test_of_missing_topics_names_all_of_them_once(self, world: Memory):
        async with Reader(world, "a", world.kafka.create(), "b", "a") as reader:
            await reader.until(lambda: reader.troubles("topic_missing"))
            assert reader.source.not_ready() == "kafka: no such topic: a, b"

    @runs
    async def test_of_a_partition_whose_compression_is_not_installed(self, world: Memory):
        topic = world.kafka.create(2)
        world.kafka.produce(topic, numbered(6, 2))
        world.kafka.logs[topic][0].packed.add(1)
        async with Reader(world, topic) as reader:
            await reader.has(4)
            assert reader.source.not_ready() == f"kafka: {topic}-0 at offset 1: no codec"
            await reader.until(lambda: world.kafka.time > NOW + 20)
        assert reader.by_partition() == {(topic, 0): [b"0"], (topic, 1): [b"1", b"3", b"5"]}
        assert len(reader.troubles("unsupported_compression")) == 1


@pytest.mark.parametrize("share", [WHOLE, None], ids=["static", "group"])
class TestTopicsThatArePartitionedAlike:
    @runs
    async def test_are_not_read_before_they_have_equally_many(self, world: Memory, share: Share | None):
        predictions, labels = world.kafka.create(2), world.kafka.create(1)
        world.kafka.produce(predictions, numbered(4, 2))
        world.kafka.produce(labels, numbered(2, start=4))
        async with Reader(world, predictions, labels, share=share, group="g", equal_partitions=True) as reader:
            await reader.until(lambda: len(reader.troubles("partition_counts")) >= 3)
            said = (
                "label_join: copartitioned needs equally many partitions, "
                f"but {predictions} has 2, {labels} has 1; use label_join: broadcast"
            )
            assert reader.source.not_ready() == f"kafka: {said}"
            assert set(reader.troubles("partition_counts")) == {said}
            assert not reader.messages
            world.kafka.add_partitions(labels, 2)
            world.kafka.produce(labels, [Record(b"6", partition=1)])
            await reader.has(7)
            await reader.ready()
        assert sorted(reader.messages) == values(numbered(7))[0]

    @runs
    async def test_are_let_go_while_only_one_of_them_has_got_more(self, world: Memory, share: Share | None):
        predictions, labels = world.kafka.create(), world.kafka.create()
        world.kafka.produce(predictions, numbered(1))
        async with Reader(world, predictions, labels, share=share, group="g", equal_partitions=True) as reader:
            await reader.has(1)
            await reader.tick()
            world.kafka.add_partitions(predictions, 2)
            await reader.until(lambda: reader.troubles("partition_counts"))
            assert reader.source.not_ready() is not None
            world.kafka.add_partitions(labels, 2)
            world.kafka.produce(labels, [Record(b"1", partition=1)])
            await reader.has(2)
            await reader.ready()
        assert reader.messages == [b"0", b"1"]

    @runs
    async def test_need_not_all_be_there_yet(self, world: Memory, share: Share | None):
        predictions = world.kafka.create(2)
        world.kafka.produce(predictions, numbered(4, 2))
        async with Reader(world, predictions, "labels", share=share, group="g", equal_partitions=True) as reader:
            await reader.has(4)
            await reader.until(lambda: reader.troubles("topic_missing"))
        assert not reader.troubles("partition_counts")


class TestHealth:
    @runs
    async def test_counts_partitions_and_what_is_left_to_read(self, world: Memory):
        topic = world.kafka.create(2)
        world.kafka.produce(topic, numbered(3000, 2))
        sink = FakeSink()
        sink.open.clear()
        async with Reader(world, topic, sink=sink) as reader:
            await reader.until(lambda: sink.calls)
            health = reader.source.health()
            assert (health.guarantee, health.partitions, health.lag_records) == ("exactly_once", 2, 3000)
            sink.open.set()
            await reader.has(3000)
            assert reader.source.health().lag_records == 0

    def test_lag_is_unknown_before_it_was_asked_for_and_none_without_partitions(self, world: Memory):
        source = Reader(world, "topic", share=None).source
        assert (source.health().guarantee, source.health().partitions) == ("at_least_once", 0)
        assert source.health().lag_records == 0


class TestWaitingFor:
    @runs
    async def test_partitions_of_which_the_broker_has_more(self, world: Memory):
        topic = world.kafka.create(2)
        world.kafka.produce(topic, [Record(b"x", partition=1)])
        sink = FakeSink()
        sink.open.clear()
        async with Reader(world, topic, sink=sink) as reader:
            await reader.until(lambda: sink.calls)
            assert reader.source.waiting({"kafka/gone/0": "5"}) == {f"kafka/{topic}/1"}
            sink.open.set()
            await reader.has(1)
            await reader.until(lambda: not reader.source.waiting({}))

    @runs
    async def test_all_that_were_ever_read_while_the_cluster_is_away(self, world: Memory):
        world.kafka.away = True
        async with Reader(world, "topic") as reader:
            await reader.until(lambda: reader.troubles("connection"))
            assert set(reader.source.waiting({"kafka/topic/0": "5"})) == {"kafka/topic/0"}

    @runs
    async def test_no_partition_of_a_topic_that_is_missing(self, world: Memory):
        async with Reader(world, "missing", resume={("missing", 0): 5}) as reader:
            await reader.until(lambda: reader.troubles("topic_missing"))
            assert not reader.source.waiting({"kafka/missing/0": "5"})


class TestAcknowledging:
    @runs
    async def test_is_of_what_it_was_told_is_durable_and_no_more(self, world: Memory):
        topic = world.kafka.create()
        world.kafka.produce(topic, numbered(2))
        async with Reader(world, topic, group="g") as reader:
            await reader.has(2)
            await reader.until(lambda: world.kafka.time > NOW + 20)
            assert world.kafka.committed("g") == {}
            await reader.tick()
            world.kafka.produce(topic, numbered(2, start=2))
            await reader.until(lambda: world.kafka.committed("g"))
            assert world.kafka.committed("g") == {(topic, 0): 2}

    @runs
    async def test_never_goes_backwards(self, world: Memory):
        topic = world.kafka.create()
        world.kafka.produce(topic, numbered(2))
        async with Reader(world, topic, group="g") as reader:
            await reader.has(2)
            await reader.tick()
            await reader.until(lambda: world.kafka.committed("g") == {(topic, 0): 2})
            await reader.source.commit({f"kafka/{topic}/0": "1"})
            await reader.until(lambda: world.kafka.time > NOW + 20)
            assert world.kafka.committed("g") == {(topic, 0): 2}

    @runs
    async def test_is_of_own_partitions_only(self, world: Memory):
        topic = world.kafka.create(2)
        world.kafka.produce(topic, numbered(4, 2))
        async with Reader(world, topic, group="g", share=Share(0, 2)) as reader:
            await reader.has(2)
            await reader.source.commit({f"kafka/{topic}/0": "2", f"kafka/{topic}/1": "2", "kafka/gone/0": "5"})
            await reader.until(lambda: world.kafka.committed("g"))
        assert world.kafka.committed("g") == {(topic, 0): 2}

    @runs
    async def test_is_none_without_a_group(self, world: Memory):
        topic = world.kafka.create()
        world.kafka.produce(topic, numbered(2))
        async with Reader(world, topic) as reader:
            await reader.has(2)
            await reader.tick()
        assert not world.kafka.groups

    @runs
    async def test_that_fails_is_counted_and_done_with_the_next(self, world: Memory):
        topic = world.kafka.create()
        world.kafka.produce(topic, numbered(2))
        async with Reader(world, topic, group="g") as reader:
            await reader.has(2)
            world.kafka.refuses_commits = True
            await reader.tick()
            await reader.until(lambda: reader.troubles("commit_failed"))
            assert reader.troubles("commit_failed") == ["offsets not committed: the group is busy"]
            world.kafka.refuses_commits = False
            await reader.tick()
            await reader.until(lambda: world.kafka.committed("g") == {(topic, 0): 2})


class TestLeaving:
    @runs
    async def test_makes_durable_commits_and_closes(self, world: Memory):
        topic = world.kafka.create()
        world.kafka.produce(topic, numbered(2))
        async with Reader(world, topic, share=None, group="g") as reader:
            await reader.has(2)
        assert world.kafka.committed("g") == {(topic, 0): 2}
        assert not world.kafka.groups["g"].members
        assert world.kafka.clients[0].closed

    @runs
    async def test_commits_nothing_that_could_not_be_made_durable(self, world: Memory):
        topic = world.kafka.create()
        world.kafka.produce(topic, numbered(2))
        async with Reader(world, topic, share=None, group="g") as reader:
            await reader.has(2)
            reader.sink.writable = False
        assert world.kafka.committed("g") == {}
        assert world.kafka.clients[0].closed

    @runs
    async def test_while_the_cluster_is_away_is_no_failure(self, world: Memory):
        topic = world.kafka.create()
        world.kafka.produce(topic, numbered(2))
        async with Reader(world, topic, share=None, group="g") as reader:
            await reader.has(2)
            world.kafka.away = True
        assert reader.troubles("commit_failed")
        assert world.kafka.clients[0].closed

    @runs
    async def test_while_the_sink_is_busy_leaves_what_was_not_counted(self, world: Memory):
        topic = world.kafka.create()
        world.kafka.produce(topic, numbered(2))
        sink = FakeSink()
        sink.open.clear()
        async with Reader(world, topic, share=None, group="g", sink=sink) as reader:
            await reader.until(lambda: sink.calls)
        assert world.kafka.committed("g") == {}

    @runs
    async def test_a_sink_that_fails_ends_the_source_but_not_without_goodbye(self, world: Memory):
        topic = world.kafka.create()
        world.kafka.produce(topic, numbered(2))
        reader = Reader(world, topic, share=None, group="g", sink=FakeSink(fails_at=0))
        with pytest.raises(RuntimeError, match="sink has failed"):
            await reader.source.run(reader.sink, {})
        assert world.kafka.clients[0].closed


class TestGroups:
    @runs
    async def test_of_a_member_that_dies_get_its_records_again(self, world: Memory):
        topic = world.kafka.create(2)
        world.kafka.produce(topic, numbered(10, 2))
        async with Reader(world, topic, share=None, group="g") as one:
            await one.has(10)
            await one.tick()
            await one.until(lambda: world.kafka.committed("g") == {(topic, 0): 5, (topic, 1): 5})
            one.sink.open.clear()
            world.kafka.produce(topic, numbered(4, 2, start=10))
            await one.until(lambda: one.sink.calls > len(one.chunks))
            world.kafka.lose(world.kafka.clients[0])
            async with Reader(world, topic, share=None, group="g") as two:
                await two.has(4)
            assert sorted(two.messages) == [b"10", b"11", b"12", b"13"]

    @runs
    async def test_that_lost_a_member_let_it_come_back_and_say_what_counts_twice(self, world: Memory):
        topic = world.kafka.create()
        world.kafka.produce(topic, numbered(10))
        async with Reader(world, topic, share=None, group="g") as reader:
            await reader.has(10)
            world.kafka.lose(world.kafka.clients[0])
            await reader.has(20)
            assert reader.redelivered() == 10
            assert reader.troubles("redelivered") == [f"{topic}-0: begins at 0, counted up to 10: 10 count again"]
        assert reader.messages == values(numbered(10))[0] * 2

    @runs
    async def test_whose_commit_arrives_after_the_client_asked_say_what_counts_twice_all_the_same(self, world: Memory):
        topic = world.kafka.create()
        world.kafka.produce(topic, numbered(10))
        async with Reader(world, topic, share=None, group="g") as reader:
            await reader.has(10)
            (client,) = world.kafka.clients
            client.committed = lambda _: {Partition(topic, 0): 10}
            world.kafka.lose(client)
            await reader.has(20)
            assert reader.redelivered() == 10
            assert not reader.troubles("expired")

    @runs
    async def test_take_with_a_partition_what_waits_of_it(self, world: Memory):
        topic = world.kafka.create(2)
        world.kafka.produce(topic, [Record(b"0", partition=0)] * 3000 + [Record(b"1", partition=1)] * 3000)
        sink = FakeSink()
        async with Reader(world, topic, share=None, group="g", sink=sink) as one:
            await one.until(lambda: one.source.health().partitions == 2)
            async with Reader(world, topic, share=None, group="g") as two:
                await two.until(lambda: one.source.health().partitions == two.source.health().partitions == 1)
                await one.until(lambda: len(one.messages) + len(two.messages) >= 6000)
        assert len(one.messages) + len(two.messages) == 6000
        assert (one.redelivered(), two.redelivered()) == (0, 0)

    @runs
    async def test_that_begin_at_the_end_keep_the_place_over_a_restart(self, world: Memory):
        topic = world.kafka.create()
        world.kafka.produce(topic, [Record(b"old")])
        async with Reader(world, topic, share=None, group="g", earliest=False) as reader:
            await reader.until(lambda: reader.positions == {(topic, 0): 1})
        world.kafka.produce(topic, [Record(b"meanwhile")])
        async with Reader(world, topic, share=None, group="g", earliest=False) as again:
            await again.has(1)
        assert again.messages == [b"meanwhile"]


class TestPlaces:
    @runs
    async def test_at_the_end_of_a_topic_are_kept_over_a_restart(self, world: Memory):
        topic = world.kafka.create()
        world.kafka.produce(topic, [Record(b"old")])
        async with Reader(world, topic, earliest=False) as reader:
            await reader.until(lambda: reader.positions == {(topic, 0): 1})
        world.kafka.add_partitions(topic, 2)
        world.kafka.produce(topic, [Record(b"0", partition=0), Record(b"1", partition=1)])
        async with Reader(world, topic, earliest=False, resume=reader.positions) as again:
            await again.has(2)
        assert again.by_partition() == {(topic, 0): [b"0"], (topic, 1): [b"1"]}

    @runs
    async def test_that_retention_takes_away_while_reading_are_counted_exactly(self, world: Memory):
        topic = world.kafka.create()
        world.kafka.produce(topic, numbered(5000))
        sink = FakeSink()
        sink.open.clear()
        async with Reader(world, topic, sink=sink) as reader:
            await reader.until(lambda: sink.calls)
            fetched = world.kafka.clients[0].fetched
            assert fetched < 4000
            world.kafka.trim(topic, {0: 4000})
            sink.open.set()
            await reader.until(reader.lost)
            await reader.has(fetched + 1000)
        assert reader.messages == values(numbered(fetched))[0] + values(numbered(1000, start=4000))[0]
        assert reader.lost() == 4000 - fetched

    @runs
    async def test_that_hold_no_record_for_us_are_no_loss(self, world: Memory):
        topic = world.kafka.create()
        for number in range(5):
            world.kafka.produce_in_transaction(topic, [Record(b"%d" % number)], commit=number % 2 == 0)
        async with Reader(world, topic) as reader:
            await reader.until(lambda: reader.positions == {(topic, 0): 10})
            await reader.until(lambda: reader.source.health().lag_records == 0)
        assert reader.messages == [b"0", b"2", b"4"]
        assert not reader.sink.troubles

    @pytest.mark.parametrize("share", [WHOLE, None], ids=["static", "group"])
    @runs
    async def test_of_a_topic_that_is_made_anew_while_it_is_read(self, world: Memory, share: Share | None):
        topic = world.kafka.create()
        world.kafka.produce(topic, numbered(10))
        async with Reader(world, topic, group="g", share=share) as reader:
            await reader.has(10)
            await reader.tick()
            await reader.until(lambda: world.kafka.committed("g") == {(topic, 0): 10})
            world.kafka.delete(topic)
            await reader.until(lambda: reader.troubles("topic_missing"))
            world.kafka.create(name=topic)
            world.kafka.produce(topic, numbered(3, start=10))
            await reader.has(13)
            await reader.ready()
            await reader.tick()
            await reader.until(lambda: world.kafka.committed("g") == {(topic, 0): 3})
        assert reader.messages == values(numbered(13))[0]
        assert len(reader.troubles("expired")) == 1
        assert (reader.lost(), reader.redelivered()) == (0, 0)

    @runs
    async def test_of_spoilt_records_are_gone_over_and_counted(self, world: Memory):
        topic = world.kafka.create(2)
        world.kafka.produce(topic, numbered(8, 2))
        world.kafka.logs[topic][0].spoilt |= {0, 3}
        async with Reader(world, topic) as reader:
            await reader.has(8)
        assert reader.by_partition() == {(topic, 0): [b"2", b"4"], (topic, 1): [b"1", b"3", b"5", b"7"]}
        assert [reject.reason for reject in reader.rejects] == ["corrupt_record"] * 2
        assert reader.positions == {(topic, 0): 4, (topic, 1): 4}


class TestBackPressure:
    @runs
    async def test_of_a_busy_sink_stops_the_fetching(self, world: Memory):
        topic = world.kafka.create()
        world.kafka.produce(topic, numbered(10_000))
        sink = FakeSink()
        sink.open.clear()
        async with Reader(world, topic, sink=sink) as reader:
            await reader.until(lambda: sink.calls)
            for _ in range(1000):
                await asyncio.sleep(0)
            assert world.kafka.clients[0].fetched == kafka.RECORDS_AT_ONCE

    @runs
    async def test_of_a_partition_that_is_far_ahead_pauses_it(self, world: Memory, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(lanes, "LANES_BYTES", 500_000)
        topic = world.kafka.create(2)
        old, young = (int((NOW - age) * 1000) for age in (90_000, 10_000))
        world.kafka.produce(topic, [Record(b"young", partition=0, timestamp_ms=young)] * 10_000)
        world.kafka.produce(topic, [Record(b"old", partition=1, timestamp_ms=old)] * 20_000)
        sink = FakeSink()
        async with Reader(world, topic, sink=sink) as reader:
            await reader.until(lambda: world.kafka.clients and world.kafka.clients[0].paused, within_s=30)
            assert {partition.number for partition in world.kafka.clients[0].paused} == {0}
            await reader.has(30_000)
        assert reader.messages == [b"old"] * 20_000 + [b"young"] * 10_000
