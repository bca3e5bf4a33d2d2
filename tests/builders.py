"""Small builders with defaults: a test names only what it is about."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from exporter.catalog.metric import Metric, Sample
from exporter.monitor import reference
from exporter.monitor.events import (
    MISSING,
    NO_ERROR,
    UNSEEN,
    Batch,
    Column,
    Decoded,
    FeatureKey,
    Names,
    Reject,
    Schema,
)
from exporter.monitor.fleet import Fleet
from exporter.monitor.model_view import ModelView
from exporter.monitor.reference import Reference, Resolution
from exporter.monitor.settings import ModelSettings
from exporter.monitor.snapshot import Snapshot

MODEL = "car_loan"
NOW = 1_800_000_000.0

X = FeatureKey("input", "x")
COLOUR = FeatureKey("input", "colour")
PREDICTION = FeatureKey("output", "prediction")
SCORE = FeatureKey("score", "score")

COLOURS = ("blue", "green", "red")


def an_input(name: str) -> FeatureKey:
    return FeatureKey("input", name)


def columns_of(rows: int, seed: int = 0) -> dict[FeatureKey, Column]:
    """A number, a category, a class and a score, as one model may have them."""
    rng = np.random.default_rng(seed)
    return {
        X: rng.normal(size=rows),
        COLOUR: rng.choice(COLOURS, rows, p=[0.5, 0.3, 0.2]).tolist(),
        PREDICTION: rng.choice(["0", "1"], rows, p=[0.7, 0.3]).tolist(),
        SCORE: rng.random(rows),
    }


def a_reference(
    columns: Mapping[FeatureKey, Column] | None = None,
    *,
    rows: int = 2000,
    model: str = MODEL,
    version: str = "1",
    created: float = NOW - 1e6,
    resolution: Resolution | None = None,
) -> Reference:
    return reference.build(
        columns_of(rows) if columns is None else columns,
        model=model,
        version=version,
        created=created,
        resolution=resolution,
    )


def a_fleet(*references: Reference, series_limit: int = 20_000, **settings: Any) -> Fleet:
    """A fleet that watches one model; the version of events is "1" unless `settings` say otherwise."""
    one = ModelSettings(MODEL, **({"version": "1"} | settings))
    return Fleet([one], {MODEL: references}, series_limit=series_limit)


def a_batch(
    schema: Schema,
    columns: Mapping[FeatureKey, Iterable[Any]] | None = None,
    *,
    rows: int | None = None,
    time: float | Sequence[float] = NOW,
    version: str | Sequence[str] = "1",
    model: str = MODEL,
    partition: str = "p0",
    latency_s: float | Sequence[float] = np.nan,
    error: int | Sequence[int] = NO_ERROR,
    raw: Sequence[Mapping[FeatureKey, object]] | None = None,
) -> Batch:
    """Rows from columns of numbers and category texts; features that are not given are missing."""
    columns = {key: list(values) for key, values in (columns or {}).items()}
    sizes = [len(part) for part in (*columns.values(), time, version, latency_s, error) if isinstance(part, list)]
    n = rows if rows is not None else max(sizes, default=1)
    numeric = np.full((n, len(schema.numeric)), np.nan)
    codes = np.full((n, len(schema.categorical)), MISSING, np.int32)
    for key, values in columns.items():
        if key in schema.numeric:
            numeric[:, schema.numeric.index(key)] = values
        else:
            place = schema.categorical.index(key)
            known = schema.vocabularies[place]
            if isinstance(known, Names):
                known.learn(values)
            codes[:, place] = [schema.vocabularies[place].get(value, UNSEEN) for value in values]
    versions = [version] * n if isinstance(version, str) else list(version)
    names = tuple(dict.fromkeys(versions))
    return Batch(
        model=model,
        partition=partition,
        versions=names,
        version=np.array([names.index(name) for name in versions], np.int64),
        time=np.broadcast_to(np.asarray(time, np.float64), n).copy(),
        numeric=numeric,
        codes=codes,
        latency_s=np.broadcast_to(np.asarray(latency_s, np.float64), n).copy(),
        error=np.broadcast_to(np.asarray(error, np.int16), n).copy(),
        schema=schema,
        raw=raw,
    )


def decoded(
    *batches: Batch, source: str = "http", rejects: Sequence[Reject] = (), dropped: Mapping[str, int] | None = None
) -> Decoded:
    """What a codec hands on."""
    events = sum(map(len, batches)) + len(rejects) + sum((dropped or {}).values())
    return Decoded(source, events, list(batches), list(rejects), dict(dropped or {}))


def observe(fleet: Fleet, columns: Mapping[FeatureKey, Iterable[Any]] | None = None, **options: Any) -> None:
    """Rows of `a_batch` into a fleet, at the time of the newest of them unless `now` is given."""
    source = options.pop("source", "http")
    now = options.pop("now", None)
    batch = a_batch(fleet.schema(options.get("model", MODEL)), columns, **options)
    fleet.observe(decoded(batch, source=source), float(batch.time.max()) if now is None else now)


def view(snapshot: Snapshot, version: str = "1", model: str = MODEL) -> ModelView:
    (found,) = [one for one in snapshot.models if (one.settings.name, one.version) == (model, version)]
    return found


def exposed(snapshot: Snapshot) -> dict[str, float]:
    """The exposition as a person sees it: series text to value. A series may be there only once."""
    samples, _ = snapshot.exposed
    return as_text(samples)


def as_text(samples: Iterable[Sample]) -> dict[str, float]:
    lines = [(sample.series.text, sample.value) for sample in samples]
    texts = dict(lines)
    assert len(texts) == len(lines), "a series is exposed twice"
    return texts


def values_of(snapshot: Snapshot, metric: Metric, **labels: str) -> dict[tuple[str, ...], float]:
    """Exposed values of one metric whose labels include these, by the values of its other labels."""
    samples, _ = snapshot.exposed
    found: dict[tuple[str, ...], float] = {}
    for series, value in samples:
        named = dict(zip((label.name for label in metric.labels), series.values, strict=False))
        if series.metric is metric and labels.items() <= named.items():
            found[tuple(text for name, text in named.items() if name not in labels)] = value
    return found
