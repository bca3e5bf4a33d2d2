"""A real Prometheus scrapes a running exporter: what was posted is what can be queried."""

import subprocess

import pytest

from tests.e2e import stories
from tests.e2e.binaries import binary
from tests.e2e.prometheus import job, scraping
from tests.e2e.running import Running, run
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

SCRAPER = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
"""What Prometheus 2.42 sends as Accept."""

TOKEN = "open-sesame"  # noqa: S105 - of this test only


def test_prometheus_sees_what_was_posted(tmp_path):
    prometheus = binary("prometheus")
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "token").write_text(TOKEN + "\n")
    auth = {"read_token_file": "token"}
    with (
        run(tmp_path / "open", [stories.MODEL_CONFIG], [stories.reference()]) as exporter,
        run(tmp_path / "closed", auth=auth) as closed,
        scraping(
            prometheus,
            tmp_path / "prometheus",
            [
                job("open", exporter.port),
                job("token", closed.port, authorization={"credentials": TOKEN}),
                job("no-token", closed.port),
            ],
        ) as scraper,
    ):
        exporter.post(stories.predictions(300))
        eventually(lambda: scraper.value('ml_predictions_total{job="open"}') == 300, "300 predictions in Prometheus")
        assert scraper.value('up{job="open"}') == 1
        assert scraper.value('ml_prediction_errors_total{job="open",reason="timeout"}') == 3
        assert scraper.value('ml_prediction_duration_seconds_count{job="open"}') == 300
        assert scraper.value('ml_feature_bin_observations_total{feature="age",bin="missing"}') == 0
        assert scraper.query("ml_feature_drifted == 1") == []
        assert {value for _, value in scraper.query("ml_feature_drifted")} == {0}

        exporter.post(stories.predictions(1200, drifted=[stories.DRIFTING], seed=1))
        eventually(
            lambda: scraper.value(f'ml_feature_drifted{{feature="{stories.DRIFTING}"}}') == 1, "the drift in Prometheus"
        )
        (drifted,) = scraper.query("ml_feature_drifted == 1")
        assert (drifted[0]["model"], drifted[0]["version"]) == (stories.MODEL, stories.VERSION)
        (state,) = scraper.query(f'ml_feature_state{{feature="{stories.DRIFTING}"}}')
        assert state[0]["state"] == "drifting"
        assert scraper.value("ml_predictions_total") == 1500

        # Only the OpenMetrics parser knows a counter's family without its _total.
        assert {one["type"] for one in scraper.api("targets/metadata", metric="ml_predictions")} == {"counter"}
        assert scraper.scrape_error("open") == ""

        assert scraper.scrape_error("token") == ""
        assert scraper.value('up{job="token"}') == 1
        assert scraper.value('ml_exporter_build_info{job="token"}') == 1
        assert "401" in (scraper.scrape_error("no-token") or "")
        assert scraper.value('up{job="no-token"}') == 0

        # Prometheus tells in its log of samples that come twice, out of order, or too late.
        assert "ingesting" not in (tmp_path / "prometheus" / "prometheus.log").read_text()


def test_promtool_has_nothing_to_say(tmp_path):
    promtool = binary("promtool")
    models = [stories.MODEL_CONFIG, {"name": "learning", "learn": 100}]
    with run(tmp_path, models, [stories.reference()]) as exporter:
        fill(exporter)
        text = exporter.get("/metrics").body
    assert b"\nml_feature_psi{" in text
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, timeout=30, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_a_scrape_gets_the_format_it_asked_for(tmp_path):
    with run(tmp_path, [stories.MODEL_CONFIG], [stories.reference()]) as exporter:
        fill(exporter)
        openmetrics = exporter.get("/metrics", accept=SCRAPER)
        assert openmetrics.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        assert openmetrics.text.endswith("\n# EOF\n")
        text = exporter.get("/metrics")
        assert text.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert "# EOF" not in text.text
        packed = exporter.get("/metrics", accept=SCRAPER, accept_encoding="gzip")
        assert packed.headers["content-encoding"] == "gzip"
        assert len(packed.body) < len(openmetrics.body) / 4


def fill(exporter: Running) -> None:
    """Data of every kind: predictions, failures, rejects, drops, several versions, a model nobody configured."""
    exporter.post(stories.predictions(300))
    exporter.post(stories.predictions(300, drifted=[stories.DRIFTING], seed=1, version="4"))
    exporter.post(stories.predictions(50, model='un"known\\model'))
    exporter.post(stories.predictions(150, model="learning"))
    exporter.post([b"{", b'{"features": {}}', {"model": stories.MODEL, "label": 1, "id": "x"}])
    eventually(lambda: exporter.value("ml_predictions_total", model="learning") == 150, "a tick")
