"""Tests that may be read after every pane: an error rate holds over all panes at once, not for one look planned ahead.

Each detector is a fold over panes, `state = state.update(pane)`: a frozen state, an update that returns the next one.
Counts are sums, so the panes that several processes close at the same time are added before the update. Shapes
broadcast: axes before the last are independent runs, models or features.

An e-process E starts at 1 and its expectation never rises while the null hypothesis holds, therefore
P(E ever reaches 1 / alpha) <= alpha (Ville 1939). The two of canary against primary are products of the e-values of
Turner, Ly & Grunwald (2024, J. Stat. Plan. Inference 230, 106116). They compare within panes only: an incident that
both versions share, or a ramp of the canary's share of traffic, moves neither. They do assume independent outcomes
within a pane; where these come in clumps, divide both versions' counts by the variance inflation.

For drift away from a fixed rate there is the Shiryaev-Roberts e-detector (Shin, Ramdas & Rinaldo, arXiv:2203.03532).
"""

from dataclasses import dataclass, replace
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from exporter.stats import Counts, Floats

Tallies: TypeAlias = Counts | Floats
"""Counts; fractions once divided by a variance inflation."""

RATIOS = np.array([1.25, 1.5, 2.0, 3.0, 5.0, 10.0])
"""Canary's rate over the highest one tolerated, on which half of the capital is bet."""

RATE_WEIGHTS = np.append(0.5, np.full(len(RATIOS), 0.5 / len(RATIOS)))
"""Capital of each bet on rates: half on what past panes look like, half spread over `RATIOS`."""

KAPPAS = np.array([20.0, 100.0, 500.0])
"""Pseudo-observations that pull both distributions to the pooled one. Few find a large shift, many a small one."""

ODDS_RATIOS = np.array([1.2, 1.5, 2.0, 4.0, 16.0])
"""Odds of the alternatives over the odds of the null rate.

Odds keep every alternative above the null rate and below 1, whether that is 1e-5 or 0.99. Dense near 1, where drift is
slow to show and a wrong alternative costs most; sparse above, where a pane or two decide.
"""


def outcomes(bad: Tallies | float, n: Tallies | float) -> Floats:
    """`bad` of `n` as the two categories (bad, good), shape [..., 2]."""
    _check_rate(bad, n)
    return np.stack(np.broadcast_arrays(bad, np.subtract(n, bad)), axis=-1).astype(np.float64)


@dataclass(frozen=True, eq=False)
class Pane:
    """What both versions did in one pane: counts [..., categories]. A rate has the categories of `outcomes`."""

    canary: Tallies
    primary: Tallies

    def __post_init__(self) -> None:
        _check_counts("canary", self.canary, self.primary.shape[-1])
        _check_counts("primary", self.primary, self.canary.shape[-1])

    def __add__(self, other: "Pane") -> "Pane":
        _check_counts("pane", other.canary, self.canary.shape[-1])
        return Pane(self.canary + other.canary, self.primary + other.primary)


