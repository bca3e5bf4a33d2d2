"""The join as a user sees it: predictions and labels into a fleet, outcomes and the account of labels out."""

import math
from collections.abc import Sequence
from itertools import pairwise
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.monitor import blocks
from exporter.monitor.events import LABEL
from exporter.monitor.fleet import Fleet
from exporter.monitor.panes import sliding_window
from tests.builders import MODEL, NOW, PREDICTION, SCORE, a_fleet, a_reference, exposed, observe, view
from tests.monitor.fast_labels import ACCURACY, fast_labels
from tests.monitor.joining import (
    DAY,
    HOUR,
    MATURITY_S,
    Book,
    Label,
    Prediction,
    a_joining_fleet,
    account,
    confusion,
    end,
    feed,
    look,
    matured,
)
from tests.monitor.test_accuracy import a_model

LATER = NOW + 3 * MATURITY_S


class TestSettling:
    def test_a_prediction_counts_when_it_is_mature_and_not_before(self):
        fleet = a_joining_fleet()
        feed(fleet, [Prediction("a", NOW), Label("a", NOW + HOUR, "0")])
        look(fleet, NOW + HOUR)
        assert account(fleet, NOW + HOUR).pending == 1
        assert matured(fleet, NOW + HOUR) == 0
        end(fleet, NOW + MATURITY_S + HOUR)
        assert account(fleet, LATER).pending == 0
        assert confusion(fleet, LATER) == {("1", "0"): 1}

    def test_the_last_label_counts(self):
        fleet = a_joining_fleet()
        labels = [Label("a", NOW + 60, "0"), Label("a", NOW + 120, "0"), Label("a", NOW + 180, "1")]
        feed(fleet, [Prediction("a", NOW), *labels])
        end(fleet, LATER)
        assert confusion(fleet, LATER) == {("1", "1"): 1}
        tally = account(fleet, LATER).tally
        assert (tally.received, tally.duplicate, tally.corrected) == (3, 1, 1)

    def test_the_last_label_is_that_of_the_latest_time_in_whatever_order_they_come(self):
        fleet = a_joining_fleet()
        feed(fleet, [Prediction("a", NOW), Label("a", NOW + 180, "1"), Label("a", NOW + 60, "0")])
        end(fleet, LATER)
        assert confusion(fleet, LATER) == {("1", "1"): 1}

    def test_a_label_can_come_before_its_prediction(self):
        fleet = a_joining_fleet()
        feed(fleet, [Label("a", NOW, "0")])
        look(fleet, NOW + 1)
        look(fleet, NOW + 62)
        feed(fleet, [Prediction("a", NOW + 120)])
        end(fleet, LATER)
        assert confusion(fleet, LATER) == {("1", "0"): 1}
        assert account(fleet, LATER).tally.unmatched == 0

    @pytest.mark.parametrize("looked_between", [False, True])
    def test_of_labels_of_one_time_the_last_that_came_counts(self, looked_between: bool):
        fleet = a_joining_fleet()
        feed(fleet, [Label("a", NOW, "0")])
        look(fleet, NOW)
        feed(fleet, [Prediction("a", NOW)])
        if looked_between:
            look(fleet, NOW + 61)
        feed(fleet, [Label("a", NOW, "1")])
        end(fleet, LATER)
        assert confusion(fleet, LATER) == {("1", "1"): 1}

    def test_a_label_that_nobody_asked_for_is_counted(self):
        fleet = a_joining_fleet()
        feed(fleet, [Prediction("a", NOW), Label("b", NOW + 60)])
        end(fleet, LATER)
        assert account(fleet, LATER).tally.unmatched == 1
        assert matured(fleet, LATER) == 1
        assert confusion(fleet, LATER) == {}

    def test_a_label_that_is_too_old_is_late_before_and_after_settling(self):
        fleet = a_joining_fleet()
        feed(fleet, [Prediction("a", NOW), Prediction("b", NOW)])
        feed(fleet, [Label("a", NOW + MATURITY_S + 1)])
        look(fleet, NOW + MATURITY_S + 1)
        end(fleet, NOW + 1.2 * MATURITY_S)
        feed(fleet, [Label("b", NOW + 1.5 * MATURITY_S)])
        end(fleet, NOW + 1.6 * MATURITY_S)
        assert account(fleet, LATER).tally.late == 2
        assert confusion(fleet, LATER) == {}
        assert matured(fleet, LATER) == 2

    def test_all_predictions_of_an_id_have_its_label(self):
        fleet = a_joining_fleet()
        both = [Prediction("a", NOW, "1"), Prediction("a", NOW, "0", version="2")]
        feed(fleet, [*both, Label("a", NOW + 60, "1")])
        end(fleet, LATER)
        assert confusion(fleet, LATER) == {("1", "1"): 1}
        assert confusion(fleet, LATER, "2") == {("0", "1"): 1}

    def test_quality_is_of_predictions_that_became_mature_in_the_window(self):
        fleet = a_joining_fleet()
        feed(fleet, [Prediction(str(i), NOW - i) for i in range(100)])
        feed(fleet, [Label(str(i), NOW + 60) for i in range(100)])
        moment = NOW + MATURITY_S + 900
        for later in (moment, moment + 61, moment + 122):
            look(fleet, later)
        readout = view(fleet.tick(moment + 122)).accuracy_readout
        assert readout is not None
        assert readout.labels == 100
        assert readout.coverage == 1
        readout = view(fleet.tick(moment + 2 * HOUR)).accuracy_readout
        assert readout is not None
        assert readout.labels == 0

    def test_the_estimate_does_not_wait(self):
        fleet = a_joining_fleet(min_samples=100)
        rng = np.random.default_rng(1)
        feed(fleet, [Prediction(str(i), NOW, "1" if p > 0.5 else "0", p) for i, p in enumerate(rng.random(1000))])
        readout = view(fleet.tick(NOW)).accuracy_readout
        assert readout is not None
        assert readout.estimates["accuracy"].value == pytest.approx(0.75, abs=0.03)
        assert readout.state == "no_labels"


