"""Rows that wait while references change: what codes stand for stays the same."""

import numpy as np
import pytest

from exporter.monitor.events import LABEL, MISSING, NON_FINITE_NUMBER, UNSEEN, WRONG_TYPE, WRONG_TYPE_NUMBER
from exporter.monitor.rows import LABELS, Layout, answers, layout_of, unlabelled
from tests.builders import MODEL, PREDICTION, SCORE, X, a_batch, a_fleet, a_reference

CLASSES = Layout(("0", "1"), ("0", "1"), ("score",))


def schema_of(**columns: object):
    known = {PREDICTION: ["0", "1"] * 50, SCORE: np.linspace(0, 1, 100), LABEL: ["0", "1"] * 50}
    return a_fleet(a_reference({**known, **columns})).schema(MODEL)  # type: ignore[dict-item]


def test_a_layout_names_classes_by_code_and_the_scores():
    layout = layout_of(schema_of())
    assert layout == CLASSES
    assert layout.dtype.itemsize == 8 + 8 + 2 + 8 + 8


def test_of_a_regression_nothing_has_a_name():
    schema = a_fleet(a_reference({PREDICTION: np.linspace(0, 1, 500), LABEL: np.linspace(0, 1, 500)})).schema(MODEL)
    assert layout_of(schema) == Layout(None, None, ())


def predictions(layout: Layout, *predicted: float, score: float = 0.25):
    table = np.zeros(len(predicted), layout.dtype)
    table["id"], table["version"], table["predicted"] = 7, 3, predicted
    for name in (name for name in layout.dtype.names or () if name.startswith("score")):
        table[name] = score
    return table


def test_predictions_move_to_other_codes_and_scores():
    other = Layout(("1", "new", "0"), ("1",), ("more", "score"))
    moved = CLASSES.moved(predictions(CLASSES, 0, 1, UNSEEN), other)
    assert moved["predicted"].tolist() == [2, 0, UNSEEN]
    assert moved["score1"].tolist() == [0.25] * 3
    assert np.isnan(moved["score0"]).all()
    assert (moved["id"].tolist(), moved["version"].tolist()) == ([7] * 3, [3] * 3)


def test_a_class_that_is_gone_is_unseen():
    moved = CLASSES.moved(predictions(CLASSES, 0, 1), Layout(("1",), ("1",), ()))
    assert moved["predicted"].tolist() == [UNSEEN, 0]


def test_labels_move_likewise():
    table = np.zeros(5, LABELS)
    table["label"] = [0, 1, UNSEEN, WRONG_TYPE, MISSING]
    moved = CLASSES.moved_labels(table, Layout((), ("1", "0"), ()))
    assert moved["label"].tolist() == [1, 0, UNSEEN, WRONG_TYPE, MISSING]


def test_between_classes_and_numbers_nothing_can_be_moved():
    numbers = Layout(None, None, ())
    assert np.isnan(CLASSES.moved(predictions(CLASSES, 0, 1), numbers)["predicted"]).all()
    assert numbers.moved(predictions(numbers, 0.5), CLASSES)["predicted"].tolist() == [UNSEEN]
    assert numbers.moved(predictions(numbers, 0.5), numbers)["predicted"].tolist() == [0.5]


def test_failed_and_impossible_predictions_are_no_answers():
    batch = a_batch(schema_of(), {PREDICTION: ["0", "mauve", None], SCORE: [0.1] * 3})
    codes, waits = answers(batch, slice(None))
    assert codes.tolist() == [0, UNSEEN, MISSING]
    assert waits.tolist() == [True, True, False]


@pytest.mark.parametrize("numbers", [False, True])
def test_who_brought_a_label(numbers: bool):
    if numbers:
        known = a_reference({PREDICTION: np.linspace(0, 1, 500), LABEL: np.linspace(0, 1, 500), X: np.zeros(500)})
        batch = a_batch(a_fleet(known).schema(MODEL), rows=3)
        batch.numeric[:, batch.schema.numeric.index(LABEL)] = [0.5, np.nan, WRONG_TYPE_NUMBER]
        batch.numeric[:, batch.schema.numeric.index(PREDICTION)] = [0.5, np.nan, NON_FINITE_NUMBER]
        assert answers(batch, slice(None))[1].tolist() == [True, False, False]
    else:
        batch = a_batch(schema_of(), rows=3)
        batch.codes[:, batch.schema.categorical.index(LABEL)] = [1, MISSING, WRONG_TYPE]
    assert unlabelled(batch, slice(None)).tolist() == [False, True, False]
    assert unlabelled(batch, np.array([1])).tolist() == [True]
