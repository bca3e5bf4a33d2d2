"""How labels find their predictions, and what comes of predictions that are old enough: arrays in, arrays out.

A label belongs to the predictions of its id. Times of events decide, not when something was looked at: a label counts
for a prediction if it is at most `maturity` younger; up to twice as young it is late; older than its prediction it may
be by `patience`. A prediction is settled with the last label it has when that much time has passed in the stream, so
that every cohort has the same maturity (labels that come fast are not like those that come slowly).

All work is a scan: labels that came since the last time are sorted, and each block of predictions is looked up in them.
That reads much and writes little, in the order it lies in, where an index of random ids would have to touch a page of
the disk for each.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from exporter.monitor.blocks import Block, Table
from exporter.monitor.rows import LABELS, MEMORY
from exporter.stats import Counts, Floats

Read: TypeAlias = Callable[[str, Block], Table | None]
Chosen: TypeAlias = Mapping[int, Sequence[Block]]
"""Blocks by bucket."""

KINDS = PREDICTIONS, SETTLED, ROUTED, FRESH, WAITING = "predictions", "settled", "routed", "fresh", "waiting"
"""Predictions to be settled, and those that are; labels of theirs; labels to be looked up, and those found nowhere."""


class Settles(Protocol):
    """Sums of one version's predictions (see accuracy.AccuracyTracker)."""

    @property
    def width(self) -> int:
        """Length of the vector of sums."""
        ...

    def settle(self, sums: Counts, group: Counts, rows: Table, label: Floats) -> None:
        """Add predictions with these labels to `sums[groups, width]`."""
        ...


@dataclass(frozen=True, slots=True)
class Rules:
    """How long predictions wait, and labels for theirs; `bucket_s` is the length of a bucket. Seconds."""

    maturity_s: float
    patience_s: float
    bucket_s: float
    pane_s: float

    def bucket(self, times: Floats) -> Counts:
        """The bucket of each time."""
        return np.floor(times / self.bucket_s).astype(np.int64)

    def maturity_pane(self, times: Floats) -> Counts:
        """The pane in which predictions of these times are mature."""
        return np.floor((times + self.maturity_s) / self.pane_s).astype(np.int64)

    def over(self, bucket: int, wait_s: float, frontier: float) -> bool:
        """Whether a bucket's last moment is `wait_s` before the frontier."""
        return (bucket + 1) * self.bucket_s + wait_s <= frontier


@dataclass(slots=True)
class Result:
    """What is new, by bucket, and what was counted."""

    routed: dict[int, list[Table]] = field(default_factory=dict)
    waiting: list[Table] = field(default_factory=list)
    left: dict[int, list[Table]] = field(default_factory=dict)
    """All that still waits, of buckets of waiting labels from which some have found their prediction."""
    settled: dict[int, list[Table]] = field(default_factory=dict)
    sums: dict[int, dict[int, Counts]] = field(default_factory=dict)
    """Outcomes by number of the version and pane."""
    duplicate: int = 0
    corrected: int = 0
    late: int = 0
    lost: int = 0
    """Predictions that cannot be read, or whose version is gone."""
    delays_s: list[Floats] = field(default_factory=list)