class TestBounds:
    def test_predictions_beyond_the_limit_do_not_wait_and_are_counted(self):
        fleet = a_joining_fleet(max_pending=2)
        feed(fleet, [Prediction(str(i), NOW) for i in range(5)])
        view = account(fleet, NOW)
        assert (view.pending, view.tally.unjoined) == (2, {"max_pending": 3})
        end(fleet, LATER)
        assert matured(fleet, LATER) == 2

    def test_of_labels_that_find_nothing_the_oldest_are_given_up(self):
        fleet = a_joining_fleet(max_pending=3)
        feed(fleet, [Label(str(i), NOW + 900 * i) for i in range(5)], now=NOW + HOUR)
        look(fleet, NOW + HOUR, None)
        assert account(fleet, NOW + HOUR).tally.unmatched == 2
        feed(fleet, [Prediction("4", NOW + HOUR), Prediction("0", NOW + HOUR)])
        end(fleet, NOW + 2 * MATURITY_S)
        assert confusion(fleet, LATER) == {("1", "1"): 1}

    def test_predictions_without_an_id_or_ahead_of_the_clock_do_not_wait(self):
        fleet = a_joining_fleet()
        feed(fleet, [Prediction("", NOW), Prediction("a", NOW + DAY)], now=NOW)
        assert account(fleet, NOW).tally.unjoined == {"no_id": 1, "future": 1}

    def test_a_sample_of_the_ids_is_the_same_for_predictions_and_labels(self):
        fleet = a_joining_fleet(sample=0.25)
        names = [f"id-{i}" for i in range(4000)]
        feed(fleet, [Prediction(name, NOW) for name in names])
        feed(fleet, [Label(name, NOW + 60) for name in names])
        end(fleet, LATER)
        tally = account(fleet, LATER).tally
        assert matured(fleet, LATER) == pytest.approx(1000, abs=120)
        assert confusion(fleet, LATER) == {("1", "1"): matured(fleet, LATER)}
        assert (tally.received, tally.unmatched) == (4000, 0)

    def test_delays_are_counted_so_that_a_maturity_can_be_chosen(self):
        fleet = a_joining_fleet()
        feed(fleet, [Prediction("a", NOW), Label("a", NOW + 90), Prediction("b", NOW), Label("b", NOW + 2 * HOUR)])
        end(fleet, NOW + 3 * HOUR)
        lines = exposed(fleet.tick(NOW + 3 * HOUR))
        assert lines['ml_label_delay_seconds_bucket{model="car_loan",le="60.0"}'] == 0
        assert lines['ml_label_delay_seconds_bucket{model="car_loan",le="300.0"}'] == 1
        assert lines['ml_label_delay_seconds_bucket{model="car_loan",le="10800.0"}'] == 2
        assert lines['ml_label_delay_seconds_sum{model="car_loan"}'] == 90 + 2 * HOUR


