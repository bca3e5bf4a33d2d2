"""The account of labels: how many came, and what became of them. Sums, so they add like all else."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from exporter.catalog import metrics
from exporter.catalog.metric import Sample
from exporter.monitor.settings import JoinSettings
from exporter.stats import Floats

UNJOINED_REASONS = ("no_id", "max_pending", "future", "lost")
"""Why a prediction cannot wait for its label, or no longer: without an id, no room, ahead of the clock, unreadable."""

DELAYS_S = (
    1,
    10,
    60,
    300,
    900,
    3600,
    3 * 3600,
    6 * 3600,
    12 * 3600,
    86400,
    *(days * 86400 for days in (2, 3, 7, 14, 30, 90)),
)
"""Bounds of the buckets in which delays of labels are counted: what a maturity may be."""

_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Tally(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """What became of labels, and of predictions that could have none. Sums."""

    received: _Count = 0
    unmatched: _Count = 0
    duplicate: _Count = 0
    corrected: _Count = 0
    late: _Count = 0
    unjoined: dict[str, _Count] = {}
    delays: list[_Count] = msgspec.field(default_factory=lambda: [0] * (len(DELAYS_S) + 1))
    delay_ms: _Count = 0

    def copy(self) -> "Tally":
        """An independent copy."""
        return msgspec.structs.replace(self, unjoined=dict(self.unjoined), delays=list(self.delays))

    def merge(self, other: "Tally") -> None:
        """Add another process's."""
        for name in ("received", "unmatched", "duplicate", "corrected", "late", "delay_ms"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for reason, number in other.unjoined.items():
            self.leave(reason, number)
        self.delays = [ours + theirs for ours, theirs in zip(self.delays, other.delays, strict=True)]

    def leave(self, reason: str, number: int) -> None:
        """Count predictions that are not joined."""
        if number:
            self.unjoined[reason] = self.unjoined.get(reason, 0) + number

    def delayed(self, delays_s: Floats) -> None:
        """Count delays; a label that came before its prediction had none."""
        delays_s = np.maximum(delays_s, 0.0)
        counts = np.bincount(np.searchsorted(DELAYS_S, delays_s), minlength=len(self.delays))
        self.delays = [before + more for before, more in zip(self.delays, counts.tolist(), strict=True)]
        self.delay_ms += int(np.rint(delays_s * 1000).astype(np.int64).sum())


@dataclass(frozen=True, slots=True)
class JoinView:
    """One model's labels at one moment."""

    settings: JoinSettings
    tally: Tally
    pending: int

    def samples(self, model: str) -> Iterator[Sample]:
        """The account as series."""
        tally = self.tally
        for metric, value in (
            (metrics.LABELS_RECEIVED, tally.received),
            (metrics.LABELS_UNMATCHED, tally.unmatched),
            (metrics.LABELS_DUPLICATE, tally.duplicate),
            (metrics.LABELS_CORRECTED, tally.corrected),
            (metrics.LABELS_LATE, tally.late),
            (metrics.LABELS_PENDING, self.pending),
            (metrics.LABELS_PENDING_LIMIT, self.settings.max_pending),
            (metrics.LABELS_MATURITY, self.settings.maturity_s),
        ):
            yield metric.sample(value, model=model)
        for reason in UNJOINED_REASONS:
            yield metrics.PREDICTIONS_UNJOINED.sample(tally.unjoined.get(reason, 0), model=model, reason=reason)
        series = metrics.LABEL_DELAY.histogram(DELAYS_S, model=model)
        yield from series.samples(tally.delays, tally.delay_ms / 1000)


@dataclass(frozen=True, slots=True)
class LabelsView:
    """What is known of one model's labels at one moment; `join` only where they may come alone.

    `expected` says whether there is anything to expect labels from: a baseline, or a join.
    """

    last: float | None
    join: JoinView | None
    expected: bool

    @property
    def full_series(self) -> int:
        """How many series there are once labels have come."""
        return sum(1 for _ in self.samples("")) + (self.expected and self.last is None)

    def samples(self, model: str) -> Iterator[Sample]:
        """The series of one model."""
        if self.last is not None:
            yield metrics.LABEL_LAST_TIMESTAMP.sample(self.last, model=model)
        if self.join is not None:
            yield from self.join.samples(model)
