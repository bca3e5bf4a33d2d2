import pytest

from exporter.ingest.fields import Fields, at, remap


def test_fields_lie_where_native_events_have_them_unless_they_are_moved():
    moved = remap({"id": "request_id", "features": "payload.inputs", "model": "meta.name"})

    assert moved.id == ("request_id",)
    assert moved.features == ("payload", "inputs")
    assert moved.feature("age") == ("payload", "inputs", "age")
    assert moved.model == ("meta", "name")
    assert moved.prediction == Fields().prediction == ("prediction",)
    assert remap({}) == Fields()


def test_flat_features_are_all_keys_that_are_no_field_and_not_excluded():
    flat = remap({"features": "*", "timestamp": "at", "score": "model_output.p"}, frozenset({"debug"}))

    assert flat.feature("age") == ("age",)
    assert {"model", "at", "model_output", "debug", "label", "tags"} <= flat.reserved()
    assert not {"features", "timestamp", "score", "age"} & flat.reserved()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"features ": "x"}, "features : unknown field; expected one of model, version"),
        ({"flat": "true"}, "flat: unknown field"),
        ({"id": ""}, "id: '' is not a dotted path"),
        ({"id": "a..b"}, "id: 'a..b' is not a dotted path"),
        ({"id": ".a"}, "is not a dotted path"),
        ({"version": "*"}, None),
    ],
)
def test_a_field_that_cannot_be_moved_is_named(fields: dict[str, str], reason: str | None):
    if reason is None:
        assert remap(fields).version == ("*",), "only features can be flat"
        return
    with pytest.raises(ValueError, match=reason):
        remap(fields)


def test_a_field_cannot_lie_inside_the_value_of_another():
    with pytest.raises(ValueError, match="leads through"):
        remap({"version": "payload", "features": "payload.inputs"})


def test_a_path_that_leads_nowhere_is_none():
    event = {"a": {"b": 1, "c": None}, "d": [1]}

    assert at(event, ("a", "b")) == 1
    for path in (("a", "c"), ("a", "x"), ("a", "b", "c"), ("d", "0"), ("x", "y")):
        assert at(event, path) is None
    assert at([], ("a",)) is None
