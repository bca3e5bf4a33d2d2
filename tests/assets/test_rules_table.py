import re

from exporter.assets.__main__ import ROOT
from exporter.assets.rules import all_groups
from exporter.assets.rules_table import rules_page
from exporter.catalog.rules import Alert, Settings


def test_every_alert_and_record_is_in_the_docs():
    page = rules_page(Settings())
    for rule in (rule for group in all_groups(Settings()) for rule in group.rules):
        if isinstance(rule, Alert):
            assert f"`{rule.name}`]({Settings().runbooks}/{rule.runbook}) | {rule.severity} |" in page
        elif not rule.record.endswith("increase1d") and "bin" not in rule.labels:
            assert f"| `{rule.record}` |" in page
    assert "{{" not in page


def test_names_in_the_docs_lead_to_the_runbooks_beside_them():
    page = (ROOT / "docs/alerts.md").read_text(encoding="utf-8")
    links = re.findall(r"^\| \[`\w+`\]\(([^)]+)\)", page, re.MULTILINE)
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).is_file()] == []
