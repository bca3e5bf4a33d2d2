import json
from pathlib import Path

import numpy as np
import pytest

from exporter.app.labels import Labels, read
from exporter.ingest.source import Table, Unavailable
from exporter.monitor.reference import Columns

COLUMNS = Columns(label="repaid", id="id", timestamp="at")


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def labels(path: Path, text: str, columns: Columns = COLUMNS) -> dict[str, object]:
    return read(write(path / "labels.csv", text), columns).by_id


class TestReading:
    def test_what_was_true_by_id(self, tmp_path: Path):
        assert labels(tmp_path, "id,repaid,more\na,1,x\nb,0,y\n") == {"a": "1", "b": "0"}

    def test_missing_labels_and_ids_are_none(self, tmp_path: Path):
        assert labels(tmp_path, "id,repaid\na,\n,1\nb,NaN\nc,1\n") == {"c": "1"}

    def test_the_last_one_stands_without_times(self, tmp_path: Path):
        assert labels(tmp_path, "id,repaid\na,1\na,0\n") == {"a": "0"}

    def test_with_times_it_is_the_newest_wherever_it_stands(self, tmp_path: Path):
        text = "id,repaid,at\na,1,2026-01-02T00:00:00Z\na,0,2026-01-01T00:00:00Z\nb,1,1700000001\nb,0,1700000000\n"
        assert labels(tmp_path, text) == {"a": "1", "b": "1"}

    def test_times_of_digits_are_read_by_their_format(self, tmp_path: Path):
        columns = Columns(label="repaid", id="id", timestamp="at", timestamp_format="%d%m%Y")
        assert labels(tmp_path, "id,repaid,at\na,1,01022026\na,0,31012026\n", columns) == {"a": "1"}

    def test_jsonl_names_its_fields_itself(self, tmp_path: Path):
        events = [
            {"model": "m", "id": 7, "label": 1, "timestamp": 5},
            {"id": "8", "label": None},
            {"id": "9", "label": 0},
        ]
        path = write(tmp_path / "labels.jsonl", "".join(json.dumps(event) + "\n" for event in events))
        assert read(path, COLUMNS).by_id == {"7": 1, "9": 0}

    def test_nor_do_times_of_jsonl_follow_the_format_of_a_table(self, tmp_path: Path):
        columns = Columns(label="repaid", id="id", timestamp="at", timestamp_format="%d%m%Y")
        events = [{"id": "a", "label": 2 - day, "timestamp": f"2026-02-0{day}T00:00:00Z"} for day in (2, 1)]
        path = write(tmp_path / "labels.jsonl", "".join(json.dumps(event) + "\n" for event in events))
        assert read(path, columns).by_id == {"a": 0}

    @pytest.mark.parametrize("name", ["id", "repaid"])
    def test_a_column_that_is_not_there_is_named(self, tmp_path: Path, name: str):
        with pytest.raises(Unavailable, match=rf"labels\.csv: no column {name}; there are other"):
            labels(tmp_path, "other\n1\n" if name == "id" else "other,id\n1,2\n")


class TestJoining:
    def test_fills_the_column_of_labels_by_id_whatever_its_spelling(self):
        joined = Labels(COLUMNS, {"7": "1", "8": "0", "nobody": "1"})
        table = Table("file", {"id": np.array([8.0, 7.0, 9.0]), "x": ["a", "b", "c"]}, 3, 0.0)
        assert joined.into_table(table).columns["repaid"] == ["0", "1", None]
        assert joined.unmatched == 1

    def test_needs_a_column_of_ids(self):
        with pytest.raises(Unavailable, match="predictions: no column id; there are x"):
            Labels(COLUMNS, {}).into_table(Table("predictions", {"x": ["a"]}, 1, 0.0))

    def test_fills_events_too_and_leaves_what_is_none(self):
        joined = Labels(COLUMNS, {"7": 1})
        lines = [b'{"id":"7","x":NaN}', b'{"id":"8"}', b"{", b"[1]", b'{"x":NaN}', b'{"id":[7]}']
        assert joined.into_lines(lines) == [b'{"id":"7","x":null,"label":1}', *lines[1:]]
        assert joined.unmatched == 0
