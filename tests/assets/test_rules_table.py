from exporter.assets.rules import all_groups
from exporter.assets.rules_table import rules_page
from exporter.catalog.rules import Alert, Settings


def test_every_alert_and_record_is_in_the_docs():
    page = rules_page(Settings())
    for rule in (rule for group in all_groups(Settings()) for rule in group.rules):
        if isinstance(rule, Alert):
            assert f"| `{rule.name}` | {rule.severity} |" in page
        elif not rule.record.endswith("increase1d") and "bin" not in rule.labels:
            assert f"| `{rule.record}` |" in page
    assert "{{" not in page
