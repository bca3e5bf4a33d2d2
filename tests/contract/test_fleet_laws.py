"""The laws of a fleet: batches, processes and restarts are how a stream comes, not what it is."""

import json
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.catalog import metrics
from exporter.monitor.coarse import with_slices
from exporter.monitor.events import LABEL, NO_ERROR, FeatureKey, Reject, tag
from exporter.monitor.features import BadReference
from exporter.monitor.fleet import Fleet
from exporter.monitor.panes import Window
from exporter.monitor.reference import Reference, Resolution
from exporter.monitor.settings import ModelSettings, Segmentation
from exporter.monitor.snapshot import Snapshot
from exporter.monitor.state import BLOCK_ROWS, BadState
from tests.builders import (
    COLOUR,
    COLOURS,
    MODEL,
    NOW,
    PREDICTION,
    X,
    a_batch,
    a_reference,
    an_input,
    columns_of,
    decoded,
    exposed,
)

OTHER = "other_model"
LEARNING = 'learn"ing, [éè]'
STRANGER = "stranger"
FAULTY = f"{metrics.FAULTY.name}{{"
WINDOW = Window(10.0, 6, "1m")
Y = an_input("y")
_columns = columns_of(300) | {Y: np.random.default_rng(1).normal(size=300)}
_KNOWN = {key: _columns[key] for key in (X, Y, COLOUR, PREDICTION)} | {LABEL: _columns[PREDICTION]}
_REFERENCES = {
    MODEL: [
        with_slices(
            a_reference(_KNOWN, resolution=Resolution(knots=12)), _KNOWN, {"region": ["eu", "us", "us"] * 100}, 1
        ),
        a_reference({X: np.arange(100.0), COLOUR: ["red", "mauve"] * 50}, version="2"),
    ],
    OTHER: [a_reference({X: _columns[X]}, model=OTHER)],
}


_MORE = [*_REFERENCES[MODEL], a_reference({X: np.arange(50.0), PREDICTION: ["0", "1"] * 25}, version="3")]


def a_new_fleet(references: Sequence[Reference] = _REFERENCES[MODEL]) -> Fleet:
    """One model with these references, one with one of its own, and one that learns."""
    common: dict[str, Any] = {"window": WINDOW, "min_samples": 20, "alpha": 0.05, "psi_threshold": 0.01}
    by_region: dict[str, Any] = {MODEL: {"segments": (Segmentation("region", 2),)}}
    settings = [ModelSettings(model, version="1", **common, **by_region.get(model, {})) for model in _REFERENCES]
    learning = ModelSettings(LEARNING, learn=BLOCK_ROWS + 8, learn_categorical=frozenset({"n"}), **common)
    return Fleet([*settings, learning], _REFERENCES | {MODEL: references})


# ---- a stream --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    """One prediction; `offset` is its time relative to the moment of arrival."""

    model: str
    version: str
    offset: float
    x: float
    colour: str | None
    prediction: str
    label: str | None
    latency_s: float
    error: int
    region: str | None = None


@dataclass(frozen=True)
class Step:
    """Events of one partition that arrive together after a while, or (without events) a tick."""

    wait: float
    partition: str
    events: tuple[Event, ...]
    rejects: int = 0
    repeat: int = 1


# Mostly in time; some late, some ahead of the clock, some ancient.
offsets = st.one_of(st.floats(-12, 5), st.floats(-12, 5), st.floats(-300, 60), st.sampled_from([-1.7e9, 1e9, -10, 10]))


REGIONS = ("eu", "us", None, "other")
"""As many as have slots."""


def events_of(
    models: Sequence[str], versions: Sequence[str], regions: Sequence[str | None] = REGIONS
) -> st.SearchStrategy[Event]:
    return st.builds(
        Event,
        model=st.sampled_from(models),
        version=st.sampled_from(versions),
        offset=offsets,
        x=st.one_of(st.floats(-3, 3), st.sampled_from([np.nan, np.inf, -np.inf, 50.0])),
        colour=st.sampled_from([*COLOURS, "mauve", "unheard of", None]),
        prediction=st.sampled_from(["0", "1", "2"]),
        label=st.sampled_from(["0", "1", "2", None]),
        latency_s=st.sampled_from([np.nan, 0.01, 3000.0, -1.0]),
        error=st.sampled_from([NO_ERROR, NO_ERROR, 0, 5]),
        region=st.sampled_from(regions),
    )


