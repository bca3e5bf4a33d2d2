"""What a real topic brings: predictions of several versions and times, labels, and what cannot be read."""

import itertools
import json
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tests.brokers import topics
from tests.brokers.topics import Record
from tests.e2e import stories
from tests.e2e.background import Background

LATE_S = 600.0
"""How much older than their neighbours late events are."""

INPUTS = ("age", "amount")
VERSIONS = (stories.VERSION, "4")
REFERENCES = [stories.reference(version=version, inputs=INPUTS) for version in VERSIONS]
MODEL_CONFIG = {**stories.MODEL_CONFIG, "references": ["reference-*.json"]}

_POOL = 3000
_TURN_S = 0.2


def pool(now: float, *, seed: int = 0) -> list[bytes]:
    """Payloads to choose from: without a time of their own, except the late ones."""
    made = stories.predictions(_POOL, inputs=INPUTS, version=None, seed=seed)
    rng = random.Random(seed)
    return [payload(number, event, now, rng) for number, event in enumerate(made)]


def payload(number: int, event: dict[str, Any], now: float, rng: random.Random) -> bytes:
    if number % 100 == 7:
        return rng.choice([b"{", b"\xff\x00", b"[1]", b'{"features": {}}'])
    if number % 50 == 11:
        return json.dumps({"model": event["model"], "id": event["id"], "label": rng.randint(0, 1)}).encode()
    event["version"] = rng.choices([*VERSIONS, "5", None], [5, 4, 1, 1])[0]
    if number % 40 == 13:
        event["timestamp"] = now - LATE_S
    if number % 300 == 17:
        event["model"] = "nobody-configured-this"
    return json.dumps(event).encode()


def places(partitions: Mapping[str, int]) -> list[tuple[str, int]]:
    """Every partition of topics that have so many."""
    return [(topic, number) for topic, count in partitions.items() for number in range(count)]


def dealt(partitions: Mapping[str, int]) -> Iterator[tuple[str, Record]]:
    """Payloads of the pool for ever, to one partition after the other."""
    for value, (topic, number) in zip(itertools.cycle(pool(time.time())), itertools.cycle(places(partitions))):
        yield topic, Record(value, partition=number)


def kafka(bootstrap: str, names: Sequence[str], client: str, **options: Any) -> dict[str, Any]:
    """A source that reads these topics."""
    source = {"type": "kafka", "bootstrap_servers": [bootstrap], "topics": list(names), "client": client}
    return source | {"session_timeout": "6s"} | options


def static(bootstrap: str, names: Sequence[str], client: str, **options: Any) -> dict[str, Any]:
    """One that owns all partitions for ever."""
    return kafka(bootstrap, names, client, partitions={"member": 0, "of": 1}, **options)


class Producing(Background):
    """A producer that goes on, while a test does other things, until all is produced."""

    def __init__(
        self, bootstrap: str, coming: Mapping[str, int] | Iterable[tuple[str, Record]], events: int, per_s: float
    ) -> None:
        """About `per_s` events a second of what is `coming`: records by topic, or what is dealt to partitions."""
        super().__init__()
        self.events = events
        self._bootstrap = bootstrap
        self._coming = iter(dealt(coming) if isinstance(coming, Mapping) else coming)
        self._turn = max(int(per_s * _TURN_S), 1)

    def bring(self, events: int) -> None:
        """Produce so many now."""
        self.add(itertools.islice(self._coming, events))

    def add(self, records: Iterable[tuple[str, Record]]) -> None:
        """Produce these now, each to its topic."""
        by_topic: dict[str, list[Record]] = {}
        for topic, record in records:
            by_topic.setdefault(topic, []).append(record)
        for topic, theirs in by_topic.items():
            topics.produce(self._bootstrap, topic, theirs, "lz4")

    def finish(self) -> None:
        """Wait until all is produced."""
        self._thread.join()

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def go_on(self) -> None:
        for start in range(0, self.events, self._turn):
            due = time.monotonic() + _TURN_S
            self.bring(min(self._turn, self.events - start))
            if self._ended.wait(max(due - time.monotonic(), 0)):
                return
