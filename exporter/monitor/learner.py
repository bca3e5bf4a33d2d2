"""A reference learned from the first predictions, for models whose training data nobody has at hand.

Until it is complete the state is "learning", with progress: there is nothing to compare with, hence no score. Rows are
kept as they are written down, in packed blocks: a third of the memory, and a tick has nothing to pack.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from exporter.catalog import thresholds
from exporter.monitor import reference
from exporter.monitor.events import LABEL, Column, FeatureKey, is_text
from exporter.monitor.features import BadReference
from exporter.monitor.reference import Reference
from exporter.monitor.settings import ModelSettings
from exporter.monitor.state import BLOCK_ROWS, Piece, Plain, pack_rows, unpack_rows

TEXT_LIMIT = 256
"""Characters of a text that can be a category; free text is none, and must not fill the memory."""


class Learner:
    """Collects the features of the first `settings.learn` predictions of one version."""

    def __init__(self, settings: ModelSettings, version: str) -> None:
        if settings.learn is None:
            raise ValueError(f"{settings.name} is not to learn a reference")
        self.settings = settings
        self.version = version
        self.needed = settings.learn
        self.seen = 0
        self.hopeless = False
        """Whether what was seen has no feature to build from."""
        self._blocks: list[bytes] = []
        self._open: dict[FeatureKey, list[Plain]] = {}
        self._names: set[FeatureKey] = set()
        self._taken = 0

    @property
    def complete(self) -> bool:
        """Whether enough was seen to build."""
        return self.seen >= self.needed

    def observe(self, rows: Sequence[Mapping[FeatureKey, object]]) -> None:
        """Keep rows, as many as are needed. Feature names beyond the limit are not kept."""
        for row in rows[: max(self.needed - self.seen, 0)]:
            for name, value in row.items():
                column = self._open.get(name)
                if column is None:
                    if name not in self._names and len(self._names) >= thresholds.LEARN_FEATURES_LIMIT.count:
                        continue
                    self._names.add(name)
                    column = self._open[name] = []
                column.append(_plain(value))
            self.seen += 1
            if self.seen % BLOCK_ROWS == 0:
                self._blocks.append(pack_rows(self._open))
                self._open = {}

    def build(self, now: float) -> Reference:
        """The reference. Features without one usable value are left out; raises BadReference when none is left."""
        columns: dict[FeatureKey, Column] = {}
        for name, values in self._columns().items():
            values.extend([None] * (self.seen - len(values)))  # of rows without it; which ones does not matter
            if name == LABEL:
                columns[name] = values
                continue
            column: Column = (
                values if name.name in self.settings.learn_categorical else reference.infer_column(name, values)
            )
            try:
                reference.build({name: column}, model="", version="", created=0)
            except BadReference:
                continue
            columns[name] = column
        self.hopeless = not columns.keys() - {LABEL}
        return reference.build(columns, model=self.settings.name, version=self.version, created=now)

    def _columns(self) -> dict[FeatureKey, list[object]]:
        columns: dict[FeatureKey, list[object]] = {}
        for block in (*map(unpack_rows, self._blocks), self._open):
            for name, values in block.items():
                columns.setdefault(name, []).extend(
                    _value(value) if isinstance(value, list) else value for value in values
                )
        return columns

    # ---- state -----------------------------------------------------------------------------------------------------

    def pieces(self) -> AbstractSet[Piece]:
        """The numbers of the blocks."""
        return set(range(-(-self.seen // BLOCK_ROWS)))

    def piece(self, piece: Piece) -> bytes:
        """A block of rows; all but the last are full."""
        number = int(piece)
        return self._blocks[number] if number < len(self._blocks) else pack_rows(self._open)

    def take_changed(self) -> AbstractSet[Piece]:
        """Blocks that got rows since the last call."""
        before, self._taken = self._taken, self.seen
        return set(range(before // BLOCK_ROWS, -(-self.seen // BLOCK_ROWS))) if before < self.seen else set()

    def load(self, seen: int, blocks: Sequence[bytes]) -> None:
        """Take over the blocks of so many rows into a learner that has seen none."""
        self.seen = seen
        full = seen // BLOCK_ROWS
        self._blocks = list(blocks[:full])
        self._open = unpack_rows(blocks[full]) if full < len(blocks) else {}
        self._names = {name for block in blocks for name in unpack_rows(block)}


def _plain(value: object) -> Plain:
    """What is kept of a value: nothing of what can be neither a number nor a category."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**64 else [hex(value)]
    if isinstance(value, str) and len(value) <= TEXT_LIMIT and is_text(value):
        return str(value)
    return []


def _value(kept: list[str]) -> object:
    """The inverse of `_plain` for lists; an empty tuple is of no type that a feature can have."""
    return int(kept[0], 16) if kept else ()
