"""The client library confluent-kafka (librdkafka) behind `kafka_client.Client`; this file alone imports it.

librdkafka fetches and decompresses on threads of its own, without the interpreter lock: several times the speed. Its
defaults are for other uses: it would hold 64 MB a topic ready, and, having once filled its queue, look again only after
a second, which made 59,000 events a second of 316,000 (W1, lz4).
"""

import base64
import binascii
import json
import logging
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from exporter.ingest.envelopes import envelopes_of
from exporter.ingest.kafka_client import HEARTBEATS, Blocked, Bounds, Connection, Rebalancing, Sasl, Unreachable
from exporter.ingest.lanes import Partition, Records
from exporter.monitor.events import Reject

ANSWER_S = 3.0
CLOSE_S = 5.0
METADATA_MS = 10_000
QUEUE_KIB = 4 * 1024
"""What the library may hold ready: 16 MiB were no faster, and 20 MiB more of memory."""
SKIP_S = 0.02
"""Time for each record of a batch that is broken."""
TOKEN_S = 300
"""How long a token is used that does not say how long it is valid."""

_AUTHENTICATION = (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL)
_AUTHORIZATION = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED)
_CONNECTION = (
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._RESOLVE,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.REPLICA_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.NOT_COORDINATOR,
    KafkaError._UNKNOWN_PARTITION,  # as far as anybody knows who is still there
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)
_CORRUPT = (KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION, KafkaError.INVALID_MSG)
_NONSENSE = (KafkaError._NOT_IMPLEMENTED, KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)
"""Said besides of a broken batch: past it, librdkafka 2 takes bytes from amid the answer for the next one's head, and
reports their version and looks for their offset, until it is told where to read on."""
_PASSING = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION)

logger = logging.getLogger(__name__)
_QUIET = logging.getLogger("librdkafka")
"""Where the library's own log lines go; what matters of them is reported as trouble."""


