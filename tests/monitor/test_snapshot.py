from dataclasses import replace
from typing import Any

import pytest

from exporter.catalog import metrics
from exporter.catalog.metric import Metric
from exporter.monitor.fleet import Fleet
from exporter.monitor.snapshot import Snapshot
from tests.builders import MODEL, NOW, a_fleet, a_reference, columns_of, exposed, observe, values_of

FEATURES = ("x", "colour", "prediction", "score")
BINS = (metrics.BIN_OBSERVATIONS, metrics.REFERENCE_RATIO)


def busy_fleet(series_limit: int, **settings: Any) -> Fleet:
    """One configured model with two versions that have scores, and a stranger."""
    fleet = a_fleet(a_reference(), series_limit=series_limit, **settings)
    observe(fleet, columns_of(1000))
    observe(fleet, columns_of(1000, seed=1), version="2")
    observe(fleet, model="stranger", rows=3)
    return fleet


def series_of(snapshot: Snapshot, *of: Metric, **labels: str) -> int:
    return sum(len(values_of(snapshot, metric, **labels)) for metric in of)


@pytest.fixture(scope="module")
def everything() -> int:
    return len(exposed(busy_fleet(10**6).tick(NOW)))


def shown(limit: int) -> Snapshot:
    snapshot = busy_fleet(limit).tick(NOW)
    samples, withheld = snapshot.exposed
    assert len(samples) + withheld == len(exposed(busy_fleet(10**6).tick(NOW)))
    return snapshot


def test_within_the_limit_nothing_is_withheld(everything: int):
    assert shown(everything).exposed[1] == 0
    assert shown(everything - 1).exposed[1] > 0


def test_what_is_dropped_first_is_the_unconfigured_model(everything: int):
    snapshot = shown(everything - 1)

    assert values_of(snapshot, metrics.PREDICTIONS, model="stranger") == {}
    assert series_of(snapshot, metrics.JS_DIVERGENCE, metrics.BIN_UPPER_BOUND) > 0


def test_then_js_then_edges_then_the_bins_of_the_last_features(everything: int):
    """Lowering the limit series by series, groups go in this order and never come back."""
    order: list[str] = []
    full = busy_fleet(10**6).tick(NOW)
    for limit in range(everything, 0, -2):
        snapshot = replace(full, series_limit=limit)
        present = {
            "stranger": series_of(snapshot, metrics.PREDICTIONS, model="stranger"),
            "js": series_of(snapshot, metrics.JS_DIVERGENCE),
            "edges": series_of(snapshot, metrics.BIN_UPPER_BOUND),
            **{f"bins of {name}": series_of(snapshot, *BINS, feature=name, version="1") for name in FEATURES},
            "faults": series_of(snapshot, metrics.INVALID_VALUES, feature="x"),
        }
        gone = [name for name, count in present.items() if not count]
        order += [name for name in gone if name not in order]
        assert set(order) == set(gone)
    assert order == ["stranger", "js", "edges", *(f"bins of {name}" for name in reversed(FEATURES)), "faults"]


def test_traffic_and_scores_of_two_versions_are_never_withheld():
    snapshot = shown(0)

    assert set(values_of(snapshot, metrics.PREDICTIONS)) == {(MODEL, "1"), (MODEL, "2")}
    for metric in (metrics.PSI, metrics.PSI_CRITICAL, metrics.DRIFTED, metrics.FEATURE_STATE, metrics.WINDOW_SAMPLES):
        assert series_of(snapshot, metric, version="1") == 4
        assert series_of(snapshot, metric, version="2") == 4
    assert series_of(snapshot, *BINS, metrics.JS_DIVERGENCE, metrics.BIN_UPPER_BOUND) == 0


def test_a_canary_is_protected_before_versions_that_came_earlier():
    fleet = a_fleet(a_reference(), series_limit=0)
    for i, version in enumerate(("1", "old", "canary")):
        observe(fleet, columns_of(600), version=version, time=NOW + i)

    kept = {version for _, version in values_of(fleet.tick(NOW + 2), metrics.PREDICTIONS)}

    assert kept == {"1", "canary"}


def test_stray_version_names_do_not_take_the_place_of_a_canary():
    fleet = a_fleet(a_reference(), series_limit=0)
    for i, version in enumerate(("1", "canary", "stray", "stray too")):
        observe(fleet, columns_of(3 if "stray" in version else 600), version=version, time=NOW + i)

    kept = {version for _, version in values_of(fleet.tick(NOW + 3), metrics.PREDICTIONS)}

    assert kept == {"1", "canary"}


def test_many_versions_do_not_add_up_beyond_the_limit_but_for_protected_ones():
    fleet = a_fleet(a_reference(), series_limit=1000)
    for i in range(7):
        observe(fleet, columns_of(600), version=f"v{i}")
    samples, withheld = fleet.tick(NOW).exposed

    assert withheld > 0
    assert len(samples) <= 1000


def test_the_feed_is_never_withheld():
    fleet = busy_fleet(0)

    assert exposed(fleet.tick(NOW))['ml_ingest_events_total{source="http"}'] == 2003