@dataclass(frozen=True, eq=False)
class RateEProcess:
    """Evidence against "the canary's rate of bad outcomes is at most rho * primary's rate + delta in every pane".

    The denominator of each e-value is the reverse information projection of the bet on that null hypothesis (Turner &
    Grunwald 2022, arXiv:2203.09785), which is the pooled rate when nothing is tolerated.
    """

    rho: float
    delta: float
    canary: Floats
    """(bad, good) of past panes, [..., 2]."""
    primary: Floats
    """The same, with the history."""
    log_bets: Floats
    """Log e-value of each bet, [..., 1 + ratios]."""

    @classmethod
    def start(cls, rho: float = 1.0, delta: float = 0.0, history: Tallies | None = None) -> Self:
        """No evidence yet. `history` is what the primary did before, (bad, good): the first pane then bets already."""
        if not rho > 0:
            raise ValueError(f"rho must be above 0: {rho}")
        if not 0 <= delta < 1:
            raise ValueError(f"delta must be at least 0 and below 1: {delta}")
        history = np.zeros(2) if history is None else np.array(history, np.float64)
        _check_counts("history", history, 2)
        return cls(rho, delta, np.zeros(2), history, np.zeros(len(RATE_WEIGHTS)))

    @property
    def log_e(self) -> Floats:
        """Natural logarithm of the e-process, [...]; ln(1 / alpha) is reached with probability alpha at most."""
        log_e: Floats = np.logaddexp.reduce(self.log_bets + np.log(RATE_WEIGHTS), axis=-1)
        return log_e

    def update(self, pane: Pane) -> Self:
        """Bet on the pane with what was known before it, then learn from it."""
        _check_counts("pane", pane.canary, 2)
        share = _canary_share(pane)[..., None]
        canary, primary = self._bets()
        # A bet inside the null hypothesis, or on a pane that only one version served, is not made: its e-value is 1.
        made = (canary > self.rho * primary + self.delta) & (share > 0) & (share < 1)
        made &= (self.canary.sum(axis=-1) + self.primary.sum(axis=-1) > 0)[..., None]
        null_canary, null_primary = self._project(canary, primary, share)
        log_e = _log_ratio(
            pane,
            (_with_complement(canary), _with_complement(np.where(made, null_canary, canary))),
            (_with_complement(primary), _with_complement(np.where(made, null_primary, primary))),
        )
        return replace(
            self,
            canary=self.canary + pane.canary,
            primary=self.primary + pane.primary,
            log_bets=self.log_bets + log_e,
        )

    def _bets(self) -> tuple[Floats, Floats]:
        """Rates of canary and primary that are bet on, [..., 1 + ratios] each."""
        (canary_bad, canary_n), (primary_bad, primary_n) = _bad_of_n(self.canary), _bad_of_n(self.primary)
        # What was seen, shrunk to the pooled rate by pseudo-observations among which one is bad.
        pseudo = 1 / np.minimum((canary_bad + primary_bad + 0.5) / (canary_n + primary_n + 1), 0.5)
        seen = (canary_bad + 1) / (canary_n + pseudo), (primary_bad + 1) / (primary_n + pseudo)
        base = np.minimum((primary_bad + 0.5) / (primary_n + 1), 0.5)[..., None]
        grid = np.minimum(RATIOS * (self.rho * base + self.delta), 0.9)
        return (
            np.concatenate((seen[0][..., None], grid), axis=-1),
            np.concatenate((seen[1][..., None], np.broadcast_to(base, grid.shape)), axis=-1),
        )

    def _project(self, canary: Floats, primary: Floats, share: Floats) -> tuple[Floats, Floats]:
        """The null rates (rho t + delta, t) with least share KL(canary || .) + (1 - share) KL(primary || .)."""
        if self.rho == 1 and self.delta == 0:
            pooled = share * canary + (1 - share) * primary
            return pooled, pooled
        # At the primary's own rate the derivative is negative, where the canary's is tolerated it is positive.
        low, high = np.broadcast_arrays(primary, np.minimum((canary - self.delta) / self.rho, 1.0), share)[:2]
        for _ in range(60):
            t = (low + high) / 2
            tolerated = self.rho * t + self.delta
            # The derivative times t (1 - t) tolerated (1 - tolerated), which divides by nothing.
            above = share * self.rho * (tolerated - canary) * t * (1 - t) > (
                (1 - share) * (primary - t) * tolerated * (1 - tolerated)
            )
            low, high = np.where(above, low, t), np.where(above, t, high)
        return self.rho * high + self.delta, high


