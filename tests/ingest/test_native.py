import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.ingest.fields import remap
from exporter.ingest.lenient import MESSAGE_LIMIT_BYTES
from exporter.ingest.native import ROWS_AT_ONCE, NativeCodec
from exporter.ingest.source import EMPTY, Envelope, Messages
from exporter.monitor.events import (
    LABEL,
    MISSING,
    NO_ERROR,
    UNSEEN,
    WRONG_TYPE,
    Decoded,
    ErrorReasons,
    FeatureKey,
    Reject,
    tag,
)
from exporter.monitor.fleet import Fleet
from exporter.monitor.reference import Reference
from exporter.monitor.settings import JoinSettings, ModelSettings, Segmentation
from tests.builders import COLOUR, COLOURS, MODEL, NOW, PREDICTION, SCORE, X, a_fleet, a_reference, an_input
from tests.ingest import events

Y = an_input("y")
YES = FeatureKey("score", "yes")


def reference(model: str = MODEL) -> Reference:
    rng = np.random.default_rng(0)
    columns = {
        X: rng.normal(size=300),
        COLOUR: rng.choice([*COLOURS, "1", "true"], 300).tolist(),
        Y: rng.normal(size=300),
        PREDICTION: rng.choice(["0", "1"], 300).tolist(),
        SCORE: rng.random(300),
        YES: rng.random(300),
    }
    return a_reference(columns, model=model)


def labelled(model: str) -> Reference:
    """The same with labels: its predictions can wait for them."""
    return a_reference(
        {PREDICTION: ["0", "1"] * 50, SCORE: np.linspace(0, 1, 100), LABEL: ["0", "1"] * 50}, model=model
    )


def fleet_of(*models: str, joins: bool = False) -> Fleet:
    join = JoinSettings(3600.0) if joins else None
    more: dict[str, Any] = {"error_reasons": ErrorReasons(["quota"]), "segments": (Segmentation("region"),)}
    settings = [ModelSettings(model, version="1", join=join, **more) for model in models]
    return Fleet(settings, {model: [labelled(model) if joins else reference(model)] for model in models})


ONE, TWO = fleet_of(MODEL), fleet_of(MODEL, "other")
JOINING, BOTH_JOINING = fleet_of(MODEL, joins=True), fleet_of(MODEL, "other", joins=True)
each_fleet = st.sampled_from([ONE, TWO, JOINING, BOTH_JOINING])


class Forced(NativeCodec):
    """The lenient route for everything."""

    def _prepare(self) -> None:
        super()._prepare()
        self._alone, self._union = {}, None


def messages(*payloads: bytes | dict[str, Any], time: float = NOW) -> Messages:
    return Messages("p0", [one if isinstance(one, bytes) else json.dumps(one).encode() for one in payloads], time)


def decode(*payloads: bytes | dict[str, Any], fleet: Fleet = ONE, **options: Any) -> Decoded:
    return NativeCodec(fleet, "test", **options).decode(messages(*payloads))


def rows_of(decoded: Decoded) -> dict[str, list[tuple[Any, ...]]]:
    """Rows by model in order, NaN made comparable."""
    rows: dict[str, list[tuple[Any, ...]]] = {}
    for batch in decoded.batches:
        numeric = np.where(np.isnan(batch.numeric), 1e99, batch.numeric).tolist()
        latency = np.where(np.isnan(batch.latency_s), 1e99, batch.latency_s).tolist()
        versions = [batch.versions[i] for i in batch.version]
        ids = [None] * len(batch) if batch.id is None else batch.id.tolist()
        columns = (versions, batch.time.tolist(), numeric, batch.codes.tolist(), latency, batch.error.tolist(), ids)
        rows.setdefault(batch.model, []).extend(zip(*columns, strict=True))
    for one in decoded.labels:
        labels = zip(one.id.tolist(), one.time.tolist(), one.label.tolist(), strict=True)
        rows.setdefault(f"labels of {one.model}", []).extend(labels)
    return rows


