"""Several models behind three replicas, and what befalls each: a part of a story that all play at the same time.

Values are spread evenly instead of at random (Kronecker sequences), so that events between two scrapes are like those
beside them: where scores differ from those of the events it is not by chance. Only those of a rare model are random.
"""

import itertools
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtri

from exporter.monitor.reference import Reference
from tests.brokers import topics
from tests.brokers.topics import Record
from tests.e2e import stories
from tests.e2e.background import Background

HEALTHY, DRIFTS, WORSE, BROKEN, RARE = "car_loan", "drifts_only", "worse_only", "broken_pipeline", "rare"
ROLLED_BACK = ("rolled_back_a", "rolled_back_b")
MODELS = (HEALTHY, DRIFTS, WORSE, *ROLLED_BACK, BROKEN, RARE)
INPUTS = ("age", "amount", "income", "routed")
DRIFTING, ROUTED = "age", "routed"
"""The input that drifts where inputs do; the one by whose value requests are routed to a replica."""
MANY_INPUTS = tuple(f"x{number:02d}" for number in range(12))
"""Those of the rare model: what happens by chance shows in many of them."""
REGIONS = ("eu", "us")
VERSION, CANARY = "3", "4"
CLASSES = ("no", "yes")
COLOURS = ("blue", "green", "red")
RIGHT = 0.9
MIN_SAMPLES, FEW = 200, 40
MATURITY_S = 5

_PER_S = dict.fromkeys(MODELS, 12.0) | {DRIFTS: 200.0, RARE: 1.0}
"""Events of each replica. Scores of the one with many are compared with those of its events."""
_LABEL_AFTER_S = 2.0
_TURN_S = 0.1
_STEPS = np.sqrt([2, 3, 5, 7, 11, 13, 17, 19, 23]) % 1


@dataclass(frozen=True)
class Part:
    """What is wrong with the predictions of a model: inputs off by some deviations or missing, fewer that are right."""

    shifted: Mapping[str, float] = field(default_factory=dict)
    missing: Sequence[str] = ()
    right: float = RIGHT
    answer: str | None = None


IN_ORDER = Part()
TROUBLES: Mapping[str, Part] = {
    DRIFTS: Part(shifted={DRIFTING: 0.8}),
    WORSE: Part(right=0.7),
    **dict.fromkeys(ROLLED_BACK, Part(shifted={DRIFTING: 0.8}, right=0.7)),
    # What still comes is a default: it looks like drift, and so do the answers.
    BROKEN: Part(shifted=dict.fromkeys(INPUTS[:3], 3.0), missing=INPUTS[:3], answer="yes"),
}
AT_FIRST = {DRIFTS: TROUBLES[DRIFTS]}
"""One drifts before anyone looks."""
_MISSING = 0.6


class Sent(NamedTuple):
    """An event, and when it was sent."""

    at: float
    model: str
    version: str
    payload: bytes


