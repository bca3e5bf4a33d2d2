"""What the Kafka source asks of a client library: a dozen blocking calls, and the same errors from each.

One contract suite holds every client to it: kafka-python, confluent-kafka, and the one in memory that tests use.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

from exporter.ingest.lanes import Partition, Records

HEARTBEATS = 15
"""Heartbeats a session; Kafka's own defaults have as many."""


class Share(NamedTuple):
    """Member `member` of `of`: partition p is its own if p mod `of` is `member`."""

    member: int
    of: int


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of a TLS connection; without `ca_file` the system's certificates are trusted."""

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    key_password: str | None = field(default=None, repr=False)
    check_hostname: bool = True


@dataclass(frozen=True, slots=True)
class Sasl:
    """SASL: PLAIN and SCRAM take user name and password, OAUTHBEARER a token that is read anew when asked for."""

    mechanism: str
    username: str = ""
    password: str = field(default="", repr=False)
    token: Callable[[], str] | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach a cluster. Without `group_id` no offset is committed; a silent member is out after its timeout.

    `earliest` is where to go where there is no offset, or one that the broker does not have.
    """

    bootstrap_servers: Sequence[str]
    group_id: str | None
    earliest: bool
    client_id: str
    session_timeout_s: float = 45.0
    tls: Tls | None = None
    sasl: Sasl | None = None


class Bounds(NamedTuple):
    """The first offset that a broker still holds of a partition, and the one that its next record will have."""

    first: int
    end: int


class Unreachable(Exception):
    """What is asked of a cluster cannot be had now; `reason` is one of TROUBLE_REASONS."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Blocked:
    """A partition cannot be read on until somebody does something; the client has paused it."""

    partition: Partition
    reason: str
    detail: str


class Rebalancing(Protocol):
    """Told by a client, on a thread of its own, when a group shares out anew."""

    def revoked(self, partitions: Collection[Partition], *, lost: bool) -> Mapping[Partition, int]:
        """Partitions are taken away; returns the offsets to commit before they are. `lost`: it is too late for that."""
        ...

    def assigned(self, partitions: Collection[Partition]) -> None:
        """Partitions are ours from here on."""
        ...


class Client(Protocol):
    """A Kafka client library. Calls block, and are made one at a time; all raise Unreachable."""

    def subscribe(self, topics: Sequence[str]) -> None:
        """Read whatever partitions of these topics the group gives us."""
        ...

    def assign(self, offsets: Mapping[Partition, int]) -> None:
        """Read these partitions too, from these offsets."""
        ...

    def poll(self, timeout_s: float, limit: int) -> Sequence[Records | Blocked]:
        """Records as they come, each partition's in order; waits until there are some, but no longer than this.

        Of offsets that hold no record for us (transaction markers, aborted, compacted away) it tells the end, as
        Records without rows: what ends a partition would otherwise look unread for ever. Aborted records are left out.
        """
        ...

    def pause(self, partitions: Collection[Partition]) -> None:
        """Fetch from all partitions but these."""
        ...

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Commit offsets of the group, and wait for it."""
        ...

    def committed(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """The group's offsets; what it has none for is left out."""
        ...

    def partitions(self, topics: Iterable[str]) -> Mapping[str, Collection[int]]:
        """The partitions of those of these topics that exist."""
        ...

    def bounds(self, partitions: Collection[Partition]) -> Mapping[Partition, Bounds]:
        """What the brokers hold of these partitions."""
        ...

    def close(self) -> None:
        """Leave the group and go."""
        ...


Connect: TypeAlias = Callable[[Connection, Rebalancing], Client]
"""Makes a client; may block, and raises Unreachable."""