@dataclass(slots=True)
class Work:
    """One look at the labels that came since the last. May run on another thread: it changes nothing but its result."""

    read: Read
    rules: Rules
    frontier: float
    """Up to when everything has come, epoch seconds."""
    fresh: tuple[Block, ...]
    predictions: Chosen
    settled: Chosen
    routed: Chosen
    waiting: Chosen
    checked: int
    """Waiting labels were looked up in all blocks of predictions whose number is less."""
    next_checked: int
    """Likewise once this is done."""
    due: Sequence[int]
    trackers: Mapping[int, Settles]
    """By number of the version; predictions of another are forgotten."""
    no_label: float
    result: Result = field(default_factory=Result)

    def run(self) -> None:
        """Look labels up, and settle what is due."""
        labels = self._labels(FRESH, self.fresh)
        labels = labels[np.argsort(labels["id"], kind="stable")]
        ids = np.ascontiguousarray(labels["id"])
        found, in_time = np.zeros((2, len(labels)), np.bool_)
        new: list[Table] = []
        lookups = ((PREDICTIONS, self.predictions), (SETTLED, self.settled)) if len(labels) or self.waiting else ()
        for kind, chosen in lookups:
            for block in (block for blocks in chosen.values() for block in blocks):
                table = self.read(kind, block)
                if table is None:
                    continue
                if kind == PREDICTIONS and self.waiting and block.number >= self.checked:
                    new.append(table[["id", "time"]].astype(MEMORY))
                rows, places = _pairs(table["id"], ids)
                if len(rows):
                    self._route(table["time"][rows], labels, places, found, None if kind == SETTLED else in_time)
        self.result.late += int(np.sum(found & ~in_time))
        self.result.waiting.append(labels[~found])
        if new:
            self._look_up_waiting(np.concatenate(new))
        for bucket in self.due:
            self._settle(bucket)

    def _labels(self, kind: str, blocks: Iterable[Block]) -> Table:
        """All labels of some blocks that can be read."""
        tables = [table for block in blocks if (table := self.read(kind, block)) is not None]
        return np.concatenate(tables) if tables else np.zeros(0, LABELS)

    def _route(
        self,
        times: Floats,
        labels: Table,
        places: Counts,
        found: NDArray[np.bool_],
        in_time: NDArray[np.bool_] | None,
        *,
        earlier: bool = False,
    ) -> None:
        """Take note of labels that were found to be of predictions of these times; settled ones have no `in_time`.

        Labels that waited came `earlier` than all others of this look: of equal times the last that came counts.
        """
        delay = labels["time"][places] - times
        theirs = (delay >= -self.rules.patience_s) & (delay <= 2 * self.rules.maturity_s)
        first = theirs & ~found[places]
        _, once = np.unique(places[first], return_index=True)
        self.result.delays_s.append(delay[first][once])
        found[places[theirs]] = True
        if in_time is None:
            return
        theirs &= delay <= self.rules.maturity_s
        in_time[places[theirs]] = True
        buckets = self.rules.bucket(times[theirs])
        for bucket in np.unique(buckets).tolist():
            of_bucket = np.unique(places[theirs][buckets == bucket])  # in the order of arrival, for each id
            routed = self.result.routed.setdefault(bucket, [])
            routed.insert(0 if earlier else len(routed), labels[of_bucket])

    def _look_up_waiting(self, new: Table) -> None:
        """Look waiting labels up in predictions that came since the last time."""
        new = new[np.argsort(new["id"])]
        ids = np.ascontiguousarray(new["id"])
        for bucket, blocks in self.waiting.items():
            labels = self._labels(WAITING, blocks)
            rows, places = _pairs(labels["id"], ids)
            found, in_time = np.zeros((2, len(labels)), np.bool_)
            self._route(new["time"][places], labels, rows, found, in_time, earlier=True)
            self.result.late += int(np.sum(found & ~in_time))
            if found.any():
                self.result.left[bucket] = [labels[~found]]

    def _settle(self, bucket: int) -> None:
        """Settle the predictions of a bucket with the last label that each has."""
        routed = [self._labels(ROUTED, self.routed.get(bucket, ())), *self.result.routed.pop(bucket, ())]
        labels = np.concatenate(routed)
        labels = labels[np.lexsort((labels["time"], labels["id"]))]
        again = labels["id"][1:] == labels["id"][:-1]
        equal = labels["label"][1:] == labels["label"][:-1]
        self.result.duplicate += int(np.sum(again & equal))
        self.result.corrected += int(np.sum(again & ~equal))
        last = labels[np.append(~again, True)[: len(labels)]]
        ids = np.ascontiguousarray(last["id"])
        for block in self.predictions.get(bucket, ()):
            table = self.read(PREDICTIONS, block)
            if table is None:
                self.result.lost += block.rows
                continue
            label = np.full(len(table), self.no_label)
            rows, places = _pairs(table["id"], ids)
            delay = last["time"][places] - table["time"][rows]
            theirs = (delay >= -self.rules.patience_s) & (delay <= self.rules.maturity_s)
            label[rows[theirs]] = last["label"][places[theirs]]
            self._count(table, label)
            self.result.settled.setdefault(bucket, []).append(table[["id", "time"]].astype(MEMORY))

    def _count(self, table: Table, label: Floats) -> None:
        """Add what came of predictions, to the panes in which they are as old as they must be."""
        panes, group = np.unique(self.rules.maturity_pane(table["time"]), return_inverse=True)
        for version in np.unique(table["version"]).tolist():
            tracker = self.trackers.get(version)
            rows = np.flatnonzero(table["version"] == version)
            if tracker is None:
                self.result.lost += len(rows)
                continue
            sums = np.zeros((len(panes), tracker.width), np.int64)
            tracker.settle(sums, group[rows], table[rows], label[rows])
            by_pane = self.result.sums.setdefault(version, {})
            for place in np.unique(group[rows]).tolist():
                pane = int(panes[place])
                by_pane[pane] = by_pane[pane] + sums[place] if pane in by_pane else sums[place]


def _pairs(ids: NDArray[np.uint64], sorted_ids: NDArray[np.uint64]) -> tuple[Counts, Counts]:
    """Every pair of equal ids, as places in either."""
    if not len(sorted_ids):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    ids = np.ascontiguousarray(ids)
    starts = np.searchsorted(sorted_ids, ids)
    rows = np.flatnonzero(sorted_ids[np.minimum(starts, len(sorted_ids) - 1)] == ids)
    starts = starts[rows]
    sizes = np.searchsorted(sorted_ids, ids[rows], "right") - starts
    if (sizes == 1).all():
        return rows, starts
    within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.repeat(rows, sizes), np.repeat(starts, sizes) + within
