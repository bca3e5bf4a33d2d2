"""Kafka for benchmarks: a broker away from the core that is measured, topics filled ahead, and a steady producer."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench.figures import OTHERS, on
from tests.bench.workloads import Workload
from tests.brokers import apache, jars, tansu, topics
from tests.brokers.topics import Record
from tests.e2e.running import ROOT

CLIENTS = ("confluent", "kafka-python")
PARTITIONS = 6
GENERATED = 20_000
"""Different events; a topic repeats them."""
BATCH = 500
"""Events of a partition in a row, as batches of producers are."""


@contextmanager
def broker() -> Iterator[tuple[str, str]]:
    """Where a broker listens, and which it is: Apache Kafka, or the small one where Java or Maven is missing."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as running:
        with on(OTHERS):
            if shutil.which("java") and shutil.which("mvn"):
                yielded = running.enter_context(apache.running(Path(name))).bootstrap, f"Apache Kafka {jars.VERSION}"
            else:
                yielded = running.enter_context(tansu.running(Path(name))).bootstrap, "tansu"
        yield yielded


def fill(bootstrap: str, workload: Workload, events: int) -> str:
    """A new topic of so many events, in all its partitions alike."""
    topic = topics.create(bootstrap, PARTITIONS)
    generated = workload.events(min(events, GENERATED))
    records = (
        Record(generated[number % len(generated)], partition=number // BATCH % PARTITIONS) for number in range(events)
    )
    topics.produce(bootstrap, topic, records, "lz4")
    return topic


@contextmanager
def producing(bootstrap: str, topic: str, seconds: float, rate: float) -> Iterator[subprocess.Popen[str]]:
    """A producer in a process of its own, which says on stdout what it has sent (tests.bench.producer)."""
    options = [f"--partitions={PARTITIONS}", f"--seconds={seconds}", f"--rate={rate}"]
    command = [sys.executable, "-m", "tests.bench.producer", bootstrap, topic, *options]
    with on(OTHERS):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
