import json
import math
import re

import promql_parser
import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from exporter.assets.__main__ import ROOT
from exporter.assets.dashboards import DASHBOARDS, dashboard
from exporter.assets.rules import rule_groups
from exporter.catalog.alerts import alert_group
from exporter.catalog.metrics import METRICS
from exporter.catalog.rules import Settings, Window
from tests.assets.promql import DECLARED, LABELS, labels, needed, selectors
from tests.assets.promtool import check, expect, series
from tests.contract.test_conformance import HOSTILE, WORSE, parsed, run

WINDOWS = [window.text for window in Settings().windows]
BOARDS = {uid: json.loads(dashboard(uid, Settings())) for uid in DASHBOARDS}
PANELS = [(uid, panel) for uid, board in BOARDS.items() for panel in board["panels"]]
TARGETS = [(uid, panel, target) for uid, panel in PANELS for target in panel["targets"]]
GROUPS = rule_groups(Settings())
RECORDS = {rule["record"] for group in GROUPS for rule in group["rules"] if "record" in rule}
ALERTS = {alert.name: alert for alert in alert_group(Settings()).rules}
COUNTERS = {metric.name for metric in METRICS if metric.kind == "counter"}
OF_A_REPLICA = "says of one replica what a record says of the fleet"
WITHOUT_PANEL = {
    **dict.fromkeys(
        (
            *("ml_feature_psi", "ml_feature_psi_critical", "ml_feature_ks", "ml_feature_ks_critical"),
            *("ml_feature_js_divergence", "ml_feature_drifted", "ml_feature_window_samples"),
            *("ml_features_drifted", "ml_features_evaluated"),
            *("ml_model_quality", "ml_model_quality_lower", "ml_model_quality_upper"),
            *("ml_label_coverage_ratio", "ml_labels_window_samples"),
        ),
        OF_A_REPLICA,
    ),
    **dict.fromkeys(
        ("ml_feature_psi_null_mean", "ml_feature_drift_pvalue", "ml_multivariate_drift_pvalue", "ml_feature_ks_upper"),
        "for whoever asks how sure a score is; the critical value is what it must pass",
    ),
    **dict.fromkeys(
        ("ml_multivariate_drifted", "ml_multivariate_state", "ml_multivariate_window_samples"),
        "the distance above its lines says the same, its absence the rest",
    ),
    **dict.fromkeys(
        ("ml_feature_drift_paging", "ml_multivariate_drift_paging", "ml_fault_alpha", "ml_reference_borrowed"),
        "why a verdict may or may not page: read when its runbook says so",
    ),
    "ml_multivariate_clipped_values_total": "why a distance is smaller than one computed elsewhere",
    "ml_prediction_last_timestamp_seconds": "the traffic says it",
    "ml_segment_observations_total": "too many series for a graph; for whoever adds segments of replicas",
    **dict.fromkeys(
        (
            *("ml_segment_samples", "ml_segment_reference_borrowed", "ml_segment_labels_window_samples"),
            *("ml_segment_quality_lower", "ml_segment_quality_upper"),
        ),
        "how sure a row of the table of segments is: on the page of the exporter",
    ),
    "ml_ingest_guarantee": "does not change while a process runs: on the page of the exporter",
}
"""Metrics that no panel shows, and why."""

board = pytest.mark.parametrize("uid", DASHBOARDS)


def expressions(text):
    """What Prometheus gets, one for each window that a person may pick."""
    for name, value in (("$__rate_interval", "5m"), ("$__range", "6h"), ("$__interval", "1m")):
        text = text.replace(name, value)
    return [text.replace("$window", window) for window in WINDOWS] if "$window" in text else [text]


def queries(uid):
    """Every expression of a dashboard: of panels and annotations."""
    told = [target["expr"] for panel in BOARDS[uid]["panels"] for target in panel["targets"]]
    told += [annotation["expr"] for annotation in BOARDS[uid]["annotations"]["list"]]
    return [expression for text in told for expression in expressions(text)]


