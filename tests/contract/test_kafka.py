"""One suite for every Kafka client on every broker: the one in memory, one in a wheel, and Apache Kafka itself."""

import asyncio
import gc
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, ParamSpec

import pytest

from exporter.ingest import confluent, kafka_python
from exporter.ingest.kafka_client import Connection, Share
from exporter.ingest.lanes import Partition, Records
from exporter.ingest.lenient import MESSAGE_LIMIT_BYTES
from exporter.ingest.source import Envelope
from tests.app.fakes import FakeSink
from tests.brokers import apache
from tests.brokers.apache import Apache
from tests.brokers.security import MECHANISMS
from tests.brokers.topics import COMPRESSIONS, Record
from tests.e2e.lengthy import long
from tests.ingest.kafka_worlds import CLIENTS, Memory, Reader, Real, World, numbered, runs, values

P = ParamSpec("P")

ON_TANSU = [f"{client} on tansu" for client in CLIENTS]
ON_APACHE = [pytest.param(f"{client} on apache", marks=pytest.mark.e2e) for client in CLIENTS]

each_client = pytest.mark.parametrize("client", CLIENTS)


def a_world(request: pytest.FixtureRequest) -> World:
    if request.param == "memory":
        return Memory()
    client, broker = request.param.split(" on ")
    started = request.getfixturevalue("tansu" if broker == "tansu" else "apache_kafka")
    return Real(client, started.bootstrap)


@pytest.fixture(params=["memory", *ON_TANSU, *ON_APACHE])
def world(request: pytest.FixtureRequest) -> World:
    return a_world(request)


