"""Segments of a running fleet: what a slice is compared with, and what becomes of counters when slices change."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from exporter.catalog import metrics, segment_metrics
from exporter.monitor.coarse import with_slices
from exporter.monitor.events import LABEL, Column, FeatureKey, tag
from exporter.monitor.fleet import Fleet
from exporter.monitor.model_view import ModelView
from exporter.monitor.panes import Window
from exporter.monitor.reference import Reference
from exporter.monitor.series import full_series
from exporter.monitor.settings import Segmentation
from exporter.monitor.snapshot import Snapshot
from tests.builders import (
    COLOUR,
    MODEL,
    NOW,
    PREDICTION,
    SCORE,
    X,
    a_fleet,
    a_reference,
    exposed,
    observe,
    values_of,
    view,
)

REGION = tag("region")
ROWS = 12_000
SHIFT = {"eu": 0.0, "us": 2.0, "asia": -1.0}
"""Slices differ by nature."""
BY_REGION: dict[str, Any] = {"segments": (Segmentation("region", 3),), "min_samples": 200}


def rows(
    count: int, seed: int = 0, *, drift: float = 0.0, wrong: float = 0.1, regions: Sequence[str] = tuple(SHIFT)
) -> dict[FeatureKey, Column]:
    """Of a tenth from Asia, x has drifted by so much, and so many predictions are wrong."""
    rng = np.random.default_rng(seed)
    region = rng.choice(regions, count, p=[0.6, 0.3, 0.1][: len(regions)] if len(regions) == 3 else None)
    truth, flipped = rng.integers(0, 2, count), rng.random(count) < np.where(region == "asia", wrong, 0.1)
    return {
        X: rng.normal(size=count) + [SHIFT.get(one, 0.0) for one in region] + drift * (region == "asia"),
        COLOUR: rng.choice(["blue", "green", "red"], count).tolist(),
        PREDICTION: np.where(flipped, 1 - truth, truth).astype(str).tolist(),
        SCORE: rng.random(count),
        LABEL: truth.astype(str).tolist(),
        REGION: region.tolist(),
    }


def built(top: int = 3) -> Reference:
    columns = rows(ROWS, seed=1)
    regions: Any = columns.pop(REGION)
    whole = a_reference(columns)
    return with_slices(whole, columns, {"region": regions}, top) if top else whole


KNOWS = built()
KNOWS_NONE = built(top=0)


def slices(snapshot: Snapshot) -> dict[str, ModelView]:
    return {one.segment.value: one for one in view(snapshot).segments if one.segment is not None}


def drifted(one: ModelView) -> list[str]:
    assert one.drift is not None
    return [plan.key.name for plan, is_so in zip(one.drift.features, one.drifted, strict=True) if is_so]


def restarted(fleet: Fleet, *references: Reference, **settings: Any) -> Fleet:
    again = a_fleet(*references, **settings)
    again.load(fleet.dump())
    return again


def test_one_slice_drifts_hard_while_the_whole_looks_healthy():
    fleet = a_fleet(KNOWS, **BY_REGION)
    observe(fleet, rows(6000, drift=1.0, wrong=0.4))

    snapshot = fleet.tick(NOW)

    whole, found = view(snapshot), slices(snapshot)
    assert (whole.state, drifted(whole)) == ("ok", [])
    assert {name: drifted(one) for name, one in found.items()} == {"eu": [], "us": [], "asia": ["x"], "other": []}
    assert [one.state for one in found.values()] == ["ok", "ok", "drifting", "insufficient_data"]
    degraded = {name: one.accuracy_readout.degraded for name, one in found.items() if one.accuracy_readout}
    assert "accuracy" in degraded.pop("asia")
    assert not any(degraded.values())
    labels = {"model": MODEL, "version": "1", "segment_name": "region", "segment": "asia"}
    drift = values_of(snapshot, segment_metrics.DRIFTED, **labels, feature="x")
    assert list(drift.values()) == [1.0]
    assert values_of(snapshot, segment_metrics.BORROWED, **labels) == {(): 0.0}


def test_healthy_slices_that_differ_by_nature_are_not_drifted():
    fleet = a_fleet(KNOWS, **BY_REGION)
    observe(fleet, rows(6000, seed=5))

    found = slices(fleet.tick(NOW))

    assert [drifted(one) for one in found.values()] == [[]] * 4
    assert not any(one.borrowed for name, one in found.items() if name != "other")


def test_without_a_reference_of_its_own_a_slice_borrows_the_whole_and_says_so():
    fleet = a_fleet(KNOWS_NONE, **BY_REGION)
    observe(fleet, rows(6000, seed=5))

    snapshot = fleet.tick(NOW)

    found = slices(snapshot)
    assert drifted(found["us"]) == ["x"], "it differs from the whole, by nature"
    assert found["eu"].feature_states[1] == "borrowed_reference"
    assert set(values_of(snapshot, segment_metrics.BORROWED).values()) == {1.0}


def test_other_is_compared_with_what_the_slices_leave():
    fleet = a_fleet(built(top=1), segments=(Segmentation("region", 1),), min_samples=200)
    observe(fleet, rows(6000, seed=5))

    found = slices(fleet.tick(NOW))

    assert list(found) == ["eu", "other"]
    assert found["other"].reference is not None
    assert not found["other"].borrowed
    assert found["eu"].reference is not None
    assert found["other"].reference.rows == ROWS - found["eu"].reference.rows
    assert drifted(found["other"]) == []


def test_a_slice_with_fewer_labels_than_a_quality_takes_has_no_baseline():
    fleet = a_fleet(KNOWS, **BY_REGION, min_labels=2000)
    observe(fleet, rows(6000))

    found = slices(fleet.tick(NOW))

    baselines = {name: one.accuracy.baseline for name, one in found.items() if one.accuracy is not None}
    assert baselines["eu"]
    assert not baselines["asia"], "a tenth of the rows"


def test_every_row_is_in_one_segment_whatever_its_tag():
    fleet = a_fleet(KNOWS, **BY_REGION)
    observe(fleet, rows(1000) | {REGION: ["eu", None, "x" * 100, "", "mars"] * 200})

    snapshot = fleet.tick(NOW)

    counted = {name: one.traffic_readout.predictions for name, one in slices(snapshot).items()}
    assert counted == {"eu": 200, "us": 0, "asia": 0, "other": 800}


def test_series_of_a_known_slice_are_there_before_its_first_prediction():
    snapshot = a_fleet(KNOWS, **BY_REGION).tick(NOW)

    assert set(values_of(snapshot, segment_metrics.PREDICTIONS, segment_name="region", segment="eu").values()) == {0}
    assert set(values_of(snapshot, segment_metrics.OBSERVATIONS, segment="eu").values()) == {0}
    assert values_of(snapshot, segment_metrics.PSI) == {}


def moving(now: float, fleet: Fleet, region: str, count: int) -> Snapshot:
    observe(fleet, rows(count, regions=[region]), time=now)
    return fleet.tick(now)


def test_a_value_that_has_outgrown_another_takes_its_slot_and_no_count_is_lost():
    window = Window(10.0, 6, "1m")
    fleet = a_fleet(KNOWS_NONE, segments=(Segmentation("region", 1),), min_samples=200, window=window)
    before: dict[str, float] = {}
    for minute in range(4):
        moving(NOW + 60 * minute, fleet, "eu", 300)
        snapshot = moving(NOW + 60 * minute + 30, fleet, "mars", 700)
        found = {name: one.traffic.read(one.traffic_lifetime).predictions for name, one in slices(snapshot).items()}
        assert sum(found.values()) == view(snapshot).traffic_lifetime[0]
        now = {
            text: value for text, value in exposed(snapshot).items() if "_total" in text and 'segment="other"' in text
        }
        assert all(now[text] >= value for text, value in before.items()), "other never goes back"
        before = now

    assert list(found) == ["mars", "other"]
    assert found["other"] == view(snapshot).traffic_lifetime[0] - found["mars"]
    bins = values_of(snapshot, segment_metrics.OBSERVATIONS, feature="x")
    whole = values_of(snapshot, metrics.BIN_OBSERVATIONS, feature="x")
    assert sum(bins.values()) == sum(whole.values())
    assert (
        sum(one.traffic_readout.predictions for one in slices(snapshot).values())
        == view(snapshot).traffic_readout.predictions
    )
    assert exposed(
        restarted(fleet, KNOWS_NONE, segments=(Segmentation("region", 1),), min_samples=200, window=window).tick(
            NOW + 210
        )
    ) == exposed(snapshot)


def test_another_number_of_slots_starts_segments_empty_and_keeps_the_rest():
    fleet = a_fleet(KNOWS, **BY_REGION)
    observe(fleet, rows(1000))

    snapshot = restarted(fleet, KNOWS, segments=(Segmentation("region", 5),)).tick(NOW)

    assert view(snapshot).traffic_readout.predictions == 1000
    assert {one.traffic_readout.predictions for one in slices(snapshot).values()} == {0}


def test_segments_that_are_no_longer_configured_are_forgotten():
    fleet = a_fleet(KNOWS, **BY_REGION)
    observe(fleet, rows(1000))

    snapshot = restarted(fleet, KNOWS).tick(NOW)

    assert view(snapshot).traffic_readout.predictions == 1000
    assert view(snapshot).segments == ()


def test_counters_stay_when_a_reference_comes_beside_theirs():
    fleet = a_fleet(KNOWS, **BY_REGION)
    observe(fleet, rows(3000, drift=1.0))
    before = {name: one.drift_window.tolist() for name, one in slices(fleet.tick(NOW)).items()}  # type: ignore[union-attr]

    fleet.adopt(MODEL, [KNOWS, a_reference({COLOUR: ["new", "mauve"] * 50, X: np.arange(100.0)}, version="2")])
    snapshot = fleet.tick(NOW)

    assert {name: one.drift_window.tolist() for name, one in slices(snapshot).items()} == before  # type: ignore[union-attr]
    observe(fleet, rows(3000, seed=1, drift=1.0))
    assert drifted(slices(fleet.tick(NOW))["asia"]) == ["x"]


def test_each_segment_has_an_equal_share_of_the_budget():
    alone, split = a_fleet(KNOWS), a_fleet(KNOWS, **BY_REGION)
    observe(split, rows(100))

    (level,) = values_of(alone.tick(NOW), metrics.DRIFT_ALPHA).values()
    (shared,) = values_of(split.tick(NOW), metrics.DRIFT_ALPHA).values()

    assert shared == pytest.approx(level / 5)
    assert {one.drift.alpha for one in slices(split.tick(NOW)).values() if one.drift} == {shared}


def test_segments_are_the_first_to_be_withheld_bins_before_scores():
    fleet = a_fleet(KNOWS, **BY_REGION)
    observe(fleet, rows(6000))
    full = fleet.tick(NOW)
    own, everything = len(exposed(a_fleet_without(6000))), len(exposed(full))
    limited = {limit: replace(full, series_limit=limit) for limit in (everything, everything - 1, own)}

    assert limited[everything].exposed[1] == 0
    assert values_of(limited[everything - 1], segment_metrics.PSI) == values_of(full, segment_metrics.PSI)
    assert len(values_of(limited[everything - 1], segment_metrics.OBSERVATIONS)) < len(
        values_of(full, segment_metrics.OBSERVATIONS)
    )
    assert not [text for text in exposed(limited[own]) if text.startswith("ml_segment")]
    assert values_of(limited[own], metrics.JS_DIVERGENCE), "everything else is there"


def a_fleet_without(count: int) -> Snapshot:
    fleet = a_fleet(KNOWS, min_samples=200)
    observe(fleet, {key: column for key, column in rows(count).items() if key != REGION})
    return fleet.tick(NOW)


def test_the_number_of_series_announced_is_that_of_all_slots_with_enough_data():
    quiet = full_series(view(a_fleet(KNOWS, **BY_REGION).tick(NOW)))
    fleet = a_fleet(KNOWS, **BY_REGION)
    observe(fleet, rows(9000) | {REGION: ["eu", "us", "asia", "mars"] * 2250})

    snapshot = fleet.tick(NOW)

    series = sum("version=" in text for text in exposed(snapshot) if "exporter" not in text)
    assert (full_series(view(snapshot)), quiet) == (series, series)


def test_healthy_slices_pass_their_critical_values_as_rarely_as_the_level_says():
    """Own bins and sizes: a slice is noisier than the whole, and must not be called drifted more often for that."""
    window = Window(1.0, 1, "1s")
    fleet = a_fleet(KNOWS, **BY_REGION, alpha=0.05, psi_threshold=1e-9, window=window)
    passed = dict.fromkeys(SHIFT, 0)
    for number in range(100):
        observe(fleet, rows(3000, seed=100 + number), time=NOW + number)
        found = slices(fleet.tick(NOW + number))
        for region in SHIFT:
            passed[region] += len(drifted(found[region]))

    tests = 100 * 4
    assert all(0.02 < count / tests < 0.09 for count in passed.values()), passed
