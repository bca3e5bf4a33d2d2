from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.catalog import metrics
from exporter.monitor import reference, state
from exporter.monitor.events import FeatureKey
from exporter.monitor.fleet import Fleet
from exporter.monitor.settings import ModelSettings
from exporter.monitor.state import BLOCK_ROWS, BadState, Place, pack, pack_rows
from tests.builders import COLOUR, MODEL, NOW, X, a_fleet, a_reference, columns_of, observe, values_of, view

CELLS: dict[str, Any] = {"traffic": np.int64, "drift": np.uint32, "accuracy": np.int64, "moments": np.int64}
LIGHT = '["fleet"]'

names = st.text(min_size=1, max_size=5) | st.sampled_from(['"', ",", '","', "]", "[", "a", "1", "\\", "\u2028", "é"])
places = st.tuples(names, names, names)
pieces = st.integers(-3, 3) | names


@given(places, pieces, places, pieces)
def test_no_two_pieces_have_one_key(one: Place, first: int | str, other: Place, second: int | str):
    assert (state.key(one, first) == state.key(other, second)) == ((one, first) == (other, second))


@given(st.lists(st.integers(0, 2**63 - 1) | st.integers(0, 300) | st.sampled_from([255, 256, 65_535, 65_536, 2**32])))
def test_counts_are_as_narrow_as_they_can_be_and_come_back(counts: list[int]):
    packed = pack(np.array(counts, np.int64))

    assert state._unpack(packed, len(counts), 2**63 - 1).tolist() == counts
    size = (len(packed) - 1) // max(len(counts), 1)
    assert size in (0, 1, 2, 4, 8)
    assert size <= 1 or max(counts) >= 256 ** (size // 2)


def lived() -> Fleet:
    """A fleet with an entry of every kind."""
    learning = ModelSettings("learning", version="1", learn=1000)
    learned = ModelSettings("learned", version="1", learn=1000)
    settings = [ModelSettings(MODEL, version="1"), learning, learned]
    fleet = Fleet(settings, {MODEL: [a_reference()]})
    observe(fleet, columns_of(100), partition="a")
    observe(fleet, columns_of(100), partition="b", time=NOW + 60)
    observe(fleet, rows=300, model="learning", raw=[{X: 1.0, COLOUR: "red"}] * 300)
    for partition in "ab":
        observe(fleet, columns_of(1), partition=partition, time=NOW + 180)
    fleet.tick(NOW + 180)
    fleet.adopt("learned", [a_reference({X: np.arange(9.0)}, model="learned")])
    observe(fleet, {X: [1.0]}, model="learned")
    return fleet


ENTRIES = lived().dump()


def edited(path: list[Any], value: Any) -> dict[str, bytes]:
    """The entries with a value of the light one replaced."""
    light = msgspec.msgpack.decode(ENTRIES[LIGHT])
    part = light
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value
    return ENTRIES | {LIGHT: msgspec.msgpack.encode(light)}


def the(*parts: str) -> str:
    (found,) = [key for key in ENTRIES if all(part in key for part in parts)]
    return found


def without(key: str) -> dict[str, bytes]:
    return {name: entry for name, entry in ENTRIES.items() if name != key}


MODELS, FEEDS = [1, 0], [1, 1]
VERSION_1 = [*MODELS, MODEL, 5, "1"]
PANE = int(NOW // 60)
DOCUMENT = ENTRIES[the("reference")]
other_reference = reference.encode(a_reference({X: np.arange(8.0)}, model="learned"))
drift_width = len(ENTRIES[the("drift", MODEL, "lifetime")]) - 1
traffic = the("traffic", MODEL, "lifetime")
EVIDENCE = ENTRIES[the("faults", MODEL)]
RATES = msgspec.msgpack.decode(ENTRIES[LIGHT])[1][0][MODEL][5]["1"][11][0]
NAN, INFINITE = np.float64(np.nan).tobytes(), np.float64(np.inf).tobytes()

MALFORMED = {
    "nothing": ({}, "the entry of the fleet is missing"),
    "no light entry": (without(LIGHT), "the entry of the fleet is missing"),
    "no msgpack": (ENTRIES | {LIGHT: b"\xc1"}, "cannot be read"),
    "no text": (ENTRIES | {LIGHT: ENTRIES[LIGHT].replace(b"car_loan", b"car_\xff\xffan")}, "cannot be read"),
    "of another shape": (edited([1], {}), "cannot be read"),
    "one field more": (edited(VERSION_1, [*msgspec.msgpack.decode(ENTRIES[LIGHT])[1][0][MODEL][5]["1"], 1]), "read"),
    "no number": (edited([*VERSION_1, 1], float("nan")), "cannot be read"),
    "no moment": (edited([*MODELS, MODEL, 3], {"a": [1e300, 0.0]}), "cannot be read"),
    "a negative sum": (edited([*FEEDS, "http", 0], -1), "cannot be read"),
    "too large a sum": (edited([*FEEDS, "http", 1], {"too_deep": 2**63}), "cannot be read"),
    "no panes": (edited([*MODELS, MODEL, 1], 0), "cannot be read"),
    "no length of a pane": (edited([*MODELS, MODEL, 0], 0.0), "cannot be read"),
    "a window that ends nowhere": (edited([*MODELS, MODEL, 2], 2**62), "window ends"),
    "a pane outside": (edited([*VERSION_1, 5, 1], [PANE - 60]), "outside of its window"),
    "a pane ahead": (edited([*VERSION_1, 5, 1], [PANE + 65]), "outside of its window"),
    "a pane twice": (edited([*VERSION_1, 5, 1], [PANE, PANE]), "there twice"),
    "a lost vector": (without(traffic), "is missing"),
    "a lost pane": (without(the("drift", str(PANE + 1))), "is missing"),
    "a short vector": (ENTRIES | {traffic: ENTRIES[traffic][:-1]}, "counts expected"),
    "an empty vector": (ENTRIES | {traffic: b""}, "counts expected"),
    "a vector of strange numbers": (ENTRIES | {traffic: b"\x03" + bytes(72)}, "counts expected"),
    "another width": (edited([*VERSION_1, 6, 0], drift_width + 1), "counts expected"),
    "too large a count": (
        ENTRIES | {the("drift", str(PANE + 1)): b"\x08" + np.full(drift_width, 2**32).tobytes()},
        "count is too large",
    ),
    "a negative count": (
        ENTRIES | {traffic: b"\x08" + np.full(len(ENTRIES[traffic]) - 1, -1).tobytes()},
        "count is too large",
    ),
    "an entry too many": (ENTRIES | {'["drift","x","1",7]': b""}, r"1 entries too many, \[\"drift\",\"x\""),
    "a span twice": (edited([*VERSION_1, 9, 2], [1, 1]), "or there twice"),
    "a lost span": (without(the("archive", MODEL, f",{PANE}]")), "is missing"),
    "more spans than entries": (edited([*VERSION_1, 9, 2], list(range(1000))), "spans of car_loan 1 are missing"),
    "lost evidence": (without(the("faults", MODEL)), "is missing"),
    "short evidence": (ENTRIES | {the("faults", MODEL): EVIDENCE[:-1]}, "rates expected"),
    "evidence of too few": (edited([*VERSION_1, 11, 0], 1), "1 rates expected"),
    "evidence of too many": (edited([*VERSION_1, 11, 0], 2**62), "rates expected"),
    "evidence that is no number": (ENTRIES | {the("faults", MODEL): NAN + EVIDENCE[8:]}, "no evidence can be such"),
    "infinite evidence": (ENTRIES | {the("faults", MODEL): INFINITE + EVIDENCE[8:]}, "no evidence can be such"),
    "a fault that began after its alarm": (
        ENTRIES | {the("faults", MODEL): EVIDENCE[:-8] + np.int64(PANE).tobytes()},
        "no evidence can be such",
    ),
    "an alarm to come": (
        ENTRIES | {the("faults", MODEL): EVIDENCE[: -16 * RATES] + np.full(2 * RATES, PANE + 4).tobytes()},
        "panes to come",
    ),
    "evidence of panes to come": (edited([*VERSION_1, 11, 1], PANE + 4), "panes to come"),
    "a lost reference": (without(the("reference")), "is missing"),
    "a reference with a flaw": (ENTRIES | {the("reference"): DOCUMENT.replace(b'"rows": 9', b'"rows": 8')}, "damaged"),
    "another reference": (ENTRIES | {the("reference"): other_reference}, "not those that were learned"),
    "no reference at all": (ENTRIES | {the("reference"): b"\xff"}, "not a reference"),
    "lost rows": (without(the('"learner"', "1]")), "is missing"),
    "rows without number": (edited([*MODELS, "learning", 5, "1", 10], 2**62), "rows of learning 1 are missing"),
    "more rows than were seen": (edited([*MODELS, "learning", 5, "1", 10], BLOCK_ROWS + 1), "more rows or features"),
    "no rows": (ENTRIES | {the('"learner"', "0]"): b"\xc1"}, "rows cannot be read"),
    "rows of no feature": (ENTRIES | {the('"learner"', "0]"): msgspec.msgpack.encode([("x", "x", [])])}, "be read"),
    "a feature twice": (
        ENTRIES | {the('"learner"', "0]"): msgspec.msgpack.encode([("input", "x", [])] * 2)},
        "a feature twice",
    ),
    "too many features": (
        ENTRIES | {the('"learner"', "0]"): pack_rows({FeatureKey("input", str(i)): [1] for i in range(501)})},
        "more rows or features",
    ),
    "a strange list": (ENTRIES | {the('"learner"', "0]"): pack_rows({X: [["x"]]})}, "stands for nothing"),
    "a huge integer": (ENTRIES | {the('"learner"', "0]"): pack_rows({X: [["f" * 10**6]]})}, "stands for nothing"),
}


@pytest.mark.parametrize(("entries", "why"), MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed_is_refused_and_says_why(entries: dict[str, bytes], why: str):
    with pytest.raises(BadState, match=why) as caught:
        state.read(entries, CELLS)

    assert len(str(caught.value)) < 1000


def test_a_state_is_read_whole_whatever_the_settings():
    saved = state.read(ENTRIES, CELLS)
    assert set(saved.fleet.models) == {MODEL, "learning", "learned"}

    fleet = a_fleet(learn=100)  # neither of the others, and no reference
    fleet.load(ENTRIES)
    assert values_of(fleet.tick(NOW), metrics.PREDICTIONS, version="1")[MODEL,] == 202
    assert view(fleet.tick(NOW)).reference is None
