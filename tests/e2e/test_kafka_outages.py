"""The cluster goes away, freezes, or lacks what is to be read: nothing is lost, and it is said what is wrong."""

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.brokers import apache, topics
from tests.brokers.apache import Apache
from tests.brokers.topics import Record
from tests.e2e import stories, streams
from tests.e2e.lengthy import clients, long
from tests.e2e.running import Running, run, value_of
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

OUTAGE_S = 30.0
GRACE_S = 15.0
EVENTS = 3000
WAYS = {
    f"{mode} {client}": (client, options)
    for client in ("kafka-python", "confluent")
    for mode, options in (("static", {"partitions": {"member": 0, "of": 1}}), ("group", {}))
}
"""Both clients in both modes, side by side: one outage is enough for all."""


@contextmanager
def all_ways(folder: Path, bootstrap: str, *names: str) -> Iterator[Mapping[str, Running]]:
    """Exporters that read these topics, each for itself."""
    with ExitStack() as stack:
        yield {
            way: stack.enter_context(
                run(
                    folder / way,
                    [streams.MODEL_CONFIG],
                    streams.REFERENCES,
                    sources=[streams.kafka(bootstrap, names, client, group_id=way, **options)],
                    state={"path": "state"},
                )
            )
            for way, (client, options) in WAYS.items()
        }


@long
def test_a_broker_that_is_away_for_a_while_costs_no_event(tmp_path: Path):
    with apache.running(tmp_path / "broker") as broker:
        topic = topics.create(broker.bootstrap, 3)
        producing = streams.Producing(broker.bootstrap, {topic: 3}, 0, 1)
        with all_ways(tmp_path, broker.bootstrap, topic) as exporters:
            producing.bring(EVENTS)
            for exporter in exporters.values():
                has_counted(exporter, EVENTS)
                eventually(lambda ready=exporter: ready.get("/readyz").status == 200, exporter.said, within_s=30)
            producing.bring(EVENTS)
            broker.stop()
            stopped = time.monotonic()
            for exporter in exporters.values():
                says_it_is_not_ready(exporter, "cannot reach the cluster")
            # It is no one's fault but the broker's: /metrics and /healthz go on.
            eventually(
                lambda: all(map(is_serving, exporters.values())) and time.monotonic() > stopped + OUTAGE_S,
                "the end of the outage",
                within_s=2 * OUTAGE_S,
            )
            broker.start()
            producing.bring(EVENTS)
            for way, exporter in exporters.items():
                eventually(lambda ready=exporter: ready.get("/readyz").status == 200, exporter.said, within_s=30)
                has_counted(exporter, 3 * EVENTS, again=way.startswith("group"))
                troubles = exporter.value("ml_ingest_source_errors_total", reason="connection")
                print(f"{way}: {troubles} troubles; {time.monotonic() - stopped - OUTAGE_S:.1f} s after the outage")
                assert troubles


@long
def test_a_broker_that_is_frozen_holds_up_neither_http_nor_the_end(tmp_path: Path):
    with apache.running(tmp_path / "broker") as broker:
        topic = topics.create(broker.bootstrap, 3)
        producing = streams.Producing(broker.bootstrap, {topic: 3}, 0, 1)
        producing.bring(EVENTS)
        with all_ways(tmp_path, broker.bootstrap, topic) as exporters:
            for exporter in exporters.values():
                has_counted(exporter, EVENTS)
            os.kill(broker.pid, signal.SIGSTOP)
            for exporter in exporters.values():
                says_it_is_not_ready(exporter, "")
                assert is_serving(exporter)
            for exporter in exporters.values():
                exporter.process.send_signal(signal.SIGTERM)
            told = time.monotonic()
            for way, exporter in exporters.items():
                assert exporter.process.wait(GRACE_S) == 0, exporter.said()
                print(f"{way}: ended within {time.monotonic() - told:.1f} s")
                assert "Traceback" not in exporter.said()
            os.kill(broker.pid, signal.SIGCONT)
        producing.bring(EVENTS)
        with all_ways(tmp_path, broker.bootstrap, topic) as exporters:
            for way, exporter in exporters.items():
                has_counted(exporter, 2 * EVENTS, again=way.startswith("group"))
                print(f"{way}: {exporter.value('ml_ingest_redelivered_total'):g} came again")


