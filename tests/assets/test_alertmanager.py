import subprocess

import pytest
import yaml

from exporter.assets.__main__ import ROOT
from exporter.assets.alertmanager import alertmanager
from exporter.catalog.alerts import alert_group
from exporter.catalog.rules import Alert, Settings
from tests.e2e.binaries import binary

CONFIG = ROOT / "alerts/alertmanager.yml"
ALERTS = [rule for rule in alert_group(Settings()).rules if isinstance(rule, Alert)]


def amtool(*arguments: object) -> str:
    done = subprocess.run(
        [binary("amtool"), *map(str, arguments)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def test_alertmanager_takes_it():
    assert "SUCCESS" in amtool("check-config", CONFIG)


@pytest.mark.parametrize(
    "labels, receiver",
    [
        (("alertname=MLModelRollbackAdvised", "severity=critical"), "pager"),
        (("alertname=MLFeatureDrift", "severity=warning"), "tickets"),
        (("alertname=MLDriftNotEvaluable", "severity=info"), "nobody"),
        (("alertname=MLWatchdog", "severity=none"), "dead-mans-switch"),
        (("alertname=NodeDown", "severity=critical"), "default"),
    ],
)
def test_alerts_reach_who_is_meant(labels, receiver):
    assert amtool("config", "routes", "test", "--config.file", CONFIG, *labels) == receiver


def test_an_incident_is_one_a_model_with_a_severity_that_pagerduty_knows():
    config = yaml.safe_load(alertmanager(Settings(("cluster", "namespace"))))
    ours = config["route"]["routes"][0]
    (pager,) = [route for route in ours["routes"] if route["receiver"] == "pager"]
    assert pager["group_by"] == ["cluster", "namespace", "model"]
    (receiver,) = [one for one in config["receivers"] if one["name"] == "pager"]
    severity = receiver["pagerduty_configs"][0]["severity"]
    assert severity.endswith("{{ else }}error{{ end }}")
    assert {alert.severity for alert in ALERTS} <= {"critical", "warning", "info", "none"}


def test_inhibitions_name_alerts_that_exist_and_join_by_labels_both_have():
    named = {alert.name: {*alert.labels, *Settings().targets} for alert in ALERTS}
    for rule in yaml.safe_load(alertmanager(Settings()))["inhibit_rules"]:
        matchers = [*rule["source_matchers"], *rule["target_matchers"]]
        names = [name for one in matchers if one.startswith("alertname") for name in one.split('"')[1].split("|")]
        for name in names:
            assert name == "ML.+" or set(rule["equal"]) <= named[name]
        # Alertmanager takes two alerts that both lack a label for equal in it.
        assert "ML.+" not in names or 'model != ""' in matchers
