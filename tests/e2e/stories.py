"""A small served model: its reference, and predictions that are like it or have drifted from it."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from exporter.monitor.coarse import with_slices
from exporter.monitor.events import LABEL
from exporter.monitor.reference import Reference
from tests.builders import PREDICTION, SCORE, a_reference, an_input

MODEL, VERSION = "car_loan", "3"
DRIFTING = "income"
STEADY = ("age", "amount")
MODEL_CONFIG = {"name": MODEL, "version": VERSION, "references": ["reference-0.json"], "min_samples": 200}

_COLOURS = ("blue", "green", "red")
_CLASSES = ("no", "yes")


def reference(
    model: str = MODEL,
    version: str = VERSION,
    *,
    inputs: Sequence[str] = (*STEADY, DRIFTING),
    colour: str = "colour",
    classes: Sequence[str] = _CLASSES,
    right: float | None = None,
    regions: Sequence[str] = (),
) -> Reference:
    """Numbers, one category, a class and a score; and labels, where this share of the predictions was `right`.

    Of regions it knows an equal slice each.
    """
    rng = np.random.default_rng(1)
    rows = 2000
    columns: dict[Any, Any] = {an_input(name): rng.normal(size=rows) for name in inputs}
    columns[an_input(colour)] = rng.choice(_COLOURS, rows).tolist()
    columns[PREDICTION] = rng.choice(classes, rows).tolist()
    columns[SCORE] = rng.random(rows)
    if right is not None:
        columns[LABEL] = [_label(one, classes, right, rng) for one in columns[PREDICTION]]
    built = a_reference(columns, model=model, version=version, created=time.time() - 86_400)
    slices = {"region": [*regions] * (rows // len(regions))} if regions else {}
    return with_slices(built, columns, slices, len(regions))


def predictions(
    count: int,
    *,
    model: str = MODEL,
    version: str | None = VERSION,
    inputs: Sequence[str] = (*STEADY, DRIFTING),
    drifted: Sequence[str] = (),
    classes: Sequence[str] = _CLASSES,
    right: float | None = None,
    region: str | None = None,
    seed: int = 0,
) -> Iterator[dict[str, Any]]:
    """Events as a server would report them; the drifted inputs are one standard deviation off.

    They have labels where this share of them is `right`.
    """
    rng = np.random.default_rng(seed)
    for number in range(count):
        values = rng.normal(size=len(inputs)).round(6).tolist()
        features: dict[str, Any] = {name: value + (name in drifted) for name, value in zip(inputs, values, strict=True)}
        features["colour"] = str(rng.choice(_COLOURS))
        event = {
            "model": model,
            "version": version,
            "id": f"{seed}-{number}",
            "features": features,
            "prediction": str(rng.choice(classes)),
            "score": float(rng.random()),
            "latency_seconds": float(rng.lognormal(-4, 0.5)),
            "error": "timeout" if number % 100 == 99 else None,
        }
        if region is not None:
            event["tags"] = {"region": region}
        if right is not None:
            event["label"] = _label(event["prediction"], classes, right, rng)
        yield event


def _label(prediction: str, classes: Sequence[str], right: float, rng: np.random.Generator) -> str:
    """The class that was predicted, or the other one."""
    first, second = classes
    other = second if prediction == first else first
    return prediction if rng.random() < right else other
