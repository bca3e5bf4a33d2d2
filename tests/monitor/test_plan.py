import hashlib
from typing import Any

import numpy as np
import pytest

from exporter.monitor.plan import FAULTS, Bin, FeaturePlan, plan_feature
from exporter.monitor.reference import Resolution, schema_of
from exporter.monitor.settings import ModelSettings
from tests.builders import COLOUR, MODEL, SCORE, X, a_reference


def plan(column: Any, *, min_samples: int = 500, resolution: Resolution | None = None, **settings: Any) -> FeaturePlan:
    key = X if isinstance(column, np.ndarray) else COLOUR
    reference = a_reference({key: column}, resolution=resolution)
    schema = schema_of([reference])
    return plan_feature(reference.features[0], schema, ModelSettings(MODEL, min_samples=min_samples, **settings))


def live(one: FeaturePlan) -> list[str]:
    return [exported.label for exported in one.bins if exported.live]


def test_numeric_bins_are_ordinals_closed_above_and_open_outside():
    one = plan(np.repeat([1.0, 2.0, 4.0], 100))

    assert one.bins == (
        Bin("00", 100, True, 1.0),
        Bin("01", 100, True, 2.0),
        Bin("02", 100, True, np.inf),
        Bin("missing", 0, False),
        Bin("invalid", 0, False),
    )


def test_every_slot_is_in_a_bin_and_faults_are_where_they_belong():
    one = plan(np.repeat([1.0, 2.0], 100))
    labels = [one.bins[i].label for i in one.bin_of_slot]
    faults = ["" if i < 0 else FAULTS[i] for i in one.fault_of_slot]

    # wrong type | below, = 1, between, = 2, above | not finite | missing
    assert labels == ["invalid", "00", "00", "01", "01", "01", "invalid", "missing"]
    assert faults == ["wrong_type", "out_of_range", "", "unseen", "", "out_of_range", "non_finite", "missing"]


def test_ordinals_sort_as_text_however_many_there_are():
    many = plan(np.arange(10_000.0), min_samples=10_000, resolution=Resolution(bins=120))
    ordinals = [exported.label for exported in many.bins[:-2]]

    assert len(ordinals) > 100
    assert ordinals == sorted(ordinals)
    assert len({len(label) for label in ordinals}) == 1


def test_a_constant_keeps_its_empty_bins_on_both_sides_and_they_are_not_live():
    one = plan(np.full(1000, 3.0))

    assert [(exported.label, exported.reference, exported.live) for exported in one.bins[:3]] == [
        ("00", 0, False),
        ("01", 1000, True),
        ("02", 0, False),
    ]


def test_a_bin_that_would_expect_fewer_than_five_samples_joins_its_neighbour():
    """5 of 500 are 1 %."""
    column = np.repeat([0.0, 1.0, 2.0], [985, 9, 6])

    assert [exported.reference for exported in plan(column, min_samples=500).bins[:-2]] == [985, 15]
    assert [exported.reference for exported in plan(column, min_samples=1000).bins[:-2]] == [985, 9, 6]


def test_a_rare_category_is_counted_as_other():
    column = ["a"] * 600 + ["b"] * 391 + ["c"] * 9
    labels = {exported.label: exported for exported in plan(column, min_samples=500).bins}

    assert list(labels) == ["=a", "=b", "other", "unseen", "invalid", "missing"]
    assert labels["other"] == Bin("other", 9, True)
    assert live(plan(column, min_samples=1000)) == ["=a", "=b", "=c"]


def test_special_bins_are_live_only_where_the_reference_has_enough_of_them():
    few, many = (np.concatenate((np.arange(990.0), np.full(k, np.nan), np.full(k, np.inf))) for k in (9, 11))

    assert not {"missing", "invalid"} & set(live(plan(few, min_samples=500)))
    assert {"missing", "invalid"} <= set(live(plan(many, min_samples=500)))
    assert live(plan(["a"] * 900 + [None] * 100)) == ["=a", "missing"]
    assert live(plan(["a"] * 900 + [[]] * 100)) == ["=a", "invalid"]


def test_unseen_categories_are_never_live():
    assert "unseen" not in live(plan(["a", "b"] * 500, resolution=Resolution(top_categories=1)))


def test_a_long_category_is_named_by_its_hash():
    long, short = "ü" * 33, "ü" * 32

    labels = [exported.label for exported in plan([long] * 60 + [short] * 40).bins]

    assert labels[0] == "=sha256:" + hashlib.sha256(long.encode()).hexdigest()[:16]
    assert labels[1] == "=" + short


def test_a_category_may_have_the_name_of_a_special_bin():
    labels = [exported.label for exported in plan(["other", "missing", None, "unseen"] * 100).bins]

    assert len(set(labels)) == len(labels)
    assert {"=other", "=missing", "=unseen", "other", "missing", "unseen"} <= set(labels)


@pytest.mark.parametrize(("feature", "threshold"), [("x", 0.3), ("y", 0.1)])
def test_a_feature_may_have_a_threshold_of_its_own(feature: str, threshold: float):
    one = plan(np.arange(100.0), feature_psi_thresholds={feature: 0.3})

    assert one.threshold == threshold


def test_two_references_share_columns_without_sharing_what_their_categories_mean():
    one = a_reference({COLOUR: ["a"] * 50 + ["b"] * 50})
    other = a_reference({SCORE: np.arange(100.0), COLOUR: ["b"] * 50 + ["c"] * 50}, version="2")
    schema = schema_of([one, other])
    settings = ModelSettings(MODEL)

    plans = [plan_feature(reference.features[-1], schema, settings) for reference in (one, other)]

    for known, unknown, plan_of in (("a", "c", plans[0]), ("c", "a", plans[1])):
        slots = {text: plan_of.slot_of_code[schema.vocabularies[0][text]] for text in "abc"}
        assert plan_of.bins[plan_of.bin_of_slot[slots[known]]].label == f"={known}"
        assert plan_of.bins[plan_of.bin_of_slot[slots["b"]]].label == "=b"
        assert plan_of.bins[plan_of.bin_of_slot[slots[unknown]]].label == "unseen"
