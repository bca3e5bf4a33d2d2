"""Decoded events as columns. One batch holds rows of one model in arrival order, of one partition.

A missing number is NaN; `+inf` stands for a value that is not finite and `-inf` for one of the wrong type, so a sorted
column needs no mask. A category is a code into its schema's vocabulary or one of the negative codes below.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from exporter.catalog import thresholds
from exporter.stats import Counts, Floats

FeatureKind: TypeAlias = Literal["input", "output", "score", "label", "tag"]
Codes: TypeAlias = NDArray[np.int32]
Ids: TypeAlias = NDArray[np.uint64]

WRONG_TYPE_NUMBER = -np.inf
NON_FINITE_NUMBER = np.inf

MISSING, WRONG_TYPE, UNSEEN = -1, -2, -3
"""Category codes of values that are in no vocabulary."""

NO_ERROR = -1
"""Error code of a prediction that did not fail; others index `ErrorReasons.names`."""

PREDICTION = "prediction"
SCORE = "score"
"""Names under which a model's output and its single score are monitored."""


class FeatureKey(NamedTuple):
    """What a feature is to the model, and its name."""

    kind: FeatureKind
    name: str


OUTPUT = FeatureKey("output", PREDICTION)
"""The column of what was predicted."""

LABEL = FeatureKey("label", "label")
"""The column of what was true; no feature, for nothing of it is compared with the reference."""

TAG_BYTES = 64
"""A longer text, like an empty one, names no segment."""

OTHER = "other"
"""The segment of everything that has none of its own."""

Column: TypeAlias = Floats | Sequence[object]
"""A column of a table: numbers (with the sentinels above) or Python values that are categories."""


def tag(name: str) -> FeatureKey:
    """The column of a tag: what events say of themselves, and segments are told apart by; no feature either."""
    return FeatureKey("tag", name)


class ErrorReasons:
    """The closed list of failure reasons: what is not on it is `other`, so that events cannot grow label values."""

    def __init__(self, configured: Sequence[str] = ()) -> None:
        usual = ("timeout", "invalid_input", "model_error", "out_of_memory", "dependency")
        self.names: tuple[str, ...] = (*dict.fromkeys((*usual, *configured)), "other")
        self.other = len(self.names) - 1
        self.codes: dict[object, int] = {None: NO_ERROR, "": NO_ERROR}
        self.codes |= {name: code for code, name in enumerate(self.names)}


class Names(dict[object, int]):
    """A vocabulary that grows: the values of a tag, which nobody knows beforehand. Past a limit the others are UNSEEN.

    It holds what `vocabulary` would of `texts`.
    """

    def __init__(self) -> None:
        super().__init__({None: MISSING})
        self.texts: list[str] = []
        """The name of each code."""

    def learn(self, values: Iterable[object]) -> None:
        """Give codes to those of these hashable values that can name a segment."""
        for value in dict.fromkeys(values):
            if value in self or len(self.texts) >= thresholds.SEGMENT_NAMES.count:
                continue
            text = text_of(value)
            if text and text != OTHER and len(text.encode()) <= TAG_BYTES:
                if text not in self:
                    self[text] = len(self.texts)
                    self.texts.append(text)
                for spelling in category_spellings(text):
                    self.setdefault(spelling, self[text])


@dataclass(frozen=True, slots=True)
class Schema:
    """The columns of a model's batches: the union of the features of its references.

    `vocabularies` holds, per categorical column, every Python value an event may carry for a known category
    (`3`, `"3"` and `3.0` are one category) and its code. Those of tags are `Names`, to be taught before they are asked.
    """

    numeric: tuple[FeatureKey, ...] = ()
    categorical: tuple[FeatureKey, ...] = ()
    vocabularies: tuple[Mapping[object, int], ...] = ()
    joins: bool = False

    def with_tags(self, tags: Mapping[FeatureKey, Names]) -> "Schema":
        """These columns and those of tags."""
        categorical, vocabularies = (*self.categorical, *tags), (*self.vocabularies, *tags.values())
        return Schema(self.numeric, categorical, vocabularies)


