import re
from itertools import combinations

import pytest

from exporter.catalog import metrics
from exporter.catalog.labels import WINDOW
from exporter.catalog.metric import Metric

UNITS = ("_seconds", "_ratio", "_bytes")


@pytest.fixture(params=metrics.METRICS, ids=lambda metric: metric.name)
def metric(request: pytest.FixtureRequest) -> Metric:
    return request.param


def test_names_follow_the_conventions_of_prometheus(metric: Metric):
    """https://prometheus.io/docs/practices/naming and `promtool check metrics`."""
    assert re.fullmatch(r"ml_[a-z0-9]+(_[a-z0-9]+)*", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    # Suffixes that belong to histograms and summaries, or that a scraper adds.
    assert not metric.name.endswith(("_count", "_sum", "_bucket", "_created"))
    if metric.kind == "histogram":
        assert metric.name.endswith(UNITS)
    for unit in ("milliseconds", "minutes", "percent", "kilobytes"):
        assert unit not in metric.name


def test_every_metric_says_what_it_is(metric: Metric):
    assert metric.help[0].isupper() or metric.help[0] == "1"
    assert metric.help.endswith(".")
    assert "\n" not in metric.help


def test_every_label_says_what_it_means_and_what_bounds_it(metric: Metric):
    names = [label.name for label in metric.labels]

    assert len(set(names)) == len(names)
    for label in metric.labels:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", label.name)
        assert label.name not in {"le", "instance", "job", "pod", "namespace"}, "given by the scrape"
        assert label.help.endswith(".")
        assert label.bound


def test_names_are_unique_and_no_metric_shadows_the_series_of_a_histogram():
    names = [metric.name for metric in metrics.METRICS]
    derived = [
        metric.name + suffix
        for metric in metrics.METRICS
        if metric.kind == "histogram"
        for suffix in ("_bucket", "_count", "_sum")
    ]

    assert len({*names, *derived}) == len(names) + len(derived)


def test_one_help_text_is_not_used_twice():
    for one, other in combinations(metrics.METRICS, 2):
        assert one.help != other.help, (one.name, other.name)


def test_windowed_scores_say_which_window():
    for metric in (metrics.PSI, metrics.KS, metrics.DRIFTED, metrics.WINDOW_SAMPLES, metrics.FEATURES_DRIFTED):
        assert WINDOW in metric.labels
    # Counters are added up by whoever asks, over any range: a window in them would be a lie.
    for metric in metrics.METRICS:
        assert metric.kind != "counter" or WINDOW not in metric.labels
