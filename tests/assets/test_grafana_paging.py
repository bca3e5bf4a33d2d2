import re

from exporter.assets.grafana_paging import CONTACT_POINT, NAME, contact_point, policy
from exporter.assets.grafana_rules import rule_group
from exporter.catalog.rules import Settings

SETTINGS = Settings(targets=("cluster", "namespace"))
GROUP = rule_group(SETTINGS, "f", "d")


def test_an_incident_is_a_model_in_a_place():
    assert policy(SETTINGS, GROUP)["group_by"] == ["cluster", "namespace", "model"]


def test_only_alerts_that_page_are_matched():
    ((label, operator, names),) = policy(SETTINGS, GROUP)["object_matchers"]
    assert (label, operator) == ("alertname", "=~")
    matched = {
        rule["title"]: rule["labels"]["severity"] for rule in GROUP["rules"] if re.fullmatch(names, rule["title"])
    }
    assert {"MLModelRollbackAdvised", "MLErrorBudgetBurn 1h"} <= set(matched)
    assert set(matched.values()) == {"critical"}
    assert len(matched) == sum(rule["labels"]["severity"] == "critical" for rule in GROUP["rules"])


def test_the_contact_point_says_what_alertmanager_says_and_where_the_runbook_is():
    point = contact_point(SETTINGS, "secret")
    assert (point["uid"], point["name"], point["type"]) == (CONTACT_POINT, NAME, "pagerduty")
    settings = point["settings"]
    assert settings["integrationKey"] == "secret"
    assert settings["severity"].endswith("{{ else }}error{{ end }}")
    assert settings["source"] == "{{ .GroupLabels.cluster }}/{{ .GroupLabels.namespace }}/{{ .GroupLabels.model }}"
    assert settings["details"]["runbook"] == "{{ (index .Alerts 0).Annotations.runbook_url }}"
    assert "template" not in str(settings["details"])  # Grafana has no templates of Alertmanager's
