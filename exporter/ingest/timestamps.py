"""Event times: RFC 3339 (naive means UTC, a space for T allowed) or epoch seconds, milliseconds when above 1e11."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
import numpy as np

from exporter.stats import Floats

MILLISECONDS_FROM = 1e11  # epoch seconds reach it in the year 5138, milliseconds did in 1973
_EARLIEST, _LATEST = 0.0, 253_402_300_800.0  # 1970 to 9999: before the epoch no model was served


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


def column_s(values: Sequence[datetime | float | None], missing: float) -> Floats:
    """Epoch seconds of decoded timestamps; a missing one is `missing`, an impossible number NaN."""
    if set(map(type, values)) == {datetime}:
        moments: Sequence[datetime] = values  # type: ignore[assignment]  # just seen
        if None not in {moment.tzinfo for moment in moments}:
            seconds = np.array([moment.timestamp() for moment in moments])
            seconds[seconds < _EARLIEST] = math.nan
            return seconds
    return np.array([missing if value is None else _known_s(value) for value in values])


def _known_s(value: datetime | float) -> float:
    seconds = _moment_s(value) if isinstance(value, datetime) else _number_s(value)
    return math.nan if seconds is None else seconds


def _moment(text: str) -> datetime:
    """As the fast route of JSON reads it (nanoseconds are rounded, `z` may be small), else ISO 8601 as Python knows it."""
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
