"""Drift that only shows in several numeric inputs together: of their means, and of their covariances.

Two tests on one vector of sums (see moments). A window's covariances are taken around its own means, so that a shift
alone is no change of them. Each test follows the one definition: drifted = n >= min_samples and distance above both the
threshold and its critical value. What chance is expected to add is taken out of the distance, so it can be negative;
like any score it is absent with too little data. With a verdict come the means, deviations and correlations that
changed most, each by itself.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from exporter.catalog import metrics
from exporter.catalog.metric import Sample
from exporter.monitor import calibration
from exporter.monitor.events import FeatureKey, Rows, Schema
from exporter.monitor.moments import MOMENTS, Moment, Moments, Read
from exporter.monitor.settings import ModelSettings
from exporter.stats import Counts, Floats, hotelling

CHANGES = 3
"""How many single changes are told of a test."""

NEEDING_DATA = 5
"""Series a test that need enough data: distance, critical value, p-value, drifted, paging."""


class MomentsTracker:
    """Sums of several inputs of one reference, in columns of `schema`."""

    cells = np.int64  # sums of products

    def __init__(self, moments: Moments, schema: Schema, settings: ModelSettings, version: str) -> None:
        self.moments = moments
        self.settings = settings
        self.labels: Mapping[str, str] = {"model": settings.name, "version": version}
        self.width = moments.layout.width
        self.calibrations = calibration.table(moments.calibration)
        self._columns = [schema.numeric.index(FeatureKey("input", name)) for name in moments.features]
        self._clipped = metrics.MULTIVARIATE_CLIPPED.series(**self.labels)

    def add(self, sums: Counts, rows: Rows) -> None:
        """Add rows to `sums[rows.groups, width]`. A failed prediction has inputs like any other."""
        units, outside = self.moments.standard.units(rows.numeric.T[self._columns])
        self.moments.layout.add(sums, units, outside, rows.group)

    def samples(self, lifetime: Counts) -> Iterable[Sample]:
        """The lifetime counter of clipped values; sums of products are of no use to anybody else."""
        yield Sample(self._clipped, int(lifetime[0]))

    def read(self, counts: Counts, alpha: float, *, catching_up: bool = False) -> "MomentsReadout":
        """What a window's counts say at level `alpha` of each test; without a verdict while the source catches up."""
        moments, n = self.moments, self.moments.layout.rows(counts)
        enough = n >= max(self.settings.min_samples, 2)
        window = moments.layout.read(counts) if enough else None
        parts = np.array([1 / int(moments.read.n), 1 / max(n, 1)])
        both = np.full(len(MOMENTS), n)
        block, beyond = self.calibrations.place(both), self.calibrations.extrapolated(both)
        tests = []
        for place, (moment, form) in enumerate(zip(MOMENTS, moments.forms, strict=True)):
            distance = critical = p_value = math.nan
            if window is not None and form.rank:
                of_block = (
                    self.calibrations.g[place, block[place]],
                    self.calibrations.freedom_ratio[place, block[place]],
                )
                law, c = hotelling.law(form, parts, *map(float, of_block)), float(parts.sum())
                t2 = form.shrink * float(form.squares(window.vector(moment) - moments.read.vector(moment))) / c
                distance, critical = c * (t2 - law.mean), c * (law.critical(alpha) - law.mean)
                p_value = law.p_value(t2)
            effect = distance > self.settings.multivariate_threshold
            drifted = effect and distance > critical and not catching_up
            tests.append(MomentTest(moment, distance, critical, p_value, drifted, bool(beyond[place])))
        return MomentsReadout(self, n, alpha, window, tuple(tests), catching_up)


class MomentTest(NamedTuple):
    """One test of a window; distance, critical value and p-value are NaN with too little data.

    An `extrapolated` one is calibrated from blocks smaller than the window, and must not page alone.
    """

    moment: Moment
    distance: float
    critical: float
    p_value: float
    drifted: bool
    extrapolated: bool

    @property
    def enough(self) -> bool:
        """Whether there was enough data."""
        return not math.isnan(self.distance)


class Change(NamedTuple):
    """A mean or deviation of one input, or the correlation of two, in the reference and in the window.

    Means and deviations are in the input's own unit, of its clipped values. `z` is the difference in standard errors
    of independent rows.
    """

    statistic: Literal["mean", "deviation", "correlation"]
    features: tuple[str, ...]
    reference: float
    window: float
    z: float


