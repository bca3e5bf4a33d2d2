"""Rows that wait to be counted together. Memory is taken once and reused: a fresh megabyte a time costs page faults."""

from collections.abc import Iterator

import numpy as np

from exporter.monitor.events import Batch, Codes, Rows, Schema
from exporter.monitor.panes import OUTSIDE
from exporter.stats import Counts, Floats

ROWS = 4096
"""Rows counted at once: enough to share the cost of looking up the knots, in 2.5 ms (4 over 60 panes). Twice as many
hold the event loop twice as long, and a row costs no less."""

GROUPS_AT_ONCE = 64
"""Panes counted in one pass: a row of counters each, which for 500 features are 2 MB."""


class Buffer:
    """Columns of up to ROWS rows in the columns of `schema`, with the pane of each row."""

    def __init__(self, schema: Schema) -> None:
        self._numeric: Floats = np.empty((len(schema.numeric), ROWS))
        self._codes: Codes = np.empty((len(schema.categorical), ROWS), np.int32)
        self._latency_s: Floats = np.empty(ROWS)
        self._error = np.empty(ROWS, np.int16)
        self._pane: Counts = np.empty(ROWS, np.int64)
        self.used = 0

    @property
    def full(self) -> bool:
        """Whether rows must be taken out before more can be put in."""
        return self.used == ROWS

    def codes(self, column: int) -> Codes:
        """A column of categories of all rows, in the order in which they came."""
        return self._codes[column, : self.used]

    def put(self, batch: Batch, rows: Counts | None, pane: Counts) -> int:
        """Put rows of a batch in (all, or those of the given indices), as many as there is room for; returns how many.

        `pane` belongs to the rows that are to be put.
        """
        taken = min(len(pane), ROWS - self.used)
        chosen = slice(taken) if rows is None else rows[:taken]
        place = slice(self.used, self.used + taken)
        self._numeric[:, place] = batch.numeric[chosen].T
        self._codes[:, place] = batch.codes[chosen].T
        self._latency_s[place] = batch.latency_s[chosen]
        self._error[place] = batch.error[chosen]
        self._pane[place] = pane[:taken]
        self.used += taken
        return taken

    def take(self, left: int) -> Iterator[tuple[Rows, Counts]]:
        """Take all rows out, grouped by pane, some panes at a time; the window has left pane `left` behind."""
        n, self.used = self.used, 0
        if not n:
            return
        pane = self._pane[:n]
        if pane.min() == pane.max():
            yield self._rows(slice(n), None, 1), pane[:1].copy()
            return
        panes, group = np.unique(np.where(pane <= left, OUTSIDE, pane), return_inverse=True)
        for first in range(0, len(panes), GROUPS_AT_ONCE):
            part = panes[first : first + GROUPS_AT_ONCE]
            if len(part) == len(panes):
                yield self._rows(slice(n), group, len(part)), part
            else:
                rows = np.flatnonzero((group >= first) & (group < first + len(part)))
                yield self._rows(rows, group[rows] - first, len(part)), part

    def _rows(self, rows: Counts | slice, group: Counts | None, groups: int) -> Rows:
        return Rows(
            numeric=self._numeric[:, rows].T,
            codes=self._codes[:, rows].T,
            latency_s=self._latency_s[rows],
            error=self._error[rows],
            group=group,
            groups=groups,
        )
