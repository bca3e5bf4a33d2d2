"""Each alert fires with its exact texts in one story, and in another half of its condition is not enough."""

import yaml

from exporter.assets.__main__ import ROOT
from exporter.assets.rules import rule_groups
from exporter.catalog.rules import Settings
from tests.assets.promql import needed
from tests.assets.promtool import run
from tests.e2e.lengthy import long

GROUPS = yaml.safe_load((ROOT / "alerts/rules.yml").read_text(encoding="utf-8"))["groups"]
STORIES = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "alerts/stories").glob("*.yml"))
}
ALERTS = {rule["alert"] for group in GROUPS for rule in group["rules"] if "alert" in rule}


def told(folder, stories, groups=GROUPS):
    """Have promtool tell stories by the name of their alert, with the rules of these groups."""
    copies = []
    for name, story in stories.items():
        alerts = [rule for group in groups for rule in group["rules"] if rule.get("alert", "").lower() == name]
        read = [one["expr"] for test in story["tests"] for one in test.get("promql_expr_test", ())]
        # Only what the story is about: all rules over a day of a story take seconds.
        about = needed(groups, [*read, *(alert["expr"] for alert in alerts)])
        about[-1]["rules"] = alerts
        copies.append(folder / name / "stories" / f"{name}.yml")
        copies[-1].parent.mkdir(parents=True)
        copies[-1].write_text(yaml.safe_dump(story))
        (folder / name / "rules.yml").write_text(yaml.safe_dump({"groups": about}))
    run("test", "rules", *copies)


def test_every_alert_fires_and_stays_silent_as_its_stories_tell(tmp_path):
    told(tmp_path, STORIES)


def test_every_alert_fires_in_each_of_several_clusters(tmp_path):
    told(
        tmp_path,
        {name: in_two_clusters(story) for name, story in STORIES.items() if name != "mlwatchdog"},
        rule_groups(Settings(("cluster", "namespace"))),
    )


def in_two_clusters(story):
    """The first of a story's tests, with each series, and each alert, once a cluster."""
    first = story["tests"][0]
    series = [
        one | {"series": one["series"].replace("{", f'{{cluster="{cluster}",')}
        for one in first["input_series"]
        for cluster in ("eu", "us")
    ]
    return story | {
        "tests": [first | {"input_series": series, "alert_rule_test": list(map(twice, first["alert_rule_test"]))}]
    }


def twice(expected):
    found = []
    for cluster in ("eu", "us"):
        for one in expected["exp_alerts"]:
            texts = one["exp_annotations"]
            link = texts["dashboard_url"].replace("?var-", f"?var-cluster={cluster}&var-", 1)
            labels = one["exp_labels"] | {"cluster": cluster}
            found.append({"exp_labels": labels, "exp_annotations": texts | {"dashboard_url": link}})
    return expected | {"exp_alerts": found}


@long
def test_flat_rules_tell_the_same_stories(tmp_path):
    told(tmp_path, STORIES, rule_groups(Settings(flat=True)))


def test_every_alert_has_both_stories():
    assert STORIES.keys() == {name.lower() for name in ALERTS}
    for name, story in STORIES.items():
        assert story["group_eval_order"] == [group["name"] for group in GROUPS]
        expected = [one for test in story["tests"] for one in test["alert_rule_test"]]
        assert {one["alertname"].lower() for one in expected} == {name}
        assert expected[0]["exp_alerts"]
        silent = [test for test in story["tests"] if not any(one["exp_alerts"] for one in test["alert_rule_test"])]
        # The watchdog has no condition.
        assert bool(silent) == (name != "mlwatchdog")
        for test in silent:
            assert [half["exp_samples"] for half in test["promql_expr_test"]] != [[]]
