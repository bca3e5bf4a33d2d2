"""A recording is OpenMetrics: families and series in one piece, and of each series the time goes forward."""

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from exporter.catalog.metric import Label, Metric
from exporter.export.recording import Recording

A = Metric("a_total", "counter", "What a counts.", (Label("x", "an x", "few"),))
B = Metric("b_seconds", "gauge", "What b is.")
H = Metric("h_seconds", "histogram", "How h is spread.")


def test_series_are_in_one_piece_and_absent_where_they_were():
    recording = Recording()
    recording.add(10, [A.sample(1, x="1"), B.sample(0.5)])
    recording.add(20.5, [A.sample(2, x="1"), A.sample(7, x="2")])
    recording.add(30, [B.sample(0.25), A.sample(8, x="2")])
    text = "".join(recording.text())
    assert text == (
        "# HELP a What a counts.\n# TYPE a counter\n"
        'a_total{x="1"} 1.0 10.0\na_total{x="1"} 2.0 20.5\na_total{x="2"} 7.0 20.5\na_total{x="2"} 8.0 30.0\n'
        "# HELP b_seconds What b is.\n# TYPE b_seconds gauge\nb_seconds 0.5 10.0\nb_seconds 0.25 30.0\n# EOF\n"
    )
    families = list(text_string_to_metric_families(text))
    assert [len(family.samples) for family in families] == [4, 2]


def test_the_parts_of_a_histogram_belong_together_at_each_moment():
    recording = Recording()
    series = H.histogram([1.0])
    recording.add(1, series.samples([1, 0], 0.5))
    recording.add(2, series.samples([1, 1], 4.5))
    lines = [line for line in "".join(recording.text()).splitlines() if not line.startswith("#")]
    assert lines == [
        *('h_seconds_bucket{le="1.0"} 1.0 1.0', 'h_seconds_bucket{le="+Inf"} 1.0 1.0'),
        *("h_seconds_count 1.0 1.0", "h_seconds_sum 0.5 1.0"),
        *('h_seconds_bucket{le="1.0"} 1.0 2.0', 'h_seconds_bucket{le="+Inf"} 2.0 2.0'),
        *("h_seconds_count 2.0 2.0", "h_seconds_sum 4.5 2.0"),
    ]


def test_nothing_is_a_recording_too():
    assert "".join(Recording().text()) == "# EOF\n"
