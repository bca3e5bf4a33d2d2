import yaml

from exporter.assets.__main__ import ROOT
from exporter.assets.rules import annotations, prometheus, prometheus_rule, rule_groups
from exporter.catalog.alerts import alert_group
from exporter.catalog.rules import OVERRIDABLE, Settings
from tests.assets.promtool import run


def test_committed_rules_pass_the_strictest_check():
    run("check", "rules", "--lint-fatal", ROOT / "alerts/rules.yml")


def test_the_operator_gets_the_same_groups():
    resource = yaml.safe_load(prometheus_rule(Settings(), {"release": "x"}))
    assert (resource["apiVersion"], resource["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert resource["metadata"] == {"name": "model-health", "labels": {"release": "x"}}
    assert resource["spec"] == yaml.safe_load(prometheus(Settings()))
    assert len(prometheus_rule(Settings(), {})) < 2**20, "etcd refuses more"


def test_links_lead_to_the_series_of_the_alert():
    (alert,) = [rule for rule in alert_group(Settings()).rules if rule.name == "MLModelDrift"]
    links = annotations(alert, Settings(("cluster",), runbooks="https://r", dashboards="https://d"))
    assert links["runbook_url"] == "https://r/mlmodeldrift.md"
    variables = "&".join(f"var-{name}={{{{ $labels.{name} | urlquery }}}}" for name in ("cluster", "model", "version"))
    assert links["dashboard_url"] == f"https://d/model-health?{variables}"


def test_what_overrides_replace_is_what_rules_ask_for():
    asked = set()

    class Asked(dict):
        def get(self, name, default=None):
            asked.add(name)
            return default

    rule_groups(Settings(overrides=Asked()))
    assert asked == OVERRIDABLE.keys()
