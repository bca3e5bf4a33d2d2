"""A stream of W1 events into a Kafka topic, at a steady rate: `python -m tests.bench.producer BOOTSTRAP TOPIC ...`.

Events are made ahead but for their times, which are those at which they are sent. Some are what a real stream has too:
late, of another version, unreadable. Once a second, and at the end, it prints what the broker has taken so far: JSON,
one object a line.
"""

import argparse
import json
import signal
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from tests.bench.workloads import VERSION, W1, rfc3339

SLICES_A_SECOND = 50
GENERATED = 20_000
CANARY = "4"
LATE_S = 600.0
"""How old late events are; far beyond what a partition of the soak waits for."""
HARMLESS_S = 10.0
"""Nothing is late before a partition has brought something that is not."""
UNREADABLE = b'{"model": "bench_w1", "version": 3, "features": {"n00": 1.0'


@dataclass(frozen=True)
class Event:
    """An event around its time."""

    kind: str
    before: bytes
    after: bytes

    def at(self, time_text: bytes) -> bytes:
        return self.before + time_text + self.after


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("bootstrap")
    arguments.add_argument("topic")
    arguments.add_argument("--partitions", type=int, default=6)
    arguments.add_argument("--seconds", type=float, default=60.0)
    arguments.add_argument("--rate", type=float, default=50_000.0, help="Events a second; 0 for as many as can be.")
    given = arguments.parse_args()
    stream = Stream(given.bootstrap, given.topic, given.partitions)
    signal.signal(signal.SIGTERM, lambda *_: stream.stop())
    stream.send(given.seconds, given.rate)


class Stream:
    """The producer, and an account of what it has sent."""

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        self._events = events()
        self._topic, self._partitions = topic, partitions
        self._sent: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._place = self._slices = 0
        self._stopped = False
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "log_level": 0,
                "compression.type": "lz4",
                "linger.ms": 20,
                "enable.idempotence": True,
                "queue.buffering.max.messages": 1_000_000,
                "delivery.report.only.error": True,
                "on_delivery": self._failed,
            }
        )

    def stop(self) -> None:
        self._stopped = True

    def send(self, seconds: float, rate: float) -> None:
        """Send so many a second, in slices; a slice that comes too late is sent all the same."""
        began = said = time.monotonic()
        sent = 0
        while not self._stopped and time.monotonic() < began + seconds:
            self._slices += 1
            due = int(rate * self._slices / SLICES_A_SECOND) if rate else sent + 1000
            self._slice(due - sent, lates=time.monotonic() > began + HARMLESS_S)
            sent = due
            if time.monotonic() > said + 1:
                said = time.monotonic()
                self._say(ended=False)
            self._producer.poll(0)
            if rate:
                time.sleep(max(0.0, began + self._slices / SLICES_A_SECOND - time.monotonic()))
        waiting = self._producer.flush(30)
        assert not waiting, f"{waiting} still unsent"
        self._say(ended=True)

    def _slice(self, count: int, *, lates: bool) -> None:
        """Send so many, each slice to one partition, as batches are."""
        now = time.time()
        texts = {True: rfc3339(now - LATE_S).encode(), False: rfc3339(now).encode()}
        timestamp, partition = int(now * 1000), self._slices % self._partitions
        for place in range(self._place, self._place + count):
            event = self._events[place % len(self._events)]
            late = event.kind == "late" and lates
            kind = "counted" if event.kind == "late" and not late else event.kind
            self._put(event.at(texts[late]), partition, timestamp)
            self._sent[kind] += 1
        self._place += count

    def _put(self, value: bytes, partition: int, timestamp: int) -> None:
        while True:
            try:
                self._producer.produce(self._topic, value, partition=partition, timestamp=timestamp)
                return
            except BufferError:
                self._producer.poll(0.1)

    def _failed(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._refused[error.str()] += 1

    def _say(self, *, ended: bool) -> None:
        taken: dict[str, Any] = {**self._sent, "ended": ended, "waiting": len(self._producer)}
        print(json.dumps(taken | ({"refused": self._refused} if self._refused else {})), flush=True)


def events() -> list[Event]:
    """One in 50 is of a canary, one in 100 late, one in 1,000 unreadable; the others are as usual."""
    generated = W1.events(
        GENERATED,
        times=[0.0] * GENERATED,
        names=[(W1.model, CANARY if number % 50 == 7 else VERSION) for number in range(GENERATED)],
    )
    moment = rfc3339(0.0).encode()
    found = []
    for number, event in enumerate(generated):
        if number % 1000 == 13:
            found.append(Event("unreadable", UNREADABLE, b""))
            continue
        before, _, after = event.partition(moment)
        kind = "late" if number % 100 == 3 else "canary" if number % 50 == 7 else "counted"
        found.append(Event(kind, before, after))
    return found


if __name__ == "__main__":
    main()
