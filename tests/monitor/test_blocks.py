"""Blocks of rows: what is appended is read again, wherever it lies by then."""

from typing import Any

import numpy as np
import pytest

from exporter.monitor import blocks
from exporter.monitor.blocks import BLOCK_ROWS, Blocks

ROW = np.dtype([("id", "<u8"), ("time", "<f8")])


class MemoryShelf:
    """Durable blocks in a dict; some may be lost."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def read(self, key: str) -> bytes | None:
        return self.kept.get(key)

    def write(self, held: Blocks) -> None:
        changes = held.changes()
        for key, value in changes.items():
            if value is None:
                del self.kept[key]
            else:
                self.kept[key] = value
        held.durable(changes)


def rows(*ids: int) -> Any:
    return np.array([(one, float(one)) for one in ids], ROW)


def some(shelf: MemoryShelf | None = None) -> Blocks:
    return Blocks("m", lambda kind, layout: ROW, shelf)


def ids(held: Blocks, kind: str = "a", bucket: int = 0) -> list[int | None]:
    found: list[int | None] = []
    for block in held.blocks(kind, bucket):
        table = held.read(kind, block)
        found += [None] * block.rows if table is None else table["id"].tolist()
    return found


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 10)
    monkeypatch.setattr(blocks, "_FIRST_ROWS", 2)


def test_rows_come_back_in_the_order_in_which_they_went_in_by_kind_and_bucket():
    held = some()
    held.append("a", 0, rows(1, 2, 3))
    held.append("a", 1, rows(4))
    held.append("b", 0, rows(5))
    held.append("a", 0, rows(*range(6, 30)))
    assert ids(held) == [1, 2, 3, *range(6, 30)]
    assert (ids(held, "a", 1), ids(held, "b", 0), ids(held, "b", 1)) == ([4], [5], [])
    assert (held.buckets("a"), held.rows("a"), held.rows("b")) == ([0, 1], 28, 1)
    assert [block.rows for block in held.blocks("a", 0)] == [10, 10, 7]


def test_full_blocks_leave_the_memory_once_they_are_durable():
    shelf = MemoryShelf()
    held = some(shelf)
    held.append("a", 0, rows(*range(1, 26)))
    assert held.held_bytes == 2 * 10 * ROW.itemsize
    shelf.write(held)
    assert held.held_bytes == 0
    assert ids(held) == list(range(1, 26))
    assert len(shelf.kept) == 3


def test_an_open_block_is_written_again_until_it_is_full():
    shelf = MemoryShelf()
    held = some(shelf)
    held.append("a", 0, rows(1))
    shelf.write(held)
    held.append("a", 0, rows(2))
    (key,) = held.changes()
    assert held.changes() == {}
    held.append("a", 0, rows(*range(3, 11)))
    changes = held.changes()
    assert list(changes) == [key]
    assert len(changes[key] or b"") == 10 * ROW.itemsize


def test_what_is_filled_up_while_it_is_written_stays_until_that_is_durable_too():
    shelf = MemoryShelf()
    held = some(shelf)
    held.append("a", 0, rows(1))
    early = held.changes()
    held.append("a", 0, rows(*range(2, 11)))
    held.durable(early)
    assert ids(held) == list(range(1, 11))
    shelf.write(held)
    assert ids(held) == list(range(1, 11))


def test_a_reader_of_an_open_block_sees_what_it_was_told_of():
    held = some()
    held.append("a", 0, rows(1, 2))
    (told,) = held.blocks("a", 0)
    table = held.read("a", told)
    held.append("a", 0, rows(3, 4, 5))
    assert table is not None
    assert table["id"].tolist() == [1, 2]
    again = held.read("a", told)
    assert again is not None
    assert again["id"].tolist() == [1, 2]


def test_what_is_dropped_is_gone_and_what_came_since_stays():
    shelf = MemoryShelf()
    held = some(shelf)
    held.append("a", 0, rows(*range(1, 13)))
    shelf.write(held)
    held.seal("a", 0)
    told = held.blocks("a", 0)
    held.append("a", 0, rows(99))
    held.drop("a", 0, told)
    assert ids(held) == [99]
    assert held.rows("a") == 1
    shelf.write(held)
    assert len(shelf.kept) == 1
    held.drop("a", 0, held.blocks("a", 0))
    shelf.write(held)
    assert (shelf.kept, held.buckets("a")) == ({}, [])


def test_a_block_that_was_never_written_needs_no_deleting():
    held = some(MemoryShelf())
    held.append("a", 0, rows(1))
    held.drop("a", 0, held.blocks("a", 0))
    assert held.changes() == {}


def test_another_layout_begins_another_block():
    held = Blocks("m", lambda kind, layout: np.dtype([("id", "<u8"), ("time", f"<f{8 if layout else 4}")]))
    held.append("a", 0, np.zeros(1, [("id", "<u8"), ("time", "<f4")]), 0)
    held.append("a", 0, np.zeros(2, [("id", "<u8"), ("time", "<f8")]), 1)
    assert [(block.rows, block.layout) for block in held.blocks("a", 0)] == [(1, 0), (2, 1)]


@pytest.mark.parametrize("on_shelf", [True, False])
def test_another_process_goes_on(on_shelf: bool):
    shelf = MemoryShelf()
    held = some(shelf)
    held.append("a", 0, rows(*range(1, 16)))
    everything = held.all()
    shelf.write(held)
    again = some(shelf if on_shelf else None)
    again.load(held.index(), {} if on_shelf else everything)
    again.append("a", 0, rows(100))
    assert ids(again) == [*range(1, 16), 100]
    assert again.rows("a") == 16
    assert len({block.number for block in again.blocks("a", 0)}) == 3


@pytest.mark.parametrize("spoilt", [None, b"", b"too short"])
def test_a_block_that_is_lost_is_none(spoilt: bytes | None):
    shelf = MemoryShelf()
    held = some(shelf)
    held.append("a", 0, rows(*range(10)))
    shelf.write(held)
    (key,) = shelf.kept
    if spoilt is None:
        del shelf.kept[key]
    else:
        shelf.kept[key] = spoilt
    assert ids(held) == [None] * 10


def test_the_first_open_block_is_where_rows_may_still_come():
    held = some()
    assert held.first_open("a") == 0
    held.append("a", 0, rows(*range(10)))
    assert held.first_open("a") == 1
    held.append("a", 0, rows(1))
    held.append("a", 1, rows(1))
    assert held.first_open("a") == 1
    held.seal("a", 0)
    assert held.first_open("a") == 2


def test_a_block_is_a_quarter_of_a_megabyte():
    assert pytest.approx(2**18, rel=0.1) == BLOCK_ROWS * 34