def variables(uid):
    return {variable["name"]: variable for variable in BOARDS[uid]["templating"]["list"]}


@board
def test_queries_read_what_is_exported_or_recorded_by_labels_it_has(uid):
    for expr in queries(uid):
        promql_parser.parse(expr)
        for name, matched in selectors(expr):
            assert name in DECLARED or name in RECORDS, name
            assert matched <= DECLARED.get(name, LABELS), name
        assert labels(expr) <= LABELS, expr


@board
def test_variables_offer_values_that_exist_and_all_are_used(uid):
    told = json.dumps([BOARDS[uid]["panels"], BOARDS[uid]["annotations"]])
    for name, variable in variables(uid).items():
        if variable["type"] == "query":
            selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
            ((metric, matched),) = selectors(selector)
            assert matched | {label} <= DECLARED[metric]
            assert label == name
            assert variable["refresh"] == 2, "versions come and go"
        assert f"${name}" in told or f"${{{name}" in told
    assert set(re.findall(r"\$(?!_)(\w+)", told)) <= set(variables(uid))


def test_every_metric_is_on_a_panel_or_known_not_to_need_one():
    read = [expr for uid in DASHBOARDS for expr in queries(uid)]
    behind = [rule["expr"] for group in needed(GROUPS, read) for rule in group["rules"]]
    names = {re.sub("_(bucket|sum|count)$", "", name) for expr in (*read, *behind) for name, _ in selectors(expr)}
    assert {metric.name for metric in METRICS} - names == WITHOUT_PANEL.keys()


def test_grafana_takes_them_as_they_are():
    register_default_plugins()
    for told in BOARDS.values():
        kept = json.loads(json.dumps(Dashboard.from_json(told), cls=JSONEncoder))
        assert lost(told, kept) == []


def lost(told, kept, path=""):
    """Where what we wrote is missing or other in what the typed model made of it."""
    if isinstance(told, dict) and isinstance(kept, dict):
        return [found for key in told for found in lost(told[key], kept.get(key), f"{path}/{key}")]
    if isinstance(told, list) and isinstance(kept, list) and len(told) == len(kept):
        return [
            found
            for place, (a, b) in enumerate(zip(told, kept, strict=True))
            for found in lost(a, b, f"{path}/{place}")
        ]
    return [] if told == kept else [path]


# Rules of dashboard-linter. Not those that want job and instance in every query: models are those of a fleet.


@board
def test_it_is_found_under_its_uid_and_edited_nowhere(uid):
    told = BOARDS[uid]
    assert (told["uid"], told["id"], told["editable"]) == (uid, None, False)
    assert len(uid) <= 40
    assert 36 <= told["schemaVersion"] <= 41
    assert variables(uid)["datasource"]["query"] == "prometheus"


