"""Expected numbers: reference/statistics.md 5.3 and 8.1; oracles: definitions, scipy.stats, brute force, simulation."""

import csv
import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from exporter.stats import scores
from exporter.stats.scores import Calibration, Interval
from tests.app.commands import DATA

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the public data sets are not at {DATA}")

Z = float(stats.norm.isf(0.025))
RUNS = 2000
"""Simulated windows a coverage: its standard error is 0.005 at 95 %."""


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def histogram(bins: np.ndarray, size: int, weights: np.ndarray | None = None) -> np.ndarray:
    sums = np.bincount(bins, weights, size)
    return sums.astype(np.int64) if weights is None or weights.dtype != np.float64 else sums


def binned_auc(bins: np.ndarray, positive: np.ndarray, size: int | None = None) -> tuple[Interval, float]:
    size = int(bins.max()) + 1 if size is None else size
    return scores.roc_auc(histogram(bins, size), histogram(bins, size, positive.astype(np.int64)), Z)


def true_auc(score: np.ndarray, positive: np.ndarray) -> float:
    pairs = int(positive.sum()) * int((~positive).sum())
    return float(stats.mannwhitneyu(score[positive], score[~positive], method="asymptotic").statistic) / pairs


def is_undefined(interval: Interval) -> bool:
    return all(math.isnan(each) for each in interval)


def ordered(interval: Interval, highest: float = 1.0) -> bool:
    return 0 <= interval.lower <= interval.value <= interval.upper <= highest


def coverage(truth: float, intervals: Iterable[Interval]) -> float:
    return float(np.mean([one.lower <= truth <= one.upper for one in intervals]))


