import csv
import datetime as dt
import decimal
import io
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from exporter.ingest import tables
from exporter.ingest.native import NativeCodec
from exporter.ingest.source import Messages, Table, Unavailable
from exporter.ingest.tables import MISSING_TEXTS, TableCodec
from exporter.monitor.events import MISSING, NON_FINITE_NUMBER, UNSEEN, WRONG_TYPE_NUMBER, Decoded, FeatureKey
from exporter.monitor.fleet import Fleet
from exporter.monitor.reference import Columns, Reference
from exporter.monitor.settings import Segmentation
from tests.builders import MODEL, NOW, PREDICTION, SCORE, X, a_fleet, a_reference

GRADE = FeatureKey("input", "grade")
FLAG = FeatureKey("input", "flag")
MAPPING = Columns(prediction="y", scores={"score": "p"}, timestamp="at")
UTC = dt.UTC


def a_graded_reference() -> Reference:
    """Grades are categories that look like numbers, as integer codes do."""
    return a_reference(
        {
            X: np.arange(100.0),
            GRADE: ["1", "2", "3", "x"] * 25,
            FLAG: ["true", "false"] * 50,
            PREDICTION: ["0", "1"] * 50,
            SCORE: np.linspace(0, 1, 100),
        }
    )


@cache
def fleet() -> Fleet:
    """Only its schema is used, so that all tests can share it."""
    return a_fleet(a_graded_reference(), segments=(Segmentation("grade"),))


def decode(table: Table, columns: Columns = MAPPING) -> Decoded:
    return TableCodec(fleet(), "file", MODEL, "1", columns).decode(table)


def a_table(**columns: Sequence[object]) -> Table:
    return Table("p", columns, len(next(iter(columns.values()))), NOW)


def column(decoded: Decoded, key: FeatureKey) -> list[float]:
    (batch,) = decoded.batches
    schema = batch.schema
    if key in schema.numeric:
        return batch.numeric[:, schema.numeric.index(key)].tolist()
    return batch.codes[:, schema.categorical.index(key)].tolist()


def read(path: Path) -> dict[str, list[object]]:
    read: dict[str, list[object]] = {}
    for table in tables.read(path):
        for name, cells in table.columns.items():
            read.setdefault(name, []).extend(cells)
    return read


def test_a_format_that_is_given_counts_for_more_than_the_name(tmp_path: Path):
    path = tmp_path / "export.parquet.2026-11-23"
    path.write_bytes(b"x\n1\n")
    (table,) = tables.read(path, "csv")
    assert table.columns == {"x": ["1"]}


class TestCsv:
    def test_quoted_cells_may_hold_anything_even_where_a_table_is_cut(self, tmp_path: Path):
        path = tmp_path / "t.csv"
        rows = [("1", 'say "hi", twice'), ("2", "two\nlines"), *((str(i), "a\r\nb\nc") for i in range(3, 9000))]
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("x", "text"), *rows])
        whole = read(path)
        assert list(zip(whole["x"], whole["text"], strict=True)) == rows

    def test_rows_with_another_number_of_cells_are_rejected_and_blank_lines_are_none(self, tmp_path: Path):
        path = tmp_path / "t.csv"
        path.write_text("x,y\n1,2\n3\n\n4,5,6\n7,8\n")
        (table,) = tables.read(path)
        assert table.columns == {"x": ["1", "7"], "y": ["2", "8"]}
        assert [(one.reason, one.detail) for one in table.rejects] == [
            ("malformed_row", "1 cells where the header has 2"),
            ("malformed_row", "3 cells where the header has 2"),
        ]

    def test_a_byte_order_mark_is_no_part_of_the_first_name(self, tmp_path: Path):
        path = tmp_path / "t.csv"
        path.write_bytes(b"\xef\xbb\xbfx\r\n1\r\n")
        assert read(path) == {"x": ["1"]}

    def test_a_cell_too_large_for_the_reader_costs_its_row_only(self, tmp_path: Path):
        path = tmp_path / "t.csv"
        path.write_text("x\n1\n" + "9" * 200_000 + "\n2\n")
        (table,) = tables.read(path)
        assert (table.columns, [one.reason for one in table.rejects]) == ({"x": ["1", "2"]}, ["malformed_row"])


