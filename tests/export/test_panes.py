import json

import msgspec
import numpy as np

from exporter.export.panes import panes
from exporter.monitor.traffic import LATENCY_BUCKETS_S
from tests.builders import COLOUR, NOW, X, a_fleet, a_reference, observe

START = NOW - NOW % 60


def test_what_a_judge_gets():
    known = a_reference({X: np.arange(100.0), COLOUR: ["red", "blue"] * 50})
    fleet = a_fleet(known)
    for minute in range(4):
        time = START + 60 * minute
        columns = {X: [5.0, 95.0, np.nan], COLOUR: ["red", "red", "mauve"]}
        observe(fleet, columns, time=time, latency_s=[0.002, 0.2, 60.0], error=[-1, -1, 0])
        fleet.tick(time)

    answer = json.loads(msgspec.json.encode(panes(fleet.archived(START + 60))))

    assert answer["latency_bounds"] == list(LATENCY_BUCKETS_S)
    (version,) = answer["versions"]
    assert (version["model"], version["version"], version["reference"]) == ("car_loan", "1", known.id)
    assert version["seconds"] == 60
    numbers, colours = version["features"]
    assert (numbers["kind"], numbers["feature"], colours["feature"]) == ("input", "x", "colour")
    assert colours["bins"] == ["=blue", "=red", "other", "unseen", "invalid", "missing"]
    (pane,) = version["panes"]
    assert (pane["start"], pane["predictions"], pane["errors"]) == (START + 60, 3, {"timeout": 1})
    assert len(pane["latency"]) == len(LATENCY_BUCKETS_S) + 1
    assert (sum(pane["latency"]), pane["latency"][-1]) == (3, 1)
    assert pane["bins"][1] == [0, 2, 0, 1, 0, 0]
    seen = dict(zip(numbers["bins"], pane["bins"][0], strict=True))
    assert {name: count for name, count in seen.items() if count} == {"00": 1, "09": 1, "missing": 1}


def test_a_model_without_a_reference_has_no_features():
    fleet = a_fleet()
    for minute in range(4):
        observe(fleet, rows=1, time=START + 60 * minute)
        fleet.tick(START + 60 * minute)
    (version,) = panes(fleet.archived(0))["versions"]
    assert (version["reference"], version["features"]) == (None, [])
    assert [pane["bins"] for pane in version["panes"]] == [[], []]
