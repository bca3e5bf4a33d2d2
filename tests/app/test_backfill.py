"""A history is what an exporter would have shown, and at the end of a tumbling window what `replay` says of it."""

import csv
import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from exporter.app.backfill import Pace, moments, pace, record
from exporter.app.build import Choice, build_reference
from exporter.app.config import ConfigError
from exporter.app.labels import read as read_labels
from exporter.app.replay import Found, Replay, parse_window, scores_of
from exporter.ingest.source import Unavailable
from exporter.monitor.reference import Columns, Reference, Resolution
from exporter.monitor.settings import JoinSettings, ModelSettings
from tests.app.commands import HEADER, rows, write_csv

COLUMNS = Columns("y", {"score": "p"}, timestamp="at", id="id")
START = 1_600_000_000
SETTINGS = ModelSettings("m", version="1", alpha=0.001)


def shuffled(parts: Iterator[Sequence[object]]) -> Iterator[Sequence[object]]:
    everything = list(parts)
    random.Random(5).shuffle(everything)
    return iter(everything)


def written(path: Path, table: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two thousand seconds like the reference, a thousand unlike it."""
    folder = tmp_path_factory.mktemp("backfill")
    parts = [*rows(2000, seed=2), *rows(1000, seed=3, drifted=True, start=START + 2000)]
    write_csv(folder / "train.csv", rows(2000, seed=1))
    write_csv(folder / "served.csv", iter(parts))
    write_csv(folder / "shuffled.csv", shuffled(iter(parts)))
    with (folder / "served.jsonl").open("w") as file:
        for number, x, ties, same, colour, y, p, at, _ in parts:
            features = {"x": x, "ties": ties, "same": same, "colour": colour}
            event = {"model": "m", "id": str(number), "timestamp": at, "features": features, "prediction": y}
            file.write(json.dumps({**event, "score": p}) + "\n")
    return folder


@pytest.fixture(scope="module")
def known(folder: Path) -> Reference:
    choice = Choice(COLUMNS, frozenset({"year"}))
    return build_reference(folder / "train.csv", "m", "1", choice, Resolution(), lambda _: None)


def history(path: Path, known: Reference, window: str, step: str | None = None) -> list[Found]:
    spec = parse_window(window)
    return list(moments(Replay(known, SETTINGS, spec, COLUMNS), path, pace(spec, step)))


def predictions(found: Sequence[Found]) -> list[int]:
    return [int(one.view.traffic_lifetime[0]) for one in found]


def test_counters_grow_from_zero_step_by_step(folder: Path, known: Reference):
    found = history(folder / "served.csv", known, "1000s", "250s")
    assert [one.key for one in found] == [START + 250 * step for step in range(13)]
    assert predictions(found) == [250 * step for step in range(13)]
    drift = [one.view.drift_lifetime for one in found]
    assert all((before <= after).all() for before, after in itertools.pairwise(drift))


def test_the_end_of_a_tumbling_window_is_told_as_replay_tells_it(folder: Path, known: Reference):
    sliding = history(folder / "served.csv", known, "1000s", "500s")[2::2]
    tumbling = list(Replay(known, SETTINGS, parse_window("1000s"), COLUMNS).run(folder / "served.csv"))
    assert len(sliding) == len(tumbling) == 3
    for ours, theirs in zip(sliding, tumbling, strict=True):
        told, expected = (msgspec.json.encode(scores_of(one.view)) for one in (ours, theirs))  # NaN is null
        assert told == expected
    assert [one.finding for one in sliding] == [False, False, True]


@pytest.mark.parametrize("name", ["shuffled.csv", "served.jsonl"])
def test_neither_the_order_of_rows_nor_the_format_matters(folder: Path, known: Reference, name: str):
    texts = []
    for path in (folder / "served.csv", folder / name):
        spec = parse_window("10m")
        recording, finding = record(Replay(known, SETTINGS, spec, COLUMNS), path, pace(spec, None))
        assert finding
        texts.append("".join(recording.text()))
    assert texts[0] == texts[1]


def test_labels_count_when_they_would_have_been_joined(tmp_path: Path):
    """Each comes 150 s after its prediction, is joined when that is 200 s old, and every fourth is wrong."""
    columns = msgspec.structs.replace(COLUMNS, label="truth")
    parts = [dict(zip(HEADER, row, strict=True)) for row in rows(2000, seed=2)]
    wrong = [row | {"truth": row["y"] if number % 4 else 1 - row["y"]} for number, row in enumerate(parts)]
    written(tmp_path / "train.csv", [row | {"truth": row["y"]} for row in parts])
    written(tmp_path / "served.csv", parts)
    written(tmp_path / "labels.csv", [{"id": row["id"], "truth": row["truth"], "at": row["at"] + 150} for row in wrong])
    choice = Choice(columns, frozenset({"year"}))
    known = build_reference(tmp_path / "train.csv", "m", "1", choice, Resolution(), lambda _: None)
    found = {}
    for joins in (True, False):
        settings = replace(SETTINGS, join=JoinSettings(200.0) if joins else None)
        labels = read_labels(tmp_path / "labels.csv", columns)
        playing = Replay(known, settings, parse_window("600s"), columns, labels)
        found[joins] = list(moments(playing, tmp_path / "served.csv", pace(playing.window, "300s")))
    assert joined(found[False]) == [0, 200, 500, *[600] * 5]
    # Up to two panes of 10 s and a bucket wait for what may come late, as in a running exporter.
    for now, mature in zip(joined(found[True]), [0, 0, 300, *[600] * 5, 500], strict=True):
        assert mature - 25 <= now <= mature
    assert found[True][-1].view.traffic_lifetime[0] == 2000
    for moments_of in found.values():
        readout = moments_of[7].view.accuracy_readout
        assert readout is not None
        assert readout.values["accuracy"].value == pytest.approx(0.75, abs=0.002)


def joined(found: Sequence[Found]) -> list[int]:
    readouts = [one.view.accuracy_readout for one in found]
    return [0 if one is None else one.labels for one in readouts]


def test_maturity_needs_the_times_of_labels(folder: Path, known: Reference, tmp_path: Path):
    written(tmp_path / "labels.csv", [{"id": 1, "truth": 1}])
    columns = msgspec.structs.replace(COLUMNS, label="truth")
    labels = read_labels(tmp_path / "labels.csv", columns)
    playing = Replay(known, replace(SETTINGS, join=JoinSettings(60.0)), parse_window("600s"), columns, labels)
    with pytest.raises(Unavailable, match="label of 1: no timestamp"):
        list(moments(playing, folder / "served.csv", pace(playing.window, None)))


def test_after_silence_the_window_is_empty_and_no_score_is_told(folder: Path, known: Reference, tmp_path: Path):
    parts = [*rows(1000, seed=2), *rows(1000, seed=3, start=START + 10_000)]
    found = history(write_csv(tmp_path / "gap.csv", iter(parts)), known, "1000s", "1000s")
    assert [one.view.traffic_readout.predictions for one in found] == [0, 1000, *[0] * 9, 1000]
    told = [any(not math.isnan(one["psi"] or math.nan) for one in scores_of(one.view)) for one in found]
    assert told == [False, True, *[False] * 9, True]


def test_faults_are_found_however_rarely_one_looks(folder: Path, known: Reference, tmp_path: Path):
    broken = [[*row[:1], "" if number >= 300 else row[1], *row[2:]] for number, row in enumerate(rows(2000, seed=2))]
    path = write_csv(tmp_path / "broken.csv", iter(broken))
    for step in ("100s", "2000s"):
        assert any(history(path, known, "1000s", step)[-1].view.faults), step


def test_a_step_is_a_twelfth_of_the_window_and_the_clock_never_goes_faster():
    assert pace(parse_window("1h"), None) == Pace(300, 1)
    assert pace(parse_window("1h"), "5m").stride_s == 300
    assert pace(parse_window("1h"), "2h") == Pace(7200, 24)
    for window in ("5000", "column:year"):
        with pytest.raises(ValueError, match=f"windows of event time .1h., found '{window}'"):
            pace(parse_window(window), None)


def test_what_has_no_place_in_a_history_is_refused(folder: Path, known: Reference, tmp_path: Path):
    spec = parse_window("1h")
    timeless = Replay(known, SETTINGS, spec, msgspec.structs.replace(COLUMNS, timestamp=None))
    with pytest.raises(ConfigError, match="rows without a timestamp are in no history"):
        list(moments(timeless, folder / "served.csv", pace(spec, None)))
    parts = [*rows(10, seed=2), *rows(10, seed=3, start=START + 3600 * 24 * 365 * 30)]
    with pytest.raises(ConfigError, match=r"from 2020-09-13T12:.* to 2050-.*is too long"):
        history(write_csv(tmp_path / "far.csv", iter(parts)), known, "1h")
