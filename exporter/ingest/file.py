"""Files as a source: JSON lines and CSV, followed through rotation and truncation if asked to; Parquet once.

The file is one partition. A line counts once its line break is there; an unfinished one waits, and is taken as it is at
the end of a file that is not followed, or of one that was rotated away. A cell of CSV must not hold line breaks here.
"""

import glob
import os
from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from exporter.ingest import tables
from exporter.ingest.lenient import MESSAGE_LIMIT_BYTES
from exporter.ingest.source import Chunk, Messages, Positions, Sink, Surroundings, Table, Unavailable
from exporter.ingest.tables import Format
from exporter.monitor.health import SourceHealth

LINES_AT_ONCE = 500
POLL_S = 0.5
_BLOCK_BYTES = 1 << 18


@dataclass(slots=True)
class _Open:
    """An open file: where reading stands (the end of the last whole line), and what is read beyond."""

    file: BinaryIO
    inode: int
    offset: int = 0
    rest: bytes = b""
    header: list[str] | None = None
    skipping: bool = False

    @property
    def position(self) -> str:
        return f"{self.inode}:{self.offset}"


class FileSource:
    """One file, read from its start or from a position."""

    def __init__(
        self, name: str, path: Path, file_format: Format, surroundings: Surroundings, *, follow: bool = False
    ) -> None:
        self.name = name
        self.partition = f"{name}:{path}"
        self._path = path
        self._format = file_format
        self._surroundings = surroundings
        self._follow = follow
        self._trouble: str | None = f"{name} {path}: not opened yet"
        self._caught_up = False

    def not_ready(self) -> str | None:
        """Why the file cannot be read now."""
        return self._trouble

    async def commit(self, positions: Positions) -> None:
        """A file need not be told."""

    def waiting(self, positions: Positions) -> Collection[str]:  # noqa: ARG002 - one partition, whatever its position
        """The file, until its end was seen once."""
        return () if self._caught_up else (self.partition,)

    def health(self) -> SourceHealth:
        """A file can be read again from any position."""
        return SourceHealth("exactly_once", ready=self.not_ready() is None)

    async def run(self, sink: Sink, resume: Positions) -> None:
        """Deliver lines in order; returns at the end of a file that is not followed. Raises Unavailable."""
        if self._format == "parquet":
            await self._run_parquet(sink, resume)
            return
        position = resume.get(self.partition, "")
        moved = self._moved(position) if self._follow else None
        current = await self._open(position, moved)
        try:
            while True:
                delivered = False
                async for chunk in self._chunks(current):
                    await sink(chunk)
                    delivered = True
                if delivered:
                    continue
                if not self._follow:
                    async for chunk in self._unfinished(current):
                        await sink(chunk)
                    self._caught_up = True
                    return
                change = self._change(current)
                self._caught_up = change is None
                if change == "rotated":
                    async for chunk in self._chunks(current):  # what was written after the last look
                        await sink(chunk)
                    async for chunk in self._unfinished(current):
                        await sink(chunk)
                    current.file.close()
                    current = await self._open()
                elif change == "truncated":
                    current.file.seek(0)
                    current.offset, current.rest, current.header, current.skipping = 0, b"", None, False
                else:
                    await self._surroundings.sleep(POLL_S)
        finally:
            current.file.close()

    async def _run_parquet(self, sink: Sink, resume: Positions) -> None:
        self._trouble = None
        rows = tables.read(self._path, self._format)
        inode = self._path.stat().st_ino
        done, _, counted = resume.get(self.partition, "").partition(":")
        skip = int(counted) if done == str(inode) else 0
        read = 0
        while (table := await self._surroundings.in_thread(_next, rows)) is not None:
            read += table.rows  # batches are cut alike at each reading
            if read > skip:
                position = f"{inode}:{read}"
                await sink(Table(self.partition, table.columns, table.rows, self._surroundings.now(), position))
        self._caught_up = True

    def _moved(self, position: str) -> Path | None:
        """The file that we were in the middle of, if it was rotated away while we were not looking."""
        siblings = self._path.parent.glob(f"{glob.escape(self._path.name)}?*")
        return next((path for path in siblings if _is_of(position, path.stat())), None)

    async def _open(self, position: str = "", path: Path | None = None) -> _Open:
        while True:
            try:
                file = (path or self._path).open("rb")
                break
            except OSError as error:
                self._trouble = f"cannot read {self._path}: {error.strerror}"
                if not (self._follow and isinstance(error, FileNotFoundError)):
                    raise Unavailable(self._trouble) from None
                await self._surroundings.sleep(POLL_S)
        self._trouble = None
        return _resumed(file, position, self._format)

    async def _chunks(self, current: _Open) -> AsyncIterator[Chunk]:
        """Whole lines up to the present end of the file."""
        while block := await self._surroundings.in_thread(current.file.read, _BLOCK_BYTES):
            lines = (current.rest + block).split(b"\n")
            current.rest = lines.pop()
            if current.skipping:
                skipped = lines.pop(0) + b"\n" if lines else current.rest
                current.skipping = skipped is current.rest
                current.offset += len(skipped)
                current.rest = b"" if current.skipping else current.rest
            for start in range(0, len(lines), LINES_AT_ONCE):
                part = lines[start : start + LINES_AT_ONCE]
                chunk = self._chunk(current, part, sum(map(len, part)) + len(part))
                if chunk is not None:
                    yield chunk
            if len(current.rest) > MESSAGE_LIMIT_BYTES:
                # A line without end must not fill the memory: its start is delivered, and rejected as too large.
                async for chunk in self._unfinished(current):
                    yield chunk
                current.skipping = True

    async def _unfinished(self, current: _Open) -> AsyncIterator[Chunk]:
        """The text after the last line break, as a line."""
        line, current.rest = current.rest, b""
        chunk = self._chunk(current, [line], len(line))
        if chunk is not None:
            yield chunk

    def _chunk(self, current: _Open, lines: list[bytes], size: int) -> Chunk | None:
        now = self._surroundings.now()
        if current.offset == 0:
            lines[0] = lines[0].removeprefix(BOM_UTF8)
        current.offset += size
        if self._format == "jsonl":
            payloads = [line for line in map(bytes.strip, lines) if line]
            return Messages(self.partition, payloads, now, current.position) if payloads else None
        if current.header is None:
            current.header = _header(lines.pop(0))
        texts = [line.decode(errors="replace") for line in lines if line.strip()]
        if not texts:
            return None
        return tables.table_of_csv(current.header, texts, self.partition, now, current.position)

    def _change(self, current: _Open) -> Literal["rotated", "truncated"] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None  # rotated away, and the next file is not there yet
        if status.st_ino != current.inode:
            return "rotated"
        return "truncated" if status.st_size < current.offset else None


def _resumed(file: BinaryIO, position: str, file_format: Format) -> _Open:
    """An open file at a position, if that is one of this file; else at its start."""
    status = os.fstat(file.fileno())
    current = _Open(file, status.st_ino)
    if _is_of(position, status):
        current.offset = int(position.partition(":")[2])
        if file_format == "csv":
            current.header = _header(file.readline())
        file.seek(current.offset)
    return current


def _is_of(position: str, status: os.stat_result) -> bool:
    inode, _, offset = position.partition(":")
    return bool(offset) and int(inode) == status.st_ino and int(offset) <= status.st_size


def _header(line: bytes) -> list[str]:
    return tables.csv_header(line.decode("utf-8-sig", errors="replace").strip())


def _next(rows: Iterator[Table]) -> Table | None:
    return next(rows, None)
