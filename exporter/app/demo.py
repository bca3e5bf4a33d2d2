"""`demo`: a healthy model that drifts within two minutes, on real data, through the whole pipeline.

The loan applications, scores, predictions and repayments are real (a fifth of NannyML's car loan analysis set, see
NOTICE): five months like the training data, then five in which applicants' cars and loan lengths differ. They are
replayed at 2.5 million times their pace, over and over. Latencies, failures, the odd unreadable event and which
repayments nobody tells of are made up, because the data has none and a monitor without them would be half a demo.
"""

import csv
import gzip
import json
import random
from collections.abc import Collection, Iterator, Sequence
from importlib import resources
from importlib.resources.abc import Traversable

from exporter.app.clock import LiveSurroundings
from exporter.app.runtime import Feed, Runtime
from exporter.ingest.native import NativeCodec
from exporter.ingest.source import Messages, Positions, Sink, Surroundings
from exporter.ingest.tables import number_or_text
from exporter.monitor import reference
from exporter.monitor.fleet import Fleet
from exporter.monitor.health import SourceHealth
from exporter.monitor.panes import sliding_window
from exporter.monitor.settings import ModelSettings

MODEL, VERSION = "car_loan", "3"
ROUND_S = 120.0
WINDOW_S = 30.0
TICK_S = 1.0
LABELLED = 0.9
"""Share of predictions whose truth is told: as in life, not of all."""
_BEAT_S = 0.1


class DemoSource:
    """The recorded events, in real time, again and again."""

    name = "demo"

    def __init__(self, events: Sequence[bytes], surroundings: Surroundings, round_s: float) -> None:
        self._events = events
        self._surroundings = surroundings
        self._per_s = len(events) / round_s

    async def run(self, sink: Sink, resume: Positions) -> None:  # noqa: ARG002 - a demo starts at the beginning
        """Send what is due, ten times a second, until cancelled."""
        started, sent = self._surroundings.now(), 0
        while True:
            now = self._surroundings.now()
            due = int((now - started) * self._per_s)
            if due > sent:
                events = [self._events[i % len(self._events)] for i in range(sent, due)]
                await sink(Messages(self.name, events, now))
                sent = due
            await self._surroundings.sleep(_BEAT_S)

    async def commit(self, positions: Positions) -> None:
        """A recording need not be told."""

    def not_ready(self) -> str | None:
        """Always ready."""
        return None

    def waiting(self, positions: Positions) -> Collection[str]:  # noqa: ARG002 - it is never late
        """None: it is always in time."""
        return ()

    def health(self) -> SourceHealth:
        """A demo starts at the beginning."""
        return SourceHealth("at_most_once")


def demo_runtime(round_s: float = ROUND_S) -> Runtime:
    """A runtime whose only source is the recording, played in `round_s` seconds."""
    known = reference.decode(_data("car_loan_reference.json").read_bytes())
    settings = ModelSettings(
        name=MODEL,
        version=VERSION,
        window=sliding_window(WINDOW_S * round_s / ROUND_S, f"{WINDOW_S * round_s / ROUND_S:g}s"),
        latency_objective_s={"0.99": 0.25},
        info={"team": "risk", "project": "lending", "environment": "demo"},
    )
    fleet = Fleet([settings], {MODEL: [known]})
    source = DemoSource(list(demo_events()), LiveSurroundings(), round_s)
    codec = NativeCodec(fleet, source.name, event_time=False)
    return Runtime(fleet, [Feed(source, codec)], tick_s=TICK_S)


def demo_events() -> Iterator[bytes]:
    """One round of native events, with seeded latencies, failures, labels left out and unreadable ones."""
    rng = random.Random(2018)  # noqa: S311 - nothing secret
    with (
        _data("car_loan_events.csv.gz").open("rb") as packed,
        gzip.open(packed, "rt", encoding="utf-8", newline="") as rows,
    ):
        for row in csv.DictReader(rows):
            if rng.random() < 0.002:
                yield b'{"model": "car_loan", "features": {"car_value": 12638.0, '
                continue
            event: dict[str, object] = {
                "model": MODEL,
                "version": VERSION,
                "id": row.pop("id"),
                "latency_seconds": round(rng.lognormvariate(-3.9, 0.6), 5),
            }
            prediction, score = int(row.pop("y_pred")), float(row.pop("y_pred_proba"))
            label = int(row.pop("repaid"))
            event["features"] = {name: _value(text) for name, text in row.items()}
            if rng.random() < 0.004:
                event["error"] = rng.choice(("timeout", "dependency"))
            else:
                event |= {"prediction": prediction, "score": score}
                if rng.random() < LABELLED:
                    event["label"] = label
            yield json.dumps(event).encode()


def _value(text: str) -> object:
    return text == "True" if text in ("True", "False") else number_or_text(text)


def _data(name: str) -> Traversable:
    return resources.files("exporter.app").joinpath("demo_data", name)
