"""The honest feed: what came in from each source, and why something did not count. Sums, so they add like all else."""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from exporter.catalog import metrics
from exporter.catalog.metric import Sample
from exporter.monitor.entries import FeedEntry
from exporter.monitor.events import DROP_REASONS, LATE_REASONS, REJECT_REASONS, TROUBLE_REASONS, Reject

EXAMPLES = 10
_DETAIL_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Example:
    """A recent reject, to be shown to a person."""

    time: float
    reason: str
    detail: str


@dataclass(slots=True)
class SourceFeed:
    """The account of one source."""

    events: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    late: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)
    """Errors of the source itself, by reason."""
    redelivered: int = 0
    """Messages that came again after they had been counted."""
    watermark: float | None = None
    examples: deque[Example] = field(default_factory=lambda: deque(maxlen=EXAMPLES))

    def reject(self, rejects: list[Reject], now: float) -> None:
        """Count rejects and keep the last as examples."""
        self.rejected.update(reject.reason for reject in rejects)
        for reject in rejects[-EXAMPLES:]:
            self.examples.appendleft(Example(now, reject.reason, reject.detail[:_DETAIL_CHARACTERS]))

    def newest(self, time: float) -> None:
        """Raise the newest event time."""
        self.watermark = time if self.watermark is None else max(self.watermark, time)

    def copy(self) -> "SourceFeed":
        """An independent copy."""
        return SourceFeed(
            self.events,
            self.rejected.copy(),
            self.late.copy(),
            self.dropped.copy(),
            self.troubles.copy(),
            self.redelivered,
            self.watermark,
            self.examples.copy(),
        )

    def merge(self, other: "SourceFeed") -> None:
        """Add another process's account of the same source."""
        self.events += other.events
        self.rejected += other.rejected
        self.late += other.late
        self.dropped += other.dropped
        self.troubles += other.troubles
        self.redelivered += other.redelivered
        if other.watermark is not None:
            self.newest(other.watermark)

    def samples(self, source: str) -> Iterator[Sample]:
        """The account as series; every reason from the start, so that its first increase is seen."""
        yield metrics.INGEST_EVENTS.sample(self.events, source=source)
        for metric, reasons, counts in (
            (metrics.INGEST_REJECTED, REJECT_REASONS, self.rejected),
            (metrics.INGEST_LATE, LATE_REASONS, self.late),
            (metrics.INGEST_DROPPED, DROP_REASONS, self.dropped),
            (metrics.INGEST_SOURCE_ERRORS, TROUBLE_REASONS, self.troubles),
        ):
            for reason in reasons:
                yield metric.sample(counts[reason], source=source, reason=reason)
        yield metrics.INGEST_REDELIVERED.sample(self.redelivered, source=source)
        if self.watermark is not None:
            yield metrics.INGEST_WATERMARK.sample(self.watermark, source=source)

    def dump(self) -> FeedEntry:
        """The account; examples are for people and not kept."""
        return FeedEntry(
            self.events,
            dict(sorted(self.rejected.items())),
            dict(sorted(self.late.items())),
            dict(sorted(self.dropped.items())),
            dict(sorted(self.troubles.items())),
            self.redelivered,
            self.watermark,
        )

    def load(self, entry: FeedEntry) -> None:
        """Take over an account made by `dump`."""
        self.events, self.redelivered, self.watermark = entry.events, entry.redelivered, entry.watermark
        self.rejected, self.late = Counter(entry.rejected), Counter(entry.late)
        self.dropped, self.troubles = Counter(entry.dropped), Counter(entry.troubles)
