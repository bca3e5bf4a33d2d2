"""How large a distance chance alone makes, and how surprising the observed one is.

With n reference and m current values over B live bins, c = 1/n + 1/m, and no drift, PSI / c follows chi-square with
B - 1 degrees of freedom (Yurdakul 2018; Yurdakul & Naranjo 2020, J. Risk Model Validation 14(4), thm 3.1-3.3) if rows
are independent. If they are not, PSI / c is taken to follow g times chi-square with nu degrees of freedom, both fitted
to blocks of the reference (Satterthwaite 1946, Biometrics Bulletin 2): then `c` below is g (1/n + 1/m), and `freedom`
is nu.
All arguments broadcast; a feature without freedom (fewer than two live bins) or without data gives NaN.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import special

from exporter.stats import Counts, Floats, distances, sizes


def psi_scale(n: Counts, m: Counts) -> Floats:
    """C = 1/n + 1/m; infinite where a sample is empty."""
    with np.errstate(divide="ignore"):
        return 1 / n.astype(np.float64) + 1 / m.astype(np.float64)


def psi_null_mean(c: Floats, freedom: Floats | Counts) -> Floats:
    """PSI expected without drift."""
    return _testable(c * freedom, freedom)


def chi2_critical(alpha: float, freedom: Floats | Counts) -> Floats:
    """The chi-square quantile that is passed with probability `alpha`."""
    return _testable(special.chdtri(np.where(freedom > 0, freedom, 1.0), alpha), freedom)


def psi_critical(c: Floats, alpha: float, freedom: Floats | Counts) -> Floats:
    """PSI that is passed with probability `alpha` without drift."""
    return c * chi2_critical(alpha, freedom)


def p_above(psi: Floats, threshold: Floats | float, c: Floats, freedom: Floats | Counts) -> Floats:
    """P-value of "the true PSI is at most `threshold`": non-central chi-square; threshold 0 tests "no drift"."""
    with np.errstate(invalid="ignore"):
        x, noncentrality = psi / c, np.broadcast_to(threshold / c, np.shape(psi))
        df = np.where(freedom > 0, freedom, 1.0)
        central = special.chdtrc(df, x)
        p = np.where(noncentrality > 0, 1 - special.chndtr(x, df, noncentrality), central)
    return _testable(np.clip(p, 0.0, 1.0), freedom)


def pearson_p(
    reference: Counts,
    current: Counts,
    starts: Counts,
    g: Floats | float = 1.0,
    freedom_ratio: Floats | float = 1.0,
) -> Floats:
    """P-value of "no change at all": two-sample Pearson chi-square on raw counts, accurate in the tail.

    The statistic is to first order PSI / c, so dependence stretches it as much: it is divided by `g`, and the degrees
    of freedom are `freedom_ratio` of what independent rows would have.
    """
    each = sizes(starts, len(reference))
    n, m = np.add.reduceat(reference, starts), np.add.reduceat(current, starts)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = np.repeat(n + m, each)
        pooled = (reference + current) / total
        terms = (reference / np.repeat(n, each) - current / np.repeat(m, each)) ** 2 / pooled
        x2 = np.add.reduceat(np.where(pooled > 0, terms, 0.0), starts) / psi_scale(n, m)
    # A bin that is empty in both samples tests nothing.
    df = np.add.reduceat((reference + current > 0).astype(np.int64), starts) - 1.0
    p = np.where(df > 0, special.chdtrc(np.maximum(df, 1.0) * freedom_ratio, x2 / g), 1.0)
    return np.where(m > 0, _testable(p, each - 1), np.nan)


def likelihood_ratio(reference: Counts, current: Counts, starts: Counts) -> Floats:
    """Twice the log-likelihood ratio of "no change at all": nearly the law of PSI / c, and farther out than PSI has it.

    How unlikely counts are is what this measures (Hoeffding 1965, Ann. Math. Stat. 36); PSI makes more of a small bin.
    At a level of 4e-8, with ten values expected in the smallest bin, PSI passes its critical value 20 times too often,
    this hardly ever 1.3 times. 0 without data.
    """
    apart, together = _entropy(reference) + _entropy(current), _entropy(reference + current)
    n, m = np.add.reduceat(reference, starts), np.add.reduceat(current, starts)
    g = 2 * (np.add.reduceat(apart - together, starts) - _entropy(n) - _entropy(m) + _entropy(n + m))
    return np.maximum(g, 0.0)


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


def highest_rate(bad: Counts, n: Counts, confidence: float) -> Floats:
    """The rate that `bad` of `n` leaves possible, at most (Clopper & Pearson 1934, one-sided); 1 without data."""
    some = bad < n
    return np.where(some, special.betaincinv(bad + 1.0, np.where(some, n - bad, 1), confidence), 1.0)


def budgeted_alpha(pages: float, per_s: float, tests: int, window_s: float, panes: int) -> float:
    """The level of one test at which all of them together cause at most `pages` false pages in `per_s` seconds.

    Bonferroni, so under any dependence: over `tests` side by side (features, outputs, scores), over the tumbling
    windows of the period, and over the `panes` at which a sliding window is looked at (1 for one that tumbles). The
    last factor is a bound, as neighbouring looks share most of their data: a window that slides in twelfths was
    simulated to have 5 to 8 times the episodes of one that tumbles.
    """
    windows = max(per_s / window_s, 1.0)
    return pages / (max(tests, 1) * windows * panes)


def calibrate(blocks: Counts, reference: Counts) -> tuple[float, float, float]:
    """(g, nu, p): PSI of such blocks is about (1/n + 1/m) g times chi-square with nu degrees of freedom.

    `blocks` [blocks, bins] are counts of consecutive rows, `reference` [bins] those of all rows. A block is a part of
    the reference, so that 1/m - 1/n takes the place of 1/m + 1/n. Mean and variance are never taken for less than
    independent rows have: a calibration may only make a critical value more careful. `p` is how likely blocks of
    independent rows are to differ as much among themselves, which is the chi-square test of homogeneity (`dependence`).
    """
    b, bins = blocks.shape
    starts = np.arange(b, dtype=np.int64) * bins
    expected = distances.smoothed(np.tile(reference, b), starts)
    psi = distances.psi(expected, distances.smoothed(blocks.ravel(), starts), starts)
    return dependence(psi / (1 / blocks.sum(axis=1) - 1 / reference.sum()), bins - 1.0, 2 * (bins - 1.0))


def dependence(x: Floats, mean: float, variance: float) -> tuple[float, float, float]:
    """(g, nu, p) of scaled distances `x` of blocks, which of independent rows have this mean and variance.

    Such an x is about chi-square (stretched, if its variance is not twice its mean), and so is the sum of those of all
    blocks, with the degrees of freedom of one less.
    """
    fewer = len(x) - 1
    stretch = variance / (2 * mean)
    p = float(special.chdtrc(fewer * mean / stretch, fewer * float(x.mean()) / stretch))
    mean, variance = max(float(x.mean()), mean), max(float(x.var(ddof=1)), variance)
    return variance / (2 * mean), 2 * mean * mean / variance, p


def discoveries(p: Floats, q: float) -> NDArray[np.bool_]:
    """Which hypotheses are rejected so that at most a share `q` of the rejected ones is expected to be true.

    Benjamini & Hochberg 1995 (J. R. Stat. Soc. B 57), valid under positive dependence too (Benjamini & Yekutieli 2001);
    a NaN is no hypothesis.
    """
    tested = ~np.isnan(p)
    ordered = np.sort(p[tested])
    passed = np.flatnonzero(ordered <= q * np.arange(1, len(ordered) + 1) / max(len(ordered), 1))
    with np.errstate(invalid="ignore"):
        return p <= (ordered[passed[-1]] if len(passed) else -1.0)


def _testable(values: Floats, freedom: Floats | Counts) -> Floats:
    """NaN where there is no freedom: nothing to compare."""
    return np.where(np.asarray(freedom) > 0, values, np.nan)


def _entropy(counts: Counts) -> Floats:
    """Each n ln n."""
    return np.asarray(special.xlogy(counts, counts), np.float64)