def steps_of(
    models: Sequence[str], versions: Sequence[str], regions: Sequence[str | None] = REGIONS
) -> st.SearchStrategy[Step]:
    return st.builds(
        Step,
        # Longer than a minute: partitions fall idle, and when all do, the window follows the clock.
        wait=st.one_of(st.floats(0, 15), st.sampled_from([0.0, 10.0, 61.0, 400.0])),
        partition=st.sampled_from(["a", "b", "c"]),
        events=st.lists(events_of(models, versions, regions), max_size=8).map(tuple),
        rejects=st.sampled_from([0, 0, 1]),
        repeat=st.sampled_from([1, 1, 1, 40]),
    )


streams = st.lists(
    steps_of([MODEL, MODEL, OTHER], ["1", "1", "2", "3"]).map(lambda step: replace(step, repeat=1)),
    min_size=1,
    max_size=25,
)
# Everything a process may meet: models that come and go, more versions than places, references learned and replaced.
lives = st.lists(
    st.one_of(
        steps_of([MODEL, OTHER, LEARNING, LEARNING, STRANGER], ["1", "1", "2", "3"]),
        steps_of([MODEL], ["1", "2"], "abcdefg"),
        steps_of([MODEL, STRANGER], [*"123456789", "ten, 10"]),
        st.sampled_from([_MORE, _REFERENCES[MODEL], _MORE[1:]]),
    ),
    min_size=1,
    max_size=25,
)


def a_long_life(seed: int, moves: int = 150) -> list[Step | Sequence[Reference]]:
    """A life in which much happens."""
    rng = random.Random(seed)

    def event() -> Event:
        return Event(
            model=rng.choice([MODEL, OTHER, LEARNING, STRANGER]),
            version=rng.choice([*"1111112", *"123456789", "ten, 10"]),
            offset=rng.choice([rng.uniform(-12, 5), rng.uniform(-300, 60), -1.7e9, 1e9]),
            x=rng.choice([rng.gauss(0, 1), np.nan, np.inf]),
            colour=rng.choice([*COLOURS, "mauve", None]),
            prediction=rng.choice("012"),
            label=rng.choice([*"012", None]),
            latency_s=rng.choice([np.nan, 0.01, 3000.0]),
            error=rng.choice([NO_ERROR, 0]),
            region=rng.choice([*"abcdef", "aaa" if rng.random() < 0.5 else "b", None]),
        )

    def move() -> Step | Sequence[Reference]:
        if rng.random() < 0.05:
            return rng.choice([_MORE, _REFERENCES[MODEL], _MORE[1:]])
        events = tuple(event() for _ in range(rng.choice([0, 1, 30])))
        return Step(rng.choice([0.0, 3.0, 12.0, 61.0]), rng.choice("abc"), events, repeat=rng.choice([1, 1, 9]))

    return [move() for _ in range(moves)]


def take(fleet: Fleet, step: Step, now: float) -> None:
    """One step into one fleet."""
    batches = []
    for model in dict.fromkeys(event.model for event in step.events):
        events = [event for event in step.events if event.model == model] * step.repeat
        schema = fleet.schema(model)
        columns: dict[Any, list[Any]] = {
            X: [event.x for event in events],
            Y: [event.x * len(event.prediction + event.version) for event in events],
            COLOUR: [event.colour for event in events],
            PREDICTION: [event.prediction for event in events],
            LABEL: [event.label for event in events],
            tag("region"): [event.region for event in events],
        }
        batches.append(
            a_batch(
                schema,
                {key: column for key, column in columns.items() if key in (*schema.numeric, *schema.categorical)},
                model=model,
                time=[now + event.offset for event in events],
                version=[event.version for event in events],
                latency_s=[event.latency_s for event in events],
                error=[event.error for event in events],
                partition=step.partition,
                raw=[raw(event) for event in events] if fleet.learns(model) else None,
            )
        )
    rejects = [Reject(0, "malformed_json", "")] * step.rejects
    if batches or rejects:
        fleet.observe(decoded(*batches, rejects=rejects, dropped={"label": step.rejects}), now)
        return
    for learner in fleet.learned():
        if not fleet.references(LEARNING):
            with suppress(BadReference):
                fleet.adopt(LEARNING, [learner.build(now)])
    fleet.tick(now)


