"""Rows that are too many for the memory: appended, never changed, in blocks that lie elsewhere once they are full.

Rows are kept by kind and bucket of time. A block has at most BLOCK_ROWS rows; the last of a bucket is open: it is in
memory, and written anew with each transaction until it is full. A full block is let go of as soon as it is durable, and
read again from the shelf where that put it. Without a shelf everything stays in memory. Blocks may be read by another
thread while rows are appended: whatever it was told of a block, so many rows of it never change.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Protocol, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

BLOCK_ROWS = 8192
"""A quarter of a megabyte: what is written each tick for as long as a block is open."""

_FIRST_ROWS = 256

Table: TypeAlias = NDArray[Any]
"""Rows, as a structured array."""
Place: TypeAlias = tuple[str, int]
"""A kind of rows and a bucket."""

_Count = Annotated[int, Meta(ge=0, le=2**53)]


_START = '["block",'


def is_block(key: str) -> bool:
    """Whether a key of the state is that of a block."""
    return key.startswith(_START)


class Shelf(Protocol):
    """Where durable blocks lie. Any thread may read."""

    def read(self, key: str) -> bytes | None:
        """The bytes of a block; None if it is not there, or damaged."""
        ...


class Block(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Some rows of one layout; `number` is unique."""

    number: _Count
    rows: Annotated[int, Meta(ge=1, le=BLOCK_ROWS)]
    layout: _Count


