import numpy as np
import pytest

from exporter.catalog import thresholds
from exporter.monitor.features import BadReference, Categorical, Numeric
from exporter.monitor.learner import Learner
from exporter.monitor.reference import as_number_column
from exporter.monitor.settings import ModelSettings
from exporter.monitor.state import BLOCK_ROWS
from tests.builders import COLOUR, NOW, PREDICTION, X, a_reference, an_input


def learner(needed: int = 4, categorical: frozenset[str] = frozenset()) -> Learner:
    return Learner(ModelSettings("m", learn=needed, learn_categorical=categorical), "7")


def test_a_learned_reference_is_the_one_built_from_the_same_rows():
    rng = np.random.default_rng(0)
    x, colours = rng.normal(size=600), rng.choice(["a", "b"], 600).tolist()
    one = learner(500)

    for start in range(0, 600, 7):
        one.observe([{X: float(x[i]), COLOUR: colours[i]} for i in range(start, min(start + 7, 600))])

    assert one.complete
    assert one.seen == 500
    built = one.build(NOW)
    assert built == a_reference({X: x[:500], COLOUR: colours[:500]}, model="m", version="7", created=NOW)


def test_progress_until_enough_was_seen():
    one = learner(4)
    one.observe([{X: 1.0}] * 3)
    assert (one.seen, one.needed, one.complete) == (3, 4, False)

    one.observe([{X: 2.0}] * 9)
    assert (one.seen, one.complete) == (4, True)


def test_a_feature_that_some_rows_lack_is_missing_there():
    one = learner(4)
    one.observe([{X: 1.0}, {}, {X: 2.0, an_input("late"): 5.0}])
    one.observe([{an_input("late"): None}])

    features = {feature.name: feature for feature in one.build(NOW).features}

    assert {name: feature.missing for name, feature in features.items()} == {"x": 2, "late": 3}
    assert {name: feature.values for name, feature in features.items()} == {"x": 2, "late": 1}


def test_features_without_a_usable_value_are_left_out_and_none_at_all_is_an_error():
    one = learner(2)
    one.observe([{X: 1.0, an_input("list"): [1]}, {X: 2.0, an_input("list"): {}}])
    assert [feature.name for feature in one.build(NOW).features] == ["x"]

    empty = learner(2)
    empty.observe([{an_input("list"): [1]}] * 2)
    with pytest.raises(BadReference, match="no feature"):
        empty.build(NOW)


def test_types_are_inferred_unless_they_are_named():
    one = learner(4, categorical=frozenset({"code"}))
    rows = [{X: i / 2, an_input("code"): i, PREDICTION: i % 2, COLOUR: "a"} for i in range(4)]
    one.observe(rows)

    types = {feature.name: type(feature) for feature in one.build(NOW).features}

    assert types == {"x": Numeric, "code": Categorical, "prediction": Categorical, "colour": Categorical}


def test_names_in_events_cannot_grow_memory():
    limit = thresholds.LEARN_FEATURES_LIMIT.count
    one = learner(10_000)

    for start in range(0, 10_000, 100):
        one.observe([{an_input(f"f{i}"): 1.0} for i in range(start, start + 100)])

    assert len(one.build(NOW).features) == limit


def test_names_of_before_a_restart_count_as_well():
    limit = thresholds.LEARN_FEATURES_LIMIT.count
    one, again = learner(1000), learner(1000)
    one.observe([{an_input(f"f{i}"): 1.0} for i in range(limit - 1)])
    again.load(one.seen, [one.piece(piece) for piece in sorted(one.pieces())])

    again.observe([{an_input("f0"): 2.0, an_input("last"): 1.0, an_input("more"): 1.0}])

    names = [feature.name for feature in again.build(NOW).features]
    assert len(names) == limit
    assert names[-1] == "last"


def test_free_text_is_no_category_and_is_not_kept():
    one = learner(4)
    one.observe([{COLOUR: "a", X: 1.0}, {COLOUR: "b" * 10_000, X: 2.0}, {COLOUR: "a", X: 3.0}, {COLOUR: "b", X: 4.0}])

    colour = next(feature for feature in one.build(NOW).features if feature.name == "colour")

    assert (colour.categories, colour.wrong_type) == (("a", "b"), 1)


def test_what_is_kept_of_a_value_is_what_decides():
    """Rows are packed in blocks: no value may come out of them as another."""
    rng = np.random.default_rng(0)
    odd = [None, True, False, 0, 1, -1, 1.0, 0.5, -0.0, np.nan, np.inf, "", "1", "True", "é", "\u2028", "x" * 256]
    odd += [2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**300]
    refused = ["x" * 257, "\ud800", [], {}, [1], b"x", (), np.int64(1)]
    values = rng.choice(np.array([*odd, *refused], object), 3 * BLOCK_ROWS + 5).tolist()
    # Nearly all numbers, and nearly all categories.
    numbers = [value if i % 30 == 0 else i / 7 for i, value in enumerate(values)]
    one = learner(len(values), categorical=frozenset({"colour"}))

    one.observe([{COLOUR: value, X: number} for value, number in zip(values, numbers, strict=True)])

    told, as_columns = [[value if plain(value) else () for value in part] for part in (values, numbers)]
    expected = a_reference({COLOUR: told, X: as_number_column(as_columns)}, model="m", version="7", created=NOW)
    assert one.build(NOW) == expected
    assert one.build(NOW) == expected, "building changes nothing"


def plain(value: object) -> bool:
    return isinstance(value, int | float | None) or (isinstance(value, str) and len(value) <= 256 and value != "\ud800")


def test_blocks_are_told_until_they_are_full():
    one = learner(3 * BLOCK_ROWS)
    assert (one.pieces(), one.take_changed()) == (set(), set())

    told = []
    for rows in (1, BLOCK_ROWS - 1, 5, 2 * BLOCK_ROWS):
        one.observe([{X: 1.0}] * rows)
        told.append(one.take_changed())

    assert told == [{0}, {0}, {1}, {1, 2}]
    assert one.take_changed() == set()
    assert one.pieces() == {0, 1, 2}


@pytest.mark.parametrize("rows", [0, 1, BLOCK_ROWS, BLOCK_ROWS + 1, 2 * BLOCK_ROWS])
def test_a_learner_goes_on_from_its_blocks(rows: int):
    one, again = learner(1000), learner(1000)
    first = [{X: float(i), an_input(f"f{i % 3}"): "a"} for i in range(rows)]
    rest = [{COLOUR: "red", X: i / 2} for i in range(1000 - rows)]
    one.observe(first)

    again.load(one.seen, [one.piece(piece) for piece in sorted(one.pieces())])

    for each in (one, again):
        each.observe(rest)
    assert again.build(NOW) == one.build(NOW)


def test_a_model_that_is_not_to_learn_has_no_learner():
    with pytest.raises(ValueError, match="m is not to learn"):
        Learner(ModelSettings("m"), "1")
