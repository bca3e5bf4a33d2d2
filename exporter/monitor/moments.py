"""Means and covariances of many numeric inputs as one vector of integers that add up, and the reference's own.

A value is standardised by the reference, clipped at 4 standard deviations (clips are counted) and rounded to 1/256 of
one. What is missing or invalid counts as the reference's centre, in the reference as in the stream, so that both mean
the same. Units are shifted to be non-negative, as every other count is: 0 to 2,048. Sums of products of a whole buffer
then stay below 2^36 and doubles hold integers up to 2^53, so one call of BLAS makes all of them without an error; int64
holds those of 10^12 rows.

What products vary by is a matrix of their own, of up to 465 x 465. It cannot be had from sums of products, so it is in
the reference, and must be estimated from far more rows than it has: where a reference has too few for all features,
only its first ones are watched together.
"""

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, cached_property, partial
from typing import Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from exporter.catalog import thresholds
from exporter.monitor import calibration
from exporter.monitor.calibration import Calibration
from exporter.monitor.events import Column, FeatureKey
from exporter.stats import Counts, Floats, hotelling, significance
from exporter.stats.hotelling import Form

Moment: TypeAlias = Literal["mean", "covariance"]

MOMENTS: tuple[Moment, ...] = ("mean", "covariance")
"""What is tested; everything that there is of each comes in this order."""

CLIP_SD = 4
"""A normal value is beyond once in 16,000; further out, single values would be most of a covariance."""
PER_SD = 256
HALF = CLIP_SD * PER_SD
"""What a value of the reference's centre counts."""

_WINSORISED = 0.01
"""Share of values at each end that is cut off before the spread is taken: one 999999 must not hide all the others."""
_CHUNK_ROWS = 2048
_EXACT_ROWS = 512
"""Products of two deviations are below 2^22 units, and those of two of them are summed without an error in doubles."""
_COVARIANCE_ROWS = 100_000
"""Rows from which the covariance of products is estimated: 200 for each of the most there can be, in a second."""
_KURTOSIS_ROWS = 20_000


