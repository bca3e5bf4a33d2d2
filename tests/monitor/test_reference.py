import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.monitor import reference
from exporter.monitor.events import NON_FINITE_NUMBER, WRONG_TYPE_NUMBER, FeatureKey
from exporter.monitor.features import BadReference, Categorical, Numeric
from exporter.monitor.reference import Columns, Reference, Resolution
from tests.builders import COLOUR, MODEL, NOW, PREDICTION, SCORE, X, a_reference, an_input, columns_of


def built(key: FeatureKey, column: Any, **options: Any) -> Numeric | Categorical:
    (feature,) = a_reference({key: column}, **options).features
    return feature


def edited(change: dict[str, Any], *, of: Reference | None = None, feature: dict[str, Any] | None = None) -> bytes:
    """A document with something changed by hand but a hash that fits, as a foreign tool might write it."""
    raw = json.loads(reference.encode(of or a_reference()))
    raw.update(change)
    raw["features"][0].update(feature or {})
    parsed = msgspec.json.decode(json.dumps(raw), type=Reference)
    return reference.encode(msgspec.structs.replace(parsed, id=reference._content_hash(parsed)))


# ---- the document ----------------------------------------------------------------------------------------------------


def test_a_document_is_read_back_as_it_was_written():
    columns = columns_of(500) | {an_input("odd"): np.array([np.nan, np.inf, -np.inf, 1.5, 2.5] * 100)}
    mapping = Columns(prediction="y", scores={"score": "p"}, timestamp="at", timestamp_format="%Y")
    one = reference.build(columns, model="m", version="v", created=NOW, mapping=mapping)

    assert reference.decode(reference.encode(one)) == one


def test_the_id_is_twelve_hex_digits_of_the_content():
    one = a_reference()

    assert len(one.id) == 12
    assert int(one.id, 16) >= 0
    assert a_reference(created=NOW).id == one.id, "not of the moment of building"
    assert a_reference(version="2").id != one.id
    assert a_reference(rows=1999).id != one.id


@given(st.permutations(range(60)))
def test_the_order_of_rows_does_not_matter(order: list[int]):
    columns = {
        X: np.round(np.random.default_rng(0).normal(size=60), 1),
        COLOUR: [f"c{i % 7}" for i in range(60)],
        an_input("mixed"): [None, 3, "3", 2.5, "x", []] * 10,
    }
    shuffled = {key: column[order] if isinstance(column, np.ndarray) else [column[i] for i in order]
                for key, column in columns.items()}  # fmt: skip

    small = Resolution(knots=5, top_categories=3)
    assert a_reference(shuffled, resolution=small).id == a_reference(columns, resolution=small).id


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", "not a reference"),
        (b"[]", "not a reference"),
        (b"reference", "not a reference"),
        (b'{"schema": 3, "\xff": 1}', "not a reference"),
        (b'{"schema": 3, "a": ' + b"[" * 100_000, "not a reference"),
        (b"{}", "schema 3 expected, found none"),
        (b'{"schema": 1}', "schema 3 expected, found 1"),
        (b'{"schema": "2"}', "schema 3 expected"),
        (b'{"schema": 3}', "not a reference"),
    ],
)
def test_what_is_no_reference_is_refused_with_the_reason(document: bytes, reason: str):
    with pytest.raises(BadReference, match=reason):
        reference.decode(document)


@pytest.mark.parametrize("change", [{"rows": 1}, {"version": "2"}, {"model": "other"}, {"id": "0" * 12}])
def test_an_edited_document_is_refused(change: dict[str, Any]):
    raw = json.loads(reference.encode(a_reference())) | change

    with pytest.raises(BadReference, match="damaged or edited"):
        reference.decode(json.dumps(raw).encode())


def test_unknown_keys_are_refused():
    with pytest.raises(BadReference, match="unknown field"):
        reference.decode(reference.encode(a_reference())[:-3] + b',"more": 1}\n')


