from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.catalog import thresholds
from exporter.monitor.events import LABEL, FeatureKey
from exporter.monitor.outcomes import ERROR_CLIP, NO_LABEL, PROBABILITY, Outcomes, Task, task_of
from tests.builders import PREDICTION, SCORE, X

DRAWN_SCORES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, -0.1, 1.1, np.nan, np.inf, -np.inf)


def task(bins: int = 20, **columns: Any) -> Task:
    keys = {"predicted": PREDICTION, "actual": LABEL, "score": SCORE}
    found = task_of({keys.get(name) or FeatureKey("score", name): column for name, column in columns.items()}, bins)
    assert found is not None
    assert found.sound
    return found


class TestTasks:
    def test_a_model_without_a_prediction_has_none(self):
        assert task_of({X: np.arange(3.0)}, 20) is None

    def test_two_classes_are_binary_whatever_their_spelling(self):
        found = task(predicted=[0, 1, 1.0, "1", None], actual=["0", 1, 0, [], "1"])
        assert (found.kind, found.classes, found.positive) == ("binary", ("0", "1"), "1")

    @pytest.mark.parametrize(
        ("classes", "positive"),
        [(["no", "yes"], "yes"), ([False, True], "true"), (["cat", "dog"], "dog"), (["-1", "1"], "1")],
    )
    def test_without_a_score_the_positive_class_is_the_usual_one(self, classes: list[Any], positive: str):
        assert task(predicted=classes).positive == positive

    def test_with_a_score_it_is_the_one_that_high_scores_are_given_to(self):
        found = task(predicted=["0", "0", "1", "1"], score=np.array([0.9, np.nan, 0.2, 0.1]))
        assert (found.positive, found.scores) == ("0", ("score",))

    def test_of_scores_by_class_that_of_the_positive_class_counts(self):
        found = task(predicted=["0", "1"], **{"0": np.array([0.9, 0.2]), "1": np.array([0.1, 0.8])})
        assert (found.positive, found.scores) == ("1", ("1",))

    def test_a_class_that_is_only_ever_true_is_one_too(self):
        found = task(predicted=["0", "0", "1"], actual=["0", "2", "1"])
        assert (found.kind, found.classes, found.positive) == ("multiclass", ("0", "1", "2"), None)

    def test_classes_are_ordered_by_number_then_by_name(self):
        assert task(predicted=["b", "10", "9", "a"]).classes == ("9", "10", "a", "b")

    def test_rare_classes_beyond_the_limit_are_other(self):
        names = [f"c{i:02d}" for i in range(30)]
        found = task(predicted=names + names[10:], actual=names + names[10:])
        assert found.classes == tuple(names[10:])
        confusion = Outcomes(found).part(np.array(found.counts), "confusion").reshape(21, 21)
        assert len(found.classes) == thresholds.CLASSES.count
        assert confusion[20, 20] == 10

    def test_scores_of_several_classes_count_only_if_each_has_one(self):
        third = np.full(3, 1 / 3)
        assert task(predicted=["0", "1", "2"], **{"0": third, "1": third, "2": third}).scores == ("0", "1", "2")
        assert task(predicted=["0", "1", "2"], **{"0": third, "1": third}).scores == ()

    def test_a_quantity_is_a_regression_whose_unit_follows_the_spread(self):
        found = task(predicted=np.linspace(0, 5000, 100), actual=np.linspace(0, 5000, 100).tolist())
        assert (found.kind, found.unit) == ("regression", 1.0)
        assert task(predicted=np.linspace(0, 5, 100)).unit == pytest.approx(0.001)
        assert task(predicted=np.full(9, 7.0)).unit == pytest.approx(0.001)
        assert task(predicted=np.zeros(9)).unit == pytest.approx(0.001)

    def test_without_labels_there_is_no_baseline(self):
        assert task(predicted=["0", "1"]).counts == ()
        assert task(predicted=["0", "1"], actual=[None, None]).counts == ()

    def test_rows_without_a_prediction_are_not_in_the_baseline(self):
        found = task(predicted=["0", None, "1"], actual=["0", "1", "0"])
        assert Outcomes(found).joined(np.array(found.counts)) == 2


