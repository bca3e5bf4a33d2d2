"""How far the means of several quantities lie from the reference's, together: Hotelling's T2, scaled to an effect size.

With d the difference between the means of n reference and m current rows, S the covariance of a row and c = 1/n + 1/m,
T2 = d' S^-1 d / c follows chi-square without drift (Hotelling 1931, Ann. Math. Stat. 2), whatever the quantities are:
values of features, or products of two of them. The effect is d' S^-1 d, the squared Mahalanobis distance. Between two
normal populations it is their Jeffreys divergence, which PSI is of binned ones: exactly if they differ in means, to
second order if d is of their covariances. So it is read on the scale of PSI.

Three corrections, each of which simulations asked for: S is itself estimated, hence an F law instead of chi-square;
rows with heavy tails vary more, by the fourth cumulant; and dependent rows by what blocks of the reference show.
"""

from typing import NamedTuple

import numpy as np
from scipy import special

from exporter.stats import Floats

_NO_VARIANCE = 0.01
"""Combinations that vary less than this share of their unit are taken for none: measured by their own variance, what
rounding or a term of second order makes of them would be huge."""


class Form(NamedTuple):
    """The quadratic form d' S^-1 d = |axes d|^2 on the `rank` directions in which rows vary.

    `axes` [rank, quantities]; S was estimated from `rows` rows. `kurtosis` is the fourth cumulant of a row in this
    form, E (y' S^-1 y)^2 - rank (rank + 2): 0 of normal rows.
    """

    axes: Floats
    rows: int
    kurtosis: float = 0.0

    @property
    def rank(self) -> int:
        """In how many directions rows vary; in none, there is nothing to test."""
        return len(self.axes)

    def squares(self, differences: Floats) -> Floats:
        """The square, d' S^-1 d, of each of `differences` [..., quantities]."""
        found: Floats = np.square(differences @ self.axes.T).sum(axis=-1)
        return found

    @property
    def rest(self) -> float:
        """How many rows are left for the estimate of S, as it were: each direction takes one, and heavy tails some."""
        return max(self.rows - self.rank - self.kurtosis / max(self.rank, 1), 3.0)

    @property
    def shrink(self) -> float:
        """What takes out of T2 that the inverse of an estimate is too large: by its variance, to first order."""
        return self.rest / (self.rows - 1)


class Law(NamedTuple):
    """How T2 (shrunk) varies without drift: `scale` times chi-square with `freedom` degrees of freedom.

    S being estimated, chi-square is freedom times F(freedom, rest).
    """

    scale: float
    freedom: float
    rest: float

    @property
    def mean(self) -> float:
        """T2 expected by chance."""
        return self.scale * self.freedom * self.rest / (self.rest - 2)

    def critical(self, alpha: float) -> float:
        """T2 that is passed with probability `alpha`; from the upper tail itself, so exact for the smallest alpha."""
        share = special.betaincinv(self.rest / 2, self.freedom / 2, alpha)
        return float(self.scale * self.rest * (1 - share) / share)

    def p_value(self, t2: float) -> float:
        """How likely chance alone makes at least this T2."""
        return float(special.fdtrc(self.freedom, self.rest, max(t2, 0.0) / (self.scale * self.freedom)))


def form(covariance: Floats, units: Floats, rows: int, kurtosis: float = 0.0) -> Form:
    """The form of a covariance [quantities, quantities] of so many rows.

    `units` [quantities] are deviations in which each can be expected to vary; one or a combination that hardly does,
    because it is constant or follows from the others, is left out.
    """
    scale = np.divide(1.0, units, out=np.zeros_like(units), where=units > 0)
    variances, directions = np.linalg.eigh(covariance * np.outer(scale, scale))
    kept = variances > _NO_VARIANCE
    return Form((directions[:, kept] * scale[:, None] / np.sqrt(variances[kept])).T, rows, kurtosis)


def excess(known: Form, squares: Floats) -> float:
    """The fourth cumulant of rows, from the squares of their deviations from the mean; never less than normal."""
    return max(float(np.square(squares).mean()) - known.rank * (known.rank + 2), 0.0)


def independent_variance(known: Form, parts: Floats) -> float:
    """Variance of T2 of independent rows, of a difference of means over 1 / `parts` rows each (1/n and 1/m).

    The means add their cumulants: the second ones make the variance 2 rank of chi-square, the fourth ones the rest.
    """
    return 2.0 * known.rank + known.kurtosis * float((np.abs(parts) ** 3).sum() / parts.sum() ** 2)


def law(known: Form, parts: Floats, g: float, freedom_ratio: float) -> Law:
    """The law of T2 for a window: as blocks of the reference say (`g`, `freedom_ratio`), never narrower than theory.

    Mean and variance decide (Satterthwaite 1946, Biometrics Bulletin 2).
    """
    mean = g * freedom_ratio * known.rank
    variance = max(2 * g * mean, independent_variance(known, parts))
    return Law(variance / (2 * mean), 2 * mean * mean / variance, known.rest)
