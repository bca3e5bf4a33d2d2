"""Predictions and labels that come apart, into a fleet; and what an honest bookkeeper makes of the same events."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from exporter.monitor.accuracy import AccuracyTracker
from exporter.monitor.events import LABEL, MISSING, UNSEEN, Decoded, LabelBatch, Schema, ids_of
from exporter.monitor.fleet import Fleet
from exporter.monitor.labels import JoinView
from exporter.monitor.settings import JoinSettings
from tests.builders import MODEL, PREDICTION, SCORE, a_batch, a_fleet, a_reference, decoded
from tests.monitor.test_accuracy import a_model

HOUR = 3600.0
DAY = 24 * HOUR

MATURITY_S = 8 * HOUR


@dataclass(frozen=True)
class Prediction:
    id: str
    time: float
    predicted: str = "1"
    score: float = 0.5
    version: str = "1"


@dataclass(frozen=True)
class Label:
    id: str
    time: float
    label: str = "1"


def a_joining_fleet(
    maturity_s: float = MATURITY_S, max_pending: int = 10**7, sample: float = 1.0, **more: Any
) -> Fleet:
    """A binary model whose labels may come alone."""
    return a_fleet(a_reference(a_model()), join=JoinSettings(maturity_s, max_pending, sample), min_labels=1, **more)


def labels_of(schema: Schema, labels: Sequence[Label], partition: str = "labels") -> LabelBatch:
    vocabulary = schema.vocabularies[schema.categorical.index(LABEL)]
    codes = [MISSING if one.label is None else vocabulary.get(one.label, UNSEEN) for one in labels]
    return LabelBatch(
        model=MODEL,
        partition=partition,
        id=ids_of(one.id for one in labels),
        time=np.array([one.time for one in labels]),
        label=np.array(codes, np.float64),
        schema=schema,
    )


def feed(fleet: Fleet, events: Iterable[Prediction | Label], now: float | None = None, partition: str = "") -> None:
    """Events in their order, at the time of the newest unless `now` is given."""
    events = list(events)
    if not events:
        return
    moment = max(event.time for event in events) if now is None else now
    schema = fleet.schema(MODEL)
    predictions = [event for event in events if isinstance(event, Prediction)]
    labels = [event for event in events if isinstance(event, Label)]
    if predictions:
        columns = {PREDICTION: [one.predicted for one in predictions], SCORE: [one.score for one in predictions]}
        batch = a_batch(
            schema,
            columns,
            time=[one.time for one in predictions],
            version=[one.version for one in predictions],
            partition=f"p{partition}",
        )
        fleet.observe(decoded(replace(batch, id=ids_of(one.id for one in predictions))), moment)
    if labels:
        one = labels_of(schema, labels, f"l{partition}")
        fleet.observe(Decoded("http", len(one), [], [], {}, [one]), moment)


def look(fleet: Fleet, now: float, to_come: Collection[str] | None = ()) -> None:
    """Let time pass, and labels find their predictions."""
    fleet.tick(now)
    for model, work in fleet.label_work(now, to_come):
        work.run()
        model.label_done(work)


def end(fleet: Fleet, now: float) -> None:
    """Everything that can be settled at this time is; partitions are silent for long enough to be idle."""
    for later in (now, now + 61, now + 122):
        look(fleet, later)


def account(fleet: Fleet, now: float) -> JoinView:
    found = fleet.tick(now).labels[MODEL].join
    assert found is not None
    return found


def outcomes(fleet: Fleet, now: float, version: str = "1") -> tuple[AccuracyTracker, Any]:
    """The tracker and its lifetime counts."""
    (found,) = [one for one in fleet.tick(now).models if one.version == version]
    assert found.accuracy is not None
    return found.accuracy, found.accuracy_lifetime


def confusion(fleet: Fleet, now: float, version: str = "1") -> dict[tuple[str, str], int]:
    """How often what was predicted and what was true."""
    tracker, counts = outcomes(fleet, now, version)
    names = (*tracker.task.classes, "other")
    table = tracker.outcomes.part(counts, "confusion").reshape(len(names), len(names))
    return {
        (names[row], names[column]): int(table[row, column]) for row, column in zip(*np.nonzero(table), strict=True)
    }


def matured(fleet: Fleet, now: float, version: str = "1") -> int:
    tracker, counts = outcomes(fleet, now, version)
    return tracker.outcomes.total(counts, "predictions")


@dataclass
class Book:
    """The same by hand: every prediction with every label of its id, by the times of the events."""

    maturity_s: float = MATURITY_S
    patience_s: float = HOUR
    confusion: Counter[tuple[str, str]] = field(default_factory=Counter)
    matured: int = 0
    unmatched: int = 0
    duplicate: int = 0
    corrected: int = 0
    late: int = 0

    def settle(self, events: Sequence[Prediction | Label]) -> "Book":
        """All of it; ids are those of one prediction each."""
        predictions = {event.id: event for event in events if isinstance(event, Prediction)}
        theirs: dict[str, list[Label]] = {name: [] for name in predictions}
        for event in events:
            if not isinstance(event, Label):
                continue
            prediction = predictions.get(event.id)
            delay = None if prediction is None else event.time - prediction.time
            if delay is None or not -self.patience_s <= delay <= 2 * self.maturity_s:
                self.unmatched += 1
            elif delay > self.maturity_s:
                self.late += 1
            else:
                theirs[event.id].append(event)
        for prediction in predictions.values():
            self.matured += 1
            labels = sorted(theirs[prediction.id], key=lambda label: label.time)
            for before, after in pairwise(labels):
                if before.label == after.label:
                    self.duplicate += 1
                else:
                    self.corrected += 1
            if labels:
                self.confusion[prediction.predicted, labels[-1].label] += 1
        return self
