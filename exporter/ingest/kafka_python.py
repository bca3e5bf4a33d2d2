"""The client library kafka-python behind `kafka_client.Client`; this file alone imports it.

Without the package crc32c its checksums take ten times as long as everything else (11,000 events a second of 829
bytes); its metrics take a tenth. What it keeps to itself and is needed here is reached through its hook for the network
client (metadata on demand, with a timeout), its subscription (positions, without waiting for them) and its fetcher
(which record broke).
"""

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import kafka
from kafka import errors
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.sasl.oauth import AbstractTokenProvider
from kafka.net.selector import NetworkSelector
from kafka.structs import OffsetAndMetadata, TopicPartition

from exporter.ingest.envelopes import envelopes_of
from exporter.ingest.kafka_client import HEARTBEATS, Blocked, Bounds, Connection, Rebalancing, Unreachable
from exporter.ingest.lanes import Partition, Records
from exporter.monitor.events import Reject

CONNECT_MS = 5000
ANSWER_MS = 3000
RECONNECT_MS = 1000
METADATA_MS = 10_000
"""How often partitions that were added are looked for; the client's own default is five minutes."""
FETCH_BYTES = 4 * 2**20
"""Bytes a fetch; the client holds one fetch a broker ready while another is on its way."""

_CONNECTION = (errors.RetriableError, OSError)
_AUTHENTICATION = (errors.SaslAuthenticationFailedError, errors.UnsupportedSaslMechanismError)
_AUTHORIZATION = (errors.TopicAuthorizationFailedError, errors.GroupAuthorizationFailedError)

logger = logging.getLogger(__name__)


