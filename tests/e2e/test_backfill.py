"""A recorded year in a real Prometheus: the drift is where it is, and the tutorial of `backtest` says what is so."""

import json
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.app.commands import DATA, ROOT, run
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
BLOCKS = ("tsdb", "create-blocks-from", "--max-block-duration=1536h")
LOOKBACK = "--query.lookback-delta=60h"


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those of the tutorial."""
    (text,) = re.findall(r"```yaml\n(.*?)```", TUTORIAL, re.DOTALL)
    path = tmp_path_factory.mktemp("rules") / "rules.yaml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory, rules: Path) -> Iterator[Prometheus]:
    """Ten months of car loans as an exporter with a window of 30 days would have shown them, and what rules record."""
    prometheus, promtool = binary("prometheus"), binary("promtool")
    folder = tmp_path_factory.mktemp("year")
    reference, history, data = folder / "reference.json", folder / "history.om", folder / "prometheus" / "data"
    columns = ("--prediction", "y_pred", "--score", "y_pred_proba", "--label", "repaid", "--timestamp", "timestamp")
    source = ("--input", DATA / "car_loan_reference.csv", "--output", reference, "--model", "car_loan", "--version", 3)
    assert run("reference", "build", *source, *columns, "--id", "id").code == 0
    asked = ("--reference", reference, "--labels", DATA / "car_loan_labels.csv", "--window", "30d")
    played = run("replay", DATA / "car_loan_analysis.csv", *asked, "--format", "openmetrics")
    assert (played.code, played.err) == (0, "")
    history.write_text(played.out)
    done(promtool, *BLOCKS, "openmetrics", history, data)
    with scraping(prometheus, folder / "prometheus", (), LOOKBACK) as running:
        span = ("--start", "2018-11-30T00:00:00Z", "--end", "2019-08-29T00:00:00Z")
        done(promtool, *BLOCKS, "rules", "--url", running.url, *span, "--output-dir", data, rules)
    with scraping(prometheus, folder / "prometheus", (), LOOKBACK) as running:
        yield running


def done(*command: object) -> None:
    ended = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr


def drifted(year: Prometheus, at: float) -> set[str]:
    return {labels["feature"] for labels, _ in year.query("ml_feature_drifted == 1", at)}


def step_before(day: datetime) -> float:
    return day.timestamp() // STEP * STEP


def test_the_drift_is_where_it_is(year: Prometheus):
    healthy, after = (step_before(datetime(2019, month, 20, tzinfo=UTC)) for month in (3, 5))
    assert drifted(year, healthy) == set()
    assert drifted(year, after) == {"car_value", "loan_length", "repaid_loan_on_prev_car", "salary_range", "score"}
    assert year.value(f"sum(ml_predictions_total @ {after} - ml_predictions_total @ {after - 30 * DAY})") == 4954
    for at, low, high in ((healthy, 0.0, 0.01), (after, 1.0, 3.0)):
        told, recorded = (
            year.query(f'sum({metric}{{feature="car_value"}})', at + DAY)[0][1]
            for metric in ("ml_feature_psi", "ml:feature_psi:30d")
        )
        assert low < told < high
        assert recorded == pytest.approx(told, rel=1e-9)


def test_nothing_would_have_fired_before_and_the_right_alerts_after(year: Prometheus, rules: Path):
    asked = ("backtest", "--prometheus", year.url, "--rules", rules, "--start", "2018-11-30", "--exit-code")
    healthy = run(*asked, "--end", "2019-03-31")
    assert (healthy.code, healthy.err) == (0, "")
    assert "alerts that would have fired: 0, by 0 of 3 rules" in healthy.out

    whole = run(*asked, "--end", "2019-08-29", "--format", "json")
    assert (whole.code, whole.err) == (1, "")
    found = json.loads(whole.out)
    assert (found["pending"], found["absent"]) == ([], [])
    rows = [
        "| "
        + " | ".join(
            [
                one["from"][:16].replace("T", " "),
                "still firing" if one["until"] is None else one["until"][:16].replace("T", " "),
                f"`{one['alert']}`" + "".join(f" feature={value}" for value in [one["labels"].get("feature")] if value),
                f"{one['peak']:.4g}",
            ]
        )
        + " |"
        for one in found["alerts"]
    ]
    assert "\n".join(rows) in TUTORIAL, rows
