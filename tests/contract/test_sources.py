"""One suite for every source: order, nothing lost, nothing read ahead, a stable partition, no harm to neighbours."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.ingest.file import FileSource
from exporter.ingest.http import HttpSource
from exporter.ingest.source import Chunk, Messages, Positions
from tests.app.fakes import FakeSink, FakeSurroundings, Over, settle

RECORDS = 2500  # three chunks
PADDING = "x" * 500  # a megabyte, so that it does not fit one read


class World(Protocol):
    """A source and the writer at its other end."""

    def text(self, number: int) -> bytes:
        """Record `number` as the writer writes it, without the line break."""
        ...

    async def deliver(self, blocks: Sequence[bytes], sink: FakeSink) -> None:
        """What a writer writes, block after block, to its end."""
        ...


class Http:
    def text(self, number: int) -> bytes:
        return json.dumps({"model": "m", "features": {"x": number, "y": PADDING}}).encode()

    async def deliver(self, blocks: Sequence[bytes], sink: FakeSink) -> None:
        async def stream() -> AsyncIterator[bytes]:
            for block in blocks:
                yield block

        source = HttpSource("http", FakeSurroundings())
        running = asyncio.create_task(source.run(sink, {}))
        await asyncio.sleep(0)
        try:
            answer = await source.receive(stream())
        finally:
            running.cancel()
        assert answer.status == 202


class File:
    suffix = "jsonl"

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"events.{self.suffix}"
        self.surroundings = FakeSurroundings()

    def text(self, number: int) -> bytes:
        return Http().text(number)

    def write(self, block: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(block)

    async def deliver(self, blocks: Sequence[bytes], sink: FakeSink) -> None:
        """The first block is there before the source; the others come between its looks."""
        self.write(blocks[0] if blocks else b"")
        self.surroundings = FakeSurroundings([partial(self.write, block) for block in blocks[1:]])
        with pytest.raises(Over):
            await self.source(follow=True).run(sink, {})

    async def read(self, sink: FakeSink, resume: Positions) -> None:
        await self.source(follow=False).run(sink, resume)

    def source(self, *, follow: bool) -> FileSource:
        return FileSource("file", self.path, self.suffix, self.surroundings, follow=follow)


class Csv(File):
    suffix = "csv"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.write(b"x,y\r\n")

    def text(self, number: int) -> bytes:
        return f'{number},"{PADDING}, ""quoted"""'.encode()


FILES = (File, Csv)
Open = Callable[[], World]


@pytest.fixture(params=[Http, *FILES], ids=lambda kind: kind.__name__)
def a_world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return request.param() if request.param is Http else request.param(tmp_path)


@pytest.fixture(params=FILES, ids=lambda kind: kind.__name__)
def a_file(request: pytest.FixtureRequest, tmp_path: Path) -> File:
    return request.param(tmp_path)


def numbers(chunks: Sequence[Chunk]) -> list[int]:
    """Which records these chunks hold, in order."""
    found: list[int] = []
    for chunk in chunks:
        if isinstance(chunk, Messages):
            found += [json.loads(payload)["features"]["x"] for payload in chunk.payloads]
        else:
            assert not chunk.rejects
            found += [int(str(cell)) for cell in chunk.columns["x"]]
    return found


def lines_of(world: World, records: int = RECORDS) -> bytes:
    return b"".join(world.text(number) + b"\n" for number in range(records))


@pytest.mark.parametrize("kind", [Http, *FILES], ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_each_record_arrives_once_and_in_order_however_it_is_written(kind: type, data: st.DataObject):
    with tempfile.TemporaryDirectory() as folder:
        world: World = kind() if kind is Http else kind(Path(folder))
        count = data.draw(st.integers(0, 8), "records")
        ends = data.draw(
            st.lists(st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\r\n \n"]), min_size=count, max_size=count)
        )
        body = b"".join(world.text(number) + end for number, end in enumerate(ends))
        cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6), "cuts"))
        blocks = [body[start:end] for start, end in pairwise([0, *cuts, len(body)])]
        sink = FakeSink()
        asyncio.run(world.deliver(blocks, sink))
    assert numbers(sink.chunks) == list(range(count))


