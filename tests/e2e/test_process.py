"""The process itself: where it listens, how it ends, and what it says when it cannot start."""

import json
import signal
import socket
import subprocess
import time
from http.client import HTTPConnection

import pytest

from tests.e2e import stories
from tests.e2e.running import ROOT, command, run, started
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_zero_though_a_client_keeps_its_connection(tmp_path, number):
    with run(tmp_path, [stories.MODEL_CONFIG], [stories.reference()]) as exporter:
        client = HTTPConnection("127.0.0.1", exporter.port, timeout=10)
        client.request("GET", "/metrics")
        assert client.getresponse().read()
        exporter.process.send_signal(number)
        assert exporter.process.wait(4) == 0, exporter.said()
        client.close()


def test_events_accepted_before_the_signal_are_answered(tmp_path):
    with run(tmp_path, [stories.MODEL_CONFIG], [stories.reference()]) as exporter:
        eventually(lambda: exporter.get("/readyz").status == 200, "ready")
        lines = b"\n".join(json.dumps(event).encode() for event in stories.predictions(5000))
        client = HTTPConnection("127.0.0.1", exporter.port, timeout=10)
        client.request("POST", "/v1/events", lines)
        exporter.process.send_signal(signal.SIGTERM)
        response = client.getresponse()
        answer = json.loads(response.read())
        client.close()
        # Either the signal came first, and nothing was accepted, or everything was.
        assert (response.status, answer["accepted"]) in ((202, 5000), (503, 0)), answer
        assert exporter.process.wait(8) == 0, exporter.said()


def test_a_label_that_is_posted_joins_a_prediction_that_was_posted_before(tmp_path):
    model = stories.MODEL_CONFIG | {"window": "1m", "labels": {"maturity": "10s"}}
    now = time.time()
    first, last = stories.predictions(2)
    label = {"model": stories.MODEL, "id": first["id"], "timestamp": now - 26, "label": "yes"}
    source = {"type": "http", "time": "event"}
    with run(tmp_path, [model], [stories.reference(right=0.9)], sources=[source]) as exporter:
        exporter.post([first | {"timestamp": now - 30}])
        exporter.post([label])
        eventually(lambda: exporter.value("ml_labels_received_total") == 1, "the label")
        assert exporter.value("ml_labels_pending") == 1
        assert exporter.value("ml_labels_matured_total") == 0
        exporter.post([last | {"timestamp": now}, label | {"id": "another", "timestamp": now}])
        eventually(lambda: exporter.value("ml_labels_matured_total") == 1, exporter.said)
        told = {"predicted": first["prediction"], "actual": "yes"}
        assert exporter.value("ml_labels_joined_total", **told) == 1
        assert exporter.value("ml_label_delay_seconds_sum") == 4
        assert exporter.value("ml_labels_pending") == 1, "the second prediction waits"


def test_a_port_in_use_is_one_line_and_exit_code_3(tmp_path):
    config = tmp_path / "config.yaml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config.write_text(f"listen: 127.0.0.1:{port}\n")
        ended = subprocess.run(
            command("run", "--config", str(config)), cwd=ROOT, capture_output=True, text=True, timeout=20, check=False
        )
    assert ended.returncode == 3
    assert ended.stdout == ""
    assert ended.stderr.splitlines() == [f"error: listen 127.0.0.1:{port}: Address already in use"]


def test_the_demo_takes_another_port_when_its_own_is_in_use(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with started(tmp_path, "demo", "--listen", f"127.0.0.1:{port}") as exporter:
            assert exporter.port != port
            assert f"page     {exporter.url}\n" in exporter.said()


def test_health_and_readiness_are_told_apart(tmp_path):
    source = {"type": "file", "path": "events.jsonl", "follow": True}
    with run(tmp_path, sources=[source]) as exporter:
        assert exporter.get("/healthz").status == 200
        waiting = exporter.get("/readyz")
        assert waiting.status == 503
        assert "events.jsonl" in waiting.text
        (tmp_path / "events.jsonl").touch()
        eventually(lambda: exporter.get("/readyz").status == 200, "ready once the file is there")
