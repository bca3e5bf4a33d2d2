"""The light part of a fleet's state: what there is, but for the counts themselves (see state)."""

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

FURTHEST = 10**15
INT64 = 2**63 - 1
_Count = Annotated[int, Meta(ge=0, le=INT64)]
_Time = Annotated[float, Meta(ge=-FURTHEST, le=FURTHEST)]
_Sums: TypeAlias = dict[str, _Count]


class CountedEntry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Which vectors there are: the lifetime counts and these panes, each of so many counts."""

    width: _Count
    panes: tuple[int, ...]


class ArchiveEntry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The spans that are kept, each of so many counts, and the last pane that is sealed."""

    width: _Count
    sealed: int
    spans: tuple[int, ...]


class FaultsEntry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How many rates are watched, and the last pane that their evidence knows of."""

    rates: _Count
    sealed: int


class SegmentsEntry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Segments by one tag: which value has which slot, and how often values came since a pane (see slots)."""

    values: tuple[str | None, ...]
    volumes: _Sums
    since: int
    traffic: CountedEntry
    drift: CountedEntry
    accuracy: CountedEntry | None


class VersionEntry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A version of a model; `learned` is how many rows a learner has seen, None without one."""

    reference: str | None
    first_seen: _Time
    last_seen: _Time
    last_prediction: _Time | None
    reasons: tuple[str, ...]
    traffic: CountedEntry
    drift: CountedEntry | None
    accuracy: CountedEntry | None
    moments: CountedEntry | None
    archive: ArchiveEntry
    learned: _Count | None
    faults: FaultsEntry | None
    segments: dict[str, SegmentsEntry]


class ModelEntry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A model; `references` are the ids of those it has learned; with `joins` there is a piece about its labels."""

    pane_s: Annotated[float, Meta(gt=0, le=FURTHEST)]
    panes: Annotated[int, Meta(ge=1, le=FURTHEST)]
    end: int
    partitions: dict[str, tuple[_Time, _Time]]
    references: tuple[str, ...]
    versions: dict[str, VersionEntry]
    last_label: _Time | None
    joins: bool


class FeedEntry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The account of a source."""

    events: _Count
    rejected: _Sums
    late: _Sums
    dropped: _Sums
    troubles: _Sums
    redelivered: _Count
    watermark: _Time | None


class FleetEntry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Everything light."""

    models: dict[str, ModelEntry]
    feeds: dict[str, FeedEntry]
