"""The running exporter: scrapes while events come in, what POST takes, how soon it is there, how much memory it takes.

The server has the first core to itself, whatever asks it or feeds it the last one.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from exporter.monitor.reference import Reference
from tests.bench.figures import Figure
from tests.bench.streams import CLIENTS, broker, fill, producing
from tests.bench.workloads import VERSION, W1
from tests.e2e.running import ROOT, Running, run
from tests.e2e.waiting import eventually

SERIES = 10_000
STEADY = 20_000
"""Events a second while memory is looked at."""


def startup_and_memory(*, quick: bool) -> list[Figure]:
    """One model of 25 features: seconds from the command to its first scrape, and memory after traffic."""
    repeats, events = (3, 20_000) if quick else (9, 400_000)
    starts = []
    with folder() as work:
        references = [W1.reference()]
        body = b"\n".join(W1.events(1000))
        for number in range(repeats):
            began = time.monotonic()
            with server(work / str(number), references) as exporter:
                starts.append(time.monotonic() - began)
                if number:
                    continue
                fresh = memory(exporter, "VmRSS")
                for _ in range(events // 1000):
                    assert exporter.request("POST", "/v1/events", body).status == 202
                exporter.get("/metrics")
                exporter.get("/api/v1/models")
                resident, peak = memory(exporter, "VmRSS"), memory(exporter, "VmHWM")
    return [
        Figure(
            "start to first scrape",
            statistics.median(starts),
            "s",
            1.0,
            "at most",
            f"best {min(starts):.2f}, worst {max(starts):.2f} of {repeats}",
        ),
        Figure(
            f"RSS after {events:,} events",
            resident,
            "MiB",
            90,
            "at most",
            f"{fresh:.0f} at start, peak {peak:.0f}; 1,000 events a request",
        ),
    ]


def startup_and_memory_with_kafka(*, quick: bool) -> list[Figure]:
    """The same with Kafka and a state: a backlog, then a steady stream; then started again beside its state."""
    repeats, backlog, seconds = (3, 50_000, 10.0) if quick else (9, 200_000, 60.0)
    figures = []
    with folder() as work, broker() as (bootstrap, kind):
        for client in CLIENTS:
            topic = fill(bootstrap, W1, backlog)
            source = {
                "type": "kafka",
                "bootstrap_servers": [bootstrap],
                "topics": [topic],
                "client": client,
                "partitions": {"member": 0, "of": 1},
            }
            starts: list[float] = []
            for number in range(repeats + 1):
                began = time.monotonic()
                with server(
                    work / client, [W1.reference()], tick="5s", sources=[source], state={"path": "state"}
                ) as exporter:
                    assert exporter.get("/metrics").status == 200
                    starts.append(time.monotonic() - began)
                    if number:
                        continue
                    fresh = memory(exporter, "VmRSS")
                    with producing(bootstrap, topic, seconds, STEADY) as producer:
                        producer.wait()
                    counted(exporter)
                    exporter.get("/api/v1/models")
                    resident, peak = memory(exporter, "VmRSS"), memory(exporter, "VmHWM")
            first, *again = starts
            figures += [
                Figure(
                    f"start to first scrape, {client} and state",
                    statistics.median(again),
                    "s",
                    1.0,
                    "at most",
                    f"best {min(again):.2f}, worst {max(again):.2f} of {repeats}; the very first {first:.2f}",
                ),
                Figure(
                    f"RSS with {client}",
                    resident,
                    "MiB",
                    130,
                    "at most",
                    f"{fresh:.0f} at start, peak {peak:.0f}; {backlog:,} events at once, then {STEADY:,} a second for "
                    f"{seconds:.0f} s; {kind}",
                ),
            ]
    return figures


def posting(*, quick: bool) -> list[Figure]:
    """Events a second that POST /v1/events takes, many and one a request."""
    seconds = 2.0 if quick else 6.0
    figures = []
    with folder() as work, server(work / "server", [W1.reference()], tick="1s") as exporter:
        events = W1.events(100)
        for size, connections, budget in ((100, 8, 200_000), (1, 32, 15_000)):
            body = work / f"{size}.jsonl"
            body.write_bytes(b"\n".join(events[:size]))
            before, cpu_before, began = counted(exporter), cpu_s(exporter), time.monotonic()
            client = feed(exporter, body, connections, seconds)
            client.wait()
            passed, cpu = time.monotonic() - began, cpu_s(exporter) - cpu_before
            total = counted(exporter) - before
            figures.append(
                Figure(
                    f"POST, {size} event{'s' if size > 1 else ''} a request",
                    total / cpu,
                    "events/s",
                    budget,
                    note=f"a CPU second of the server; {total / passed:,.0f} by the clock, {generator()}",
                )
            )
    return figures


def scraping(*, quick: bool) -> list[Figure]:
    """Latency of scrapes at 10,000 series while events come in: not at all, as usual, and as many as can be."""
    seconds = 3.0 if quick else 12.0
    first = W1.reference("model_0")
    figures = []
    with folder() as work:
        models = SERIES // series_of(work / "one", first)
        references = [first, *(W1.reference(f"model_{number}") for number in range(1, models))]
        with server(work / "server", references, tick="1s" if quick else "5s") as exporter:
            names = [(f"model_{number % models}", VERSION) for number in range(1000)]
            for start in range(0, 20_000, 1000):
                events = W1.events(1000, seed=start, names=names)
                assert exporter.request("POST", "/v1/events", b"\n".join(events)).status == 202
            wait_for_tick(exporter)
            series = exporter.value("ml_exporter_series") or 0
            body = work / "events.jsonl"
            body.write_bytes(b"\n".join(W1.events(100, names=[("model_0", VERSION)] * 100)))
            for load, client in (
                ("idle", None),
                ("20,000 events/s", lambda: paced(exporter, body, seconds + 1, 200)),
                ("flat out", lambda: feed(exporter, body, 8, seconds + 1)),
            ):
                before = counted(exporter)
                began = time.monotonic()
                feeding = client() if client else None
                latencies = scrape_for(exporter, seconds)
                if feeding:
                    feeding.wait()
                passed = time.monotonic() - began
                rate = (counted(exporter) - before) / passed
                quantiles = statistics.quantiles(latencies, n=100)
                said = f"p50 {1000 * quantiles[49]:.2f}, longest {1000 * max(latencies):.1f} of {len(latencies)}"
                figures.append(
                    Figure(
                        f"scrape at {series:,.0f} series, {load}: p99",
                        1000 * quantiles[98],
                        "ms",
                        20,
                        "at most",
                        f"{said}; {rate:,.0f} events/s",
                    )
                )
            tick = exporter.value("ml_exporter_tick_duration_seconds") or 0
            size = len(exporter.get("/metrics").body)
            figures.append(
                Figure(
                    f"last tick at {series:,.0f} series",
                    1000 * tick,
                    "ms",
                    note=f"evaluate, render, compress on a worker thread; {size / 2**20:.2f} MiB of text",
                )
            )
    return figures


def scrape_for(exporter: Running, seconds: float) -> list[float]:
    """Seconds of each scrape, as Prometheus does it: kept connection, OpenMetrics, gzip; 40 a second."""
    connection = HTTPConnection("127.0.0.1", exporter.port, timeout=30)
    headers = {"accept": "application/openmetrics-text;version=1.0.0", "accept-encoding": "gzip"}
    latencies = []
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        started = time.perf_counter()
        connection.request("GET", "/metrics", headers=headers)
        response = connection.getresponse()
        assert response.status == 200
        assert len(response.read()) > 1000
        latencies.append(time.perf_counter() - started)
        time.sleep(0.025)
    connection.close()
    return latencies


def feed(exporter: Running, body: Path, connections: int, seconds: float) -> subprocess.Popen[bytes]:
    """Post the body as often as can be, with wrk if it is there."""
    wrk = shutil.which("wrk")
    if wrk is None:
        return paced(exporter, body, seconds, 0, connections)
    script = body.with_suffix(".lua")
    script.write_text(f'wrk.method = "POST"\nwrk.body = io.open("{body}", "rb"):read("*a")\n')
    return subprocess.Popen(
        [wrk, "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "-s", str(script), f"{exporter.url}v1/events"],
        stdout=subprocess.DEVNULL,
    )


def generator() -> str:
    """What `feed` posts with."""
    return "wrk" if shutil.which("wrk") else "our own asyncio client"


def paced(exporter: Running, body: Path, seconds: float, rate: float, connections: int = 4) -> subprocess.Popen[bytes]:
    """Post the body so often a second (0: as often as can be) with our own client."""
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.bench.load",
            f"{exporter.url}v1/events",
            str(body),
            f"--connections={connections}",
            f"--seconds={seconds}",
            f"--rate={rate}",
        ],
        cwd=ROOT,
    )


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@contextmanager
def server(work: Path, references: list[Reference], tick: str = "5s", **config: Any) -> Iterator[Running]:
    """An exporter of these models on the first core, this process and its children on the last."""
    cores = sorted(os.sched_getaffinity(0))
    models = [
        {"name": one.model, "version": one.version, "references": [f"reference-{number}.json"]}
        for number, one in enumerate(references)
    ]
    os.sched_setaffinity(0, {cores[0]})
    try:
        with run(work, models, references, tick=tick, **config) as exporter:
            os.sched_setaffinity(0, {cores[-1]})
            yield exporter
    finally:
        os.sched_setaffinity(0, cores)


def series_of(work: Path, reference: Reference) -> int:
    """Series of one model that has data."""
    with server(work, [reference], tick="1s") as exporter:
        exporter.post(W1.events(1000, names=[(reference.model, VERSION)] * 1000))
        wait_for_tick(exporter)
        return int(exporter.value("ml_exporter_series") or 0)


def wait_for_tick(exporter: Running) -> None:
    """Until a snapshot is served that was taken after now."""
    now = time.time()
    eventually(lambda: json.loads(exporter.get("/api/v1/models").body)["now"] > now, "a tick", within_s=30)


def counted(exporter: Running) -> float:
    """Predictions of all models, ticked."""
    wait_for_tick(exporter)
    text = exporter.get("/metrics").text
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith("ml_predictions_total{"))


def memory(exporter: Running, name: str) -> float:
    """MiB, as the kernel has it."""
    status = Path(f"/proc/{exporter.process.pid}/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) / 1024


def cpu_s(exporter: Running) -> float:
    """CPU seconds of the server so far."""
    fields = Path(f"/proc/{exporter.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
