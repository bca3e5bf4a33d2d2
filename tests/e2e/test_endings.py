"""However and whenever it is told to end: with 0, with nothing lost, and without a word that frightens."""

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.brokers import topics
from tests.brokers.apache import Apache
from tests.e2e import stories, streams
from tests.e2e.lengthy import clients, long
from tests.e2e.running import ROOT, Running, command, configured, counters, run
from tests.e2e.test_followed_file import append, lines
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

GRACE_S = 15.0
BACKLOG, STOPS = 100_000, 2
MODES = {"static": {"partitions": {"member": 0, "of": 1}}, "group": {}}


@pytest.mark.parametrize("moment", ["_multiarray_umath", "_ufuncs"])
def test_it_can_be_told_to_end_while_it_starts(tmp_path: Path, moment: str):
    config = configured(tmp_path, [stories.MODEL_CONFIG], [stories.reference()])
    with subprocess.Popen(
        command("run", "--config", str(config)), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        loaded = Path(f"/proc/{process.pid}/maps")
        deadline = time.monotonic() + 10
        while moment not in loaded.read_text():
            assert time.monotonic() < deadline, "numpy and scipy are loaded"
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=GRACE_S)
    assert process.returncode == 0, said
    assert "Traceback" not in said


def test_a_request_that_is_half_sent_at_the_end_is_answered_and_not_complained_of(tmp_path: Path):
    with run(tmp_path) as exporter, socket.create_connection(("127.0.0.1", exporter.port)) as client:
        client.sendall(b"POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{")
        assert exporter.terminate(GRACE_S) == 0
        assert client.recv(1000).startswith(b"HTTP/1.1 503 ")
        assert "Traceback" not in exporter.said()


@long
@clients
@pytest.mark.parametrize("mode", MODES)
def test_told_to_end_at_full_speed_it_commits_what_it_has_counted_and_goes_on_there(
    apache_kafka: Apache, tmp_path: Path, client: str, mode: str
):
    at = apache_kafka.bootstrap
    topic = topics.create(at, 6)
    producing = streams.Producing(at, {topic: 6}, 0, 1)
    source = streams.kafka(at, [topic], client, group_id=topic, **MODES[mode])
    told = {"models": [streams.MODEL_CONFIG], "references": streams.REFERENCES, "sources": [source], "tick": "50ms"}
    with_state = {**told, "state": {"path": "state"}}
    counted, brought, in_the_middle = 0, 0, 0
    while in_the_middle < STOPS:
        assert brought < STOPS * 3 * BACKLOG, "it was hardly ever told in the middle"
        producing.bring(BACKLOG)
        brought += BACKLOG
        with run(tmp_path / "exporter", **with_state) as exporter:
            more_events_than(counted, exporter)
            assert exporter.terminate(GRACE_S) == 0, exporter.said()
            assert "Traceback" not in exporter.said()
        counted = sum(topics.committed(at, topic).values())
        in_the_middle += counted < brought
    shutil.copytree(tmp_path / "exporter", tmp_path / "copy")
    with run(tmp_path / "copy", **{**with_state, "sources": [{"type": "http"}]}) as reading_nothing_else:
        assert reading_nothing_else.value("ml_ingest_events_total", source="kafka") == counted
    with run(tmp_path / "exporter", **with_state) as exporter:
        more_events_than(brought - 1, exporter)
        found = counters(exporter.get("/metrics").text)
    told["sources"] = [streams.static(at, [topic], client)]
    with run(tmp_path / "whole", **told) as exporter:
        more_events_than(brought - 1, exporter)
        assert counters(exporter.get("/metrics").text) == found


def test_no_line_of_a_followed_file_counts_twice_or_never_though_the_reader_is_killed(tmp_path: Path):
    source = {"type": "file", "path": "events.jsonl", "follow": True}
    told = {"sources": [source], "state": {"path": "state"}, "tick": "50ms"}
    path = tmp_path / "events.jsonl"
    total = 0
    for number in range(3):
        append(path, lines(700, seed=number))
        with run(tmp_path, [stories.MODEL_CONFIG], [stories.reference()], **told) as exporter:
            more_events_than(total, exporter)
            append(path, lines(300, seed=number + 100))
            exporter.process.kill()
            exporter.process.wait()
        total += 1000
    append(path, lines(50, seed=7))
    with run(tmp_path, [stories.MODEL_CONFIG], [stories.reference()], **told) as exporter:
        more_events_than(total + 49, exporter)
        assert events(exporter) == total + 50
        assert exporter.value("ml_predictions_total", model=stories.MODEL) == total + 50


def events(exporter: Running) -> float:
    return exporter.value("ml_ingest_events_total") or 0


def more_events_than(count: float, exporter: Running) -> None:
    eventually(lambda: events(exporter) > count, exporter.said, within_s=30)