class TestWaitingForLabels:
    def test_nothing_is_settled_while_the_source_of_labels_cannot_be_asked(self):
        fleet = a_joining_fleet()
        feed(fleet, [Prediction("a", NOW)])
        for later in (LATER, LATER + 61, LATER + 122):
            look(fleet, later, None)
        assert account(fleet, LATER).pending == 1
        feed(fleet, [Label("a", NOW + 60, "0")], now=LATER + 122)
        end(fleet, LATER + 200)
        assert confusion(fleet, LATER + 400) == {("1", "0"): 1}

    def test_a_partition_that_has_labels_to_deliver_is_waited_for_a_minute(self):
        fleet = a_joining_fleet()
        feed(fleet, [Prediction("a", NOW)])
        for later in (LATER, LATER + 30, LATER + 59):
            look(fleet, later, {"l"})
        assert account(fleet, LATER).pending == 1
        look(fleet, LATER + 61, {"l"})
        assert account(fleet, LATER + 61).pending == 0

    def test_a_partition_of_predictions_is_not_waited_for_though_it_may_bring_labels_too(self):
        fleet = a_joining_fleet()
        feed(fleet, [Prediction("a", NOW), Label("a", NOW + HOUR, "0")])
        feed(fleet, [Prediction("b", LATER), Label("c", LATER)])
        look(fleet, LATER, to_come={"p"})
        assert confusion(fleet, LATER) == {("1", "0"): 1}

    def test_labels_far_behind_hold_the_predictions(self):
        fleet = a_joining_fleet()
        feed(fleet, [Prediction("a", NOW), Prediction("c", NOW + 2 * MATURITY_S)])
        feed(fleet, [Label("b", NOW - DAY)], now=NOW + 2 * MATURITY_S)
        look(fleet, NOW + 2 * MATURITY_S)
        assert account(fleet, NOW + 2 * MATURITY_S).pending == 2


def events_of(seed: int, ids: int) -> list[Prediction | Label]:
    """Predictions of a day; labels that are missing, early, doubled, corrected, late or of nobody. By time."""
    rng = np.random.default_rng(seed)
    found: list[Prediction | Label] = []
    for number in range(ids):
        time = NOW + float(rng.uniform(0, DAY))
        found.append(Prediction(str(number), time, str(rng.integers(2)), float(rng.random())))
        for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
            delay = float(rng.choice([rng.uniform(-1.5 * HOUR, 0), rng.exponential(2 * HOUR), rng.uniform(0, DAY)]))
            found.append(Label(str(number), time + delay, str(rng.integers(2))))
    found += [Label(f"nobody-{number}", NOW + float(rng.uniform(0, DAY))) for number in range(ids // 10)]
    return sorted(found, key=lambda event: event.time)


def play(fleet: Fleet, events: Sequence[Prediction | Label], cuts: Sequence[int], *, restart: int = -1) -> Fleet:
    """Events in pieces, with a look after each, and once a new process that takes over."""
    for number, (first, last) in enumerate(pairwise([0, *sorted(cuts), len(events)])):
        feed(fleet, events[first:last])
        if last:
            look(fleet, events[last - 1].time)
        if number == restart:
            state = fleet.dump()
            fleet = a_joining_fleet()
            fleet.load(state)
    end(fleet, NOW + 5 * DAY)
    return fleet


@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(0, 350), max_size=12), restart=st.integers(0, 12))
@settings(max_examples=15, deadline=None)
def test_the_account_is_that_of_a_bookkeeper_however_the_stream_is_cut(seed: int, cuts: list[int], restart: int):
    events = events_of(seed, 150)
    fleet = play(a_joining_fleet(), events, [cut for cut in cuts if cut < len(events)], restart=restart)
    book = Book().settle(events)
    tally = account(fleet, NOW + 5 * DAY).tally
    assert confusion(fleet, NOW + 5 * DAY) == dict(book.confusion)
    assert matured(fleet, NOW + 5 * DAY) == book.matured
    assert (tally.duplicate, tally.corrected, tally.late, tally.unmatched) == (
        book.duplicate,
        book.corrected,
        book.late,
        book.unmatched,
    )


def test_many_small_blocks_are_as_good_as_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 16)
    monkeypatch.setattr(blocks, "_FIRST_ROWS", 4)
    events = events_of(7, 500)
    fleet = play(a_joining_fleet(), events, range(0, len(events), 50), restart=7)
    assert confusion(fleet, NOW + 5 * DAY) == dict(Book().settle(events).confusion)