def account(decoded: Decoded) -> tuple[Any, ...]:
    rejects = sorted((reject.index, reject.reason, reject.detail) for reject in decoded.rejects)
    return rows_of(decoded), rejects, {reason: count for reason, count in decoded.dropped.items() if count}


def one_by_one(codec: NativeCodec, chunk: Messages) -> tuple[Any, ...]:
    """What a codec makes of messages that it never sees together."""
    rows: dict[str, list[tuple[Any, ...]]] = {}
    rejects, dropped = [], dict[str, int]()
    for i, payload in enumerate(chunk.payloads):
        alone = codec.decode(Messages("p0", [payload], chunk.time_of(i), envelopes=chunk.envelopes[i : i + 1]))
        for model, part in rows_of(alone).items():
            rows.setdefault(model, []).extend(part)
        rejects += [(i, reject.reason, reject.detail) for reject in alone.rejects]
        for reason, count in alone.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
    return rows, rejects, dropped


# ---- both routes -----------------------------------------------------------------------------------------------------


def assert_routes_agree(chunk: Messages | list[bytes], fleet: Fleet, **options: Any) -> None:
    fast, forced = NativeCodec(fleet, "test", **options), Forced(fleet, "test", **options)
    chunk = chunk if isinstance(chunk, Messages) else messages(*chunk)

    together = fast.decode(chunk)

    assert account(together) == account(forced.decode(chunk))
    assert account(together) == one_by_one(fast, chunk)
    read = sum(map(len, together.batches)) + sum(map(len, together.labels))
    counted = read + len(together.rejects) + sum(together.dropped.values())
    assert counted == together.events == len(chunk.payloads)


label = events.objects(
    model=events.names,
    version=events.versions,
    timestamp=events.times,
    id=events.either("req-1", "req-1", 5, 5.0, True, st.sampled_from([events.ABSENT, None, "", [], "\ud800"])),
    label=events.either(0, 1, "1", "mauve", True, None, 2.5, [], {}),
    score=events.either(*[events.ABSENT] * 5, 0.5),
    scores=events.either(*[events.ABSENT] * 5, {}, {"yes": 0.1}, None),
    latency_seconds=events.either(*[events.ABSENT] * 5, 0.1),
    error=events.either(*[events.ABSENT] * 5, "", "timeout"),
)


@given(st.lists(st.one_of(events.payloads(label), events.payloads(events.sound)), min_size=1, max_size=8), each_fleet)
def test_labels_that_come_alone_are_the_same_by_either_route(payloads: list[bytes], fleet: Fleet):
    assert_routes_agree(payloads, fleet)


native_payloads = st.lists(events.payloads(events.native), min_size=1, max_size=6)
mostly_sound = st.lists(
    st.one_of(*[events.payloads(events.sound)] * 4, events.payloads(events.native)), min_size=1, max_size=12
)


@given(st.one_of(native_payloads, mostly_sound), each_fleet)
def test_the_fast_route_is_the_lenient_one(payloads: list[bytes], fleet: Fleet):
    assert_routes_agree(payloads, fleet)


@given(native_payloads, each_fleet)
def test_also_with_arrival_time_and_a_default_model(payloads: list[bytes], fleet: Fleet):
    assert_routes_agree(payloads, fleet, event_time=False, default_model=MODEL)
    assert_routes_agree(payloads, fleet, default_model="stranger")


@given(st.lists(events.payloads(events.flat), min_size=1, max_size=6), each_fleet)
def test_also_with_flat_features(payloads: list[bytes], fleet: Fleet):
    assert_routes_agree(payloads, fleet, fields=remap({"features": "*"}, frozenset({"unknown"})))


def nested(event: dict[str, Any]) -> dict[str, Any]:
    moved = {key: value for key, value in event.items() if key not in ("features", "latency_seconds", "model")}
    payload = {new: event[old] for old, new in (("features", "inputs"), ("latency_seconds", "took")) if old in event}
    return moved | {"payload": payload or None, "name": event.get("model")}