@dataclass(frozen=True)
class MomentsReadout:
    """Both tests of a window of `n` rows; `window` is None with too few."""

    tracker: MomentsTracker
    n: int
    alpha: float
    window: Read | None
    tests: tuple[MomentTest, ...]
    catching_up: bool = False

    @property
    def clipped_ratio(self) -> float:
        """Share of the window's values that lie beyond the clip; NaN with too few rows."""
        return math.nan if self.window is None else float(self.window.clipped / (self.n * len(self.window.mean)))

    @property
    def absent(self) -> int:
        """How many series this window lacks of what one with enough rows has."""
        return NEEDING_DATA * sum(not test.enough for test in self.tests)

    def changes(self, moment: Moment) -> Sequence[Change]:
        """What changed most by itself, the surest first; empty with too few rows."""
        if self.window is None:
            return ()
        moments = self.tracker.moments
        c = 1 / int(moments.read.n) + 1 / self.n
        found = (_means if moment == "mean" else _spreads)(moments, self.window, c)
        return sorted((one for one in found if not math.isnan(one.z)), key=lambda one: -abs(one.z))[:CHANGES]


def samples(readout: MomentsReadout, states: Sequence[str]) -> Iterator[Sample]:
    """Gauges of a window; `states` are those of its tests."""
    labels = readout.tracker.labels
    windowed = {**labels, "window": readout.tracker.settings.window.label}
    yield metrics.MULTIVARIATE_SAMPLES.sample(readout.n, **windowed)
    yield metrics.MULTIVARIATE_THRESHOLD.sample(readout.tracker.settings.multivariate_threshold, **labels)
    for test, state in zip(readout.tests, states, strict=True):
        yield metrics.MULTIVARIATE_STATE.sample(1, **labels, moment=test.moment, state=state)
        if not test.enough:
            continue
        named = {**windowed, "moment": test.moment}
        yield metrics.MULTIVARIATE_DISTANCE.sample(test.distance, **named)
        yield metrics.MULTIVARIATE_CRITICAL.sample(test.critical, **named)
        yield metrics.MULTIVARIATE_PVALUE.sample(test.p_value, **named)
        if not readout.catching_up:
            yield metrics.MULTIVARIATE_DRIFTED.sample(int(test.drifted), **named)
            yield metrics.MULTIVARIATE_PAGING.sample(int(not test.extrapolated), **named)


def _means(moments: Moments, window: Read, c: float) -> Iterator[Change]:
    before, after = moments.read.mean, window.mean
    i, j = moments.layout.pairs
    z = _ratio(after - before, np.sqrt(c * moments.read.covariance[i == j]))
    for place, name in enumerate(moments.features):
        old, new = (float(moments.centre[place] + moments.scale[place] * mean[place]) for mean in (before, after))
        yield Change("mean", (name,), old, new, float(z[place]))


def _spreads(moments: Moments, window: Read, c: float) -> Iterator[Change]:
    """Deviations and correlations; their errors follow from those of covariances (delta method)."""
    i, j = moments.layout.pairs
    diagonal = np.flatnonzero(i == j)
    before, after = (_correlations(one.covariance, i, j) for one in (moments.read, window))
    # In units of the deviations, a correlation r of x and y changes as xy - r (x^2 + y^2) / 2, a deviation as x^2 / 2.
    unit = before[diagonal][i] * before[diagonal][j]
    products = _ratio(moments.of_products, np.outer(unit, unit))
    r, own, pair, x, y = before, products.diagonal(), np.arange(len(i)), diagonal[i], diagonal[j]
    squares = own[x] + own[y] + 2 * products[x, y]
    variance = own - r * (products[pair, x] + products[pair, y]) + r * r / 4 * squares
    variance[diagonal] = own[diagonal] / 4
    difference = np.where(i == j, _ratio(after - before, before), after - before)
    z = _ratio(difference, np.sqrt(c * variance))
    for place, (row, column) in enumerate(zip(i.tolist(), j.tolist(), strict=True)):
        names = (moments.features[row], moments.features[column])
        old, new = float(before[place]), float(after[place])
        if row == column:
            yield Change("deviation", names[:1], moments.scale[row] * old, moments.scale[row] * new, float(z[place]))
        else:
            yield Change("correlation", names, old, new, float(z[place]))


def _ratio(above: Floats, below: Floats) -> Floats:
    """NaN where what is below is not positive: of what never varies."""
    with np.errstate(invalid="ignore"):
        return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def _correlations(covariance: Floats, i: NDArray[np.intp], j: NDArray[np.intp]) -> Floats:
    """Correlations, and deviations on the diagonal."""
    spread = np.sqrt(covariance[i == j])
    found = _ratio(covariance, spread[i] * spread[j])
    found[i == j] = spread
    return found
