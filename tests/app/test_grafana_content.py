"""The fake is strict: what a Grafana refuses, or its description does not have, does not pass."""

from typing import Any

import pytest

from tests.app.grafana_content import REDACTED, TOKEN, GrafanaContent
from tests.app.grafana_things import folder, point, rule

PLACE = ("f", "g")
RULES = "/v1/provisioning/alert-rules"
GROUP = "/v1/provisioning/folder/f/rule-groups/g"
POINTS = "/v1/provisioning/contact-points"
POLICIES = "/v1/provisioning/policies"
PAGER = {"uid": "p", "name": "pager", "type": "pagerduty", "settings": {"integrationKey": "k"}}
ONE = {name: value for name, value in rule("r", "R", PLACE).items() if name != "provenance"}


@pytest.fixture
def grafana() -> GrafanaContent:
    made = GrafanaContent()
    made.folders = {"f": folder("f", "F")}
    return made


def ask(grafana: GrafanaContent, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    return grafana.answer(method, path, {}, {"authorization": f"Bearer {TOKEN}", **headers}, body)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/nowhere", None),
        ("POST", "/folders", {"uid": "x", "title": "X", "colour": "red"}),
        ("POST", "/folders", {"uid": "x", "title": 1}),
        ("POST", RULES, ONE | {"uid": "x" * 41}),
        ("POST", RULES, ONE | {"uid": "a b"}),
        ("POST", RULES, ONE | {"title": "x" * 191}),
        ("POST", RULES, ONE | {"noDataState": "Ok"}),
        ("POST", RULES, {name: value for name, value in ONE.items() if name != "condition"}),
        ("POST", POINTS, PAGER | {"type": "pager"}),
        ("PUT", POLICIES, {"receiver": "email", "routes": [{"receiver": "email", "when": "always"}]}),
        ("GET", POLICIES, {}),
    ],
)
def test_what_is_not_described_is_refused_and_kept(grafana: GrafanaContent, method: str, path: str, body: Any):
    status, _ = ask(grafana, method, path, body)
    assert status in (400, 404)
    assert len(grafana.broken) == 1
    assert grafana.writes == []


def test_an_answer_that_is_not_described_is_kept(grafana: GrafanaContent):
    grafana.folders["f"]["colour"] = "red"
    ask(grafana, "GET", "/folders/f")
    assert "'colour' was unexpected" in grafana.broken[0]


def test_a_group_is_replaced_whole_and_its_rules_keep_who_locked_them(grafana: GrafanaContent):
    for uid in ("r", "s"):
        ask(grafana, "POST", RULES, ONE | {"uid": uid})
    body = {"interval": 60, "rules": [ONE]}
    assert ask(grafana, "PUT", GROUP, body, **{"x-disable-provenance": "true"})[0] == 500
    assert ask(grafana, "PUT", GROUP, body)[0] == 200
    assert [one["uid"] for one in grafana.groups[PLACE]["rules"]] == ["r"]
    told = ask(grafana, "GET", GROUP)[1]["rules"][0]
    assert (told["provenance"], told["data"][0]["model"]["maxDataPoints"]) == ("api", 43200)
    assert grafana.broken == []


def test_before_11_5_2_a_group_with_new_uids_is_an_error(grafana: GrafanaContent):
    grafana.version = "11.5.1"
    body = {"interval": 60, "rules": [ONE]}
    assert ask(grafana, "PUT", GROUP, body)[0] == 500
    assert ask(grafana, "POST", RULES, ONE)[0] == 201
    assert ask(grafana, "PUT", GROUP, body)[0] == 200


def test_a_key_is_kept_and_not_shown_and_what_is_in_use_is_not_deleted(grafana: GrafanaContent):
    assert ask(grafana, "POST", POINTS, PAGER)[1]["settings"] == {"integrationKey": REDACTED}
    ask(grafana, "PUT", f"{POINTS}/p", PAGER | {"settings": {"integrationKey": REDACTED, "severity": "error"}})
    assert grafana.points[-1]["settings"] == {"integrationKey": "k", "severity": "error"}
    assert ask(grafana, "PUT", POLICIES, {"receiver": "email", "routes": [{"receiver": "nobody"}]})[0] == 400
    assert ask(grafana, "PUT", POLICIES, {"receiver": "email", "routes": [{"receiver": "pager"}]})[0] == 202
    assert ask(grafana, "DELETE", f"{POINTS}/p")[0] == 409
    assert ask(grafana, "PUT", POLICIES, {"receiver": "email"}, **{"x-disable-provenance": "true"})[0] == 409
    assert ask(grafana, "PUT", POLICIES, {"receiver": "email"})[0] == 202
    assert ask(grafana, "DELETE", f"{POINTS}/p")[0] == 202
    assert grafana.broken == []


def test_dashboards_have_versions_and_move_to_the_root_without_a_folder(grafana: GrafanaContent):
    def save(**more: Any) -> int:
        return ask(grafana, "POST", "/dashboards/db", {"dashboard": {"id": None, "uid": "d", "title": "D"}, **more})[0]

    assert save(folderUid="nowhere") == 404
    assert save(folderUid="f") == 200
    assert save() == 412
    assert save(overwrite=True, message="x" * 501) == 400
    assert save(overwrite=True) == 200
    assert (grafana.dashboards["d"]["folder"], len(grafana.dashboards["d"]["versions"])) == ("", 2)
    grafana.dashboards["d"]["provisioned"] = True
    assert save(overwrite=True) == 400
    assert grafana.broken == []


def test_up_to_11_a_title_in_a_folder_is_one_dashboard(grafana: GrafanaContent):
    grafana.version = "10.4.0"
    for uid in ("a", "b"):
        body = {"dashboard": {"id": None, "uid": uid, "title": "D"}, "folderUid": "f", "overwrite": True}
        assert ask(grafana, "POST", "/dashboards/db", body)[0] == 200
    assert set(grafana.dashboards) == {"b"}


def test_who_is_not_known_and_who_may_not(grafana: GrafanaContent):
    assert grafana.answer("GET", POLICIES, {}, {"authorization": "Bearer other"}, None)[0] == 401
    grafana.forbidden = {POLICIES}
    assert ask(grafana, "GET", POLICIES)[0] == 403
    grafana.points.append(point("x", "x", "email", {}, "file"))
    assert ask(grafana, "PUT", f"{POINTS}/x", PAGER)[0] == 500
    assert grafana.broken == []
