from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from kafka import KafkaProducer
from kafka.errors import CorruptRecordError

from tests.brokers import apache, topics
from tests.brokers.apache import Apache
from tests.brokers.reading import Read, with_confluent, with_kafka_python
from tests.brokers.security import MECHANISMS, Access
from tests.brokers.topics import COMPRESSIONS, Record
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

SASL = [(protocol, mechanism) for protocol in ("SASL_PLAINTEXT", "SASL_SSL") for mechanism in MECHANISMS]
RECORDS = [
    Record(b"value", b"key", [("name", b"header"), ("empty", None)], 1_700_000_000_000, 0),
    Record(None, b"key", [], 1_700_000_000_001, 0),
    Record(bytes(5_000_000), None, [], 1_700_000_000_002, 0),
]

both = pytest.mark.parametrize("read", [with_kafka_python, with_confluent])


def say_with_kafka_python(access: Access, topic: str, value: bytes) -> None:
    producer = KafkaProducer(**access.kafka_python())
    try:
        producer.send(topic, value).get(20)
    finally:
        producer.close(20)


def say_with_confluent(access: Access, topic: str, value: bytes) -> None:
    producer = Producer(access.confluent())
    producer.produce(topic, value)
    assert producer.flush(20) == 0


@pytest.mark.parametrize("protocol, mechanism", [("PLAINTEXT", None), ("SSL", None), *SASL])
def test_every_listener_serves_both_clients(apache_kafka: Apache, protocol: str, mechanism: str | None):
    topic = topics.create(apache_kafka.bootstrap)
    access = apache_kafka.access(protocol, mechanism)
    say_with_kafka_python(access, topic, b"one")
    say_with_confluent(access, topic, b"two")
    for read in (with_kafka_python, with_confluent):
        assert [record.value for record in read(access, topic, 2)] == [b"one", b"two"]


@both
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_keeps_what_is_produced_with_every_compression(apache_kafka: Apache, read: Read, compression: str):
    topic = topics.create(apache_kafka.bootstrap, max_message_bytes="6000000")
    topics.produce(apache_kafka.bootstrap, topic, RECORDS, compression)
    assert read(apache_kafka.access(), topic, len(RECORDS)) == RECORDS


def test_topics_grow_shrink_and_go(apache_kafka: Apache):
    at = apache_kafka.bootstrap
    topic = topics.create(at, 2)
    topics.produce(at, topic, [Record(b"value", partition=number % 2) for number in range(10)])
    topics.add_partitions(at, topic, 3)
    topics.trim(at, topic, {0: 3})
    assert topics.begin_offsets(at, topic) == {0: 3, 1: 0, 2: 0}
    assert topics.end_offsets(at, topic) == {0: 5, 1: 5, 2: 0}
    topics.delete(at, topic)
    eventually(lambda: not topics.exists(at, topic), "the topic is gone")


def test_transactions_take_offsets_for_their_markers(apache_kafka: Apache):
    at = apache_kafka.bootstrap
    topic = topics.create(at)
    topics.produce_in_transaction(at, topic, [Record(b"kept")], commit=True)
    topics.produce_in_transaction(at, topic, [Record(b"lost")], commit=False)
    topics.produce(at, topic, [Record(b"last")])
    assert topics.end_offsets(at, topic) == {0: 5}
    assert [record.value for record in with_confluent(apache_kafka.access(), topic, 2)] == [b"kept", b"last"]


def test_groups_tell_what_they_committed_and_who_reads_what(apache_kafka: Apache):
    at = apache_kafka.bootstrap
    topic = topics.create(at, 2)
    topics.produce(at, topic, [Record(b"value", partition=number % 2) for number in range(10)])
    consumer = Consumer(
        {
            "group.id": topic,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **apache_kafka.access().confluent(),
        }
    )
    try:
        consumer.subscribe([topic])
        for _ in range(10):
            assert eventually(lambda: consumer.poll(0.2), "a record").error() is None
        assert topics.members(at, topic) == [{(topic, 0), (topic, 1)}]
        assert topics.committed(at, topic) == {}
        consumer.commit(asynchronous=False)
        assert topics.committed(at, topic) == {(topic, 0): 5, (topic, 1): 5}
    finally:
        consumer.close()
    assert topics.members(at, topic) == []


def test_comes_back_with_its_address_and_data(tmp_path: Path):
    with apache.running(tmp_path) as broker:
        topic = topics.create(broker.bootstrap)
        topics.produce(broker.bootstrap, topic, [Record(b"one")])
        broker.stop()
        with pytest.raises(ConnectionRefusedError):
            topics.answers(broker.bootstrap)
        broker.start()
        topics.produce(broker.bootstrap, topic, [Record(b"two")])
        broker.kill()
        broker.start()
        assert [record.value for record in with_kafka_python(broker.access(), topic, 2)] == [b"one", b"two"]


def test_shows_a_damaged_batch_as_it_is(tmp_path: Path):
    with apache.running(tmp_path) as broker:
        topic = topics.create(broker.bootstrap)
        for value in (b"one", b"two", b"three"):
            topics.produce(broker.bootstrap, topic, [Record(value)])
        broker.stop()
        broker.spoil(topic, 1)
        broker.start()
        assert topics.end_offsets(broker.bootstrap, topic) == {0: 3}
        with pytest.raises(CorruptRecordError):
            with_kafka_python(broker.access(), topic, 3)


def test_says_why_it_does_not_start(tmp_path: Path):
    broker = Apache(tmp_path, settings={"num.io.threads": "-1"})
    with pytest.raises(AssertionError, match=r"num\.io\.threads"):
        broker.start()