class KafkaPythonClient:
    """One KafkaConsumer."""

    def __init__(self, connection: Connection, rebalancing: Rebalancing, headers: Mapping[str, str]) -> None:
        """Connects. Raises Unreachable."""
        self._rebalancing = rebalancing
        self._headers = headers
        self._net: Any = None  # set by the library's hook, as is the manager
        self._manager: _Manager | None = None
        self._paused: frozenset[TopicPartition] = frozenset()
        try:
            with self._explained():
                self._consumer = kafka.KafkaConsumer(**_options(connection), kafka_client=self._client)
        except Unreachable:
            self._abandon()
            raise

    def subscribe(self, topics: Sequence[str]) -> None:
        """Read whatever partitions of these topics the group gives us."""
        self._consumer.subscribe(topics=list(topics), listener=_Listener(self._consumer, self._rebalancing))

    def assign(self, offsets: Mapping[Partition, int]) -> None:
        """Read these partitions too."""
        with _explained():
            self._consumer.assign([*self._consumer.assignment(), *map(_theirs, offsets)])
            for partition, offset in offsets.items():
                self._consumer.seek(_theirs(partition), offset)

    def poll(self, timeout_s: float, limit: int) -> Sequence[Records | Blocked]:
        """Records as they come."""
        self._take_up()
        try:
            with _explained():
                polled = self._consumer.poll(timeout_ms=int(timeout_s * 1000), max_records=limit)
        except _Unreadable as error:
            broken = self._consumer._fetcher._next_partition_records
            if not broken:
                raise Unreachable("other", str(error)) from error
            return [self._skip_or_block(broken.topic_partition, broken.next_fetch_offset, error)]
        found = [self._records(partition, records) for partition, records in polled.items()]
        return [*found, *self._postponed(), *self._passed_over(polled)]

    def pause(self, partitions: Collection[Partition]) -> None:
        """Fetch from all partitions but these."""
        wanted = frozenset(map(_theirs, partitions))
        if wanted == self._paused:
            return
        assigned = self._consumer.assignment()
        self._consumer.resume(*((self._paused - wanted) & assigned))
        self._consumer.pause(*((wanted - self._paused) & assigned))
        self._paused = wanted

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Commit offsets of the group, and wait for it."""
        with _explained():
            self._consumer.commit(_their_offsets(offsets), timeout_ms=ANSWER_MS)

    def committed(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """The offsets at which reading begins after a rebalance; what the group has none for is left out."""
        with _explained():
            found = {one: self._consumer.committed(_theirs(one), timeout_ms=ANSWER_MS) for one in partitions}
        return {partition: offset for partition, offset in found.items() if offset is not None}

    def partitions(self, topics: Iterable[str]) -> Mapping[str, Collection[int]]:
        """The partitions of those of these topics that exist."""
        cluster = self._net.cluster
        answered = threading.Event()
        with self._explained():
            cluster.set_topics(topics)
            future = cluster.request_update().add_both(lambda _: answered.set())
            if not answered.wait(ANSWER_MS / 1000):
                raise Unreachable("connection", f"no answer from the cluster within {ANSWER_MS / 1000:g} s")
            if future.failed():
                raise future.exception
        found = {topic: cluster.partitions_for_topic(topic) for topic in topics}
        return {topic: numbers for topic, numbers in found.items() if numbers}

    def bounds(self, partitions: Collection[Partition]) -> Mapping[Partition, Bounds]:
        """What the brokers hold of these partitions."""
        theirs = [_theirs(partition) for partition in partitions]
        if not theirs:
            return {}
        with _explained():
            first = self._consumer.beginning_offsets(theirs, timeout_ms=ANSWER_MS)
            end = self._consumer.end_offsets(theirs, timeout_ms=ANSWER_MS)
        return {Partition(*one): Bounds(first[one], end[one]) for one in theirs if one in first and one in end}

    def close(self) -> None:
        """Leave the group and go."""
        try:
            self._consumer.close(autocommit=False, timeout_ms=CONNECT_MS)
        except errors.KafkaError as error:
            logger.warning("kafka: left without goodbye: %s", error)

    def _abandon(self) -> None:
        """End the thread of a consumer that did not come to be."""
        if self._net is not None:
            self._net.close()

    def _client(self, **options: Any) -> KafkaNetClient:
        net = NetworkSelector(**options)
        self._manager = _Manager(net, **options)
        self._net = KafkaNetClient(net, self._manager, **options)
        return self._net

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors of the library as ours, with the reason that it only logs: all it says itself is that time is up."""
        try:
            with _explained():
                yield
        except Unreachable as error:
            if error.reason != "connection" or self._manager is None or self._manager.failure is None:
                raise
            with _explained():
                raise self._manager.failure from error

    def _records(self, partition: TopicPartition, records: Sequence[Any]) -> Records:
        offsets = range(records[0].offset, records[-1].offset + 1)
        return Records(
            partition=Partition(*partition),
            next_offset=records[-1].offset + 1,
            times=[record.timestamp / 1000 for record in records],
            values=[record.value for record in records],
            offsets=offsets if len(offsets) == len(records) else [record.offset for record in records],
            envelopes=envelopes_of([record.headers for record in records], self._headers),
        )

    def _take_up(self) -> None:
        """Let what a pause has put aside be read on. kafka-python waits for an empty place, and leaves it used up."""
        fetcher = self._consumer._fetcher
        if not fetcher._next_partition_records:
            fetcher._next_partition_records = None

    def _postponed(self) -> Iterator[Records | Blocked]:
        """What broke behind records of other partitions. The library keeps it for later, and forgets it at a pause."""
        fetcher = self._consumer._fetcher
        postponed, fetcher._next_in_line_exception_metadata = fetcher._next_in_line_exception_metadata, None
        if postponed is not None:
            try:
                with _explained():
                    raise postponed.exception
            except _Unreadable as error:
                yield self._skip_or_block(postponed.partition, postponed.fetched_offset, error)

    def _skip_or_block(self, place: TopicPartition, offset: int, error: "_Unreadable") -> Records | Blocked:
        """Go past one record that is broken, or stop at one that something is missing for."""
        fetched = self._consumer._fetcher._next_partition_records
        if fetched and fetched.topic_partition == place:
            fetched.drain()  # the library would wait for ever for an iterator that has raised
        partition = Partition(*place)
        if error.codec:
            self._consumer.pause(place)
            self._paused |= {place}
            return Blocked(partition, "unsupported_compression", f"{partition} at offset {offset}: {error}")
        self._consumer.seek(place, offset + 1)
        reject = Reject(0, "corrupt_record", f"{partition} offset {offset}: {error}")
        return Records(partition, offset + 1, (), (), (), rejects=[reject])

    def _passed_over(self, polled: Collection[TopicPartition]) -> Iterator[Records]:
        """Where reading goes on in the other partitions: the library passes over markers and gaps without a word."""
        for place, state in self._consumer._subscription.assignment.items():
            if place not in polled and state.position is not None:
                yield Records(Partition(*place), state.position.offset, (), (), ())


class _Unreadable(Exception):
    """A record that was fetched cannot be read; `codec` if only a codec is missing."""

    def __init__(self, detail: str, *, codec: bool) -> None:
        super().__init__(detail)
        self.codec = codec


