"""How good predictions were, each value with its confidence bounds, from counts and sums that add up.

What the counts do not define is NaN, never 0: an empty window has no accuracy, and one label has no spread. `z` is the
normal quantile of the bounds, 1.96 for 95 %.

Shares get Wilson's interval (1927). F1 and macro averages have the variance of the delta method (Takahashi, Yamamoto,
Kuchiba & Koyama 2022, Applied Intelligence 52), and then Wilson's interval at the effective sample size, the one at
which a plain share would vary as much (Korn & Graubard 1998, Survey Methodology 24): it stays within [0, 1] and is not
empty where everything, or nothing, was right. ROC AUC: DeLong, DeLong & Clarke-Pearson 1988 (Biometrics 44).
Calibration error: Naeini, Cooper & Hauskrecht 2015 (AAAI), with the folded normal of Leone, Nelson & Nottingham 1961
(Technometrics 3).

Estimates without labels are those of confidence-based performance estimation (NannyML's CBPE): what the quality of
predictions would be if positives were as frequent, score by score, as among the labels of the reference. Isotonic
regression: Ayer, Brunk, Ewing, Reid & Silverman 1955 (Annals of Mathematical Statistics 26).
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import special

from exporter.stats import Counts, Floats, significance


class Interval(NamedTuple):
    """A value with its confidence bounds."""

    value: float
    lower: float
    upper: float


class Estimate(NamedTuple):
    """A value with its standard error."""

    value: float
    error: float


_UNDEFINED = Interval(math.nan, math.nan, math.nan)


def proportion(successes: float, n: float, z: float) -> Interval:
    """A share of n with Wilson's interval."""
    return _wilson(float(successes) / float(n), float(n), z) if n > 0 else _UNDEFINED


def mean(total: float, squares: float, n: float, z: float) -> Interval:
    """The mean of n values from their sum and the sum of their squares; normal interval, no bounds from one value."""
    if not n > 0:
        return _UNDEFINED
    value = float(total) / float(n)
    # Rounding may leave a constant with less than no variance.
    spread = max(float(squares) / float(n) - value * value, 0.0)
    half = z * math.sqrt(spread / (n - 1)) if n > 1 else math.nan
    return Interval(value, value - half, value + half)


def root_mean_square(squares: float, fourths: float, n: float, z: float) -> Interval:
    """The root of the mean square of n errors from their sums of e^2 and e^4, in the unit of the errors.

    By the delta method the root r of a mean m has the standard error of m, divided by 2 r.
    """
    square = mean(squares, fourths, n, z)
    value = math.sqrt(square.value)
    half = square.upper - square.value
    if value > 0:
        half /= 2 * value
    return Interval(value, max(value - half, 0.0), value + half)


def confusion(counts: Counts, positive: int | None, z: float) -> dict[str, Interval]:
    """Accuracy, precision, recall and F1 from counts[predicted, actual], K x K.

    With the index of the positive class, precision TP / (TP + FP), recall TP / (TP + FN) and
    F1 = 2 TP / (2 TP + FP + FN) are of that class. Without, they are macro averages: plain means over the classes that
    were predicted or true at least once. There a class that is never predicted has precision 0, and one that is never
    true has recall 0, as in scikit-learn: a model that gives up a class must not gain by it. In the bounds such a class
    counts like one label that could have gone either way. A class of which there was nothing is not missed: the macro
    averages of a small window may be those of fewer classes.
    """
    table = counts.astype(np.float64)
    hits, predicted, actual = np.diagonal(table), table.sum(axis=1), table.sum(axis=0)
    scores = {"accuracy": proportion(float(hits.sum()), float(table.sum()), z)}
    if positive is not None:
        tp, rows, columns = (float(each[positive]) for each in (hits, predicted, actual))
        scores["precision"], scores["recall"] = proportion(tp, rows, z), proportion(tp, columns, z)
        scores["f1"] = _f1(2 * tp, rows + columns, z)
        return scores
    occurs = predicted + actual > 0
    hits, predicted, actual = hits[occurs], predicted[occurs], actual[occurs]
    scores["precision"], scores["recall"] = _macro(hits, predicted, z), _macro(hits, actual, z)
    # A confusion of two classes lowers the F1 of both: their covariance adds to the variance of the mean.
    confused = table[np.ix_(occurs, occurs)] - np.diag(hits)
    slope = 2 * hits / (predicted + actual) ** 2
    scores["f1"] = _macro(2 * hits, predicted + actual, z, shared=float(2 * slope @ confused @ slope), f1=True)
    return scores