@needs_data
class TestCarLoan:
    """Ten chunks of 5,000 labels; the scores have two decimals."""

    @staticmethod
    @cache
    def chunks() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Scores, predictions and labels."""
        with (DATA / "car_loan_labels.csv").open(newline="") as file:
            labels = {row["id"]: row["repaid"] for row in csv.DictReader(file)}
        with (DATA / "car_loan_analysis.csv").open(newline="") as file:
            rows = [
                (float(row["y_pred_proba"]), int(row["y_pred"]), int(labels[row["id"]])) for row in csv.DictReader(file)
            ]
        score, predicted, actual = (np.array(column) for column in zip(*rows, strict=True))
        return [(score[i : i + 5000], predicted[i : i + 5000], actual[i : i + 5000]) for i in range(0, 50_000, 5000)]

    def test_roc_auc_from_a_bin_for_every_score(self):
        found = [binned_auc(np.rint(score * 100).astype(int), y == 1, 101)[0] for score, _, y in self.chunks()]
        published = [0.970962, 0.970248, 0.976282, 0.967721, 0.969886, 0.960050, 0.958530, 0.959041, 0.963094, 0.957556]

        assert [round(one.value, 6) for one in found] == published
        assert all(one.lower < one.value < one.upper for one in found)

    def test_quantile_bins_of_the_reference_keep_the_bound(self):
        with (DATA / "car_loan_reference.csv").open(newline="") as file:
            reference = [float(row["y_pred_proba"]) for row in csv.DictReader(file)]
        edges = np.unique(np.quantile(reference, np.arange(1, 20) / 20, method="inverted_cdf"))

        for score, _, y in self.chunks():
            area, bound = binned_auc(np.searchsorted(edges, score), y == 1, 20)
            assert abs(area.value - true_auc(score, y == 1)) <= bound < 0.02

    def test_accuracy(self):
        published = [0.9422, 0.9422, 0.9502, 0.9436, 0.9410, 0.9146, 0.9156, 0.9144, 0.9224, 0.9122]
        tables = [
            np.bincount(predicted * 2 + y, minlength=4).reshape(2, 2).astype(np.int64)
            for _, predicted, y in self.chunks()
        ]

        assert [scores.confusion(table, 1, Z)["accuracy"].value for table in tables] == published


@given(st.integers(0, 3000), st.integers(1, 3000))
def test_a_proportion_has_the_interval_of_wilson(successes: int, n: int):
    successes = min(successes, n)
    found = scores.proportion(successes, n, Z)
    expected = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")

    assert found == pytest.approx((successes / n, expected.low, expected.high), abs=1e-9)
    assert ordered(found)
    assert all(type(each) is float for each in found)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=50))
def test_mean_and_root_mean_square(values: list[float]):
    e = np.array(values)
    n, squares = len(e), e**2
    found = scores.mean(e.sum(), squares.sum(), n, Z)
    root = scores.root_mean_square(squares.sum(), (squares**2).sum(), n, Z)

    half = Z * stats.sem(e)
    # Sums of squares keep seven digits of a spread that is next to nothing beside the mean.
    assert found == pytest.approx((e.mean(), e.mean() - half, e.mean() + half), rel=1e-6, abs=1e-6 * np.abs(e).max())
    assert root.value == pytest.approx(np.sqrt(squares.mean()), rel=1e-12, abs=1e-300)
    if root.value > 1e-3:
        half = Z * stats.sem(squares) / (2 * root.value)
        assert root.upper - root.value == pytest.approx(half, rel=1e-6, abs=1e-6 * np.abs(e).max())
        assert root.lower == pytest.approx(max(root.value - half, 0.0), rel=1e-6, abs=1e-6 * np.abs(e).max())
    assert all(type(each) is float for each in (*found, *root))


count = st.one_of(st.just(0), st.integers(0, 30), st.integers(0, 10**12))


def a_table(size: int) -> st.SearchStrategy[np.ndarray]:
    rows = st.lists(st.lists(count, min_size=size, max_size=size), min_size=size, max_size=size)
    return rows.map(lambda values: np.array(values, np.int64))


def share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


@given(a_table(2), st.sampled_from([0, 1]))
def test_scores_of_the_positive_class(table: np.ndarray, positive: int):
    found = scores.confusion(table, positive, Z)
    tp, fp, fn = (int(table[i]) for i in ((positive, positive), (positive, 1 - positive), (1 - positive, positive)))
    expected = {
        "accuracy": share(int(np.trace(table)), int(table.sum())),
        "precision": share(tp, tp + fp),
        "recall": share(tp, tp + fn),
        "f1": share(2 * tp, 2 * tp + fp + fn),
    }

    assert {name: one.value for name, one in found.items()} == pytest.approx(expected, rel=1e-12, nan_ok=True)
    for one in found.values():
        assert is_undefined(one) or (ordered(one) and one.lower < one.upper)
        assert all(type(each) is float for each in one)


def macro(table: np.ndarray) -> dict[str, float]:
    """Macro averages by their definitions, in integers as long as possible."""
    values: dict[str, list[float]] = {"precision": [], "recall": [], "f1": []}
    for k in range(len(table)):
        tp, predicted, actual = int(table[k, k]), int(table[k].sum()), int(table[:, k].sum())
        if predicted + actual == 0:
            continue
        values["precision"].append(tp / predicted if predicted else 0.0)
        values["recall"].append(tp / actual if actual else 0.0)
        values["f1"].append(2 * tp / (predicted + actual))
    return {name: float(np.mean(of)) if of else math.nan for name, of in values.items()}


@given(st.integers(1, 5).flatmap(a_table), st.randoms(use_true_random=False))
def test_macro_averages(table: np.ndarray, random):
    found = scores.confusion(table, None, Z)
    order = random.sample(range(len(table)), len(table))

    expected = macro(table) | {"accuracy": share(int(np.trace(table)), int(table.sum()))}
    assert {name: one.value for name, one in found.items()} == pytest.approx(expected, rel=1e-12, nan_ok=True)
    for name, one in scores.confusion(table[np.ix_(order, order)], None, Z).items():
        assert one == pytest.approx(found[name], rel=1e-9, abs=1e-9, nan_ok=True), name
    for one in found.values():
        assert is_undefined(one) or (ordered(one) and one.lower < one.upper)
        assert all(type(each) is float for each in one)


def delta_interval(of: Callable[[np.ndarray], float], table: np.ndarray) -> Interval:
    """Wilson's interval at the effective sample size, from numerical derivatives and the multinomial covariance."""
    n, flat = table.sum(), table.ravel().astype(float)
    gradient = np.empty(len(flat))
    for cell in range(len(flat)):
        step = np.zeros(len(flat))
        step[cell] = n * 1e-5
        up, down = (of((flat + sign * step).reshape(table.shape)) for sign in (1, -1))
        gradient[cell] = (up - down) / 2e-5
    shares = flat / n
    variance = gradient @ (np.diag(shares) - np.outer(shares, shares)) @ gradient / n
    value = of(flat.reshape(table.shape))
    effective = value * (1 - value) / variance
    return scores.proportion(value * effective, effective, Z)


