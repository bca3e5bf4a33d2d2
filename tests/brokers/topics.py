"""What tests do to a broker's topics: through the listener without security, and with a deadline."""

import socket
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic, OffsetSpec

COMPRESSIONS = ("none", "gzip", "snappy", "lz4", "zstd")

_TIMEOUT_S = 20.0
_ONE_SECOND = 1.0
_MAX_BYTES = 10_000_000


class Record(NamedTuple):
    """A record to produce. Without a partition the key decides, without a timestamp the clock."""

    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes | None]] = ()
    timestamp_ms: int = 0
    partition: int = -1


def answers(bootstrap: str) -> bool:
    """Whether there is a broker and every partition has a leader. OSError where nobody listens yet."""
    host, port = bootstrap.split(":")
    socket.create_connection((host, int(port)), _ONE_SECOND).close()
    try:
        found = _admin(bootstrap).list_topics(timeout=_ONE_SECOND)
    except KafkaException:
        return False
    leaders = (partition.leader for topic in found.topics.values() for partition in topic.partitions.values())
    return bool(found.brokers) and all(leader in found.brokers for leader in leaders)


def create(bootstrap: str, partitions: int = 1, *, name: str | None = None, **config: str) -> str:
    """Create a topic, by default of a name nobody else uses. `config` as Kafka spells it, with `_` for `.`."""
    name = name or f"topic-{uuid.uuid4().hex[:12]}"
    settings = {key.replace("_", "."): value for key, value in config.items()}
    _ask(bootstrap, lambda admin: admin.create_topics([NewTopic(name, partitions, 1, config=settings)]))
    return name


def add_partitions(bootstrap: str, topic: str, total: int) -> None:
    """Let the topic have so many partitions."""
    _ask(bootstrap, lambda admin: admin.create_partitions([NewPartitions(topic, total)]))


def delete(bootstrap: str, topic: str) -> None:
    _ask(bootstrap, lambda admin: admin.delete_topics([topic]))


def exists(bootstrap: str, topic: str) -> bool:
    return topic in _admin(bootstrap).list_topics(timeout=_TIMEOUT_S).topics


def trim(bootstrap: str, topic: str, before: Mapping[int, int]) -> None:
    """Delete what precedes these offsets, as retention does: a reader that stands there is out of range."""
    places = [TopicPartition(topic, partition, offset) for partition, offset in before.items()]
    _ask(bootstrap, lambda admin: admin.delete_records(places))


def produce(bootstrap: str, topic: str, records: Iterable[Record], compression: str = "none") -> None:
    """Append the records, in order within a partition, and wait until the broker has all of them.

    Batches never span two calls: a call of its own gives a record a batch of its own.
    """
    producer = _producer(bootstrap, compression)
    _send(producer, topic, records)


def produce_in_transaction(bootstrap: str, topic: str, records: Iterable[Record], *, commit: bool) -> None:
    """Append the records in one transaction and commit or abort it: either leaves a marker that takes an offset."""
    producer = _producer(bootstrap, "none", **{"transactional.id": uuid.uuid4().hex})
    producer.init_transactions(_TIMEOUT_S)
    producer.begin_transaction()
    _send(producer, topic, records)
    (producer.commit_transaction if commit else producer.abort_transaction)(_TIMEOUT_S)


def begin_offsets(bootstrap: str, topic: str) -> dict[int, int]:
    """Offset of the oldest record, by partition."""
    return _offsets(bootstrap, topic, OffsetSpec.earliest())


def end_offsets(bootstrap: str, topic: str) -> dict[int, int]:
    """Offset that the next record will have, by partition."""
    return _offsets(bootstrap, topic, OffsetSpec.latest())


def committed(bootstrap: str, group: str) -> dict[tuple[str, int], int]:
    """Offsets that a consumer group has committed, by topic and partition."""
    groups = [ConsumerGroupTopicPartitions(group)]
    (found,) = _ask(bootstrap, lambda admin: admin.list_consumer_group_offsets(groups)).values()
    return {(one.topic, one.partition): one.offset for one in found.topic_partitions if one.offset >= 0}


def members(bootstrap: str, group: str) -> list[set[tuple[str, int]]]:
    """What each member of a consumer group is assigned; empty while the group is not stable."""
    (found,) = _ask(bootstrap, lambda admin: admin.describe_consumer_groups([group])).values()
    if found.state.name != "STABLE":
        return []
    return [{(one.topic, one.partition) for one in member.assignment.topic_partitions} for member in found.members]


def _admin(bootstrap: str) -> AdminClient:
    # Its own log says on stderr what the exceptions say.
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})


def _ask(bootstrap: str, question: Callable[[AdminClient], Mapping[Any, Any]]) -> dict[Any, Any]:
    # The client lives here until all is answered: without it the futures fail.
    admin = _admin(bootstrap)
    return {about: future.result(_TIMEOUT_S) for about, future in question(admin).items()}


def _producer(bootstrap: str, compression: str, **settings: str) -> Producer:
    return Producer(
        {
            "bootstrap.servers": bootstrap,
            "log_level": 0,
            "compression.type": compression,
            "message.max.bytes": _MAX_BYTES,
            "queue.buffering.max.kbytes": 200_000,
            "message.timeout.ms": int(_TIMEOUT_S * 1000),
            "linger.ms": 5,
            "max.in.flight": 1,
            **settings,
        }
    )


def _send(producer: Producer, topic: str, records: Iterable[Record]) -> None:
    refused: Counter[str] = Counter()

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            refused[str(error)] += 1

    for record in records:
        _enqueue(producer, topic, record, delivered)
    waiting = producer.flush(_TIMEOUT_S)
    assert not waiting, f"{waiting} records still unsent"
    assert not refused, f"records were refused: {dict(refused)}"


def _enqueue(producer: Producer, topic: str, record: Record, delivered: Any) -> None:
    value, key, headers, timestamp_ms, partition = record
    while True:
        try:
            producer.produce(
                topic, value, key, partition, timestamp=timestamp_ms, headers=list(headers), on_delivery=delivered
            )
        except BufferError:
            producer.poll(_ONE_SECOND)
        else:
            return


def _offsets(bootstrap: str, topic: str, which: OffsetSpec) -> dict[int, int]:
    partitions = _admin(bootstrap).list_topics(timeout=_TIMEOUT_S).topics[topic].partitions
    places = [TopicPartition(topic, partition) for partition in partitions]
    found = _ask(bootstrap, lambda admin: admin.list_offsets(dict.fromkeys(places, which)))
    return {place.partition: one.offset for place, one in found.items()}