def raw(event: Event) -> dict[FeatureKey, object]:
    """What a learner sees; each kind of value that an event may have is among it."""
    odd = [1, 1.0, True, None, "1", "é", [], {}, 10**30, -(10**30), 2**64 - 1, "x" * 300, "\ud800"]
    number = int(event.latency_s) if event.latency_s > 0 else len(event.version)
    row: dict[FeatureKey, object] = {X: event.x, Y: -event.x, COLOUR: event.colour, PREDICTION: event.prediction}
    row[LABEL] = event.label
    row[an_input("odd")] = odd[(number + 7 * int(event.prediction)) % len(odd)]
    return row if event.error == NO_ERROR else row | {an_input("n"): number}


def run(fleet: Fleet, stream: Sequence[Step], now: float = NOW) -> float:
    for step in stream:
        now += step.wait
        take(fleet, step, now)
    return now


def account(snapshot: Snapshot) -> dict[Any, Any]:
    """Every counter of a snapshot, bit by bit."""
    counts: dict[Any, Any] = {}
    for view in (one for whole in snapshot.models for one in (whole, *whole.segments)):
        parts = (
            *(view.drift_lifetime, view.drift_window, view.accuracy_lifetime, view.accuracy_window),
            *(view.moments_lifetime, view.moments_window),
        )
        counts[view.settings.name, view.version, view.segment and (view.segment.tag, view.segment.value)] = (
            view.traffic_lifetime.tolist(),
            view.traffic_window.tolist(),
            [None if part is None else part.tolist() for part in parts],
            view.end_pane,
            view.last_prediction,
            view.catching_up,
        )
    for source, feed in snapshot.feeds.items():
        counts[source] = feed.dump()
    return counts


def archived(fleet: Fleet) -> dict[Any, Any]:
    return {
        (view.model, view.version): {span: counts.tolist() for span, counts in view.spans.items()}
        for view in fleet.archived(0)
    }


# ---- laws ------------------------------------------------------------------------------------------------------------


@given(streams, st.integers(1, 3))
def test_a_stream_spread_over_processes_by_partition_and_merged_is_one_process(stream: list[Step], processes: int):
    one, several, now = a_new_fleet(), [a_new_fleet() for _ in range(processes)], NOW
    for step in stream:
        now += step.wait
        take(one, step, now)
        if step.events or step.rejects:
            owner = several["abc".index(step.partition) % processes]
            take(owner, step, now)
            for process in several:
                if process is not owner:
                    process.merge_watermarks(owner)
        else:
            for process in several:
                take(process, step, now)

    first, *others = several
    for other in others:
        first.merge(other)

    assert account(first.tick(now)) == account(one.tick(now))
    # A detector is a fold, not a sum: what several have seen of a sealed pane is less than one would know.
    sums, of_one = (
        {series: value for series, value in exposed(fleet.tick(now)).items() if not series.startswith(FAULTY)}
        for fleet in (first, one)
    )
    assert sums == of_one
    assert archived(first) == archived(one)


@given(streams)
def test_merging_with_an_empty_process_changes_nothing(stream: list[Step]):
    fleet, empty, merged_into = a_new_fleet(), a_new_fleet(), a_new_fleet()
    now = run(fleet, stream)
    before = account(fleet.tick(now))

    fleet.merge(empty)
    merged_into.merge(fleet)

    assert account(fleet.tick(now)) == account(merged_into.tick(now)) == before


@given(streams, st.randoms(use_true_random=False))
def test_where_a_batch_ends_does_not_matter(stream: list[Step], dice: Any):
    pieces = []
    for step in stream:
        cuts = sorted(dice.sample(range(len(step.events) + 1), min(2, len(step.events))))
        borders = [0, *cuts, len(step.events)]
        parts = [step.events[start:end] for start, end in pairwise(borders)]
        parts = [part for part in parts if part] or [()]
        pieces.append(replace(step, events=parts[0]))
        pieces += [replace(step, wait=0.0, events=part, rejects=0) for part in parts[1:]]

    whole, cut = a_new_fleet(), a_new_fleet()

    assert run(cut, pieces) == run(whole, stream)
    assert cut.dump() == whole.dump()


