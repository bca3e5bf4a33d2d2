"""The form of a fleet's state: a flat mapping of text keys to bytes, so that only what changed is written again.

One light entry says what there is: models, watermarks, versions, feeds, and which panes they have. The lifetime counts
of a tracker, a pane of its window, a learned reference and a block of rows to learn from are entries of their own. Keys
are JSON arrays: no name, whatever it holds, can be taken for another. `read` believes nothing: what is missing, too
much, of the wrong length or out of range makes BadState. Whether today's settings have a use for it is not asked here.
"""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from exporter.catalog import thresholds
from exporter.monitor import reference
from exporter.monitor.entries import (
    FURTHEST,
    INT64,
    CountedEntry,
    FaultsEntry,
    FleetEntry,
    ModelEntry,
    SegmentsEntry,
    VersionEntry,
)
from exporter.monitor.events import FeatureKey, FeatureKind
from exporter.monitor.evidence import Evidence
from exporter.monitor.features import BadReference
from exporter.monitor.panes import OUTSIDE, Window
from exporter.monitor.reference import Reference

VERSION = 5

LIFETIME = "lifetime"
"""The piece of a tracker that is no pane."""

EVIDENCE = "evidence"
"""The only piece of a detector."""

BLOCK_ROWS = 256
"""Rows that are learned from come in blocks of so many; until a block is full it is written anew."""

Piece: TypeAlias = int | str
Place: TypeAlias = tuple[str, ...]
"""A concern (traffic, drift, faults, labels, ...), a model, and a version or the id of a reference.

Labels have no version; counts by segment have the tag too. Blocks of rows that wait for labels are no piece: nobody
keeps them in memory.
"""

Plain: TypeAlias = bool | int | float | str | list[str] | None
"""A value to learn from. A list is what no number or short text can be: empty, or an integer beyond 64 bits in hex."""
PlainColumns: TypeAlias = Mapping[FeatureKey, Sequence[Plain]]


class BadState(ValueError):
    """A state that must not be used; the message says why. Nothing was taken over from it."""


class NewerState(BadState):
    """A state that a later release has written."""


