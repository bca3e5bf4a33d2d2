import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from exporter.app.alerting import read
from exporter.app.backtest_command import backtest as command
from exporter.catalog.metrics import METRICS
from tests.app.answering import Answering, answering, matrix
from tests.app.commands import ROOT, Ended, run

RULES = "groups: [{name: g, rules: [{alert: Drifted, expr: ml_feature_drifted == 1, for: 1m}]}]"
SERIES = {"__name__": "ml_feature_drifted", "feature": "car_[value]"}


@pytest.fixture
def server() -> Iterator[Answering]:
    values = {1_554_076_800 + 60 * step: 1 for step in range(3)}
    with answering(lambda path, _: (200, [SERIES] if path == "series" else matrix((SERIES, values)))) as running:
        yield running


def backtest(folder: Path, url: str, *more: object, end: str = "2019-04-01T01:00:00Z") -> Ended:
    (folder / "rules.yml").write_text(RULES)
    where = ("--prometheus", url, "--rules", folder / "rules.yml", "--start", "2019-04-01", "--end", end)
    return run("backtest", *where, *more)


def test_a_table_and_an_exit_code_when_asked_for(tmp_path: Path, server: Answering):
    ended = backtest(tmp_path, server.url)
    assert (ended.code, ended.err) == (0, "")
    assert "2019-04-01 00:00 to 2019-04-01 01:00 UTC" in ended.out
    assert re.search(r"2019-04-01 00:01 .*2019-04-01 00:03 .*Drifted .*1 │\n.* feature=car_\[value\] ", ended.out)
    assert "alerts that would have fired: 1, by 1 of 1 rules" in ended.out
    assert backtest(tmp_path, server.url, "--exit-code").code == 1
    sparse = backtest(tmp_path, server.url, "--exit-code", "--step", "1h", end="2019-04-01")
    assert sparse.code == 0
    assert "true at times, but not for long enough (is --step the step of the history?): Drifted" in sparse.out


def test_the_rules_of_this_release_unless_there_are_others():
    def nothing(path: str, asked: Mapping[str, str]) -> tuple[int, Any]:
        always = [({}, {1_554_076_800: 1})] if asked.get("query") == "vector(1)" else []
        return 200, [] if path == "series" else matrix(*always)

    with answering(nothing) as server:
        where = ("--prometheus", server.url, "--start", "2019-04-01", "--end", "2019-04-01")
        ended = CliRunner().invoke(command, [*where, "--format", "json", "--exit-code"])
    assert ended.exit_code == 0, ended.output
    found = json.loads(ended.output)
    assert found["rules"] == [rule.alert for rule in read(ROOT / "alerts" / "rules.yml").alerts]
    assert [one["alert"] for one in found["alerts"]] == ["MLWatchdog"]
    assert {one for one in found["absent"] if one.startswith("ml_")} <= {metric.name for metric in METRICS}


def test_what_nobody_recorded_and_what_samples_are_too_few_for_is_told():
    def sparse(path: str, asked: Mapping[str, str]) -> tuple[int, Any]:
        if path == "series":
            return 200, [] if ":" in asked["match[]"] else [{}]
        long = "m]" not in asked["query"]
        return 200, matrix(*([({}, {1_554_076_800: 1})] if long and "count(" in asked["query"] else []))

    with answering(sparse) as server:
        where = ("--prometheus", server.url, "--start", "2019-04-01", "--end", "2019-04-01", "--window", "30d")
        ended = run("backtest", *where)
    assert (ended.code, ended.err) == (0, "")
    assert "samples too far apart for: MLErrorBudgetBurn (5m, 30m), MLPredictionTrafficAbsent (15m)" in ended.out
    assert re.search(r"not recorded all that time, and worked out from metrics: \d\d records\n", ended.out)
    assert any("(ml_feature_bin_observations_total[30d])" in one.get("query", "") for one in server.asked)


def test_json_with_a_token(tmp_path: Path, server: Answering):
    (tmp_path / "token").write_text("open-sesame\n")
    ended = backtest(tmp_path, server.url, "--format", "json", "--token-file", tmp_path / "token")
    (alert,) = json.loads(ended.out)["alerts"]
    assert (alert["from"], alert["until"]) == ("2019-04-01T00:01:00.000Z", "2019-04-01T00:03:00.000Z")
    assert set(server.tokens) == {"Bearer open-sesame"}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--start", "soon"), r"--start.*RFC 3339 or epoch seconds expected, found 'soon'"),
        (("--end", "2019-03-01"), r"--end.*before --start"),
        (("--step", "1.5h"), r"--step.*a duration such as 30s or 1h30m expected"),
        (("--step", "0"), r"--step.*longer than 0 expected"),
        (("--window", "2h"), r"rules of --rules have their own labels, windows and thresholds"),
    ],
)
def test_an_option_that_makes_no_sense_is_named(tmp_path: Path, arguments: tuple[str, str], message: str):
    (tmp_path / "rules.yml").write_text(RULES)
    where = ("--prometheus", "http://127.0.0.1:9", "--rules", str(tmp_path / "rules.yml"), "--start", "2019-04-01")
    ended = CliRunner().invoke(command, [*where, *arguments])
    assert ended.exit_code == 2
    assert re.search(message, ended.output), ended.output


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, server: Answering):
    ended = backtest(tmp_path, server.url, "--token-file", tmp_path / "none")
    assert (ended.code, ended.out) == (2, "")
    assert "--token-file: cannot read " in ended.err
    assert server.asked == []


def test_a_prometheus_in_trouble_is_unavailable(tmp_path: Path):
    with answering(lambda *_: (403, "no")) as server:
        ended = backtest(tmp_path, server.url)
    assert (ended.code, ended.out, ended.err) == (3, "", f"error: {server.url}: answers 403 Forbidden\n")