def test_nothing_is_left_once_all_is_settled():
    fleet = play(a_joining_fleet(), events_of(3, 200), [100])
    end(fleet, NOW + 9 * DAY)
    assert not fleet.block_keys()


def test_a_stream_spread_over_processes_by_id_equals_one():
    events = events_of(11, 400)
    one, first, second = (a_joining_fleet() for _ in range(3))
    for start in range(0, len(events), 40):
        part = events[start : start + 40]
        feed(one, part)
        mine = [event for event in part if crc32(event.id.encode()) % 2 == 0]
        feed(first, mine, now=part[-1].time, partition="")
        feed(second, [event for event in part if event not in mine], now=part[-1].time)
    first.merge(second)
    for fleet in (one, first):
        end(fleet, NOW + 5 * DAY)
    assert confusion(one, NOW + 5 * DAY) == confusion(first, NOW + 5 * DAY)
    assert account(one, NOW + 5 * DAY) == account(first, NOW + 5 * DAY)


def test_what_waits_survives_another_reference_with_other_classes():
    fleet = a_joining_fleet()
    feed(fleet, [Prediction("a", NOW, "1"), Prediction("b", NOW, "0"), Label("a", NOW + 60, "0")])
    columns = a_model(2000, seed=5)
    columns = {
        key: ["x" if one == "1" else one for one in part] if isinstance(part, list) else part
        for key, part in columns.items()
    }
    fleet.adopt(MODEL, [a_reference(columns, created=NOW)])
    feed(fleet, [Label("b", NOW + 120, "x")])
    end(fleet, LATER)
    assert confusion(fleet, LATER) == {("other", "0"): 1, ("0", "x"): 1}


def test_blocks_that_are_lost_are_counted():
    fleet = a_joining_fleet()
    feed(fleet, [Prediction("a", NOW), Prediction("b", NOW + HOUR)])
    state = {key: value for key, value in fleet.dump().items() if not blocks.is_block(key)}
    again = a_joining_fleet()
    again.load(state)
    end(again, LATER)
    assert account(again, LATER).tally.unjoined == {"lost": 2}
    assert matured(again, LATER) == 0
    assert math.isfinite(account(again, LATER).pending)


class TestFastLabels:
    """Statistics 5.2: labels of positives come at once, those of negatives after a day."""

    HOURS, WINDOW_S = 96, 24 * HOUR

    def test_no_window_sees_but_mature_predictions(self):
        predictions, labels = fast_labels(40_000, self.HOURS, NOW, seed=3)
        fleet = a_joining_fleet(27 * HOUR, window=sliding_window(self.WINDOW_S, "24h"))
        events: list[Prediction | Label] = [Prediction(p.id, p.time, str(p.prediction), p.score) for p in predictions]
        events += [Label(one.id, one.time, str(one.label)) for one in labels]
        events.sort(key=lambda event: event.time)
        seen, step = [], 0
        for hour in range(0, self.HOURS, 4):
            until = NOW + hour * HOUR
            last = next(place for place, event in enumerate(events) if event.time >= until)
            feed(fleet, events[step:last])
            step = last
            look(fleet, until)
            readout = view(fleet.tick(until)).accuracy_readout
            assert readout is not None
            if readout.labels > 3000:
                seen.append((readout.coverage, readout.values["accuracy"], readout.values["precision"]))
        assert len(seen) >= 10
        for coverage, accuracy, precision in seen:
            assert coverage == pytest.approx(0.953, abs=0.01)
            assert accuracy.lower < ACCURACY < accuracy.upper + 0.002
            assert accuracy.value == pytest.approx(0.966, abs=0.008)
            assert precision.value == pytest.approx(0.665, abs=0.07)

    def test_labels_that_settle_at_once_lie(self):
        """What the join is for: the same labels, each counted when it comes."""
        predictions, labels = fast_labels(40_000, self.HOURS, NOW, seed=3)
        end_of_stream = NOW + self.HOURS * HOUR
        told = {one.id: one.label for one in labels if one.time <= end_of_stream}
        lately = [one for one in predictions if one.time > end_of_stream - 6 * HOUR and one.id in told]
        fleet = a_fleet(a_reference(a_model()), min_labels=1)
        right = {PREDICTION: [str(one.prediction) for one in lately], LABEL: [str(told[one.id]) for one in lately]}
        observe(fleet, {**right, SCORE: [one.score for one in lately]})
        readout = view(fleet.tick(NOW)).accuracy_readout
        assert readout is not None
        assert readout.values["accuracy"].value == pytest.approx(0.70, abs=0.1)
        assert readout.values["precision"].value == 1.0
