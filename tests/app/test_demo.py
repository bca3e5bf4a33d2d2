"""The demo's recording: what is in it, and that its quality tells the story that its drift tells."""

import json
from typing import Any

import pytest

from exporter.app.demo import LABELLED, MODEL, demo_events, demo_runtime
from exporter.ingest.native import NativeCodec
from exporter.ingest.source import Messages
from exporter.monitor.accuracy import AccuracyReadout
from exporter.monitor.model_view import ModelView
from tests.builders import NOW, view


@pytest.fixture(scope="module")
def events() -> list[bytes]:
    return list(demo_events())


def readable(events: list[bytes]) -> list[dict[str, Any]]:
    return [json.loads(event) for event in events if event.endswith(b"}")]


def test_nine_in_ten_predictions_have_their_label_and_failures_have_none(events):
    answered = [event for event in readable(events) if "error" not in event]
    failed = [event for event in readable(events) if "error" in event]
    assert len(answered) > 9900
    assert sum("label" in event for event in answered) / len(answered) == pytest.approx(LABELLED, abs=0.01)
    assert {event.get("label") for event in answered} == {0, 1, None}
    assert failed
    assert not [event for event in failed if "label" in event or "prediction" in event]
    assert not [event for event in readable(events) if "repaid" in event["features"]], "the truth is no feature"


def test_every_round_is_the_same(events):
    assert list(demo_events()) == events


def view_of(events: list[bytes]) -> ModelView:
    fleet = demo_runtime().fleet
    fleet.observe(NativeCodec(fleet, "demo", event_time=False).decode(Messages("demo", events, NOW)), NOW)
    return view(fleet.tick(NOW), version="3", model=MODEL)


def quality_of(events: list[bytes]) -> AccuracyReadout:
    readout = view_of(events).accuracy_readout
    assert readout is not None
    return readout


def test_quality_is_as_in_training_and_then_degrades(events):
    half = len(events) // 2
    before, after = quality_of(events[:half]), quality_of(events[half:])
    assert (before.state, after.state) == ("ok", "degraded")
    assert before.values["accuracy"].value == pytest.approx(before.tracker.baseline["accuracy"].value, abs=0.01)
    assert after.degraded == ("brier",)


def test_means_together_drift_half_way_and_what_holds_them_together_stays(events):
    half = len(events) // 2
    for part, states in ((events[:half], ["ok", "ok"]), (events[half:], ["drifting", "ok"])):
        assert view_of(part).moment_states == states
