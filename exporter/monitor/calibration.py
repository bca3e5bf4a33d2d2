"""How much more a distance varies than for independent rows: fitted to blocks of the reference, by window size.

Consecutive predictions resemble each other (seasons, bursts, users), so that a window holds less information than rows.
What that does to PSI, or to how far many means lie from the reference's together, depends on how many rows are summed,
hence a calibration for each of several block sizes: 250 rows and its doublings as long as there are 20 blocks, and at
last the largest size that gives 20. A window is judged by the smallest blocks that are not smaller than it, because
more rows show more of a dependence that lasts. One larger than all blocks is judged by the largest, and called
extrapolated: nobody has seen how a window like that varies.

Where blocks of no size vary more than those of independent rows do, the calibrations change nothing: the variance of 20
blocks is so uncertain that it would otherwise make every test of independent rows too careful.

All of it rests on the order of the reference's rows being that of time. Of shuffled rows every block looks independent.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import msgspec
import numpy as np
from numpy.typing import NDArray

from exporter.catalog import thresholds
from exporter.stats import Counts, Floats, significance
from exporter.stats.bins import merge_small


class Calibration(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """PSI of `rows` rows is (1/n + 1/m) g times chi-square with `freedom_ratio` times B - 1 degrees of freedom.

    A ratio, because the B live bins of a running exporter can be fewer than those of the blocks: which ones have enough
    values depends on `min_samples`. Of a form of means (see moments) the rank takes the place of B - 1.
    """

    rows: int
    g: float
    freedom_ratio: float


def calibrate(bin_of_row: Counts, bins: int) -> tuple[Calibration, ...]:
    """Calibrations of a feature from the bin (of `bins`) of each of its rows, in the order of time; by block size.

    None where there are too few rows for 20 blocks, or too few values for two bins. Bins that would expect too few in a
    block are merged with a neighbour, much as a running exporter merges them.
    """
    totals = np.bincount(bin_of_row, minlength=bins)

    def count(unit: int) -> Counts:
        units = len(bin_of_row) // unit
        of_unit = np.repeat(np.arange(units) * bins, unit) + bin_of_row[: units * unit]
        return np.bincount(of_unit, minlength=units * bins).reshape(units, bins)

    return by_block_size(len(bin_of_row), count, lambda blocks, rows: _of_blocks(blocks, rows, totals))


def by_block_size(
    rows: int, count: Callable[[int], Counts], of_blocks: Callable[[Counts, int], tuple[Calibration, float] | None]
) -> tuple[Calibration, ...]:
    """A calibration for each block size that so many rows allow.

    `count(unit)` gives the sums [units, ...] of every `unit` consecutive rows. `of_blocks` makes of the sums of blocks
    of so many rows their calibration, and the p-value of independent rows; None of blocks that tell nothing.
    """
    longest = rows // thresholds.CALIBRATION_BLOCKS.count
    unit = min(longest, thresholds.CALIBRATION_STEP_ROWS.count)
    if unit < thresholds.CALIBRATION_ROWS.count:
        return ()
    sums = count(unit)
    found = [
        of_blocks(sums[: len(sums) // size * size].reshape(-1, size, sums.shape[1]).sum(axis=1), size * unit)
        for size in _sizes(longest // unit)
    ]
    known = [one for one in found if one is not None]
    if all(p > thresholds.CALIBRATION_ALPHA.value for _, p in known):
        return tuple(Calibration(one.rows, 1.0, 1.0) for one, _ in known)
    return tuple(one for one, _ in known)


def fitted(rows: int, g: float, freedom_ratio: float) -> Calibration:
    """A calibration with four digits: 20 blocks tell less, and the document is read by people."""
    return Calibration(rows, round(g, 4), round(freedom_ratio, 4))


def sound(calibrations: Sequence[Calibration]) -> bool:
    """Whether their numbers can be meant."""
    return all(one.rows > 0 and 0 < one.g < np.inf and 0 < one.freedom_ratio <= 1e6 for one in calibrations) and all(
        left.rows < right.rows for left, right in pairwise(calibrations)
    )


@dataclass(frozen=True, eq=False)
class Calibrations:
    """The calibrations of several features, [features, block sizes]; shorter rows repeat their last element.

    A feature without one has a block of no rows that leaves everything as it is.
    """

    rows: Counts
    g: Floats
    freedom_ratio: Floats

    def place(self, n: Counts) -> Counts:
        """Which block size each feature with a window of `n` values is judged by."""
        smaller = np.sum(self.rows < n[:, None], axis=1, dtype=np.int64)
        found: Counts = np.minimum(smaller, self.rows.shape[1] - 1)
        return found

    def extrapolated(self, n: Counts) -> NDArray[np.bool_]:
        """Whether the window of each feature is larger than every block, or there is none."""
        return n > self.rows[:, -1]


def table(calibrations: Sequence[Sequence[Calibration]]) -> Calibrations:
    """The calibrations of each feature side by side."""
    widest = max(map(len, calibrations), default=1)
    none = Calibration(0, 1.0, 1.0)
    rows = [[*one, *[one[-1] if one else none] * max(widest - len(one), not one)] for one in calibrations]
    return Calibrations(
        rows=np.array([[one.rows for one in row] for row in rows], np.int64).reshape(len(rows), -1),
        g=np.array([[one.g for one in row] for row in rows], np.float64).reshape(len(rows), -1),
        freedom_ratio=np.array([[one.freedom_ratio for one in row] for row in rows], np.float64).reshape(len(rows), -1),
    )


def _sizes(largest: int) -> list[int]:
    """1, 2, 4, ... and the largest."""
    return [*(1 << power for power in range(largest.bit_length()) if 1 << power < largest), largest]


def _of_blocks(blocks: Counts, rows: int, totals: Counts) -> tuple[Calibration, float] | None:
    """The calibration from blocks [blocks, bins] of so many rows, and the p-value of independent rows."""
    merged = merge_small(totals, thresholds.EXPECTED_PER_BIN.value * totals.sum() / rows)
    bins = int(merged.max()) + 1
    if bins < 2:
        return None
    fewer = np.zeros((len(totals), bins), np.int64)
    fewer[np.arange(len(totals)), merged] = 1
    g, freedom, p = significance.calibrate(blocks @ fewer, totals @ fewer)
    return fitted(rows, g, freedom / (bins - 1)), p
