import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exporter.app import cli
from tests.app.commands import ROOT, Ended, run
from tests.app.fake_grafana import FakeGrafana, Trouble, fake_grafana
from tests.app.grafana_content import TOKEN
from tests.app.grafana_things import source
from tests.app.provisioning import KEY

Command = Callable[..., Ended]
DOCUMENTED = (ROOT / "docs" / "grafana.md").read_text(encoding="utf-8")
BOARDS = [f"dashboard 'Model health / {name}'" for name in ("Fleet", "Model", "Feature", "Canary", "Exporter")]


@pytest.fixture
def fake() -> Iterator[FakeGrafana]:
    with fake_grafana(prefix="/grafana") as running:
        yield running


@pytest.fixture
def secrets(tmp_path: Path) -> tuple[Path, Path]:
    """Files with a token and a key, as editors leave them."""
    token, key = tmp_path / "token", tmp_path / "key"
    token.write_text(f"{TOKEN}\n")
    key.write_text(f"{KEY}\n")
    return token, key


@pytest.fixture
def command(
    fake: FakeGrafana, secrets: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    """`provision grafana` in this process, against the fake; no secret is ever printed."""

    def call(*arguments: object, url: str = fake.url) -> Ended:
        where = ("--url", url, "--token-file", secrets[0])
        monkeypatch.setattr(sys, "argv", ["exporter", "provision", "grafana", *map(str, (*where, *arguments))])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        assert not any(secret in out + err for secret in (TOKEN, KEY))
        return Ended(code, out, err)

    return call


def test_a_run_says_what_it_did_and_the_next_that_nothing_is_left(
    command: Command, fake: FakeGrafana, secrets: tuple[Path, Path]
):
    first = run("provision", "grafana", "--url", f"{fake.url}/", "--token-file", secrets[0])
    assert (first.code, first.err) == (0, "")
    assert first.out.splitlines() == [
        f"Grafana 12.1.0 at {fake.url}, data source Prometheus (prom)",
        "created    folder 'Model health'",
        *(f"created    {name}" for name in BOARDS),
        "6 created; 0 as they should be.",
    ]
    assert f"```\n{first.out.replace(fake.url, 'https://grafana.example.com')}```" in DOCUMENTED
    written = list(fake.writes)
    second = command()
    assert second.out.splitlines()[-1] == "Nothing to change; 6 as they should be."
    assert (second.code, fake.writes) == (0, written)


def test_a_dry_run_shows_what_would_be_done_and_an_exit_code_when_asked_for(command: Command, fake: FakeGrafana):
    planned = command("--dry-run")
    assert planned.code == 0
    assert "create     folder 'Model health'\n    --- in Grafana\n    +++ wanted\n" in planned.out
    assert planned.out.splitlines()[-1] == "6 would be created; 0 as they should be. Nothing was written."
    assert command("--dry-run", "--exit-code").code == 1
    assert fake.writes == []
    command()
    same = command("--dry-run", "--exit-code")
    assert (same.code, same.out.splitlines()[-1]) == (
        0,
        "Nothing to change; 6 as they should be. Nothing was written.",
    )


def test_alerts_and_where_they_go_are_made_and_pruned_on_demand(
    command: Command, fake: FakeGrafana, secrets: tuple[Path, Path]
):
    made = command("--alerts", "--pagerduty-key-file", secrets[1], "--folder", "ML", "--window", "2h")
    assert made.out.splitlines()[-4:] == [
        "created    contact point 'Model health PagerDuty'",
        "created    notification policy to 'Model health PagerDuty'",
        "created    alert rules 'model-health-alerts'",
        "9 created; 0 as they should be.",
    ]
    assert fake.folders["model-health"]["title"] == "ML"
    ((place, group),) = fake.groups.items()
    assert place[0] == "model-health"
    first = group["rules"][0]
    assert "increase2h" in first["data"][0]["model"]["expr"]
    assert first["annotations"]["dashboard_url"].startswith(f"{fake.url}/d/model-health-feature?")
    left = command("--folder", "ML", "--window", "2h")
    assert left.out.splitlines()[-4:] == [
        "left       alert rules of earlier runs, which Grafana evaluates",
        "left       notification policy to 'Model health PagerDuty'",
        "left       contact point 'Model health PagerDuty'",
        "Nothing to change; 6 as they should be; 3 left of earlier runs: --prune deletes them.",
    ]
    assert "\n".join(left.out.splitlines()[-4:]) in DOCUMENTED
    pruned = command("--folder", "ML", "--window", "2h", "--prune")
    assert pruned.out.splitlines()[-1] == "3 deleted; 6 as they should be."


def test_links_lead_where_they_are_told_to(command: Command, fake: FakeGrafana):
    command("--alerts", "--dashboards", "https://g.example/d/", "--runbooks", "https://r.example/")
    told = fake.groups["model-health", "model-health-alerts"]["rules"][0]["annotations"]
    assert told["dashboard_url"].startswith("https://g.example/d/model-health-feature?")
    assert told["runbook_url"] == "https://r.example/mlfeaturedrift.md"


def test_a_data_source_and_an_organisation_are_named(command: Command, fake: FakeGrafana):
    fake.datasources.append(source("mimir", "Mimir"))
    assert "data source Prometheus (prom)" in command("--dry-run").out
    assert "data source Mimir (mimir)" in command("--datasource", "Mimir", "--org", "3").out
    assert fake.organisations == {None, "3"}
    fake.datasources[0]["isDefault"] = False
    unclear = command()
    assert (unclear.code, unclear.out) == (2, "")
    assert unclear.err == (
        "error: --datasource: which one? Of type prometheus Grafana has prom (Prometheus), mimir (Mimir)\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--exit-code",), "--exit-code is for --dry-run"),
        (("--editable",), "--pagerduty-key-file and --editable are for --alerts"),
        (("--pagerduty-key-file", "k"), "--pagerduty-key-file and --editable are for --alerts"),
        (("--alerts", "--new-key"), "--new-key is for --pagerduty-key-file"),
        (("--token-file", "none"), "--token-file: cannot read none: No such file"),
        (("--alerts", "--pagerduty-key-file", "none"), "--pagerduty-key-file: cannot read none: No such file"),
        (("--ca-file", "none"), "--ca-file: no certificates in none: No such file"),
        (("--ca-file", "README.md"), "--ca-file: no certificates in README.md: "),
        (("--window", "1w"), "1w: a window is a multiple of 5m"),
        (("--url", f"http://admin:{KEY}@127.0.0.1/"), "--url: no user and password belong there"),
    ],
)
def test_what_makes_no_sense_is_told_without_asking(
    command: Command, fake: FakeGrafana, arguments: tuple[str, ...], said: str
):
    ended = command(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert fake.asked == []


def test_a_token_that_is_refused_is_bad_input(command: Command, fake: FakeGrafana):
    fake.token = "another"  # noqa: S105
    assert command() == Ended(2, "", f"error: --token-file: {fake.url} does not accept the token\n")


def test_a_grafana_in_trouble_is_unavailable(command: Command, fake: FakeGrafana):
    fake.troubles = [Trouble("GET", "/health", 503, {"retry-after": "0"}, times=3)]
    assert command() == Ended(3, "", f"error: {fake.url}: answers 503: starting\n")
    assert fake.asked == [("GET", "/health")] * 3
    fake.troubles = [Trouble("POST", "/dashboards/db", 500)]
    ended = command()
    assert (ended.code, ended.out.splitlines()[1:]) == (3, ["created    folder 'Model health'"])
    assert ended.err == f"error: {fake.url}: answers 500 for the dashboard: starting\n"


def test_without_the_client_it_is_told_how_to_get_it(command: Command, monkeypatch: pytest.MonkeyPatch):
    for name in list(sys.modules):
        if name == "exporter.app.grafana" or name.startswith("grafana_client"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "grafana_client", None)
    ended = command()
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "error: no Grafana client is installed; pip install 'model-health-exporter[grafana]'\n"