TABLE = np.array([[900, 80, 10], [40, 500, 70], [5, 60, 120]], np.int64) * 1000
RATIOS: dict[str, Callable[[np.ndarray], float]] = {
    "precision": lambda t: float(np.mean(np.diagonal(t) / t.sum(1))),
    "recall": lambda t: float(np.mean(np.diagonal(t) / t.sum(0))),
    "f1": lambda t: float(np.mean(2 * np.diagonal(t) / (t.sum(0) + t.sum(1)))),
}


def test_bounds_of_f1_are_those_of_the_delta_method():
    table = ints(900, 30, 50, 120).reshape(2, 2)
    expected = delta_interval(lambda t: float(2 * t[1, 1] / (t[1].sum() + t[:, 1].sum())), table)

    assert scores.confusion(table, 1, Z)["f1"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", RATIOS)
def test_bounds_of_macro_averages_are_those_of_the_delta_method(name: str):
    found, expected = scores.confusion(TABLE, None, Z)[name], delta_interval(RATIOS[name], TABLE)

    assert found.value == pytest.approx(expected.value)
    assert (found.lower - found.value, found.upper - found.value) == pytest.approx(
        (expected.lower - expected.value, expected.upper - expected.value), rel=1e-3
    )


def test_a_small_class_that_is_all_right_leaves_the_average_uncertain():
    found = scores.confusion(np.diag(ints(1_000_000, 3)), None, Z)

    for name in RATIOS:
        assert found[name].value == found[name].upper == 1.0
        assert 0.5 < found[name].lower < 0.8
    assert found["accuracy"].lower > 0.99999


def test_a_class_given_up_counts_as_nothing_found():
    """Never predicted: precision 0. Never true: recall 0. One that does not occur is no class."""
    given_up = scores.confusion(ints(50, 10, 0, 0, 0, 0, 0, 0, 0).reshape(3, 3), None, Z)

    assert (given_up["precision"].value, given_up["recall"].value) == pytest.approx((50 / 60 / 2, 0.5))
    assert scores.confusion(ints(50, 0, 10, 0).reshape(2, 2), None, Z)["recall"].value == pytest.approx(50 / 60 / 2)
    assert given_up["precision"].upper - given_up["precision"].lower > 0.5


labelled = st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=2, max_size=60).filter(
    lambda rows: len({positive for _, positive in rows}) == 2
)


@given(labelled, st.lists(st.integers(0, 12), max_size=5))
def test_the_area_of_bins_is_within_its_bound(rows: list[tuple[int, bool]], edges: list[int]):
    score, positive = np.array([s for s, _ in rows]), np.array([y for _, y in rows])
    exact = true_auc(score, positive)

    found, most = binned_auc(np.searchsorted(np.unique(edges), score), positive, 13)
    assert abs(found.value - exact) <= most + 1e-12
    each_its_own, bound = binned_auc(score, positive)
    assert each_its_own.value == pytest.approx(exact, rel=1e-12, abs=1e-15)
    assert (bound == 0) == (not set(score[positive]) & set(score[~positive]))


@given(labelled)
def test_bounds_of_the_area_are_delongs(rows: list[tuple[int, bool]]):
    score, positive = np.array([s for s, _ in rows]), np.array([y for _, y in rows])
    found, _ = binned_auc(score, positive)
    pairs = np.subtract.outer(score[positive], score[~positive])
    wins = (pairs > 0) + (pairs == 0) / 2
    p, n = wins.shape

    assert all(type(each) is float for each in found)
    if min(p, n) == 1:
        assert math.isnan(found.lower)
        assert math.isnan(found.upper)
    else:
        half = Z * math.sqrt(wins.mean(axis=1).var(ddof=1) / p + wins.mean(axis=0).var(ddof=1) / n)
        lower, upper = max(wins.mean() - half, 0.0), min(wins.mean() + half, 1.0)
        assert found[1:] == pytest.approx((lower, upper), abs=1e-7)