class TestEdges:
    def test_each_value_has_its_bin_when_there_are_few(self):
        scores = np.round(np.linspace(0, 1, 101), 2)
        found = task(101, predicted=["0", "1"] * 50 + ["0"], actual=["0", "1"] * 50 + ["0"], score=scores)
        labels = Outcomes(found).by_side(np.array(found.counts), "bin_labels").sum(axis=1)
        assert labels.tolist() == [1] * 101

    def test_otherwise_bins_hold_about_as_many_each(self):
        score = np.random.default_rng(0).beta(2, 5, 10_000)
        found = task(predicted=["0", "1"] * 5000, actual=["0", "1"] * 5000, score=score)
        labels = Outcomes(found).by_side(np.array(found.counts), "bin_labels").sum(axis=1)
        assert len(labels) == 20
        assert labels.min() > 400
        assert labels.max() < 600

    def test_a_score_that_is_frequent_has_a_bin_of_its_own(self):
        rng = np.random.default_rng(0)
        score = np.where(rng.random(10_000) < 0.3, 0.5, rng.random(10_000))
        found = task(predicted=["0", "1"] * 5000, actual=["0", "1"] * 5000, score=score)
        labels = Outcomes(found).by_side(np.array(found.counts), "bin_labels").sum(axis=1)
        assert labels.max() == np.sum(score == 0.5)

    @pytest.mark.parametrize("frequent", [(0.0,), (1.0,), (0.5, 0.51, 0.52), (0.0, 0.01, 0.99, 1.0)])
    def test_no_bin_is_empty(self, frequent: tuple[float, ...]):
        rng = np.random.default_rng(0)
        score = np.where(rng.random(10_000) < 0.7, rng.choice(frequent, 10_000), rng.random(10_000).round(2))
        found = task(predicted=["0", "1"] * 5000, actual=["0", "1"] * 5000, score=score)
        labels = Outcomes(found).part(np.array(found.counts), "bin_labels").reshape(-1, 2).sum(axis=1)
        assert labels.min() > 0
        assert labels.sum() == 10_000
        assert all(np.sum(score == one) in labels for one in frequent)

    def test_scores_that_are_no_probabilities_make_no_bins(self):
        found = task(predicted=["0", "1"], actual=["0", "1"], score=np.array([-3.0, 7.0]))
        assert found.edges == ()
        assert Outcomes(found).joined(np.array(found.counts)) == 2
        assert Outcomes(found).total(np.array(found.counts), "scored") == 0


