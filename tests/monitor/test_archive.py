"""Sealed spans as a judge of canaries gets them: events into fleets, spans out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from exporter.monitor.archive import ArchiveView
from exporter.monitor.fleet import Fleet
from exporter.monitor.panes import Window
from exporter.monitor.reference import Reference
from tests.builders import NOW, X, a_fleet, a_reference, observe

MINUTE = 60
DAY = 86_400
START = NOW - NOW % MINUTE
"""The beginning of a minute."""


def known(top: float = 100.0, **options: Any) -> Reference:
    return a_reference({X: np.arange(top)}, **options)


def minutes(fleet: Fleet, count: int, start: float = START, rows: int = 10, **options: Any) -> None:
    """So many minutes, each with rows and a tick at its end."""
    for minute in range(count):
        time = start + minute * MINUTE
        observe(fleet, {X: [float(minute % 100)] * rows}, time=time + 1, now=time + 1, **options)
        fleet.tick(time + MINUTE - 1)


def spans(fleet: Fleet, since: float = 0.0, version: str = "1") -> dict[float, int]:
    """Predictions by start, relative to START."""
    (view,) = [one for one in fleet.archived(since) if one.version == version]
    return {span * view.span_s - START: predictions(view, counts) for span, counts in view.spans.items()}


def predictions(view: ArchiveView, counts: np.ndarray) -> int:
    return view.traffic.read(counts[: view.traffic.width]).predictions


def test_a_pane_is_sealed_when_nothing_can_come_for_it_any_more():
    fleet = a_fleet(known())
    minutes(fleet, 5)
    # The newest pane and the one before are open: events may be a pane late.
    assert spans(fleet) == {0: 10, 60: 10, 120: 10}
    observe(fleet, {X: [1.0]}, time=START + 3 * MINUTE, now=START + 5 * MINUTE)
    minutes(fleet, 1, START + 5 * MINUTE)
    assert spans(fleet)[180] == 11


def test_bins_of_every_feature_are_there():
    fleet = a_fleet(known())
    minutes(fleet, 4)
    (view,) = fleet.archived(0)
    assert view.drift is not None
    assert view.reference == known().id
    for counts in view.spans.values():
        bins = counts[view.traffic.width :]
        assert len(bins) == len(view.drift.bins)
        assert bins.sum() == 10


def test_what_ended_by_then_is_left_out():
    fleet = a_fleet(known())
    minutes(fleet, 6)
    assert spans(fleet, since=START + 120) == {120: 10, 180: 10}
    assert spans(fleet, since=START + 119) == {60: 10, 120: 10, 180: 10}


def test_minutes_without_events_are_not_there():
    fleet = a_fleet(known())
    minutes(fleet, 1)
    minutes(fleet, 4, START + 10 * MINUTE)
    assert spans(fleet) == {0: 10, 600: 10, 660: 10}


def test_what_comes_late_for_a_sealed_pane_is_in_the_window_only():
    fleet = a_fleet(known())
    minutes(fleet, 1, partition="idle")
    minutes(fleet, 5, START + MINUTE, partition="busy")
    before = spans(fleet)
    observe(fleet, {X: [1.0] * 7}, time=START + 2 * MINUTE, now=START + 6 * MINUTE, partition="idle")
    fleet.tick(START + 6 * MINUTE)
    assert {start: spans(fleet)[start] for start in before} == before


def test_a_day_is_kept_and_no_more():
    fleet = a_fleet(known())
    minutes(fleet, DAY // MINUTE + 200, rows=1)
    kept = sorted(spans(fleet))
    assert DAY <= kept[-1] + MINUTE - kept[0] <= DAY + MINUTE


@pytest.mark.parametrize("pane_s", [0.5, 7.0, 60.0, 600.0])
def test_short_panes_are_added_up_to_a_minute(pane_s: float):
    fleet = a_fleet(known(), window=Window(pane_s, 10, "w"))
    span_s = fleet.archived(0)[0].span_s
    assert span_s == max(pane_s, np.ceil(60 / pane_s) * pane_s)
    steps = 400
    start = np.ceil(NOW / span_s) * span_s
    for step in range(steps):
        time = start + step * pane_s
        observe(fleet, {X: [1.0]}, time=time, now=time)
        fleet.tick(time)
    (view,) = fleet.archived(0)
    assert view.spans
    assert all(predictions(view, counts) == span_s / pane_s for counts in view.spans.values())


def test_versions_are_kept_apart():
    fleet = a_fleet(known())
    minutes(fleet, 4)
    minutes(fleet, 4, START + 4 * MINUTE, version="2")
    assert spans(fleet) == {0: 10, 60: 10, 120: 10, 180: 10}
    assert spans(fleet, version="2") == {240: 10, 300: 10}


def test_spans_of_several_processes_add_up_to_those_of_one():
    one, parts = a_fleet(known()), [a_fleet(known()) for _ in range(2)]
    for minute in range(6):
        time = START + minute * MINUTE
        for place, partition in enumerate("ab"):
            for fleet in (one, parts[place]):
                observe(fleet, {X: [float(place)] * (minute + 1)}, time=time, partition=partition)
            parts[1 - place].merge_watermarks(parts[place])
        for fleet in (one, *parts):
            fleet.tick(time)
    assert spans(one) == {start: 2 * count for start, count in spans(parts[0]).items()}
    parts[0].merge(parts[1])
    assert everything([parts[0]]) == everything([one])


def test_another_reference_starts_another_archive_and_the_same_goes_on():
    fleet = a_fleet(known())
    minutes(fleet, 4)
    fleet.adopt("car_loan", [known(), known(9.0, version="7")])
    assert spans(fleet)
    fleet.adopt("car_loan", [known(50.0)])
    assert spans(fleet) == {}
    minutes(fleet, 4, START + 4 * MINUTE)
    assert spans(fleet)


def test_a_restart_changes_nothing_unless_the_reference_does():
    fleet = a_fleet(known())
    minutes(fleet, 6)
    same, other = a_fleet(known()), a_fleet(known(50.0))
    for restarted in (same, other):
        restarted.load(fleet.dump())
    assert everything([same]) == everything([fleet])
    assert spans(other) == {}
    for one in (fleet, same):
        minutes(one, 3, START + 6 * MINUTE)
    assert everything([same]) == everything([fleet])


def test_a_model_without_a_reference_has_its_traffic():
    fleet = a_fleet()
    for minute in range(4):
        observe(fleet, rows=10, time=START + minute * MINUTE)
        fleet.tick(START + minute * MINUTE)
    (view,) = fleet.archived(0)
    assert (view.reference, view.drift) == (None, None)
    assert spans(fleet) == {0: 10, 60: 10}


def everything(fleets: Sequence[Fleet]) -> list[Any]:
    return [
        {span: counts.tolist() for span, counts in view.spans.items()} for fleet in fleets for view in fleet.archived(0)
    ]