@pytest.mark.parametrize("uid, panel", PANELS, ids=lambda one: one if isinstance(one, str) else one["title"])
def test_a_panel_asks_a_question_and_has_units_and_legends(uid, panel):
    assert panel["title"]
    assert "? " in panel["description"]
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    legends = [target["legendFormat"] for target in panel["targets"]]
    assert all(legends)
    assert len(set(legends)) == len(legends)
    for source in (panel, *panel["targets"]):
        assert source["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_legends_name_labels_that_series_have():
    for _, _, target in TARGETS:
        assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= LABELS


def test_rows_of_a_table_are_joined_by_labels_alone():
    # The name of a record would be one of them.
    for _, panel, target in TARGETS:
        if target["format"] == "table":
            (expr, *_) = expressions(target["expr"])
            assert not isinstance(promql_parser.parse(expr), promql_parser.VectorSelector), panel["title"]


def test_raw_counters_are_rates_over_intervals_of_the_graph_and_summed_over_replicas():
    for _, panel, target in TARGETS:
        for name, _ in selectors(expressions(target["expr"])[0]):
            if name in COUNTERS or name.endswith("_bucket"):
                ranges = re.findall(rf"(\w+)\({name}{{[^}}]*}}\[([^]]+)\]", target["expr"])
                assert {function for function, _ in ranges} <= {"rate", "increase"}, panel["title"]
                assert {over for _, over in ranges} <= {"$__rate_interval", "$__range"}, panel["title"]
                assert len(ranges) == len(re.findall(rf"\b{name}\b", target["expr"])), panel["title"]
                assert "sum" in target["expr"]


@board
def test_panels_fill_rows_without_overlap(uid):
    cells = [
        (x, y)
        for panel in BOARDS[uid]["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert set(cells) == {(x, y) for x in range(24) for y in range(max(y for _, y in cells) + 1)}
    ids = [panel["id"] for panel in BOARDS[uid]["panels"]]
    assert len(set(ids)) == len(ids)


def test_limits_are_dashed_series():
    for _, panel in PANELS:
        dashed = {
            override["matcher"]["options"]
            for override in panel["fieldConfig"]["overrides"]
            if any(one["id"] == "custom.lineStyle" for one in override["properties"])
        }
        assert dashed <= {target["refId"] for target in panel["targets"]}
        assert "thresholds" not in panel["fieldConfig"]["defaults"]
        assert not dashed or panel["type"] == "timeseries"


def test_links_lead_to_dashboards_with_variables_they_have():
    told = json.dumps([panel for _, panel in PANELS])
    links = re.findall(r'"url": "/d/([^"?]+)\?([^"]*)"', told)
    assert {uid for uid, _ in links} == {"model-health", "model-health-feature"}
    for uid, query in links:
        named = set(re.findall(r"var-(\w+)=\$\{__(?:field\.labels|data\.fields)\.(\w+)\}", query))
        assert named
        assert all(variable == label and variable in variables(uid) for variable, label in named)
        assert query.startswith("${datasource:queryparam}&")
        assert query.endswith("&${__url_time_range}")


def test_every_alert_is_found_on_its_dashboard_beside_its_runbook():
    for alert in ALERTS.values():
        linked = [link["url"] for panel in BOARDS[alert.dashboard]["panels"] for link in panel["links"]]
        assert f"{Settings().runbooks}/{alert.runbook}" in linked
        # Where an alert of a model leads to an exporter, Grafana leaves out what it does not know.
        if alert.dashboard != "model-health-exporter" or "instance" in alert.labels:
            assert {*alert.labels, *Settings().targets} <= variables(alert.dashboard).keys()
    for _, panel in PANELS:
        for link in panel["links"]:
            assert (ROOT / "alerts/runbooks" / link["url"].rsplit("/", 1)[1]).is_file()


def test_new_versions_and_references_are_marked():
    for uid in ("model-health", "model-health-feature", "model-health-canary", "model-health-fleet"):
        assert [one["name"] for one in BOARDS[uid]["annotations"]["list"]] == ["New versions", "New references"]


def test_what_is_marked_is_deployed_and_not_scraped_again(tmp_path):
    def exported(values, build, version="1", instance="a"):
        told = {"namespace": "n", "model": "m", "version": version, "instance": instance}
        yield series("ml_replica_info", values, **told)
        yield series("ml_reference_created_timestamp_seconds", values.replace("1x", f"{build}x"), **told)

    given = [
        *exported("1x60 _x60 1x120", 100),  # not scraped for an hour
        *exported("_x150 1x120", 100, instance="b"),  # another pod
        *exported("_x90 1x90 stale", 200, "2"),
        *exported("_x200 1x90 stale", 300, "2", "b"),  # with a newer reference, 20 minutes after the pod before
        *exported("_x291 1x90", 200, "2", "c"),  # and back
    ]
    marked = {
        annotation["name"]: asked(annotation["expr"])
        for annotation in BOARDS["model-health-canary"]["annotations"]["list"]
    }

    def at(name, moment, *samples):
        return expect(
            marked[name], f"{moment}m", *(({"namespace": "n", "model": "m", "version": v}, x) for v, x in samples)
        )

    check(
        tmp_path,
        given,
        [
            at("New versions", 2, ("1", 1)),
            *(at("New versions", moment) for moment in (30, 121, 125, 151, 202, 292)),
            at("New versions", 92, ("2", 1)),
            *(at("New references", moment) for moment in (2, 30, 92, 121, 151, 210, 300)),
            at("New references", 202, ("2", 300)),
            at("New references", 293, ("2", 200)),
        ],
    )


def test_ones_own_labels_and_windows_are_those_of_the_dashboards():
    settings = Settings(("cluster", "namespace"), (Window("2h"), Window("30d")), runbooks="https://r")
    told = json.loads(dashboard("model-health-feature", settings))
    names = [variable["name"] for variable in told["templating"]["list"]]
    assert names[:3] == ["datasource", "cluster", "namespace"]
    assert told["templating"]["list"][-1]["query"] == "2h,30d"
    text = json.dumps(told["panels"])
    assert 'increase$window{cluster=~\\"$cluster\\",namespace=~\\"$namespace\\"' in text
    assert "https://r/mlfeaturedrift.md" in text


PLAIN = {HOSTILE: "m", WORSE: "amount", f"={WORSE}": "=blue"}
"""Names that are hard to read back are another test's business."""
CHOSEN = {"window": "1h", "model": "m", "version": "1", "feature": "other"}
RANGE = "59m59s"
"""As many steps as a recorded hour."""


def scraped():
    """What two replicas of an exporter export that saw everything of two versions of a model, for an hour and more."""
    target = {"namespace": "n", "job": "j"}
    found = [
        series("ALERTS", "1x80", **target, alertname="MLModelDrift", alertstate="firing", severity="info", model="m")
    ]
    found += [series("up", "1x80", **target, instance=instance) for instance in "ab"]
    for family in parsed(run()[1], "text").values():
        for sample in family.samples:
            named = {label: PLAIN.get(value, value) for label, value in sample.labels.items()}
            if named.get("model", "m") != "m" or not math.isfinite(sample.value):
                continue
            values = f"0+{sample.value}x80" if family.type in ("counter", "histogram") else f"{sample.value}x80"
            versions = (("1", "primary"), ("2", "canary")) if "version" in named else (("", ""),)
            for version, role in versions:
                told = named | {name: one for name, one in (("version", version), ("role", role)) if name in named}
                found += [series(sample.name, values, **target, instance=instance, **told) for instance in "ab"]
    return found


def asked(expr, chosen=CHOSEN):
    """An expression as Grafana sends it, with All for what may be several."""
    expr = expr.replace("$__rate_interval", "5m").replace("$__range", RANGE)
    expr = re.sub(r'=~"\|?\$\w+"', '=~".*"', expr)
    return re.sub(r"\$(\w+)", lambda found: chosen[found[1]], expr)


def test_every_query_has_an_answer_where_everything_is_exported(tmp_path):
    told = {asked(target["expr"]) for _, _, target in TARGETS if "offset 1d" not in target["expr"]}
    check(tmp_path, scraped(), [expect(f"count({expr}) >= bool 1", "75m", ({}, 1)) for expr in sorted(told)])


def test_the_time_shown_is_judged_as_a_window_is(tmp_path):
    (panel,) = [panel for _, panel in PANELS if panel["title"] == "PSI over the time shown"]
    shown = {target["legendFormat"]: asked(target["expr"]) for target in panel["targets"]}
    chosen = '{version="1",kind="input",feature="other"}'
    pairs = {"PSI": "psi", "critical": "psi_critical", "samples": "live_observations"}
    same = [
        f"abs(sum({shown[legend]}) / sum(model_version_feature:ml_feature_{name}:increase1h{chosen}) - 1) < bool 1e-9"
        for legend, name in pairs.items()
    ]
    check(tmp_path, scraped(), [expect(expr, "75m", ({}, 1)) for expr in same])