@given(st.lists(events.payloads(events.native.map(nested)), min_size=1, max_size=6))
def test_also_with_nested_fields(payloads: list[bytes]):
    fields = remap({"features": "payload.inputs", "latency_seconds": "payload.took", "model": "name"})

    assert_routes_agree(payloads, TWO, fields=fields)


envelopes = st.builds(
    Envelope,
    st.sampled_from(["", "", MODEL, "other", "stranger", "x" * 200, "a\nb"]),
    st.sampled_from(["", "", "7", "x" * 200]),
    st.sampled_from(["", "", "application/json", "application/vnd.acme+json; charset=utf-8", "application/avro"]),
)
nameless = events.objects(
    **(events.common() | {"model": events.either(events.ABSENT, None, MODEL), "features": events.features})
)
records = st.lists(
    st.tuples(
        st.one_of(events.payloads(events.native), events.payloads(nameless), st.none()),
        st.one_of(st.just(EMPTY), envelopes),
        st.floats(NOW - 1000, NOW),
    ),
    min_size=1,
    max_size=8,
)


@given(records, st.sampled_from([ONE, TWO]), st.sampled_from([{}, {"default_model": MODEL}, {"event_time": False}]))
def test_also_with_envelopes_and_times_of_records(drawn: list[tuple[Any, ...]], fleet: Fleet, options: dict[str, Any]):
    payloads, told, times = zip(*drawn, strict=True)

    assert_routes_agree(Messages("p0", payloads, times, envelopes=told), fleet, **options)


@given(st.data())
def test_bad_events_never_cost_a_good_neighbour(data: st.DataObject):
    good = [events_of(data.draw(events.sound), i) for i in range(8)]
    bad = [b"", b"{", b"[]", b'"x"', b'{"model":"' + MODEL.encode() + b'","features":{"x":NaN}}garbage', b"\xff", b"1"]
    mixed = data.draw(st.permutations([*good, *bad]))

    decoded = decode(*mixed)

    expected = rows_of(decode(*[one for one in mixed if one in good]))
    assert rows_of(decoded) == expected
    assert [mixed[reject.index] in bad for reject in decoded.rejects] == [True] * len(bad)


def events_of(event: dict[str, Any], serial: int) -> bytes:
    return json.dumps(event | {"id": serial}).encode()


# ---- what a user sends -----------------------------------------------------------------------------------------------


def only(decoded: Decoded, feature: FeatureKey) -> Any:
    """The value of a feature in the one row."""
    (batch,) = decoded.batches
    schema = batch.schema
    if feature in schema.numeric:
        return batch.numeric[0, schema.numeric.index(feature)]
    return batch.codes[0, schema.categorical.index(feature)]


def an_event(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "timestamp": NOW, "features": {"x": 1.0}} | fields


def test_the_event_of_the_documentation():
    event = {
        "model": MODEL,
        "version": "3",
        "id": "req-8f1c",
        "timestamp": "2026-11-23T08:15:00.250Z",
        "features": {"x": 12638.0, "colour": "red", "y": 21},
        "prediction": 1,
        "score": 0.93,
        "latency_seconds": 0.0124,
        "error": None,
        "tags": {"region": "eu"},
    }

    decoded = decode(event)

    (batch,) = decoded.batches
    vocabularies = dict(zip(batch.schema.categorical, batch.schema.vocabularies, strict=True))
    assert (batch.model, batch.versions, batch.partition) == (MODEL, ("3",), "p0")
    assert batch.time.tolist() == [1795421700.25]
    assert (only(decoded, X), only(decoded, Y), only(decoded, SCORE)) == (12638.0, 21.0, 0.93)
    assert only(decoded, COLOUR) == vocabularies[COLOUR]["red"]
    assert only(decoded, PREDICTION) == vocabularies[PREDICTION]["1"]
    assert (batch.latency_s.tolist(), batch.error.tolist()) == ([0.0124], [NO_ERROR])
    assert (decoded.events, decoded.rejects, dict(decoded.dropped)) == (1, [], {})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text", -math.inf),
        (True, -math.inf),
        ([1], -math.inf),
        (math.inf, math.inf),
        (-math.inf, math.inf),
        (10**400, math.inf),
        (7, 7.0),
    ],
)
def test_a_number_that_is_none_spoils_its_value_and_not_the_event(value: Any, expected: float):
    decoded = decode(an_event(features={"x": value, "y": 2.5, "colour": "red"}))

    assert only(decoded, X) == expected
    assert only(decoded, Y) == 2.5


