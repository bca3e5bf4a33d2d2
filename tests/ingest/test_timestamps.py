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


moments = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1))  # noqa: DTZ001 - naive means UTC
values = st.one_of(
    st.none(),
    st.floats(0, 4e12),
    moments,
    moments.map(lambda moment: moment.replace(tzinfo=timezone(timedelta(hours=5.5)))),
    st.sampled_from([-1.0, datetime(1960, 1, 1, tzinfo=UTC), datetime(1960, 1, 1)]),  # noqa: DTZ001 - naive means UTC
)


@given(st.one_of(st.lists(values, min_size=1), st.lists(moments.map(lambda m: m.replace(tzinfo=UTC)), min_size=1)))
def test_a_column_of_times_is_each_time(column: list[Any]):
    expected = [5.0 if value is None else epoch_s(value) for value in column]

    np.testing.assert_array_equal(column_s(column, 5.0), [math.nan if one is None else one for one in expected])