def test_all_chunks_are_of_one_partition_and_in_order(a_world: World):
    sink = FakeSink()
    body = lines_of(a_world)
    asyncio.run(a_world.deliver([body[:700_000], body[700_000:]], sink))
    assert numbers(sink.chunks) == list(range(RECORDS))
    assert len(sink.chunks) >= 3
    assert len({chunk.partition for chunk in sink.chunks}) == 1


def test_while_the_sink_is_busy_nothing_is_read_ahead(a_world: World):
    async def delivering() -> None:
        sink = FakeSink()
        sink.open.clear()
        delivery = asyncio.create_task(a_world.deliver([lines_of(a_world)], sink))
        await settle(1000)
        assert sink.calls == 1
        if isinstance(a_world, File):
            assert a_world.surroundings.reads == 1, "one block of the file is held, and no more"
        sink.open.set()
        await delivery
        assert numbers(sink.chunks) == list(range(RECORDS))

    asyncio.run(delivering())


def test_what_fails_behind_the_sink_leaves_the_next_delivery_alone(a_world: World):
    sink = FakeSink(fails_at=0)
    with pytest.raises(RuntimeError, match="sink has failed"):
        asyncio.run(a_world.deliver([lines_of(a_world, 3)], sink))
    if isinstance(a_world, File):
        a_world.surroundings = FakeSurroundings()
        asyncio.run(a_world.read(sink, {}))
    else:
        asyncio.run(a_world.deliver([lines_of(a_world, 3)], sink))
    assert numbers(sink.chunks) == [0, 1, 2]


class TestResume:
    def test_from_any_position_exactly_the_rest_is_delivered(self, a_file: File):
        a_file.write(lines_of(a_file))
        first = FakeSink()
        asyncio.run(a_file.read(first, {}))
        assert len(first.chunks) >= 3
        for place, chunk in enumerate(first.chunks):
            rest = FakeSink()
            asyncio.run(a_file.read(rest, {chunk.partition: chunk.position}))
            assert numbers(rest.chunks) == numbers(first.chunks[place + 1 :])

    def test_a_refused_chunk_is_delivered_again(self, a_file: File):
        a_file.write(lines_of(a_file))
        sink = FakeSink(fails_at=1)
        with pytest.raises(RuntimeError):
            asyncio.run(a_file.read(sink, {}))
        kept = sink.chunks[-1]
        asyncio.run(a_file.read(sink, {kept.partition: kept.position}))
        assert numbers(sink.chunks) == list(range(RECORDS))

    def test_what_was_written_meanwhile_is_delivered_too(self, a_file: File):
        a_file.write(lines_of(a_file, 3))
        sink = FakeSink()
        asyncio.run(a_file.read(sink, {}))
        a_file.write(a_file.text(3) + b"\n")
        asyncio.run(a_file.read(sink, {sink.chunks[-1].partition: sink.chunks[-1].position}))
        assert numbers(sink.chunks) == [0, 1, 2, 3]

    @pytest.mark.parametrize("shrunk", [True, False], ids=["truncated", "replaced"])
    def test_the_position_of_another_file_is_not_used(self, a_file: File, *, shrunk: bool):
        header = b"x,y\n" if isinstance(a_file, Csv) else b""
        a_file.write(lines_of(a_file, 3))
        sink = FakeSink()
        asyncio.run(a_file.read(sink, {}))
        position = {sink.chunks[-1].partition: sink.chunks[-1].position}
        if not shrunk:
            a_file.path.rename(a_file.path.with_suffix(".1"))
        a_file.path.write_bytes(header + a_file.text(7) + b"\n")
        again = FakeSink()
        asyncio.run(a_file.read(again, position))
        assert numbers(again.chunks) == [7]
