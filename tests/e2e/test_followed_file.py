"""A followed file: every line counts once, through appending, rotation and truncation."""

import json
from pathlib import Path

import pytest

from tests.e2e import stories
from tests.e2e.running import Running, run
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e


def lines(count: int, seed: int) -> str:
    return "".join(json.dumps(event) + "\n" for event in stories.predictions(count, seed=seed))


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def counted(exporter: Running, total: int) -> None:
    def reached() -> bool:
        value = exporter.value("ml_predictions_total", model=stories.MODEL) or 0
        assert value <= total, f"{value:g} predictions of {total}"
        return value == total

    eventually(reached, f"{total} predictions")


def test_lines_are_counted_once_through_appending_rotation_and_truncation(tmp_path):
    path = tmp_path / "events.jsonl"
    source = {"type": "file", "path": "events.jsonl", "follow": True}
    with run(tmp_path, [stories.MODEL_CONFIG], [stories.reference()], sources=[source]) as exporter:
        assert exporter.value("ml_predictions_total", model=stories.MODEL) == 0

        append(path, lines(100, seed=1))
        counted(exporter, 100)

        whole = lines(51, seed=2)
        append(path, whole[:-40])
        counted(exporter, 150)
        append(path, whole[-40:])
        counted(exporter, 151)

        append(path, lines(20, seed=3) + lines(1, seed=4).rstrip("\n"))  # the last line was never ended
        path.rename(tmp_path / "events.jsonl.1")
        append(path, lines(30, seed=5))
        counted(exporter, 202)

        path.write_text(lines(10, seed=6))
        counted(exporter, 212)
        append(path, "not JSON\n\n" + lines(1, seed=7))
        counted(exporter, 213)

        assert exporter.value("ml_ingest_rejected_total", reason="malformed_json") == 1
        assert exporter.value("ml_ingest_events_total", source="file") == 214


def test_a_file_and_posted_events_are_counted_together_and_told_apart(tmp_path):
    append(tmp_path / "events.jsonl", lines(40, seed=1))
    sources = [{"type": "http"}, {"type": "file", "path": "events.jsonl"}]
    with run(tmp_path, [stories.MODEL_CONFIG], [stories.reference()], sources=sources) as exporter:
        counted(exporter, 40)
        exporter.post(stories.predictions(60, seed=2))
        counted(exporter, 100)
        assert exporter.value("ml_ingest_events_total", source="file") == 40
        assert exporter.value("ml_ingest_events_total", source="http") == 60
