import json

from exporter.assets.grafana_rules import OWN, grafana
from exporter.assets.rules import rule_groups
from exporter.catalog.rules import Settings

GROUP = json.loads(grafana(Settings()))
PROMETHEUS = [rule for group in rule_groups(Settings()) for rule in group["rules"] if "alert" in rule]


def test_grafana_alerts_are_those_of_prometheus():
    assert len(GROUP["rules"]) == len(PROMETHEUS)
    for rule, told in zip(GROUP["rules"], PROMETHEUS, strict=True):
        assert rule["title"].split()[0] == told["alert"]
        assert rule["data"][0]["model"]["expr"] == told["expr"]
        assert rule["for"] == told.get("for", "0s")
        assert rule["keep_firing_for"] == told.get("keep_firing_for", "0s")
        assert rule["labels"] == told["labels"]
        assert rule["annotations"]["runbook_url"] == told["annotations"]["runbook_url"]


def test_uids_and_titles_are_unique_and_short_enough():
    for name, longest in (("uid", 40), ("title", 190)):
        values = [rule[name] for rule in GROUP["rules"]]
        assert len(set(values)) == len(values)
        assert max(map(len, values)) <= longest
    assert all(rule["uid"].startswith(OWN) for rule in GROUP["rules"])


def test_a_rule_is_true_where_its_query_has_a_value():
    for rule in GROUP["rules"]:
        query, value, threshold = rule["data"]
        assert query["model"]["instant"]
        assert "is_number($query)" in value["model"]["expression"]
        assert threshold["model"]["expression"] == value["refId"]
        assert rule["condition"] == threshold["refId"]
        assert (rule["noDataState"], rule["execErrState"]) == ("OK", "Error")


def test_templates_name_the_query():
    text = json.dumps([rule["annotations"] for rule in GROUP["rules"]])
    assert "{{ $values.query.Value | humanizePercentage }}" in text
    assert "$value " not in text
