"""Each alert fires with its exact texts in one story, and in another half of its condition is not enough."""

import yaml

from exporter.assets.__main__ import ROOT
from tests.assets.promql import needed
from tests.assets.promtool import run

GROUPS = yaml.safe_load((ROOT / "alerts/rules.yml").read_text(encoding="utf-8"))["groups"]
STORIES = {path.stem: path for path in sorted((ROOT / "alerts/stories").glob("*.yml"))}
ALERTS = {rule["alert"] for group in GROUPS for rule in group["rules"] if "alert" in rule}


def test_every_alert_fires_and_stays_silent_as_its_stories_tell(tmp_path):
    copies = []
    for name, path in STORIES.items():
        story = yaml.safe_load(path.read_text(encoding="utf-8"))
        alerts = [rule for group in GROUPS for rule in group["rules"] if rule.get("alert", "").lower() == name]
        read = [one["expr"] for test in story["tests"] for one in test.get("promql_expr_test", ())]
        # Only what the story is about: all rules over a day of a story take seconds.
        groups = needed(GROUPS, [*read, *(alert["expr"] for alert in alerts)])
        groups[-1]["rules"] = alerts
        copies.append(tmp_path / name / "stories" / path.name)
        copies[-1].parent.mkdir(parents=True)
        copies[-1].write_bytes(path.read_bytes())
        (tmp_path / name / "rules.yml").write_text(yaml.safe_dump({"groups": groups}))

    run("test", "rules", *copies)


def test_every_alert_has_both_stories():
    assert STORIES.keys() == {name.lower() for name in ALERTS}
    for name, path in STORIES.items():
        story = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert story["group_eval_order"] == [group["name"] for group in GROUPS]
        told = [one for test in story["tests"] for one in test["alert_rule_test"]]
        assert {one["alertname"].lower() for one in told} == {name}
        assert told[0]["exp_alerts"]
        silent = [test for test in story["tests"] if not any(one["exp_alerts"] for one in test["alert_rule_test"])]
        # The watchdog has no condition.
        assert bool(silent) == (name != "mlwatchdog")
        for test in silent:
            assert [half["exp_samples"] for half in test["promql_expr_test"]] != [[]]