class ConfluentClient:
    """One Consumer."""

    def __init__(self, connection: Connection, rebalancing: Rebalancing, headers: Mapping[str, str]) -> None:
        """Prepares; the connection is made in the background. Raises Unreachable."""
        self._rebalancing = rebalancing
        self._headers = headers
        self._earliest = connection.earliest
        self._paused: frozenset[Partition] = frozenset()
        self._assigned: set[Partition] = set()
        self._revoked: set[Partition] = set()
        self._skipped: dict[Partition, int] = {}
        self._refused: Unreachable | None = None
        with _explained():
            self._consumer = Consumer(_options(connection) | {"error_cb": self._error}, logger=_QUIET)

    def subscribe(self, topics: Sequence[str]) -> None:
        """Read whatever partitions of these topics the group gives us."""
        self._consumer.subscribe(
            list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def assign(self, offsets: Mapping[Partition, int]) -> None:
        """Read these partitions too."""
        with _explained():
            self._consumer.incremental_assign([TopicPartition(*one, offset) for one, offset in offsets.items()])
        self._assigned |= offsets.keys()

    def poll(self, timeout_s: float, limit: int) -> Sequence[Records | Blocked]:
        """Records as they come. What is refused is raised at the next call, for what came before it is good."""
        if self._refused is not None:
            refused, self._refused = self._refused, None
            raise refused
        self._revoked = set()
        with _explained():
            # It waits for as many as asked for; a broken batch, passed record by record, should not take that long.
            messages = self._consumer.consume(limit, min(timeout_s, SKIP_S) if self._skipped else timeout_s)
        found: dict[Partition, list[Any]] = {}
        for (topic, number), run in groupby(messages, _place):
            found.setdefault(Partition(topic, number), []).extend(run)
        if self._revoked:
            self._again(found)
        return [records for one, run in found.items() if (records := self._records(one, run)) is not None]

    def pause(self, partitions: Collection[Partition]) -> None:
        """Fetch from all partitions but these."""
        wanted = frozenset(partitions)
        if wanted == self._paused:
            return
        with _explained():
            self._consumer.resume([TopicPartition(*one) for one in (self._paused - wanted) & self._assigned])
            self._consumer.pause([TopicPartition(*one) for one in (wanted - self._paused) & self._assigned])
        self._paused = wanted

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Commit offsets of the group, and wait for it. The library's own waiting has no end; so it is asked what came.

        Both requests go the same way, one behind the other.
        """
        with _explained():
            self._consumer.commit(offsets=[TopicPartition(*one, offset) for one, offset in offsets.items()])
        if self.committed(offsets) != dict(offsets):
            raise Unreachable("other", "the group has not taken them")

    def committed(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """The offsets at which reading begins after a rebalance; what the group has none for is left out."""
        with _explained():
            found = self._consumer.committed([TopicPartition(*one) for one in partitions], ANSWER_S)
        return {Partition(one.topic, one.partition): one.offset for one in found if one.offset >= 0}

    def partitions(self, topics: Iterable[str]) -> Mapping[str, Collection[int]]:
        """The partitions of those of these topics that exist."""
        found: dict[str, Collection[int]] = {}
        with _explained():
            for topic in topics:
                known = self._consumer.list_topics(topic, ANSWER_S).topics.get(topic)
                if known is not None and known.error is None and known.partitions:
                    found[topic] = set(known.partitions)
        return found

    def bounds(self, partitions: Collection[Partition]) -> Mapping[Partition, Bounds]:
        """What the brokers hold of these partitions."""
        found: dict[Partition, Bounds] = {}
        with _explained():
            for partition in partitions:
                bounds = self._consumer.get_watermark_offsets(TopicPartition(*partition), ANSWER_S)
                if bounds is None:
                    raise Unreachable("connection", f"no answer about {partition} within {ANSWER_S:g} s")
                found[partition] = Bounds(*bounds)
        return found

    def close(self) -> None:
        """Leave the group and go; without goodbye where nobody answers: the library would wait for ever."""
        closing = threading.Thread(target=self._consumer.close, daemon=True)
        closing.start()
        closing.join(CLOSE_S)
        if closing.is_alive():
            logger.warning("kafka: left without goodbye: no answer within %g s", CLOSE_S)

    def _records(self, partition: Partition, messages: Sequence[Any]) -> Records | None:
        """What came of a partition: records, its end, a record that cannot be read; None if it is nothing of these."""
        rejects: list[Reject] = []
        next_offset, broken = -1, None
        lost = partition in self._skipped
        if any(map(_error, messages)):
            errors = [message for message in messages if message.error() is not None]
            messages = [message for message in messages if message.error() is None]
            for message in errors:
                code = message.error().code()
                if code == KafkaError._PARTITION_EOF:
                    next_offset = max(next_offset, message.offset())
                elif code in _CORRUPT and message.topic() is not None:
                    broken = broken or message
                    lost = True
                elif code not in _PASSING and not (lost and code in _NONSENSE):
                    self._refused = _unreachable(message.error())
        if messages:
            next_offset = max(next_offset, messages[-1].offset() + 1)
        if next_offset >= 0:
            self._skipped.pop(partition, None)
        if broken is not None and next_offset <= broken.offset() + 1:
            rejects = [self._skip(partition, broken)]
            next_offset = self._skipped[partition]
        if next_offset < 0:
            return None
        offsets = range(messages[0].offset(), messages[-1].offset() + 1) if messages else range(0)
        return Records(
            partition=partition,
            next_offset=next_offset,
            times=[message.timestamp()[1] / 1000 for message in messages],
            values=[message.value() for message in messages],
            offsets=offsets if len(offsets) == len(messages) else [message.offset() for message in messages],
            envelopes=envelopes_of([message.headers() for message in messages], self._headers),
            rejects=rejects,
        )

    def _skip(self, partition: Partition, broken: Any) -> Reject:
        """Go past one record of a batch that is broken: librdkafka would read it again and again.

        Wherever in a batch we are, it names the first offset.
        """
        offset = max(broken.offset(), self._skipped.get(partition, 0))
        self._skipped[partition] = offset + 1
        with _explained():
            self._consumer.seek(TopicPartition(*partition, offset + 1))
        return Reject(0, "corrupt_record", f"{partition} offset {offset}: {broken.error().str()}")

    def _again(self, found: dict[Partition, list[Any]]) -> None:
        """Fetch again what was taken away and given back within one call: nobody can say which of it came when."""
        for partition in self._revoked:
            if found.pop(partition, None) and partition in self._assigned:
                start = self.committed([partition]).get(partition, OFFSET_BEGINNING if self._earliest else OFFSET_END)
                self._consumer.seek(TopicPartition(*partition, start))

    # ---- callbacks, called within poll and close -------------------------------------------------------------------

    def _on_assign(self, _: Consumer, assigned: Sequence[TopicPartition]) -> None:
        ours = _ours(assigned)
        self._assigned |= ours
        self._rebalancing.assigned(ours)

    def _on_revoke(self, _: Consumer, revoked: Sequence[TopicPartition]) -> None:
        offsets = self._rebalancing.revoked(self._gone(revoked), lost=False)
        if not offsets:
            return
        try:
            self.commit(offsets)
        except Unreachable as error:
            logger.warning("kafka: offsets of revoked partitions not committed: %s", error)

    def _on_lost(self, _: Consumer, lost: Sequence[TopicPartition]) -> None:
        self._rebalancing.revoked(self._gone(lost), lost=True)

    def _gone(self, partitions: Sequence[TopicPartition]) -> set[Partition]:
        ours = _ours(partitions)
        self._assigned -= ours
        self._paused -= ours
        self._revoked |= ours
        for partition in ours:
            self._skipped.pop(partition, None)
        return ours

    def _error(self, error: KafkaError) -> None:
        """What librdkafka says of itself; it tries again by itself, except where it is refused."""
        if error.code() in (*_AUTHENTICATION, *_AUTHORIZATION):
            self._refused = _unreachable(error)


def _place(message: Any) -> tuple[str, int]:
    return message.topic(), message.partition()


def _error(message: Any) -> KafkaError | None:
    error: KafkaError | None = message.error()
    return error


def _ours(partitions: Sequence[TopicPartition]) -> set[Partition]:
    return {Partition(one.topic, one.partition) for one in partitions}


@contextmanager
def _explained() -> Iterator[None]:
    """Errors of the library as ours."""
    try:
        yield
    except KafkaException as error:
        raise _unreachable(error.args[0]) from error


def _unreachable(error: KafkaError) -> Unreachable:
    for reason, said, codes in (
        ("authentication", "not authenticated", _AUTHENTICATION),
        ("authorization", "not authorised", _AUTHORIZATION),
        ("connection", "cannot reach the cluster", _CONNECTION),
    ):
        if error.code() in codes:
            return Unreachable(reason, f"{said}: {error.str()}")
    return Unreachable("other", error.str())


def _options(connection: Connection) -> dict[str, Any]:
    tls, sasl = connection.tls, connection.sasl
    options: dict[str, Any] = {
        "bootstrap.servers": ",".join(connection.bootstrap_servers),
        "client.id": connection.client_id,
        "group.id": connection.group_id or connection.client_id,  # must be given, even if nothing is committed
        "auto.offset.reset": "earliest" if connection.earliest else "latest",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "allow.auto.create.topics": False,
        "check.crcs": True,
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "partition.assignment.strategy": "range,roundrobin",  # as kafka-python, so that a group can have both
        "topic.metadata.refresh.interval.ms": METADATA_MS,
        "reconnect.backoff.max.ms": 1000,
        "session.timeout.ms": int(connection.session_timeout_s * 1000),
        "heartbeat.interval.ms": int(connection.session_timeout_s * 1000 / HEARTBEATS),
        "fetch.queue.backoff.ms": 10,
        "fetch.error.backoff.ms": int(SKIP_S * 1000),
        "queued.max.messages.kbytes": QUEUE_KIB,
        "security.protocol": ("sasl_" if sasl else "") + ("ssl" if tls else "plaintext"),
    }
    if sasl is not None:
        options["sasl.mechanism"] = sasl.mechanism
        if sasl.token is None:
            options |= {"sasl.username": sasl.username, "sasl.password": sasl.password}
        else:
            options["oauth_cb"] = lambda _: _token(sasl)
    if tls is not None:
        options["ssl.endpoint.identification.algorithm"] = "https" if tls.check_hostname else "none"
        files = {
            "ssl.ca.location": tls.ca_file,
            "ssl.certificate.location": tls.cert_file,
            "ssl.key.location": tls.key_file,
            "ssl.key.password": tls.key_password,
        }
        options |= {name: value for name, value in files.items() if value is not None}
    return options


def _token(sasl: Sasl) -> tuple[str, float]:
    """The token and when it expires: what it says itself (a JWT does), else in some minutes."""
    token = sasl.token() if sasl.token is not None else ""
    try:
        payload = token.split(".")[1]
        expires = float(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"])
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        expires = time.time() + TOKEN_S
    return token, expires
