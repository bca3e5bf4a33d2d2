"""Labels in topics of their own: how members of a group share them out."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.brokers import topics
from tests.brokers.apache import Apache
from tests.e2e import labelled, streams
from tests.e2e.lengthy import long
from tests.e2e.running import Running, counters, run
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

PARTITIONS = 4
EVENTS, FIRST, PER_S = 20_000, 300, 2000
TOLD = {"models": [labelled.MODEL_CONFIG], "references": labelled.REFERENCES}

SHARED = ("ml_labels_matured", "ml_labels_joined", "ml_labels_duplicate", "ml_labels_corrected", "ml_labels_late")
"""What is counted where the prediction is. Each member is told all labels, and finds nothing for those of others."""


@long
def test_predictions_of_two_members_are_joined_once_each_with_labels_that_both_read(
    apache_kafka: Apache, tmp_path: Path
):
    at = apache_kafka.bootstrap
    predictions, labels = topics.create(at, PARTITIONS), topics.create(at, 2)
    told = {"client": "confluent", "label_topics": [labels]}
    grouped = streams.kafka(at, [predictions], **told, group_id=predictions)
    stream = labelled.Stream({predictions: PARTITIONS}, {labels: 2}, PER_S, passed_s=EVENTS / PER_S)
    producing = streams.Producing(at, stream, EVENTS, PER_S)
    with ExitStack() as stack:
        members = [stack.enter_context(run(tmp_path / name, sources=[grouped], **TOLD)) for name in ("a", "b")]
        eventually(lambda: sorted(map(len, topics.members(at, predictions))) == [2, 2], "shared out", within_s=30)
        producing.bring(FIRST)
        # From then on every partition says how far it is.
        eventually(lambda: read(at, predictions, members, "kafka") == 1, "the first predictions")
        eventually(lambda: read(at, labels, members, "kafka-labels") == len(members), "the first labels")
        producing.bring(EVENTS - FIRST)
        producing.add(stream.ending())
        both = settled(members)
        assert read(at, labels, members, "kafka-labels") == len(members)
        for member in members:
            assert member.value("ml_labels_matured_total", version=streams.VERSIONS[0]), "each has its part"
    with run(tmp_path / "whole", sources=[streams.static(at, [predictions], **told)], **TOLD) as exporter:
        whole = settled([exporter])
    assert both == pytest.approx(whole, rel=1e-12)  # sums of numbers are exact in each, not where they are added here
    for name in SHARED:
        assert any(value for one, value in whole.items() if one.startswith(name)), name


def test_topics_that_are_to_be_keyed_alike_are_read_once_they_have_equally_many_partitions(
    apache_kafka: Apache, tmp_path: Path
):
    at = apache_kafka.bootstrap
    predictions, labels = topics.create(at, 2), topics.create(at, 1)
    source = streams.kafka(
        at, [predictions], "kafka-python", label_topics=[labels], label_join="copartitioned", group_id=predictions
    )
    streams.Producing(at, {predictions: 2, labels: 1}, 0, 1).bring(300)
    with run(tmp_path, sources=[source], **TOLD) as exporter:
        said = f"{predictions} has 2, {labels} has 1; use label_join: broadcast"
        eventually(lambda: said in exporter.get("/readyz").text, lambda: exporter.get("/readyz").text)
        assert exporter.get("/readyz").status == 503
        eventually(lambda: exporter.value("ml_ingest_source_errors_total", reason="partition_counts"), exporter.said)
        assert not exporter.value("ml_ingest_events_total")
        topics.add_partitions(at, labels, 2)
        eventually(lambda: exporter.get("/readyz").status == 200, exporter.said, within_s=20)
        eventually(lambda: exporter.value("ml_ingest_events_total") == 300, exporter.said, within_s=20)


def read(at: str, topic: str, members: Sequence[Running], source: str) -> float:
    """How many times as much as there is of a topic members have read together."""
    events = sum(member.value("ml_ingest_events_total", source=source) or 0 for member in members)
    return events / sum(topics.end_offsets(at, topic).values())


def settled(members: Sequence[Running]) -> dict[str, float]:
    """What members count together of predictions, once only those that end the stream wait."""

    def pending() -> float:
        return sum(member.value("ml_labels_pending") or 0 for member in members)

    eventually(lambda: pending() == PARTITIONS, lambda: f"{pending()} wait", within_s=30)
    found = dict[str, float]()
    for member in members:
        for name, value in counters(member.get("/metrics").text).items():
            if name.startswith((*SHARED, "ml_label_delay", "ml_score_bin", "ml_predictions_total")):
                found[name] = found.get(name, 0) + value
    return found
