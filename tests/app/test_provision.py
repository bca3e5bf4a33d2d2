import copy
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from exporter.app.config import ConfigError
from exporter.app.grafana import Forbidden
from exporter.app.patience import Trouble as Waiting
from exporter.app.provision import choose_datasource
from exporter.app.provisioned import FOLDER
from exporter.assets.dashboards import DASHBOARDS
from exporter.assets.grafana_paging import CONTACT_POINT, NAME
from tests.app.fake_grafana import FakeGrafana, Trouble, fake_grafana
from tests.app.grafana_things import board, folder, point, rule, source
from tests.app.provisioning import KEY, PAGING, provision

GROUP = (FOLDER, "model-health-alerts")
WATCHDOG = {"metric": {"alertname": "MLWatchdog"}, "value": [0, "1"]}
OURS = ("folder", "dashboard", "contact point", "notification policy", "alert rules")


@pytest.fixture
def fake() -> Iterator[FakeGrafana]:
    with fake_grafana() as running:
        yield running


@pytest.mark.parametrize("version", ["9.5.0", "11.5.1", "11.5.2", "13.0.0"])
def test_a_second_run_writes_nothing_and_neither_does_a_dry_one(version: str):
    with fake_grafana(version, "/grafana") as fake:
        planned = provision(fake, dry=True, **PAGING)
        assert fake.writes == []
        first = provision(fake, **PAGING)
        assert first.told("create") == planned.told("create") == [step.thing.name for step in first.steps]
        assert [one for one in OURS if not any(name.startswith(one) for name in first.told("create"))] == []
        written = list(fake.writes)
        second = provision(fake, **PAGING)
        assert (fake.writes, second.told("unchanged")) == (written, [step.thing.name for step in second.steps])
        assert all(len(one["versions"]) == 1 for one in fake.dashboards.values())


def test_alerts_are_evaluated_only_on_demand(fake: FakeGrafana):
    run = provision(fake)
    assert set(fake.dashboards) == set(DASHBOARDS)
    assert len(run.steps) == 1 + len(DASHBOARDS)
    assert not any("provisioning" in path for _, path in fake.writes)


def test_dashboards_open_with_the_data_source(fake: FakeGrafana):
    provision(fake)
    for one in fake.dashboards.values():
        (variable,) = [one for one in one["dashboard"]["templating"]["list"] if one["type"] == "datasource"]
        assert variable["current"] == {"text": "Prometheus", "value": "prom", "selected": True}


def test_alerts_that_prometheus_evaluates_are_not_made_twice(fake: FakeGrafana):
    fake.firing = [WATCHDOG]
    with pytest.raises(ConfigError, match="evaluates these alerts already, and both would page"):
        provision(fake, alerts=True)
    assert fake.writes == []
    assert len(provision(fake).told("create")) == 1 + len(DASHBOARDS)


def test_what_is_refused_is_refused_before_anything_is_written(fake: FakeGrafana):
    fake.folders = {FOLDER: folder(FOLDER, "Old")}
    fake.groups = {GROUP: {"interval": 60, "rules": [rule("abc", "Mine", GROUP)]}}
    with pytest.raises(ConfigError, match="has rules of others"):
        provision(fake, **PAGING)
    assert fake.writes == []


def test_without_alerts_earlier_ones_are_left_and_told_of_until_they_are_pruned(fake: FakeGrafana):
    provision(fake, **PAGING)
    written = list(fake.writes)
    left = [
        "alert rules of earlier runs, which Grafana evaluates",
        f"notification policy to {NAME!r}",
        f"contact point {NAME!r}",
    ]
    assert (provision(fake).told("left"), fake.writes) == (left, written)
    assert (provision(fake, dry=True, prune=True).told("delete"), fake.writes) == (left, written)
    assert provision(fake, prune=True).told("delete") == left
    assert (fake.groups, [one["uid"] for one in fake.points], fake.tree["routes"]) == ({}, ["email-1"], [])
    written = list(fake.writes)
    assert (provision(fake, prune=True).told("delete"), fake.writes) == ([], written)


def test_without_a_key_only_where_pages_go_is_pruned(fake: FakeGrafana):
    provision(fake, **PAGING)
    assert len(provision(fake, alerts=True, prune=True).told("delete")) == 2
    assert (len(fake.groups), len(fake.points)) == (1, 1)


