"""Sums of several inputs: what they say against numpy, what is clipped, and what a reference keeps of them."""

import base64
from typing import Any

import msgspec
import numpy as np
import pytest

from exporter.catalog import thresholds
from exporter.monitor import moments, reference
from exporter.monitor.events import NON_FINITE_NUMBER, WRONG_TYPE_NUMBER, Column, FeatureKey
from exporter.monitor.features import BadReference
from exporter.monitor.moments import CLIP_SD, PER_SD, Moments, Read
from exporter.monitor.reference import decode, encode
from exporter.stats import Floats
from tests.builders import COLOUR, PREDICTION, SCORE, a_reference, an_input

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(2000, 4)) @ RNG.normal(size=(4, 4)) * [1, 10, 1e6, 1e-6] + [0, 5, 1e9, -1]


def named(table: Floats) -> dict[FeatureKey, Column]:
    return {an_input(f"f{i}"): np.ascontiguousarray(column) for i, column in enumerate(table.T)}


def of(table: Floats) -> Moments:
    built = moments.build(named(table))
    assert built is not None
    return built


def counted(known: Moments, table: Floats) -> np.ndarray:
    sums = np.zeros((1, known.layout.width), np.int64)
    known.layout.add(sums, *known.standard.units(np.ascontiguousarray(table.T)), None)
    return sums[0]


def read(known: Moments, table: Floats) -> Read:
    return known.layout.read(counted(known, table))


def test_means_and_covariances_are_those_of_the_values_up_to_rounding():
    known = of(TABLE)
    window = TABLE[:700] * 1.2
    standardised = (window - known.centre) / known.scale
    standardised = np.clip(standardised, -CLIP_SD, CLIP_SD)

    found = read(known, window)

    assert found.n == 700
    assert found.mean == pytest.approx(standardised.mean(axis=0), abs=0.5 / PER_SD)
    assert found.covariance == pytest.approx(np.cov(standardised.T)[known.layout.pairs], abs=0.002)
    assert known.read.mean == pytest.approx(np.zeros(4), abs=0.01)
    assert known.read.covariance[[0, 4, 7, 9]] == pytest.approx(np.ones(4), abs=0.05)


def test_the_covariance_of_products_is_that_of_the_values_up_to_rounding():
    known = of(TABLE)
    standardised = np.clip((TABLE - known.centre) / known.scale, -CLIP_SD, CLIP_SD)
    around = standardised - standardised.mean(axis=0)
    i, j = known.layout.pairs

    assert known.of_products == pytest.approx(np.cov((around[:, i] * around[:, j]).T), abs=0.02)
    assert known.covariance_rows == 2000


def test_values_far_out_are_clipped_and_counted():
    known = of(TABLE)
    usual = np.array(known.centre)
    rows = np.array([usual, usual, usual, usual])
    rows[1, 0] += 4.01 * known.scale[0]
    rows[2] -= 1e200

    found = read(known, rows)

    assert found.clipped == 1 + 4
    assert found.mean == pytest.approx([0.0, -1.0, -1.0, -1.0])
    extreme = counted(known, np.full((8192, 4), 1e308))
    assert extreme.max() == 8192 * (2 * CLIP_SD * PER_SD) ** 2


@pytest.mark.parametrize("bad", [np.nan, WRONG_TYPE_NUMBER, NON_FINITE_NUMBER])
def test_what_is_no_number_counts_as_the_centre_on_both_sides(bad: float):
    holed = TABLE.copy()
    holed[::2, 1] = bad
    known = of(holed)

    stands_for = np.where(np.isfinite(holed), holed, known.centre)

    assert counted(known, holed).tolist() == counted(known, stands_for).tolist() == list(known.counts)


def test_one_absurd_value_does_not_hide_all_others():
    column = RNG.normal(size=2000)
    spoiled = np.concatenate((np.full(10, 1e12), column[10:]))
    known = of(np.column_stack((spoiled, column)))

    assert known.scale[0] == pytest.approx(1.0, abs=0.1)
    assert known.read.covariance[1] > 0.7


def test_a_column_far_from_zero_keeps_its_centre():
    """Moments of time, say: a centre of six digits would be a day off."""
    times = 1.7654321e9 + 60 * RNG.normal(size=2000)
    known = of(np.column_stack((times, TABLE[:, 0])))

    assert known.counts[0] == sum(abs((times - known.centre[0]) / known.scale[0]) > CLIP_SD) < 5
    assert known.read.mean[0] == pytest.approx(0.0, abs=0.05)


