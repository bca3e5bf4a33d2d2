"""Traffic of one model version: predictions, failures by reason, and latency as a histogram.

Latency is summed in whole microseconds of values clipped to an hour, so that sums add exactly; what is clipped,
negative or no number is counted as an invalid value of `latency_seconds` instead of bending the mean.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter.catalog import metrics
from exporter.catalog.metric import HistogramSeries, Sample, Series
from exporter.monitor.events import NO_ERROR, NON_FINITE_NUMBER, WRONG_TYPE_NUMBER, Rows
from exporter.monitor.settings import ModelSettings
from exporter.stats import Counts

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LATENCY_CLIP_S = 3600.0

_INVALID = ("wrong_type", "non_finite", "out_of_range")
_BOUNDS = np.array(LATENCY_BUCKETS_S)


class TrafficTracker:
    """Vector: predictions | failures by reason | latency buckets and +Inf | sum in us | invalid latencies by reason."""

    cells = np.int64  # an hour of microseconds nearly fills 32 bits

    def __init__(self, settings: ModelSettings, version: str) -> None:
        self.reasons = settings.error_reasons.names
        self.width = 1 + len(self.reasons) + len(_BOUNDS) + 1 + 1 + len(_INVALID)
        self._errors = slice(1, 1 + len(self.reasons))
        self._buckets = slice(self._errors.stop, self._errors.stop + len(_BOUNDS) + 1)
        self._sum = self._buckets.stop
        self._invalid = slice(self._sum + 1, self.width)
        self._labels = {"model": settings.name, "version": version}

    def add(self, sums: Counts, rows: Rows) -> None:
        """Add rows to `sums[rows.groups, width]`."""
        groups = rows.groups
        group = np.zeros(len(rows), np.int64) if rows.group is None else rows.group
        sums[:, 0] += np.bincount(group, minlength=groups)
        if len(rows) and rows.error.max() > NO_ERROR:
            failed = rows.error > NO_ERROR
            sums[:, self._errors] += _table(group[failed], rows.error[failed], groups, len(self.reasons))
        latency = rows.latency_s
        given = ~np.isnan(latency)
        if not given.any():
            return
        latency, group = latency[given], group[given]
        usable = np.isfinite(latency) & (latency >= 0)
        faulty = ~usable | (latency > LATENCY_CLIP_S)
        if faulty.any():
            reason = np.select([latency == WRONG_TYPE_NUMBER, latency == NON_FINITE_NUMBER], [0, 1], 2)
            sums[:, self._invalid] += _table(group[faulty], reason[faulty], groups, len(_INVALID))
            latency, group = np.minimum(latency[usable], LATENCY_CLIP_S), group[usable]
        bucket = np.searchsorted(_BOUNDS, latency)  # `le`: a value equal to a bound belongs to its bucket
        sums[:, self._buckets] += _table(group, bucket, groups, len(_BOUNDS) + 1)
        micros = np.rint(latency * 1e6)
        sums[:, self._sum] += np.bincount(group, weights=micros, minlength=groups).astype(np.int64)

    def samples(self, lifetime: Counts) -> Iterable[Sample]:
        """Lifetime counters."""
        predictions, errors, histogram, invalid = self._series
        yield predictions(int(lifetime[0]))
        yield from map(Sample, errors, lifetime[self._errors].tolist())
        yield from histogram.samples(lifetime[self._buckets].tolist(), int(lifetime[self._sum]) / 1e6)
        yield from map(Sample, invalid, lifetime[self._invalid].tolist())

    def read(self, counts: Counts) -> "TrafficReadout":
        """What a window's counts say."""
        return TrafficReadout(
            predictions=int(counts[0]),
            errors=dict(zip(self.reasons, counts[self._errors].tolist(), strict=True)),
            latency_buckets=counts[self._buckets].copy(),
        )

    @cached_property
    def _series(self) -> tuple[Series, list[Series], HistogramSeries, list[Series]]:
        return (
            metrics.PREDICTIONS.series(**self._labels),
            [metrics.PREDICTION_ERRORS.series(**self._labels, reason=reason) for reason in self.reasons],
            metrics.PREDICTION_DURATION.histogram(LATENCY_BUCKETS_S, **self._labels),
            [
                metrics.INVALID_VALUES.series(**self._labels, kind="output", feature="latency_seconds", reason=reason)
                for reason in _INVALID
            ],
        )


@dataclass(frozen=True)
class TrafficReadout:
    """Traffic of one window."""

    predictions: int
    errors: dict[str, int]
    latency_buckets: Counts

    @property
    def error_ratio(self) -> float | None:
        """Failed share; None without predictions."""
        return sum(self.errors.values()) / self.predictions if self.predictions else None

    def latency_quantile_s(self, quantile: float) -> float | None:
        """Quantile by linear interpolation within its bucket, as PromQL's histogram_quantile; None without latencies.

        In the open last bucket it is that bucket's lower bound: at least this much.
        """
        total = int(self.latency_buckets.sum())
        if not total:
            return None
        cumulative = np.cumsum(self.latency_buckets)
        rank = quantile * total
        bucket = int(np.searchsorted(cumulative, rank))
        if bucket >= len(_BOUNDS):
            return LATENCY_BUCKETS_S[-1]
        below = int(cumulative[bucket - 1]) if bucket else 0
        lower = LATENCY_BUCKETS_S[bucket - 1] if bucket else 0.0
        return lower + (LATENCY_BUCKETS_S[bucket] - lower) * (rank - below) / int(self.latency_buckets[bucket])


def _table(group: Counts, column: NDArray[Any], groups: int, columns: int) -> Counts:
    """How often each (group, column) occurs."""
    return np.bincount(group * columns + column, minlength=groups * columns).reshape(groups, columns)
