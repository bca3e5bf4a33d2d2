"""Distributions to look at: reference and window over the same bars, from the counters that the scores use."""

from itertools import pairwise
from typing import Any

import numpy as np

from exporter.monitor.features import Numeric
from exporter.monitor.plan import Bin, FeaturePlan
from exporter.stats import Counts, Floats

BARS = 24

_LARGEST = 1e300  # drawing takes differences, which must not overflow


def distribution(plan: FeaturePlan, counts: Counts, bin_counts: Counts) -> dict[str, Any]:
    """Bars of one feature: labels, edges (None for separate values), and the share of both samples in each.

    `counts` are the feature's slots, `bin_counts` its exported bins. The current shares are None without data.
    """
    if not isinstance(plan.feature, Numeric):
        return _categories(plan.bins, bin_counts)
    cells, reference = counts[1:-2], np.array(plan.feature.cells)
    knots = np.clip(plan.feature.knots, -_LARGEST, _LARGEST)
    if len(knots) <= BARS and not reference[::2].any():
        return _values(knots, reference, cells)
    return _histogram(knots, reference, cells)


def _categories(bins: tuple[Bin, ...], counts: Counts) -> dict[str, Any]:
    shown = [i for i, exported in enumerate(bins) if exported.label not in ("missing", "invalid")]
    shown = [i for i in shown if bins[i].label.startswith("=") or bins[i].reference or counts[i]]
    return {
        "labels": [bins[i].label.removeprefix("=") for i in shown],
        "edges": None,
        "reference": _shares(np.array([bins[i].reference for i in shown])),
        "current": _shares(counts[shown]),
    }


def _values(knots: Floats, reference: Counts, cells: Counts) -> dict[str, Any]:
    """A bar a value, and one for values that the reference does not have, if there are any."""
    strays = int(cells[::2].sum())
    return {
        "labels": [*(f"{knot:.6g}" for knot in knots), *(["other values"] if strays else [])],
        "edges": None,
        "reference": _shares(np.append(reference[1::2], [0] if strays else [])),
        "current": _shares(np.append(cells[1::2], [strays] if strays else [])),
    }


def _histogram(knots: Floats, reference: Counts, cells: Counts) -> dict[str, Any]:
    """Bars of equal width over the bulk of the reference; the outer ones are open."""
    tail = max(len(knots) // 260, 1) if len(knots) > 4 else 0
    low, high = knots[tail], knots[-1 - tail]
    if not low < high:
        low, high = knots[0], knots[-1]
    span = max(high - low, abs(low) * 1e-14, 1 / _LARGEST)  # edges must be numbers of their own
    step = _round_step(span / BARS)
    edges = np.arange(np.floor(low / step), np.ceil((low + span) / step) + 1) * step
    inner = edges[1:-1]
    labels = [f"< {inner[0]:.4g}", *(f"{a:.4g} to {b:.4g}" for a, b in pairwise(inner))]
    return {
        "labels": [*labels, f"\N{GREATER-THAN OR EQUAL TO} {inner[-1]:.4g}"],
        "edges": edges.tolist(),
        "reference": _bars(knots, reference, inner),
        "current": _bars(knots, cells, inner),
    }


def _round_step(step: float) -> float:
    """The next larger 1, 2, 2.5 or 5 times a power of ten."""
    scale = 10.0 ** np.floor(np.log10(step))
    return float(next(factor for factor in (1, 2, 2.5, 5, 10) if factor * scale >= step * (1 - 1e-9)) * scale)


def _bars(knots: Floats, cells: Counts, inner: Floats) -> list[float] | None:
    """Shares between the inner edges, values between two knots taken as spread evenly."""
    total = int(cells.sum())
    if not total:
        return None
    cumulative = np.cumsum(cells) / total
    at_knots = np.repeat(knots, 2)  # before and after each knot's own mass
    heights = np.stack([cumulative[:-1:2], cumulative[1::2]], axis=1).ravel()
    below = _interpolated(inner, at_knots, heights)
    return _rounded(np.diff(np.concatenate(([0.0], below, [1.0]))))


def _interpolated(x: Floats, xs: Floats, ys: Floats) -> Floats:
    """As np.interp, which makes NaN of neighbours so close that its slope overflows."""
    right = np.clip(np.searchsorted(xs, x, "right"), 1, len(xs) - 1)
    left = right - 1
    width = xs[right] - xs[left]
    part = np.divide(x - xs[left], width, out=np.zeros_like(x), where=width > 0)
    within: Floats = ys[left] + np.clip(part, 0.0, 1.0) * (ys[right] - ys[left])
    return np.where(x < xs[0], ys[0], np.where(x >= xs[-1], ys[-1], within))


def _shares(counts: Counts) -> list[float] | None:
    total = int(counts.sum())
    return _rounded(counts / total) if total else None


def _rounded(shares: Floats) -> list[float]:
    rounded: list[float] = np.round(shares, 5).tolist()
    return rounded
