"""Labels: how fast predictions are put aside, and labels joined, while ten million predictions wait; on one core.

All of it as a running exporter does it: JSON in, blocks and counters durable every few seconds. The looks at labels,
which it gives to another thread, are here in the one that is measured.
"""

import json
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from exporter.app.state import Store
from exporter.ingest.native import NativeCodec
from exporter.ingest.source import Messages
from exporter.monitor.events import LABEL, NO_ERROR, PREDICTION, SCORE, Batch, Decoded, FeatureKey, ids_of
from exporter.monitor.fleet import Fleet
from exporter.monitor.reference import build
from exporter.monitor.settings import JoinSettings, ModelSettings
from tests.bench.figures import MEASURED, Figure, cpu_s, on
from tests.bench.workloads import rfc3339

MODEL = "bench_labels"
START = 1_800_000_000.0
MATURITY_S = 86_400.0
SAVE_ROWS = 150_000
"""What 30,000 predictions a second bring in a tick."""
AT_ONCE = 1000


@dataclass
class World:
    """A fleet and its state on disk."""

    fleet: Fleet
    store: Store
    now: float = START

    def save(self) -> None:
        """A tick."""
        self.fleet.tick(self.now)
        for model, work in self.fleet.label_work(self.now):
            work.run()
            model.label_done(work)
        changes, blocks = self.fleet.changes(), self.fleet.changed_blocks()
        self.store.write(changes, {}, blocks)
        self.fleet.durable(blocks)

    def read(self, chunks: Iterable[list[bytes]]) -> float:
        """CPU seconds for JSON events through the codec, with a tick now and then; making them does not count."""
        codec = NativeCodec(self.fleet, "bench")
        spent_s, rows = 0.0, 0
        for events in chunks:
            chunk = Messages("p0", events, self.now)
            spent_s += cpu_s(lambda chunk=chunk: self.fleet.observe(codec.decode(chunk), self.now))  # type: ignore[misc]
            rows += len(events)
            if rows >= SAVE_ROWS:
                spent_s += cpu_s(self.save)
                rows = 0
        return spent_s + cpu_s(self.save)


def joining(*, quick: bool) -> list[Figure]:
    """Rates and memory, found in a process of its own."""
    pending, counted = (400_000, 100_000) if quick else (10_000_000, 1_000_000)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (pending, counted))


def _measure(pending: int, counted: int) -> list[Figure]:
    with on(MEASURED), TemporaryDirectory() as folder:
        store = Store.open(Path(folder))
        rng = np.random.default_rng(1)
        score = rng.random(20_000)
        classes = np.where(score > 0.5, "1", "0").tolist()
        reference = build(
            {FeatureKey("output", PREDICTION): classes, FeatureKey("score", SCORE): score, LABEL: classes},
            model=MODEL,
            version="1",
            created=START,
        )
        settings = ModelSettings(MODEL, version="1", join=JoinSettings(MATURITY_S, 2 * pending))
        world = World(Fleet([settings], {MODEL: [reference]}, shelf=store), store)
        before = _rss_mib()
        for batch in _waiting(world, pending):
            world.now = float(batch.time[-1])
            world.fleet.observe(Decoded("bench", len(batch), [batch], [], {}), world.now)
            world.save()
        note = f"{pending:,} predictions wait"
        rss = _rss_mib()
        put_aside_s = world.read(_predictions(world.now, pending, counted))
        rss = max(rss, _rss_mib())
        # Of the oldest predictions: they are mature a day after they came.
        joined_s = world.read(_labels(counted))
        while _settled(world) < counted:
            world.now += MATURITY_S / 64
            joined_s += cpu_s(world.save)
        rss = max(rss, _rss_mib())
        size_gib = store.size_bytes / 2**30
        store.close()
    return [
        Figure("JSON predictions put aside", counted / put_aside_s, "events/s", 30_000, note=note),
        Figure("JSON labels joined and settled", counted / joined_s, "joins/s", 20_000, note=note),
        Figure("RSS", rss, "MiB", 150, "at most", f"{note}; {before:.0f} MiB before; {size_gib:.2f} GiB on disk"),
    ]


def _waiting(world: World, pending: int) -> Iterator[Batch]:
    """Predictions of a day."""
    schema = world.fleet.schema(MODEL)
    rng = np.random.default_rng(2)
    for first in range(0, pending, 100_000):
        n = min(100_000, pending - first)
        score = rng.random(n)
        yield Batch(
            model=MODEL,
            partition="p0",
            versions=("1",),
            version=np.zeros(n, np.int64),
            time=START + (first + np.arange(n)) * (MATURITY_S * 0.9 / pending),
            numeric=np.column_stack([score if key.kind == "score" else np.full(n, np.nan) for key in schema.numeric]),
            codes=np.column_stack(
                [(score > 0.5) if key.kind == "output" else np.full(n, -1) for key in schema.categorical]
            ).astype(np.int32),
            latency_s=np.full(n, np.nan),
            error=np.full(n, NO_ERROR, np.int16),
            schema=schema,
            id=ids_of(map(str, range(first, first + n))),
        )


def _predictions(now: float, first: int, count: int) -> Iterator[list[bytes]]:
    stamp = rfc3339(now)
    for start in range(0, count, AT_ONCE):
        scores = np.random.default_rng(start).random(AT_ONCE).round(6).tolist()
        yield [
            json.dumps(
                {
                    "model": MODEL,
                    "version": "1",
                    "id": str(first + start + number),
                    "timestamp": stamp,
                    "features": {},
                    "prediction": int(score > 0.5),
                    "score": score,
                }
            ).encode()
            for number, score in enumerate(scores)
        ]


def _labels(count: int) -> Iterator[list[bytes]]:
    """Labels of the oldest predictions, most of a day later, in no order."""
    stamp = rfc3339(START + MATURITY_S * 0.9)
    numbers = np.random.default_rng(4).permutation(count)
    for start in range(0, count, AT_ONCE):
        yield [
            json.dumps({"model": MODEL, "id": str(number), "timestamp": stamp, "label": number % 2}).encode()
            for number in numbers[start : start + AT_ONCE].tolist()
        ]


def _settled(world: World) -> int:
    (view,) = world.fleet.tick(world.now).models
    assert view.accuracy is not None
    return view.accuracy.outcomes.joined(view.accuracy_lifetime)


def _rss_mib() -> float:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
