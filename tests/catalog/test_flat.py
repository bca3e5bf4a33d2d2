"""Flat rules are held against the chain of records, by Prometheus itself."""

import re
from dataclasses import replace

import numpy as np
import pytest

from exporter.assets.rules import all_groups
from exporter.catalog.flat import Records, flat
from exporter.catalog.metrics import METRICS
from exporter.catalog.recording import recording_groups
from exporter.catalog.rules import Group, Recording, Settings, Window
from tests.assets.promql import DECLARED, selectors
from tests.assets.promtool import check, expect, series
from tests.catalog.test_drift_rules import FEATURES, replicas
from tests.catalog.test_quality_rules import classifier, gauge, regression
from tests.catalog.test_traffic_rules import CANARY, VERSION, counter

HOUR = Settings(windows=(Window("1h"),), bins=4, score_bins=4)
SETTINGS = Settings(("cluster", "namespace"), (Window("30d"), Window("1h")), bins=3, score_bins=2)


def rules(*recordings, interval="5m"):
    return [Group("g", recordings, interval)]


def made(expr, *recordings, interval="5m"):
    return Records(rules(*recordings, interval=interval)).flat(expr)


def kept(matcher, how):
    marked, mark = (f'label_replace({one}, "__kept__", "1", ' for one in ("x / y", "vector(1)"))
    return f'(max without (__kept__) ({marked}{matcher}) {how} on (__kept__) {mark}"", "")))'


STEP = Recording("a:x:increase5m", "sum by (m, bin) (increase(x_total[5m]))")
SHARE = Recording("a:share", "x / y")
REFERENCE = Recording("a:r:max", 'max by (bin, m) (r{k="v"})')
LIVE = Recording("a:live", "(sum_over_time(a:x:increase5m[1h]) or 0 * a:r:max)")
TOP, LOW = (Recording("a:best", name, {"of": name, "by": "$1"}) for name in ("top", "low"))


def test_flat_rules_parse_and_read_metrics_only():
    for group, alike in zip(all_groups(SETTINGS), flat(all_groups(SETTINGS)), strict=True):
        assert (alike.name, alike.interval) == (group.name, "")
        for chained, rule in zip(group.rules, alike.rules, strict=True):
            assert replace(rule, expr=chained.expr) == chained
            # The parser minds types too.
            read = selectors(rule.expr)
            assert read or rule.expr == "vector(1)"
            assert [name for name, matched in read if not matched <= DECLARED[name]] == []


@pytest.mark.parametrize(
    "expr, expected",
    [
        ("sum_over_time(a:x:increase5m[59m59s])", "sum by (m, bin) (increase(x_total[1h]))"),
        ("1 + sum_over_time(a:x:increase5m[1d] offset 2h)", "1 + sum by (m, bin) (increase(x_total[1d] offset 2h))"),
        (
            'sum_over_time(a:x:increase5m{bin=~"a|b"}[29m59s])',
            'sum by (m, bin) (increase(x_total{bin=~"a|b"}[30m]))',
        ),
        ("max_over_time(a:x:increase5m[1h])", "max_over_time((sum by (m, bin) (increase(x_total[5m])))[1h:5m])"),
        ("sum_over_time(a:x:increase5m[1h:10m])", "sum_over_time((sum by (m, bin) (increase(x_total[5m])))[1h:10m])"),
        ("sum_over_time(a:x:increase5m[600])", "sum_over_time((sum by (m, bin) (increase(x_total[5m])))[600:5m])"),
        ("avg_over_time(a:share[1h] offset 1d)", "avg_over_time((x / y)[1h:5m] offset 1d)"),
        ("max_over_time(a:share[1h:1m])", "max_over_time((x / y)[1h:1m])"),
        ("a:share offset 1d", "last_over_time((x / y)[5m:5m] offset 1d)"),
        (
            'a:live{bin!="1"}',
            '((sum by (m, bin) (increase(x_total{bin!="1"}[1h])) or 0 * (max by (bin, m) (r{k="v",bin!="1"}))))',
        ),
        ('a:share{m="a.b"}', kept('"m", "a\\\\.b"', "and")),
        ("a:share{n!~'c'}", kept("\"n\", 'c'", "unless")),
        ('a:best{of="top"}', '(label_replace(label_replace(top, "of", "top", "", ""), "by", "$$1", "", ""))'),
        ('a:best{of!~"t.*|low"}', "(absent(vector(1)))"),
        ("a:shared + on (a) b", "a:shared + on (a) b"),
    ],
)
def test_a_record_gives_way_to_what_makes_it(expr, expected):
    assert made(expr, STEP, SHARE, TOP, LOW, REFERENCE, LIVE) == expected


def test_a_sum_of_what_is_recorded_more_often_than_it_is_long_is_no_window():
    found = made("sum_over_time(a:x:increase5m[1h])", STEP, interval="1m")
    assert found == "sum_over_time((sum by (m, bin) (increase(x_total[5m])))[1h:1m])"


