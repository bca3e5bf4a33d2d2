import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.ingest.timestamps import column_s, epoch_s

MOMENT = datetime(2026, 11, 23, 8, 15, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2026-11-23T08:15:00Z", 0),
        ("2026-11-23T08:15:00.250Z", 0.25),
        ("2026-11-23t08:15:00z", 0),
        ("2026-11-23 08:15:00", 0),
        ("2026-11-23T08:15:00", 0),
        ("2026-11-23T08:15", 0),
        ("2026-11-23T09:15:00+01:00", 0),
        ("2026-11-23T04:15:00-04:00", 0),
        ("2026-11-23T09:15:00+0100", 0),
        ("2026-11-23T08:15:00.123456789Z", 0.123457),
        ("2026-11-23", -8.25 * 3600),
        (MOMENT, 0),
        (int(MOMENT), 0),
        (MOMENT * 1000, 0),
        (int(MOMENT * 1000) + 250, 0.25),
        (datetime(2026, 11, 23, 8, 15), 0),  # noqa: DTZ001 - naive means UTC
        (datetime(2026, 11, 23, 9, 15, tzinfo=timezone(timedelta(hours=1))), 0),
    ],
)
def test_what_is_a_time(value: object, seconds: float):
    assert epoch_s(value) == pytest.approx(MOMENT + seconds, abs=1e-6)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "now",
        "2026-13-01T00:00:00Z",
        "2026-11-23T25:00:00Z",
        "23.11.2026",
        "1795421700",
        "1969-12-31T23:59:59Z",
        "\ud800",
        -1,
        -1e300,
        math.nan,
        math.inf,
        1e18,
        10**400,
        True,
        None,
        [],
        {},
    ],
)
def test_what_is_none(value: object):
    assert epoch_s(value) is None


def test_milliseconds_begin_where_seconds_would_be_far_in_the_future():
    assert epoch_s(1e11) == 1e11
    assert epoch_s(1e11 + 1000) == 1e8 + 1


def test_a_format_of_ones_own():
    assert epoch_s("23/11/2026 08.15", "%d/%m/%Y %H.%M") == MOMENT
    assert epoch_s("23/11/2026 09.15 +0100", "%d/%m/%Y %H.%M %z") == MOMENT
    assert epoch_s("2026-11-23T08:15:00Z", "%d/%m/%Y") is None


moments = st.datetimes(datetime(1969, 12, 31), datetime(2200, 1, 1))  # noqa: DTZ001 - naive means UTC
forms = st.sampled_from(
    ["%Y-%m-%dT%H:%M:%S.%fZ", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f+01:00", "%Y-%m-%d"]
)
texts = st.builds(lambda moment, form: moment.strftime(form), moments, forms)
values = st.one_of(st.none(), st.floats(0, 4e12), st.floats(), texts, st.sampled_from(["", "now", "1700000000"]))


def each(column: list[Any]) -> list[float]:
    """The times of a column one by one; 5 for a missing one."""
    return [5.0 if value is None else math.nan if (one := epoch_s(value)) is None else one for value in column]


@given(st.lists(values, min_size=1))
def test_a_column_of_times_is_each_time(column: list[Any]):
    np.testing.assert_array_equal(column_s(column, 5.0), each(column))


@st.composite
def busy_streams(draw: st.DrawFn) -> list[str]:
    """Times of one day in one form; perhaps one of them is none, or has a character changed."""
    decimals = draw(st.integers(0, 7))
    day = draw(st.sampled_from(["2026-11-23", "2026-11-23", "1970-01-01", "2024-02-29", "2026-02-29", "1969-12-31"]))
    texts = []
    for _ in range(draw(st.integers(1, 6))):
        hour, minute, second = draw(st.integers(0, 23)), draw(st.integers(0, 59)), draw(st.integers(0, 59))
        fraction = "." + "".join(draw(st.lists(st.sampled_from("059"), min_size=decimals, max_size=decimals)))
        texts.append(f"{day}T{hour:02d}:{minute:02d}:{second:02d}{fraction if decimals else ''}Z")
    oddity = draw(st.sampled_from(["none", "none", "T24:00", "T29:59", "T23:60", "character"]))
    if oddity[0] == "T":
        texts[-1] = day + oddity + texts[-1][16:]
    elif oddity == "character":
        i = draw(st.integers(0, len(texts) - 1))
        place = draw(st.integers(0, len(texts[i]) - 1))
        texts[i] = texts[i][:place] + draw(st.sampled_from("0Tz :.\u0660é+\x00")) + texts[i][place + 1 :]
    return texts


@given(busy_streams())
def test_times_of_one_day_and_form_are_read_together_to_the_same_bit(column: list[str]):
    np.testing.assert_array_equal(column_s(column, 5.0), each(column))
