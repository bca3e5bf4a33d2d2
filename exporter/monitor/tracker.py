"""What a health concern looks like: a vector of counts that rows are added to, and a read-out.

Because the state is a vector of integers, empty is zeros, merge is addition and dump is the bytes of the array; the
contract suite holds every tracker of `fleet.TRACKERS` to it.
"""

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np

from exporter.catalog.metric import Sample
from exporter.monitor.events import Rows
from exporter.stats import Counts


class Tracker(Protocol):
    """One health concern of one (model, version, reference)."""

    @property
    def width(self) -> int:
        """Length of the count vector."""
        ...

    @property
    def cells(self) -> type[np.integer[Any]]:
        """What holds a pane's sums: uint32 for counts of rows, int64 for sums of larger numbers."""
        ...

    def add(self, sums: Counts, rows: Rows) -> None:
        """Add rows to `sums[rows.groups, width]` in place."""
        ...

    def samples(self, lifetime: Counts) -> Iterable[Sample]:
        """The series that rise with the lifetime counts."""
        ...
