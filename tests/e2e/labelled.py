"""A stream of predictions whose labels come alone: early, twice, corrected, late, of nobody, or never.

Event times are record times: they depend on the place in the stream only, not on when it was produced or is read.
"""

import itertools
import json
import time
from collections.abc import Iterator, Mapping

from tests.brokers.topics import Record
from tests.e2e import stories, streams

MATURITY_S = 3.0
ENDED_S = 8.0
"""So much later than all else is what ends a stream: every prediction is mature by then, every label given up."""

REFERENCES = [stories.reference(version=version, inputs=streams.INPUTS, right=0.9) for version in streams.VERSIONS]
MODEL_CONFIG = {**streams.MODEL_CONFIG, "window": "1m", "labels": {"maturity": f"{MATURITY_S:g}s"}}

_AGES_S = {
    0: (0.5,),
    2: (0.5, 1.0),  # the same twice
    4: (0.5, 1.0),  # the second corrects the first
    6: (1.3 * MATURITY_S,),
    8: (-0.5,),
}
"""How old the predictions of these numbers, modulo 20, are when their labels come. What else is in a pool is odd."""
_CORRECTED, _OF_NOBODY, _OF_NO_MODEL = 4, 10, 17
_LABELS = sum(map(len, _AGES_S.values())) + 2
"""Labels of twenty predictions."""


class Stream:
    """Topics of predictions and of labels with so many partitions, which take turns; labels of one id keep to one.

    Iterating it never ends; `ending` may be asked for once, after that.
    """

    def __init__(
        self, predictions: Mapping[str, int], labels: Mapping[str, int], per_s: float, *, passed_s: float = 0.0
    ) -> None:
        """`per_s` is the number of events in a second of event time. That must not run ahead of the clock: what is
        produced faster begins so many seconds ago.
        """
        self._places, self._label_places = streams.places(predictions), streams.places(labels)
        self._began = float(int(time.time() - passed_s - ENDED_S - 1))
        self._per_s = per_s
        self._passed = 0
        self._coming = self._events()

    def __iter__(self) -> Iterator[tuple[str, Record]]:
        return self

    def __next__(self) -> tuple[str, Record]:
        (topic, partition), value = next(self._coming)
        time_s = self._began + self._passed / self._per_s
        self._passed += 1
        return topic, Record(value, partition=partition, timestamp_ms=int(time_s * 1000))

    def ending(self) -> Iterator[tuple[str, Record]]:
        """What ends the stream: a prediction in each partition of predictions, and a label in every one."""
        time_ms = int((self._began + self._passed / self._per_s + ENDED_S) * 1000)
        event = next(stories.predictions(1, inputs=streams.INPUTS))
        for number, (topic, partition) in enumerate(self._places):
            prediction = json.dumps(event | {"id": f"last-{number}"}).encode()
            yield topic, Record(prediction, partition=partition, timestamp_ms=time_ms)
        for topic, partition in (*self._places, *self._label_places):
            yield topic, Record(_label("last", "yes"), partition=partition, timestamp_ms=time_ms)

    def _events(self) -> Iterator[tuple[tuple[str, int], bytes]]:
        pool = streams.pool(time.time())
        predictions_per_s = self._per_s / (1 + _LABELS / 20)
        for place in itertools.count():
            turn, number = divmod(place, len(pool))
            yield self._places[place % len(self._places)], pool[number].replace(b'"id": "0-', b'"id": "%d-' % turn, 1)
            if place % 20 == _OF_NOBODY:
                yield self._label_places[place // 20 % len(self._label_places)], _label(f"nobody-{place}", "no")
            if place % 20 == _OF_NO_MODEL:
                yield self._label_places[place // 20 % len(self._label_places)], _label("x", "no", model="of-nobody")
            for kind, ages_s in _AGES_S.items():
                for again, age_s in enumerate(ages_s):
                    labelled = place - int(age_s * predictions_per_s)
                    if labelled % 20 != kind or labelled < 0:
                        continue
                    value = "yes" if (labelled // 20 + (again and kind == _CORRECTED)) % 2 else "no"
                    turn_of, number_of = divmod(labelled, len(pool))
                    where = self._label_places[labelled // 40 % len(self._label_places)]
                    yield where, _label(f"{turn_of}-{number_of}", value)


def _label(identity: str, label: str, *, model: str = stories.MODEL) -> bytes:
    return json.dumps({"model": model, "id": identity, "label": label}).encode()