@contextmanager
def _explained() -> Iterator[None]:
    """Errors of the library as ours."""
    try:
        yield
    except errors.CorruptRecordError as error:
        raise _Unreadable(str(error), codec=False) from error
    except errors.UnsupportedCodecError as error:
        raise _Unreadable(str(error), codec=True) from error
    except _AUTHENTICATION as error:
        raise Unreachable("authentication", f"not authenticated: {_said(error)}") from error
    except _AUTHORIZATION as error:
        raise Unreachable("authorization", f"not authorised: {_said(error)}") from error
    except _CONNECTION as error:
        raise Unreachable("connection", f"cannot reach the cluster: {_said(error)}") from error
    except errors.KafkaError as error:
        raise Unreachable("other", _said(error)) from error


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


class _Manager(KafkaConnectionManager):
    """Remembers why connections fail. A refusal goes before the lost connections that follow it."""

    failure: Exception | None = None

    def get_connection(self, *arguments: Any, **options: Any) -> Any:
        connection = super().get_connection(*arguments, **options)
        connection.init_future.add_both(self._note)
        return connection

    def _note(self, outcome: Any) -> None:
        if not isinstance(outcome, Exception):
            self.failure = None
        elif not isinstance(self.failure, _AUTHENTICATION):
            self.failure = outcome


class _Listener(AsyncConsumerRebalanceListener):
    """Passes rebalances on. It runs in the library's own loop, where only its futures may be awaited.

    Making the state durable blocks that loop for some milliseconds; the heartbeats of a session can wait for seconds.
    """

    def __init__(self, consumer: Any, rebalancing: Rebalancing) -> None:
        self._consumer = consumer
        self._rebalancing = rebalancing

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        offsets = self._rebalancing.revoked([Partition(*one) for one in revoked], lost=False)
        if not offsets:
            return
        try:
            await self._consumer.commit_async(_their_offsets(offsets))
        except errors.KafkaError as error:
            logger.warning("kafka: offsets of revoked partitions not committed: %s", _said(error))

    async def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        self._rebalancing.revoked([Partition(*one) for one in lost], lost=True)

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._rebalancing.assigned([Partition(*one) for one in assigned])


class _Token(AbstractTokenProvider):
    def __init__(self, token: Callable[[], str]) -> None:
        super().__init__()
        self._token = token

    def token(self) -> str:
        return self._token()


def _options(connection: Connection) -> dict[str, Any]:
    tls, sasl = connection.tls, connection.sasl
    options: dict[str, Any] = {
        "bootstrap_servers": list(connection.bootstrap_servers),
        "client_id": connection.client_id,
        "group_id": connection.group_id,
        "auto_offset_reset": "earliest" if connection.earliest else "latest",
        "enable_auto_commit": False,
        "allow_auto_create_topics": False,
        "session_timeout_ms": int(connection.session_timeout_s * 1000),
        "heartbeat_interval_ms": int(connection.session_timeout_s * 1000 / HEARTBEATS),
        "bootstrap_timeout_ms": CONNECT_MS,
        "reconnect_backoff_max_ms": RECONNECT_MS,
        "metadata_max_age_ms": METADATA_MS,
        "fetch_max_bytes": FETCH_BYTES,
        "isolation_level": "read_committed",
        "metrics_enabled": False,
        "security_protocol": ("SASL_" if sasl else "") + ("SSL" if tls else "PLAINTEXT"),
    }
    if sasl is not None:
        options["sasl_mechanism"] = sasl.mechanism
        if sasl.token is None:
            options |= {"sasl_plain_username": sasl.username, "sasl_plain_password": sasl.password}
        else:
            options["sasl_oauth_token_provider"] = _Token(sasl.token)
    if tls is not None:
        options |= {
            "ssl_check_hostname": tls.check_hostname,
            "ssl_cafile": tls.ca_file,
            "ssl_certfile": tls.cert_file,
            "ssl_keyfile": tls.key_file,
            "ssl_password": tls.key_password,
        }
    return options


def _theirs(partition: Partition) -> TopicPartition:
    return TopicPartition(*partition)


def _their_offsets(offsets: Mapping[Partition, int]) -> dict[TopicPartition, OffsetAndMetadata]:
    return {_theirs(partition): OffsetAndMetadata(offset, "", -1) for partition, offset in offsets.items()}