def test_rules_of_ours_in_another_group_are_pruned(fake: FakeGrafana):
    provision(fake, alerts=True)
    place = (FOLDER, "of an earlier release")
    fake.groups[place] = {"interval": 60, "rules": [rule("model-health-mlold", "MLOld", place, "api")]}
    assert provision(fake, alerts=True).told("left") == ["alert rules of earlier runs, which Grafana evaluates"]
    provision(fake, alerts=True, prune=True)
    assert set(fake.groups) == {GROUP}


def test_only_dashboards_whose_last_version_is_ours_are_pruned(fake: FakeGrafana):
    ours = "model-health-exporter 0123456789ab"
    provision(fake)
    fake.dashboards |= {
        "model-health-old": board("Old", inside=FOLDER, message=ours),
        "model-health-mine": board("Mine", inside=FOLDER, message="copied"),
        "model-health-edited": board("Edited", inside=FOLDER, message=ours),
        "elsewhere": board("Elsewhere", message=ours),
    }
    fake.dashboards["model-health-edited"]["versions"].append({"version": 2, "message": ""})
    assert provision(fake, prune=True).told("delete") == ["dashboard 'Old'"]
    assert {"model-health-mine", "model-health-edited", "elsewhere"} <= set(fake.dashboards)
    assert "model-health-old" not in fake.dashboards


def test_who_provisions_dashboards_needs_no_right_to_alerting(fake: FakeGrafana):
    fake.forbidden = {"/v1/provisioning"}
    assert len(provision(fake).told("create")) == 1 + len(DASHBOARDS)
    with pytest.raises(Forbidden, match="no right to alert rules"):
        provision(fake, prune=True)
    with pytest.raises(Forbidden, match="no right to the rule group"):
        provision(fake, alerts=True)


NAMES = some.sampled_from(["model-health", "Model health", "ml", "MLFeatureDrift", "a b"])
LOCKS = some.sampled_from(["", "api", "file"])
ROUTES = some.recursive(
    some.fixed_dictionaries(
        {"receiver": some.sampled_from(["email", "pager"])},
        optional={
            "object_matchers": some.just([["alertname", "=~", "ML.+"]]),
            "match_re": some.just({"team": "risk|ml"}),
            "continue": some.booleans(),
            "mute_time_intervals": some.just(["nights"]),
        },
    ),
    lambda inner: some.builds(lambda outer, routes: outer | {"routes": routes}, inner, some.lists(inner, max_size=2)),
    max_leaves=4,
)


@settings(max_examples=6, deadline=None)
@given(
    locks=some.tuples(LOCKS, LOCKS, some.sampled_from(["", "api"])),
    names=some.tuples(NAMES, NAMES, NAMES),
    routes=some.lists(ROUTES, max_size=3),
    editable=some.booleans(),
)
def test_what_others_made_stays_to_the_byte(locks: Any, names: Any, routes: Any, editable: bool):
    with fake_grafana() as fake:
        theirs = ("theirs", names[0])
        fake.folders = {"theirs": folder("theirs", "Theirs")}
        fake.groups = {theirs: {"interval": 30, "rules": [rule("theirs-1", names[1], theirs, locks[0])]}}
        fake.points.append(point("pager-1", "pager", "pagerduty", {"integrationKey": "k", "x": [1]}, locks[1]))
        fake.dashboards = {
            "theirs": board(names[2], inside="theirs", message="model-health-exporter is nice"),
            "root": board("Model health / Fleet"),
        }
        fake.tree |= {"routes": routes} | ({"provenance": locks[2]} if locks[2] else {})
        was = copy.deepcopy(fake.content)
        provision(fake, editable=editable, **PAGING)
        assert _without_ours(fake) == was
        provision(fake, prune=True)
        assert fake.content["tree"] == was["tree"]
        assert _without_ours(fake) == was


def _without_ours(fake: FakeGrafana) -> dict[str, Any]:
    content = fake.content
    content["folders"].pop(FOLDER)
    content["groups"].pop("/".join(GROUP), None)
    content["dashboards"] = {uid: one for uid, one in content["dashboards"].items() if uid not in DASHBOARDS}
    content["points"] = [one for one in content["points"] if one["uid"] != CONTACT_POINT]
    content["tree"]["routes"] = [one for one in content["tree"]["routes"] if one["receiver"] != NAME]
    return content


