"""What Prometheus makes of scraped counters, once more in numpy: `increase` as it is documented, sums and scores.

`increase` is that of Prometheus 2 (promql/functions.go, extrapolatedRate): the range is closed, resets are added up,
and what lies between its ends and the nearest scrapes is extrapolated, to no more than a scrape and never below 0.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from exporter.stats import distances

Floats = NDArray[np.float64]

UNSTORED_MS = 1200
"""A scrape that began so shortly before a rule was evaluated may not have been stored by then."""


class Key(NamedTuple):
    """What a bin of the fleet is known by."""

    reference: str
    kind: str
    feature: str
    bin: str


@dataclass(frozen=True)
class Scraped:
    """Counters of a replica: the times of its scrapes in ms [T], and what they found [series, T]."""

    keys: Sequence[Key]
    times: NDArray[np.int64]
    values: Floats

    def increase(self, end_ms: int, range_ms: int, *, without: int = 0) -> Floats:
        """`increase` of each series over a range [series], 0 for none; the newest `without` scrapes are left out."""
        inside = np.flatnonzero((self.times >= end_ms - range_ms) & (self.times <= end_ms))
        inside = inside[: len(inside) - without]
        if len(inside) < 2:
            return np.zeros(len(self.keys))
        times, values = self.times[inside], self.values[:, inside]
        first, last = values[:, 0], values[:, -1]
        found = last - first + np.where(np.diff(values) < 0, values[:, :-1], 0).sum(axis=1)
        sampled_s = (times[-1] - times[0]) / 1000
        to_start = np.full(len(first), (times[0] - (end_ms - range_ms)) / 1000)
        with np.errstate(divide="ignore", invalid="ignore"):
            to_zero = sampled_s * (first / found)
        to_start = np.where(found > 0, np.fmin(to_start, to_zero), to_start)
        to_end = (end_ms - times[-1]) / 1000
        mean_s = sampled_s / (len(times) - 1)
        limit_s = mean_s * 1.1
        extrapolated_s = sampled_s + np.where(to_start < limit_s, to_start, mean_s / 2)
        extrapolated_s += to_end if to_end < limit_s else mean_s / 2
        return found * (extrapolated_s / sampled_s)

    def aligned(self, keys: Iterable[Key], end_ms: int, range_ms: int, without: int) -> Floats:
        """Increases of these series, 0 for those that it does not have."""
        found = dict(zip(self.keys, self.increase(end_ms, range_ms, without=without).tolist(), strict=True))
        return np.array([found.get(key, 0.0) for key in keys])

    def unstored(self, end_ms: int) -> int:
        """How many of its scrapes may not have been stored then."""
        return int(np.sum((self.times <= end_ms) & (self.times > end_ms - UNSTORED_MS)))


def step(replicas: Sequence[Scraped], recorded: Mapping[Key, float], end_ms: int, range_ms: int) -> Mapping[Key, float]:
    """Increases of the fleet by bin, as near to what was recorded as scrapes that were stored late allow.

    A scrape is stored whole: that of a replica is there for all of its series, or for none.
    """
    told = np.array(list(recorded.values()))
    choices = [
        [replica.aligned(recorded, end_ms, range_ms, without) for without in range(replica.unstored(end_ms) + 1)]
        for replica in replicas
    ]
    sums = [np.sum(chosen, axis=0) for chosen in itertools.product(*choices)]
    nearest = min(sums, key=lambda total: float(np.abs(total - told).max()))
    return dict(zip(recorded, nearest.tolist(), strict=True))


def psi(reference: Floats, current: Floats) -> float:
    """PSI of counts in live bins."""
    starts = np.zeros(1, np.int64)
    shares = (distances.smoothed(counts, starts) for counts in (reference, current))
    return float(distances.psi(*shares, starts)[0])


def ks(reference: Floats, current: Floats) -> float:
    """The largest gap between distribution functions at the edges of ordinal bins."""
    starts = np.zeros(1, np.int64)
    return float(np.abs(distances.cdf(reference, starts) - distances.cdf(current, starts)).max())