@dataclass(frozen=True, eq=False)
class DistributionEProcess:
    """Evidence against "canary and primary share the distribution over bins within every pane", which may itself drift.

    Scores, latencies, predicted classes: whatever is binned. The average over `KAPPAS` of three e-processes.
    """

    canary: Floats
    """Counts of past panes, [..., bins]."""
    primary: Floats
    """The same, with the history."""
    log_bets: Floats
    """Log e-value of each bet, [..., kappas]."""

    @classmethod
    def start(cls, history: Tallies) -> Self:
        """No evidence yet. `history` is what the primary did before, counts [bins]; zeros where that is unknown."""
        history = np.array(history, np.float64)
        _check_counts("history", history, history.shape[-1])
        return cls(np.zeros_like(history), history, np.zeros(len(KAPPAS)))

    @property
    def log_e(self) -> Floats:
        """Natural logarithm of the e-process, [...]; ln(1 / alpha) is reached with probability alpha at most."""
        log_e: Floats = np.logaddexp.reduce(self.log_bets, axis=-1) - np.log(len(KAPPAS))
        return log_e

    def update(self, pane: Pane) -> Self:
        """Bet on the pane with what was known before it, then learn from it."""
        _check_counts("pane", pane.canary, self.canary.shape[-1])
        pooled = self.canary + self.primary + 0.5
        pseudo = KAPPAS[:, None] * (pooled / pooled.sum(axis=-1, keepdims=True))[..., None, :]
        canary, primary = (
            (seen[..., None, :] + pseudo) / (seen.sum(axis=-1)[..., None] + KAPPAS)[..., None]
            for seen in (self.canary, self.primary)
        )
        share = _canary_share(pane)[..., None, None]
        null = share * canary + (1 - share) * primary
        return replace(
            self,
            canary=self.canary + pane.canary,
            primary=self.primary + pane.primary,
            log_bets=self.log_bets + _log_ratio(pane, (canary, null), (primary, null)),
        )


@dataclass(frozen=True, eq=False)
class ShiryaevRoberts:
    """Watches rates for a rise above `p_null`, for ever: the e-SR detector, averaged over `ODDS_RATIOS`.

    While the rates are at most `p_null`, given all that went before, the statistic minus the number of panes is a
    supermartingale: P(it reaches A within h panes) <= h / A, and the first false alarm takes A panes or more on
    average. A pane without data does not count. That is for one rate: for R rates together ask each for R times A.
    Started again after each alarm, it raises h / A false alarms in h panes at most on average, as the statistic plus A
    for each alarm, minus the number of panes, is a supermartingale too.
    """

    p_null: Floats
    """Highest rate that is in order, [rates]."""
    log_m: Floats
    """Log of the detector of each alternative, [rates, alternatives]; -inf before the first pane."""

    @classmethod
    def start(cls, p_null: Floats | float) -> Self:
        """No evidence yet. `p_null` has the shape of the rates to come; a number watches one rate."""
        p_null = np.array(p_null, np.float64)
        if not np.all((p_null > 0) & (p_null < 1)):
            raise ValueError(f"p_null must lie between 0 and 1, both excluded: {p_null}")
        return cls(p_null, np.full((*p_null.shape, len(ODDS_RATIOS)), -np.inf))

    @property
    def log_statistic(self) -> Floats:
        """Natural logarithm of the average over the alternatives, [rates]."""
        log_statistic: Floats = np.logaddexp.reduce(self.log_m, axis=-1) - np.log(len(ODDS_RATIOS))
        return log_statistic

    def alarms(self, a: float) -> NDArray[np.bool_]:
        """Which rates have reached A, the panes to the first false alarm."""
        return np.asarray(self.log_statistic >= np.log(a))

    def update(self, bad: Tallies | float, n: Tallies | float) -> Self:
        """M <- (M + 1) L for `bad` of `n`, [rates] each; where n is 0 nothing was seen, and nothing changes."""
        _check_rate(bad, n)
        bad, n = np.asarray(bad)[..., None], np.asarray(n)[..., None]
        # (p / p_null)^bad ((1 - p) / (1 - p_null))^(n - bad) in terms of odds.
        log_ratio = bad * np.log(ODDS_RATIOS) - n * np.log1p(self.p_null[..., None] * (ODDS_RATIOS - 1))
        return replace(self, log_m=np.where(n > 0, np.logaddexp(self.log_m, 0.0) + log_ratio, self.log_m))

    def restart(self, alarmed: NDArray[np.bool_]) -> Self:
        """No evidence any more for those of the rates."""
        return replace(self, log_m=np.where(alarmed[..., None], -np.inf, self.log_m))