class TestParquet:
    def write(self, tmp_path: Path, **columns: Any) -> Path:
        path = tmp_path / "t.parquet"
        parquet.write_table(pa.table(columns), path)
        return path

    def test_columns_become_values_of_their_kind(self, tmp_path: Path):
        path = self.write(
            tmp_path,
            whole=pa.array([1, None]),
            single=pa.array([1.5, 2.5], pa.float32()),
            money=pa.array([decimal.Decimal("1.25"), None]),
            yes=pa.array([True, None]),
            text=pa.array(["a", None]).dictionary_encode(),
        )
        found = read(path)
        assert [tables.is_missing(value) for value in found["whole"]] == [False, True]
        assert found["whole"][0] == 1
        assert found["single"] == [1.5, 2.5]
        assert found["money"][0] == 1.25
        assert found["yes"] == [True, None]
        assert found["text"] == ["a", None]

    def test_an_id_of_64_bits_keeps_every_digit(self, tmp_path: Path):
        ids = [2**60 + 1, 2**60 + 2]
        assert read(self.write(tmp_path, id=pa.array(ids)))["id"] == ids

    def test_times_in_nanoseconds_are_read(self, tmp_path: Path):
        moment = dt.datetime(2018, 10, 30, 18, tzinfo=UTC)
        nanoseconds = int(moment.timestamp()) * 10**9 + 1
        path = self.write(tmp_path, at=pa.array([nanoseconds], pa.timestamp("ns", "UTC")))
        assert read(path)["at"] == [moment]

    def test_many_rows_come_in_parts_of_one_order(self, tmp_path: Path):
        path = self.write(tmp_path, x=pa.array(range(10_000)))
        assert len(list(tables.read(path))) > 1
        assert read(path)["x"] == list(range(10_000))


class TestJsonl:
    def test_nested_features_become_columns_and_lines_that_are_no_objects_rejects(self, tmp_path: Path):
        path = tmp_path / "t.jsonl"
        path.write_bytes(b'{"id":"a","features":{"x":1}}\n[]\n\n{"id":"b","features":{"y":"z"},"label":1}\n\xff\n')
        (table,) = tables.read(path)
        assert table.columns == {"id": ["a", "b"], "x": [1, None], "y": [None, "z"], "label": [None, 1]}
        assert [(one.reason, one.detail) for one in table.rejects] == [
            ("malformed_json", "line 2 is no JSON object"),
            ("malformed_json", "line 5 is no JSON object"),
        ]


class TestUnreadable:
    @pytest.mark.parametrize(
        "name, content, message",
        [
            ("none.csv", None, "cannot read .*none.csv: No such file"),
            ("t.txt", b"x\n1\n", "t.txt: unknown format .txt; expected .csv"),
            ("plain", b"x\n1\n", r"plain: unknown format \(none\)"),
            ("empty.csv", b"", "empty.csv: empty, a header line expected"),
            ("latin.csv", b"x\n\xe9\n", "cannot read .*latin.csv: invalid UTF-8 at byte 2"),
            ("csv.parquet", b"x,y\n1,2\n", "csv.parquet: cannot be read as Parquet: "),
            ("empty.parquet", b"", "empty.parquet: cannot be read as Parquet: "),
        ],
    )
    def test_the_file_and_the_reason_are_named(self, tmp_path: Path, name: str, content: bytes | None, message: str):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(Unavailable, match=message) as failed:
            list(tables.read(tmp_path / name))
        assert len(str(failed.value).splitlines()) == 1


class TestCells:
    @pytest.mark.parametrize("text", sorted(MISSING_TEXTS))
    def test_every_spelling_of_missing(self, text: str):
        found = decode(a_table(x=[text], grade=[text], y=[text], p=[text]))
        assert math.isnan(column(found, X)[0])
        assert math.isnan(column(found, SCORE)[0])
        assert column(found, GRADE) == column(found, PREDICTION) == [MISSING]

    def test_a_number_is_one_whatever_its_spelling_and_a_fault_else(self):
        cells = ["12", " 1e3", "-0.5", "inf", "-Infinity", "twelve", True, [], 10**400, 7, 2.5]
        assert column(decode(a_table(x=cells)), X) == [
            *(12, 1000, -0.5),
            *(NON_FINITE_NUMBER,) * 2,
            *(WRONG_TYPE_NUMBER,) * 3,
            *(NON_FINITE_NUMBER, 7, 2.5),
        ]

    @pytest.mark.parametrize("spelling", ["3", "3.0", 3, 3.0])
    def test_the_category_3_is_one_whatever_its_spelling(self, spelling: object):
        assert column(decode(a_table(grade=[spelling])), GRADE) == [fleet().schema(MODEL).vocabularies[0]["3"]]

    @pytest.mark.parametrize("spelling", ["true", "True", "TRUE", True])
    def test_so_is_the_category_true(self, spelling: object):
        assert column(decode(a_table(flag=[spelling])), FLAG) == [fleet().schema(MODEL).vocabularies[1]["true"]]

    def test_an_unknown_category_is_unseen_and_a_column_that_is_not_there_missing(self):
        found = decode(a_table(grade=["4", "3.5"]))
        assert column(found, GRADE) == [UNSEEN, UNSEEN]
        assert column(found, PREDICTION) == [MISSING, MISSING]

    def test_a_column_of_texts_is_one_of_numbers_when_nearly_all_of_them_are(self):
        assert tables.typed(["1", "", "2.5"] * 10 + ["?"]) == [1.0, None, 2.5] * 10 + ["?"]
        assert tables.typed(["1", "NA", "x", "02"]) == [1.0, None, "x", "02"]

    def test_a_category_keeps_its_leading_zeros(self):
        assert tables.typed(["02139", "501", "3.0", "1e3", "9" * 20], categorical=True) == [
            *("02139", 501.0, 3.0, "1e3", "9" * 20)
        ]
        assert column(decode(a_table(grade=["03", "3"])), GRADE) == [UNSEEN, fleet().schema(MODEL).vocabularies[0]["3"]]


