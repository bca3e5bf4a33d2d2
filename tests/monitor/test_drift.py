"""What is counted of each feature, and how it is exported; what it says is tests/monitor/test_readout.py."""

import numpy as np
import pytest

from exporter.catalog import metrics
from tests.builders import (
    COLOUR,
    MODEL,
    NOW,
    PREDICTION,
    X,
    a_fleet,
    a_reference,
    columns_of,
    exposed,
    observe,
    values_of,
    view,
)


def test_a_failed_prediction_has_inputs_but_no_output():
    reference = a_reference(columns_of(5000))
    fleet = a_fleet(reference)
    columns = columns_of(1200, seed=3)
    failed = np.arange(1200) % 2
    observe(fleet, columns | {PREDICTION: [None] * 1200}, error=(failed - 1).tolist())

    readout = view(fleet.tick(NOW)).drift_readout

    assert readout is not None
    totals = readout.tracker.totals(readout.counts).tolist()
    assert totals == [1200, 1200, 600, 600]


def test_bins_and_faults_are_exported_as_counters():
    fleet = a_fleet(a_reference({X: np.repeat([1.0, 2.0], 1000), COLOUR: ["a", "b"] * 1000}))
    observe(fleet, {X: [0.5, 1.0, 1.5, 2.5, np.nan, np.inf, -np.inf], COLOUR: ["a", "a", "b", "z", None, "a", "a"]})
    snapshot = fleet.tick(NOW)
    names = {"model": MODEL, "version": "1", "kind": "input"}

    bins = values_of(snapshot, metrics.BIN_OBSERVATIONS, **names)
    invalid = values_of(snapshot, metrics.INVALID_VALUES, **names)

    assert {(feature, bin_): n for (_, feature, bin_), n in bins.items() if n} == {
        ("x", "00"): 2,
        ("x", "01"): 2,
        ("x", "missing"): 1,
        ("x", "invalid"): 2,
        ("colour", "=a"): 4,
        ("colour", "=b"): 1,
        ("colour", "unseen"): 1,
        ("colour", "missing"): 1,
    }
    assert {key: n for key, n in invalid.items() if n} == {
        ("x", "missing"): 1,
        ("x", "wrong_type"): 1,
        ("x", "non_finite"): 1,
        ("x", "out_of_range"): 2,
        ("x", "unseen"): 1,
        ("colour", "missing"): 1,
        ("colour", "unseen"): 1,
    }


def test_reference_ratios_are_smoothed_and_exported_for_live_bins_only():
    fleet = a_fleet(a_reference({X: np.repeat([1.0, 2.0], [300, 700])}))

    lines = exposed(fleet.tick(NOW))

    ratios = {key: value for key, value in lines.items() if key.startswith("ml_feature_reference_ratio")}
    assert list(ratios.values()) == pytest.approx([300.5 / 1001, 700.5 / 1001])
    assert [key.split('bin="')[1] for key in ratios] == ['00"}', '01"}']
