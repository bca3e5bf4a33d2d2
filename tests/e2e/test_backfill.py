"""A recorded year in a real Prometheus: the drift is where it is."""

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.app.commands import DATA, run
from tests.e2e.binaries import binary
from tests.e2e.prometheus import Prometheus, scraping

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"the public data sets are not at {DATA}"),
]

DAY = 86400
STEP = 5 * DAY / 2


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Ten months of car loans, as an exporter with a window of 30 days would have shown them."""
    prometheus, promtool = binary("prometheus"), binary("promtool")
    folder = tmp_path_factory.mktemp("year")
    reference, history = folder / "reference.json", folder / "history.om"
    columns = ("--prediction", "y_pred", "--score", "y_pred_proba", "--label", "repaid", "--timestamp", "timestamp")
    source = ("--input", DATA / "car_loan_reference.csv", "--output", reference, "--model", "car_loan", "--version", 3)
    assert run("reference", "build", *source, *columns, "--id", "id").code == 0
    asked = ("--reference", reference, "--labels", DATA / "car_loan_labels.csv", "--window", "30d")
    played = run("replay", DATA / "car_loan_analysis.csv", *asked, "--format", "openmetrics")
    assert (played.code, played.err) == (0, "")
    history.write_text(played.out)
    blocks = [
        "tsdb",
        "create-blocks-from",
        "--max-block-duration=1536h",
        "openmetrics",
        history,
        folder / "prometheus" / "data",
    ]
    made = subprocess.run([promtool, *map(str, blocks)], capture_output=True, text=True, timeout=60, check=False)
    assert made.returncode == 0, made.stderr
    with scraping(prometheus, folder / "prometheus") as running:
        yield running


def drifted(year: Prometheus, at: float) -> set[str]:
    return {labels["feature"] for labels, _ in year.query("ml_feature_drifted == 1", at)}


def psi_of_counters(feature: str) -> str:
    """PSI of 30 days from counters alone, smoothed as the exporter does it."""
    counts = f'ml_feature_bin_observations_total{{feature="{feature}"}}'
    expected = f'ml_feature_reference_ratio{{feature="{feature}"}}'
    live = f"(({counts} - {counts} offset 30d + 0.5) and {expected})"
    share = f"({live} / ignoring(bin) group_left sum without(bin) ({live}))"
    return f"sum(({share} - {expected}) * ln({share} / {expected}))"


def step_before(day: datetime) -> float:
    return day.timestamp() // STEP * STEP


def test_the_drift_is_where_it_is(year: Prometheus):
    healthy, after = (step_before(datetime(2019, month, 20, tzinfo=UTC)) for month in (3, 5))
    assert drifted(year, healthy) == set()
    assert drifted(year, after) == {"car_value", "loan_length", "repaid_loan_on_prev_car", "salary_range", "score"}
    assert year.value(f"sum(ml_predictions_total @ {after} - ml_predictions_total @ {after - 30 * DAY})") == 4954
    for at, low, high in ((healthy, 0.0, 0.01), (after, 1.0, 3.0)):
        (_, told), (_, counted) = (
            year.query(asked, at)[0]
            for asked in ('sum(ml_feature_psi{feature="car_value"})', psi_of_counters("car_value"))
        )
        assert low < told < high
        assert counted == pytest.approx(told, rel=1e-9)
