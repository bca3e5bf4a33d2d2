"""`python -m tests.bench.soak`: the exporter for minutes under a steady stream from Apache Kafka.

What only time shows: memory that grows, reading that falls behind, a state that swells, an event in ten thousand that
is lost, a scrape that waits. Exit code 1 if something of it is seen.

The window is short (a minute), so that after the first two everything has been filled, moved and thrown away.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from subprocess import Popen
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.bench.figures import CORES, MEASURED, OTHERS, Figure, on, show
from tests.bench.serving import cpu_s, memory
from tests.bench.streams import CLIENTS, PARTITIONS, broker, producing
from tests.bench.workloads import VERSION, W1
from tests.brokers import topics
from tests.e2e.running import Running, run
from tests.e2e.waiting import eventually

TICK_S = 5
SETTLED_S = 120.0
"""After this everything has its size; of a shorter run two fifths."""
SAID_EVERY_S = 10
KEPT_BYTES = 256 * 2**20
"""What the topic may hold of a partition: at 50,000 events a second half a minute, six times over."""


@dataclass(frozen=True)
class Look:
    """What was seen at one moment. `behind` is in events: sent, but not yet to be seen in the metrics.

    `waited_s` is how long of the scrape an end was ready to run and had no core: others had it, or its own threads.
    """

    second: float
    rss_mib: float
    behind: int
    counted: int
    scrape_s: float
    waited_s: float
    state_bytes: int
    cpu_s: float


@dataclass
class Account:
    """What the producer says that it has sent, by kind."""

    process: Popen[str]
    last: dict[str, Any] = field(default_factory=dict)

    def follow(self) -> None:
        """Read what it says, until its end."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.last = json.loads(line)

    def sent(self, *kinds: str) -> int:
        return sum(self.last.get(kind, 0) for kind in kinds or ("counted", "canary", "late", "unreadable"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=int, default=50_000, help="events a second")
    parser.add_argument("--client", choices=CLIENTS, default=CLIENTS[0])
    given = parser.parse_args()
    seconds = 60 * given.minutes
    with on(OTHERS), TemporaryDirectory() as name, broker() as (bootstrap, kind):
        print(f"{kind}, {PARTITIONS} partitions, {given.client}, {given.rate:,} events/s, {len(CORES)} cores\n")
        topic = topics.create(
            bootstrap, PARTITIONS, retention_bytes=str(KEPT_BYTES), segment_bytes=str(KEPT_BYTES // 8)
        )
        source = {"type": "kafka", "bootstrap_servers": [bootstrap], "topics": [topic], "client": given.client}
        with exporter(Path(name), source) as running, producing(bootstrap, topic, seconds, given.rate) as process:
            account = Account(process)
            following = Thread(target=account.follow)
            following.start()
            looks = watch(running, account)
            following.join()
            assert account.last["ended"], "the producer has failed"
            assert not account.last.get("refused"), account.last
            figures = [*judged(looks, given.rate), *complete(running, account)]
    show(f"\nAfter {given.minutes:g} minutes", figures)
    sys.exit(any(figure.met is False for figure in figures))


@contextmanager
def exporter(work: Path, source: dict[str, Any]) -> Iterator[Running]:
    """The exporter of one model and its canary, on a core of its own, with a state."""
    model = {"name": W1.model, "version": VERSION, "references": ["reference-0.json"], "window": "1m"}
    sources = [{**source, "partitions": {"member": 0, "of": 1}}]
    with ExitStack() as ends:
        with on(MEASURED):
            running = ends.enter_context(
                run(work, [model], [W1.reference()], tick=f"{TICK_S}s", sources=sources, state={"path": "state"})
            )
        yield running


def watch(running: Running, account: Account) -> list[Look]:
    """Look each second while the producer produces, and say every ten what there was."""
    connection = HTTPConnection("127.0.0.1", running.port, timeout=30)
    began = time.monotonic()
    looks: list[Look] = []
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)  # whatever else runs on this core, it is scraped when it is time
    print("second  RSS MiB   behind  events/s  scrape ms   longest  state MiB  core %")
    while account.process.poll() is None:
        time.sleep(max(0.0, began + len(looks) + 1 - time.monotonic()))
        looks.append(look(running, connection, account, time.monotonic() - began))
        if len(looks) % SAID_EVERY_S == 0:
            say(looks[-SAID_EVERY_S - 1 :])
    connection.close()
    return looks


def look(running: Running, connection: HTTPConnection, account: Account, second: float) -> Look:
    """Scrape once, as Prometheus does, and look at the process."""
    sent = account.sent()
    waited, asked = waited_s(running), time.perf_counter()
    connection.request("GET", "/metrics", headers={"accept": "text/plain"})
    response = connection.getresponse()
    text = response.read().decode()
    took = time.perf_counter() - asked
    waited = min(waited_s(running) - waited, took)  # both ends may have waited at once
    assert response.status == 200
    counted = int(value_of(text, "ml_ingest_events_total"))
    size = int(value_of(text, "ml_exporter_state_size_bytes"))
    behind = max(sent - counted, 0)
    return Look(second, memory(running, "VmRSS"), behind, counted, took, waited, size, cpu_s(running))


def waited_s(running: Running) -> float:
    """Seconds that the exporter's event loop and this process were ready to run, and did not."""
    paths = (Path(f"/proc/{number}/schedstat") for number in (running.process.pid, os.getpid()))
    return sum(int(path.read_text().split()[1]) for path in paths if path.exists()) / 1e9


def value_of(text: str, metric: str) -> float:
    """The value of the first series of a metric."""
    found = (line for line in text.splitlines() if line.startswith((f"{metric} ", f"{metric}{{")))
    return float(next(found, "0").rpartition(" ")[2])


def say(looks: Sequence[Look]) -> None:
    """A line about the last seconds."""
    first, last = looks[0], looks[-1]
    passed = last.second - first.second or 1.0
    rate, cores = (last.counted - first.counted) / passed, (last.cpu_s - first.cpu_s) / passed
    scrapes = [1000 * one.scrape_s for one in looks]
    print(
        f"{last.second:6.0f}  {last.rss_mib:7.1f}  {last.behind:7,}  {rate:8,.0f}  "
        f"{statistics.median(scrapes):9.2f} {max(scrapes):9.2f}  {last.state_bytes / 2**20:9.2f}  {100 * cores:6.1f}",
        flush=True,
    )


def judged(looks: Sequence[Look], rate: int) -> list[Figure]:
    """What must not grow, and what must not wait."""
    end = looks[-1].second
    settled = min(SETTLED_S, 0.4 * end)
    after = [one for one in looks if one.second >= settled]
    quarter = max(len(after) // 4, 1)
    early, late = after[:quarter], after[-quarter:]

    def growth(value: Callable[[Look], float]) -> float:
        return statistics.median(map(value, late)) - statistics.median(map(value, early))

    scrapes = sorted(one.scrape_s for one in looks)
    longest = max(looks, key=lambda one: one.scrape_s)
    cores = (looks[-1].cpu_s - looks[0].cpu_s) / (looks[-1].second - looks[0].second)
    since = f"after the first {settled:.0f} s, median of the last quarter less that of the first"
    return [
        Figure("core used", 100 * cores, "%", note=f"{rate / cores:,.0f} events/s/core at this rate, all included"),
        Figure("RSS growth", growth(lambda one: one.rss_mib), "MiB", 5, "at most", since),
        Figure("RSS, most", max(one.rss_mib for one in looks), "MiB", note="a model and its canary, every pane filled"),
        Figure("events behind, growth", growth(lambda one: one.behind), "events", rate, "at most", since),
        Figure(
            "events behind, most",
            max(one.behind for one in after),
            "events",
            (2 * TICK_S + 2) * rate,
            "at most",
            f"what two ticks and two seconds bring; median {statistics.median(one.behind for one in after):,.0f}",
        ),
        Figure(
            "scrape: p99",
            1000 * scrapes[int(0.99 * len(scrapes))],
            "ms",
            20,
            "at most",
            f"p50 {1000 * statistics.median(scrapes):.2f}, longest {1000 * longest.scrape_s:.1f} of {len(scrapes)}, "
            f"for {1000 * longest.waited_s:.1f} of which there was no core",
        ),
        Figure(
            "state, most after / most before",
            max(one.state_bytes for one in after) / max(1, *(one.state_bytes for one in looks if one not in after)),
            "",
            1.25,
            "at most",
            f"{looks[-1].state_bytes / 2**20:.2f} MiB at the end",
        ),
    ]


def complete(running: Running, account: Account) -> list[Figure]:
    """What was sent and what was counted, by kind."""
    total = account.sent()
    eventually(
        lambda: value_of(running.get("/metrics").text, "ml_ingest_events_total") >= total,
        lambda: f"{total:,} sent; {running.get('/metrics').text}",
        within_s=60,
    )
    found: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(running.get("/metrics").text):
        for sample in family.samples:
            label = sample.labels.get("version", sample.labels.get("reason", ""))
            found[sample.name, label] = found.get((sample.name, label), 0) + sample.value

    def counted(metric: str, *labels: str) -> float:
        return sum(
            value for (name, label), value in found.items() if name == metric and (not labels or label in labels)
        )

    pairs = {
        "events": (total, counted("ml_ingest_events_total")),
        "predictions": (account.sent("counted", "canary", "late"), counted("ml_predictions_total")),
        "predictions of the canary": (account.sent("canary"), counted("ml_predictions_total", "4")),
        "late": (account.sent("late"), counted("ml_ingest_late_total")),
        "rejected": (account.sent("unreadable"), counted("ml_ingest_rejected_total")),
        "dropped": (0, counted("ml_ingest_dropped_total")),
    }
    return [
        Figure(f"{name}: sent, not counted", abs(sent - seen), "", 0, "at most", f"{sent:,} sent, {seen:,.0f} counted")
        for name, (sent, seen) in pairs.items()
    ]


if __name__ == "__main__":
    main()