class _Versioned(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The light entry as it is written."""

    state: int
    fleet: msgspec.Raw


class Holder(Protocol):
    """Part of a fleet whose state is pieces, most of which stay as they are from one tick to the next."""

    def pieces(self) -> AbstractSet[Piece]:
        """The pieces there are."""
        ...

    def piece(self, piece: Piece) -> bytes:
        """One of them."""
        ...

    def take_changed(self) -> AbstractSet[Piece]:
        """Pieces that may have changed since the last call."""
        ...


@dataclass(frozen=True, slots=True)
class Learned:
    """A learned reference, as a holder."""

    reference: Reference

    def pieces(self) -> AbstractSet[Piece]:
        """The document."""
        return {"document"}

    def piece(self, piece: Piece) -> bytes:
        """The document as a person may save it."""
        assert piece == "document"  # noqa: S101 - the only piece
        return reference.encode(self.reference)

    def take_changed(self) -> AbstractSet[Piece]:
        """A reference never changes."""
        return frozenset()


# ---- out -------------------------------------------------------------------------------------------------------------

_encode = msgspec.msgpack.Encoder().encode
_LIGHT = '["fleet"]'


def key(place: Place, piece: Piece) -> str:
    """The key of a piece."""
    return msgspec.json.encode((*place, piece)).decode()


def all_entries(fleet: FleetEntry, holders: Mapping[Place, Holder]) -> dict[str, bytes]:
    """Every entry."""
    pieces = ((place, holder, piece) for place, holder in holders.items() for piece in holder.pieces())
    return {_LIGHT: _light(fleet)} | {key(place, piece): holder.piece(piece) for place, holder, piece in pieces}


class Ledger:
    """What was handed out before. A holder that has taken the place of another is new, whatever their names."""

    def __init__(self) -> None:
        self._light = b""
        self._held: dict[Place, tuple[Holder, AbstractSet[Piece]]] = {}

    def changes(self, fleet: FleetEntry, holders: Mapping[Place, Holder]) -> dict[str, bytes | None]:
        """Entries that are new, have changed or (None) are gone since the last call."""
        light = _light(fleet)
        found: dict[str, bytes | None] = {} if light == self._light else {_LIGHT: light}
        held = {place: (holder, holder.pieces()) for place, holder in holders.items()}
        for place, (holder, pieces) in held.items():
            changed = holder.take_changed() & pieces
            before, known = self._held.get(place, (None, frozenset[Piece]()))
            if before is not holder:
                changed = pieces
            found.update((key(place, piece), holder.piece(piece)) for piece in changed)
            found.update((key(place, piece), None) for piece in known - pieces)
        for place in self._held.keys() - held.keys():
            found.update((key(place, piece), None) for piece in self._held[place][1])
        self._light, self._held = light, held
        return found


def _light(fleet: FleetEntry) -> bytes:
    return _encode(_Versioned(VERSION, msgspec.Raw(_encode(fleet))))


def pack(counts: NDArray[Any]) -> bytes:
    """Counts as unsigned integers of the fewest bytes that hold the largest, behind their size: most are small."""
    most = int(counts.max(initial=0))
    size = next(size for size in (1, 2, 4, 8) if most < 1 << 8 * size)
    return bytes([size]) + counts.astype(f"<u{size}").tobytes()


def pack_rows(columns: PlainColumns) -> bytes:
    """A block of rows, column by column: which row lacks a value does not matter to a reference."""
    return _encode([(name.kind, name.name, values) for name, values in columns.items()])


# ---- in --------------------------------------------------------------------------------------------------------------

_decode_rows = msgspec.msgpack.Decoder(list[tuple[FeatureKind, str, list[Plain]]]).decode
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_HEX_CHARACTERS = 1000  # an integer of 4,000 bits, more than any codec lets through


@dataclass(frozen=True, slots=True)
class Vectors:
    """Counts of one tracker, as narrow as they were written; of an archive there are spans alone."""

    lifetime: NDArray[Any]
    panes: Mapping[int, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Saved:
    """A state that fits together, and what it says by place; learned references by model."""

    fleet: FleetEntry
    vectors: Mapping[Place, Vectors]
    evidence: Mapping[Place, Evidence]
    blocks: Mapping[Place, Sequence[bytes]]
    references: Mapping[str, Sequence[Reference]]
    labels: Mapping[str, bytes]


def read(written: Mapping[str, bytes], cells: Mapping[str, type[np.integer[Any]]]) -> Saved:
    """Read what `all_entries` has made; `cells` is what holds a pane of a concern. Raises BadState and nothing else."""
    fleet = _read_light(written)
    left = dict(written)
    del left[_LIGHT]

    def take(place: Place, piece: Piece) -> bytes:
        name = key(place, piece)
        if name not in left:
            raise BadState(f"{name} is missing")
        return left.pop(name)

    vectors: dict[Place, Vectors] = {}
    evidence: dict[Place, Evidence] = {}
    blocks: dict[Place, list[bytes]] = {}
    references: dict[str, list[Reference]] = {}
    labels: dict[str, bytes] = {}
    for name, model in fleet.models.items():
        if model.joins:
            labels[name] = take(("labels", name, ""), "index")
        documents = [take(("reference", name, one), "document") for one in dict.fromkeys(model.references)]
        references[name] = _read_references(name, model, documents)
        for version, entry in model.versions.items():
            for (concern, *at), counted in _counted(entry):
                if counted is None:
                    continue
                _check_panes(model, counted)
                place: Place = (concern, name, version, *at)
                most = int(np.iinfo(cells[concern]).max)
                vectors[place] = Vectors(
                    _unpack(take(place, LIFETIME), counted.width, INT64),
                    {pane: _unpack(take(place, pane), counted.width, most) for pane in counted.panes},
                )
            for segments in entry.segments.values():
                _check_segments(segments)
            place = ("archive", name, version)
            archive = entry.archive
            if len(set(archive.spans)) != len(archive.spans) or len(archive.spans) > len(left):
                raise BadState(f"spans of {name} {version} are missing, or there twice")
            kept = {span: _unpack(take(place, span), archive.width, INT64) for span in archive.spans}
            vectors[place] = Vectors(np.zeros(0, np.int64), kept)
            if entry.faults is not None:
                place = ("faults", name, version)
                evidence[place] = _read_evidence(take(place, EVIDENCE), entry.faults, model)
            if entry.learned is not None:
                place = ("learner", name, version)
                count = -(-entry.learned // BLOCK_ROWS)
                if count > len(left):
                    raise BadState(f"rows of {name} {version} are missing")
                blocks[place] = [take(place, number) for number in range(count)]
                _check_blocks(blocks[place], entry.learned)
    if left:
        raise BadState(f"{len(left)} entries too many, {min(left)[:200]} is one")
    return Saved(fleet, vectors, evidence, blocks, references, labels)


def _counted(entry: VersionEntry) -> Iterator[tuple[Place, CountedEntry | None]]:
    """The trackers of a version, and of its segments by tag."""
    yield from ((("traffic",), entry.traffic), (("drift",), entry.drift), (("accuracy",), entry.accuracy))
    yield ("moments",), entry.moments
    for name, one in entry.segments.items():
        yield from ((("traffic", name), one.traffic), (("drift", name), one.drift), (("accuracy", name), one.accuracy))


def unpack_rows(block: bytes) -> dict[FeatureKey, list[Plain]]:
    """The columns of a block. Raises BadState."""
    try:
        read_columns = _decode_rows(block)
    except _UNREADABLE as error:
        raise BadState(f"rows cannot be read: {error}") from None
    columns = {FeatureKey(kind, name): values for kind, name, values in read_columns}
    if len(columns) != len(read_columns):
        raise BadState("rows have a feature twice")
    return columns


def _read_light(written: Mapping[str, bytes]) -> FleetEntry:
    if _LIGHT not in written:
        raise BadState("the entry of the fleet is missing")
    try:
        versioned = msgspec.msgpack.decode(written[_LIGHT], type=_Versioned)
        if versioned.state != VERSION:
            make = NewerState if versioned.state > VERSION else BadState
            raise make(f"state {VERSION} expected, found {versioned.state}")
        return msgspec.msgpack.decode(versioned.fleet, type=FleetEntry)
    except _UNREADABLE as error:
        raise BadState(f"the entry of the fleet cannot be read: {error}") from None


def _read_references(name: str, model: ModelEntry, documents: Sequence[bytes]) -> list[Reference]:
    try:
        found = [reference.decode(document) for document in documents]
        if [one.id for one in found] != list(model.references) or any(one.model != name for one in found):
            raise BadState(f"references of {name} are not those that were learned")
        if found:
            reference.schema_of(found)
    except BadReference as error:
        raise BadState(f"a reference of {name}: {error}") from None
    return found


def _check_panes(model: ModelEntry, counted: CountedEntry) -> None:
    """Raise BadState unless each pane is one that a ring can hold, given where the window ends."""
    window = Window(model.pane_s, model.panes, "")
    if model.end != OUTSIDE and abs(model.end) > FURTHEST * 60:
        raise BadState(f"a window ends at pane {model.end}")
    within = all(model.end - model.panes < pane <= model.end + window.ahead for pane in counted.panes)
    if not within or len(set(counted.panes)) != len(counted.panes):
        raise BadState("a pane is outside of its window, or there twice")


def _read_evidence(raw: bytes, entry: FaultsEntry, model: ModelEntry) -> Evidence:
    try:
        evidence = Evidence.unpack(raw, entry.rates)
    except ValueError as error:
        raise BadState(f"evidence of faults: {error}") from None
    if not evidence.alarmed.max(initial=OUTSIDE) <= entry.sealed <= model.end:
        raise BadState("evidence of faults knows of panes to come")
    return evidence


def _check_segments(segments: SegmentsEntry) -> None:
    """Raise BadState unless each value has one slot, and no more values came than are told apart."""
    values = [value for value in segments.values if value is not None]
    if len(set(values)) != len(values) or len(segments.volumes) > thresholds.SEGMENT_NAMES.count:
        raise BadState("a segment is there twice, or there are too many")


def _check_blocks(blocks: Sequence[bytes], rows: int) -> None:
    """Raise BadState unless the blocks hold so many rows of values that a learner keeps."""
    names: set[FeatureKey] = set()
    for number, block in enumerate(blocks):
        columns = unpack_rows(block)
        names |= columns.keys()
        longest = max(map(len, columns.values()), default=0)
        if longest > min(BLOCK_ROWS, rows - number * BLOCK_ROWS) or len(names) > thresholds.LEARN_FEATURES_LIMIT.count:
            raise BadState("more rows or features to learn from than were kept")
        for values in columns.values():
            for value in values:
                if isinstance(value, list) and not _is_hex(value):
                    raise BadState("rows hold a list that stands for nothing")


def _is_hex(value: Sequence[str]) -> bool:
    try:
        return not value or (len(value) == 1 and len(value[0]) <= _HEX_CHARACTERS and int(value[0], 16) is not None)
    except ValueError:
        return False


def _unpack(raw: bytes, width: int, most: int) -> NDArray[Any]:
    size = raw[0] if raw else 0
    if size not in (1, 2, 4, 8) or len(raw) != 1 + size * width:
        raise BadState(f"{width} counts expected, found {len(raw)} bytes")
    counts = np.frombuffer(raw, f"<u{size}", offset=1)
    if counts.max(initial=0) > most:
        raise BadState("a count is too large")
    # Sums are signed, and numpy has no common integer for both kinds of 64 bits.
    return counts.astype(np.int64) if size == 8 else counts