@pytest.fixture(params=["memory", *ON_APACHE])
def cluster(request: pytest.FixtureRequest) -> World:
    """A world with groups, transactions and retention, which the broker in a wheel has not."""
    return a_world(request)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that soon give up a cluster."""
    monkeypatch.setattr(kafka_python, "CONNECT_MS", 500)
    monkeypatch.setattr(confluent, "ANSWER_S", 0.5)


@pytest.fixture
def collected() -> Iterator[None]:
    yield
    gc.collect()


def untidy(test: Callable[P, None]) -> Callable[P, None]:
    """kafka-python leaves sockets that could not be connected to the garbage collector."""
    return pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")(pytest.mark.usefixtures("collected")(test))


class NobodyRebalances:
    """Implements kafka_client.Rebalancing for a client that is in no group."""

    def revoked(self, partitions: Collection[Partition], *, lost: bool) -> Mapping[Partition, int]:
        raise AssertionError(partitions, lost)

    def assigned(self, partitions: Collection[Partition]) -> None:
        raise AssertionError(partitions)


def produce_one_by_one(world: World, topic: str, records: list[Record]) -> None:
    """A batch a record: the broker in a wheel counts batches where it is asked for the end of a partition."""
    for record in records:
        world.kafka.produce(topic, [record])


class TestRecords:
    @runs
    async def test_each_arrives_once_and_in_order_from_any_position(self, world: World):
        topic = world.kafka.create()
        records = numbered(4)
        produce_one_by_one(world, topic, records)
        for position in range(4):
            async with Reader(world, topic, resume={(topic, 0): position}) as reader:
                await reader.has(4 - position)
            assert reader.by_partition() == {(topic, 0): values(records[position:])[0]}
            assert reader.positions == {(topic, 0): 4}
            assert not reader.sink.troubles

    @runs
    async def test_of_several_topics_arrive_in_the_order_of_their_partitions(self, world: World):
        one, two = world.kafka.create(3), world.kafka.create()
        several, single = numbered(300, 3), numbered(100)
        world.kafka.produce(one, several)
        world.kafka.produce(two, single)
        async with Reader(world, one, two) as reader:
            await reader.has(400)
        expected = {(one, number): found for number, found in values(several).items()}
        assert reader.by_partition() == expected | {(two, 0): values(single)[0]}

    @runs
    async def test_bring_time_and_headers(self, world: World):
        topic = world.kafka.create()
        headers = [("Model", b"car_loan"), ("version", b"7"), ("content-type", b"application/json"), ("trace", b"x")]
        records = [
            Record(b"plain", timestamp_ms=1_700_000_000_250),
            Record(b"told", headers=headers, timestamp_ms=1_700_000_001_500),
            Record(b"odd", headers=[("model", None), ("version", b"\xff")], timestamp_ms=1_700_000_000_000),
        ]
        world.kafka.produce(topic, records)
        async with Reader(world, topic) as reader:
            await reader.has(3)
        told = [
            (payload, chunk.time_of(place), chunk.envelopes[place] if chunk.envelopes else Envelope())
            for chunk in reader.chunks
            for place, payload in enumerate(chunk.payloads)
        ]
        assert told == [
            (b"plain", 1_700_000_000.25, Envelope()),
            (b"told", 1_700_000_001.5, Envelope("car_loan", "7", "application/json")),
            (b"odd", 1_700_000_000.0, Envelope("", "\ufffd", "")),
        ]

    @runs
    async def test_may_be_null_or_empty(self, world: World):
        topic = world.kafka.create()
        world.kafka.produce(topic, [Record(None, b"key"), Record(b"", b"key"), Record(b"x")])
        async with Reader(world, topic) as reader:
            await reader.has(3)
        assert reader.messages == [None, b"", b"x"]

    @runs
    async def test_that_are_too_large_are_rejected_and_their_neighbours_delivered(self, world: World):
        topic = world.kafka.create(max_message_bytes="6000000") if isinstance(world, Real) else world.kafka.create()
        large = bytes(5_000_000)
        for value in (b"before", large, b"after"):
            world.kafka.produce(topic, [Record(value)])
        async with Reader(world, topic) as reader:
            await reader.has(3)
        assert reader.messages == [b"before", b"after"]
        (reject,) = reader.rejects
        assert reject.reason == "too_large"
        assert reject.detail == f"{topic}-0 offset 1: 5000000 bytes; at most {MESSAGE_LIMIT_BYTES}"
        assert reader.positions == {(topic, 0): 3}

    @runs
    async def test_arrive_whatever_their_compression(self, world: World):
        topic = world.kafka.create()
        records = [Record(b"%d" % number * 50) for number in range(100)]
        for place, compression in enumerate(COMPRESSIONS):
            world.kafka.produce(topic, records[place::5], compression)
        async with Reader(world, topic) as reader:
            await reader.has(100)
        assert reader.messages == [record.value for place in range(5) for record in records[place::5]]

    @runs
    async def test_of_aborted_transactions_are_none_and_markers_leave_no_lag(self, cluster: World):
        topic = cluster.kafka.create()
        cluster.kafka.produce_in_transaction(topic, [Record(b"kept")], commit=True)
        cluster.kafka.produce_in_transaction(topic, [Record(b"aborted")], commit=False)
        cluster.kafka.produce(topic, [Record(b"plain")])
        cluster.kafka.produce_in_transaction(topic, [Record(b"last")], commit=True)
        async with Reader(cluster, topic) as reader:
            await reader.until(lambda: reader.positions == {(topic, 0): 7})
            await reader.until(lambda: reader.source.health().lag_records == 0)
        assert reader.messages == [b"kept", b"plain", b"last"]
        assert not reader.sink.troubles


class TestStart:
    @runs
    async def test_at_the_end_reads_what_comes_from_now_on(self, world: World):
        topic = world.kafka.create()
        world.kafka.produce(topic, [Record(b"old")])
        async with Reader(world, topic, earliest=False) as reader:
            await reader.until(lambda: (topic, 0) in reader.positions)
            world.kafka.produce(topic, [Record(b"new")])
            await reader.has(1)
        assert reader.messages == [b"new"]

    @runs
    async def test_of_a_topic_that_comes_later(self, cluster: World):
        there, later = cluster.kafka.create(), f"later-{uuid.uuid4().hex}"
        async with Reader(cluster, there, later) as reader:
            await reader.until(lambda: reader.troubles("topic_missing"))
            assert reader.source.not_ready() == f"kafka: no such topic: {later}"
            assert not reader.source.health().ready
            cluster.kafka.produce(there, [Record(b"there")])
            await reader.has(1)
            cluster.kafka.create(name=later)
            cluster.kafka.produce(later, [Record(b"later")])
            await reader.has(2)
            await reader.ready()
        assert reader.by_partition() == {(there, 0): [b"there"], (later, 0): [b"later"]}

    @runs
    async def test_of_a_partition_that_comes_later_is_at_its_beginning(self, cluster: World):
        topic = cluster.kafka.create()
        async with Reader(cluster, topic, earliest=False) as reader:
            await reader.until(lambda: (topic, 0) in reader.positions)
            cluster.kafka.add_partitions(topic, 2)
            records = numbered(20, 2)
            cluster.kafka.produce(topic, records)
            await reader.has(20)
        assert reader.by_partition() == {(topic, number): found for number, found in values(records).items()}

    @runs
    async def test_behind_what_retention_has_taken_counts_the_loss(self, cluster: World):
        topic = cluster.kafka.create()
        cluster.kafka.produce(topic, numbered(10))
        cluster.kafka.trim(topic, {0: 7})
        async with Reader(cluster, topic, resume={(topic, 0): 3}, earliest=False) as reader:
            await reader.has(3)
        assert reader.messages == [b"7", b"8", b"9"]
        assert reader.lost() == 4
        assert reader.troubles("expired") == [f"{topic}-0: the broker has deleted 4 records before they were read"]

    @runs
    async def test_beyond_the_end_is_of_another_topic_which_is_read_whole(self, cluster: World):
        topic = cluster.kafka.create()
        cluster.kafka.produce(topic, numbered(3))
        async with Reader(cluster, topic, resume={(topic, 0): 10}, earliest=False) as reader:
            await reader.has(3)
        assert reader.messages == [b"0", b"1", b"2"]
        assert reader.lost() == 0
        (detail,) = reader.troubles("expired")
        assert detail == f"{topic}-0: offset 10 is beyond its end: the topic is another one; reading it whole"


class TestStaticShares:
    @runs
    async def test_cover_everything_once(self, world: World):
        topic = world.kafka.create(5)
        records = numbered(50, 5)
        world.kafka.produce(topic, records)
        async with Reader(world, topic, share=Share(0, 2)) as even, Reader(world, topic, share=Share(1, 2)) as odd:
            await even.has(30)
            await odd.has(20)
            assert (even.source.health().partitions, odd.source.health().partitions) == (3, 2)
            assert even.source.health().guarantee == "exactly_once"
        expected = {(topic, number): found for number, found in values(records).items()}
        assert even.by_partition() == {place: found for place, found in expected.items() if place[1] % 2 == 0}
        assert odd.by_partition() == {place: found for place, found in expected.items() if place[1] % 2 == 1}

    @runs
    async def test_commit_for_tools_what_is_durable_but_go_on_where_the_state_says(self, cluster: World):
        topic = cluster.kafka.create()
        group = f"group-of-{topic}"
        cluster.kafka.produce(topic, numbered(10))
        async with Reader(cluster, topic, group=group) as reader:
            await reader.has(10)
            await reader.tick()
            await reader.until(lambda: cluster.kafka.committed(group) == {(topic, 0): 10})
            await reader.until(lambda: reader.source.health().lag_records == 0)
        async with Reader(cluster, topic, group=group, resume={(topic, 0): 6}) as again:
            await again.has(4)
        assert again.messages == [b"6", b"7", b"8", b"9"]
        assert not again.sink.troubles


class TestBackPressure:
    @runs
    async def test_while_the_sink_is_busy_only_what_fits_is_held(self, world: World):
        topic = world.kafka.create(2)
        records = numbered(2000, 2)
        world.kafka.produce(topic, records)
        sink = FakeSink()
        sink.open.clear()
        async with Reader(world, topic, sink=sink) as reader:
            await reader.until(lambda: sink.calls)
            assert not reader.messages
            sink.open.set()
            await reader.has(2000)
        assert reader.by_partition() == {(topic, number): found for number, found in values(records).items()}

    def test_that_ends_lets_a_partition_go_on_amid_what_was_fetched_of_it(self, world: World):
        topic = world.kafka.create(2)
        world.kafka.produce(topic, numbered(200, 2))
        client = world.connect(Connection(world.access.bootstrap.split(","), None, True, "tests"), NobodyRebalances())
        read = dict.fromkeys((Partition(topic, 0), Partition(topic, 1)), 0)

        def poll_until(condition: Callable[[], object]) -> None:
            for _ in range(100):
                for one in client.poll(0.1, 10):
                    assert isinstance(one, Records)
                    read[one.partition] += len(one.values)
                if condition():
                    return
            raise AssertionError(read)

        with closing(client):
            client.assign(dict.fromkeys(read, 0))
            poll_until(lambda: any(read.values()))
            paused, other = sorted(read, key=read.__getitem__, reverse=True)
            client.pause({paused})
            poll_until(lambda: read[other] == 100)
            assert read[paused] < 100
            client.pause(set())
            poll_until(lambda: read[paused] == 100)


class TestGroups:
    @runs
    async def test_share_out_anew_without_loss_or_repetition(self, cluster: World):
        topic = cluster.kafka.create(4)
        group = f"group-of-{topic}"
        records = numbered(400, 4)
        cluster.kafka.produce(topic, records[:100])
        async with Reader(cluster, topic, share=None, group=group) as one:
            await one.has(100)
            assert one.source.health().guarantee == "at_least_once"
            async with Reader(cluster, topic, share=None, group=group) as two:
                await two.until(lambda: one.source.health().partitions == two.source.health().partitions == 2)
                cluster.kafka.produce(topic, records[100:200])
                await two.has(50)
                await one.has(150)
            await one.until(lambda: one.source.health().partitions == 4)
            cluster.kafka.produce(topic, records[200:300])
            await one.has(250)
        async with Reader(cluster, topic, share=None, group=group) as three:
            cluster.kafka.produce(topic, records[300:])
            await three.has(100)
        assert sorted(one.messages + two.messages + three.messages) == sorted(record.value for record in records)
        for reader in (one, two, three):
            for (_, number), found in reader.by_partition().items():
                assert found == [value for value in values(records)[number] if value in set(found)]
        assert cluster.kafka.committed(group) == {(topic, number): 100 for number in range(4)}
        assert one.redelivered() == two.redelivered() == three.redelivered() == 0

    @runs
    async def test_get_again_what_a_member_did_not_acknowledge(self, cluster: World):
        """As after a crash between a tick and the next: the state is ahead of the group."""
        topic = cluster.kafka.create()
        group = f"group-of-{topic}"
        cluster.kafka.produce(topic, numbered(10))
        async with Reader(cluster, topic, share=None, group=group) as before:
            await before.has(10)
            await before.tick()
            await before.until(lambda: cluster.kafka.committed(group) == {(topic, 0): 10})
            before.sink.writable = False
            cluster.kafka.produce(topic, numbered(5, start=10))
            await before.has(15)
        async with Reader(cluster, topic, share=None, group=group, resume=before.positions) as after:
            await after.has(5)
            await after.until(after.redelivered)
        assert after.messages == [b"10", b"11", b"12", b"13", b"14"]
        assert after.redelivered() == 5
        assert after.troubles("redelivered") == [f"{topic}-0: begins at 10, counted up to 15: 5 count again"]

    @runs
    async def test_commit_of_what_is_taken_away_only_what_is_durable(self, cluster: World):
        topic = cluster.kafka.create(2)
        group = f"group-of-{topic}"
        cluster.kafka.produce(topic, numbered(20, 2))
        async with Reader(cluster, topic, share=None, group=group) as one:
            await one.has(20)
            one.sink.writable = False
            async with Reader(cluster, topic, share=None, group=group) as two:
                await two.has(10)
                assert set(cluster.kafka.committed(group).values()) <= {10}
                ((_, number),) = two.by_partition()
                assert two.by_partition() == {(topic, number): values(numbered(20, 2))[number]}

    @runs
    async def test_see_a_partition_that_comes_later(self, cluster: World):
        topic = cluster.kafka.create()
        async with Reader(cluster, topic, share=None, group=f"group-of-{topic}") as reader:
            await reader.until(lambda: reader.source.health().partitions == 1)
            cluster.kafka.add_partitions(topic, 2)
            records = numbered(20, 2)
            cluster.kafka.produce(topic, records)
            await reader.has(20)
        assert reader.by_partition() == {(topic, number): found for number, found in values(records).items()}
        assert reader.redelivered() == 0


@pytest.mark.e2e
@each_client
@pytest.mark.parametrize(
    "protocol, mechanism",
    [("SSL", None), *((protocol, one) for protocol in ("SASL_PLAINTEXT", "SASL_SSL") for one in MECHANISMS)],
)
@untidy
@runs
async def test_reads_through_every_kind_of_security(
    apache_kafka: Apache, client: str, protocol: str, mechanism: str | None
):
    world = Real(client, apache_kafka.bootstrap, apache_kafka.access(protocol, mechanism))
    topic = world.kafka.create()
    world.kafka.produce(topic, [Record(b"secret")])
    async with Reader(world, topic) as reader:
        await reader.has(1)
        await reader.ready()
    assert reader.messages == [b"secret"]
    # kafka-python loses a TLS connection now and then, and makes another.
    assert {trouble.reason for trouble in reader.sink.troubles} <= {"connection"}


@pytest.mark.e2e
@each_client
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
@untidy
@runs
async def test_a_wrong_password_is_told_but_not_shown(apache_kafka: Apache, client: str, mechanism: str):
    world = Real(client, apache_kafka.bootstrap, apache_kafka.access("SASL_SSL", mechanism))
    async with Reader(world, world.kafka.create(), password="hunter2") as reader:
        await reader.until(lambda: reader.troubles("authentication"))
        await reader.until(lambda: "not authenticated" in (reader.source.not_ready() or ""))
    assert {trouble.reason for trouble in reader.sink.troubles} <= {"authentication", "connection"}
    assert "hunter2" not in str(reader.sink.troubles)


@pytest.mark.e2e
@each_client
@pytest.mark.usefixtures("impatient")
@untidy
@runs
async def test_an_authority_that_is_not_trusted_is_told(apache_kafka: Apache, client: str):
    access = apache_kafka.access("SSL")
    world = Real(client, apache_kafka.bootstrap, apache_kafka.access("SSL"))
    world.access = type(access)(access.bootstrap, "SSL", None, Path("/etc/ssl/certs/ca-certificates.crt"))
    async with Reader(world, world.kafka.create()) as reader:
        await reader.until(lambda: reader.sink.troubles)
        assert reader.source.not_ready() is not None


@each_client
@pytest.mark.usefixtures("impatient")
@untidy
@runs
async def test_a_cluster_that_is_not_there_is_told_and_waited_for(client: str):
    async with Reader(Real(client, "127.0.0.1:1"), "anything") as reader:
        await reader.until(lambda: reader.troubles("connection"))
        assert (reader.source.not_ready() or "").startswith("kafka: cannot reach the cluster: ")


@runs
async def test_records_of_a_codec_that_is_not_installed_wait_and_others_go_on(
    tansu: Any, monkeypatch: pytest.MonkeyPatch
):
    import kafka.codec

    monkeypatch.setattr(kafka.codec, "zstd", None)
    world = Real("kafka-python", tansu.bootstrap)
    topic = world.kafka.create(2)
    world.kafka.produce(topic, [Record(b"plain", partition=0)])
    world.kafka.produce(topic, [Record(bytes(1000), partition=0)], "zstd")
    world.kafka.produce(topic, [Record(b"other", partition=1)])
    async with Reader(world, topic) as reader:
        await reader.until(lambda: reader.troubles("unsupported_compression"))
        world.kafka.produce(topic, [Record(b"another", partition=1)])
        await reader.has(3)
        assert f"{topic}-0 at offset 1" in (reader.source.not_ready() or "")
        assert "zstd" in (reader.source.not_ready() or "")
    assert reader.by_partition() == {(topic, 0): [b"plain"], (topic, 1): [b"other", b"another"]}
    assert reader.positions[topic, 0] == 1


@pytest.fixture(scope="module")
def restarting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apache]:
    """A broker that may be stopped."""
    with apache.running(tmp_path_factory.mktemp("restarting")) as broker:
        yield broker


@pytest.mark.e2e
@long
@untidy
@runs
async def test_a_broker_that_goes_away_is_waited_for_and_read_on(restarting: Apache):
    worlds = [Real(client, restarting.bootstrap) for client in CLIENTS]
    topic = worlds[0].kafka.create(2)
    worlds[0].kafka.produce(topic, numbered(10, 2))
    async with (
        Reader(worlds[0], topic) as one,
        Reader(worlds[1], topic) as two,
        Reader(worlds[0], topic, share=None, group="three") as three,
        Reader(worlds[1], topic, share=None, group="four") as four,
    ):
        readers = (one, two, three, four)
        for reader in readers:
            await reader.has(10)
            await reader.ready()
        await asyncio.to_thread(restarting.stop)
        for reader in readers:
            await reader.until(lambda reader=reader: reader.source.not_ready())
            assert (reader.source.not_ready() or "").startswith("kafka: cannot reach the cluster: ")
        await asyncio.to_thread(restarting.start)
        worlds[0].kafka.produce(topic, numbered(10, 2, start=10))
        for reader in readers:
            await reader.until(lambda reader=reader: {b"18", b"19"} <= set(reader.messages), within_s=60)
            await reader.ready()
    for reader in (one, two):
        assert reader.by_partition() == {(topic, number): found for number, found in values(numbered(20, 2)).items()}
    for reader in (three, four):
        assert set(reader.messages) == {record.value for record in numbered(20, 2)}


@pytest.mark.e2e
@long
@untidy
@runs
async def test_a_batch_that_is_damaged_on_disk_costs_its_records_and_no_others(restarting: Apache):
    worlds = [Real(client, restarting.bootstrap) for client in CLIENTS]
    kafka = worlds[0].kafka
    inner, last = kafka.create(2), kafka.create()
    kafka.produce(inner, numbered(3))
    kafka.produce(inner, [Record(b"spoilt", partition=0)] * 5)
    kafka.produce(inner, numbered(3, start=3))
    kafka.produce(inner, [Record(b"other", partition=1)])
    kafka.produce(last, [Record(b"first")])
    kafka.produce(last, [Record(b"spoilt")])
    await asyncio.to_thread(restarting.stop)
    restarting.spoil(inner, 3)
    restarting.spoil(last, 1)
    await asyncio.to_thread(restarting.start)
    async with Reader(worlds[0], inner, last) as one, Reader(worlds[1], inner, last) as two:
        for reader in (one, two):
            await reader.until(lambda reader=reader: reader.positions == {(inner, 0): 11, (inner, 1): 1, (last, 0): 2})
            await reader.ready()
        kafka.produce(last, [Record(b"more")])
        for reader in (one, two):
            await reader.until(lambda reader=reader: b"more" in reader.messages)
    for reader in (one, two):
        assert reader.by_partition() == {
            (inner, 0): values(numbered(6))[0],
            (inner, 1): [b"other"],
            (last, 0): [b"first", b"more"],
        }
        assert [reject.reason for reject in reader.rejects] == ["corrupt_record"] * 6
        assert not reader.sink.troubles
