"""Each thing in a Grafana: what is ours, what is not touched, and what is set right."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from exporter.app.config import ConfigError
from exporter.app.grafana import Grafana
from exporter.app.provisioned import FOLDER, ContactPoint, Dashboard, Folder, Policy, Rules
from exporter.assets.grafana_paging import CONTACT_POINT, NAME, contact_point, policy
from exporter.assets.grafana_rules import rule_group
from exporter.catalog.rules import Settings
from tests.app.fake_grafana import FakeGrafana, fake_grafana
from tests.app.grafana_content import TOKEN
from tests.app.grafana_things import board, folder, point, rule

KEY = "0123456789abcdef0123456789abcdef"
WHOLE = rule_group(Settings(), FOLDER, "prom")
GROUP = WHOLE | {"rules": WHOLE["rules"][:3]}
PLACE = (FOLDER, "model-health-alerts")
BOARD = {"id": None, "uid": "model-health", "title": "Model health / Model", "panels": [], "tags": ["model-health"]}
CONTACT = contact_point(Settings(), KEY)
ROUTE = policy(Settings(), WHOLE)
UNCHANGED = "unchanged"


@pytest.fixture
def fake() -> Iterator[FakeGrafana]:
    with fake_grafana() as running:
        running.folders = {FOLDER: folder(FOLDER, "Model health")}
        yield running


def settle(fake: FakeGrafana, kind: Any, *wanted: Any) -> Any:
    """Make a thing what it should be; what differed, as pairs by field, or `UNCHANGED`."""
    with Grafana(fake.url, TOKEN) as grafana:
        thing = kind(grafana, *wanted)
        before, after = thing.look()
        if before == after:
            return UNCHANGED
        thing.write()
        assert thing.look() == (after, after) or kind is ContactPoint  # a new key never looks like what is there
    if before is None or after is None:
        return before, after
    return {name: (before.get(name), value) for name, value in after.items() if before.get(name) != value}


def rules(fake: FakeGrafana, *, editable: bool = False) -> Any:
    return settle(fake, Rules, GROUP, editable)


def contact(fake: FakeGrafana, *, key: str = KEY, new_key: bool = False, editable: bool = False) -> Any:
    return settle(fake, ContactPoint, contact_point(Settings(), key), editable, new_key)


def route(fake: FakeGrafana, wanted: Any = ROUTE) -> Any:
    return settle(fake, Policy, wanted)


def dashboard(fake: FakeGrafana) -> Any:
    return settle(fake, Dashboard, BOARD)


def refusal(fake: FakeGrafana, kind: Any, *wanted: Any) -> str:
    """Why a thing is refused at first sight."""
    with Grafana(fake.url, TOKEN) as grafana, pytest.raises(ConfigError) as raised:
        kind(grafana, *wanted).look()
    assert fake.writes == []
    return str(raised.value)


def made(fake: FakeGrafana) -> dict[str, Any]:
    """Our contact point."""
    (found,) = [one for one in fake.points if one["uid"] == CONTACT_POINT]
    return found


def test_the_folder_is_made_once_and_renamed():
    with fake_grafana() as fake:
        fake.folders = {"other": folder("other", "Other")}
        assert settle(fake, Folder, "Old") == (None, {"uid": FOLDER, "title": "Old"})
        assert settle(fake, Folder, "Old") == UNCHANGED
        assert settle(fake, Folder, "Model health") == {"title": ("Old", "Model health")}
        assert {uid: one["title"] for uid, one in fake.folders.items()} == {FOLDER: "Model health", "other": "Other"}


def test_of_a_folder_of_others_with_the_title_grafana_tells():
    with fake_grafana() as fake:
        fake.folders = {"other": folder("other", "Model health")}
        with pytest.raises(
            ConfigError, match="Grafana refuses a new folder: a folder with the same name already exists"
        ):
            settle(fake, Folder, "Model health")


def test_a_dashboard_is_saved_once(fake: FakeGrafana):
    dashboard(fake)
    assert dashboard(fake) == UNCHANGED
    stored = fake.dashboards["model-health"]
    assert (stored["dashboard"], stored["folder"], len(stored["versions"])) == (BOARD, FOLDER, 1)


def test_a_dashboard_that_somebody_edited_is_set_right(fake: FakeGrafana):
    dashboard(fake)
    stored = fake.dashboards["model-health"]
    stored["dashboard"]["title"] = "Mine"
    stored["versions"].append({"version": 2, "message": "nicer"})
    changed = dashboard(fake)
    assert (changed["change"][0], changed["dashboard"][0]["title"]) == ("nicer", "Mine")
    assert (stored["dashboard"], len(stored["versions"])) == (BOARD, 3)


def test_a_dashboard_that_somebody_moved_is_moved_back(fake: FakeGrafana):
    dashboard(fake)
    fake.dashboards["model-health"]["folder"] = ""
    assert dashboard(fake) == {"folder": ("", FOLDER)}


def test_a_dashboard_that_somebody_put_there_as_it_is_needs_no_new_version(fake: FakeGrafana):
    dashboard(fake)
    fake.dashboards["model-health"]["versions"] = [{"version": 1, "message": "imported"}]
    assert dashboard(fake) == UNCHANGED


def test_a_dashboard_that_grafana_migrates_needs_no_new_version():
    with fake_grafana("13.0.0") as fake:
        fake.folders = {FOLDER: folder(FOLDER, "Model health")}
        dashboard(fake)
        assert dashboard(fake) == UNCHANGED


@pytest.mark.parametrize("version", ["10.4.0", "12.1.0"])
def test_a_dashboard_of_others_with_the_same_title_is_not_overwritten(version: str):
    with fake_grafana(version) as fake:
        fake.folders = {FOLDER: folder(FOLDER, "Model health")}
        fake.dashboards = {"mine": board("Model health / Model", inside=FOLDER)}
        assert "the folder has another of that title, mine: rename it" in refusal(fake, Dashboard, BOARD)


def test_a_dashboard_from_a_file_is_left_to_the_file(fake: FakeGrafana):
    fake.dashboards = {"model-health": board("Model health / Model", provisioned=True)}
    said = refusal(fake, Dashboard, BOARD)
    assert said.startswith("dashboard 'Model health / Model': model-health is provisioned from a file")


@pytest.mark.parametrize("version", ["9.5.0", "11.5.1", "11.5.2", "13.0.0"])
def test_rules_are_made_once_with_their_uids(version: str):
    with fake_grafana(version) as fake:
        fake.folders = {FOLDER: folder(FOLDER, "Model health")}
        rules(fake)
        assert rules(fake) == UNCHANGED
        assert [one["uid"] for one in fake.groups[PLACE]["rules"]] == [one["uid"] for one in GROUP["rules"]]


def test_rules_are_locked_unless_they_are_to_be_editable(fake: FakeGrafana):
    rules(fake, editable=True)
    assert {one["provenance"] for one in fake.groups[PLACE]["rules"]} == {""}
    assert rules(fake, editable=True) == UNCHANGED
    assert set(rules(fake)) == {"rules"}
    assert {one["provenance"] for one in fake.groups[PLACE]["rules"]} == {"api"}


def test_what_was_locked_is_not_unlocked_and_it_is_said_what_to_do(fake: FakeGrafana):
    rules(fake)
    contact(fake)
    fake.writes.clear()
    said = (
        ": was made without --editable, and Grafana does not unlock it: leave --editable out, or delete it first, by a "
        "run with --prune and without --alerts"
    )
    assert refusal(fake, Rules, GROUP, True) == f"alert rules 'model-health-alerts'{said}"
    assert refusal(fake, ContactPoint, CONTACT, True, False) == f"contact point {NAME!r}{said}"


def test_rules_and_contact_points_from_files_are_left_to_the_files(fake: FakeGrafana):
    fake.groups = {PLACE: {"interval": 60, "rules": [rule("model-health-mlwatchdog", "MLWatchdog", PLACE, "file")]}}
    fake.points.append(point(CONTACT_POINT, NAME, "pagerduty", {"integrationKey": "k"}, "file"))
    said = "is provisioned by file: remove it there first"
    assert refusal(fake, Rules, GROUP, False) == f"alert rules 'model-health-alerts': {said}"
    assert refusal(fake, ContactPoint, CONTACT, False, False) == f"contact point {NAME!r}: {said}"


def test_a_rule_of_others_in_our_group_is_not_deleted(fake: FakeGrafana):
    fake.groups = {PLACE: {"interval": 60, "rules": [rule("abc", "Mine", PLACE)]}}
    assert "has rules of others, move them to another group: Mine" in refusal(fake, Rules, GROUP, False)


def test_a_rule_that_is_no_longer_made_goes_when_the_group_changes(fake: FakeGrafana):
    rules(fake)
    fake.groups[PLACE]["rules"].append(rule("model-health-mlold", "MLOld", PLACE, "api"))
    before, _ = rules(fake)["rules"]
    assert [one["title"] for one in before][3:] == ["MLOld"]
    assert len(fake.groups[PLACE]["rules"]) == 3


@pytest.mark.parametrize(
    "edit", [{"for": "1h"}, {"labels": {"severity": "info"}}, {"isPaused": True}, {"annotations": {}}, {"data": []}]
)
def test_an_edited_rule_is_set_right(fake: FakeGrafana, edit: dict[str, object]):
    rules(fake)
    edited = fake.groups[PLACE]["rules"][1]
    was = copy.deepcopy(edited)
    edited |= edit
    assert set(rules(fake)) == {"rules"}
    assert fake.groups[PLACE]["rules"][1] | {"id": 0} == was | {"id": 0}


def test_order_and_interval_of_the_group_are_set_right(fake: FakeGrafana):
    rules(fake)
    fake.groups[PLACE] |= {"interval": 120}
    assert rules(fake) == {"interval": (120, 60)}
    fake.groups[PLACE] |= {"rules": fake.groups[PLACE]["rules"][::-1]}
    assert set(rules(fake)) == {"rules"}


def test_fields_that_an_older_grafana_does_not_keep_are_no_difference(fake: FakeGrafana):
    rules(fake)
    for one in fake.groups[PLACE]["rules"]:
        del one["keep_firing_for"], one["missingSeriesEvalsToResolve"]
    assert rules(fake) == UNCHANGED


def test_a_contact_point_of_others_with_the_name_is_not_joined(fake: FakeGrafana):
    fake.points.append(point("x", NAME, "email", {"addresses": "a@example.com"}))
    said = refusal(fake, ContactPoint, CONTACT, False, False)
    assert "there is another of that name, which would be paged too: rename it" in said


def test_the_key_is_written_once_and_again_only_on_demand(fake: FakeGrafana):
    other = "f" * 32
    shown = [contact(fake)]
    assert made(fake)["settings"]["integrationKey"] == KEY
    assert contact(fake, key=other) == UNCHANGED
    assert made(fake)["settings"]["integrationKey"] == KEY
    shown.append(contact(fake, key=other, new_key=True))
    assert made(fake)["settings"]["integrationKey"] == other
    assert not any(key in str(shown) for key in (KEY, other))


@pytest.mark.parametrize("edit", [{"severity": "critical"}, {"details": {"more": "x"}}])
def test_an_edited_contact_point_is_set_right(fake: FakeGrafana, edit: dict[str, object]):
    contact(fake)
    was = copy.deepcopy(made(fake))
    made(fake)["settings"] |= edit
    assert set(contact(fake)) == {"settings"}
    assert made(fake) == was


def test_our_policy_comes_first_and_those_of_others_stay(fake: FakeGrafana):
    contact(fake)
    inner = {"routes": [{"receiver": "email"}]}
    theirs = [
        {"receiver": "email", "object_matchers": [["team", "=", "risk"]], "continue": True, **inner},
        {"receiver": "email", "match": {"a": "b"}},
    ]
    fake.tree |= {"routes": theirs, "group_wait": "1m"}
    was = copy.deepcopy(fake.tree)
    route(fake)
    first, *others = fake.tree["routes"]
    assert (first, fake.tree | {"routes": others}) == (ROUTE, was)


def test_our_policy_keeps_the_place_and_the_mute_timings_that_people_gave_it(fake: FakeGrafana):
    contact(fake)
    theirs = {"receiver": "email", "object_matchers": [["team", "=", "risk"]]}
    extra = {"receiver": NAME, "object_matchers": [["team", "=", "ml"]]}
    mute = {"mute_time_intervals": ["nights"]}
    fake.tree["routes"] = [theirs, extra, ROUTE | mute | {"group_by": ["model"]}]
    assert route(fake) == {"group_by": (["model"], ["namespace", "model"])}
    assert fake.tree["routes"] == [theirs, extra, ROUTE | mute]


@pytest.mark.parametrize("provenance", ["", "api"])
def test_the_tree_stays_as_locked_as_it_was(fake: FakeGrafana, provenance: str):
    contact(fake)
    fake.tree |= {"provenance": provenance} if provenance else {}
    route(fake)
    assert (fake.tree.get("provenance", ""), fake.tree["routes"]) == (provenance, [ROUTE])
    assert route(fake, None) == (ROUTE, None)
    assert (fake.tree.get("provenance", ""), fake.tree["routes"]) == (provenance, [])


def test_policies_from_a_file_are_left_to_the_file(fake: FakeGrafana):
    fake.tree["provenance"] = "file"
    name = f"notification policy to {NAME!r}"
    assert refusal(fake, Policy, ROUTE) == f"{name}: policies are provisioned by file: change them there"
    fake.tree["routes"] = [ROUTE]
    assert (route(fake), route(fake, None)) == (UNCHANGED, UNCHANGED)