class Replica:
    """Where the events of a replica go: a file that its exporter follows, and perhaps a topic for one model."""

    def __init__(self, number: int, events: Path, kafka: tuple[str, str] | None = None) -> None:
        """`kafka` is where a broker listens, and the topic for predictions of the healthy model."""
        self.number = number
        self.sent: list[Sent] = []
        self._events = events
        self._kafka = kafka
        self._joined = time.time()
        self._made = dict.fromkeys(MODELS, 0)
        self._labels: list[tuple[float, bytes]] = []
        events.touch()

    @property
    def version(self) -> str:
        """Of the healthy model; the last replica is its canary."""
        return CANARY if self.number == 2 else VERSION

    def bring(self, parts: Mapping[str, Part]) -> None:
        """Send what is due."""
        now = time.time()
        due: list[Sent] = []
        for model in MODELS:
            upto = int((now - self._joined) * _PER_S[model])
            for number in range(self._made[model], upto):
                version = self.version if model == HEALTHY else VERSION
                event = self._event(model, version, number, now, parts.get(model, IN_ORDER))
                due.append(Sent(now, model, version, json.dumps(event).encode()))
            self._made[model] = upto
        self.sent += due
        on_topic = [one for one in due if self._kafka is not None and one.model == HEALTHY]
        if self._kafka is not None and on_topic:
            topics.produce(*self._kafka, [Record(one.payload, partition=0) for one in on_topic])
        ready = [label for at, label in self._labels if at <= now]
        self._labels = [(at, label) for at, label in self._labels if at > now]
        lines = [*(one.payload for one in due if one not in on_topic), *ready]
        with self._events.open("ab") as file:
            file.write(b"".join(line + b"\n" for line in lines))

    def _event(self, model: str, version: str, number: int, now: float, part: Part) -> dict[str, Any]:
        inputs = inputs_of(model)
        if model == RARE:
            spread = np.random.default_rng([self.number, number]).random(len(inputs) + 5)
        else:
            spread = (0.1 + 0.3 * self.number + (number + 1) * _STEPS) % 1
        *values, colour, answer, score, right, region = spread.tolist()
        if ROUTED in inputs and self.number < 2:
            # Two replicas share the values of one input between them: each sees half of its distribution.
            values[INPUTS.index(ROUTED)] = (values[INPUTS.index(ROUTED)] + self.number) / 2
        features: dict[str, Any] = {
            name: float(ndtri(value)) + part.shifted.get(name, 0.0)
            for name, value in zip(inputs, values, strict=True)
            if not (name in part.missing and region < _MISSING)
        }
        features["colour"] = COLOURS[int(colour * len(COLOURS))]
        predicted = part.answer or CLASSES[int(answer * 2)]
        other = CLASSES[1 - CLASSES.index(predicted)]
        event = {
            "model": model,
            "version": version,
            "id": f"{self.number}-{number}",
            "timestamp": now,
            "features": features,
            "prediction": predicted,
            "score": score,
            "latency_seconds": math.exp(ndtri(score) / 2 - 4),
            "error": "timeout" if model == HEALTHY and number % 50 == 49 else None,
            "tags": {"region": REGIONS[int(region * 2)]},
        }
        label = predicted if right < part.right else other
        if model == HEALTHY:
            alone = {"model": model, "id": event["id"], "timestamp": now + _LABEL_AFTER_S, "label": label}
            self._labels.append((now + _LABEL_AFTER_S, json.dumps(alone).encode()))
            return event
        return event | {"label": label}


class Traffic(Background):
    """What is sent to the replicas while a test does other things; parts change when it says so."""

    def __init__(self) -> None:
        super().__init__()
        self.replicas: list[Replica] = []
        self.parts: Mapping[str, Part] = AT_FIRST

    def join(self, replica: Replica) -> None:
        """From now on it is sent events too."""
        self.replicas = [*self.replicas, replica]

    def sent(self, model: str, version: str, start: float, end: float) -> Iterator[Sent]:
        """Predictions that were sent after `start`, until `end`."""
        every = itertools.chain.from_iterable(list(replica.sent) for replica in self.replicas)
        return (one for one in every if (one.model, one.version) == (model, version) and start < one.at <= end)

    def go_on(self) -> None:
        while not self._ended.wait(_TURN_S):
            for replica in self.replicas:
                replica.bring(self.parts)


def inputs_of(model: str) -> Sequence[str]:
    """Its numeric inputs."""
    return MANY_INPUTS if model == RARE else INPUTS


def references() -> Sequence[Reference]:
    """One of each model, and that of the canary."""
    told = [(model, VERSION) for model in MODELS] + [(HEALTHY, CANARY)]
    return [stories.reference(*one, inputs=inputs_of(one[0]), right=RIGHT, regions=REGIONS) for one in told]


def models(number: int) -> list[dict[str, Any]]:
    """Models as the exporter of a replica is configured; windows, and the period of the budget, are in fast time."""
    return [
        {
            "name": model,
            "version": VERSION,
            "references": [f"reference-{place}.json" for place in ((0, len(MODELS)) if model == HEALTHY else (place,))],
            "window": "1m",
            "budget": {"pages": 1, "per": "36h"},
            "min_samples": FEW if model == RARE else MIN_SAMPLES,
            "error_budget": 0.05,
        }
        | (_everything(number) if model == HEALTHY else {})
        for place, model in enumerate(MODELS)
    ]


def _everything(number: int) -> dict[str, Any]:
    """What else can be said of a model."""
    return {
        "version": CANARY if number == 2 else VERSION,
        "labels": {"maturity": f"{MATURITY_S}s"},
        "segments": ["region"],
        "latency_objective": {"p99": "250ms"},
        "trained": "2026-01-01T00:00:00Z",
        "max_age": "3650d",
        "info": {"role": "canary" if number == 2 else "primary", "team": "risk"},
    }