class TestSums:
    def test_are_those_of_plain_arithmetic_for_a_binary_model(self):
        rng = np.random.default_rng(0)
        score = rng.random(5000)
        truth = (rng.random(5000) < score).astype(int)
        found = task(predicted=(score > 0.5).astype(int).tolist(), actual=truth.tolist(), score=score)
        outcomes, counts = Outcomes(found), np.array(found.counts)
        assert outcomes.part(counts, "confusion").reshape(3, 3)[:2, :2].tolist() == [
            [np.sum((score <= 0.5) & (truth == 0)), np.sum((score <= 0.5) & (truth == 1))],
            [np.sum((score > 0.5) & (truth == 0)), np.sum((score > 0.5) & (truth == 1))],
        ]
        assert outcomes.total(counts, "bin_scores") * PROBABILITY == pytest.approx(score.sum(), abs=5000 * PROBABILITY)
        losses = -np.log(np.where(truth == 1, score, 1 - score))
        assert outcomes.total(counts, "losses") * 1e-6 == pytest.approx(losses.sum(), abs=5000 * 1e-6)

    @given(st.lists(st.tuples(st.sampled_from(DRAWN_SCORES), st.integers(0, 2), st.integers(-2, 2)), max_size=30))
    def test_by_bin_and_side_are_of_every_usable_score_and_of_labels_where_there_are_any(
        self, drawn: list[tuple[float, int, int]]
    ):
        """Bins end at 0.2 and 0.5; class 1 is the positive one, 2 is neither."""
        outcomes = Outcomes(Task("binary", ("0", "1"), "1", ("score",), (0.2, 0.5)))
        score, predicted, actual = (np.array([row[i] for row in drawn], [float, int, int][i]) for i in range(3))
        sums = np.zeros((1, outcomes.width), np.int64)
        group = np.zeros(len(drawn), np.int64)
        outcomes.expect(sums, group, predicted, score[:, np.newaxis])
        outcomes.add(sums, group, predicted, actual, score[:, np.newaxis])
        expected: dict[str, Counter[tuple[int, int]]] = {
            name: Counter() for name in ("bin_predictions", "bin_labels", "bin_positives")
        }
        for given_score, said, truth in drawn:
            if 0 <= given_score <= 1:
                cell = (0 if given_score <= 0.2 else 1 if given_score <= 0.5 else 2), int(said == 1)
                expected["bin_predictions"][cell] += 1
                expected["bin_labels"][cell] += truth >= 0
                expected["bin_positives"][cell] += truth == 1
        for name, counts in expected.items():
            found = outcomes.by_side(sums[0], name)
            assert found.shape == (3, 2)
            assert {cell: n for cell, n in np.ndenumerate(found) if n} == {cell: n for cell, n in counts.items() if n}

    @given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=1, max_size=30))
    def test_of_fourth_powers_are_exact(self, pairs: list[tuple[float, float]]):
        outcomes = Outcomes(Task("regression", unit=1.0))
        sums = np.zeros((1, outcomes.width), np.int64)
        predicted, actual = (np.array(part) for part in zip(*pairs, strict=True))
        outcomes.add(sums, np.zeros(len(pairs), np.int64), predicted, actual, np.zeros((len(pairs), 0)))
        units = [min(abs(round(a - b)), ERROR_CLIP) for a, b in pairs]
        assert outcomes.fourths(sums[0]) == sum(unit**4 for unit in units)
        assert outcomes.total(sums[0], "squares") == sum(unit**2 for unit in units)
        assert outcomes.total(sums[0], "clipped") == sum(abs(round(a - b)) > ERROR_CLIP for a, b in pairs)

    def test_an_error_too_large_for_a_number_is_clipped(self):
        outcomes = Outcomes(Task("regression", unit=1e-300))
        sums = np.zeros((1, outcomes.width), np.int64)
        outcomes.add(sums, np.zeros(1, np.int64), np.array([1e300]), np.array([-1e300]), np.zeros((1, 0)))
        assert outcomes.total(sums[0], "over") == ERROR_CLIP

    def test_a_row_without_a_label_is_a_prediction_and_no_more(self):
        outcomes = Outcomes(Task("binary", ("0", "1"), "1"))
        sums = np.zeros((1, outcomes.width), np.int64)
        outcomes.add(sums, np.zeros(1, np.int64), np.array([1]), np.array([NO_LABEL]), np.zeros((1, 0)))
        assert (outcomes.total(sums[0], "predictions"), outcomes.joined(sums[0])) == (1, 0)


@pytest.mark.parametrize(
    "broken",
    [
        Task("binary", ("0", "1", "2"), "1"),
        Task("binary", ("0", "1"), "2"),
        Task("binary", ("0", "0"), "0"),
        Task("binary", ("0", "1"), "1", ("a", "b")),
        Task("binary", ("0", "1"), "1", ("score",), (0.5, 0.5)),
        Task("multiclass"),
        Task("multiclass", ("a", "b", "c"), scores=("a",)),
        Task("multiclass", tuple("abcdefghijklmnopqrstuvwxyz")),
        Task("regression", ("a",)),
        Task("regression", unit=0.0),
        Task("regression", counts=(1, 2)),
        Task("regression", counts=(-1,) * 10),
    ],
)
def test_what_does_not_fit_together_is_not_sound(broken: Task):
    assert not broken.sound
