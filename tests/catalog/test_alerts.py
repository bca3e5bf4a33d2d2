import re

import pytest

from exporter.assets.rules import all_groups, annotations
from exporter.catalog import metrics
from exporter.catalog.metrics import METRICS
from exporter.catalog.rules import Alert, Settings
from tests.assets.promql import DECLARED, LABELS, labels, selectors

SETTINGS = Settings(("cluster", "namespace"))
RULES = [rule for group in all_groups(SETTINGS) for rule in group.rules]
ALERTS = [rule for rule in RULES if isinstance(rule, Alert)]
RECORDS = {rule.record for rule in RULES if not isinstance(rule, Alert)}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_alerts_read_what_is_declared_or_recorded(alert):
    for name, matched in selectors(alert.expr):
        assert name in RECORDS or matched <= DECLARED[name]
        assert matched <= LABELS
    assert labels(alert.expr) | set(alert.labels) <= LABELS


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_texts_are_sentences_and_lead_on(alert):
    texts = annotations(alert, SETTINGS)
    assert texts["summary"].endswith(".")
    assert texts["description"].endswith(".")
    assert texts["runbook_url"].endswith(f"/{alert.name.lower()}.md")
    # What a text names of the series must be among the labels that the series has.
    named = set(re.findall(r"\$labels\.(\w+)", " ".join(texts.values())))
    assert named <= {*alert.labels, *(SETTINGS.targets if alert.labels else ())}
    if alert.severity in {"critical", "warning"} and alert.name != "MLExporterDown":
        assert "$value" in texts["description"]


def test_a_scrape_that_fails_takes_no_gauge_away():
    # What is said of a target itself, and what must not outlast its cause, is of now.
    of_now = {name for name in DECLARED if name.startswith("ml_exporter_")} | {metrics.FEATURE_STATE.name}
    gauges = {metric.name for metric in METRICS if metric.kind == "gauge"} - of_now
    read = {(name, rule.expr) for rule in RULES for name, _ in selectors(rule.expr) if name in gauges}
    assert len(read) > 10
    assert [name for name, expr in read if expr.count(name) != expr.count(f"last_over_time({name}")] == []


def test_advice_to_roll_back_outlasts_a_look_that_finds_nothing():
    # Else an incident is resolved and opened again whenever a share moves about its limit.
    advice = [alert for alert in ALERTS if alert.extra.get("action") == "rollback"]
    assert {alert.name for alert in advice} == {"MLModelRollbackAdvised", "MLCanaryWorseThanPrimary"}
    assert all(alert.keep for alert in advice)
