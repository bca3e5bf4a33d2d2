"""Killed without warning, again and again: not one event more or less than in a run without interruption."""

import random
import time
from pathlib import Path

import pytest

from tests.brokers import topics
from tests.brokers.apache import Apache
from tests.brokers.process import free_ports
from tests.e2e import streams
from tests.e2e.binaries import binary
from tests.e2e.crashing import Crashing
from tests.e2e.lengthy import clients, long
from tests.e2e.prometheus import job, scraping
from tests.e2e.running import configured, counters, run
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

EVENTS, FIRST, PER_S, KILLS = 500_000, 600, 12_000, 20
TICK = {"tick": "300ms"}
SCRAPES = {"scrape_interval": "250ms", "scrape_timeout": "250ms"}


@long
@clients
def test_no_kill_changes_a_counter_by_one_nor_shows_prometheus_one_that_goes_down(
    apache_kafka: Apache, tmp_path: Path, client: str
):
    at = apache_kafka.bootstrap
    partitions = {topics.create(at, 4): 4, topics.create(at, 2): 2}
    source = streams.static(at, list(partitions), client)
    (port,) = free_ports(1)
    crashed, whole = tmp_path / "crashed", tmp_path / "whole"
    told = {"models": [streams.MODEL_CONFIG], "references": streams.REFERENCES, "state": {"path": "state"}, **TICK}
    listen = f"127.0.0.1:{port}"
    config = configured(crashed, sources=[source], listen=listen, **told)
    crashing = Crashing(config, tmp_path / "crashing.log")
    rng = random.Random(client)
    began = time.time()
    producing = streams.Producing(at, partitions, EVENTS - FIRST, PER_S)
    with scraping(binary("prometheus"), tmp_path / "prometheus", [job("one", port, **SCRAPES)]) as prometheus:
        producing.bring(FIRST)
        with run(crashed, sources=[source], listen=listen, **told) as exporter:
            # What a series has when Prometheus sees it for the first time is no increase.
            eventually(lambda: prometheus.value('ml_predictions_total{version="5"}'), "a scrape", within_s=20)
            exporter.process.kill()
            exporter.process.wait()
        with producing:
            while crashing.kills < KILLS or (crashing.mid_write == 0 and crashing.kills < 2 * KILLS):
                crashing.live(crashed / "state", rng)
            with run(crashed, sources=[source], listen=listen, **told) as exporter:
                producing.finish()
                eventually(lambda: exporter.value("ml_ingest_events_total") == EVENTS, "all events", within_s=60)
                after_crashes = counters(exporter.get("/metrics").text)
                predictions = sum(
                    value for name, value in after_crashes.items() if name.startswith("ml_predictions_total")
                )
                eventually(lambda: prometheus.value("sum(ml_predictions_total)") == predictions, "the last scrape")
                window = f"[{time.time() - began + 1:.0f}s]"
                seen = prometheus.value(f"sum(increase(ml_predictions_total{window}))")
                names = {name.partition("[")[0] for name in after_crashes}
                down = [name for name in names if prometheus.query(f"resets({name}{window}) > 0")]
    with run(whole, sources=[source], **told) as exporter:
        eventually(lambda: exporter.value("ml_ingest_events_total") == EVENTS, "all events", within_s=60)
        uninterrupted = counters(exporter.get("/metrics").text)

    print(f"{crashing.kills} kills, {crashing.at_write} at a write, {crashing.mid_write} within; increase() {seen}")
    assert after_crashes == uninterrupted
    for reason in ("ingest_late_total", "ingest_rejected_total", "ingest_dropped_total"):
        assert any(value > 0 for name, value in uninterrupted.items() if name.startswith(f"ml_{reason}")), reason
    assert seen == pytest.approx(predictions, rel=0.01)
    assert down == []
    assert crashing.mid_write > 0, crashing
    said = crashing.log.read_text()
    assert "Traceback" not in said
    assert "moved aside" not in said