def by_equal_count(p: np.ndarray, y: np.ndarray, bins: int = 10) -> tuple[np.ndarray, ...]:
    """The counters of calibration_error, with as many labels a bin."""
    bin_of = np.argsort(np.argsort(p)) * bins // len(p)
    positives = histogram(bin_of, bins, y.astype(np.int64))
    return histogram(bin_of, bins), positives, histogram(bin_of, bins, p), histogram(bin_of, bins, p * (1 - p))


@pytest.mark.parametrize(
    ("n", "simulated", "predicted"),
    [(100, 0.114, 0.112), (500, 0.050, 0.050), (1000, 0.0356, 0.0353), (5000, 0.0161, 0.0158)],
)
def test_calibration_error_of_calibrated_scores(n: int, simulated: float, predicted: float):
    """Scores of Beta(2, 2) in ten bins of equal count make all eight numbers of the table."""
    rng = np.random.default_rng(n)
    runs = 400
    raw, chance, found = [], [], []
    for _ in range(runs):
        p = rng.beta(2, 2, n)
        labels, positives, sums, variances = by_equal_count(p, rng.random(n) < p)
        raw.append(np.abs(sums - positives).sum() / n)
        # Without any positive label the error is the mean score.
        chance.append(sums.sum() / n - scores.calibration_error(labels, positives * 0, sums, variances, Z).value)
        found.append(scores.calibration_error(labels, positives, sums, variances, Z))

    spread = float(np.std(raw))
    assert np.mean(chance) == pytest.approx(predicted, rel=0.01)
    # Four standard errors of ours and as much for the table's.
    assert np.mean(raw) == pytest.approx(simulated, abs=8 * spread / math.sqrt(runs))
    # What is left is the positive half of noise around 0.
    assert np.mean([one.value for one in found]) < 0.55 * spread < 0.2 * np.mean(raw)
    assert np.mean([one.lower > 0 for one in found]) < 0.025


@pytest.mark.parametrize(
    ("truth", "n"),
    [
        (lambda p: 0.5 + (p - 0.5) / 2, 500),  # overconfident
        (lambda p: np.where(p < 0.5, p / 2, 0.5 + p / 2), 500),  # underconfident
        (lambda p: np.minimum(p + 0.05, 1.0), 5000),  # shifted
    ],
)
def test_bounds_of_the_calibration_error_hold_the_true_one(truth: Callable[[np.ndarray], np.ndarray], n: int):
    rng = np.random.default_rng(3)
    low = high = 0
    for _ in range(RUNS // 4):
        p = rng.beta(2, 2, n)
        counters = by_equal_count(p, rng.random(n) < truth(p))
        expected = np.abs(by_equal_count(p, p > 2)[2] - by_equal_count(truth(p), p > 2)[2]).sum() / n
        found = scores.calibration_error(*counters, Z)
        low, high = low + (found.lower > expected), high + (found.upper < expected)

    assert low <= 0.025 * RUNS / 4
    # One bin's own miss is taken for chance now and then; 2.5 % would be nominal.
    assert high <= 0.08 * RUNS / 4


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8))
def test_bounds_of_the_calibration_error_are_those_of_folded_normals(rows: list[tuple[int, float, float]]):
    labels = ints(*(n for n, _, _ in rows))
    positives = ints(*(round(n * y) for n, y, _ in rows))
    p = np.array([p for _, _, p in rows])
    sums, variances = labels * p, labels * p * (1 - p)
    found = scores.calibration_error(labels, positives, sums, variances, Z)
    if not labels.any():
        assert is_undefined(found)
        return

    distance, chance, variance, folding = 0.0, 0.0, 0.0, 0.0
    for n, k, s, v in zip(labels, positives, sums, variances, strict=True):
        sigma = math.sqrt(max(v, k * (n - k) / n)) if n else 0.0
        distance += abs(s - k)
        chance += math.sqrt(2 * v / math.pi)
        if sigma > 0:
            folded = stats.foldnorm(min(abs(s - k) / sigma, 12), scale=sigma)
            variance += folded.var()
            folding += folded.mean() - min(abs(s - k), 12 * sigma)
    n = labels.sum()
    value, half = max(distance - chance, 0.0) / n, Z * math.sqrt(variance) / n
    lower = max((distance - chance) / n - half, 0.0)
    upper = max((distance - folding) / n + half, value)
    assert found == pytest.approx((value, lower, upper), abs=1e-6)
    assert ordered(found, math.inf)
    assert all(type(each) is float for each in found)


