import json
import re

import pytest
import yaml
from click.testing import CliRunner

from exporter.app import rules as command
from exporter.assets.__main__ import ROOT
from tests.app.commands import run


def rules(*arguments: str) -> str:
    done = CliRunner().invoke(command.rules, arguments)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_command_prints_rules():
    done = run("rules", "--window", "1h")
    assert (done.code, done.err) == (0, "")
    assert done.out == rules("--window", "1h")


@pytest.mark.parametrize(
    "arguments, path",
    [
        ((), "alerts/rules.yml"),
        (("--format", "prometheusrule"), "alerts/prometheusrule.yml"),
        (("--format", "alertmanager"), "alerts/alertmanager.yml"),
        (("--format", "grafana"), "alerts/grafana.json"),
        (("--format", "docs", "--runbooks", "../alerts/runbooks"), "docs/alerts.md"),
    ],
)
def test_defaults_print_the_committed_files(arguments, path):
    assert rules(*arguments) == (ROOT / path).read_text(encoding="utf-8")


def test_labels_windows_and_thresholds_are_the_users():
    printed = rules(
        *(
            "--label",
            "cluster",
            "--label",
            "namespace",
            "--window",
            "2h",
            "--window",
            "30d",
            "--set",
            "stalled=90",
        ),
        *(
            "--runbooks",
            "https://r.example/",
            "--dashboards",
            "https://g.example/d",
            "--bins",
            "3",
            "--score-bins",
            "2",
        ),
    )
    groups = {group["name"]: group["rules"] for group in yaml.safe_load(printed)["groups"]}
    psi = [rule["record"] for rule in groups["model-health-drift"] if ":ml_feature_psi:" in rule["record"]]
    assert psi == [
        "model_version_feature:ml_feature_psi:increase2h",
        "model_version_feature:ml_feature_psi:increase30d",
    ]
    (first, *_) = groups["model-health-steps"]
    assert first["expr"].startswith("sum by (cluster, namespace, model, version, reference, kind, feature, bin) (")
    alert = groups["model-health-alerts"][0]
    assert "increase2h" in alert["expr"]
    assert "PSI over 2h is" in alert["annotations"]["description"]
    assert alert["annotations"]["runbook_url"] == "https://r.example/mlfeaturedrift.md"
    assert alert["annotations"]["dashboard_url"].startswith("https://g.example/d/model-health-feature?var-cluster={{ ")
    (stalled,) = [rule for rule in groups["model-health-alerts"] if rule["alert"] == "MLExporterTicksStalled"]
    assert "(ml_exporter_last_tick_timestamp_seconds) > 90\n" in stalled["expr"]


def test_the_operator_and_grafana_get_what_they_select_by():
    resource = yaml.safe_load(rules("--format", "prometheusrule", "--rule-label", "team=ml", "--rule-label", "a=b=c"))
    assert resource["metadata"] == {"name": "model-health", "labels": {"team": "ml", "a": "b=c"}}

    group = json.loads(rules("--format", "grafana", "--folder", "f", "--datasource", "d"))
    assert group["folderUid"] == "f"
    assert {rule["data"][0]["datasourceUid"] for rule in group["rules"]} == {"d"}


def test_alerts_are_left_out_for_whoever_evaluates_them_elsewhere():
    whole, recording = (
        yaml.safe_load(rules("--format", "prometheusrule", *more))["spec"]["groups"] for more in ((), ("--no-alerts",))
    )
    assert recording == whole[:-1]
    assert not any("alert" in rule for group in recording for rule in group["rules"])
    assert yaml.safe_load(rules("--no-alerts"))["groups"] == recording
    refused = CliRunner().invoke(command.rules, ("--no-alerts", "--format", "grafana"))
    assert (refused.exit_code, "--no-alerts is for rules of Prometheus" in refused.output) == (2, True)


@pytest.mark.parametrize("form", ["prometheus", "prometheusrule", "grafana"])
def test_flat_rules_read_no_records_in_any_form(form):
    chained, alone = rules("--format", form), rules("--format", form, "--flat")
    alert = "increase(ml_prediction_errors_total[30m])"
    assert (alert in chained, alert in alone) == (False, True)
    if form == "prometheus":
        groups = yaml.safe_load(alone)["groups"]
        assert not any("interval" in group for group in groups)
        assert [rule for group in groups for rule in group["rules"] if re.search("[a-z]:[a-z]", rule["expr"])] == []


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("--window", "1w"), "1w: a window is a multiple of 5m"),
        (("--window", "24h", "--window", "1d"), "two windows have the same length"),
        (("--label", "a-b"), "'a-b' is no label name"),
        (("--set", "psi=0.2"), "psi is none of dropped_ratio, "),
        (("--set", "canary_margin=0.02"), "canary_margin is none of dropped_ratio, "),
        (("--set", "stalled"), "'stalled' is not NAME=VALUE"),
        (("--set", "stalled=many"), "stalled: a positive number expected, got 'many'"),
        (("--set", "stalled=nan"), "stalled: a positive number expected, got 'nan'"),
        (("--rule-label", "=x"), "'=x' is not NAME=VALUE"),
    ],
)
def test_what_makes_no_rules_is_refused_with_the_reason(arguments, said):
    done = CliRunner().invoke(command.rules, ("--format", "prometheusrule", *arguments))
    assert done.exit_code == 2
    assert said in done.output
    assert "groups:" not in done.output