def roc_auc(labels: Counts, positives: Counts, z: float) -> tuple[Interval, float]:
    """Area under the ROC curve from labels and positive ones a score bin, bins in order of the score.

    A = sum_b P_b (N_<b + N_b / 2) / (P N). Also returns the most by which the area of the scores themselves may differ
    from it, (1/2) sum_b P_b N_b / (P N): only pairs of the same bin are unknown, and each is counted half. Where every
    score has its bin A is exact, and the true error is 0.

    The interval is DeLong's with mid-ranks, clipped to [0, 1]; it holds for the area of the bins. It needs two of each
    class, and where the classes do not overlap at all it is empty: there DeLong's variance is 0.
    """
    p = positives.astype(np.float64)
    n = labels - p
    p_sum, n_sum = float(p.sum()), float(n.sum())
    if not (p_sum > 0 and n_sum > 0):
        return _UNDEFINED, math.nan
    area, above, below = _ranks(p, n)
    half = math.nan
    if p_sum > 1 and n_sum > 1:
        spread = p @ (above - area) ** 2 / (p_sum - 1) / p_sum + n @ (below - area) ** 2 / (n_sum - 1) / n_sum
        half = z * math.sqrt(spread)
    # A NaN that comes first stays.
    interval = Interval(area, max(area - half, 0.0), min(area + half, 1.0))
    return interval, float((p / p_sum) @ (n / n_sum)) / 2


def calibration_error(
    labels: Counts, positives: Counts, score_sums: Floats, variance_sums: Floats, z: float
) -> Interval:
    """Expected calibration error beyond what chance alone makes of it, not below 0.

    ECE = sum_b |D_b| / n, where D_b is the sum of the scores of a bin less its positives. With perfect calibration D_b
    is normal with mean 0 and variance V_b = sum p (1 - p) (`variance_sums`), so chance alone makes
    sum_b sqrt(2 V_b / pi) / n of it, and that is subtracted.

    The bounds are for the calibration error of the bins without noise. |D_b| is a folded normal, taken at the D_b seen;
    the sum of their variances gives the standard error. Labels of an overconfident model vary more than V_b says: the
    binomial variance of the bin stands in where it is larger. Chance adds most where a bin is calibrated and next to
    nothing where it is far off. So the lower bound subtracts all that calibrated bins would have, and lies above 0 only
    where the scores are not calibrated; the upper bound subtracts what the folded normals at the D_b seen have.
    """
    n = float(labels.sum())
    if not n > 0:
        return _UNDEFINED
    distance = np.abs(score_sums - positives)
    calibrated = np.maximum(variance_sums, 0.0)
    observed = positives * ((labels - positives) / np.maximum(labels, 1))
    sigma = np.sqrt(np.maximum(calibrated, observed))
    # In units of sigma; from 10 on nothing is left to fold, and differences of squares would only lose digits.
    t = np.minimum(distance, 10 * sigma) / np.where(sigma > 0, sigma, 1.0)
    folded = math.sqrt(2 / math.pi) * np.exp(-t * t / 2) + t * special.erf(t / math.sqrt(2))
    half = z * math.sqrt(np.sum(sigma**2 * (t * t + 1 - folded**2))) / n
    error = float(distance.sum()) / n
    excess = error - float(np.sqrt(2 * calibrated / math.pi).sum()) / n
    upper = error - float(sigma @ (folded - t)) / n + half
    value = max(excess, 0.0)
    return Interval(value, max(excess - half, 0.0), max(upper, value))


def isotonic(labels: Counts, positives: Counts) -> Floats:
    """The share of positives in each bin that fits best among those that never fall from bin to bin.

    Least squares weighted by labels, by pooling adjacent violators. A bin without labels has the share of the nearest
    bin with some, the lower one of two; NaN where no bin has any.
    """
    known = np.flatnonzero(labels)
    if not len(known):
        return np.full(len(labels), math.nan)
    blocks: list[tuple[int, int, int]] = []  # positives, labels, bins
    for bin_ in known.tolist():
        block = (int(positives[bin_]), int(labels[bin_]), 1)
        while blocks and blocks[-1][0] * block[1] >= block[0] * blocks[-1][1]:
            hits, n, bins = blocks.pop()
            block = (hits + block[0], n + block[1], bins + block[2])
        blocks.append(block)
    shares = np.repeat([hits / n for hits, n, _ in blocks], [bins for *_, bins in blocks])
    return shares[np.searchsorted((known[1:] + known[:-1]) / 2, np.arange(len(labels)))]


