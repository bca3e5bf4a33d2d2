"""Every codec: whatever comes, nothing is raised, every event is accounted for, and neighbours are left alone."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.ingest.native import NativeCodec
from exporter.ingest.source import Chunk, Codec, Messages, Table
from exporter.ingest.tables import TableCodec
from exporter.monitor.events import DROP_REASONS, REJECT_REASONS, Decoded
from exporter.monitor.fleet import Fleet
from exporter.monitor.reference import Columns
from exporter.monitor.settings import Segmentation
from tests.builders import MODEL, NOW, a_fleet, a_reference, an_input
from tests.ingest import events
from tests.monitor.joining import a_joining_fleet

FLEETS = {
    "with a reference": a_fleet(a_reference()),
    "joining": a_joining_fleet(),
    "with segments": a_fleet(a_reference(), segments=(Segmentation("region"), Segmentation("tier", 1))),
    "learning": a_fleet(learn=100),
    "bare": a_fleet(),
}


each = pytest.mark.parametrize("fleet", FLEETS.values(), ids=FLEETS)


def assert_sound(codec: Codec, chunk: Chunk, count: int) -> Decoded:
    decoded = codec.decode(chunk)

    assert decoded.source == "test"
    assert decoded.events == count
    read = sum(map(len, decoded.batches)) + sum(map(len, decoded.labels))
    assert read + len(decoded.rejects) + sum(decoded.dropped.values()) == count
    assert {reject.reason for reject in decoded.rejects} <= set(REJECT_REASONS)
    assert set(decoded.dropped) <= set(DROP_REASONS)
    indices = [reject.index for reject in decoded.rejects]
    assert len(set(indices)) == len(indices)
    assert all(0 <= index < count for index in indices)
    for batch in decoded.batches:
        n = len(batch)
        assert batch.partition == chunk.partition
        assert batch.numeric.shape == (n, len(batch.schema.numeric))
        assert batch.codes.shape == (n, len(batch.schema.categorical))
        assert {len(column) for column in (batch.time, batch.version, batch.latency_s, batch.error)} == {n}
        assert np.isfinite(batch.time).all()
        assert set(batch.version.tolist()) <= set(range(len(batch.versions)))
        assert all(0 < len(version) <= 128 and version.isprintable() for version in batch.versions)
        for place, vocabulary in enumerate(batch.schema.vocabularies):
            assert set(batch.codes[:, place].tolist()) <= {*vocabulary.values(), -1, -2, -3}
        assert (batch.id is not None) == batch.schema.joins
    for labels in decoded.labels:
        assert {len(labels.time), len(labels.id), len(labels.label)} == {len(labels)}
        assert np.isfinite(labels.time).all()
        assert not np.isnan(labels.label).any()
        assert (labels.id > 0).all()
    return decoded


sound_payload = events.payloads(events.sound)
spoilt_payload = st.tuples(sound_payload, st.integers(0, 400), st.binary(max_size=3)).map(
    lambda drawn: drawn[0][: drawn[1]] + drawn[2] + drawn[0][drawn[1] + len(drawn[2]) :]
)
any_payload = st.one_of(
    st.binary(max_size=60), spoilt_payload, spoilt_payload, sound_payload, events.payloads(events.native)
)


@each
@given(payloads=st.lists(any_payload, max_size=8))
def test_no_bytes_are_too_strange_for_native(fleet: Fleet, payloads: list[bytes]):
    decoded = assert_sound(NativeCodec(fleet, "test"), Messages("p7", payloads, NOW), len(payloads))

    # What a codec hands on a fleet can always count.
    fleet.observe(decoded, NOW)
    fleet.tick(NOW)


@each
@pytest.mark.parametrize(
    "hostile",
    [
        b"[" * 1_000_000,
        b'{"model":"' + MODEL.encode() + b'","features":' + b'{"a":' * 200_000,
        b'{"model":"' + MODEL.encode() + b'","features":{"x":' + b"9" * 100_000 + b"}}",
        b'{"model":"' + MODEL.encode() + b'","version":' + b"9" * 100_000 + b',"features":{"x":1}}',
        b'{"model":"' + MODEL.encode() + b'","timestamp":1e400,"features":{"x":1}}',
        b'{"model":"' + MODEL.encode() + b'","timestamp":"' + b"9" * 100_000 + b'","features":{"x":1}}',
        b'{"model":"' + MODEL.encode() + b'","features":{"x":1,"x":"a","x":2}}',
        b'{"model":"a","model":"' + MODEL.encode() + b'","features":{"x":1}}',
        b"\xef\xbb\xbf{}",
        b"\x00" * 1000,
        b'{"model":"\\ud800","features":{}}',
        b'{"model":"' + MODEL.encode() + b'","features":{"colour":"\\udfff"},"error":"\\ud800"}',
    ],
    ids=lambda payload: payload[:40].decode(errors="replace"),
)
def test_hostile_messages_are_survived_and_their_neighbours_counted(fleet: Fleet, hostile: bytes):
    good = b'{"model":"' + MODEL.encode() + b'","features":{"x":1}}'

    decoded = assert_sound(NativeCodec(fleet, "test"), Messages("p0", [good, hostile, good], NOW), 3)

    assert {reject.index for reject in decoded.rejects} <= {1}


cells = st.one_of(
    st.sampled_from([None, "", "NaN", "1.5", "red", "n/a", 1, 2.5, True, [], {}, float("nan"), float("inf"), 10**400]),
    st.text(max_size=4),
    st.floats(),
    st.integers(),
    st.datetimes(),
)


@given(st.integers(1, 6).flatmap(lambda rows: st.tuples(*[st.lists(cells, min_size=rows, max_size=rows)] * 3)))
def test_no_cells_are_too_strange_for_tables(columns: tuple[list[Any], ...]):
    fleet = a_fleet(a_reference())
    rows = len(columns[0])
    codec = TableCodec(fleet, "test", MODEL, "1", Columns(prediction="y", timestamp="at"))
    table = Table("p7", {"x": columns[0], "colour": columns[1], "at": columns[2]}, rows, NOW)

    fleet.observe(assert_sound(codec, table, rows), NOW)
    fleet.tick(NOW)


def test_names_of_features_in_events_do_not_reach_the_state():
    fleet = a_fleet(a_reference({an_input("x"): np.arange(50.0)}))
    codec = NativeCodec(fleet, "test")
    before = fleet.dump()
    for i in range(100):
        payload = b'{"model":"%s","features":{"made_up_%d":1}}' % (MODEL.encode(), i)
        fleet.observe(codec.decode(Messages("p0", [payload], NOW)), NOW)

    after = fleet.dump()

    assert {key: len(after[key]) for key in before if "lifetime" in key} == {
        key: len(entry) for key, entry in before.items() if "lifetime" in key
    }
    assert len(after.keys() - before.keys()) == 2, "a pane of traffic and one of drift"
    assert b"made_up" not in b"".join((*map(str.encode, after), *after.values()))