@pytest.mark.parametrize("n", [5, 10, 20, 50, 200])
def test_coverage_of_proportions(n: int):
    """Exact, from the binomial law: 95 % on average over all shares, and never below what Wilson is known for."""
    intervals = [scores.proportion(k, n, Z) for k in range(n + 1)]
    shares = np.linspace(0.005, 0.995, 199)
    lower, upper = np.array([one[1:] for one in intervals]).T
    inside = (lower <= shares[:, None]) & (shares[:, None] <= upper)
    covered = np.sum(stats.binom.pmf(np.arange(n + 1), n, shares[:, None]) * inside, axis=1)

    assert 0.945 <= covered.mean() <= 0.965
    assert covered.min() >= 0.83


@pytest.mark.parametrize(
    ("n", "tp", "fp", "fn"), [(50, 0.1, 0.05, 0.05), (100, 0.4, 0.01, 0.02), (1000, 0.02, 0.02, 0.01)]
)
def test_coverage_of_f1(n: int, tp: float, fp: float, fn: float):
    tables = np.random.default_rng(n).multinomial(n, [1 - tp - fp - fn, fn, fp, tp], RUNS).reshape(RUNS, 2, 2)

    covered = coverage(2 * tp / (2 * tp + fp + fn), (scores.confusion(table, 1, Z)["f1"] for table in tables))
    assert 0.935 <= covered <= 0.97


BALANCED = np.array([[0.30, 0.03, 0.02], [0.04, 0.25, 0.03], [0.02, 0.03, 0.28]])
UNEQUAL = np.array(
    [
        [0.600, 0.030, 0.010, 0.010, 0.000],
        [0.040, 0.150, 0.010, 0.000, 0.005],
        [0.010, 0.010, 0.050, 0.005, 0.000],
        [0.010, 0.005, 0.005, 0.020, 0.000],
        [0.000, 0.000, 0.010, 0.000, 0.020],
    ]
)


@pytest.mark.parametrize(
    ("law", "n", "least"), [(BALANCED, 50, 0.91), (BALANCED, 500, 0.935), (UNEQUAL, 200, 0.92), (UNEQUAL, 2000, 0.935)]
)
def test_coverage_of_macro_averages(law: np.ndarray, n: int, least: float):
    tables = np.random.default_rng(n).multinomial(n, law.ravel(), RUNS).reshape(RUNS, *law.shape)
    found = [scores.confusion(table, None, Z) for table in tables]

    for name, ratio in RATIOS.items():
        assert least <= coverage(ratio(law), (one[name] for one in found)) <= 0.97, name


@pytest.mark.parametrize(("n", "rate", "shift", "least"), [(100, 0.3, 1.2, 0.91), (500, 0.3, 1.2, 0.935)])
def test_coverage_of_the_area(n: int, rate: float, shift: float, least: float):
    """Normal scores; DeLong's interval is too short for few positives, as is known."""
    rng = np.random.default_rng(n)
    found = []
    for _ in range(RUNS):
        positive = rng.random(n) < rate
        ranks = np.argsort(np.argsort(rng.normal(size=n) + shift * positive))
        found.append(binned_auc(ranks, positive)[0])

    assert least <= coverage(stats.norm.cdf(shift / math.sqrt(2)), found) <= 0.965


@pytest.mark.parametrize(("n", "least"), [(30, 0.90), (1000, 0.935)])
def test_coverage_of_mean_and_root_mean_square(n: int, least: float):
    """Normal errors; at n = 30 the normal quantile is short, and squares are skewed."""
    e = np.random.default_rng(n).normal(1, 2, (RUNS, n))
    sums = np.stack([(e**power).sum(axis=1) for power in (1, 2, 4)], axis=1)

    assert least <= coverage(1, (scores.mean(s, s2, n, Z) for s, s2, _ in sums)) <= 0.965
    assert least <= coverage(math.sqrt(5), (scores.root_mean_square(s2, s4, n, Z) for _, s2, s4 in sums)) <= 0.965


