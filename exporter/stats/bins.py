"""Knots and bins, both fixed by the reference alone, so that counts against them add over panes, replicas and time.

K knots r_1 < ... < r_K cut the line into 2K + 1 cells, counted separately: below r_1, equal to r_1, between r_1 and
r_2, equal to r_2, ..., above r_K. Cells are the raw counters; PSI bins are runs of cells.
"""

import numpy as np

from exporter.stats import Counts, Floats


def choose_knots(ordered: Floats, limit: int) -> Floats:
    """Knots for a sorted, finite, non-empty reference sample.

    All distinct values when there are at most `limit` (KS is then exact, ties included); otherwise the quantiles
    k / (limit + 1), k = 1..limit, as observed values, with the minimum and maximum, so that values outside the
    reference range have cells of their own. Between two neighbouring knots lies less than 1 / (limit + 1) of the mass.
    """
    distinct = np.unique(ordered)
    if len(distinct) <= limit:
        return distinct
    n = len(ordered)
    # Inverted-CDF quantiles in integers: the ceil(k n / (limit + 1))-th smallest value.
    ranks = -(-np.arange(1, limit + 1) * n // (limit + 1)) - 1
    return np.unique(np.concatenate(([ordered[0]], ordered[ranks], [ordered[-1]])))


def cell_counts(ordered: Floats, knots: Floats) -> Counts:
    """Counts of a sorted, finite sample in the 2K + 1 cells of K knots."""
    edges = np.empty(2 * len(knots) + 2, np.int64)
    edges[0], edges[-1] = 0, len(ordered)
    edges[1:-1:2] = np.searchsorted(ordered, knots, "left")
    edges[2:-1:2] = np.searchsorted(ordered, knots, "right")
    return np.diff(edges)


def choose_bins(cells: Counts, bins: int, discrete_values: int) -> Counts:
    """The PSI bin (0, 1, ... from left to right) of each of the 2K + 1 reference cells.

    A constant gets {<, =, >}; up to `discrete_values` distinct values get a bin each; otherwise values with at least
    1 / (2 bins) of the mass get their own, and the remaining mass max(2, round(bins * remaining)) quantile bins. Bins
    are closed above, like the `le` of a histogram, and the outer ones are open to infinity. A quantile bin around a
    mass point is cut in two, so that bins stay intervals and their running sum is a distribution function.
    """
    equal = cells[1::2]
    knots = len(equal)
    exact = int(cells[::2].sum()) == 0
    if knots == 1 and exact:
        return np.array([0, 1, 2])
    ends = np.zeros(len(cells), bool)  # the bin ends after this cell
    if exact and knots <= discrete_values:
        ends[1::2] = True
    else:
        total = int(cells.sum())
        heavy = np.flatnonzero(equal * 2 * bins >= total) * 2 + 1
        ends[heavy] = True
        ends[heavy - 1] = True
        rest = cells.copy()
        rest[heavy] = 0
        below = np.cumsum(rest)
        remaining = int(below[-1])
        if remaining:
            quantiles = max(2, round(bins * remaining / total))
            targets = np.arange(1, quantiles) * remaining / quantiles
            at_knots = below[1::2]
            nearest = np.searchsorted((at_knots[:-1] + at_knots[1:]) / 2, targets)
            ends[2 * nearest + 1] = True
    ends[-2] = False  # the last bin reaches to infinity
    return np.concatenate(([0], np.cumsum(ends[:-1])))


def merge_small(counts: Counts, least: float) -> Counts:
    """New bin numbers for ordered bins, so that each merged bin holds at least `least` (as far as there is enough).

    The smallest bin joins its smaller neighbour until none is too small. Empty bins at the ends of a constant's
    {<, =, >} never reach this: they are not live.
    """
    groups = [[i] for i in range(len(counts))]
    sums = [int(c) for c in counts]
    while len(groups) > 1 and min(sums) < least:
        small = sums.index(min(sums))
        if small == 0:
            other = 1
        elif small == len(sums) - 1 or sums[small - 1] <= sums[small + 1]:
            other = small - 1
        else:
            other = small + 1
        left, right = sorted((small, other))
        groups[left] += groups.pop(right)
        sums[left] += sums.pop(right)
    number = np.empty(len(counts), np.int64)
    for new, members in enumerate(groups):
        number[members] = new
    return number
