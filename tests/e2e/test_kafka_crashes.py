"""Killed without warning, again and again: not one event more or less than in a run without interruption."""

import random
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.brokers import topics
from tests.brokers.apache import Apache
from tests.brokers.process import free_ports
from tests.e2e import labelled, streams
from tests.e2e.binaries import binary
from tests.e2e.crashing import Crashing
from tests.e2e.lengthy import clients, long
from tests.e2e.prometheus import job, scraping
from tests.e2e.running import Running, configured, counters, run, value_of
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
    partitions, labels = {topics.create(at, 4): 4, topics.create(at, 2): 2}, {topics.create(at, 2): 2}
    source = streams.static(at, list(partitions), client, label_topics=list(labels))
    (port,) = free_ports(1)
    crashed, whole = tmp_path / "crashed", tmp_path / "whole"
    told = {"models": [labelled.MODEL_CONFIG], "references": labelled.REFERENCES, "state": {"path": "state"}, **TICK}
    places = streams.places(partitions)
    listen = f"127.0.0.1:{port}"
    config = configured(crashed, sources=[source], listen=listen, **told)
    crashing = Crashing(config, tmp_path / "crashing.log")
    rng = random.Random(client)
    began = time.time()
    stream = labelled.Stream(partitions, labels, PER_S)
    producing = streams.Producing(at, stream, EVENTS - FIRST, PER_S)
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
                survived = counters(exporter.get("/metrics").text)
                producing.finish()
                ending = list(stream.ending())
                producing.add(ending)
                after_crashes = counters(all_of(exporter, EVENTS + len(ending), len(places)))
                predictions = total(after_crashes, "ml_predictions_total")
                eventually(lambda: prometheus.value("sum(ml_predictions_total)") == predictions, "the last scrape")
                window = f"[{time.time() - began + 1:.0f}s]"
                seen = prometheus.value(f"sum(increase(ml_predictions_total{window}))")
                names = {name.partition("[")[0] for name in after_crashes}
                down = [name for name in names if prometheus.query(f"resets({name}{window}) > 0")]
    with run(whole, sources=[source], **told) as exporter:
        uninterrupted = counters(all_of(exporter, EVENTS + len(ending), len(places)))

    print(f"{crashing.kills} kills, {crashing.at_write} at a write, {crashing.mid_write} within; increase() {seen}")
    assert after_crashes == uninterrupted
    for kind in ("ingest_late", "ingest_rejected", "ingest_dropped"):
        assert total(uninterrupted, f"ml_{kind}_total"), kind
    for kind in ("matured", "joined", "duplicate", "corrected", "late", "unmatched"):
        known, before_kills = (total(found, f"ml_labels_{kind}_total") for found in (uninterrupted, survived))
        assert 0 < before_kills < known, kind
    assert seen == pytest.approx(predictions, rel=0.01)
    assert down == []
    assert crashing.mid_write > 0, crashing
    said = crashing.log.read_text()
    assert "Traceback" not in said
    assert "moved aside" not in said


def all_of(exporter: Running, events: int, pending: int) -> str:
    """What is said when so many events are counted and no more than `pending` predictions wait for their labels."""

    def done() -> str | None:
        text = exporter.get("/metrics").text
        counted = value_of(text, "ml_ingest_events_total"), value_of(text, "ml_labels_pending")
        return text if counted == (events, pending) else None

    return eventually(done, exporter.said, within_s=60)


def total(series: Mapping[str, float], name: str) -> float:
    return sum(value for one, value in series.items() if one.startswith(f"{name}["))