@dataclass(frozen=True, slots=True)
class Batch:
    """n rows of one model: time[n] (event time, s), numeric[n, f], codes[n, c], latency_s[n], error[n].

    `version[n]` indexes `versions`. `raw` carries the undigested features of each row (dicts) for a model that is
    still learning its reference, else None; `id[n]` what each prediction is called (see `ids_of`), for one that joins.
    """

    model: str
    partition: str
    versions: tuple[str, ...]
    version: Counts
    time: Floats
    numeric: Floats
    codes: Codes
    latency_s: Floats
    error: NDArray[np.int16]
    schema: Schema
    raw: Sequence[Mapping[FeatureKey, object]] | None = None
    id: Ids | None = None

    def __len__(self) -> int:
        return len(self.time)

    def take(self, rows: NDArray[np.intp]) -> "Batch":
        """The rows of these indices, in their order."""
        return replace(
            self,
            version=self.version[rows],
            time=self.time[rows],
            numeric=self.numeric[rows],
            codes=self.codes[rows],
            latency_s=self.latency_s[rows],
            error=self.error[rows],
            raw=None if self.raw is None else [self.raw[i] for i in rows.tolist()],
            id=None if self.id is None else self.id[rows],
        )


@dataclass(frozen=True, slots=True)
class LabelBatch:
    """n labels that came without their predictions: id[n], time[n] (event time, s), label[n] in arrival order.

    A label is a code into the vocabulary of its column in `schema`, or of a regression a number, with the sentinels.
    """

    model: str
    partition: str
    id: Ids
    time: Floats
    label: Floats
    schema: Schema

    def __len__(self) -> int:
        return len(self.time)

    def take(self, rows: NDArray[np.intp]) -> "LabelBatch":
        """The labels of these indices, in their order."""
        return replace(self, id=self.id[rows], time=self.time[rows], label=self.label[rows])


def join(batches: Sequence[Batch]) -> Batch:
    """All rows of some batches of one model and partition."""
    first = batches[0]
    if len(batches) == 1:
        return first
    versions = tuple(dict.fromkeys(name for batch in batches for name in batch.versions))
    number = {name: i for i, name in enumerate(versions)}
    return replace(
        first,
        versions=versions,
        version=np.concatenate([np.array([number[name] for name in one.versions])[one.version] for one in batches]),
        time=np.concatenate([batch.time for batch in batches]),
        numeric=np.concatenate([batch.numeric for batch in batches]),
        codes=np.concatenate([batch.codes for batch in batches]),
        latency_s=np.concatenate([batch.latency_s for batch in batches]),
        error=np.concatenate([batch.error for batch in batches]),
        raw=None if first.raw is None else [row for batch in batches for row in batch.raw or ()],
        id=np.concatenate([one.id for one in batches if one.id is not None]) if first.id is not None else None,
    )


def join_labels(batches: Sequence[LabelBatch]) -> LabelBatch:
    """All labels of some batches of one model and partition."""
    return replace(
        batches[0],
        id=np.concatenate([batch.id for batch in batches]),
        time=np.concatenate([batch.time for batch in batches]),
        label=np.concatenate([batch.label for batch in batches]),
    )


def ids_of(values: Iterable[object]) -> Ids:
    """Ids as numbers of 64 bits that are the same in every process; 0 where there is none.

    Of ten million ids, one in two million million is taken for another.
    """
    return np.fromiter(map(_id_of, values), np.uint64)


