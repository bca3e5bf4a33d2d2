"""Event times: RFC 3339 (naive means UTC, a space for T allowed) or epoch seconds, milliseconds when above 1e11."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import repeat

import msgspec
import numpy as np

from exporter.stats import Floats

MILLISECONDS_FROM = 1e11  # epoch seconds reach it in the year 5138, milliseconds did in 1973
_EARLIEST, _LATEST = 0.0, 253_402_300_800.0  # 1970 to 9999: before the epoch no model was served

_WIDTHS = (20, 22, 23, 24, 25, 26, 27)  # whole seconds, or 1 to 6 decimals
_DIGITS = np.array([11, 12, 14, 15, 17, 18, 20, 21, 22, 23, 24, 25])
_SAME = np.array([*range(11), 13, 16, 19, -1])  # the day and the marks
_LARGEST = np.array([2, 9, 5, 9, 5, 9, 9, 9, 9, 9, 9, 9], np.uint8)
_HOURS = np.array([10, 1], np.uint8)
_MICROSECONDS = np.array([36e9, 3.6e9, 6e8, 6e7, 1e7, 1e6, 1e5, 1e4, 1e3, 1e2, 1e1, 1e0])


def epoch_s(value: object, time_format: str | None = None) -> float | None:
    """Epoch seconds of one timestamp; None if it is not one. Text follows `time_format` (strptime) when given."""
    if isinstance(value, str):
        try:
            moment = datetime.strptime(value, time_format) if time_format else _moment(value)
        except ValueError:
            return None
        return _moment_s(moment)
    if isinstance(value, datetime):
        return _moment_s(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return _number_s(seconds)


def column_s(values: Sequence[str | float | None], missing: float | Sequence[float]) -> Floats:
    """Epoch seconds of decoded timestamps; a missing one is `missing` (of all or of each), an impossible one NaN."""
    if set(map(type, values)) == {str}:
        seconds = _of_one_day_s(values)  # type: ignore[arg-type]  # just seen
        if seconds is not None:
            return seconds
    others = repeat(missing) if isinstance(missing, float) else missing
    return np.array([other if value is None else _known_s(value) for value, other in zip(values, others, strict=False)])


def _of_one_day_s(texts: Sequence[str]) -> Floats | None:
    """Timestamps like 2026-11-23T08:15:00.250Z that share form and day, as a busy stream's do; None for any others.

    A dozen operations on all of them instead of a parse each. They count whole microseconds, as datetime does, so the
    result is equal to the last bit.
    """
    first, width = texts[0], len(texts[0])
    decimals = max(width - 21, 0)
    if width not in _WIDTHS or set(map(len, texts)) != {width}:
        return None
    if first[10] + first[13] + first[16] + first[19] + first[-1] != ("T::.Z" if decimals else "T::ZZ"):
        return None
    midnight = epoch_s(f"{first[:10]}T00:00:00Z")
    text = "".join(texts)
    if midnight is None or not text.isascii():
        return None
    grid = np.frombuffer(text.encode(), np.uint8).reshape(-1, width)
    digits = grid[:, _DIGITS[: 6 + decimals]] - ord("0")
    same = grid[:, _SAME]
    if (same != same[0]).any():
        return None
    if (digits > _LARGEST[: 6 + decimals]).any() or (digits[:, :2] @ _HOURS > 23).any():
        return None
    seconds: Floats = (midnight * 1e6 + digits.astype(np.float64) @ _MICROSECONDS[: 6 + decimals]) / 1e6
    return seconds


def _known_s(value: str | float) -> float:
    seconds = epoch_s(value)
    return math.nan if seconds is None else seconds


def _moment(text: str) -> datetime:
    """RFC 3339 as msgspec reads it (nanoseconds are rounded, `z` may be small), else ISO 8601 as Python does."""
    try:
        return msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        return datetime.fromisoformat(text)


def _moment_s(moment: datetime) -> float | None:
    seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return seconds if seconds >= _EARLIEST else None


def _number_s(value: float) -> float | None:
    seconds = value / 1000 if value > MILLISECONDS_FROM else value
    return seconds if _EARLIEST <= seconds < _LATEST else None
