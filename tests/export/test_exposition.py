import math

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.catalog import metrics
from exporter.catalog.metric import Label, Metric
from exporter.export.exposition import (
    ExporterState,
    ProcessMetrics,
    render,
    self_samples,
    wants_openmetrics,
)

A = Metric("a_total", "counter", "What a counts.", (Label("x", "an x", "few"),))
B = Metric("b_seconds", "gauge", "What b is.")
H = Metric("h_seconds", "histogram", "How h is spread.", (Label("x", "an x", "few"),))


def text(*samples, openmetrics: bool = False) -> str:
    return render(samples, openmetrics=openmetrics).decode()


def test_a_family_is_one_block_in_the_order_of_its_first_sample():
    samples = A.sample(1, x="1"), B.sample(0.5), A.sample(2, x="2")
    assert text(*samples) == (
        '# HELP a_total What a counts.\n# TYPE a_total counter\na_total{x="1"} 1\na_total{x="2"} 2\n'
        "# HELP b_seconds What b is.\n# TYPE b_seconds gauge\nb_seconds 0.5\n"
    )


def test_openmetrics_names_a_counter_without_its_suffix_and_ends_with_a_mark():
    assert text(A.sample(1, x="1"), openmetrics=True) == (
        '# HELP a What a counts.\n# TYPE a counter\na_total{x="1"} 1\n# EOF\n'
    )


def test_nothing_is_an_exposition_too():
    assert text() == ""
    assert text(openmetrics=True) == "# EOF\n"


def test_a_histogram_is_cumulative_and_complete():
    samples = list(H.histogram([0.1, 1.0], x="1").samples([3, 0, 2], 4.5))
    assert [line for line in text(*samples).splitlines() if not line.startswith("#")] == [
        'h_seconds_bucket{x="1",le="0.1"} 3',
        'h_seconds_bucket{x="1",le="1.0"} 3',
        'h_seconds_bucket{x="1",le="+Inf"} 5',
        'h_seconds_count{x="1"} 5',
        'h_seconds_sum{x="1"} 4.5',
    ]


@pytest.mark.parametrize(
    "value", [0, -1, 2**53, 2**63, 0.1, 1e-300, -1e300, 1e16, math.inf, -math.inf, 5e-324, 1_800_000_000.123456]
)
@pytest.mark.parametrize("openmetrics", [False, True])
def test_numbers_are_read_back_exactly(value: float, *, openmetrics: bool):
    parse = parse_openmetrics if openmetrics else parse_text
    (family,) = parse(text(B.sample(value), openmetrics=openmetrics))
    assert family.samples[0].value == value


def test_what_the_exporter_says_of_itself_grows_with_what_it_knows():
    young = ExporterState("1.2", 0.0, 20, 7, None, None)
    said = {sample.series.text: sample.value for sample in self_samples(young, 13)}
    assert said == {
        'ml_exporter_build_info{exporter_version="1.2"}': 1,
        "ml_exporter_series": 13,
        "ml_exporter_series_limit": 20,
        "ml_exporter_series_dropped_total": 7,
    }
    grown = ExporterState("1.2", 0.0, 20, 7, 0.25, 1000.0)
    (took,) = [one.value for one in self_samples(grown, 13) if one.series.metric is metrics.TICK_DURATION]
    (ended,) = [one.value for one in self_samples(grown, 13) if one.series.metric is metrics.LAST_TICK_TIMESTAMP]
    assert (took, ended) == (0.25, 1000.0)


@pytest.mark.parametrize("openmetrics", [False, True])
def test_the_process_is_described_and_can_be_followed_by_others(*, openmetrics: bool):
    process = ProcessMetrics().render(openmetrics=openmetrics)
    assert b"# EOF" not in process
    parse = parse_openmetrics if openmetrics else parse_text
    whole = process.decode() + text(B.sample(1), openmetrics=openmetrics)
    names = {family.name for family in parse(whole)}
    assert {"process_resident_memory_bytes", "python_info", "b_seconds"} <= names


@pytest.mark.parametrize(
    "accept, wanted",
    [
        ("", False),
        ("*/*", False),
        ("text/plain;version=0.0.4", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", True),
        ("nonsense;;;=,,", False),
    ],
)
def test_the_format_a_scraper_asks_for(accept: str, *, wanted: bool):
    assert wants_openmetrics(accept) is wanted
