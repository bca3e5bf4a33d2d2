import pytest

from exporter.catalog.recording import recording_groups
from exporter.catalog.rules import Settings, Window
from tests.assets.promql import DECLARED, LABELS, labels, selectors

SETTINGS = Settings(("cluster", "namespace"), (Window("1h"), Window("1d"), Window("30d")))
RULES = [rule for group in recording_groups(SETTINGS) for rule in group.rules]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.record)
def test_rules_read_what_is_declared_or_recorded_before(rule):
    before = {one.record for one in RULES[: RULES.index(rule)]}
    read = selectors(rule.expr)
    assert read
    for name, matched in read:
        assert name in before or matched <= DECLARED[name]
        assert matched <= LABELS
    assert labels(rule.expr) | rule.labels.keys() <= LABELS


def test_no_rule_reads_raw_counters_over_more_than_a_step():
    raw = [rule.expr for rule in RULES if "increase(" in rule.expr or "rate(" in rule.expr]
    assert raw
    assert [expr for expr in raw if "[5m]" not in expr] == []


def test_parsing_finds_what_a_rule_names():
    left, right = 'sum by (bin, model) (rate(a_total{pod=~"x"}[5m]))', 'label_replace(b, "c", "", "d", "")'
    expr = f"{left} / on (model) group_left (version) {right}"
    assert selectors(expr) == [("a_total", {"pod"}), ("b", set())]
    assert labels(expr) == {"bin", "model", "version", "c", "d"}
