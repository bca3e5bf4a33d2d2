"""A recorded year in a real Prometheus: the drift is where it is, and the tutorial of `backtest` says what is so."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.assets.rules import rule_groups
from exporter.catalog.rules import Settings, Window
from tests.app.commands import DATA, ROOT, run
from tests.assets.promql import needed
from tests.e2e.binaries import binary
from tests.e2e.lengthy import long
from tests.e2e.prometheus import Prometheus, scraping

pytestmark = [
    pytest.mark.e2e,
    long,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"the public data sets are not at {DATA}"),
]

DAY = 86400
STEP = 5 * DAY / 2
TUTORIAL = (ROOT / "docs" / "backtest.md").read_text()
BLOCKS = ("tsdb", "create-blocks-from", "--max-block-duration=9999h")
LOOKBACK = "--query.lookback-delta=60h"
SPAN = ("--start", "2018-11-30", "--end", "2019-08-29")
DRIFTED = {"car_value", "loan_length", "repaid_loan_on_prev_car", "salary_range"}


@dataclass(frozen=True)
class Year:
    """Ten months in a Prometheus, with what rules record; and what `backtest` had said before they did."""

    prometheus: Prometheus
    unrecorded: dict[str, Any]


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Year]:
    """Car loans as an exporter with a window of 30 days would have shown them."""
    prometheus, promtool = binary("prometheus"), binary("promtool")
    folder = tmp_path_factory.mktemp("year")
    reference, data = folder / "reference.json", folder / "prometheus" / "data"
    columns = ("--prediction", "y_pred", "--score", "y_pred_proba", "--label", "repaid", "--timestamp", "timestamp")
    source = ("--input", DATA / "car_loan_reference.csv", "--output", reference, "--model", "car_loan", "--version", 3)
    assert run("reference", "build", *source, *columns, "--id", "id").code == 0
    asked = ("--reference", reference, "--labels", DATA / "car_loan_labels.csv", "--window", "30d")
    played = run("replay", DATA / "car_loan_analysis.csv", *asked, "--format", "openmetrics")
    assert (played.code, played.err) == (0, "")
    (folder / "history.om").write_text(played.out)
    done(folder, promtool, *BLOCKS, "openmetrics", "history.om", data)
    (folder / "rules.yml").write_text(yaml.safe_dump({"groups": flat_rules()}))
    with scraping(prometheus, folder / "prometheus", (), LOOKBACK) as running:
        unrecorded = backtest(running)
        every = (
            "--url",
            running.url,
            *(text if text[0] == "-" else f"{text}T00:00:00Z" for text in SPAN),
            "--eval-interval",
            "60h",
        )
        # In the folder, for the moments at which promtool evaluates depend on the path of the file.
        done(folder, promtool, *BLOCKS, "rules", *every, "--output-dir", data, "rules.yml")
    with scraping(prometheus, folder / "prometheus", (), LOOKBACK) as running:
        yield Year(running, unrecorded)


def done(folder: Path, *command: object) -> None:
    ended = subprocess.run([*map(str, command)], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr


def flat_rules() -> list[dict[str, Any]]:
    """The flat rules of what alerts read over the window: all others are as good, and take their time."""
    settings = Settings(windows=(Window("30d"),))
    chained = rule_groups(settings)
    read = needed(chained, [rule["expr"] for group in chained for rule in group["rules"] if "alert" in rule])
    names = {rule["record"] for group in read for rule in group["rules"] if rule["record"].endswith(("30d", "max"))}
    printed = run("rules", "--flat", "--window", "30d")
    assert (printed.code, printed.err) == (0, "")
    groups = yaml.safe_load(printed.out)["groups"]
    kept = [group | {"rules": [rule for rule in group["rules"] if rule.get("record") in names]} for group in groups]
    return [group for group in kept if group["rules"]]


def backtest(running: Prometheus) -> dict[str, Any]:
    asked = ("--prometheus", running.url, *SPAN, "--window", "30d", "--step", "60h")
    ended = run("backtest", *asked, "--format", "json", "--exit-code")
    assert (ended.code, ended.err) == (1, "")
    return json.loads(ended.out)


def step_before(day: datetime) -> float:
    return day.timestamp() // STEP * STEP


def subject(alert: Mapping[str, Any]) -> tuple[str, str]:
    """Which alert, and of which feature or quality."""
    return alert["alert"], alert["labels"].get("feature") or alert["labels"].get("metric") or ""


def minute(text: str | None) -> str:
    return "still firing" if text is None else text[:16].replace("T", " ")


def test_the_recorded_drift_is_where_it_is(year: Year):
    healthy, after = (step_before(datetime(2019, month, 20, tzinfo=UTC)) for month in (3, 6))
    names = ("model_version_feature:ml_feature_psi:increase30d", "ml_feature_psi")
    for at in (healthy, after):
        recorded, told = (
            {labels["feature"]: value for labels, value in year.prometheus.query(f'{name}{{kind="input"}}', at + DAY)}
            for name in names
        )
        assert recorded.keys() == told.keys()
        assert len(told) == 7
        for feature, value in recorded.items():
            if at == after and feature in DRIFTED:
                # promtool evaluates between two steps. Of a window of 12 steps it then sees 11, and increase() makes 12
                # of them: the same shares, of a twelfth fewer predictions.
                assert value == pytest.approx(told[feature], rel=0.05)
                assert value > 0.2
            else:
                assert value < 0.01 > told[feature]
    drifted = year.prometheus.query("model_version_feature:ml_feature_drifted:increase30d == 1", after + DAY)
    assert {labels["feature"] for labels, _ in drifted} == DRIFTED | {"score"}


def test_at_a_step_of_the_history_an_increase_is_exact(year: Year):
    (psi,) = [
        rule["expr"]
        for group in flat_rules()
        for rule in group["rules"]
        if rule["record"] == "model_version_feature:ml_feature_psi:increase30d"
    ]
    # Prometheus 2 takes the samples at both ends of a window; 3 leaves one out, and is as far off as between steps.
    at = step_before(datetime(2019, 6, 20, tzinfo=UTC))
    recorded, told = (
        {labels["feature"]: value for labels, value in year.prometheus.query(expr, at)}
        for expr in (psi, "ml_feature_psi")
    )
    assert recorded == pytest.approx(told, rel=1e-9)


def test_nothing_would_have_fired_before_and_the_right_alerts_after(year: Year):
    found = year.unrecorded
    alerts = [one for one in found["alerts"] if one["alert"] != "MLWatchdog"]
    assert {subject(one) for one in alerts} == {
        *(("MLFeatureDrift", feature) for feature in DRIFTED | {"score"}),
        ("MLModelDrift", ""),
        ("MLModelRollbackAdvised", "accuracy"),
    }
    assert min(one["pending"] for one in alerts) > "2019-04-01"
    assert found["pending"] == []
    assert "model_version_feature:ml_feature_psi:increase30d" in found["worked_out"]
    # Silence of these says nothing, and that is said.
    assert found["sparse"]["MLLabelPipelineStopped"] == {"2h": ["ml_labels_joined_total"]}
    blind = {"MLErrorBudgetBurn", "MLPredictionTrafficAbsent", "MLInputPipelineFailure", "MLFeedCatchingUp"}
    assert found["sparse"].keys() == blind | {"MLLabelPipelineStopped", "MLEventsDropped"}
    assert {"up", "ml_exporter_build_info"} <= {*found["absent"]}

    rows = [
        " ".join(
            ["|", minute(one["from"]), "|", minute(one["until"]), f"| `{one['alert']}`", what, f"| {one['peak']:.4g} |"]
        ).replace("  ", " ")
        for one in found["alerts"]
        for _, what in [subject(one)]
    ]
    assert "\n".join(rows) in TUTORIAL, rows


def test_records_tell_the_same(year: Year):
    found = backtest(year.prometheus)
    assert "model_version_feature:ml_feature_psi:increase30d" not in found["worked_out"]
    firsts = [
        {subject(one): datetime.fromisoformat(one["from"]) for one in reversed(told["alerts"])}
        for told in (found, year.unrecorded)
    ]
    assert firsts[0].keys() == firsts[1].keys()
    # They are of another moment of the step.
    assert max(abs(firsts[0][one] - firsts[1][one]) for one in firsts[0]) <= timedelta(seconds=STEP)

    asked = ("backtest", "--prometheus", year.prometheus.url, "--window", "30d", "--step", "60h", "--exit-code")
    healthy = run(*asked, "--start", "2018-11-30", "--end", "2019-03-31")
    assert (healthy.code, healthy.err) == (0, "")
    assert "alerts that would have fired: 1, by 1 of 20 rules" in healthy.out