@pytest.mark.parametrize(
    "trouble", [{"lost": True}, {"cut": True}, {"status": 503}, {"status": 429, "headers": {"retry-after": "5"}}]
)
def test_a_write_whose_answer_is_lost_is_not_made_twice(trouble: dict[str, Any]):
    """Each kind of write fails once, some after the deed; what comes of it is what comes of a run without trouble."""
    writes = (
        ("POST", "/folders"),
        ("POST", "/dashboards/db"),
        ("POST", "/v1/provisioning/contact-points"),
        ("PUT", "/v1/provisioning/policies"),
        ("POST", "/v1/provisioning/alert-rules"),
        ("PUT", "/v1/provisioning/folder/.*"),
    )
    with fake_grafana() as calm, fake_grafana() as fake:
        provision(calm, **PAGING)
        fake.troubles = [Trouble(method, path, **trouble) for method, path in writes]
        run = provision(fake, **PAGING)
        assert not any(one.times for one in fake.troubles)
        assert _unnumbered(fake) == _unnumbered(calm)
        assert all(len(one["versions"]) == 1 for one in fake.dashboards.values())
        # Rules and their group are one thing, and in trouble twice.
        first, second = (5.0, 5.0) if "headers" in trouble else (1.0, 3.0)
        assert run.pauses == [first] * 5 + [second]


def _unnumbered(fake: FakeGrafana) -> Any:
    content = fake.content
    for group in content["groups"].values():
        for one in group["rules"]:
            del one["id"]
    for one in content["dashboards"].values():
        del one["id"]
    return content


def test_trouble_that_does_not_pass_ends_the_run_and_the_next_goes_on(fake: FakeGrafana):
    fake.troubles = [Trouble("POST", "/dashboards/db", 502, times=3)]
    with pytest.raises(Waiting, match="answers 502: starting"):
        provision(fake)
    assert fake.writes == [("POST", "/folders")]
    run = provision(fake)
    assert (len(run.told("create")), run.told("unchanged")) == (len(DASHBOARDS), ["folder 'Model health'"])


SOURCES = [source("a", "Alpha"), source("b", "Beta"), source("c", "a"), source("l", "Logs", kind="loki")]


@pytest.mark.parametrize(("wanted", "uid"), [("b", "b"), ("Beta", "b"), ("a", "a")])
def test_a_data_source_is_chosen_by_uid_before_name(wanted: str, uid: str):
    assert choose_datasource(SOURCES, wanted)["uid"] == uid


def test_the_only_or_default_data_source_is_chosen_if_none_is_named():
    assert choose_datasource([SOURCES[0], SOURCES[3]], None)["uid"] == "a"
    assert choose_datasource([*SOURCES, source("d", "Delta", default=True)], None)["uid"] == "d"


@pytest.mark.parametrize(
    ("sources", "wanted", "said"),
    [
        (SOURCES, "Logs", "--datasource: Logs is of type loki, not prometheus"),
        (SOURCES, "x", "--datasource: Grafana has no 'x'; of type prometheus it has a (Alpha), b (Beta), c (a)"),
        (SOURCES, None, "--datasource: which one? Of type prometheus Grafana has a (Alpha), b (Beta), c (a)"),
        (SOURCES[3:], None, "--datasource: which one? Of type prometheus Grafana has none"),
    ],
)
def test_a_data_source_that_is_not_clear_is_asked_for(sources: Any, wanted: str | None, said: str):
    with pytest.raises(ConfigError) as raised:
        choose_datasource(sources, wanted)
    assert str(raised.value) == said


def test_differences_are_shown_by_line_and_never_hold_the_key(fake: FakeGrafana):
    run = provision(fake, dry=True, **PAGING)
    shown = {step.thing.name: step.diff for step in run.steps}
    assert shown["folder 'Model health'"].splitlines()[3:] == [
        "+{",
        '+ "title": "Model health",',
        '+ "uid": "model-health"',
        "+}",
    ]
    assert shown["alert rules 'model-health-alerts'"].endswith(" lines")
    assert not any(KEY in diff for diff in shown.values())
    provision(fake, **PAGING)
    fake.groups[GROUP]["rules"][0]["data"][0]["model"]["expr"] = "a\nand\nb"
    (step,) = [one for one in provision(fake, dry=True, **PAGING).steps if one.writes]
    changed = [line for line in step.diff.splitlines() if line.startswith(("-    ", "+    "))]
    assert [line.lstrip("-+ ") for line in changed] == [
        '"a",',
        '"model_version_feature:ml_feature_psi:increase1h",',
        '"b"',
        '"model_version_feature:ml_feature_drifted:increase1h == 1"',
    ]
