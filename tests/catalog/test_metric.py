import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from exporter.catalog.metric import Label, Metric, format_float

REQUESTS = Metric(
    "requests_total", "counter", "Requests.", (Label("path", "Path.", "few"), Label("code", "Status.", "few"))
)
DURATION = Metric("duration_seconds", "histogram", "Duration.", (Label("path", "Path.", "few"),))
UP = Metric("up", "gauge", "1 if up.")


def parsed(line: str) -> tuple[str, dict[str, str], float]:
    """A line of exposition as prometheus_client reads it."""
    ((sample,),) = [family.samples for family in text_string_to_metric_families(line + "\n")]
    return sample.name, sample.labels, sample.value


def test_a_sample_needs_exactly_the_labels_of_its_metric():
    assert REQUESTS.sample(3, path="/", code="200").series.text == 'requests_total{path="/",code="200"}'

    with pytest.raises(TypeError, match=r"requests_total takes path, code; got path"):
        REQUESTS.sample(3, path="/")
    with pytest.raises(TypeError, match=r"got path, code, pod"):
        REQUESTS.sample(3, path="/", code="200", pod="a")
    with pytest.raises(TypeError, match=r"got path, cod"):
        REQUESTS.sample(3, path="/", cod="200")
    with pytest.raises(TypeError, match=r"up takes no labels; got pod"):
        UP.series(pod="a")
    with pytest.raises(TypeError):
        DURATION.histogram([1.0], code="200")


def test_labels_are_written_in_the_order_of_the_metric_whatever_the_order_given():
    assert REQUESTS.series(code="200", path="/") == REQUESTS.series(path="/", code="200")


def test_a_metric_without_labels_has_no_braces():
    assert UP.sample(1).series.text == "up"


@given(path=st.text(), code=st.text())
def test_any_label_value_survives_the_way_through_the_exposition(path: str, code: str):
    name, labels, value = parsed(f"{REQUESTS.series(path=path, code=code).text} 5")

    assert (name, labels, value) == ("requests_total", {"path": path, "code": code}, 5.0)


def test_a_histogram_is_cumulative_and_ends_with_inf():
    samples = DURATION.histogram([0.1, 1.0], path="/").samples([5, 0, 2], 3.25)

    assert {sample.series.text: sample.value for sample in samples} == {
        'duration_seconds_bucket{path="/",le="0.1"}': 5,
        'duration_seconds_bucket{path="/",le="1.0"}': 5,
        'duration_seconds_bucket{path="/",le="+Inf"}': 7,
        'duration_seconds_count{path="/"}': 7,
        'duration_seconds_sum{path="/"}': 3.25,
    }


def test_a_histogram_needs_a_count_for_every_bucket():
    with pytest.raises(ValueError, match="shorter"):
        list(DURATION.histogram([0.1, 1.0], path="/").samples([5, 0], 3.25))


@given(st.floats())
def test_numbers_are_read_back_as_they_were(value: float):
    _, _, back = parsed(f"up {format_float(value)}")

    assert back == value or (math.isnan(back) and math.isnan(value))


def test_numbers_are_written_as_prometheus_writes_them():
    assert [format_float(x) for x in (math.inf, -math.inf, math.nan)] == ["+Inf", "-Inf", "NaN"]
    assert format_float(2**53) == "9007199254740992.0"
    assert format_float(0.0025) == "0.0025"