@pytest.mark.parametrize(
    "change",
    [
        {"knots": []},
        {"knots": [1.0, 1.0], "cells": [1, 1, 1, 1, 1], "bins": [5]},
        {"knots": [2.0, 1.0], "cells": [1, 1, 1, 1, 1], "bins": [5]},
        {"knots": [1.0], "cells": [0, 1], "bins": [2]},
        {"knots": [1.0], "cells": [0, 1, 0], "bins": [2]},
        {"knots": [1.0], "cells": [0, 1, 0], "bins": [0, 3]},
        {"knots": [1.0], "cells": [-1, 5, 0], "bins": [3]},
        {"knots": [1.0], "cells": [0, 0, 0], "bins": [3]},
        {"missing": -1},
        {"wrong_type": -1},
    ],
)
def test_numbers_that_do_not_fit_together_are_refused_by_name(change: dict[str, Any]):
    with pytest.raises(BadReference, match=r"feature x: .* do not fit together"):
        reference.decode(edited({}, feature=change))


@pytest.mark.parametrize(
    "change",
    [
        {"categories": ["a", "a"], "counts": [1, 1]},
        {"categories": ["a"], "counts": [1, 1]},
        {"categories": ["a"], "counts": [0]},
        {"others_count": -1},
        {"categories": [], "counts": [], "others_count": 0},
    ],
)
def test_categories_that_do_not_fit_together_are_refused_by_name(change: dict[str, Any]):
    with pytest.raises(BadReference, match=r"feature colour: .* do not fit together"):
        reference.decode(edited({}, of=a_reference({COLOUR: ["a", "b"]}), feature=change))


def test_a_document_without_features_or_with_one_twice_is_refused():
    twice = json.loads(reference.encode(a_reference()))["features"][:1] * 2

    for features in ([], twice):
        raw = json.loads(reference.encode(a_reference())) | {"features": features}
        parsed = msgspec.json.decode(json.dumps(raw), type=Reference)
        document = reference.encode(msgspec.structs.replace(parsed, id=reference._content_hash(parsed)))
        with pytest.raises(BadReference, match="no feature"):
            reference.decode(document)


# ---- building --------------------------------------------------------------------------------------------------------


def test_every_value_of_a_column_is_accounted_for():
    column = np.array([1.0] * 50 + [2.0] * 40 + [np.nan] * 5 + [NON_FINITE_NUMBER] * 3 + [WRONG_TYPE_NUMBER] * 2)

    feature = built(X, column)

    assert isinstance(feature, Numeric)
    assert (feature.values, feature.missing, feature.non_finite, feature.wrong_type) == (90, 5, 3, 2)


def test_categories_are_ranked_by_count_then_name_and_the_rest_is_known_by_name():
    column = ["b"] * 5 + ["a"] * 5 + ["c"] * 9 + ["d"] * 2 + ["e"] + [None] * 3 + [[]] * 2

    feature = built(COLOUR, column, resolution=Resolution(top_categories=3))

    assert isinstance(feature, Categorical)
    assert feature.categories == ("c", "a", "b")
    assert feature.counts == (9, 5, 5)
    assert (feature.others, feature.others_count, feature.others_complete) == (("d", "e"), 3, True)
    assert (feature.missing, feature.wrong_type) == (3, 2)


def test_spellings_of_a_category_are_counted_together():
    feature = built(COLOUR, [3, 3.0, "3", "true", "True", "TRUE", None, float("nan")])

    assert isinstance(feature, Categorical)
    assert dict(zip(feature.categories, feature.counts, strict=True)) == {"3": 3, "true": 3}
    assert feature.missing == 2


def test_names_beyond_what_is_kept_make_the_others_incomplete():
    feature = built(COLOUR, [f"id-{i}" for i in range(10_040)], resolution=Resolution(top_categories=30))

    assert isinstance(feature, Categorical)
    assert len(feature.others) == 10_000
    assert feature.others_count == 10_010
    assert not feature.others_complete