@long
def test_topics_and_partitions_are_read_whole_once_they_are_there(apache_kafka: Apache, tmp_path: Path):
    at = apache_kafka.bootstrap
    there, missing = topics.create(at, 1), f"late-{tmp_path.name}"
    with all_ways(tmp_path, at, there, missing) as exporters:
        streams.Producing(at, {there: 1}, 0, 1).bring(EVENTS)
        for exporter in exporters.values():
            says_it_is_not_ready(exporter, f"no such topic: {missing}")
            has_counted(exporter, EVENTS)
            assert exporter.value("ml_ingest_source_errors_total", reason="topic_missing")
        topics.create(at, 2, name=missing)
        streams.Producing(at, {missing: 2}, 0, 1).bring(EVENTS)
        topics.add_partitions(at, there, 3)
        streams.Producing(at, {there: 3}, 0, 1).bring(EVENTS)
        for exporter in exporters.values():
            has_counted(exporter, 3 * EVENTS)
            eventually(lambda ready=exporter: ready.get("/readyz").status == 200, exporter.said, within_s=30)
            assert exporter.value("ml_ingest_partitions") == 5


@clients
def test_what_cannot_be_read_is_counted_by_its_reason_and_costs_its_neighbours_nothing(
    apache_kafka: Apache, tmp_path: Path, client: str
):
    at = apache_kafka.bootstrap
    topic = topics.create(at, 1, max_message_bytes="6000000")
    good = streams.pool(time.time())[0]
    unknown = [("content-type", b"application/x-unheard-of")]
    broken = [
        Record(bytes(5_000_000)),
        Record(b"\xff\xfe\x00\x01garbage"),
        Record(b'{"model": "half'),
        Record(None, b"a tombstone"),
        Record(good, headers=unknown),
    ]
    topics.produce(at, topic, [Record(good), *(one for bad in broken for one in (bad, Record(good)))])
    source = streams.static(at, [topic], client)
    with run(tmp_path, [streams.MODEL_CONFIG], streams.REFERENCES, sources=[source]) as exporter:
        has_counted(exporter, 11)
        assert sum_of_predictions(exporter) == 6
        rejected = {reason: exporter.value("ml_ingest_rejected_total", reason=reason) for reason in REJECTED}
        assert rejected == dict.fromkeys(REJECTED, 1)
        assert exporter.value("ml_ingest_dropped_total", reason="tombstone") == 1
        eventually(lambda: exporter.get("/readyz").status == 200, exporter.said)
        for reason in REJECTED:
            assert f"event rejected, {reason}: " in exporter.said()


REJECTED = ("too_large", "invalid_utf8", "malformed_json", "unsupported_content_type")


def sum_of_predictions(exporter: Running) -> float:
    versions = (*streams.VERSIONS, "5")
    return sum(
        exporter.value("ml_predictions_total", model=stories.MODEL, version=version) or 0 for version in versions
    )


def has_counted(exporter: Running, events: int, *, again: bool = False) -> None:
    """Wait until so many events are counted once. A group may bring some `again`, and says how many."""

    def reached() -> bool:
        scrape = exporter.get("/metrics").text
        redelivered = value_of(scrape, "ml_ingest_redelivered_total") or 0
        found = (value_of(scrape, "ml_ingest_events_total") or 0) - redelivered
        assert again or not redelivered, f"{redelivered:g} events came again"
        assert found <= events, f"{found:g} events of {events}, and {redelivered:g} again"
        return found == events

    eventually(reached, exporter.said, within_s=45)


def says_it_is_not_ready(exporter: Running, why: str) -> None:
    def said() -> bool:
        ready = exporter.get("/readyz")
        return ready.status == 503 and why in ready.text

    eventually(said, lambda: exporter.get("/readyz").text + exporter.said(), within_s=45)
    eventually(lambda: exporter.value("ml_ingest_ready") == 0, exporter.said)


def is_serving(exporter: Running) -> bool:
    return exporter.get("/metrics").status == 200 and exporter.get("/healthz").status == 200
