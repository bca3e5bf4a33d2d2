import numpy as np
import pytest

from exporter.catalog import thresholds
from exporter.monitor.learner import Learner
from exporter.monitor.reference import BadReference, Categorical, Numeric
from exporter.monitor.settings import ModelSettings
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


def test_free_text_is_no_category_and_is_not_kept():
    one = learner(4)
    one.observe([{COLOUR: "a", X: 1.0}, {COLOUR: "b" * 10_000, X: 2.0}, {COLOUR: "a", X: 3.0}, {COLOUR: "b", X: 4.0}])

    colour = next(feature for feature in one.build(NOW).features if feature.name == "colour")

    assert (colour.categories, colour.wrong_type) == (("a", "b"), 1)


def test_a_model_that_is_not_to_learn_has_no_learner():
    with pytest.raises(ValueError, match="m is not to learn"):
        Learner(ModelSettings("m"), "1")
