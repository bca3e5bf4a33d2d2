"""What came of predictions whose truth is known, as one vector of integers that add up.

Every quality is a read-out of these sums: over panes, replicas and time, and of the reference's own rows, which make
the baseline. Probabilities are summed in billionths, losses in millionths, errors of a regression in a unit that the
reference fixes; what is clipped is counted or bounded by a constant.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from exporter.catalog import thresholds
from exporter.monitor.events import LABEL, OUTPUT, Column, FeatureKey, as_number_column, text_of
from exporter.stats import Counts, Floats
from exporter.stats.bins import cell_counts, choose_bins, choose_knots

Kind: TypeAlias = Literal["binary", "multiclass", "regression"]

OTHER = "other"
"""Name of whatever is none of the classes, as a prediction or as a label."""

NO_LABEL, INVALID_LABEL = -1, -2
"""Class numbers of a row without a label, and of one whose label is of the wrong type."""

PROBABILITY = 1e-9
LOSS = 1e-6
LOSS_CLIP = 1e-7
"""Probability below which a loss no longer grows: one certain mistake must not be all that counts."""
ERROR_CLIP = 2**17
"""Units beyond which an error of a regression no longer grows, about 100 times the spread of the reference."""
_HALF = 2**17
"""Squares of clipped errors are squared in halves of 17 bits: three sums, each exact, that hold 500 million rows."""

_POSITIVE = ("1", "true", "yes", "positive")


class Task(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model's predictions are, and how they are scored.

    `scores` names the score of the positive class (binary) or of each class, if there are any; `edges` are the upper
    edges of all bins of that score but the last. `unit` is what errors of a regression are counted in. `counts` are the
    sums over the rows that the reference was built from; empty without labels. The baseline and the calibration map of
    a binary model are functions of them, so a reference that stores the counts stores both.
    """

    kind: Kind
    classes: tuple[str, ...] = ()
    positive: str | None = None
    scores: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()
    unit: float = 1.0
    counts: tuple[int, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether its parts fit together."""
        classes, scores = len(self.classes), len(self.scores)
        fits = {
            "binary": classes == 2 and self.positive in self.classes and scores <= 1,
            "multiclass": classes > 0 and scores in (0, classes),
            "regression": classes == scores == 0 and 0 < self.unit < np.inf,
        }[self.kind]
        return (
            fits
            and len(set(self.classes)) == classes <= thresholds.CLASSES.count
            and all(left < right for left, right in pairwise(self.edges))
            and (not self.counts or (len(self.counts) == Outcomes(self).width and min(self.counts) >= 0))
        )


def task_of(columns: Mapping[FeatureKey, Column], bins: int) -> Task | None:
    """The task that training data tell of, with its counts if they have labels; None without a prediction."""
    predicted, actual = columns.get(OUTPUT), columns.get(LABEL)
    if predicted is None:
        return None
    scores = {key.name: one for key, one in columns.items() if key.kind == "score" and isinstance(one, np.ndarray)}
    numbers: NDArray[Any]
    truth: NDArray[Any]
    if isinstance(predicted, np.ndarray):
        labels = np.full(len(predicted), np.nan) if actual is None else as_number_column(actual)
        task = regression(labels if np.isfinite(labels).any() else predicted)
        numbers, truth = predicted, labels
        answered = np.isfinite(predicted)
    else:
        texts = list(map(text_of, predicted))
        truths = [None] * len(texts) if actual is None else list(map(text_of, actual))
        task = classification(texts, truths, scores, bins)
        numbers, truth = (_numbers(part, task.classes) for part in (texts, truths))
        answered = numbers >= 0
    if actual is None or not answered.any():
        return task
    outcomes = Outcomes(task)
    sums = np.zeros((1, outcomes.width), np.int64)
    table = np.column_stack([np.zeros((len(numbers), 0)), *(scores[name] for name in task.scores)])
    group = np.zeros(int(answered.sum()), np.int64)
    rows = numbers[answered], truth[answered], table[answered]
    outcomes.expect(sums, group, rows[0], rows[2])
    outcomes.add(sums, group, *rows)
    return msgspec.structs.replace(task, counts=tuple(sums[0].tolist())) if outcomes.joined(sums[0]) else task


def classification(
    predicted: Sequence[str | None], actual: Sequence[str | None], scores: Mapping[str, Floats], bins: int
) -> Task:
    """The task of a model that predicts classes; `predicted`, `actual` and each of the scores have an element a row.

    With two classes and a single score, the positive class is the one that is predicted of higher scores.
    """
    often = Counter(one for one in (*predicted, *actual) if one is not None)
    most = sorted(often, key=lambda name: (-often[name], name))[: thresholds.CLASSES.count]
    classes = tuple(sorted(most, key=_natural))
    if len(classes) != 2:
        each = tuple(name for name in classes if name in scores)
        return Task("multiclass", classes, scores=each if len(each) == len(classes) else ())
    positive = next((name for name in classes if name.lower() in _POSITIVE), classes[-1])
    single = next(iter(scores)) if len(scores) == 1 and not scores.keys() & set(classes) else None
    if single is not None:
        score = scores[single]
        first, second = (
            score[np.array([one == name for one in predicted]) & _is_probability(score)] for name in classes
        )
        if len(first) and len(second):
            positive = classes[bool(first.mean() < second.mean())]
    name = positive if single is None else single
    if name not in scores:
        return Task("binary", classes, positive)
    return Task("binary", classes, positive, (name,), _edges(scores[name], bins))


def regression(values: Floats) -> Task:
    """The task of a model that predicts quantities, of which `values` are a sample."""
    finite = values[np.isfinite(values)]
    spreads = (np.ptp(np.quantile(finite, (0.05, 0.95))), np.ptp(finite), np.abs(finite).max(), 1.0)
    spread = next(float(one) for one in spreads if one > 0)
    return Task("regression", unit=10.0 ** (math.floor(math.log10(spread)) - 3))


class Outcomes:
    """The vector of a task: which sums there are, where they lie, and how rows are added."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.binned = task.kind == "binary" and bool(task.scores)
        """Whether predictions are counted by bin of their score."""
        classes, bins = len(task.classes) + 1, len(task.edges) + 1
        sizes = {"predictions": 1, "invalid": 1}
        if task.kind == "regression":
            sizes |= {"labels": 1, "over": 1, "under": 1, "squares": 1, "fourths": 3, "clipped": 1}
        else:
            sizes["confusion"] = classes * classes
            if task.scores:
                sizes |= dict.fromkeys(("scored", "losses", "squared_losses"), 1)
            if self.binned:
                sizes["squared_briers"] = 1
                sizes |= dict.fromkeys(("bin_predictions", "bin_labels", "bin_positives"), 2 * bins)
                sizes |= dict.fromkeys(("bin_scores", "bin_squares", "bin_positive_scores"), bins)
        ends = np.cumsum(list(sizes.values())).tolist()
        self._places = {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}
        self._edges = np.array(task.edges)
        self._positive = task.classes.index(task.positive) if task.positive in task.classes else -1
        self.width = int(ends[-1])

    def part(self, counts: Counts, name: str) -> Counts:
        """The sums of this name, `counts[..., width]`."""
        return counts[..., self._places[name]]

    def total(self, counts: Counts, name: str) -> int:
        """The sum of all of this name."""
        return int(self.part(counts, name).sum())

    def by_side(self, counts: Counts, name: str) -> Counts:
        """Predictions, labels or positives by bin and by side, `[..., bins, 2]`; side 1 predicts the positive class."""
        sums = self.part(counts, name)
        return sums.reshape(*sums.shape[:-1], -1, 2)

    def joined(self, counts: Counts) -> int:
        """How many predictions have a label."""
        return self.total(counts, "labels" if self.task.kind == "regression" else "confusion")

    def fourths(self, counts: Counts) -> int:
        """Sum of the fourth powers of errors, in units."""
        high, mixed, low = self.part(counts, "fourths").tolist()
        return int(high * _HALF * _HALF + 2 * mixed * _HALF + low)

    def expect(self, sums: Counts, group: Counts, predicted: NDArray[Any], scores: Floats) -> None:
        """Add predictions, whatever came of them, to what is to be expected of `sums[groups, width]`."""
        if self.binned:
            cell = self._cells(predicted, scores[:, 0])
            usable = cell >= 0
            if usable.all():
                self._add(sums, "bin_predictions", group, cell)
            else:
                self._add(sums, "bin_predictions", group[usable], cell[usable])

    def add(self, sums: Counts, group: Counts, predicted: NDArray[Any], actual: NDArray[Any], scores: Floats) -> None:
        """Add predictions that could have a label by now to what came of `sums[groups, width]`.

        `predicted[n]` and `actual[n]` are class numbers (`len(classes)` is other) or, of a regression, quantities
        with the sentinels of `events`; `scores[n, len(task.scores)]`.
        """
        invalid = np.isinf(actual) if self.task.kind == "regression" else actual == INVALID_LABEL
        known = np.isfinite(actual) if self.task.kind == "regression" else actual >= 0
        self._add(sums, "predictions", group)
        if invalid.any():
            self._add(sums, "invalid", group[invalid])
        if not known.any():
            return
        group, predicted, actual, scores = group[known], predicted[known], actual[known], scores[known]
        if self.task.kind == "regression":
            self._add_errors(sums, group, predicted - actual)
            return
        classes = len(self.task.classes) + 1
        self._add(sums, "confusion", group, predicted * classes + actual)
        if self.binned:
            self._add_scores(sums, group, self._cells(predicted, scores[:, 0]), actual, scores[:, 0])
        elif self.task.scores:
            rows = np.flatnonzero(actual < len(self.task.classes))
            self._add_losses(sums, group[rows], scores[rows, actual[rows]])

    def _add_errors(self, sums: Counts, group: Counts, error: Floats) -> None:
        with np.errstate(over="ignore"):
            units = np.rint(error / self.task.unit)
        clipped = np.abs(units) > ERROR_CLIP
        units = np.clip(units, -ERROR_CLIP, ERROR_CLIP)
        squares = units**2
        high, low = np.divmod(squares, _HALF)
        self._add(sums, "labels", group)
        self._add(sums, "over", group, weights=np.maximum(units, 0))
        self._add(sums, "under", group, weights=np.maximum(-units, 0))
        self._add(sums, "squares", group, weights=squares)
        for column, products in enumerate((high * high, high * low, low * low)):
            self._add(sums, "fourths", group, np.full(len(group), column), products)
        self._add(sums, "clipped", group[clipped])

    def _cells(self, predicted: Counts, score: Floats) -> Counts:
        """Bin of the score and side of the prediction, [n]; -1 where the score is no probability."""
        bin_ = np.searchsorted(self._edges, score)  # bins are closed above
        cell: Counts = 2 * bin_ + (predicted == self._positive)
        usable = _is_probability(score)
        if not usable.all():
            cell[~usable] = -1
        return cell

    def _add_scores(self, sums: Counts, group: Counts, cell: Counts, actual: Counts, score: Floats) -> None:
        """Sums by bin of the score. Where the class is neither of the two, it is not the positive one."""
        usable = cell >= 0
        group, cell, actual, score = group[usable], cell[usable], actual[usable], score[usable]
        positive = actual == self._positive
        self._add_losses(sums, group, np.where(positive, score, 1 - score))
        brier = (score - positive) ** 2
        self._add(sums, "squared_briers", group, weights=np.rint(brier**2 / PROBABILITY))
        bin_ = cell // 2
        billionths = np.rint(score / PROBABILITY)
        self._add(sums, "bin_labels", group, cell)
        self._add(sums, "bin_positives", group[positive], cell[positive])
        self._add(sums, "bin_scores", group, bin_, billionths)
        self._add(sums, "bin_squares", group, bin_, np.rint(score**2 / PROBABILITY))
        self._add(sums, "bin_positive_scores", group[positive], bin_[positive], billionths[positive])

    def _add_losses(self, sums: Counts, group: Counts, of_truth: Floats) -> None:
        """Losses of the probabilities that were given to what was true."""
        usable = _is_probability(of_truth)
        loss = -np.log(np.maximum(of_truth[usable], LOSS_CLIP))
        self._add(sums, "scored", group[usable])
        self._add(sums, "losses", group[usable], weights=np.rint(loss / LOSS))
        self._add(sums, "squared_losses", group[usable], weights=np.rint(loss**2 / LOSS))

    def _add(
        self, sums: Counts, name: str, group: Counts, column: Counts | None = None, weights: Floats | None = None
    ) -> None:
        """Add ones, or `weights`, by group and column. Exact: doubles hold integers up to 2^53."""
        place = self._places[name]
        columns, groups = place.stop - place.start, len(sums)
        index = group if column is None else group * columns + column
        found = np.bincount(index, weights=weights, minlength=groups * columns)
        sums[:, place] += found.reshape(groups, columns).astype(np.int64)


def _edges(score: Floats, bins: int) -> tuple[float, ...]:
    """Edges of quantile bins of a score; a bin a value where it has no more values than bins."""
    usable = np.sort(score[_is_probability(score)])
    if not len(usable):
        return ()
    knots = choose_knots(usable, thresholds.KNOTS.count)
    cells = cell_counts(usable, knots)
    of_cell = choose_bins(cells, bins, bins)
    ends = np.flatnonzero(np.diff(of_cell))
    # Between two frequent values lies a bin that may be empty: it is of no use, and joins the next one.
    held = np.cumsum(np.bincount(of_cell, weights=cells))
    used = (np.diff(held, prepend=0.0) > 0)[:-1] & (held[:-1] < held[-1])
    # A bin that ends between two knots is open at the next one.
    after = knots[np.minimum(ends // 2, len(knots) - 1)]
    edges = np.where(ends % 2 == 1, after, np.nextafter(after, -np.inf))
    return tuple(edges[used].tolist())


def _numbers(names: Sequence[str | None], classes: Sequence[str]) -> Counts:
    """Class numbers of names; NO_LABEL where there is none."""
    number: dict[str | None, int] = {name: place for place, name in enumerate(classes)} | {None: NO_LABEL}
    return np.array([number.get(name, len(classes)) for name in names], np.int64)


def _is_probability(score: Floats) -> NDArray[np.bool_]:
    return (score >= 0) & (score <= 1)


def _natural(name: str) -> tuple[int, float, str]:
    """Numbers by value before texts by letter."""
    try:
        return (0, float(name), name)
    except ValueError:
        return (1, 0.0, name)
