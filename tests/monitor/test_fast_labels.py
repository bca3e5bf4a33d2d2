"""The stream tells the lie of statistics.md 5.2 to whoever reads it naively, and the truth at a fixed maturity."""

from collections.abc import Sequence

import numpy as np
import pytest

from tests.builders import NOW
from tests.monitor.fast_labels import ACCURACY, HOUR_S, PRECISION, Label, Prediction, fast_labels

HOURS = 96
END = NOW + HOURS * HOUR_S
Stream = tuple[Sequence[Prediction], Sequence[Label]]


@pytest.fixture(scope="module")
def stream() -> Stream:
    return fast_labels(300_000, HOURS, NOW, seed=1)


def seen(
    stream: Stream, ages_h: tuple[float, float], *, until: float = END, lag_h: float = np.inf
) -> tuple[float, float, float]:
    """Coverage, accuracy and precision of predictions of these ages, by the labels that came in time."""
    predictions, labels = stream
    truth = {one.id: one for one in labels if one.time <= until}
    cohort = [one for one in predictions if ages_h[0] < (END - one.time) / HOUR_S < ages_h[1]]
    known = [
        (one.prediction, truth[one.id].label)
        for one in cohort
        if one.id in truth and truth[one.id].time - one.time < lag_h * HOUR_S
    ]
    predicted, actual = np.array(known).T
    return len(known) / len(cohort), float(np.mean(predicted == actual)), float(np.mean(actual[predicted == 1]))


@pytest.mark.parametrize(
    ("ages_h", "lag_h", "coverage", "accuracy", "precision"),
    [
        ((0, 2), np.inf, 0.03, 0.70, 1.0),
        ((0, 6), np.inf, 0.04, 0.70, 1.0),
        ((0, 24), np.inf, 0.05, 0.70, 1.0),
        ((0, 48), np.inf, 0.50, 0.953, 0.795),
        ((27, HOURS), 27, 0.953, 0.966, 0.665),
    ],
)
def test_accuracy_seen_depends_on_when_one_looks(
    stream: Stream, ages_h: tuple[float, float], lag_h: float, coverage: float, accuracy: float, precision: float
):
    found = seen(stream, ages_h, lag_h=lag_h)
    tolerance = 0.05 if ages_h[1] <= 24 else 0.005  # of few labels
    assert found[0] == pytest.approx(coverage, abs=0.005)
    assert found[1] == pytest.approx(accuracy, abs=tolerance)
    assert found[2] == pytest.approx(precision, abs=0.02)


def test_all_labels_tell_the_truth(stream: Stream):
    coverage, accuracy, precision = seen(stream, (0, HOURS), until=np.inf)
    assert coverage == 1.0
    assert accuracy == pytest.approx(ACCURACY, abs=0.002)
    assert precision == pytest.approx(PRECISION, abs=0.01)
    assert pytest.approx(0.966, abs=0.0005) == ACCURACY


def test_scores_are_calibrated_and_decide(stream: Stream):
    predictions, labels = stream
    truth = {one.id: one.label for one in labels}
    score = np.array([one.score for one in predictions])
    label = np.array([truth[one.id] for one in predictions])
    predicted = np.array([one.prediction for one in predictions])
    assert score[predicted == 1].min() > score[predicted == 0].max()
    for low, high in ((0.0, 0.02), (0.02, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 1.0)):
        within = (score >= low) & (score < high)
        error = 4 * np.sqrt(np.sum(score[within] * (1 - score[within]))) / within.sum()
        assert label[within].mean() == pytest.approx(score[within].mean(), abs=error)


def test_events_come_in_order_of_time_and_each_prediction_has_one_label(stream: Stream):
    predictions, labels = stream
    for events in stream:
        times = [one.time for one in events]
        assert times == sorted(times)
    assert sorted(one.id for one in predictions) == sorted(one.id for one in labels)
    assert fast_labels(10, 1, NOW, seed=2) == fast_labels(10, 1, NOW, seed=2)