@given(streams, st.sets(st.integers(0, 24)))
def test_when_waiting_rows_are_counted_does_not_matter(stream: list[Step], moments: set[int]):
    """Taking a dump counts what waits; so does a busy minute. Neither is part of the stream."""
    quiet, busy, now = a_new_fleet(), a_new_fleet(), NOW
    for i, step in enumerate(stream):
        now += step.wait
        take(quiet, step, now)
        take(busy, step, now)
        if i in moments:
            busy.dump()

    assert quiet.dump() == busy.dump()


class Life:
    """A fleet, and what it is asked to do; the references that are given change with it."""

    def __init__(self) -> None:
        self.fleet, self.now = a_new_fleet(), NOW
        self.given: Sequence[Reference] = _REFERENCES[MODEL]
        self.kept: dict[str, bytes] = {}

    def go(self, move: Step | Sequence[Reference]) -> None:
        if isinstance(move, Step):
            self.now += move.wait
            take(self.fleet, move, self.now)
            if move.rejects:
                self.fleet.report("http", "connection", lost=3, redelivered=2)
        else:
            self.given = move
            self.fleet.adopt(MODEL, move)

    def keep(self) -> None:
        """As a store does."""
        for key, entry in self.fleet.changes().items():
            if entry is None:
                self.kept.pop(key, None)
            else:
                self.kept[key] = entry

    def die(self) -> None:
        """Go on in another process with what was kept."""
        self.fleet = a_new_fleet(self.given)
        self.fleet.load(self.kept)


@given(lives, st.sets(st.integers(0, 24)))
def test_changes_add_up_to_the_whole_state(moves: list[Any], moments: set[int]):
    life = Life()
    life.fleet.watch("http")
    for i, move in enumerate(moves):
        life.go(move)
        if i in moments:
            life.keep()
            assert life.kept == life.fleet.dump()
    life.keep()
    assert life.kept == life.fleet.dump()
    assert life.fleet.changes() == {}


@pytest.mark.parametrize("seed", range(4))
def test_changes_add_up_over_a_long_life_too(seed: int):
    life, gone = Life(), Counter[str]()
    life.fleet.watch("http")
    for i, move in enumerate(a_long_life(seed)):
        life.go(move)
        if i % (seed + 1) == 0:
            before = life.kept.keys() | set()
            life.keep()
            assert life.kept == life.fleet.dump()
            gone.update(json.loads(key)[0] for key in before - life.kept.keys())

    assert gone.keys() == {"traffic", "drift", "accuracy", "moments", "archive", "faults", "learner"}
    assert any("reference" in key for key in life.kept)


@pytest.mark.parametrize("seed", range(4))
def test_restarts_over_a_long_life_are_not_noticed(seed: int):
    moves = a_long_life(seed)
    assert_restarts_are_not_noticed(moves, set(range(seed, len(moves), 7)))


@given(lives, st.sets(st.integers(0, 24), min_size=1))
def test_a_restart_is_not_noticed(moves: list[Any], moments: set[int]):
    assert_restarts_are_not_noticed(moves, moments)


def assert_restarts_are_not_noticed(moves: list[Any], moments: set[int]):
    lasting, mortal = Life(), Life()
    for life in (lasting, mortal):
        life.fleet.watch("http")
    for i, move in enumerate(moves):
        for life in (lasting, mortal):
            life.go(move)
        if i in moments:
            mortal.keep()
            mortal.die()
            assert mortal.fleet.dump() == mortal.kept == lasting.fleet.dump()
            mortal.keep()
            assert mortal.kept == lasting.fleet.dump(), "the first changes of a process are everything"

    assert mortal.fleet.dump() == lasting.fleet.dump()
    ends = [life.fleet.tick(life.now + 5) for life in (lasting, mortal)]
    assert account(ends[0]) == account(ends[1])
    assert exposed(ends[0]) == exposed(ends[1])
    assert [ours.learning for ours in ends[0].models] == [theirs.learning for theirs in ends[1].models]
    for model in (MODEL, LEARNING):
        assert mortal.fleet.references(model) == lasting.fleet.references(model)
        ours, theirs = (life.fleet.schema(model) for life in (mortal, lasting))
        assert (ours.numeric, ours.categorical) == (theirs.numeric, theirs.categorical)


