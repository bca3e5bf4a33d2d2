"""How large a distance chance alone makes, and how surprising the observed one is.

With n reference and m current values over B live bins, c = 1/n + 1/m, and no drift, PSI / c follows chi-square with
B - 1 degrees of freedom (Yurdakul 2018; Yurdakul & Naranjo 2020, J. Risk Model Validation 14(4), thm 3.1-3.3).
All arguments broadcast; a feature with fewer than two live bins or without data gives NaN.
"""

import numpy as np
from scipy import special

from exporter.stats import Counts, Floats, sizes


def psi_scale(n: Counts, m: Counts) -> Floats:
    """C = 1/n + 1/m; infinite where a sample is empty."""
    with np.errstate(divide="ignore"):
        return 1 / n.astype(np.float64) + 1 / m.astype(np.float64)


def psi_null_mean(c: Floats, live_bins: Counts) -> Floats:
    """PSI expected without drift, c (B - 1)."""
    return _testable(c * (live_bins - 1.0), live_bins)


def chi2_critical(alpha: float, live_bins: Counts) -> Floats:
    """The chi-square quantile, B - 1 degrees of freedom, that is passed with probability `alpha`."""
    return _testable(special.chdtri(np.maximum(live_bins - 1.0, 1.0), alpha), live_bins)


def psi_critical(c: Floats, alpha: float, live_bins: Counts) -> Floats:
    """PSI that is passed with probability `alpha` without drift."""
    return c * chi2_critical(alpha, live_bins)


def p_above(psi: Floats, threshold: Floats | float, c: Floats, live_bins: Counts) -> Floats:
    """P-value of "the true PSI is at most `threshold`": non-central chi-square; threshold 0 tests "no drift"."""
    with np.errstate(invalid="ignore"):
        x, noncentrality = psi / c, np.broadcast_to(threshold / c, np.shape(psi))
        df = np.maximum(live_bins - 1.0, 1.0)
        central = special.chdtrc(df, x)
        p = np.where(noncentrality > 0, 1 - special.chndtr(x, df, noncentrality), central)
    return _testable(np.clip(p, 0.0, 1.0), live_bins)


def pearson_p(reference: Counts, current: Counts, starts: Counts) -> Floats:
    """P-value of "no change at all": two-sample Pearson chi-square on raw counts, accurate in the tail."""
    each = sizes(starts, len(reference))
    n, m = np.add.reduceat(reference, starts), np.add.reduceat(current, starts)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = np.repeat(n + m, each)
        pooled = (reference + current) / total
        terms = (reference / np.repeat(n, each) - current / np.repeat(m, each)) ** 2 / pooled
        x2 = np.add.reduceat(np.where(pooled > 0, terms, 0.0), starts) / psi_scale(n, m)
    # A bin that is empty in both samples tests nothing.
    df = np.add.reduceat((reference + current > 0).astype(np.int64), starts) - 1.0
    p = np.where(df > 0, special.chdtrc(np.maximum(df, 1.0), x2), 1.0)
    return np.where(m > 0, _testable(p, each), np.nan)


def ks_critical(n: Counts, m: Counts, alpha: float) -> Floats:
    """KS distance passed with probability `alpha` without drift (Stephens 1970; conservative with ties)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(n * (m / (n + m)))
        return np.where(root > 0, special.kolmogi(alpha) / (root + 0.12 + 0.11 / root), np.nan)


def wilson(successes: Floats, n: Floats, z: float) -> tuple[Floats, Floats]:
    """Wilson score interval (lower, upper) of a proportion; (0, 1) without data (Wilson 1927)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        p = successes / n
        centre = p + z * z / (2 * n)
        spread = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        scale = 1 + z * z / n
        lower, upper = (centre - spread) / scale, (centre + spread) / scale
    return np.where(n > 0, np.maximum(lower, 0.0), 0.0), np.where(n > 0, np.minimum(upper, 1.0), 1.0)


def _testable(values: Floats, live_bins: Counts) -> Floats:
    """NaN where there are fewer than two live bins: nothing to compare."""
    return np.where(np.asarray(live_bins) > 1, values, np.nan)