def test_numeric_inputs_that_vary_are_watched_and_nothing_else():
    rng = np.random.default_rng(0)
    built = a_reference(
        {
            an_input("constant"): np.ones(1000),
            an_input("nearly constant"): np.where(np.arange(1000) == 3, 1.0, 0.0),
            COLOUR: ["red", "blue"] * 500,
            an_input("binary"): rng.integers(0, 2, 1000).astype(float),
            PREDICTION: rng.normal(size=1000),
            SCORE: rng.random(1000),
            an_input("number"): rng.normal(size=1000),
        }
    )

    assert built.moments is not None
    assert built.moments.features == ("nearly constant", "binary", "number")
    assert a_reference({an_input("one"): TABLE[:, 0], COLOUR: ["red"] * 2000}).moments is None


@pytest.mark.parametrize(
    ("features", "rows", "watched"), [(40, 24_000, 30), (4, 149, 0), (4, 150, 2), (4, 499, 3), (4, 500, 4)]
)
def test_as_many_inputs_as_there_are_rows_for_and_thirty_at_most(
    monkeypatch: pytest.MonkeyPatch, features: int, rows: int, watched: int
):
    monkeypatch.setattr(moments, "_COVARIANCE_ROWS", 1000)  # a tenth of the work; the number is not the question
    monkeypatch.setattr(moments, "_KURTOSIS_ROWS", 100)
    built = moments.build(named(np.random.default_rng(0).normal(size=(rows, features))))

    assert (0 if built is None else len(built.features)) == watched
    if built is not None:
        assert built.features == tuple(f"f{i}" for i in range(watched)), "the first of the reference"


def test_the_same_data_are_the_same_moments_in_whatever_order():
    """Where rows are independent: then the calibration does not depend on the order."""
    table = np.random.default_rng(1).lognormal(size=(3000, 5))
    shuffled = np.random.default_rng(2).permutation(table)

    one, other = of(table), of(shuffled)

    assert msgspec.structs.replace(one, calibration=((), ())) == msgspec.structs.replace(other, calibration=((), ()))


def test_a_season_shows_in_the_calibration_and_independent_rows_need_none():
    table = np.random.default_rng(1).normal(size=(20_000, 3))
    season = np.sin(np.arange(20_000) / 500)[:, None]

    for calibrated in of(table).calibration:
        assert {(one.g, one.freedom_ratio) for one in calibrated} == {(1.0, 1.0)}
    means, covariances = of(table + season).calibration
    assert [one.rows for one in means] == [250, 500, 1000]
    assert all(one.g * one.freedom_ratio > 20 for one in means)
    means, covariances = of(table * (1 + 0.5 * season)).calibration
    assert all(one.g * one.freedom_ratio > 5 for one in covariances)
    assert all(one.g * one.freedom_ratio < 2 for one in means)


# ---- documents -------------------------------------------------------------------------------------------------------


def test_a_document_keeps_moments_and_may_have_none():
    built = a_reference(named(TABLE))
    again = decode(encode(built))
    assert again == built
    assert again.moments is not None
    assert again.moments.forms[1].axes.tolist() == of(TABLE).forms[1].axes.tolist()

    assert decode(encode(a_reference())).moments is None


def broken(**changes: Any) -> bytes:
    built = a_reference(named(TABLE))
    assert built.moments is not None
    bad = msgspec.structs.replace(built, moments=msgspec.structs.replace(built.moments, **changes))
    return encode(msgspec.structs.replace(bad, id=reference._content_hash(bad)))


GOOD = of(TABLE)
TRIANGLE = np.frombuffer(base64.b64decode(GOOD.covariance), "<f4")


@pytest.mark.parametrize(
    "changes",
    [
        {"features": GOOD.features[:3]},
        {"features": (*GOOD.features[:3], "no input")},
        {"features": (*GOOD.features[:3], "f0")},
        {"features": (), "centre": (), "scale": (), "counts": (0, 0), "covariance": ""},
        {"scale": (*GOOD.scale[:3], 0.0)},
        {"counts": GOOD.counts[:-1]},
        {"counts": (-1, *GOOD.counts[1:])},
        {"covariance": "?"},
        {"covariance": base64.b64encode(TRIANGLE[1:].tobytes()).decode()},
        {"covariance": base64.b64encode(np.full_like(TRIANGLE, np.nan).tobytes()).decode()},
        {"covariance_rows": 5},
        {"covariance_rows": 2001},
        {"kurtosis": (0.0, -1.0)},
        {"calibration": (((250, 0.0, 1.0),), ())},
    ],
)
def test_moments_that_do_not_fit_together_are_refused(changes: dict[str, Any]):
    with pytest.raises(BadReference, match="moments"):
        decode(broken(**changes))


def test_the_largest_document_is_as_large_as_the_catalogue_says():
    pairs = thresholds.MULTIVARIATE_FEATURES.count * (thresholds.MULTIVARIATE_FEATURES.count + 1) // 2
    assert pairs == 465
    assert pairs * (pairs + 1) // 2 * 4 * 4 / 3 < 600_000
