"""What predictions and labels look like while they wait for each other: rows of numbers, and what these stand for.

Categories are codes of the schema that was in force when they came. That may have changed when they are read: a layout
keeps the texts, and moves rows to the codes of another.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from exporter.monitor.blocks import Table
from exporter.monitor.events import (
    LABEL,
    MISSING,
    OUTPUT,
    UNSEEN,
    WRONG_TYPE,
    Batch,
    FeatureKey,
    Ids,
    Names,
    Schema,
    ids_of,
    tag,
)
from exporter.stats import Counts, Floats

LABELS = np.dtype([("id", "<u8"), ("time", "<f8"), ("label", "<f8")])
MEMORY = np.dtype([("id", "<u8"), ("time", "<f8")])
"""What is kept of a settled prediction, to tell labels that come late from those of nobody."""


def score_field(place: int) -> str:
    """The field of the score that stands at this place in a layout."""
    return f"score{place}"


def tag_field(place: int) -> str:
    """The field of the id (see events.ids_of) of a tag's value; 0 without one."""
    return f"tag{place}"


def tag_names(schema: Schema) -> tuple[str, ...]:
    """The tags that a row of a prediction holds."""
    return tuple(key.name for key in schema.categorical if key.kind == "tag")


def score_names(schema: Schema) -> tuple[str, ...]:
    """The scores that a row of a prediction holds."""
    return tuple(key.name for key in schema.numeric if key.kind == "score")


class Layout(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What codes stand for, None where numbers are predicted; and the names of the scores and tags."""

    predictions: tuple[str, ...] | None
    labels: tuple[str, ...] | None
    scores: tuple[str, ...]
    tags: tuple[str, ...] = ()

    @property
    def dtype(self) -> np.dtype[Any]:
        """A prediction's row."""
        scores = [(score_field(place), "<f8") for place in range(len(self.scores))]
        tags = [(tag_field(place), "<u8") for place in range(len(self.tags))]
        return np.dtype([("id", "<u8"), ("time", "<f8"), ("version", "<u2"), ("predicted", "<f8"), *scores, *tags])

    def moved(self, table: Table, other: "Layout") -> Table:
        """Predictions of this layout in the other."""
        moved = np.zeros(len(table), other.dtype)
        for name in ("id", "time", "version"):
            moved[name] = table[name]
        moved["predicted"] = _translated(table["predicted"], self.predictions, other.predictions)
        for place, name in enumerate(other.scores):
            known = name in self.scores
            moved[score_field(place)] = table[score_field(self.scores.index(name))] if known else np.nan
        for place, name in enumerate(other.tags):
            moved[tag_field(place)] = table[tag_field(self.tags.index(name))] if name in self.tags else 0
        return moved

    def moved_labels(self, table: Table, other: "Layout") -> Table:
        """Labels of this layout in the other."""
        moved = table.copy()
        moved["label"] = _translated(table["label"], self.labels, other.labels)
        return moved


def layout_of(schema: Schema) -> Layout:
    """What predictions and labels are in batches of a schema."""
    return Layout(
        _texts(schema, OUTPUT),
        _texts(schema, LABEL),
        score_names(schema),
        tag_names(schema),
    )


def _texts(schema: Schema, column: FeatureKey) -> tuple[str, ...] | None:
    """Categories by code; None of a column of numbers."""
    if column not in schema.categorical:
        return None
    found: dict[int, str] = {}
    for value, code in schema.vocabularies[schema.categorical.index(column)].items():
        if isinstance(value, str) and code >= 0:
            found.setdefault(code, value)  # its own spelling stands first
    return tuple(found[code] for code in range(len(found)))


def _translated(codes: Floats, before: Sequence[str] | None, now: Sequence[str] | None) -> Floats:
    """Codes of some texts as codes of others; where either are numbers, or a text is gone, unknown."""
    if before is None and now is None:
        return codes
    if before is None or now is None:
        return np.full(len(codes), np.nan if now is None else float(UNSEEN))
    code = {text: place for place, text in enumerate(now)}
    of_code = np.array([*(code.get(text, UNSEEN) for text in before), UNSEEN, WRONG_TYPE, MISSING], np.float64)
    return of_code[codes.astype(np.int64)]


def answers(batch: Batch, rows: slice | Counts) -> tuple[Floats, NDArray[np.bool_]]:
    """What was predicted, as a number or code, and whether that can be right or wrong."""
    if OUTPUT in batch.schema.categorical:
        codes = batch.codes[rows, batch.schema.categorical.index(OUTPUT)]
        return codes.astype(np.float64), (codes >= 0) | (codes == UNSEEN)
    numbers = batch.numeric[rows, batch.schema.numeric.index(OUTPUT)]
    return numbers, np.isfinite(numbers)


def unlabelled(batch: Batch, rows: slice | Counts) -> NDArray[np.bool_]:
    """Which predictions did not bring their label."""
    missing: NDArray[np.bool_]
    if LABEL in batch.schema.categorical:
        missing = batch.codes[rows, batch.schema.categorical.index(LABEL)] == MISSING
    else:
        missing = np.isnan(batch.numeric[rows, batch.schema.numeric.index(LABEL)])
    return missing


def tag_ids(batch: Batch, name: str, rows: slice | Counts) -> Ids:
    """The ids of a tag's values; 0 where there is none, or too many to have a name."""
    column = batch.schema.categorical.index(tag(name))
    names = batch.schema.vocabularies[column]
    assert isinstance(names, Names)  # noqa: S101 - the column of a tag
    codes, place = np.unique(batch.codes[rows, column], return_inverse=True)
    return ids_of(names.texts[code] if code >= 0 else None for code in codes.tolist())[place]
