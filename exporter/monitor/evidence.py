"""What a fault detector knows, as bytes and back: every float as it is, so that a restart changes no alarm."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from exporter.monitor.panes import OUTSIDE
from exporter.stats import Counts, Floats
from exporter.stats.sequential import ODDS_RATIOS

_BYTES = 8 * (len(ODDS_RATIOS) + 2)


@dataclass(frozen=True, eq=False)
class Evidence:
    """Of each rate: the logs of its detectors [rates, alternatives], and panes [rates], OUTSIDE if there are none.

    `alarmed` is the pane of the last alarm, `since` that of the first of which each came within a window of the next.
    """

    log_m: Floats
    alarmed: Counts
    since: Counts

    @classmethod
    def none(cls, rates: int) -> Self:
        """No pane was seen yet."""
        never = np.full(rates, OUTSIDE)
        return cls(np.full((rates, len(ODDS_RATIOS)), -np.inf), never, never)

    def pack(self) -> bytes:
        """The evidence for `unpack`."""
        return self.log_m.astype("<f8").tobytes() + np.stack((self.alarmed, self.since)).astype("<i8").tobytes()

    @classmethod
    def unpack(cls, raw: bytes, rates: int) -> Self:
        """What `pack` has made. Raises ValueError."""
        if len(raw) != _BYTES * rates:
            raise ValueError(f"{rates} rates expected, found {len(raw)} bytes")
        log_m = np.frombuffer(raw, "<f8", len(ODDS_RATIOS) * rates).reshape(rates, len(ODDS_RATIOS))
        alarmed, since = np.frombuffer(raw, "<i8", offset=log_m.nbytes).reshape(2, rates)
        if not (np.all(log_m < np.inf) and np.all(since <= alarmed)):
            raise ValueError("no evidence can be such")
        return cls(log_m, alarmed, since)