def test_without_data_nothing_is_defined():
    none = np.zeros(4, np.int64)

    assert is_undefined(scores.proportion(0, 0, Z))
    assert is_undefined(scores.mean(0, 0, 0, Z))
    assert is_undefined(scores.root_mean_square(0, 0, 0, Z))
    assert is_undefined(scores.calibration_error(none, none, none * 0.0, none * 0.0, Z))
    for positive in (0, 1, None):
        assert all(map(is_undefined, scores.confusion(none.reshape(2, 2), positive, Z).values()))
    assert all(map(is_undefined, scores.confusion(np.zeros((0, 0), np.int64), None, Z).values()))


@pytest.mark.parametrize("positives", [ints(0, 0, 0), ints(3, 0, 4), ints(0)])
def test_one_class_has_no_area(positives: np.ndarray):
    labels = ints(3, 0, 4)[: len(positives)]
    area, bound = scores.roc_auc(labels, positives, Z)

    assert is_undefined(area)
    assert math.isnan(bound)


def test_no_positive_class_has_no_recall():
    found = scores.confusion(ints(10, 0, 0, 0).reshape(2, 2), 1, Z)

    assert found["accuracy"].value == 1
    assert all(is_undefined(found[name]) for name in ("precision", "recall", "f1"))


# ---- estimates without labels ----------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=20))
def test_isotonic_regression(drawn: list[tuple[int, int]]):
    labels = ints(*(max(pair) for pair in drawn))
    positives = ints(*(min(pair) for pair in drawn))
    found = scores.isotonic(labels, positives)
    known = np.flatnonzero(labels)
    if not len(known):
        assert np.isnan(found).all()
        return

    expected = optimize.isotonic_regression(positives[known] / labels[known], weights=labels[known]).x
    assert found[known] == pytest.approx(expected, abs=1e-12)
    assert np.all(np.diff(found) >= 0)
    assert (found.min() >= 0, found.max() <= 1) == (True, True)
    # Without labels: as the nearest bin with some, the lower one first.
    nearest = [int(known[np.argmin(np.abs(known - bin_))]) for bin_ in range(len(labels))]
    assert found.tolist() == found[nearest].tolist()


class Model:
    """A calibrated model whose threshold, 0.5, is within a bin: 0.45 < score <= 0.6."""

    edges = np.array([0.1, 0.3, 0.45, 0.6, 0.8])

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def drawn(self, n: int, change: Callable[[np.ndarray], np.ndarray] = np.asarray) -> tuple[np.ndarray, ...]:
        """Scores, what is predicted and what is true; `change` makes the chance of a positive of the score."""
        score = self.rng.beta(0.8, 1.2, n)
        return score, score > 0.5, self.rng.random(n) < change(score)

    def counts(self, score: np.ndarray, predicted: np.ndarray, chosen: np.ndarray | None = None) -> np.ndarray:
        cell = 2 * np.searchsorted(self.edges, score) + predicted
        return np.bincount(cell if chosen is None else cell[chosen], minlength=12).reshape(6, 2)

    def calibration(self, n: int) -> Calibration:
        score, predicted, actual = self.drawn(n)
        return Calibration(self.counts(score, predicted), self.counts(score, predicted, actual))

    def realised(self, score: np.ndarray, predicted: np.ndarray, actual: np.ndarray) -> dict[str, float]:
        table = np.bincount(2 * predicted + actual, minlength=4).reshape(2, 2)
        found = {name: one.value for name, one in scores.confusion(table, 1, Z).items()}
        labels, positives = (self.counts(score, predicted, one).sum(axis=1) for one in (None, actual))
        return found | {"roc_auc": scores.roc_auc(labels, positives, Z)[0].value}


