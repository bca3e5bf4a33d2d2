"""Labels that come later than their predictions: what waits for what, and how much of it there was.

One model's predictions wait in blocks (`blocks`) until they are as old as `labels.maturity` says; labels wait a little
for predictions that have not come yet. `settling` says which belong together; here is what there is and when it is
looked at. A settled prediction counts in the pane in which it became that old: the window of a quality ends `maturity`
before that of everything else.

What is bounded: predictions that wait (`max_pending`; more of them are not joined, and counted), as many labels that
found none (of more the oldest are given up), and with a shelf the memory: to one open block a bucket.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from exporter.catalog import thresholds
from exporter.monitor.blocks import Block, Blocks, Shelf, Table
from exporter.monitor.events import MISSING, NO_ERROR, Batch, FeatureKey, Ids, LabelBatch, Schema
from exporter.monitor.labels import JoinView, Tally
from exporter.monitor.panes import OUTSIDE, Watermarks, Window
from exporter.monitor.rows import (
    LABELS,
    MEMORY,
    Layout,
    answers,
    layout_of,
    score_field,
    tag_field,
    tag_ids,
    unlabelled,
)
from exporter.monitor.settings import JoinSettings
from exporter.monitor.settling import (
    FRESH,
    KINDS,
    PREDICTIONS,
    ROUTED,
    SETTLED,
    WAITING,
    Rules,
    Settles,
    Work,
)
from exporter.monitor.state import BadState, Piece
from exporter.stats import Counts

_BUCKETS, _WINDOW_BUCKETS = 64, 4
"""Buckets a maturity, and at least a window. A prediction is settled up to one of them after its time."""
_LOOK_ROWS = 2**18
"""Labels that are looked up together at the latest: a few MB, and each look reads all predictions."""
_LOOK_S = 60.0
"""How long a label waits at the most to be looked up."""
_HELD_BYTES = 64 * 2**20
"""Blocks that may be in memory because they cannot be written; then nothing more is taken."""
_VERSIONS = 2**16
_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class _Index(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Everything but the blocks, as it is written."""

    tally: Tally
    end: int
    partitions: dict[str, tuple[float, float]]
    versions: tuple[str, ...]
    layouts: tuple[Layout, ...]
    checked: _Count
    blocks: list[tuple[str, int, list[Block]]]


