import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.monitor.buffer import GROUPS_AT_ONCE, ROWS, Buffer
from exporter.monitor.events import Schema
from exporter.monitor.panes import OUTSIDE
from tests.builders import COLOUR, X, a_batch

SCHEMA = Schema((X,), (COLOUR,), ({"a": 0, "b": 1},))


def put(buffer: Buffer, serials: list[int], panes: list[int], *, picked: bool) -> int:
    """Rows whose every column tells their serial number; with `picked` they stand among others in their batch."""
    rows = np.array(serials)
    spread = np.repeat(rows, 2) if picked else rows
    batch = a_batch(
        SCHEMA,
        {X: spread.astype(float), COLOUR: ["ab"[i % 2] for i in spread]},
        latency_s=(spread / 1000).tolist(),
        error=(spread % 100).tolist(),
    )
    chosen = np.arange(0, len(spread), 2) if picked else None
    if picked:
        batch.numeric[1::2] = -1  # rows of another version
    taken = buffer.put(batch, chosen, np.array(panes))
    batch.numeric[:] = -2  # a batch may be reused by whoever made it
    return taken


def taken_out(buffer: Buffer, left: int) -> dict[int, int]:
    """Pane by serial number of everything in the buffer; every column must tell the same number."""
    found: dict[int, int] = {}
    for rows, panes in buffer.take(left):
        assert rows.groups == len(panes) <= GROUPS_AT_ONCE
        group = np.zeros(len(rows), np.int64) if rows.group is None else rows.group
        for i in range(len(rows)):
            serial = round(rows.numeric[i, 0])
            assert (rows.codes[i, 0], rows.error[i]) == (serial % 2, serial % 100)
            assert rows.latency_s[i] == serial / 1000
            assert serial not in found
            found[serial] = int(panes[group[i]])
    return found


portions = st.lists(st.tuples(st.lists(st.integers(0, 300), min_size=1, max_size=80), st.booleans()), max_size=8)


@given(portions, st.integers(0, 100))
def test_every_row_comes_out_once_in_its_pane(drawn: list[tuple[list[int], bool]], left: int):
    buffer, expected = Buffer(SCHEMA), dict[int, int]()
    for panes, picked in drawn:
        serials = list(range(len(expected), len(expected) + len(panes)))
        assert put(buffer, serials, panes, picked=picked) == len(panes)
        expected |= dict(zip(serials, panes, strict=True))

    found = taken_out(buffer, left)

    if len(set(expected.values())) > 1:
        # What the window has left behind is counted for life only, without a pane of its own.
        expected = {serial: OUTSIDE if pane <= left else pane for serial, pane in expected.items()}
    assert found == expected
    assert taken_out(buffer, left) == {}


@pytest.mark.parametrize("picked", [False, True])
def test_a_full_buffer_takes_what_fits_and_can_be_filled_again(picked: bool):
    buffer = Buffer(SCHEMA)
    first = list(range(ROWS - 10))

    for _ in range(2):
        assert put(buffer, first, [7] * len(first), picked=picked) == ROWS - 10
        assert not buffer.full
        assert put(buffer, list(range(ROWS - 10, ROWS + 5)), [8] * 15, picked=picked) == 10
        assert buffer.full

        found = taken_out(buffer, 0)
        assert found == {serial: 7 if serial < ROWS - 10 else 8 for serial in range(ROWS)}