def test_the_classes_of_a_prediction_all_count():
    classes = [f"class {i}" for i in range(60)]

    kept = built(PREDICTION, classes * 2)
    cut = built(COLOUR, classes * 2)

    assert isinstance(kept, Categorical)
    assert isinstance(cut, Categorical)
    assert len(kept.categories) == 60
    assert len(cut.categories) == 30


def test_resolution_sets_knots_bins_and_what_is_discrete():
    column = np.arange(1000.0)

    feature = built(X, column, resolution=Resolution(knots=40, bins=5))
    assert isinstance(feature, Numeric)
    assert len(feature.knots) in (40, 41, 42)
    assert len(feature.bins) == 5

    twelve = np.repeat(np.arange(12.0), 100)
    by_value, by_quantile = (
        built(X, twelve, resolution=Resolution(bins=4, discrete_values=limit)) for limit in (12, 11)
    )
    assert isinstance(by_value, Numeric)
    assert isinstance(by_quantile, Numeric)
    assert len(by_value.bins) == 12
    assert len(by_quantile.bins) == 4


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({}, "no feature"),
        ({X: np.zeros(0)}, "no rows"),
        ({X: np.zeros(2), COLOUR: ["a"]}, "differ in length"),
        ({X: np.array([np.nan, np.inf])}, "x: no usable number in 2 rows; exclude it"),
        ({COLOUR: [None, []]}, "colour: no usable category in 2 rows; exclude it"),
    ],
)
def test_what_cannot_be_built_from_is_named(columns: Any, reason: str):
    with pytest.raises(BadReference, match=reason):
        reference.build(columns, model="m", version="1", created=0)


def test_python_values_as_numbers():
    values = [1, 2.5, None, "7", True, [], 10**400, float("inf"), float("-inf"), float("nan")]
    nan, wrong, infinite = np.nan, WRONG_TYPE_NUMBER, NON_FINITE_NUMBER

    column = reference.as_number_column(values)

    expected = [1, 2.5, nan, wrong, wrong, wrong, infinite, infinite, infinite, nan]
    np.testing.assert_array_equal(column, expected)


def test_a_column_is_numeric_if_nearly_every_value_is_a_number():
    stray, half = [1.5] * 95 + ["n/a"] * 5, [1.5] * 94 + ["n/a"] * 6

    assert isinstance(reference.infer_column(X, stray), np.ndarray)
    assert reference.infer_column(X, half) is half
    assert isinstance(reference.infer_column(X, [1.5, None, None, None]), np.ndarray), "missing values say nothing"


def test_whole_numbers_are_classes_in_a_prediction_only():
    whole, parts, many = [0, 1, 2.0] * 10, [0, 0.5, 1] * 10, list(range(21))

    assert reference.infer_column(PREDICTION, whole) is whole
    assert isinstance(reference.infer_column(PREDICTION, parts), np.ndarray)
    assert isinstance(reference.infer_column(PREDICTION, many), np.ndarray)
    assert isinstance(reference.infer_column(X, whole), np.ndarray)
    assert isinstance(reference.infer_column(SCORE, [0, 1]), np.ndarray)


# ---- several references of a model -----------------------------------------------------------------------------------


def test_the_schema_of_several_references_has_the_columns_and_categories_of_all():
    one = a_reference({X: np.arange(5.0), COLOUR: list("aabbc")})
    other = a_reference({COLOUR: list("cdccc"), an_input("z"): np.arange(5.0)}, version="2")

    schema = reference.schema_of([one, other])

    assert schema.numeric == (X, an_input("z"))
    assert schema.categorical == (COLOUR,)
    assert {text for text in schema.vocabularies[0] if isinstance(text, str)} == set("abcd")
    assert len({code for code in schema.vocabularies[0].values() if code >= 0}) == 4


def test_references_that_disagree_on_a_type_are_refused():
    with pytest.raises(BadReference, match=f"references of {MODEL} disagree: x is numeric and categorical"):
        reference.schema_of([a_reference({X: np.arange(5.0)}), a_reference({X: list("abcde")}, version="2")])
