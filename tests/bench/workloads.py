"""The two workloads of the budget (design 6), seeded: W1 has 20 numbers and 5 categories, W2 10 numbers."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np

from exporter.ingest.native import NativeCodec
from exporter.monitor.archive import Archive
from exporter.monitor.events import PREDICTION, SCORE, FeatureKey
from exporter.monitor.fleet import Fleet
from exporter.monitor.panes import sliding_window
from exporter.monitor.reference import Column, Reference, build
from exporter.monitor.settings import ModelSettings
from exporter.stats import Counts

REFERENCE_ROWS = 50_000
VERSION = "3"

_CATEGORIES = tuple(f"category-{number}" for number in range(12))


@dataclass(frozen=True)
class Workload:
    """How many features, and how long the event's own id is: together they make its size.

    Numbers have all their digits, as a server writes them; rounded ones would be read faster.
    """

    name: str
    numbers: int
    categories: int
    identity: str

    @property
    def model(self) -> str:
        return f"bench_{self.name.lower()}"

    def table(self, rows: int, seed: int) -> dict[str, Any]:
        """Features by name: float arrays, and lists of texts."""
        rng = np.random.default_rng(seed)
        table: dict[str, Any] = {f"n{i:02d}": rng.normal(size=rows) for i in range(self.numbers)}
        for i in range(self.categories):
            table[f"c{i}"] = rng.choice(_CATEGORIES, rows, p=_weights()).tolist()
        return table

    def events(
        self,
        count: int,
        *,
        seed: int = 0,
        times: Sequence[float] | None = None,
        names: Sequence[tuple[str, str]] | None = None,
    ) -> list[bytes]:
        """JSON events; `times` are their epoch seconds (now, if not given), `names` their models and versions."""
        rng = np.random.default_rng(seed + 1)
        table = self.table(count, seed)
        columns = {name: values if isinstance(values, list) else values.tolist() for name, values in table.items()}
        scores, latencies = rng.random(count).round(6).tolist(), rng.lognormal(-4, 0.5, count).round(6).tolist()
        classes = rng.integers(0, 2, count).tolist()
        now = time.time()
        return [
            json.dumps(
                {
                    "model": self.model if names is None else names[i][0],
                    "version": VERSION if names is None else names[i][1],
                    "id": f"{self.identity}{i:08x}",
                    "timestamp": rfc3339(now if times is None else times[i]),
                    "features": {name: values[i] for name, values in columns.items()},
                    "prediction": classes[i],
                    "score": scores[i],
                    "latency_seconds": latencies[i],
                    "error": None,
                },
                separators=(",", ":"),
            ).encode()
            for i in range(count)
        ]

    def reference(self, model: str | None = None, version: str = VERSION) -> Reference:
        """Inputs, prediction and score of 50,000 rows."""
        rng = np.random.default_rng(12)
        columns: dict[FeatureKey, Column] = {
            FeatureKey("input", name): values for name, values in self.table(REFERENCE_ROWS, 11).items()
        }
        columns[FeatureKey("output", PREDICTION)] = rng.integers(0, 2, REFERENCE_ROWS).tolist()
        columns[FeatureKey("score", SCORE)] = rng.random(REFERENCE_ROWS)
        return build(columns, model=model or self.model, version=version, created=time.time() - 86_400)


W1 = Workload("W1", 20, 5, "prediction-0123456789abcdef0123456789abcdef-01234567")
W2 = Workload("W2", 10, 0, "")


@dataclass(frozen=True)
class Pipeline:
    """A fleet and the codec of its events."""

    fleet: Fleet
    codec: NativeCodec


def pipeline(
    references: Mapping[str, Sequence[Reference]], *, window_s: float = 3600.0, event_time: bool = True
) -> Pipeline:
    """An empty fleet that watches these models, ready to decode."""
    settings = [ModelSettings(model, version=VERSION, window=sliding_window(window_s, "bench")) for model in references]
    fleet = Fleet(settings, references)
    return Pipeline(fleet, NativeCodec(fleet, "bench", event_time=event_time))


def without_quality(references: Mapping[str, Sequence[Reference]]) -> Pipeline:
    """As `pipeline`, with counters of traffic and drift alone: nobody knows what is predicted, nothing is sealed."""
    piped = pipeline(
        {model: [msgspec.structs.replace(one, task=None) for one in known] for model, known in references.items()}
    )
    for model in piped.fleet._models.values():
        for state in model.versions.values():
            state.archive = _Unsealed(model.settings.window, 0)
    return piped


class _Unsealed(Archive):
    def seal(self, end: int, panes: AbstractSet[int], counts_of: Callable[[int], Counts]) -> None:
        """Take nothing over."""


def _weights() -> list[float]:
    weights = [1 / (rank + 1) for rank in range(len(_CATEGORIES))]
    return [weight / sum(weights) for weight in weights]


def rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
