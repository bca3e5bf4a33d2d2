import asyncio
import os
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from exporter.ingest.file import FileSource
from exporter.ingest.native import NativeCodec
from exporter.ingest.source import Receipt, Unavailable
from exporter.monitor.fleet import Fleet
from tests.app.fakes import FakeSink, FakeSurroundings, Over

Step = Callable[[], object]


def append(path: Path, text: bytes) -> Step:
    def appending() -> None:
        with path.open("ab") as file:
            file.write(text)

    return appending


def rename(path: Path) -> Step:
    return lambda: path.rename(path.with_name("rotated"))


def nothing() -> None:
    pass


def follow(path: Path, steps: Sequence[Step], sink: FakeSink | None = None) -> FakeSink:
    """Follow a file; one step is taken each time the source finds nothing new."""
    sink = sink or FakeSink()
    source = FileSource("file", path, "jsonl", FakeSurroundings(steps), follow=True)
    with pytest.raises(Over):
        asyncio.run(source.run(sink, {}))
    return sink


def read(path: Path, file_format: str = "jsonl") -> FakeSink:
    sink = FakeSink()
    asyncio.run(FileSource("file", path, file_format, FakeSurroundings()).run(sink, {}))
    return sink


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


class TestRead:
    def test_lines_come_without_their_breaks_and_blanks(self, path: Path):
        path.write_bytes(b'{"a":1}\r\n\n  \r\n {"a":2} \n{"a":3}')
        assert read(path).payloads == [b'{"a":1}', b'{"a":2}', b'{"a":3}']

    def test_a_byte_order_mark_belongs_to_no_line(self, path: Path):
        path.write_bytes(b"\xef\xbb\xbf{}\n\xef\xbb\xbf{}\n")
        assert read(path).payloads == [b"{}", b"\xef\xbb\xbf{}"]
        path.write_bytes(b"\xef\xbb\xbfx,y\r\n1,2\r\n")
        assert read(path, "csv").tables[0].columns == {"x": ["1"], "y": ["2"]}

    def test_an_empty_file_brings_nothing(self, path: Path):
        path.write_bytes(b"")
        assert read(path).chunks == []
        assert read(path, "csv").chunks == []

    def test_a_row_that_is_no_csv_costs_itself_only(self, path: Path):
        rows = [b"1,red", b'"stray,red', b"2\r3,red", b"x" * 200_000 + b",red", b"4", b"5,6,7", b"8,\xff", b"9,\0"]
        path.write_bytes(b"x,colour\n" + b"\n".join(rows) + b"\n")
        (table,) = read(path, "csv").tables
        assert table.columns == {"x": ["1", "8", "9"], "colour": ["red", "\N{REPLACEMENT CHARACTER}", "\0"]}
        assert [(reject.index, reject.reason) for reject in table.rejects] == [
            (i, "malformed_row") for i in (1, 2, 3, 4, 5)
        ]

    def test_a_file_that_is_not_there_is_named(self, path: Path):
        source = FileSource("file", path, "jsonl", FakeSurroundings())
        assert source.not_ready() == f"file {path}: not opened yet"
        with pytest.raises(Unavailable, match=f"cannot read {path}: No such file"):
            asyncio.run(source.run(FakeSink(), {}))
        assert source.not_ready() == f"cannot read {path}: No such file or directory"

    def test_a_folder_is_no_file_even_if_followed(self, tmp_path: Path):
        source = FileSource("file", tmp_path, "jsonl", FakeSurroundings(), follow=True)
        with pytest.raises(Unavailable, match="Is a directory"):
            asyncio.run(source.run(FakeSink(), {}))

    def test_parquet_goes_on_at_a_position_too(self, tmp_path: Path):
        path = tmp_path / "rows.parquet"
        pq.write_table(pa.table({"x": list(range(50_000))}), path)
        first, *others = read(path, "parquet").tables
        assert others
        rest = FakeSink()
        source = FileSource("file", path, "parquet", FakeSurroundings())
        asyncio.run(source.run(rest, {first.partition: first.position}))
        assert [list(table.columns["x"]) for table in rest.tables] == [list(table.columns["x"]) for table in others]
        asyncio.run(source.run(rest, {first.partition: others[-1].position}))
        assert len(rest.tables) == len(others), "all of it was counted"


