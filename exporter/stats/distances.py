"""Distances between reference and current counts, many features at a time (flat counts with `starts`).

No current data gives NaN, never 0: a caller must turn it into an absent value.
"""

import numpy as np

from exporter.stats import Counts, Floats, sizes


def smoothed(counts: Counts, starts: Counts) -> Floats:
    """Jeffreys-smoothed shares (count + 1/2) / (N + B/2): cancels the second-order bias of PSI and is never 0."""
    each = sizes(starts, len(counts))
    totals = np.add.reduceat(counts, starts) + each / 2
    return (counts + 0.5) / np.repeat(totals, each)


def psi(reference: Floats, current: Floats, starts: Counts) -> Floats:
    """Population stability index, sum of (p - q) ln(p / q), of smoothed shares, a value a feature."""
    terms: Floats = (current - reference) * np.log(current / reference)
    return np.add.reduceat(terms, starts)


def js_divergence(reference: Floats, current: Floats, starts: Counts) -> Floats:
    """Jensen-Shannon divergence in nats (0 to ln 2) of smoothed shares, a value a feature (Lin 1991)."""
    middle = (reference + current) / 2
    terms = reference * np.log(reference / middle) + current * np.log(current / middle)
    return np.add.reduceat(terms, starts) / 2


def ks(reference: Floats, current: Counts, starts: Counts) -> tuple[Floats, Floats]:
    """Kolmogorov-Smirnov distance from cell counts: (lower, upper) bound of the exact one, a pair a feature.

    `reference` is the reference's distribution function at the end of each of its 2K + 1 cells (see `cdf`), `current`
    the counts in the same cells. At a knot both one-sided limits are compared, so ties are exact. Where the reference
    has values strictly between two knots r_j < x < r_{j+1}, the supremum there is at most
    max(F(r_{j+1}-) - G(r_j), G(r_{j+1}-) - F(r_j)); where it has none the two bounds are equal.
    """
    f, g = reference, cdf(current, starts)
    lower = np.maximum.reduceat(np.abs(f - g), starts)
    f_before, g_before = np.roll(f, 1), np.roll(g, 1)
    f_before[starts] = g_before[starts] = 0.0
    within = np.maximum(f - g_before, g - f_before)
    # Even cells lie between knots. Where one of the two samples has nothing there, this is a gap at an end of the cell,
    # which `lower` has seen.
    position = np.arange(len(f)) - np.repeat(starts, sizes(starts, len(f)))
    between = position % 2 == 0
    return lower, np.maximum(lower, np.maximum.reduceat(np.where(between, within, 0.0), starts))


def cdf(counts: Counts, starts: Counts) -> Floats:
    """Distribution function at the end of each cell, each feature ending at 1 (NaN for a feature without data)."""
    each = sizes(starts, len(counts))
    running = np.cumsum(counts)
    before = running[starts] - counts[starts]
    totals = np.add.reduceat(counts, starts)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares: Floats = (running - np.repeat(before, each)) / np.repeat(totals, each)
    return shares