class TestTime:
    @pytest.mark.parametrize(
        "value",
        [
            "2018-10-30 18:00:00.000",
            "2018-10-30T18:00:00Z",
            "2018-10-30T19:00:00+01:00",
            "1540922400",
            "1540922400000",
            1540922400,
            dt.datetime(2018, 10, 30, 18, tzinfo=UTC),
            dt.datetime(2018, 10, 30, 18),  # noqa: DTZ001 - naive means UTC
        ],
    )
    def test_every_way_to_write_a_moment(self, value: object):
        (batch,) = decode(a_table(at=[value])).batches
        assert batch.time.tolist() == [1540922400.0]

    @pytest.mark.parametrize(
        "time_format, text",
        [("%d.%m.%Y %H:%M", "30.10.2018 18:00"), ("%Y%m%d%H", "2018103018"), ("%Y%m%d", "20181030")],
    )
    def test_a_format_of_its_own(self, time_format: str, text: str):
        mapping = Columns(timestamp="at", timestamp_format=time_format)
        (batch,) = decode(a_table(at=[text]), mapping).batches
        assert batch.time[0] in (1540922400.0, 1540922400.0 - 18 * 3600)

    def test_without_a_column_of_times_rows_are_of_their_arrival(self):
        (batch,) = decode(a_table(x=[1, 2]), Columns()).batches
        assert batch.time.tolist() == [NOW, NOW]

    def test_rows_with_an_impossible_time_are_rejected_and_their_neighbours_kept(self):
        bad = ["", None, "yesterday", "NaN", "-1", 1e300, float("nan"), True, "2018-13-01", "9" * 400]
        table = a_table(at=["1540922400", *bad, "1540922460"], x=[1.0, *[5.0] * len(bad), 2.0])
        found = decode(table)
        assert found.events == len(bad) + 2
        assert [(one.index, one.reason) for one in found.rejects] == [
            (place, "invalid_timestamp") for place in range(1, len(bad) + 1)
        ]
        assert column(found, X) == [1.0, 2.0]
        assert found.batches[0].time.tolist() == [1540922400.0, 1540922460.0]


ROWS = st.fixed_dictionaries(
    {
        "x": st.none() | st.integers(-(10**6), 10**6) | st.floats(allow_nan=False, allow_infinity=False),
        "grade": st.none() | st.integers(0, 5) | st.sampled_from(["1", "01", "1e0", "x", "other"]) | st.floats(0, 5),
        "flag": st.none() | st.booleans() | st.sampled_from(["true", "TRUE", "yes"]),
        "y": st.none() | st.integers(0, 2),
        "p": st.none() | st.floats(0, 1),
        "at": st.integers(0, 2 * 10**9),
    }
)


@given(st.lists(ROWS, min_size=1, max_size=20))
def test_rows_of_csv_and_native_events_become_equal_columns(rows: list[Mapping[str, object]]):
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    header, *lines = text.getvalue().splitlines()
    table = tables.table_of_csv(tables.csv_header(header), lines, "p", NOW, "")
    of_rows = decode(table)
    events = [
        {
            "model": MODEL,
            "timestamp": row["at"],
            "features": {name: row[name] for name in ("x", "grade", "flag")},
            "prediction": row["y"],
            "score": row["p"],
            "tags": {"grade": row["grade"]},
        }
        for row in rows
    ]
    of_events = NativeCodec(fleet(), "file").decode(Messages("p", [json.dumps(one).encode() for one in events], NOW))
    assert of_rows.events == of_events.events == len(rows)
    assert not of_rows.rejects
    assert not of_events.rejects
    (left,), (right,) = of_rows.batches, of_events.batches
    for name in ("time", "numeric", "codes", "latency_s", "error", "version"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)
    assert left.versions == right.versions


def test_undecoded_messages_are_not_for_it():
    with pytest.raises(TypeError, match="table codec"):
        TableCodec(fleet(), "file", MODEL, "1", MAPPING).decode(Messages("p", [b"1,2"], NOW))


def test_no_rows_are_no_batch_worth_counting():
    found = decode(Table("p", {name: [] for name in ("x", "at")}, 0, NOW))
    assert (found.events, sum(map(len, found.batches)), found.rejects) == (0, 0, [])
