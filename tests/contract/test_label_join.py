"""Real predictions and labels, each an event of its own, through codec and fleet: what is published comes out."""

import csv
import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.app.build import Choice, build_reference
from exporter.ingest.native import NativeCodec
from exporter.ingest.source import Messages
from exporter.monitor.accuracy import AccuracyReadout
from exporter.monitor.fleet import Fleet
from exporter.monitor.reference import Reference, Resolution
from exporter.monitor.settings import JoinSettings, ModelSettings
from tests.app import test_replay
from tests.app.test_replay import DATA
from tests.e2e.lengthy import long
from tests.monitor.joining import DAY, account, look

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the data are not there")

CAR_LOAN = test_replay.TestCarLoan
MODEL = "car_loan"
START = 20_000 * DAY
MATURITY_S = 30 * DAY
CHUNK, AT_ONCE = 5000, 500


@cache
def known() -> Reference:
    choice = Choice(CAR_LOAN.columns, frozenset({"id", "timestamp"}))
    return build_reference(CAR_LOAN.reference, MODEL, "1", choice, Resolution(score_bins=101), lambda _: None)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def events(rng: random.Random) -> list[tuple[float, dict[str, Any]]]:
    """A chunk a day; labels up to 30 days later, one in twenty twice, one in fifty wrong at first. By time."""
    found: list[tuple[float, dict[str, Any]]] = []
    for place, (row, label) in enumerate(zip(rows(CAR_LOAN.current), rows(CAR_LOAN.labels), strict=True)):
        time = START + place * DAY / CHUNK
        answer = {"prediction": int(row["y_pred"]), "score": float(row["y_pred_proba"])}
        found.append((time, {"id": int(row["id"]), "features": {"car_value": float(row["car_value"])}, **answer}))
        known = time + rng.uniform(60, MATURITY_S - 60)
        if rng.random() < 0.02:
            found.append((known - 30, {"id": label["id"], "label": "10"[int(label["repaid"])]}))
        found += [(known, {"id": label["id"], "label": label["repaid"]})] * (2 if rng.random() < 0.05 else 1)
    return sorted(found, key=lambda event: event[0])


@long
def test_labels_of_their_own_give_the_published_numbers_of_every_chunk():
    settings = ModelSettings(MODEL, version="1", join=JoinSettings(MATURITY_S))
    fleet = Fleet([settings], {MODEL: [known()]})
    codec = NativeCodec(fleet, "test")
    stream = [
        (time, json.dumps({"model": MODEL, "timestamp": time, **event}).encode())
        for time, event in events(random.Random(5))
    ]
    before = lifetime(fleet, START)
    readouts: list[AccuracyReadout] = []
    place = 0
    for day in range(1, 42):
        until = START + day * DAY
        while place < len(stream) and stream[place][0] < until:
            last = min(place + AT_ONCE, len(stream))
            while stream[last - 1][0] >= until:
                last -= 1
            part = stream[place:last]
            fleet.observe(codec.decode(Messages("p0", [event for _, event in part], part[-1][0])), part[-1][0])
            place = last
        if day > 30:
            for later in (until + 180, until + 300):  # the window's panes are a minute long, and one is waited for
                look(fleet, later, ())
            tracker, after = tracker_and_lifetime(fleet, until + 300)
            readouts.append(tracker.read(after - before))
            before = after
    readouts = [one for one in readouts if one.labels]
    assert [one.labels for one in readouts] == [CHUNK] * 10
    assert [round(one.values["accuracy"].value, 4) for one in readouts] == CAR_LOAN.accuracies
    assert [round(one.values["roc_auc"].value, 6) for one in readouts] == CAR_LOAN.areas
    tally = account(fleet, START + 41 * DAY).tally
    assert (tally.unmatched, tally.late) == (0, 0)
    assert tally.duplicate == pytest.approx(2500, abs=200)
    assert tally.corrected == pytest.approx(1000, abs=120)
    assert tally.received == 50_000 + tally.duplicate + tally.corrected


def tracker_and_lifetime(fleet: Fleet, now: float) -> Any:
    (view,) = fleet.tick(now).models
    return view.accuracy, view.accuracy_lifetime


def lifetime(fleet: Fleet, now: float) -> np.ndarray:
    return tracker_and_lifetime(fleet, now)[1]
