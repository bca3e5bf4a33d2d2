"""The laws of a fleet: batches, processes and restarts are how a stream comes, not what it is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from exporter.catalog import metrics
from exporter.monitor.events import NO_ERROR, Reject
from exporter.monitor.fleet import Fleet
from exporter.monitor.panes import Window
from exporter.monitor.reference import Resolution
from exporter.monitor.settings import ModelSettings
from exporter.monitor.snapshot import Snapshot
from tests.builders import (
    COLOUR,
    COLOURS,
    MODEL,
    NOW,
    PREDICTION,
    X,
    a_batch,
    a_reference,
    columns_of,
    decoded,
    exposed,
)

OTHER = "other_model"
WINDOW = Window(10.0, 6, "1m")
_columns = columns_of(300)
_REFERENCES = {
    MODEL: [
        a_reference({key: _columns[key] for key in (X, COLOUR, PREDICTION)}, resolution=Resolution(knots=12)),
        a_reference({X: np.arange(100.0), COLOUR: ["red", "mauve"] * 50}, version="2"),
    ],
    OTHER: [a_reference({X: _columns[X]}, model=OTHER)],
}


def a_new_fleet() -> Fleet:
    settings = [
        ModelSettings(model, version="1", window=WINDOW, min_samples=20, alpha=0.05, psi_threshold=0.01)
        for model in _REFERENCES
    ]
    return Fleet(settings, _REFERENCES)


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
    latency_s: float
    error: int


@dataclass(frozen=True)
class Step:
    """Events of one partition that arrive together after a while, or (without events) a tick."""

    wait: float
    partition: str
    events: tuple[Event, ...]
    rejects: int = 0


# Mostly in time; some late, some ahead of the clock, some ancient.
offsets = st.one_of(st.floats(-12, 5), st.floats(-12, 5), st.floats(-300, 60), st.sampled_from([-1.7e9, 1e9, -10, 10]))
one_event = st.builds(
    Event,
    model=st.sampled_from([MODEL, MODEL, OTHER]),
    version=st.sampled_from(["1", "1", "2", "3"]),
    offset=offsets,
    x=st.one_of(st.floats(-3, 3), st.sampled_from([np.nan, np.inf, -np.inf, 50.0])),
    colour=st.sampled_from([*COLOURS, "mauve", "unheard of", None]),
    prediction=st.sampled_from(["0", "1", "2"]),
    latency_s=st.sampled_from([np.nan, 0.01, 3000.0, -1.0]),
    error=st.sampled_from([NO_ERROR, NO_ERROR, 0, 5]),
)
one_step = st.builds(
    Step,
    # Longer than a minute: partitions fall idle, and when all do, the window follows the clock.
    wait=st.one_of(st.floats(0, 15), st.sampled_from([0.0, 10.0, 61.0, 400.0])),
    partition=st.sampled_from(["a", "b", "c"]),
    events=st.lists(one_event, max_size=8).map(tuple),
    rejects=st.sampled_from([0, 0, 1]),
)
streams = st.lists(one_step, min_size=1, max_size=25)


def take(fleet: Fleet, step: Step, now: float) -> None:
    """One step into one fleet."""
    batches = []
    for model in dict.fromkeys(event.model for event in step.events):
        events = [event for event in step.events if event.model == model]
        schema = fleet.schema(model)
        columns: dict[Any, list[Any]] = {X: [event.x for event in events]}
        if model == MODEL:
            columns |= {
                COLOUR: [event.colour for event in events],
                PREDICTION: [event.prediction for event in events],
            }
        batches.append(
            a_batch(
                schema,
                columns,
                model=model,
                time=[now + event.offset for event in events],
                version=[event.version for event in events],
                latency_s=[event.latency_s for event in events],
                error=[event.error for event in events],
                partition=step.partition,
            )
        )
    rejects = [Reject(0, "malformed_json", "")] * step.rejects
    if batches or rejects:
        fleet.observe(decoded(*batches, rejects=rejects, dropped={"label": step.rejects}), now)
    else:
        fleet.tick(now)


def run(fleet: Fleet, stream: Sequence[Step], now: float = NOW) -> float:
    for step in stream:
        now += step.wait
        take(fleet, step, now)
    return now


def account(snapshot: Snapshot) -> dict[Any, Any]:
    """Every counter of a snapshot, bit by bit."""
    counts: dict[Any, Any] = {}
    for view in snapshot.models:
        drift = (None, None) if view.drift is None else (view.drift_lifetime, view.drift_window)
        counts[view.settings.name, view.version] = (
            view.traffic_lifetime.tolist(),
            view.traffic_window.tolist(),
            [None if part is None else part.tolist() for part in drift],
            view.end_pane,
            view.last_prediction,
            view.catching_up,
        )
    for source, feed in snapshot.feeds.items():
        counts[source] = feed.dump()
    return counts


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
    assert exposed(first.tick(now)) == exposed(one.tick(now))


@given(streams)
def test_merging_with_an_empty_process_changes_nothing(stream: list[Step]):
    fleet, empty, merged_into = a_new_fleet(), a_new_fleet(), a_new_fleet()
    now = run(fleet, stream)
    before = account(fleet.tick(now))

    fleet.merge(empty)
    merged_into.merge(fleet)

    assert account(fleet.tick(now)) == account(merged_into.tick(now)) == before


@given(streams, st.randoms(use_true_random=False))
def test_where_a_batch_ends_does_not_matter(stream: list[Step], random: Any):
    pieces = []
    for step in stream:
        cuts = sorted(random.sample(range(len(step.events) + 1), min(2, len(step.events))))
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


@given(streams, st.integers(0, 24))
def test_a_restart_is_not_noticed(stream: list[Step], moment: int):
    lasting, now = a_new_fleet(), NOW
    for step in stream[:moment]:
        now += step.wait
        take(lasting, step, now)

    state = lasting.dump()
    written = msgspec.msgpack.encode(state)
    again = a_new_fleet()
    again.load(msgspec.msgpack.decode(written))
    assert again.dump() == state
    assert msgspec.msgpack.decode(written) == state, "plain values only"

    run(lasting, stream[moment:], now)
    end = run(again, stream[moment:], now)
    assert again.dump() == lasting.dump()
    assert account(again.tick(end)) == account(lasting.tick(end))


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