class Moments(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """What a reference knows of several numeric inputs together; `dict` holds what follows from it, once computed.

    `counts` are the sums of its own rows (see `Layout`). `covariance` is that of products of two deviations from the
    mean, in squares of standard deviations: the upper triangle in rows, of `covariance_rows` rows, as float32 in
    base64. `kurtosis` (see hotelling) and `calibration` are of means, then of covariances.
    """

    features: tuple[str, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    counts: tuple[int, ...]
    covariance: str
    covariance_rows: int
    kurtosis: tuple[float, float] = (0.0, 0.0)
    calibration: tuple[tuple[Calibration, ...], tuple[Calibration, ...]] = ((), ())

    @property
    def sound(self) -> bool:
        """Whether its parts fit together."""
        d = len(self.features)
        try:
            packed = base64.b64decode(self.covariance, validate=True)
        except ValueError:
            return False
        return (
            2 <= d <= thresholds.MULTIVARIATE_FEATURES.count
            and len(set(self.features)) == d == len(self.centre) == len(self.scale)
            and all(-np.inf < one < np.inf for one in self.centre)
            and all(0 < one < np.inf for one in self.scale)
            and len(self.counts) == self.layout.width
            and min(self.counts) >= 0
            and len(packed) == 4 * len(self.layout.pairs_of_pairs[0])
            and bool(np.isfinite(np.frombuffer(packed, "<f4")).all())
            and len(self.layout.pairs[0]) < self.covariance_rows <= self.counts[1]
            and all(0 <= one < np.inf for one in self.kurtosis)
            and all(map(calibration.sound, self.calibration))
        )

    @cached_property
    def layout(self) -> "Layout":
        """Where the sums lie."""
        return Layout(len(self.features))

    @cached_property
    def standard(self) -> "Standard":
        """How values become units."""
        return Standard(np.array(self.centre)[:, None], PER_SD / np.array(self.scale)[:, None])

    @cached_property
    def read(self) -> "Read":
        """Means and covariances of the reference's own rows."""
        return self.layout.read(np.array(self.counts, np.int64))

    @cached_property
    def of_products(self) -> Floats:
        """Covariance of a row's products of deviations [pairs, pairs]."""
        values = np.frombuffer(base64.b64decode(self.covariance), "<f4").astype(np.float64)
        return _square(values, self.layout.pairs_of_pairs)

    @cached_property
    def forms(self) -> tuple[Form, Form]:
        """The forms of means and of covariances; units are the deviations of a value, and products of two of them."""
        means, products = self.kurtosis
        covariance = _square(self.read.covariance, self.layout.pairs)
        units = np.sqrt(np.diag(covariance))
        i, j = self.layout.pairs
        return (
            hotelling.form(covariance, units, int(self.read.n), means),
            hotelling.form(self.of_products, units[i] * units[j], self.covariance_rows, products),
        )


class Layout:
    """Where the sums of `d` inputs lie: clipped values, then the upper triangle of products of (1, x_1, ... x_d)."""

    def __init__(self, d: int) -> None:
        self.d = d
        self.pairs = np.triu_indices(d)
        """Row and column of each covariance, as they lie in a vector of them."""
        self.pairs_of_pairs = np.triu_indices(len(self.pairs[0]))
        self._cells = np.triu_indices(d + 1)
        self.width = 1 + len(self._cells[0])

    def add(self, sums: Counts, units: Floats, outside: Counts | None, group: Counts | None) -> None:
        """Add rows to `sums[groups, width]`. `units[1 + d, n]` has a first row of ones; `outside[n]` counts clips."""
        groups = len(sums)
        if group is None:
            products = (units @ units.T)[None]
        else:
            order = np.argsort(group, kind="stable")
            ends = np.searchsorted(group[order], np.arange(groups + 1)).tolist()
            ordered = units.T[order]
            products = np.empty((groups, self.d + 1, self.d + 1))
            for place in range(groups):
                part = ordered[ends[place] : ends[place + 1]]
                np.matmul(part.T, part, out=products[place])
        sums[:, 1:] += products[:, *self._cells].astype(np.int64)
        if outside is not None:
            of_row = np.zeros(len(outside), np.int64) if group is None else group
            sums[:, 0] += np.bincount(of_row, weights=outside, minlength=groups).astype(np.int64)

    def rows(self, counts: Counts) -> int:
        """How many rows were added to sums [width]."""
        return int(counts[1])

    def read(self, counts: Counts) -> "Read":
        """Rows, means and covariances of sums `[..., width]`; at least two rows each."""
        products = np.zeros((*counts.shape[:-1], self.d + 1, self.d + 1), np.int64)
        products[..., *self._cells] = counts[..., 1:]
        n, sums = products[..., 0, 0], products[..., 0, 1:]
        # Without the shift, still in integers: what is left is small, and loses nothing as a double.
        around = sums - HALF * n[..., None]
        square = products[..., 1:, 1:] - HALF * (sums[..., :, None] + sums[..., None, :]) + HALF**2 * n[..., None, None]
        mean = around / n[..., None] / PER_SD
        i, j = self.pairs
        whole = n[..., None].astype(np.float64)
        covariance = (square[..., i, j] / PER_SD**2 - whole * mean[..., i] * mean[..., j]) / (whole - 1)
        return Read(n, mean, covariance, counts[..., 0])


class Read(NamedTuple):
    """Rows `[...]`, means `[..., d]` and covariances `[..., pairs]` in standard deviations, and clipped values."""

    n: Counts
    mean: Floats
    covariance: Floats
    clipped: Counts

    def vector(self, moment: Moment) -> Floats:
        """Means or covariances."""
        return self.mean if moment == "mean" else self.covariance


class Standard(NamedTuple):
    """How values become units: centre and scale [d, 1]."""

    centre: Floats
    per_unit: Floats

    def units(self, values: Floats) -> tuple[Floats, Counts | None]:
        """Units [1 + d, n] of values [d, n] below a row of ones, and how many of each row were clipped, if any."""
        d, n = values.shape
        with_ones: Floats = np.empty((d + 1, n))
        with_ones[0] = 1
        units = with_ones[1:]
        with np.errstate(over="ignore", invalid="ignore"):
            np.subtract(values, self.centre, out=units)
            units *= self.per_unit
        known = np.isfinite(values)
        if not known.all():
            units[~known] = 0
        beyond = np.abs(units) > HALF
        outside = None
        if beyond.any():
            outside = beyond.sum(axis=0, dtype=np.int64)
            np.clip(units, -HALF, HALF, out=units)
        np.rint(units, out=units)
        units += HALF
        return with_ones, outside


def build(columns: Mapping[FeatureKey, Column]) -> Moments | None:
    """The moments of training data: of its numeric inputs that vary, in their order, as many as there are rows for.

    None with fewer than two of them. Rows are to be in the order of time, for the calibration.
    """
    spreads = {
        key.name: (column, *spread)
        for key, column in columns.items()
        if key.kind == "input" and isinstance(column, np.ndarray) and (spread := _spread(column)) is not None
    }
    rows = len(next(iter(columns.values())))
    d = min(len(spreads), thresholds.MULTIVARIATE_FEATURES.count)
    while d * (d + 1) // 2 * thresholds.ROWS_PER_MOMENT.count > rows:
        d -= 1
    if d < 2:
        return None
    names = tuple(spreads)[:d]
    table, centre, scale = zip(*(spreads[name] for name in names), strict=True)
    layout, step = Layout(d), -(-rows // _COVARIANCE_ROWS)
    draft = Moments(names, centre, scale, (0,) * layout.width, "", -(-rows // step))
    units = _Units(table, draft)
    draft = replace(draft, counts=tuple(units.sums(_CHUNK_ROWS).sum(axis=0).tolist()))
    draft = replace(draft, covariance=_packed(_covariance(units, draft, step)[layout.pairs_of_pairs]))
    draft = replace(draft, kurtosis=_kurtosis(units, draft, -(-rows // _KURTOSIS_ROWS)))
    return replace(draft, calibration=_calibrate(units, draft, rows))


class _Units:
    """The units of a table, in chunks: a million rows of 30 features are 240 MB, and there need be no second copy."""

    def __init__(self, table: Sequence[Floats], moments: Moments) -> None:
        self._table = table
        self._layout, self._standard = moments.layout, moments.standard

    def chunks(self, rows: int = _CHUNK_ROWS, step: int = 1) -> Iterator[tuple[Floats, Counts | None]]:
        """Units of every `step`-th row, and clips, `rows` at a time."""
        taken = [column[::step] for column in self._table]
        for start in range(0, len(taken[0]), rows):
            yield self._standard.units(np.array([column[start : start + rows] for column in taken]))

    def sums(self, unit: int) -> Counts:
        """Sums [units, width] of every `unit` rows, no more than a chunk; of the last there may be fewer."""
        found = np.zeros((-(-len(self._table[0]) // unit), self._layout.width), np.int64)
        at_once = _CHUNK_ROWS // unit
        for place, (values, outside) in enumerate(self.chunks(at_once * unit)):
            part = found[place * at_once : (place + 1) * at_once]
            self._layout.add(part, values, outside, np.arange(values.shape[1]) // unit)
        return found


def _spread(column: Floats) -> tuple[float, float] | None:
    """Mean and standard deviation of a column, its ends cut off unless nothing is left; None of a constant."""
    finite = column[np.isfinite(column)]
    if not len(finite) or finite.min() == finite.max():
        return None
    ordered = np.sort(finite)  # sums of doubles depend on the order
    first, last = np.quantile(ordered, (_WINSORISED, 1 - _WINSORISED))
    for values in (np.clip(ordered, first, last), ordered):
        with np.errstate(over="ignore", invalid="ignore"):
            centre, spread = float(values.mean()), float(f"{values.std():.6g}")
        if 0 < spread < np.inf and PER_SD / spread < np.inf:
            return round(centre, 5 - math.floor(math.log10(spread))), spread
    return None


def _products(units: Floats, moments: Moments) -> tuple[Floats, Floats]:
    """Deviations [n, d] from the mean, to the nearest unit, and products of two of them [n, pairs], in units."""
    i, j = moments.layout.pairs
    deviations = units[1:].T - (HALF + np.rint(moments.read.mean * PER_SD))
    return deviations, deviations[:, i] * deviations[:, j]


def _covariance(units: _Units, moments: Moments, step: int) -> Floats:
    """Covariance [pairs, pairs] of products of deviations, exact: the same data make the same bits everywhere."""
    pairs = len(moments.layout.pairs[0])
    square, total, n = np.zeros((pairs, pairs), np.int64), np.zeros(pairs, np.int64), 0
    for values, _ in units.chunks(_EXACT_ROWS, step):
        _, products = _products(values, moments)
        square += (products.T @ products).astype(np.int64)
        total += products.sum(axis=0).astype(np.int64)
        n += len(products)
    mean = total / n
    found: Floats = (square / n - np.outer(mean, mean)) * n / (n - 1) / PER_SD**4
    return found


def _kurtosis(units: _Units, moments: Moments, step: int) -> tuple[float, float]:
    """The fourth cumulants of rows in both forms. Three digits: the tails of a reference tell no more."""
    squares: list[tuple[Floats, Floats]] = []
    for values, _ in units.chunks(step=step):
        deviations, products = _products(values, moments)
        rows = (deviations / PER_SD, products / PER_SD**2 - moments.read.covariance)
        squares.append((moments.forms[0].squares(rows[0]), moments.forms[1].squares(rows[1])))
    means, covariances = (
        float(f"{hotelling.excess(form, np.concatenate(parts)):.3g}")
        for form, parts in zip(moments.forms, zip(*squares, strict=True), strict=True)
    )
    return means, covariances


def _calibrate(units: _Units, moments: Moments, rows: int) -> tuple[tuple[Calibration, ...], tuple[Calibration, ...]]:
    """How means and covariances of blocks of the reference vary, in both forms."""

    @cache
    def count(unit: int) -> Counts:
        return units.sums(unit)[: rows // unit]

    def of_blocks(form: Form, moment: Moment, blocks: Counts, size: int) -> tuple[Calibration, float] | None:
        if not form.rank:
            return None
        differences = moments.layout.read(blocks).vector(moment) - moments.read.vector(moment)
        parts = np.array([1 / size, -1 / rows])  # a block is a part of the reference
        variance = hotelling.independent_variance(form, parts)
        g, freedom, p = significance.dependence(form.squares(differences) / parts.sum(), form.rank, variance)
        return calibration.fitted(size, g, freedom / form.rank), p

    means, covariances = (
        calibration.by_block_size(rows, count, partial(of_blocks, form, moment))
        for form, moment in zip(moments.forms, MOMENTS, strict=True)
    )
    return means, covariances


def _square(triangle: Floats, places: tuple[NDArray[np.intp], NDArray[np.intp]]) -> Floats:
    """The symmetric matrix of an upper triangle."""
    size = int(places[0][-1]) + 1
    found = np.empty((size, size))
    found[places] = triangle
    found.T[places] = triangle
    return found


def _packed(values: Floats) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode()