@pytest.mark.parametrize(("known", "n"), [(1_000_000, 500), (2000, 5000)])
def test_estimates_are_those_of_the_realised_qualities_within_their_errors(known: int, n: int):
    """A reference that is smaller than the window makes errors that are larger, and still right."""
    model = Model(seed=known)
    calibration = model.calibration(known)
    z: dict[str, list[float]] = {}
    for _ in range(400):
        rows = model.drawn(n)
        if known < n:
            calibration = model.calibration(known)
        realised, estimated = model.realised(*rows), calibration.estimate(model.counts(*rows[:2]))
        for name, one in estimated.items():
            z.setdefault(name, []).append((realised[name] - one.value) / one.error)

    assert set(z) == {"accuracy", "precision", "recall", "f1", "roc_auc"}
    for name, values in z.items():
        assert abs(np.mean(values)) < 4 / 20, name
        assert 0.85 < np.std(values) < 1.15, name


@pytest.mark.parametrize(("known", "n"), [(1_000_000, 500), (2000, 5000)])
def test_gaps_are_standard_normal_without_concept_drift(known: int, n: int):
    model = Model(seed=known)
    calibration = model.calibration(known)
    z: dict[str, list[float]] = {"accuracy": [], "positives": []}
    for _ in range(RUNS):
        score, predicted, actual = model.drawn(n)
        if known < n:
            calibration = model.calibration(known)
        gaps = calibration.gap(model.counts(score, predicted), model.counts(score, predicted, actual))
        for name, one in gaps.items():
            z[name].append(one.value / one.error)

    for values in z.values():
        assert stats.kstest(values, stats.norm.cdf).pvalue > 0.001


@pytest.mark.parametrize(
    ("change", "name", "sign"),
    [
        (lambda p: 0.1 + 0.8 * p, "accuracy", -1),
        (lambda p: 0.8 * p, "positives", -1),
        (lambda p: 1 - 0.8 * (1 - p), "positives", 1),
    ],
)
def test_gaps_are_large_with_concept_drift(change: Callable[[np.ndarray], np.ndarray], name: str, sign: int):
    model = Model(seed=1)
    score, predicted, actual = model.drawn(5000, change)
    gaps = model.calibration(50_000).gap(model.counts(score, predicted), model.counts(score, predicted, actual))

    assert sign * gaps[name].value > 5 * gaps[name].error