@dataclass(frozen=True, eq=False)
class RiskDifference:
    """Canary's rate minus primary's, compared within panes (Mantel & Haenszel) and seen at any time.

    The interval is the normal mixture's (Robbins 1970), asymptotic in the number of bad outcomes. Its variance is that
    of Sato (1989, Biometrics 45), which holds for few outcomes a pane and also where the rates differ: the variance of
    equal rates misses a canary three times as bad in a quarter of the runs. It is taken as though two more canary
    outcomes had been bad, so that the interval does not shrink to "no difference" while next to nothing bad happened.
    """

    weight: Floats | float = 0.0
    """Sum over panes of 1 / (1 / n_canary + 1 / n_primary), [...]."""
    weighted: Floats | float = 0.0
    """Sum of differences times weights."""
    sato_p: Floats | float = 0.0
    """Variance of `weighted` is difference * sato_p + sato_q."""
    sato_q: Floats | float = 0.0

    def update(self, pane: Pane) -> Self:
        """Add a pane; one that a single version served adds nothing."""
        _check_counts("pane", pane.canary, 2)
        (x, n), (y, m) = _bad_of_n(pane.canary), _bad_of_n(pane.primary)
        both = np.where(n + m > 0, n + m, 1.0)
        return replace(
            self,
            weight=self.weight + n * m / both,
            weighted=self.weighted + (x * m - y * n) / both,
            sato_p=self.sato_p + (n**2 * y - m**2 * x + n * m * (m - n) / 2) / both**2,
            sato_q=self.sato_q + (x * (m - y) + y * (n - x)) / (2 * both),
        )

    @property
    def difference(self) -> Floats:
        """The estimate, [...]; NaN without data."""
        with np.errstate(invalid="ignore"):
            return np.divide(self.weighted, self.weight)

    def interval(self, alpha: float, tau: float) -> tuple[Floats, Floats]:
        """(lower, upper) that hold at all panes with probability 1 - alpha; (-1, 1) without data.

        Narrowest when the variance is about tau^2 / 2 ln(1 / alpha): tau is a difference that one cares about, such as
        the usual rate.
        """
        difference = self.difference
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = (np.maximum(difference * self.sato_p + self.sato_q, 0.0) + 2) / np.square(self.weight)
            ratio = variance / tau**2
            half = np.sqrt(variance * (1 + ratio) * (np.log1p(1 / ratio) + 2 * np.log(1 / alpha)))
        known = np.greater(self.weight, 0)
        return (
            np.where(known, np.maximum(difference - half, -1.0), -1.0),
            np.where(known, np.minimum(difference + half, 1.0), 1.0),
        )


def _log_ratio(pane: Pane, canary: tuple[Floats, Floats], primary: tuple[Floats, Floats]) -> Floats:
    """Log of the pane's likelihood, bet over null; (bet, null) are probabilities [..., bets, categories]."""
    log_ratio: Floats = (
        pane.canary[..., None, :] * np.log(canary[0] / canary[1])
        + pane.primary[..., None, :] * np.log(primary[0] / primary[1])
    ).sum(axis=-1)
    return log_ratio


def _canary_share(pane: Pane) -> Floats:
    """Share of the pane's observations that are the canary's, [...]; 0 in an empty pane."""
    canary, primary = pane.canary.sum(axis=-1), pane.primary.sum(axis=-1)
    both = canary + primary
    return np.asarray(canary / np.where(both > 0, both, 1.0))


def _bad_of_n(counts: Tallies) -> tuple[Floats, Floats]:
    """Inverse of `outcomes`."""
    counts = np.asarray(counts, np.float64)
    return counts[..., 0], counts.sum(axis=-1)


def _with_complement(p: Floats) -> Floats:
    return np.stack((p, 1 - p), axis=-1)


def _check_counts(name: str, counts: Tallies, categories: int) -> None:
    if counts.shape[-1] != categories:
        raise ValueError(f"{name}: {counts.shape[-1]} categories where {categories} are expected")
    if not np.all(counts >= 0):
        raise ValueError(f"{name}: negative counts")


def _check_rate(bad: Tallies | float, n: Tallies | float) -> None:
    if not np.all(np.greater_equal(bad, 0)):
        raise ValueError("negative count of bad outcomes")
    if not np.all(np.less_equal(bad, n)):
        raise ValueError("more bad outcomes than outcomes")
