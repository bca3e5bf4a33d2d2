"""A day of backlog, read as fast as can be: the windows are those of a stream that was read as it came."""

import json
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporter.ingest.native import NativeCodec
from exporter.ingest.source import Messages
from exporter.monitor.fleet import Fleet
from exporter.monitor.panes import sliding_window
from exporter.monitor.settings import ModelSettings
from exporter.monitor.snapshot import Snapshot
from tests.brokers import topics
from tests.brokers.apache import Apache
from tests.brokers.topics import Record
from tests.builders import as_text
from tests.e2e import stories, streams
from tests.e2e.lengthy import clients, long
from tests.e2e.running import Running, run
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

DAY_S = 86_400.0
SIZES = (1_500, 3_000, 9_000, 20_000, 40_000, 80_000)
"""Events by partition, each spread over the day."""

WINDOW = ("ml_feature_psi", "ml_feature_window_samples", "ml_feature_ks", "ml_feature_drifted", "ml_features_drifted")


class Event(NamedTuple):
    time: float
    partition: int
    value: bytes


@long
@clients
@pytest.mark.parametrize("interrupted", [False, True], ids=["at once", "interrupted"])
def test_windows_after_a_day_of_backlog_are_those_of_a_stream_read_as_it_came(
    apache_kafka: Apache, tmp_path: Path, client: str, interrupted: bool
):
    events = sorted(a_day_of(time.time() - 5))
    at = apache_kafka.bootstrap
    topic = topics.create(at, len(SIZES))
    topics.produce(
        at, topic, (Record(one.value, timestamp_ms=int(one.time * 1000), partition=one.partition) for one in events)
    )
    told = {
        "sources": [streams.static(at, [topic], client)],
        "state": {"path": "state"},
        "models": [streams.MODEL_CONFIG],
        "references": streams.REFERENCES,
        "tick": "100ms",
    }
    states: set[str] = set()
    if interrupted:
        with run(tmp_path, **told) as exporter:
            eventually(lambda: counted(exporter, states) > len(events) / 4, exporter.said, within_s=30)
            exporter.process.kill()
            exporter.process.wait()
    with run(tmp_path, **told) as exporter:
        eventually(lambda: counted(exporter, states) == len(events), exporter.said, within_s=45)
        text = exporter.get("/metrics").text
    late = {reason: value(text, "ml_ingest_late_total", reason=reason) for reason in ("late", "behind", "future")}
    assert late == dict.fromkeys(late, 0)
    assert "catching_up" in states
    windows = window_of(text)
    assert windows == window_of(exposition(in_order(events)))
    assert {name.partition("[")[0] for name in windows} == set(WINDOW)
    assert value(text, "ml_feature_window_samples", version=stories.VERSION, feature="age") > 1000


def a_day_of(end: float) -> Iterator[Event]:
    """What a model brings whose input drifts, an hour at a time; every partition ends with the day."""
    rng = random.Random(1)
    pool = list(stories.predictions(500, inputs=streams.INPUTS, version=None))
    for partition, size in enumerate(SIZES):
        for number in range(size):
            moment = round(end - DAY_S * (1 - (number + 1) / size), 3)
            event = rng.choice(pool)
            shifted = {**event["features"], "age": event["features"]["age"] + (end - moment) // 3600 / 4}
            whole = {**event, "version": rng.choice(streams.VERSIONS), "features": shifted}
            yield Event(moment, partition, json.dumps(whole).encode())


def in_order(events: Sequence[Event]) -> Snapshot:
    """The same events, each counted when it came."""
    settings = ModelSettings(stories.MODEL, version=stories.VERSION, window=sliding_window(3600, "1h"), min_samples=200)
    fleet = Fleet([settings], {stories.MODEL: streams.REFERENCES})
    codec = NativeCodec(fleet, "kafka", event_time=True)
    for start in range(0, len(events), 200):
        some = events[start : start + 200]
        for partition in range(len(SIZES)):
            ours = [one for one in some if one.partition == partition]
            if ours:
                times = [one.time for one in ours]
                fleet.observe(codec.decode(Messages(str(partition), [one.value for one in ours], times)), times[-1])
    return fleet.tick(events[-1].time)


def exposition(snapshot: Snapshot) -> str:
    samples, _ = snapshot.exposed
    return "".join(f"{series} {number}\n" for series, number in as_text(samples).items())


def window_of(text: str) -> dict[str, float]:
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in WINDOW
    }


def counted(exporter: Running, states: set[str]) -> float:
    """How many events are counted; takes note of the states of the model's features."""
    text = exporter.get("/metrics").text
    states |= {
        sample.labels["state"]
        for family in text_string_to_metric_families(text)
        if family.name == "ml_feature_state"
        for sample in family.samples
    }
    return value(text, "ml_ingest_events_total")


def value(text: str, metric: str, **labels: str) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == metric and labels.items() <= sample.labels.items()
    )