def test_the_error_of_an_accuracy_is_that_of_independent_outcomes():
    """sqrt(sum p (1 - p)) / n, if the reference is large enough."""
    labels = np.array([[10**9, 0], [10**9, 0], [0, 10**9]])
    calibration = Calibration(labels, labels * np.array([[1], [4], [8]]) // 10)
    predictions = np.array([[100, 0], [50, 0], [0, 200]])
    found = calibration.estimate(predictions)["accuracy"]

    assert found.value == pytest.approx((100 * 0.9 + 50 * 0.6 + 200 * 0.8) / 350)
    assert found.error == pytest.approx(math.sqrt(100 * 0.09 + 50 * 0.24 + 200 * 0.16) / 350, rel=1e-4)


def test_a_small_reference_makes_errors_that_more_predictions_do_not_lessen():
    """Both sides are right half of the time by 100 labels each, and these are not the same labels."""
    calibration = Calibration(np.array([[100, 100]]), np.array([[50, 50]]))
    found = calibration.estimate(np.array([[10**9, 10**9]]))["accuracy"]

    assert found == pytest.approx((0.5, math.sqrt(0.25 / 200)), rel=1e-4)


def test_a_side_without_labels_is_like_the_other_side_of_its_bin():
    labels, positives = np.array([[10, 0], [0, 0], [0, 10]]), np.array([[1, 0], [0, 0], [0, 9]])

    assert Calibration(labels, positives).shares.tolist() == [[0.1, 0.1], [0.1, 0.9], [0.9, 0.9]]
    assert Calibration(labels[:2], positives[:2]).shares.tolist() == [[0.1, 0.1], [0.1, 0.1]]


@given(st.lists(st.lists(st.integers(0, 50), min_size=4, max_size=4), min_size=1, max_size=9))
def test_of_its_own_rows_it_expects_what_they_were(drawn: list[list[int]]):
    """Whatever the score says of the prediction: also of one that is always right beside a score of noise."""
    wrong, right = (np.array(drawn)[:, part] for part in (slice(0, 2), slice(2, 4)))
    labels, positives = wrong + right, np.stack([wrong[:, 0], right[:, 1]], axis=1)
    if not labels.any():
        return
    calibration = Calibration(labels, positives)
    (rejected, hits), (missed, false) = right.sum(axis=0), wrong.sum(axis=0)
    realised = scores.confusion(np.array([[rejected, missed], [false, hits]]), 1, Z)
    estimated = calibration.estimate(labels)

    for name, one in realised.items():
        assert estimated[name].value == pytest.approx(one.value, abs=1e-9, nan_ok=True)
    for gap in calibration.gap(labels, positives).values():
        assert gap.value == pytest.approx(0, abs=1e-9)
        assert gap.error > 0


def test_what_cannot_be_estimated_is_undefined():
    labels = np.array([[100, 0], [0, 100]])
    certain = Calibration(labels, labels * [[0], [0]])

    nothing = certain.estimate(labels * 0)
    assert all(math.isnan(one.value) and math.isnan(one.error) for one in nothing.values())
    assert certain.gap(labels * 0, labels * 0) == {}
    found = certain.estimate(labels)
    assert {name for name, one in found.items() if math.isnan(one.value)} == {"recall", "roc_auc"}
    # A hundred labels that agree do not make sure.
    assert 0.001 < found["accuracy"].error < 0.01


def test_one_value_has_no_spread():
    one, root = scores.mean(3, 9, 1, Z), scores.root_mean_square(9, 81, 1, Z)

    assert one.value == root.value == 3
    assert all(math.isnan(each) for each in (*one[1:], *root[1:]))


def test_a_constant_has_none_either():
    assert scores.mean(0.3 * 7, 0.09 * 7, 7, Z) == pytest.approx((0.3, 0.3, 0.3), abs=1e-7)
    assert scores.root_mean_square(0, 0, 7, Z) == (0, 0, 0)


def test_a_root_mean_square_is_not_below_zero():
    """One error among n of none: its bounds are 1 -+ z / 2 times the value."""
    assert scores.root_mean_square(4, 16, 100, 3) == pytest.approx((0.2, 0, 0.5))


@pytest.mark.parametrize("positive", [1, None])
@pytest.mark.parametrize("n", [1, 10, 10**12])
def test_all_right_and_all_wrong(n: int, positive: int | None):
    right = scores.confusion(np.diag(ints(n, n)), positive, Z)
    wrong = scores.confusion(np.diag(ints(n, n))[::-1], positive, Z)

    for name, one in right.items():
        assert one.value == one.upper == 1 > one.lower > 0, name
        low = wrong[name]
        assert low.value == low.lower == 0 < low.upper < 1, name


def test_a_perfect_order_and_a_reversed_one():
    assert scores.roc_auc(ints(5, 0, 5), ints(0, 0, 5), Z) == ((1, 1, 1), 0)
    assert scores.roc_auc(ints(5, 0, 5), ints(5, 0, 0), Z) == ((0, 0, 0), 0)
    # All in one bin: nothing is known.
    assert scores.roc_auc(ints(10), ints(5), Z) == ((0.5, 0.5, 0.5), 0.5)


def test_huge_counts_are_shares_with_narrow_bounds():
    small, most = scores.roc_auc(ints(10, 20, 10), ints(1, 8, 9), Z)
    huge, bound = scores.roc_auc(ints(10, 20, 10) * 10**11, ints(1, 8, 9) * 10**11, Z)
    assert (huge.value, bound) == pytest.approx((small.value, most), rel=1e-12)
    assert 0 < huge.upper - huge.lower < 1e-5

    table = scores.confusion(TABLE * 10**7, None, Z)
    assert all(0 < one.upper - one.lower < 1e-5 for one in table.values())

    labels, positives = ints(10**12, 10**12), ints(10**11, 9 * 10**11)
    error = scores.calibration_error(labels, positives, np.array([2e11, 9e11]), np.array([1.6e11, 0.9e11]), Z)
    assert error == pytest.approx((0.05, 0.05, 0.05), abs=1e-5)


@pytest.mark.parametrize("certain", [ints(0, 7), ints(7, 0)])
def test_scores_without_doubt(certain: Sequence[int]):
    """Scores of 0 and 1: no chance to subtract, right or wrong."""
    found = scores.calibration_error(ints(7, 7), np.asarray(certain), np.array([0.0, 7.0]), np.zeros(2), Z)

    assert len(set(found)) == 1
    assert found.value == (1.0 if certain[0] else 0.0)
