"""What sources and the durable state say of themselves, to be exported beside what was counted.

Counts of troubles are sums and lie in the sources' accounts (`feed.SourceFeed`); here is what holds at the moment.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from exporter.catalog import metrics
from exporter.catalog.metric import Sample

Guarantee: TypeAlias = Literal["exactly_once", "at_least_once", "at_most_once"]
GUARANTEES: tuple[Guarantee, ...] = ("exactly_once", "at_least_once", "at_most_once")


@dataclass(frozen=True, slots=True)
class SourceHealth:
    """A source now: what it guarantees over a crash, its partitions, and the records that it has yet to read."""

    guarantee: Guarantee
    ready: bool = True
    partitions: int | None = None
    lag_records: int | None = None

    def samples(self, source: str) -> Iterator[Sample]:
        """Its series."""
        yield metrics.INGEST_READY.sample(int(self.ready), source=source)
        for guarantee in GUARANTEES:
            yield metrics.INGEST_GUARANTEE.sample(int(guarantee == self.guarantee), source=source, guarantee=guarantee)
        if self.partitions is not None:
            yield metrics.INGEST_PARTITIONS.sample(self.partitions, source=source)
        if self.lag_records is not None:
            yield metrics.INGEST_LAG.sample(self.lag_records, source=source)


@dataclass(frozen=True, slots=True)
class StateHealth:
    """The durable state: when it was last written, how that went, and whether a database had to be set aside."""

    write_failures: int = 0
    last_write: float | None = None
    write_duration_s: float | None = None
    size_bytes: int = 0
    set_aside: str | None = None
    trouble: str | None = None

    def samples(self) -> Iterator[Sample]:
        """Its series."""
        yield metrics.STATE_WRITE_FAILURES.sample(self.write_failures)
        if self.last_write is not None:
            yield metrics.STATE_LAST_WRITE.sample(self.last_write)
        if self.write_duration_s is not None:
            yield metrics.STATE_WRITE_DURATION.sample(self.write_duration_s)
        yield metrics.STATE_SIZE.sample(self.size_bytes)
        for reason in SET_ASIDE_REASONS:
            yield metrics.STATE_SET_ASIDE.sample(int(reason == self.set_aside), reason=reason)


SET_ASIDE_REASONS = ("damaged", "newer", "foreign")
"""Why a database was not used."""