class TestFollow:
    def test_waits_for_a_file_that_comes_later_and_says_so(self, path: Path):
        surroundings = FakeSurroundings([nothing, lambda: said.append(source.not_ready()), append(path, b"{}\n")])
        source = FileSource("file", path, "jsonl", surroundings, follow=True)
        said: list[str | None] = []
        sink = FakeSink()
        with pytest.raises(Over):
            asyncio.run(source.run(sink, {}))
        assert said == [f"cannot read {path}: No such file or directory"]
        assert source.not_ready() is None
        assert sink.payloads == [b"{}"]

    def test_an_unfinished_line_waits_for_its_break(self, path: Path):
        path.write_bytes(b'{"a":')
        seen: list[int] = []
        sink = FakeSink()
        follow(path, [lambda: seen.append(sink.calls), append(path, b"1}"), nothing, append(path, b"\n")], sink)
        assert seen == [0]
        assert sink.payloads == [b'{"a":1}']

    def test_rotation_takes_the_rest_of_the_old_file_then_all_of_the_new(self, path: Path):
        path.write_bytes(b"1\n")
        rotated = path.with_name("rotated")

        def rotate() -> None:
            path.rename(rotated)
            append(rotated, b"2\n3")()
            append(path, b"4\n")()

        assert follow(path, [nothing, rotate, append(path, b"5\n")]).payloads == [b"1", b"2", b"3", b"4", b"5"]

    def test_rotated_away_before_the_new_file_exists_reads_on_in_the_old(self, path: Path):
        path.write_bytes(b"1\n")
        old = path.with_name("rotated")
        steps = [rename(path), nothing, append(old, b"2\n"), nothing, append(old, b"3\n"), append(path, b"4\n")]
        assert follow(path, steps).payloads == [b"1", b"2", b"3", b"4"]

    def test_the_rest_of_a_file_that_was_rotated_while_nobody_followed_comes_before_the_new_one(self, path: Path):
        path.write_bytes(b"1\n2\n")
        first = follow(path, [])
        path.rename(path.with_name(f"{path.name}.1"))
        append(path.with_name(f"{path.name}.1"), b"3\n4")()
        path.with_name(f"{path.name}.2").write_bytes(b"an older one\n")
        path.write_bytes(b"5\n")
        resume = {chunk.partition: chunk.position for chunk in first.chunks}
        source = FileSource("file", path, "jsonl", FakeSurroundings(), follow=True)
        sink = FakeSink()
        with pytest.raises(Over):
            asyncio.run(source.run(sink, resume))
        assert sink.payloads == [b"3", b"4", b"5"]
        assert source.not_ready() is None

    def test_a_truncated_file_is_read_from_its_start(self, path: Path):
        path.write_bytes(b"1\n2\nunfinish")
        steps = [lambda: os.truncate(path, 0), nothing, append(path, b"3\n")]
        assert follow(path, steps).payloads == [b"1", b"2", b"3"]

    def test_a_csv_file_keeps_its_header_and_a_rotated_one_brings_its_own(self, tmp_path: Path):
        path = tmp_path / "rows.csv"
        path.write_bytes(b"x,y\n1,2\n")

        def rotate() -> None:
            path.rename(tmp_path / "rotated")
            path.write_bytes(b"y,x\n6,5\n")

        sink = FakeSink()
        source = FileSource("file", path, "csv", FakeSurroundings([append(path, b"3,4\n"), rotate]), follow=True)
        with pytest.raises(Over):
            asyncio.run(source.run(sink, {}))
        assert [dict(table.columns) for table in sink.tables] == [
            {"x": ["1"], "y": ["2"]},
            {"x": ["3"], "y": ["4"]},
            {"x": ["5"], "y": ["6"]},
        ]


class TestALineWithoutEnd:
    def test_it_is_rejected_once_and_its_neighbours_live(self, path: Path):
        good = b'{"model":"m","features":{"x":1}}\n'
        path.write_bytes(good + b'{"model":"' + b"m" * 10_000_000 + b'"}\n' + good + good)
        fleet = Fleet()
        codec = NativeCodec(fleet, "file")

        async def sink(chunk: object) -> Receipt:
            decoded = codec.decode(chunk)
            fleet.observe(decoded, 0.0)
            return Receipt(0, (), 0)

        asyncio.run(FileSource("file", path, "jsonl", FakeSurroundings()).run(sink, {}))
        feed = fleet.tick(0.0).feeds["file"]
        assert (feed.events, dict(feed.rejected), dict(feed.dropped)) == (4, {"too_large": 1}, {})

    @pytest.mark.parametrize("end", [b"", b'\n{"a":1}\n'], ids=["for ever", "then others"])
    def test_memory_stays_bounded(self, path: Path, end: bytes):
        with path.open("wb") as file:
            file.truncate(60_000_000)
            file.seek(0, os.SEEK_END)
            file.write(end)
        tracemalloc.start()
        try:
            sink = read(path)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 25_000_000
        huge, *others = sink.payloads
        assert len(huge) < 5_000_000
        assert others == end.split()