def damage(entries: dict[str, bytes], dice: Any) -> dict[str, bytes]:
    """Entries of which one is gone, added, cut, longer, of another, or differs by a byte or two."""
    entries, key = dict(entries), dice.choice(sorted(entries))
    if dice.random() < 0.4:
        key = min(entries)  # the light one
    entry, other = bytearray(entries[key]), dice.choice(sorted(entries))
    kind = dice.randrange(7)
    if kind == 0:
        del entries[key]
    elif kind == 1:
        entries[dice.choice([key + " ", '["drift","x","1",7]', "", "\u2028"])] = entries[other]
    elif kind == 2:
        entries[key] = bytes(entry[: dice.randrange(len(entry))])
    elif kind == 3:
        entries[key] = bytes(entry) + entries[other][:9]
    elif kind == 4:
        entries[key] = entries[other]
    else:
        for _ in range(kind - 4):
            entry[dice.randrange(len(entry))] = dice.randrange(256)
        entries[key] = bytes(entry)
    return entries


@given(lives, st.randoms(use_true_random=False))
def test_a_damaged_state_is_refused_or_harmless(moves: list[Any], dice: Any):
    """A count that is another is seen by a checksum or by nobody (app.state); nothing else can get in."""
    before = Life()
    before.fleet.watch("http")
    for move in moves[:12]:
        before.go(move)
    entries = before.fleet.dump()
    for _ in range(10):
        life = Life()
        life.given, life.now = before.given, before.now
        life.kept = damage(entries, dice)
        empty = a_new_fleet(life.given).dump()
        try:
            life.die()
        except BadState:
            assert life.fleet.dump() == empty, "nothing was taken over"
        else:
            life.fleet.watch("http")
            for move in moves[12:]:
                life.go(move)
            life.fleet.tick(life.now)
            life.keep()


@given(streams)
def test_lifetime_counters_never_go_back_and_windows_are_never_more_than_they(stream: list[Step]):
    fleet, now, before = a_new_fleet(), NOW, dict[Any, np.ndarray]()
    for step in stream:
        now += step.wait
        take(fleet, step, now)
        for view in fleet.tick(now).models:
            key = (view.settings.name, view.version)
            lifetime = view.traffic_lifetime
            assert (lifetime >= before.get(key, 0)).all()
            assert (view.traffic_window <= lifetime).all()
            assert (view.traffic_window >= 0).all()
            if view.drift_lifetime is not None and view.drift_window is not None:
                assert (view.drift_window <= view.drift_lifetime).all()
                assert (view.drift_window >= 0).all()
            before[key] = lifetime


@given(streams)
def test_the_window_is_what_a_table_of_all_events_says(stream: list[Step]):
    """Predictions in the window, counted anew from a list: by pane, per partition's own lateness."""
    fleet, now = a_new_fleet(), NOW
    newest: dict[tuple[str, str], float] = {}
    kept: list[tuple[str, str, float]] = []
    for step in stream:
        now += step.wait
        take(fleet, step, now)
        for event in step.events:
            time, key = now + event.offset, (event.model, step.partition)
            if time > now + WINDOW.pane_s:
                continue
            newest[key] = max(newest.get(key, -np.inf), time)
            if time // WINDOW.pane_s >= newest[key] // WINDOW.pane_s - 1:
                kept.append((event.model, event.version, time))

    for view in fleet.tick(now).models:
        expected = 0
        if view.window is not None:
            start, end = view.window
            own = [time for model, version, time in kept if (model, version) == (view.settings.name, view.version)]
            expected = sum(start <= time < end for time in own)
        # What comes when the window has already left its pane (a partition far behind) is in no window.
        assert view.traffic_readout.predictions <= expected
        if not any(event.offset < -2 * WINDOW.pane_s for step in stream for event in step.events):
            assert view.traffic_readout.predictions == expected


@given(streams)
def test_nothing_is_emitted_outside_the_catalogue(stream: list[Step]):
    fleet = a_new_fleet()
    snapshot = fleet.tick(run(fleet, stream))
    samples, withheld = snapshot.exposed

    assert withheld == 0
    assert len({sample.series.text for sample in samples}) == len(samples)
    for series, value in samples:
        assert series.metric in metrics.METRICS
        assert not np.isnan(value)
        if series.metric.kind == "counter":
            assert value >= 0
