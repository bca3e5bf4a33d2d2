"""Labels that come later count for the segment of their prediction, as they do for the whole."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from exporter.monitor.events import LABEL, Decoded, ids_of
from exporter.monitor.fleet import Fleet
from exporter.monitor.settings import JoinSettings, Segmentation
from tests.builders import NOW, a_batch, a_fleet, decoded, view
from tests.monitor.joining import HOUR, MATURITY_S, Label, end, labels_of
from tests.monitor.test_segments import BY_REGION, KNOWS, MODEL, rows, slices

LATER = NOW + MATURITY_S + HOUR
JOINING: dict[str, Any] = {**BY_REGION, "join": JoinSettings(MATURITY_S), "min_labels": 1}


def teach(fleet: Fleet, *regions: str) -> None:
    """As a codec does with the tags of events."""
    schema = fleet.schema(MODEL)
    for names in schema.vocabularies:
        if hasattr(names, "learn"):
            names.learn(regions)


def predict(fleet: Fleet, count: int, *, wrong: float = 0.1) -> list[Label]:
    """Predictions that wait, and their labels."""
    teach(fleet, "eu", "us", "asia")
    columns = rows(count, seed=2, wrong=wrong)
    truth = columns.pop(LABEL)
    batch = replace(a_batch(fleet.schema(MODEL), columns, time=NOW), id=ids_of(range(count)))
    fleet.observe(decoded(batch), NOW)
    return [Label(str(i), NOW + 60, str(one)) for i, one in enumerate(truth)]


def settle(fleet: Fleet, labels: list[Label]) -> None:
    batch = labels_of(fleet.schema(MODEL), labels)
    fleet.observe(Decoded("http", len(batch), [], [], {}, [batch]), NOW + 60)
    end(fleet, LATER)


def matured(fleet: Fleet) -> dict[str, tuple[int, int]]:
    """Predictions that are settled, and those that were right, of the whole and of each segment."""
    snapshot = fleet.tick(LATER)
    found = {}
    for name, one in {"": view(snapshot), **slices(snapshot)}.items():
        assert one.accuracy is not None
        assert one.accuracy_lifetime is not None
        outcomes = one.accuracy.outcomes
        confusion = outcomes.part(one.accuracy_lifetime, "confusion").reshape(3, 3)
        found[name] = (outcomes.total(one.accuracy_lifetime, "predictions"), int(np.trace(confusion)))
    return found


def test_a_slice_that_got_worse_is_seen_in_labels_that_come_later():
    fleet = a_fleet(KNOWS, **JOINING)
    settle(fleet, predict(fleet, 3000, wrong=0.4))
    found = matured(fleet)
    assert found[""] == (3000, sum(right for name, (_, right) in found.items() if name))
    assert found["asia"][1] / found["asia"][0] == pytest.approx(0.6, abs=0.06)
    assert found["eu"][1] / found["eu"][0] == pytest.approx(0.9, abs=0.03)


def test_a_slice_is_told_by_name_in_another_process_too():
    """Where names have other codes, because they came in another order."""
    fleet, again = a_fleet(KNOWS, **JOINING), a_fleet(KNOWS, **JOINING)
    labels = predict(fleet, 500)
    teach(again, "moon", "asia", "us", "eu")
    again.load(fleet.dump())
    for one in (fleet, again):
        settle(one, labels)
    assert matured(fleet) == matured(again)


def test_a_value_without_a_slot_is_in_other():
    top = {**JOINING, "segments": (Segmentation("region", 1),)}
    fleet = a_fleet(KNOWS, **top)
    settle(fleet, predict(fleet, 500))
    found = matured(fleet)
    assert found.keys() == {"", "eu", "other"}
    assert found["other"][0] == 500 - found["eu"][0]