@pytest.mark.parametrize("value", [None, math.nan])
def test_null_and_nan_are_missing(value: Any):
    decoded = decode(an_event(features={"x": value, "colour": value}))

    assert math.isnan(only(decoded, X))
    assert only(decoded, COLOUR) == MISSING


@pytest.mark.parametrize("route", [NativeCodec, Forced])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize(
    ("label", "expected"), [(1, "1"), ("1", "1"), (0.0, "0"), ("mauve", UNSEEN), (None, MISSING), ([1], WRONG_TYPE)]
)
def test_a_label_beside_features_is_of_a_class_of_the_prediction(
    route: type[NativeCodec], flat: bool, label: Any, expected: Any
):
    event = an_event(label=label, prediction=1)
    if flat:
        event |= event.pop("features")

    decoded = route(ONE, "test", fields=remap({"features": "*"} if flat else {})).decode(messages(event))

    (batch,) = decoded.batches
    vocabulary = dict(zip(batch.schema.categorical, batch.schema.vocabularies, strict=True))[LABEL]
    assert only(decoded, LABEL) == vocabulary.get(expected, expected)


@pytest.mark.parametrize("route", [NativeCodec, Forced])
def test_a_label_without_features_waits_for_a_join_that_is_not_there_yet(route: type[NativeCodec]):
    decoded = route(ONE, "test").decode(messages({"model": MODEL, "id": "7", "label": 1}))

    assert (decoded.batches, dict(decoded.dropped)) == ([], {"label": 1})


@pytest.mark.parametrize("route", [NativeCodec, Forced])
@pytest.mark.parametrize("text", ["", "NaN", 'says \\"NaN\\": NaN, '], ids=["none", "plain", "escaped"])
@pytest.mark.parametrize("path", ["x", "colour", "version", "timestamp", "prediction", "score", "latency", "error"])
def test_nan_is_null_wherever_it_stands_but_not_within_a_text(route: type[NativeCodec], text: str, path: str):
    place = "latency_seconds" if path == "latency" else path
    event = an_event(id=text, features={"x": 1.0, "colour": "red", "note": text}, prediction=1)
    (event["features"] if place in event["features"] else event)[place] = math.nan
    written = json.dumps(event).encode()
    chunks = [messages(one) for one in (written, written.replace(b": NaN,", b": null,").replace(b": NaN}", b": null}"))]

    one, other = (account(route(ONE, "test").decode(chunk)) for chunk in chunks)

    assert b"NaN" in written
    assert one == other


@pytest.mark.parametrize("route", [NativeCodec, Forced])
@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"region": "eu"}, "eu"),
        ({"region": 7}, "7"),
        ({"region": 7.0}, "7"),
        ({"region": True}, "true"),
        ({"region": "x" * 64}, "x" * 64),
        ({"region": "x" * 65}, UNSEEN),
        ({"region": ""}, UNSEEN),
        ({"region": "other"}, UNSEEN),
        ({"region": "\ud800"}, UNSEEN),
        ({"region": None}, MISSING),
        ({"region": ["eu"]}, WRONG_TYPE),
        ({"tier": "eu"}, MISSING),
        ({}, MISSING),
        (None, MISSING),
        ("eu", MISSING),
    ],
)
def test_a_tag_is_a_short_text_or_number_and_spoils_nothing(route: type[NativeCodec], tags: Any, expected: str | int):
    fleet = fleet_of(MODEL)

    code = only(route(fleet, "test").decode(messages(an_event(features={"x": 1.0}, tags=tags))), tag("region"))

    texts = fleet.schema(MODEL).vocabularies[-1].texts  # type: ignore[attr-defined]
    assert (texts[code] if code >= 0 else code) == expected
    assert len(texts) == (code >= 0)


