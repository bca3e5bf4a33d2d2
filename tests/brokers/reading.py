"""Both clients, reading a topic from its beginning."""

from collections.abc import Callable

from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as Place
from kafka import KafkaConsumer, TopicPartition

from tests.brokers.security import Access
from tests.brokers.topics import Record
from tests.e2e.waiting import eventually

Read = Callable[[Access, str, int], list[Record]]

_POLL_MS = 200
_WITHIN_S = 20.0


def with_kafka_python(access: Access, topic: str, count: int) -> list[Record]:
    """The first `count` records of partition 0."""
    consumer = KafkaConsumer(auto_offset_reset="earliest", enable_auto_commit=False, **access.kafka_python())
    found: list[Record] = []

    def enough() -> bool:
        for records in consumer.poll(_POLL_MS).values():
            found.extend(Record(one.value, one.key, one.headers, one.timestamp, one.partition) for one in records)
        return len(found) >= count

    try:
        consumer.assign([TopicPartition(topic, 0)])
        eventually(enough, lambda: f"{len(found)} of {count} records", within_s=_WITHIN_S)
    finally:
        consumer.close()
    return found


def with_confluent(access: Access, topic: str, count: int) -> list[Record]:
    """The first `count` records of partition 0."""
    settings = {"group.id": "unused", "auto.offset.reset": "earliest", "enable.auto.commit": False}
    consumer = Consumer({**settings, **access.confluent()})
    found: list[Record] = []

    def enough() -> bool:
        # Not `consume`: it waits for all it was asked for, or for the end of the timeout.
        one = consumer.poll(_POLL_MS / 1000)
        if one is not None:
            assert one.error() is None, one.error()
            found.append(Record(one.value(), one.key(), one.headers() or [], one.timestamp()[1], one.partition()))
        return len(found) >= count

    try:
        # Not OFFSET_BEGINNING: a new client takes half a second to ask where that is.
        consumer.assign([Place(topic, 0, 0)])
        eventually(enough, lambda: f"{len(found)} of {count} records", within_s=_WITHIN_S)
    finally:
        consumer.close()
    return found
