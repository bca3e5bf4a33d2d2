"""A running exporter: the real command in its own process, and the few requests that tests make of it."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from exporter.monitor.reference import Reference, encode
from tests.e2e.waiting import eventually

ROOT = Path(__file__).parents[2]

_URL = re.compile(r"http://127\.0\.0\.1:(\d+)/")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass(frozen=True)
class Running:
    """An exporter process that listens."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Answer(
                response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
            )
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def post(self, events: Iterable[Mapping[str, Any] | bytes]) -> dict[str, Any]:
        """Post events, one a line; bytes are posted as they are."""
        lines = [event if isinstance(event, bytes) else json.dumps(event).encode() for event in events]
        answer = self.request("POST", "/v1/events", b"\n".join(lines) + b"\n")
        assert answer.status == 202, answer
        return json.loads(answer.body)

    def value(self, metric: str, **labels: str) -> float | None:
        """Value of the one series with (at least) these labels now; None while there is none."""
        return value_of(self.get("/metrics").text, metric, **labels)

    def terminate(self, within_s: float = 10.0) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s)

    def said(self) -> str:
        return self.log.read_text(errors="replace")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "exporter", *arguments]


@contextmanager
def started(folder: Path, *arguments: str, cwd: Path = ROOT) -> Iterator[Running]:
    """The exporter with these arguments, once it answers. If the test did not end it, it must end well when asked."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "exporter.log"
    environment = {**os.environ, "PYTHONPATH": str(cwd), "PYTHONUNBUFFERED": "1"}
    with (
        log.open("wb") as output,
        subprocess.Popen(command(*arguments), stdout=output, stderr=output, cwd=cwd, env=environment) as process,
    ):

        def port() -> int | None:
            assert process.poll() is None, f"ended with {process.returncode}: {log.read_text()}"
            found = _URL.search(log.read_text())
            return int(found[1]) if found else None

        try:
            running = Running(process, eventually(port, log.read_text), log)
            eventually(lambda: running.get("/healthz").status == 200, running.said)
            yield running
            if process.poll() is None:
                assert running.terminate() == 0, running.said()
                assert "Traceback" not in running.said(), running.said()
        finally:
            process.kill()


@contextmanager
def run(
    folder: Path, models: Sequence[Mapping[str, Any]] = (), references: Sequence[Reference] = (), **config: Any
) -> Iterator[Running]:
    """`run` with a configuration: a quick tick and any free port, unless `config` says otherwise."""
    with started(folder, "run", "--config", str(configured(folder, models, references, **config))) as running:
        yield running


def configured(
    folder: Path, models: Sequence[Mapping[str, Any]] = (), references: Sequence[Reference] = (), **config: Any
) -> Path:
    """The configuration file that `run` uses, beside the references it names."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, reference in enumerate(references):
        (folder / f"reference-{number}.json").write_bytes(encode(reference))
    values = {"listen": "127.0.0.1:0", "tick": "200ms", "models": [dict(model) for model in models], **config}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    return path


def value_of(text: str, metric: str, **labels: str) -> float | None:
    """As `Running.value`, of a scrape: values that are to be of the same moment must be of the same one."""
    found = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == metric and labels.items() <= sample.labels.items()
    ]
    assert len(found) <= 1, f"{len(found)} series of {metric} {labels}"
    return found[0] if found else None


def counters(text: str) -> dict[str, float]:
    """Every series of a model or a source that only ever grows: counters, and what histograms are made of."""
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(text)
        if family.type in ("counter", "histogram") and family.name.startswith("ml_")
        for sample in family.samples
        if not family.name.startswith("ml_exporter_")
    }