class Blocks:
    """Append-only rows by kind and bucket. `dtype_of(kind, layout)` is what a row looks like."""

    def __init__(self, model: str, dtype_of: Callable[[str, int], np.dtype[Any]], shelf: Shelf | None = None) -> None:
        self._model = model
        self._dtype_of = dtype_of
        self._shelf = shelf
        self._index: dict[Place, list[Block]] = {}
        self._open: dict[int, Table] = {}
        self._held: dict[int, bytes] = {}
        self._changed: set[int] = set()
        self._gone: set[int] = set()
        self._written: set[int] = set()
        self._next = 0
        self._rows = Counter[str]()
        self._held_bytes = 0

    @property
    def held_bytes(self) -> int:
        """What is in memory because it is not durable; nothing where nothing ever is."""
        return 0 if self._shelf is None else self._held_bytes

    def append(self, kind: str, bucket: int, rows: Table, layout: int = 0) -> None:
        """Add rows to a bucket."""
        blocks = self._index.setdefault((kind, bucket), []) if len(rows) else []
        self._rows[kind] += len(rows)
        while len(rows):
            last = blocks[-1] if blocks else None
            if last is None or last.number not in self._open or last.layout != layout:
                self.seal(kind, bucket)
                last = Block(self._next, 0, layout)
                self._next += 1
                self._open[last.number] = np.empty(_FIRST_ROWS, self._dtype_of(kind, layout))
                blocks.append(last)
            taken = min(len(rows), BLOCK_ROWS - last.rows)
            table = self._open[last.number]
            if last.rows + taken > len(table):
                # A fresh array: whoever reads the old one goes on reading that.
                size = min(BLOCK_ROWS, max(2 * len(table), last.rows + taken))
                larger = np.empty(size, table.dtype)
                larger[: last.rows] = table[: last.rows]
                table = self._open[last.number] = larger
            table[last.rows : last.rows + taken] = rows[:taken]
            blocks[-1] = Block(last.number, last.rows + taken, layout)
            self._changed.add(last.number)
            rows = rows[taken:]
            if blocks[-1].rows == BLOCK_ROWS:
                self.seal(kind, bucket)

    def seal(self, kind: str, bucket: int) -> None:
        """Let nothing more be added to the open block of a bucket; further rows begin a block of their own."""
        for last in self._index.get((kind, bucket), ())[-1:]:
            if last.number in self._open:
                packed = self._open[last.number][: last.rows].tobytes()
                self._held[last.number] = packed
                self._held_bytes += len(packed)
                self._changed.add(last.number)
                del self._open[last.number]

    def buckets(self, kind: str) -> list[int]:
        """The buckets that hold rows of a kind, oldest first."""
        return sorted(bucket for of_kind, bucket in self._index if of_kind == kind)

    def blocks(self, kind: str, bucket: int) -> tuple[Block, ...]:
        """The blocks of a bucket, in the order in which their rows came."""
        return tuple(self._index.get((kind, bucket), ()))

    def first_open(self, kind: str) -> int:
        """All blocks of a kind whose number is less are full, or get no more rows."""
        numbers = (block.number for (of_kind, _), blocks in self._index.items() if of_kind == kind for block in blocks)
        return min((number for number in numbers if number in self._open), default=self._next)

    def rows(self, kind: str) -> int:
        """Number of rows of a kind."""
        return self._rows[kind]

    def read(self, kind: str, block: Block) -> Table | None:
        """The rows of a block, not to be changed; None if they are lost."""
        dtype = self._dtype_of(kind, block.layout)
        table = self._open.get(block.number)
        if table is not None:
            return table[: block.rows]
        packed = self._held.get(block.number)
        if packed is None and self._shelf is not None:
            packed = self._shelf.read(self._key(block.number))
        if packed is None or len(packed) < block.rows * dtype.itemsize:
            return None
        return np.frombuffer(packed, dtype, block.rows)

    def drop(self, kind: str, bucket: int, blocks: Iterable[Block]) -> None:
        """Forget blocks; those of a bucket that came since stay."""
        numbers = {block.number for block in blocks}
        known = self._index.get((kind, bucket), [])
        kept = [block for block in known if block.number not in numbers]
        self._rows[kind] -= sum(block.rows for block in known) - sum(block.rows for block in kept)
        if kept:
            self._index[kind, bucket] = kept
        else:
            self._index.pop((kind, bucket), None)
        for number in numbers:
            self._open.pop(number, None)
            self._held_bytes -= len(self._held.pop(number, b""))
            self._changed.discard(number)
            if number in self._written:
                self._gone.add(number)
                self._written.discard(number)

    # ---- state -----------------------------------------------------------------------------------------------------

    def changes(self) -> dict[str, bytes | None]:
        """Blocks that are new, have more rows or (None) are gone since the last call."""
        found: dict[str, bytes | None] = {self._key(number): None for number in self._gone}
        rows = {block.number: block.rows for blocks in self._index.values() for block in blocks}
        for number in self._changed:
            table = self._open.get(number)
            found[self._key(number)] = self._held[number] if table is None else table[: rows[number]].tobytes()
        self._written |= self._changed
        self._gone, self._changed = set(), set()
        return found

    def durable(self, keys: Iterable[str]) -> None:
        """Let go of blocks that can be read from the shelf."""
        if self._shelf is None:
            return
        for number in map(self._number, keys):
            if number is not None and number not in self._open and number not in self._changed:
                self._held_bytes -= len(self._held.pop(number, b""))

    def all(self) -> dict[str, bytes]:
        """Every block."""
        tables = (
            (block.number, self.read(kind, block)) for (kind, _), blocks in self._index.items() for block in blocks
        )
        return {self._key(number): table.tobytes() for number, table in tables if table is not None}

    def index(self) -> list[tuple[str, int, list[Block]]]:
        """Which blocks there are."""
        return [(kind, bucket, list(blocks)) for (kind, bucket), blocks in sorted(self._index.items())]

    def load(self, index: Iterable[tuple[str, int, list[Block]]], packed: Mapping[str, bytes]) -> None:
        """Take over an index into one that has nothing; blocks that are not in `packed` lie on the shelf.

        The last block of a bucket stays sealed: it is full, or shorter than others.
        """
        for kind, bucket, blocks in index:
            self._index[kind, bucket] = list(blocks)
            self._rows[kind] += sum(block.rows for block in blocks)
            for block in blocks:
                self._next = max(self._next, block.number + 1)
                self._written.add(block.number)
                known = packed.get(self._key(block.number))
                if known is not None:
                    self._held[block.number] = known
                    self._held_bytes += len(known)
                    self._changed.add(block.number)

    def keys(self) -> set[str]:
        """The keys of all blocks."""
        return {self._key(block.number) for blocks in self._index.values() for block in blocks}

    def tables(self) -> Iterator[tuple[str, int, Block, Table]]:
        """Every block that can be read, with its kind and bucket."""
        for (kind, bucket), blocks in self._index.items():
            for block in blocks:
                table = self.read(kind, block)
                if table is not None:
                    yield kind, bucket, block, table

    def _key(self, number: int) -> str:
        return msgspec.json.encode(("block", self._model, number)).decode()

    def _number(self, key: str) -> int | None:
        kind, model, number = msgspec.json.decode(key, type=tuple[str, str, int])
        return number if (kind, model) == ("block", self._model) else None