def _id_of(value: object) -> int:
    text = value if type(value) is str else text_of(value)
    if not text or not is_text(text):
        return 0
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one model version to be counted, grouped: `group[n]` is in 0..groups-1 (None when there is one group)."""

    numeric: Floats
    codes: Codes
    latency_s: Floats
    error: NDArray[np.int16]
    group: Counts | None
    groups: int

    def __len__(self) -> int:
        return len(self.error)


def as_number_column(values: Iterable[object]) -> Floats:
    """Python values as a numeric column: what is not a number, or is a bool, is marked as of the wrong type."""
    return np.array([as_number(value) for value in values], np.float64)


def as_number(value: object) -> float:
    """A feature value as a number, with the sentinels of `events`."""
    if value is None:
        return np.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        return WRONG_TYPE_NUMBER
    try:
        number = float(value)
    except OverflowError:
        return NON_FINITE_NUMBER
    return NON_FINITE_NUMBER if number in (np.inf, -np.inf) else number


def category_text(value: object) -> str | None:
    """The one spelling of a category: 3, 3.0 and "3" are "3"; True and "True" are "true"; None and NaN are None.

    Raises TypeError for a value that cannot be a category (a list, an object).
    """
    if value is None:
        return None
    if isinstance(value, str):
        if not is_text(value):
            raise TypeError("text with a lone surrogate is not a category")
        return value.lower() if value in ("True", "False", "TRUE", "FALSE") else str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() else repr(value)
    raise TypeError(f"{type(value).__name__} is not a category")


def text_of(value: object) -> str | None:
    """As `category_text`; None also for what cannot be a category."""
    try:
        return category_text(value)
    except TypeError:
        return None


def codes_to(
    places: Mapping[str, int], vocabulary: Mapping[object, int], *, unseen: int, wrong_type: int, missing: int
) -> Counts:
    """The place of each code of a vocabulary, negative codes from the end; of a category without one, that of `unseen`.

    Texts alone decide: other spellings of a category share its code.
    """
    found = np.full(max(vocabulary.values(), default=-1) + 1 + 3, unseen)
    for value, code in vocabulary.items():
        if isinstance(value, str) and code >= 0 and value in places:
            found[code] = places[value]
    found[[UNSEEN, WRONG_TYPE, MISSING]] = (unseen, wrong_type, missing)
    return found


def is_text(value: str) -> bool:
    """Whether the text can be written as UTF-8: JSON can smuggle in half a surrogate pair, which cannot."""
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def category_spellings(text: str) -> list[object]:
    """Every Python value that stands for the category `text`: the inverse of `category_text`."""
    spellings: list[object] = [text]
    if text in ("true", "false"):
        spellings += [text == "true", text.capitalize(), text.upper()]
    for kind in (int, float):  # an id of 64 bits is no float
        try:
            number = kind(text)
        except ValueError:
            continue
        if category_text(number) == text:
            spellings.append(number)  # equal numbers hash alike, whatever their type; so do, for 0 and 1, the bools
            break
    return spellings


def vocabulary(categories: Sequence[str]) -> dict[object, int]:
    """Codes by value for categories in canonical spelling; an exact text always means its own category."""
    codes: dict[object, int] = {text: code for code, text in enumerate(categories)}
    for text, code in list(codes.items()):
        for spelling in category_spellings(str(text)):
            codes.setdefault(spelling, code)
    codes[None] = MISSING
    return codes


REJECT_REASONS = (
    "malformed_json",
    "invalid_utf8",
    "not_an_object",
    "too_deep",
    "too_large",
    "malformed_row",
    "unsupported_content_type",
    "corrupt_record",
    "missing_model",
    "invalid_model",
    "invalid_version",
    "invalid_timestamp",
    "invalid_features",
    "missing_id",
)
"""Why an event could not be read."""

DROP_REASONS = ("label", "not_a_prediction", "tombstone", "model_limit", "version_limit", "expired")
"""Why a readable event was not counted; `expired` ones were deleted by the broker before they were read."""

LATE_REASONS = ("late", "behind", "future")
"""Why an event is in no window."""

TROUBLE_REASONS = (
    "connection",
    "authentication",
    "authorization",
    "topic_missing",
    "partition_counts",
    "expired",
    "redelivered",
    "unsupported_compression",
    "commit_failed",
    "other",
)
"""What goes wrong between a source and where it reads."""


@dataclass(frozen=True, slots=True)
class Reject:
    """One event that could not be read: which of the messages decoded together, why, and where in it."""

    index: int
    reason: str
    detail: str


@dataclass(slots=True)
class Decoded:
    """What a codec made of messages of one partition: batches, and an account of everything that is in none."""

    source: str
    events: int
    batches: list[Batch]
    rejects: list[Reject]
    dropped: dict[str, int]
    labels: list[LabelBatch] = field(default_factory=list)