class LabelJoin:
    """The join of one model."""

    def __init__(self, model: str, settings: JoinSettings, window: Window, shelf: Shelf | None = None) -> None:
        self.settings = settings
        self.watermarks = Watermarks(window)
        """Of the partitions that carry labels."""
        self.tally = Tally()
        self._rules = Rules(
            maturity_s=settings.maturity_s,
            patience_s=min(window.seconds, settings.maturity_s),
            bucket_s=max(min(settings.maturity_s / _BUCKETS, window.seconds / _WINDOW_BUCKETS), 1.0),
            pane_s=window.pane_s,
        )
        self._versions: dict[str, int] = {}
        self._layouts: list[Layout] = []
        self._layout_of: tuple[Schema | None, int] = (None, 0)
        self._blocks = Blocks(model, self._dtype, shelf)
        self._checked = 0
        self._looked = 0.0
        self._silent: dict[str, float] = {}
        self._last: bytes | None = None

    def view(self) -> JoinView:
        """The account of now."""
        return JoinView(self.settings, self.tally.copy(), self.pending)

    @property
    def pending(self) -> int:
        """Predictions that wait to be settled."""
        return self._blocks.rows(PREDICTIONS)

    @property
    def held_bytes(self) -> int:
        """What is in memory because it is not durable yet."""
        return self._blocks.held_bytes

    # ---- in --------------------------------------------------------------------------------------------------------

    def predict(self, batch: Batch, rows: Counts | None, version: str, now: float) -> None:
        """Let predictions of a version wait (all rows of a batch, or those of the given indices).

        Not those that failed, that say nothing, or that brought their label.
        """
        layout = self._layout(batch.schema)
        chosen = slice(None) if rows is None else rows
        predicted, waits = answers(batch, chosen)
        waits &= unlabelled(batch, chosen) & (batch.error[chosen] == NO_ERROR)
        ids = batch.id[chosen] if batch.id is not None else np.zeros(len(predicted), np.uint64)
        time = batch.time[chosen]
        for reason, apart in (("no_id", ids == 0), ("future", time > now + self.watermarks.window.pane_s)):
            self.tally.leave(reason, int(np.sum(waits & apart)))
            waits &= ~apart
        places = np.flatnonzero(waits & self._sampled(ids))
        room = max(self.settings.max_pending - self.pending, 0)
        number = self._versions.get(version, len(self._versions))
        if self.held_bytes > _HELD_BYTES or number >= _VERSIONS:
            room = 0
        self.tally.leave("max_pending", max(len(places) - room, 0))
        places = places[:room]
        if not len(places):
            return
        self._versions[version] = number
        table = np.empty(len(places), self._layouts[layout].dtype)
        table["id"], table["time"], table["predicted"] = ids[places], time[places], predicted[places]
        table["version"] = number
        for place, name in enumerate(self._layouts[layout].scores):
            column = batch.schema.numeric.index(FeatureKey("score", name))
            table[score_field(place)] = batch.numeric[chosen][places, column]
        for place, name in enumerate(self._layouts[layout].tags):
            table[tag_field(place)] = tag_ids(batch, name, chosen)[places]
        self._append(PREDICTIONS, table, layout)

    def label(self, batch: LabelBatch) -> None:
        """Let labels be looked up."""
        self.tally.received += len(batch)
        sampled = self._sampled(batch.id)
        table = np.empty(int(sampled.sum()), LABELS)
        table["id"], table["time"], table["label"] = batch.id[sampled], batch.time[sampled], batch.label[sampled]
        self._blocks.append(FRESH, 0, table, self._layout(batch.schema))

    # ---- settling --------------------------------------------------------------------------------------------------

    def work(
        self,
        predictions: Watermarks,
        schema: Schema,
        trackers: Mapping[str, Settles],
        now: float,
        to_come: Collection[str] | None = (),
    ) -> Work | None:
        """What is to be done now, if predictions have come as far as their watermarks say; None if it can wait.

        Outcomes of predictions of a version without a tracker are forgotten. Partitions `to_come` have more labels;
        while nobody can be asked (None), or one of them has not said for a minute how far it is, nothing is settled.
        One that brings predictions says it with those.
        """
        known = self.watermarks.partitions.keys()
        self.watermarks.hold(known if to_come is None else to_come, now)
        self.watermarks.tick(now)
        heard = known | predictions.partitions.keys()
        self._silent = {one: self._silent.get(one, now) for one in to_come or () if one not in heard}
        held = any(now - since < thresholds.IDLE_PARTITION_S.value for since in self._silent.values())
        frontier = -math.inf if held or to_come is None else self._frontier(predictions.end)
        due = [
            bucket
            for bucket in self._blocks.buckets(PREDICTIONS)
            if self._rules.over(bucket, self._rules.maturity_s, frontier)
        ]
        fresh = self._blocks.rows(FRESH)
        some = fresh or self._blocks.rows(WAITING) or self._blocks.rows(SETTLED)
        if not due and fresh < _LOOK_ROWS and not (some and now - self._looked >= _LOOK_S):
            return None
        self._looked = now
        self._blocks.seal(FRESH, 0)
        for bucket in due:
            self._blocks.seal(PREDICTIONS, bucket)
        layout = self._layout(schema)
        return Work(
            read=lambda kind, block: self._read(kind, block, layout),
            rules=self._rules,
            frontier=frontier,
            fresh=self._blocks.blocks(FRESH, 0),
            predictions=self._chosen(PREDICTIONS),
            settled=self._chosen(SETTLED),
            routed=self._chosen(ROUTED),
            waiting=self._chosen(WAITING),
            checked=self._checked,
            next_checked=self._blocks.first_open(PREDICTIONS),
            due=due,
            trackers=self._by_number(trackers),
            no_label=np.nan if self._layouts[layout].labels is None else MISSING,
        )

    def done(self, work: Work, schema: Schema, trackers: Mapping[str, Settles]) -> dict[str, dict[int, Counts]]:
        """Take note of work that was done; returns the outcomes by version and pane, to be counted at once.

        None of it, and nothing, where trackers are not those of its beginning: it has to be done anew.
        """
        known = self._by_number(trackers)
        if any(known.get(number) != tracker for number, tracker in work.trackers.items()):
            return {}
        blocks, rules, result, layout = self._blocks, self._rules, work.result, self._layout(schema)
        blocks.drop(FRESH, 0, work.fresh)
        for bucket, labels in result.left.items():
            blocks.drop(WAITING, bucket, work.waiting[bucket])
            result.waiting += labels
        for bucket in work.due:
            blocks.drop(PREDICTIONS, bucket, work.predictions[bucket])
            blocks.drop(ROUTED, bucket, work.routed.get(bucket, ()))
        for bucket, tables in result.routed.items():
            for table in tables:
                blocks.append(ROUTED, bucket, table, layout)
        for bucket, tables in result.settled.items():
            for table in tables:
                blocks.append(SETTLED, bucket, table)
        for table in result.waiting:
            self._append(WAITING, table, layout)
        self._checked = work.next_checked
        tally = self.tally
        for bucket in blocks.buckets(WAITING):
            too_many = blocks.rows(WAITING) > self.settings.max_pending
            if too_many or rules.over(bucket, rules.patience_s, work.frontier):
                gone = blocks.blocks(WAITING, bucket)
                tally.unmatched += sum(block.rows for block in gone)
                blocks.drop(WAITING, bucket, gone)
        for bucket in blocks.buckets(SETTLED):
            if rules.over(bucket, 2 * rules.maturity_s, work.frontier):
                blocks.drop(SETTLED, bucket, blocks.blocks(SETTLED, bucket))
        tally.duplicate += result.duplicate
        tally.corrected += result.corrected
        tally.late += result.late
        tally.leave("lost", result.lost)
        for delays_s in result.delays_s:
            tally.delayed(delays_s)
        names = {number: name for name, number in self._versions.items()}
        return {names[number]: by_pane for number, by_pane in result.sums.items()}

    # ---- state -----------------------------------------------------------------------------------------------------

    def merge(self, other: "LabelJoin") -> None:
        """Add what another process has: a stream spread over both by id equals one process."""
        self.watermarks.merge(other.watermarks)
        self.tally.merge(other.tally)
        numbers = np.array([self._versions.setdefault(name, len(self._versions)) for name in other._versions])
        for kind, bucket, block, table in other._blocks.tables():
            layout = 0
            if kind != SETTLED:
                layout = self._number(other._layouts[block.layout])
            if kind == PREDICTIONS:
                table = table.copy()  # noqa: PLW2901
                table["version"] = numbers[table["version"]]
            self._blocks.append(kind, bucket, table, layout)
        self._checked = 0

    def pieces(self) -> AbstractSet[Piece]:
        """One, that lists the blocks; the blocks themselves are told by `changed_blocks`."""
        return {"index"}

    def piece(self, piece: Piece) -> bytes:
        """Everything but the blocks."""
        assert piece == "index"  # noqa: S101 - the only piece
        end, partitions = self.watermarks.dump()
        return msgspec.msgpack.encode(
            _Index(
                tally=self.tally,
                end=end,
                partitions=partitions,
                versions=tuple(self._versions),
                layouts=tuple(self._layouts),
                checked=self._checked,
                blocks=self._blocks.index(),
            )
        )

    def take_changed(self) -> AbstractSet[Piece]:
        """The one piece, if it is not what it was."""
        before, self._last = self._last, self.piece("index")
        return set() if before == self._last else {"index"}

    def changed_blocks(self) -> dict[str, bytes | None]:
        """Blocks that are new, have changed or (None) are gone since the last call."""
        return self._blocks.changes()

    def block_keys(self) -> set[str]:
        """The keys of all blocks."""
        return self._blocks.keys()

    def durable(self, keys: Iterable[str]) -> None:
        """Let go of blocks that can be read from the shelf."""
        self._blocks.durable(keys)

    def all_blocks(self) -> dict[str, bytes]:
        """Every block."""
        return self._blocks.all()

    def load(self, index: bytes, blocks: Mapping[str, bytes]) -> None:
        """Take over a state into a join that has none. Raises BadState, and then has not."""
        try:
            read = msgspec.msgpack.decode(index, type=_Index)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise BadState(f"labels cannot be read: {error}") from None
        numbers = [block.number for _, _, several in read.blocks for block in several]
        sound = (
            len(read.tally.delays) == len(self.tally.delays)
            and len(set(read.versions)) == len(read.versions) <= _VERSIONS
            and len(set(numbers)) == len(numbers)
            and all(kind in KINDS and several for kind, _, several in read.blocks)
            and all(
                block.layout < len(read.layouts)
                for kind, _, several in read.blocks
                for block in several
                if kind != SETTLED
            )
        )
        if not sound:
            raise BadState("what is written of labels does not fit together")
        self.watermarks.load(read.end, read.partitions)
        self.tally, self._checked = read.tally, read.checked
        self._versions = {name: number for number, name in enumerate(read.versions)}
        self._layouts, self._layout_of = list(read.layouts), (None, 0)
        self._blocks.load(read.blocks, blocks)

    # ---- rows ------------------------------------------------------------------------------------------------------

    def _frontier(self, end: int) -> float:
        """Up to when everything has come, epoch seconds; labels say so only if there are any."""
        if self.watermarks.partitions:
            end = min(end, self.watermarks.end)
        if end == OUTSIDE:
            return -math.inf
        return (self.watermarks.window.sealed(end) + 1) * self._rules.pane_s

    def _sampled(self, ids: Ids) -> NDArray[np.bool_]:
        """Which ids are looked at: the same wherever they turn up."""
        if self.settings.sample >= 1:
            return np.ones(len(ids), np.bool_)
        return ids < np.uint64(self.settings.sample * 2.0**64)

    def _append(self, kind: str, table: Table, layout: int) -> None:
        """Add rows to the buckets of their times."""
        buckets = self._rules.bucket(table["time"])
        for bucket in np.unique(buckets).tolist():
            self._blocks.append(kind, bucket, table[buckets == bucket], layout)

    def _chosen(self, kind: str) -> dict[int, tuple[Block, ...]]:
        return {bucket: self._blocks.blocks(kind, bucket) for bucket in self._blocks.buckets(kind)}

    def _dtype(self, kind: str, layout: int) -> np.dtype[Any]:
        if kind == PREDICTIONS:
            return self._layouts[layout].dtype
        return MEMORY if kind == SETTLED else LABELS

    def _by_number(self, trackers: Mapping[str, Settles]) -> dict[int, Settles]:
        return {number: trackers[name] for name, number in self._versions.items() if name in trackers}

    def _layout(self, schema: Schema) -> int:
        """The number of the layout that a schema stands for."""
        known, number = self._layout_of
        if known is not schema:
            number = self._number(layout_of(schema))
            self._layout_of = schema, number
        return number

    def _number(self, layout: Layout) -> int:
        if layout not in self._layouts:
            self._layouts.append(layout)
        return self._layouts.index(layout)

    def _read(self, kind: str, block: Block, layout: int) -> Table | None:
        """The rows of a block as if they had this layout."""
        table = self._blocks.read(kind, block)
        if table is None or kind == SETTLED or block.layout == layout:
            return table
        before, now = self._layouts[block.layout], self._layouts[layout]
        return before.moved(table, now) if kind == PREDICTIONS else before.moved_labels(table, now)