class Calibration:
    """How often a score and a class stand for a positive, by `labels[bins, 2]` and the `positives` among them.

    Bins are in order of the score; side 1 was predicted positive, side 0 was not, and each has a map of its own. Where
    a bin holds the threshold of the model, or a prediction is more than a score cut in two, the sides of a bin differ:
    one share for both would miss the accuracy of the reference itself, which these maps keep exactly.

    Errors are those of a realised value around its estimate. Outcomes vary by p (1 - p) each, and bins that were pooled
    share the error of their p, so that a small reference makes no certain map: with few predictions the error of an
    accuracy is sqrt(sum p (1 - p)) / n. There half a positive and half another more a pool count: labels that all agree
    do not make certain either.
    """

    def __init__(self, labels: Counts, positives: Counts) -> None:
        shares = np.stack([isotonic(labels[:, side], positives[:, side]) for side in (0, 1)], axis=1)
        # A side without labels in a bin is like the other side of the same bin, before it is like other bins.
        empty = labels == 0
        borrows = empty & (~empty[:, ::-1] | np.isnan(shares))
        own = shares + np.array([0, 2])  # tells the pools of the sides apart
        self.shares, pool = (np.where(borrows, one[:, ::-1], one) for one in (shares, own))
        self._pools = np.unique(pool, return_inverse=True)[1].ravel()
        self._labels = np.bincount(self._pools, labels.ravel())
        share = (np.bincount(self._pools, positives.ravel()) + 0.5) / (self._labels + 1)
        self._variance = share * (1 - share)

    def estimate(self, predictions: Counts) -> dict[str, Estimate]:
        """Accuracy, precision, recall, F1 and ROC AUC to be expected of `predictions[bins, 2]`; NaN where undefined."""
        n = predictions.astype(np.float64)
        p = n * self.shares
        (others, predicted), (missed, hits), positives = n.sum(axis=0), p.sum(axis=0), p.sum()
        # Each is a ratio: its parts, and by how much they grow with a positive of either side.
        ratios = {
            "accuracy": (hits + others - missed, others + predicted, (-1, 1), 0),
            "precision": (hits, predicted, (0, 1), 0),
            "recall": (hits, positives, (0, 1), 1),
            "f1": (2 * hits, predicted + positives, (0, 2), 1),
        }
        found = {name: Estimate(math.nan, math.nan) for name in (*ratios, "roc_auc")}
        for name, (part, whole, of_part, of_whole) in ratios.items():
            if whole > 0:
                slope = (np.array(of_part) - part / whole * of_whole) / whole
                found[name] = Estimate(float(part / whole), self._error(n, slope))
        p, n_other = p.sum(axis=1), (n - p).sum(axis=1)
        if p.sum() > 0 and n_other.sum() > 0:
            area, above, below = _ranks(p, n_other)
            slopes = (above - area) / p.sum() - (below - area) / n_other.sum()
            found["roc_auc"] = Estimate(area, self._error(n, slopes[:, np.newaxis]))
        return found

    def gap(self, labels: Counts, positives: Counts) -> dict[str, Estimate]:
        """Realised less expected shares of `labels[bins, 2]`: of predictions that were right, and of positives.

        An error that becomes more frequent either way shows in `accuracy`, an outcome that does in `positives`; both
        are normal around 0 as long as outcomes follow scores as in the reference.
        """
        n = labels.astype(np.float64)
        total = n.sum()
        if not total > 0:
            return {}
        excess = positives - n * self.shares
        slopes = {"accuracy": np.array([-1, 1]) / total, "positives": np.array([1, 1]) / total}
        return {name: Estimate(float((excess * one).sum()), self._error(n, one)) for name, one in slopes.items()}

    def _error(self, n: Floats, slope: Floats) -> float:
        """Standard error of a sum that grows by `slope` with each positive of n."""
        slopes = np.broadcast_to(slope, n.shape)
        chance, of_share = (np.bincount(self._pools, (n * one).ravel()) for one in (slopes**2, slopes))
        return math.sqrt(self._variance @ (chance + of_share**2 / self._labels))


def _ranks(p: Floats, n: Floats) -> tuple[float, Floats, Floats]:
    """The area of positives and others by bin, and the share of the other class that those of a bin are right about.

    That is the share which each positive lies above, and which each of the others lies below.
    """
    above = (np.cumsum(n) - n / 2) / n.sum()
    below = 1 - (np.cumsum(p) - p / 2) / p.sum()
    return min(float(p @ above / p.sum()), 1.0), above, below


def _f1(successes: float, trials: float, z: float) -> Interval:
    """F1 = f of a class from 2 TP and d = 2 TP + FP + FN; by the delta method its variance is f (1 - f) (2 - f) / d."""
    if not trials > 0:
        return _UNDEFINED
    value = successes / trials
    return _wilson(value, trials / (2 - value), z)


def _macro(successes: Floats, trials: Floats, z: float, *, shared: float = 0.0, f1: bool = False) -> Interval:
    """The mean of the classes' ratios; `shared` is the sum of their covariances.

    Half a success and half a failure more a class serve the effective sample size alone: without them a class of three
    labels, all right, would have no variance, and would make the mean look certain.
    """
    if not len(trials):
        return _UNDEFINED
    n = np.maximum(trials, 1.0)
    right, wrong = (successes + 0.5) / (trials + 1), (trials - successes + 0.5) / (trials + 1)
    variance = float(np.sum(right * wrong * (1 + wrong if f1 else 1.0) / n)) + shared
    return _wilson(float(np.mean(successes / n)), float(right.sum() * wrong.sum()) / variance, z)


def _wilson(share: float, n: float, z: float) -> Interval:
    lower, upper = significance.wilson(np.array(share * n), np.array(n), z)
    # Rounding must not put 1 above its upper bound.
    return Interval(share, min(float(lower), share), max(float(upper), share))