@pytest.mark.parametrize(
    "every_s, expr, expected",
    [
        (216_000, "max_over_time(a:share[30m])", "max_over_time((x / y)[30m:60h])"),
        (0.5, "max_over_time(a:share[30m])", "max_over_time((x / y)[30m:5m])"),
        (1_000, "max_over_time(a:share[30m])", "max_over_time((x / y)[30m:1000s])"),
        # A day before a multiple is none.
        (216_000, "max_over_time(a:share[30m] offset 1d)", "max_over_time((x / y)[30m:5m] offset 1d)"),
    ],
)
def test_a_range_over_a_record_is_looked_at_no_closer_than_all_else(every_s, expr, expected):
    assert Records(rules(SHARE), every_ms=round(every_s * 1000)).flat(expr) == expected


def test_what_is_current_is_so_for_as_long_as_its_prometheus_says():
    assert made('max(last_over_time(x{a="["}[5m] offset 1d)) + last_over_time(y[1d])') == (
        'max(x{a="["} offset 1d) + last_over_time(y[1d])'
    )


def test_what_is_recorded_is_read_and_the_rest_made_of_it():
    records = Records(
        rules(STEP, Recording("b", "sum(sum_over_time(a:x:increase5m[1h]))")), lambda one: one.name != "b"
    )
    assert records.flat("b > 1") == "(sum(sum_over_time(a:x:increase5m[1h]))) > 1"
    assert records.replaced == ["b"]


def test_a_rule_that_reads_itself_is_let_be_and_a_comment_ends_with_its_line():
    assert made("b", Recording("b", "max(b offset 1m)")) == "(max(b offset 1m))"
    assert made("2 * b", Recording("b", "1 # one")) == "2 * (1 # one\n)"


def lively(given, samples):
    """Counters from 0 that grow by chance, those of the second replica from 0 again halfway; gauges stay."""
    rng = np.random.default_rng(9)
    for one in given:
        rate = re.fullmatch(r"0\+([\d.]+)x\d+", one["values"])
        if rate is None:
            yield one | {"values": re.sub(r"x\d+$", f"x{samples}", one["values"])}
            continue
        grown = np.cumsum(rng.poisson(float(rate[1]), samples))
        grown -= grown[0]
        if 'pod="b"' in one["series"]:
            grown[samples // 2 :] -= grown[samples // 2 - 1]
        yield one | {"values": " ".join(map(str, grown))}


def fleet(samples):
    """Two replicas with all that rules read, four values a minute."""
    buckets = {"0.1": 3, "0.5": 5, "+Inf": 6}
    traffic = [
        *(counter("ml_prediction_duration_seconds_bucket", n, pod, le=le) for pod in "ab" for le, n in buckets.items()),
        *(counter("ml_predictions_total", 40, pod) for pod in "ab"),
        *(counter("ml_prediction_errors_total", 2, pod, reason="timeout") for pod in "ab"),
        *(counter(f"ml_{name}_total", 9, "b", CANARY) for name in ("predictions", "prediction_errors")),
        series("ml_model_info", "1x9", **CANARY, role="canary", pod="b"),
        gauge("ml_error_budget_ratio", 0.01),
    ]
    judged = [
        gauge(f"ml_model_quality_{name}", value, metric=metric)
        for metric in ("accuracy", "mae")
        for name, value in (("baseline", 0.9), ("tolerance", 0.1))
    ]
    drift = replicas(*FEATURES)
    unique = {one["series"]: one for one in (*drift, *classifier(), *regression(), *traffic, *judged)}
    given = {one.partition("{")[0] for one in unique}
    read = {name for group in flat(recording_groups(HOUR)) for rule in group.rules for name, _ in selectors(rule.expr)}
    # What a new rule may read is there, and 1.
    others = [
        series(
            metric.name, "1x9", **VERSION | {label.name: "x" for label in metric.labels if label.name not in VERSION}
        )
        for metric in METRICS
        if metric.name in read - given
    ]
    return list(lively([*unique.values(), *others], samples))


def test_flat_rules_say_what_a_chain_of_records_says(tmp_path):
    groups = recording_groups(HOUR)
    records = Records(groups)
    expected = [
        expect(
            f"max(abs({name} - {records.flat(name)})) + abs(count({name}) - count({records.flat(name)}))",
            "90m",
            ({}, 0),
        )
        for name in dict.fromkeys(rule.record for group in groups for rule in group.rules)
    ]
    check(tmp_path, fleet(361), expected, HOUR, "15s")


def test_off_the_steps_they_differ_by_what_increases_extrapolate(tmp_path):
    """Of 5 minutes, increase() makes up what lies before the first sample and behind the last, twelve times an hour."""
    records = Records(all_groups(HOUR))
    n, psi, ks = (f"model_version_feature:ml_feature_{name}:increase1h" for name in ("live_observations", "psi", "ks"))
    expected = [
        expect(f"max(abs({n} / {records.flat(n)} - 1)) < bool 0.005", "90m", ({}, 1)),
        *(expect(f"max(abs({name} - {records.flat(name)})) < bool 0.003", "90m", ({}, 1)) for name in (psi, ks)),
    ]
    check(tmp_path, fleet(420), expected, HOUR, "13s")
