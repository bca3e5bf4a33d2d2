"""Healthy traffic of models with 50 features each, through configuration and fleet, and the false pages that it causes.

Windows of 15 minutes, looked at in each of their 60 panes as Prometheus would, a volume with the season of a day, and
no effect asked for: only significance protects. Models side by side are one model here, with as many times the features
and the pages: each test has the same level, and a look costs a seventh. They share how many events come when; whose
pages are whose is told by the feature, and a model of a given seed sees the same whoever stands beside it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from exporter.app.config import model_settings, parse
from exporter.monitor.events import NO_ERROR, Batch, Column, FeatureKey, Schema
from exporter.monitor.features import Feature
from exporter.monitor.fleet import Fleet
from exporter.monitor.reference import Reference, Resolution, build
from tests.builders import a_batch, decoded

MODEL = "healthy"
NUMBERS, CATEGORIES = 25, 25
FEATURES = NUMBERS + CATEGORIES
SHARES = 10
"""Values that a category has, all as frequent; numbers have deciles."""
REFERENCE_ROWS = 40_000
"""So many that 20 blocks are as large as the largest window: a feature that has no such blocks pages nobody."""
DAY_S = 86_400
WINDOW_S, PANES = 900, 60
PANE_S = WINDOW_S // PANES
START = 1_800_057_600
"""A midnight."""
SLOW = "slow"
"""A version whose partition the windows wait for: rows of a whole window are counted at once, and seen pane by pane."""
AHEAD_S = WINDOW_S - PANE_S
"""How far the clock, and the partition that is counted at once, are ahead of where the window ends."""


@dataclass(frozen=True)
class Healthy:
    """Models, by their seeds, with a budget of one page in `per_days`, and `n` events a window in the mean."""

    n: int
    seeds: tuple[int, ...]
    per_days: int


@dataclass
class Seen:
    """Looks at all features, features drifted in them, pages by place of the model, incidents, events of each model.

    A page is a feature that may page and is drifted, and was not so a look before; an incident one that was not for a
    whole window, so that the looks have no row in common.
    """

    looks: int = 0
    drifted: int = 0
    pages: Counter[int] = field(default_factory=Counter)
    incidents: int = 0
    events: int = 0


def days(healthy: Healthy) -> Iterator[Seen]:
    """Let day after day go by, and look at every pane; what was seen so far, the same object each time."""
    rngs = [np.random.default_rng([healthy.n, seed]) for seed in healthy.seeds]
    traffic = np.random.default_rng(healthy.n)
    fleet = configured(references(healthy, rngs), healthy.per_days)
    schema = fleet.schema(MODEL)
    seen = Seen()
    tests = FEATURES * len(rngs)
    last = np.full(tests, -PANES - 1)
    while True:
        end = START + PANE_S * seen.looks
        now = end + AHEAD_S
        fleet.observe(decoded(a_batch(schema, model=MODEL, version=SLOW, partition=SLOW, time=end)), now)
        if seen.looks % PANES == 0:
            batch = window_of(schema, healthy.n, end, traffic, rngs)
            fleet.observe(decoded(batch), now)
            seen.events += len(batch)
        paging = look(fleet, now, tests)
        since = seen.looks - last[paging]
        seen.drifted += len(paging)
        seen.pages += Counter((paging[since > 1] // FEATURES).tolist())
        seen.incidents += int(np.sum(since >= PANES))
        last[paging] = seen.looks
        seen.looks += 1
        if seen.looks * PANE_S % DAY_S == 0:
            yield seen


def configured(known: Sequence[Reference], per_days: int) -> Fleet:
    """A fleet as `run` makes it of a configuration file."""
    model = {
        "name": MODEL,
        "version": known[0].version,
        "window": f"{WINDOW_S}s",
        "min_samples": 200,  # the quietest windows of 500 have 250
        "thresholds": {"psi": 0.0001},  # less than chance makes of any of these windows
        "budget": {"pages": len(known[0].features) // FEATURES, "per": f"{per_days}d"},
    }
    (config,) = parse(msgspec.json.encode({"models": [model]}).decode(), "quarters.yaml", {}).models
    return Fleet([model_settings(config)], {MODEL: known})


def references(healthy: Healthy, rngs: Sequence[np.random.Generator]) -> tuple[Reference, Reference]:
    """What the models were trained on, each on rows of its own; and a small one for the slow version."""
    features: list[Feature] = []
    for seed, rng in zip(healthy.seeds, rngs, strict=True):
        columns: dict[FeatureKey, Column] = {
            FeatureKey("input", f"{seed}-n{i:02d}"): rng.random(REFERENCE_ROWS) for i in range(NUMBERS)
        }
        for i in range(CATEGORIES):
            column = rng.integers(SHARES, size=REFERENCE_ROWS).astype("U1")
            columns[FeatureKey("input", f"{seed}-c{i:02d}")] = column.tolist()
        # Knots at the deciles are all that PSI needs: KS, which alerts nobody, is coarser for it.
        one = build(columns, model=MODEL, version="1", created=START, resolution=Resolution(knots=SHARES - 1))
        features += one.features
    together = msgspec.structs.replace(one, features=tuple(features))
    small: dict[FeatureKey, Column] = {FeatureKey("input", features[0].name): np.zeros(100)}
    return together, build(small, model=MODEL, version=SLOW, created=START)


def window_of(
    schema: Schema, n: int, start: int, traffic: np.random.Generator, rngs: Sequence[np.random.Generator]
) -> Batch:
    """The events of a window, in the order of time. Half as many come at night, half as many again at noon."""
    times = start + PANE_S * np.arange(PANES)
    volume = traffic.poisson(n / PANES * (1 + 0.5 * np.sin(2 * np.pi * times / DAY_S)))
    rows = int(volume.sum())
    numeric = np.empty((len(schema.numeric), rows))
    codes = np.empty((len(schema.categorical), rows), np.int32)
    for place, rng in enumerate(rngs):
        rng.random(out=numeric[NUMBERS * place : NUMBERS * (place + 1)])
        codes[CATEGORIES * place : CATEGORIES * (place + 1)] = rng.integers(
            SHARES, size=(CATEGORIES, rows), dtype=np.int32
        )
    return Batch(
        model=MODEL,
        partition="fast",
        versions=("1",),
        version=np.zeros(rows, np.int64),
        time=np.repeat(times, volume).astype(np.float64),
        numeric=numeric.T,
        codes=codes.T,
        latency_s=np.full(rows, np.nan),
        error=np.full(rows, NO_ERROR, np.int16),
        schema=schema,
    )


def look(fleet: Fleet, now: float, tests: int) -> NDArray[np.intp]:
    """Which features would page."""
    snapshot = fleet.tick(now)
    (model,) = (one for one in snapshot.models if one.version != SLOW)
    readout = model.drift_readout
    assert readout is not None
    assert not model.catching_up
    assert model.window is not None
    assert model.window[1] == now - AHEAD_S + PANE_S
    assert len(readout.drifted) == tests == FEATURES * model.settings.budget.pages
    return np.flatnonzero(readout.drifted & ~readout.extrapolated)
