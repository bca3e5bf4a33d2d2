"""A reference that is learned from the stream: a kill costs no progress, and does not change what is learned."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import topics
from tests.brokers.apache import Apache
from tests.brokers.topics import Record
from tests.e2e import stories, streams
from tests.e2e.lengthy import clients, long
from tests.e2e.running import Running, counters, run
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

ROWS = 20_000
KILLED_AFTER = (7_000, 19_999, 23_000)
"""Twice while it learns, once after."""
TOTAL = 30_000
PER_FEATURE = ("ml_feature_", "ml_multivariate_")
"""What is counted against the reference."""


@long
@clients
def test_what_is_learned_and_how_far_learning_is_survive_a_kill(apache_kafka: Apache, tmp_path: Path, client: str):
    at = apache_kafka.bootstrap
    topic = topics.create(at)  # what comes first of several partitions is nobody's promise
    told: dict[str, Any] = {
        "models": [{"name": stories.MODEL, "version": stories.VERSION, "learn": ROWS}],
        "sources": [streams.static(at, [topic], client)],
    }
    coming = stories.predictions(TOTAL, inputs=streams.INPUTS)
    brought = 0
    learned: list[str] = []
    for until in KILLED_AFTER:
        bring(at, topic, (next(coming) for _ in range(until - brought)))
        with run(tmp_path / "killed", **told, state={"path": "state"}) as exporter:
            assert progress(exporter) == (brought if brought < ROWS else None)
            counted(exporter, until)
            assert progress(exporter) == (until if until < ROWS else None)
            learned += references(exporter)
            exporter.process.kill()
            exporter.process.wait()
        brought = until
    bring(at, topic, coming)
    with run(tmp_path / "killed", **told, state={"path": "state"}) as exporter:
        assert references(exporter) == learned
        counted(exporter, TOTAL)
        after_kills = counters(exporter.get("/metrics").text)
    with run(tmp_path / "whole", **told) as exporter:
        counted(exporter, TOTAL)
        eventually(lambda: references(exporter), exporter.said)
        assert references(exporter) == learned
        uninterrupted = counters(exporter.get("/metrics").text)
    assert len(learned) == 1
    # From which event on bins are counted depends on the tick that completes the reference.
    without_bins = {name: value for name, value in uninterrupted.items() if not name.startswith(PER_FEATURE)}
    assert {name: after_kills.get(name) for name in without_bins} == without_bins


def bring(at: str, topic: str, events: Iterable[dict[str, Any]]) -> None:
    topics.produce(at, topic, (Record(json.dumps(event).encode(), partition=0) for event in events), "lz4")


def counted(exporter: Running, events: int) -> None:
    eventually(lambda: exporter.value("ml_ingest_events_total") == events, exporter.said, within_s=30)


def status(exporter: Running) -> dict[str, Any]:
    (model,) = json.loads(exporter.get("/api/v1/models").body)["models"]
    return model


def progress(exporter: Running) -> int | None:
    """Events that were learned from, while it learns."""
    learning = status(exporter)["learning"]
    return None if learning is None else learning["seen"]


def references(exporter: Running) -> list[str]:
    reference = status(exporter)["reference"]
    return [] if reference is None else [reference["id"]]
