"""Calibrations of a reference: which blocks there are, which one a window is judged by, and what documents keep."""

import msgspec
import numpy as np
import pytest

from exporter.monitor import calibration, reference
from exporter.monitor.calibration import Calibration, table
from exporter.monitor.features import BadReference
from exporter.monitor.reference import Reference, decode, encode
from exporter.stats import Counts
from tests.builders import COLOUR, COLOURS, NOW, X, a_fleet, a_reference, observe, view

RNG = np.random.default_rng(0)


def bins(rows: int) -> Counts:
    return np.random.default_rng(rows).integers(10, size=rows)


def seasonal(rows: int) -> Counts:
    """Bins of which every second thousand of rows prefers the lower half."""
    low = np.arange(rows) // 1000 % 2 == 0
    rng = np.random.default_rng(rows)
    return np.where(low, rng.integers(6, size=rows), rng.integers(10, size=rows))


@pytest.mark.parametrize(
    ("rows", "blocks"),
    [
        (1999, []),
        (2000, [100]),
        (4999, [249]),
        (5000, [250]),
        (9999, [250]),
        (20_000, [250, 500, 1000]),
        (50_000, [250, 500, 1000, 2000, 2500]),
    ],
)
def test_blocks_double_up_to_the_largest_of_which_there_are_twenty(rows: int, blocks: list[int]):
    assert [one.rows for one in calibration.calibrate(bins(rows), 10)] == blocks


def test_independent_rows_need_none_whatever_the_block():
    assert {(one.g, one.freedom_ratio) for one in calibration.calibrate(bins(50_000), 10)} == {(1.0, 1.0)}


def test_a_season_shows_the_more_the_larger_the_block_until_it_is_averaged_out():
    small, *_, season, beyond, _ = calibration.calibrate(seasonal(50_000), 10)

    assert (season.rows, beyond.rows) == (1000, 2000)
    assert 1 < small.g * small.freedom_ratio < season.g * season.freedom_ratio / 3
    assert beyond.g * beyond.freedom_ratio < 1.5


def test_bins_too_rare_for_a_block_are_merged_and_a_constant_has_no_calibration():
    rare = np.where(np.arange(20_000) % 1000 == 0, 2, bins(20_000) % 2)

    assert [one.rows for one in calibration.calibrate(rare, 3)] == [250, 500, 1000]
    assert calibration.calibrate(np.ones(20_000, np.int64), 3) == ()


def test_a_window_is_judged_by_the_smallest_blocks_that_are_not_smaller():
    several = [Calibration(250, 1.1, 1.0), Calibration(500, 1.2, 0.9), Calibration(600, 1.3, 0.8)]
    found = table([several, several[:1], []])

    def judged(*n: int) -> tuple[list[float], list[bool]]:
        counts = np.array(n, np.int64)
        return found.g[np.arange(3), found.place(counts)].tolist(), found.extrapolated(counts).tolist()

    assert judged(0, 0, 0) == ([1.1, 1.1, 1.0], [False, False, False])
    assert judged(250, 250, 1) == ([1.1, 1.1, 1.0], [False, False, True])
    assert judged(251, 251, 251) == ([1.2, 1.1, 1.0], [False, True, True])
    assert judged(501, 1, 1) == ([1.3, 1.1, 1.0], [False, False, True])
    assert judged(601, 1, 1) == ([1.3, 1.1, 1.0], [True, False, True])


def test_a_running_exporter_with_fewer_bins_keeps_the_share_of_freedom():
    low = np.arange(40_000) // 1000 % 2 == 0
    built = a_reference({X: np.where(low, RNG.random(40_000), RNG.random(40_000) ** 2)})
    (feature,) = built.features
    fleet = a_fleet(built, min_samples=20, alpha=0.01)
    observe(fleet, {X: RNG.random(1000)}, now=NOW)

    readout = view(fleet.tick(NOW)).drift_readout

    assert readout is not None
    (block,) = [one for one in feature.calibration if one.rows == 1000]
    (live,) = readout.tracker.live_bins
    assert live < 10 == len(feature.bins)
    assert block.g > 1.5
    mean = block.g * (1 / 1000 + 1 / 40_000) * (live - 1) * block.freedom_ratio
    assert readout.psi_null_mean == pytest.approx([mean])


def test_missing_and_broken_values_of_dependent_rows_are_dependent_too():
    """An outage of a tenth of the rows at a time, in a column whose values are independent."""
    outage = np.arange(20_000) // 500 % 10 == 0
    numbers = np.where(outage, np.nan, RNG.random(20_000))
    colours = [None if out else COLOURS[i % 3] for i, out in enumerate(outage.tolist())]

    for feature in a_reference({X: numbers, COLOUR: colours}).features:
        (block,) = [one for one in feature.calibration if one.rows == 500]
        assert block.g > 5


def test_a_document_keeps_calibrations_and_one_without_them_keeps_its_id():
    dependent = a_reference({X: np.cumsum(RNG.normal(size=20_000))})
    assert decode(encode(dependent)) == dependent
    assert dependent.features[0].calibration

    assert b"calibration" not in encode(a_reference(rows=1999)), "its id is the hash of a document without the key"


@pytest.mark.parametrize(
    "calibrations",
    [
        (Calibration(0, 1.0, 1.0),),
        (Calibration(250, 0.0, 1.0),),
        (Calibration(250, 1.0, -1.0),),
        (Calibration(500, 1.0, 1.0), Calibration(250, 1.0, 1.0)),
    ],
)
def test_calibrations_that_cannot_be_meant_are_refused(calibrations: tuple[Calibration, ...]):
    good = a_reference({X: np.arange(100.0)})
    bad: Reference = msgspec.structs.replace(
        good, features=tuple(msgspec.structs.replace(one, calibration=calibrations) for one in good.features)
    )
    with pytest.raises(BadReference, match="feature x"):
        decode(encode(msgspec.structs.replace(bad, id=reference._content_hash(bad))))
