import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.monitor.events import NO_ERROR, NON_FINITE_NUMBER, WRONG_TYPE_NUMBER, ErrorReasons, Rows
from exporter.monitor.settings import ModelSettings
from exporter.monitor.traffic import LATENCY_BUCKETS_S, TrafficReadout, TrafficTracker
from tests.builders import as_text


def tracker(*reasons: str) -> TrafficTracker:
    return TrafficTracker(ModelSettings("m", error_reasons=ErrorReasons(reasons)), "1")


def rows(latency_s: list[float], error: list[int] | None = None) -> Rows:
    n = len(latency_s)
    return Rows(
        numeric=np.zeros((n, 0)),
        codes=np.zeros((n, 0), np.int32),
        latency_s=np.array(latency_s, np.float64),
        error=np.full(n, NO_ERROR, np.int16) if error is None else np.array(error, np.int16),
        group=None,
        groups=1,
    )


def counted(one: TrafficTracker, *parts: Rows) -> np.ndarray:
    sums = np.zeros((1, one.width), np.int64)
    for part in parts:
        one.add(sums, part)
    return sums[0]


def text(one: TrafficTracker, *parts: Rows) -> dict[str, float]:
    return as_text(one.samples(counted(one, *parts)))


def test_predictions_failures_and_latency_as_a_person_reads_them():
    reasons = ErrorReasons(["quota"])
    codes = [reasons.codes[name] for name in (None, "timeout", "quota", "quota")] + [reasons.other]

    lines = text(tracker("quota"), rows([0.004, 0.3, 0.3, math.nan, 20.0], codes))

    assert lines['ml_predictions_total{model="m",version="1"}'] == 5
    errors = {key: value for key, value in lines.items() if key.startswith("ml_prediction_errors_total") and value}
    assert errors == {
        'ml_prediction_errors_total{model="m",version="1",reason="timeout"}': 1,
        'ml_prediction_errors_total{model="m",version="1",reason="quota"}': 2,
        'ml_prediction_errors_total{model="m",version="1",reason="other"}': 1,
    }
    histogram = "ml_prediction_duration_seconds"
    assert lines[f'{histogram}_count{{model="m",version="1"}}'] == 4
    assert lines[f'{histogram}_sum{{model="m",version="1"}}'] == pytest.approx(20.604)
    assert lines[f'{histogram}_bucket{{model="m",version="1",le="0.0025"}}'] == 0
    assert lines[f'{histogram}_bucket{{model="m",version="1",le="0.005"}}'] == 1
    assert lines[f'{histogram}_bucket{{model="m",version="1",le="10.0"}}'] == 3
    assert lines[f'{histogram}_bucket{{model="m",version="1",le="+Inf"}}'] == 4


def test_every_reason_has_a_series_before_it_first_happens():
    lines = text(tracker("quota"))

    reasons = [key.split('reason="')[1][:-2] for key in lines if key.startswith("ml_prediction_errors_total")]
    assert reasons == [*ErrorReasons(["quota"]).names]
    assert reasons[-1] == "other"
    assert set(lines.values()) == {0}


latencies = st.lists(st.one_of(st.sampled_from(LATENCY_BUCKETS_S), st.floats(0, 20)), min_size=1, max_size=80)


@given(latencies)
def test_a_bucket_holds_what_is_at_most_its_bound(values: list[float]):
    lines = text(tracker(), rows(values))

    for bound in (*LATENCY_BUCKETS_S, math.inf):
        le = "+Inf" if bound == math.inf else str(bound)
        series = f'ml_prediction_duration_seconds_bucket{{model="m",version="1",le="{le}"}}'
        assert lines[series] == sum(value <= bound for value in values)


def test_latencies_that_are_none_are_counted_by_reason_and_leave_the_histogram_alone():
    bad = [WRONG_TYPE_NUMBER, NON_FINITE_NUMBER, NON_FINITE_NUMBER, -0.001, math.nan]

    lines = text(tracker(), rows([*bad, 0.5]))

    invalid = {
        key.split('reason="')[1][:-2]: value
        for key, value in lines.items()
        if key.startswith("ml_feature_invalid_values_total")
    }
    assert invalid == {"wrong_type": 1, "non_finite": 2, "out_of_range": 1}
    assert lines['ml_prediction_duration_seconds_count{model="m",version="1"}'] == 1
    assert lines['ml_prediction_duration_seconds_sum{model="m",version="1"}'] == 0.5
    assert lines['ml_predictions_total{model="m",version="1"}'] == 6


def test_a_latency_beyond_an_hour_is_clipped_in_the_sum_and_said_to_be_out_of_range():
    lines = text(tracker(), rows([3600.0, 1e9]))

    assert lines['ml_prediction_duration_seconds_sum{model="m",version="1"}'] == 7200
    assert lines['ml_prediction_duration_seconds_count{model="m",version="1"}'] == 2
    reason = 'ml_feature_invalid_values_total{model="m",version="1",kind="output",feature="latency_seconds",'
    assert lines[reason + 'reason="out_of_range"}'] == 1


def prometheus_quantile(q: float, buckets: list[int]) -> float:
    """`histogram_quantile` as its documentation describes it."""
    rank, below, lower = q * sum(buckets), 0, 0.0
    for count, upper in zip(buckets, LATENCY_BUCKETS_S, strict=False):
        if below + count >= rank:
            return lower + (upper - lower) * (rank - below) / count
        below, lower = below + count, upper
    return LATENCY_BUCKETS_S[-1]


@given(latencies, st.floats(0.01, 1))
def test_a_quantile_is_that_of_prometheus_and_lies_in_the_bucket_of_the_exact_one(values: list[float], q: float):
    one = tracker()
    readout = one.read(counted(one, rows(values)))

    found = readout.latency_quantile_s(q)

    assert found == pytest.approx(prometheus_quantile(q, readout.latency_buckets.tolist()))
    exact = sorted(values)[math.ceil(q * len(values)) - 1]
    bounds = [0.0, *LATENCY_BUCKETS_S, math.inf]
    place = next(i for i, bound in enumerate(bounds[1:]) if exact <= bound)
    # On a bucket border `q * n` may round to either side of a whole rank.
    assert bounds[place] <= found <= bounds[place + 1] or found == pytest.approx(bounds[place + 1], rel=1e-9)


def test_nothing_seen_is_none_and_not_zero():
    one = tracker()
    readout = one.read(counted(one, rows([])))

    assert readout.error_ratio is None
    assert readout.latency_quantile_s(0.99) is None


def test_the_readout_of_a_window():
    one = tracker()
    readout = one.read(counted(one, rows([0.1] * 4, [NO_ERROR, 0, 0, 5])))

    assert readout.predictions == 4
    assert readout.error_ratio == 0.75
    assert readout.errors["timeout"] == 2
    assert readout.errors["other"] == 1


def test_a_quantile_beyond_the_last_bound_is_at_least_that_bound():
    readout = TrafficReadout(1, {}, np.array([0] * len(LATENCY_BUCKETS_S) + [1]))

    assert readout.latency_quantile_s(0.5) == 10.0