def test_a_tag_that_is_an_id_stops_being_learnt():
    fleet = fleet_of(MODEL)
    payloads = [an_event(features={"x": 1.0}, tags={"region": f"user {i}"}) for i in range(1500)]

    decoded = decode(*payloads, fleet=fleet)

    codes = decoded.batches[0].codes[:, -1]
    assert len(fleet.schema(MODEL).vocabularies[-1]) < 1010
    assert (codes[:1000] >= 0).all()
    assert (codes[1000:] == UNSEEN).all()


def test_tags_are_found_where_fields_say():
    fleet = fleet_of(MODEL)
    event = an_event(features={"x": 1.0}, context={"labels": {"region": "eu"}})

    decoded = decode(event, fleet=fleet, fields=remap({"tags": "context.labels"}))

    assert only(decoded, tag("region")) == fleet.schema(MODEL).vocabularies[-1]["eu"]


@pytest.mark.parametrize(("value", "expected"), [("mauve", UNSEEN), ([], WRONG_TYPE), ({}, WRONG_TYPE)])
def test_a_category_that_is_none_spoils_its_value_only(value: Any, expected: int):
    decoded = decode(an_event(features={"x": 1.0, "colour": value}))

    assert only(decoded, COLOUR) == expected
    assert only(decoded, X) == 1.0


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "malformed_json"),
        (b'{"model": "m"', "malformed_json"),
        (b'{"model": "\xff"}', "invalid_utf8"),
        (b"[1]", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b'{"model": ' * 100_000, "too_deep"),
        (b'{"model": "' + b"x" * MESSAGE_LIMIT_BYTES + b'"', "too_large"),
        ({"features": {}}, "missing_model"),
        ({"model": None, "features": {}}, "missing_model"),
        ({"model": 3, "features": {}}, "invalid_model"),
        ({"model": "", "features": {}}, "invalid_model"),
        ({"model": "x" * 129, "features": {}}, "invalid_model"),
        ({"model": "a\nb", "features": {}}, "invalid_model"),
        (an_event(version=[]), "invalid_version"),
        (an_event(version="x" * 129), "invalid_version"),
        (an_event(version="a\x00b"), "invalid_version"),
        (an_event(timestamp="yesterday"), "invalid_timestamp"),
        (an_event(timestamp=-1), "invalid_timestamp"),
        (an_event(timestamp=True), "invalid_timestamp"),
        (an_event(features=[1]), "invalid_features"),
        (an_event(features="x"), "invalid_features"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_why_an_event_is_rejected(payload: Any, reason: str):
    decoded = decode(an_event(), payload, an_event())

    (reject,) = decoded.rejects
    assert (reject.index, reject.reason) == (1, reason)
    assert reject.detail
    assert sum(map(len, decoded.batches)) == 2


def test_indices_of_rejects_count_through_the_whole_chunk():
    payloads = [json.dumps(an_event()).encode()] * (3 * ROWS_AT_ONCE)
    for bad in (0, ROWS_AT_ONCE - 1, ROWS_AT_ONCE, 2 * ROWS_AT_ONCE + 7):
        payloads[bad] = b"{"

    rejects = decode(*payloads).rejects

    assert [reject.index for reject in rejects] == [0, ROWS_AT_ONCE - 1, ROWS_AT_ONCE, 2 * ROWS_AT_ONCE + 7]


def test_rows_of_a_large_chunk_keep_their_order_whatever_way_they_were_read():
    """First blocks of one model with rows in doubt, then rows that no Struct takes, then two models mixed."""
    count = 5 * ROWS_AT_ONCE + 10
    payloads: list[dict[str, Any]] = []
    for i in range(count):
        block, odd = i // ROWS_AT_ONCE, i % 50 == 7
        model = "other" if block >= 3 and i % 3 == 0 else MODEL
        event = an_event(model=model, timestamp=i, features={"x": "text" if odd else float(i)})
        if odd and block < 2:
            del event["features"]
            event["prediction"] = 1
        payloads.append(event)

    batches = {batch.model: batch for batch in decode(*payloads, fleet=TWO).batches}

    assert set(batches) == {MODEL, "other"}
    for model, batch in batches.items():
        assert batch.time.tolist() == [i for i in range(count) if payloads[i]["model"] == model]
        assert [x for x in batch.numeric[:, 0].tolist() if np.isfinite(x)] == [i for i in batch.time if i % 50 != 7]


def test_personal_data_is_told_only_when_asked_for():
    bad = an_event(timestamp="born 1970-01-01")

    assert "born" not in decode(bad).rejects[0].detail
    assert "born" in decode(bad, log_values=True).rejects[0].detail


def test_labels_without_features_and_heartbeats_are_no_predictions():
    label = {"model": MODEL, "id": "req-8f1c", "timestamp": NOW, "label": 1}
    heartbeat = {"model": MODEL, "timestamp": NOW}
    scored = an_event(label=1)
    only_output = {"model": MODEL, "prediction": 1}
    failed = {"model": MODEL, "error": "timeout"}

    decoded = decode(label, heartbeat, scored, only_output, failed, label)

    assert dict(decoded.dropped) == {"label": 2, "not_a_prediction": 1}
    assert decoded.rejects == []
    assert sum(map(len, decoded.batches)) == 3


def test_reasons_of_failure_are_those_of_the_model():
    reasons = ErrorReasons(["quota"])
    errors = [None, "", "timeout", "quota", "made up", True, False]

    (batch,) = decode(*[an_event(error=error) for error in errors]).batches

    names = [None if code == NO_ERROR else reasons.names[code] for code in batch.error]
    assert names == [None, None, "timeout", "quota", "other", "other", None]


def test_a_version_is_text_and_the_configured_one_if_there_is_none():
    versions = [3, 3.0, "3", 1.5, True, None, ""]

    (batch,) = decode(*[an_event(version=version) for version in versions]).batches

    assert [batch.versions[i] for i in batch.version] == ["3", "3", "3", "1.5", "true", "1", "1"]
    (unconfigured,) = decode({"model": "stranger", "features": {}}).batches
    assert unconfigured.versions == ("unknown",)


def test_arrival_time_serves_events_without_a_time_or_all_if_so_configured():
    payloads = [{"model": MODEL, "features": {}}, an_event(timestamp=5)]

    assert decode(*payloads).batches[0].time.tolist() == [NOW, 5]
    assert decode(*payloads, event_time=False).batches[0].time.tolist() == [NOW, NOW]
    assert decode(an_event(timestamp="nonsense"), event_time=False).rejects == []


def test_models_are_told_apart_and_keep_their_order():
    payloads = [an_event(model=model, timestamp=i) for i, model in enumerate([MODEL, "other", "stranger"] * 5)]

    batches = {batch.model: batch.time.tolist() for batch in decode(*payloads, fleet=TWO).batches}

    assert batches == {MODEL: [0, 3, 6, 9, 12], "other": [1, 4, 7, 10, 13], "stranger": [2, 5, 8, 11, 14]}


def test_flat_events():
    fields = remap({"features": "*", "timestamp": "at"}, frozenset({"y"}))
    event = {"model": MODEL, "at": 7, "x": 1.5, "colour": "red", "y": 9.0, "prediction": 1}
    heartbeat = {"model": MODEL, "at": 7}

    decoded = decode(event, heartbeat, fields=fields)

    assert decoded.batches[0].time.tolist() == [7]
    assert only(decoded, X) == 1.5
    assert only(decoded, PREDICTION) >= 0
    assert dict(decoded.dropped) == {"not_a_prediction": 1}


@pytest.mark.parametrize("name", ["model", "version", "timestamp", "latency_seconds", "error", "label", "prediction"])
def test_a_flat_feature_may_be_named_like_a_field(name: str):
    """A table with a column "model" or "version" (of a car, say) makes such a reference."""
    clash = a_reference({an_input(name): np.arange(50.0), COLOUR: ["red", "blue"] * 25, PREDICTION: ["a", "b"] * 25})
    payload = {"model": MODEL, "version": "x", "timestamp": NOW, "colour": "red", "prediction": "a", "error": "timeout"}

    decoded = decode(payload, payload | {"latency_seconds": 3.5}, fleet=a_fleet(clash), fields=remap({"features": "*"}))

    assert sum(map(len, decoded.batches)) == 2
    assert only(decoded, COLOUR) >= 0


def test_nested_fields():
    fields = remap({"features": "payload.inputs", "id": "request.id", "model": "meta.name", "error": "meta.failure"})
    event = {"meta": {"name": MODEL, "failure": "timeout"}, "payload": {"inputs": {"x": 2.5}}}

    decoded = decode(event, fields=fields)

    assert only(decoded, X) == 2.5
    assert decoded.batches[0].error.tolist() == [0]


def test_a_feature_name_may_hold_anything():
    odd = an_input('a.b "c"\n{é}')
    fleet = a_fleet(a_reference({odd: np.arange(50.0), an_input(""): np.arange(50.0)}))

    decoded = decode(an_event(features={odd.name: 4, "": 5}), fleet=fleet)

    assert (only(decoded, odd), only(decoded, an_input(""))) == (4, 5)


def test_columns_follow_the_references_of_the_fleet():
    fleet = a_fleet(a_reference({X: np.arange(50.0)}))
    codec = NativeCodec(fleet, "test")
    payload = messages(an_event(features={"x": 1, "y": 2}))
    assert codec.decode(payload).batches[0].numeric.tolist() == [[1]]

    fleet.adopt(MODEL, [a_reference({Y: np.arange(50.0), X: np.arange(50.0)})])

    assert codec.decode(payload).batches[0].numeric.tolist() == [[2, 1]]


def test_a_learning_model_gets_what_its_reference_may_hold():
    fleet = a_fleet(learn=10)
    event = an_event(
        features={"x": 1.5, "list": [1], "colour": "red"},
        prediction=1,
        score=0.5,
        scores={"yes": 0.25},
        latency_seconds=1,
    )

    unnameable = {"": 1, "a\nb": 1, "x" * 129: 1, "\ud800": 1}

    (batch,) = decode(event, an_event(features={"x": "bad"} | unnameable), fleet=fleet).batches

    assert batch.raw == [
        {X: 1.5, an_input("list"): [1], COLOUR: "red", YES: 0.25, PREDICTION: 1, SCORE: 0.5},
        {X: "bad"},
    ]
    assert batch.latency_s.tolist()[0] == 1


def test_a_model_without_references_is_counted_all_the_same():
    (batch,) = decode(an_event(), fleet=a_fleet()).batches

    assert batch.numeric.shape == (1, 0)
    assert batch.codes.shape == (1, 0)


def test_a_reject_of_a_log_says_where_it_is():
    codec = NativeCodec(Fleet(), "kafka")
    chunk = Messages("kafka/predictions/3", [b"{", b"[]"], 0.0, "19", offsets=[17, 18])
    found = [reject.detail.partition(": ")[0] for reject in codec.decode(chunk).rejects]
    assert found == ["kafka/predictions/3 offset 17", "kafka/predictions/3 offset 18"]


# ---- what a transport says beside an event ---------------------------------------------------------------------------


def told(*payloads: bytes | dict[str, Any] | None, envelopes: Sequence[Envelope], **options: Any) -> Decoded:
    fleet = options.pop("fleet", ONE)
    sent = [json.dumps(one).encode() if isinstance(one, dict) else one for one in payloads]
    times = [NOW - place for place in range(len(sent))]
    return NativeCodec(fleet, "test", **options).decode(Messages("p0", sent, times, envelopes=envelopes))


def test_headers_name_the_model_and_version_of_events_that_do_not():
    nameless = {"features": {"x": 1.0}}
    named = {"model": "other", "version": "2", "features": {"x": 1.0}}

    decoded = told(nameless, named, nameless, envelopes=[Envelope(MODEL, "7")] * 2 + [Envelope(MODEL)], fleet=TWO)

    rows = rows_of(decoded)
    assert [row[0] for row in rows[MODEL]] == ["7", "1"]
    assert [row[0] for row in rows["other"]] == ["2"]
    assert decoded.rejects == []


def test_a_header_names_the_model_before_the_default_does():
    decoded = told({"features": {}}, {"features": {}}, envelopes=[Envelope("other"), EMPTY], default_model=MODEL)

    assert set(rows_of(decoded)) == {"other", MODEL}


def test_the_time_of_its_record_is_that_of_an_event_without_one():
    decoded = told({"features": {}}, an_event(timestamp=5), {"features": {}}, envelopes=[Envelope(MODEL)] * 3)

    assert decoded.batches[0].time.tolist() == [NOW, 5, NOW - 2]


def test_events_keep_their_order_however_their_headers_are_mixed():
    count = 3 * ROWS_AT_ONCE
    kinds = [Envelope(MODEL), Envelope(MODEL, "2"), EMPTY, Envelope(content_type="application/json")]
    payloads = [an_event(timestamp=place) for place in range(count)]

    (batch,) = told(*payloads, envelopes=[kinds[place % 7 % 4] for place in range(count)]).batches

    assert batch.time.tolist() == list(range(count))
    assert [batch.versions[code] for code in batch.version] == ["2" if i % 7 % 4 == 1 else "1" for i in range(count)]


def test_content_of_another_type_is_rejected_with_the_type_if_asked_for():
    kinds = [Envelope(content_type=kind) for kind in ("application/avro", "application/json; charset=utf-8", "")]

    decoded = told(an_event(), an_event(), an_event(), envelopes=kinds)

    assert [(one.index, one.reason, one.detail) for one in decoded.rejects] == [
        (0, "unsupported_content_type", "JSON expected")
    ]
    assert len(decoded.batches[0]) == 2
    (reject,) = told(an_event(), envelopes=kinds[:1], log_values=True).rejects
    assert reject.detail == "JSON expected: 'application/avro'"


def test_a_null_value_is_dropped_whatever_its_headers():
    decoded = told(None, an_event(), None, envelopes=[Envelope(MODEL), EMPTY, Envelope(content_type="text/csv")])

    assert dict(decoded.dropped) == {"tombstone": 2}
    assert decoded.rejects == []
    assert len(decoded.batches[0]) == 1


def test_a_position_without_events_is_nothing_to_count():
    decoded = NativeCodec(ONE, "test").decode(Messages("p0", [], [], "7"))

    assert (decoded.events, decoded.batches, decoded.rejects) == (0, [], [])


def test_records_that_the_source_could_not_read_are_rejected_with_the_others():
    lost = Reject(0, "corrupt_record", "offset 7")

    decoded = NativeCodec(ONE, "test").decode(Messages("p0", [b"{", None], NOW, rejects=[lost]))

    assert [reject.reason for reject in decoded.rejects] == ["corrupt_record", "malformed_json"]
    assert decoded.events == 3


class Unread(NativeCodec):
    """Counts what had to be read leniently."""

    count = 0

    def _read_leniently(self, chunk: Messages, unread: list[int], *others: Any) -> None:
        self.count += len(unread)
        super()._read_leniently(chunk, unread, *others)


@pytest.mark.parametrize("options", [{"default_model": MODEL}, {}])
def test_events_that_name_no_model_are_read_fast_all_the_same(options: dict[str, Any]):
    codec = Unread(TWO, "test", **options)
    envelopes = () if options else [Envelope(MODEL)] * 40
    payloads = [json.dumps({"features": {"x": 1.0}}).encode(), json.dumps(an_event(model="other")).encode()] * 20

    decoded = codec.decode(Messages("p0", payloads, NOW, envelopes=envelopes))

    assert {batch.model: len(batch) for batch in decoded.batches} == {MODEL: 20, "other": 20}
    assert codec.count == 0
