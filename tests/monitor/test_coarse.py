"""Slices of a reference held against counting by hand, and coarse counters against fine ones."""

from typing import Any

import msgspec
import numpy as np
import pytest

from exporter.monitor import reference
from exporter.monitor.coarse import coarse, of_slice, rest, with_slices
from exporter.monitor.drift import DriftTracker
from exporter.monitor.events import LABEL, NO_ERROR, Column, FeatureKey, Rows
from exporter.monitor.features import BadReference, Numeric
from exporter.monitor.readout import read
from exporter.monitor.reference import Reference, schema_of
from exporter.monitor.settings import ModelSettings
from tests.builders import COLOUR, PREDICTION, SCORE, X, a_reference, an_input, columns_of

ROWS = 6000
SETTINGS = ModelSettings("car_loan", min_samples=100)


def data() -> tuple[dict[FeatureKey, Column], list[str | None]]:
    rng = np.random.default_rng(3)
    columns = columns_of(ROWS, seed=3)
    x = np.asarray(columns[X])
    x[rng.random(ROWS) < 0.05] = np.nan
    columns[an_input("few")] = rng.integers(0, 4, ROWS).astype(float)
    columns[an_input("ties")] = rng.integers(0, 60, ROWS).astype(float)
    columns[an_input("constant")] = np.full(ROWS, 2.0)
    columns[LABEL] = columns[PREDICTION]
    regions: list[Any] = rng.choice(["eu", "us", "mars", ""], ROWS, p=[0.5, 0.3, 0.01, 0.19]).tolist()
    return columns, regions


COLUMNS, REGIONS = data()
KNOWN = with_slices(a_reference(COLUMNS, rows=ROWS), COLUMNS, {"region": REGIONS}, 2)
WHOLE = coarse(KNOWN)


def counts(known: Reference, of: Reference, columns: Any = None) -> tuple[DriftTracker, np.ndarray]:
    """What a tracker of one reference counts of columns."""
    schema = schema_of([known])
    columns = columns or COLUMNS
    rows = Rows(
        numeric=np.array([columns[name] for name in schema.numeric]).T,
        codes=np.array(
            [
                [known.get(value, -1) for value in columns[name]]
                for name, known in zip(schema.categorical, schema.vocabularies, strict=True)
            ],
            np.int32,
        ).T,
        latency_s=np.full(len(columns[X]), np.nan),
        error=np.full(len(columns[X]), NO_ERROR, np.int16),
        group=None,
        groups=1,
    )
    tracker = DriftTracker(of, schema, SETTINGS, "1")
    sums = np.zeros((1, tracker.width), np.int64)
    tracker.add(sums, rows)
    return tracker, sums[0]


def test_coarse_counters_make_the_bins_and_the_psi_of_fine_ones():
    drifted = columns_of(3000, seed=9) | {
        key: np.asarray(COLUMNS[key])[:3000] for key in COLUMNS if key not in (COLOUR, PREDICTION, SCORE)
    }
    drifted[X] = np.where(np.arange(3000) % 50 == 0, np.inf, np.asarray(drifted[X]) + 0.3)
    fine, coarser = counts(KNOWN, KNOWN, drifted), counts(KNOWN, WHOLE, drifted)

    assert [(one.label, one.reference) for _, one in fine[0].bins] == [
        (one.label, one.reference) for _, one in coarser[0].bins
    ]
    assert fine[0].bin_counts(fine[1]).tolist() == coarser[0].bin_counts(coarser[1]).tolist()
    np.testing.assert_array_equal(read(*fine).psi, read(*coarser).psi)
    np.testing.assert_array_equal(read(*fine).psi_critical, read(*coarser).psi_critical)
    assert (np.nan_to_num(read(*coarser).ks) <= np.nan_to_num(read(*fine).ks) + 1e-12).all(), "a lower bound still"


def test_the_largest_slices_are_what_a_tracker_counts_of_their_rows():
    assert [(one.tag, one.value, one.rows) for one in KNOWN.segments] == [
        ("region", "eu", REGIONS.count("eu")),
        ("region", "us", REGIONS.count("us")),
    ]
    for one in KNOWN.segments:
        chosen = np.array([region == one.value for region in REGIONS])
        part: Any = {
            key: [v for v, is_in in zip(column, chosen, strict=True) if is_in] for key, column in COLUMNS.items()
        }
        _, sums = counts(KNOWN, WHOLE, part)
        assert list(one.counts) == sums.tolist()
        labels = sum(one.outcomes[2:11])
        assert labels == one.rows, "each row has a label"


def test_slices_and_what_they_leave_are_the_whole():
    parts = [*(of_slice(WHOLE, one) for one in KNOWN.segments), rest(WHOLE, KNOWN.segments)]

    assert sum(one.rows for one in parts) == WHOLE.rows
    for i, feature in enumerate(WHOLE.features):
        assert sum(one.features[i].values for one in parts) == feature.values
        assert sum(one.features[i].missing for one in parts) == feature.missing
        if isinstance(feature, Numeric):
            cells = np.sum([one.features[i].cells for one in parts], axis=0)  # type: ignore[union-attr]
            assert tuple(cells) == feature.cells
    assert WHOLE.task is not None
    assert np.sum([one.task.counts for one in parts if one.task], axis=0).tolist() == list(WHOLE.task.counts)


def test_a_feature_that_a_slice_lacks_is_compared_with_the_whole():
    columns = {X: np.where(np.arange(1000) < 500, np.nan, np.arange(1000.0))}
    known = with_slices(a_reference(columns), columns, {"half": ["a"] * 500 + ["b"] * 500}, 2)
    whole = coarse(known)

    lacking, having = (of_slice(whole, one).features[0] for one in known.segments)

    assert lacking == whole.features[0]
    assert (having.values, having.missing) == (500, 0)


def test_a_document_with_slices_comes_back_and_its_id_tells_them():
    assert reference.decode(reference.encode(KNOWN)) == KNOWN
    assert KNOWN.id != a_reference(COLUMNS, rows=ROWS).id
    assert [len(one.calibrations[0]) for one in KNOWN.segments] == [1, 0], "1,800 rows make no 20 blocks of 100"


@pytest.mark.parametrize(
    "wrong",
    [
        {"counts": KNOWN.segments[0].counts[1:]},
        {"counts": (-1, *KNOWN.segments[0].counts[1:])},
        {"outcomes": (1,)},
        {"rows": 0},
        {"calibrations": ()},
        {"value": "us"},
    ],
    ids=str,
)
def test_slices_that_do_not_fit_are_refused(wrong: dict[str, Any]):
    first, *others = KNOWN.segments
    spoilt = reference.sealed(
        msgspec.structs.replace(KNOWN, segments=(msgspec.structs.replace(first, **wrong), *others))
    )

    with pytest.raises(BadReference, match="segments: their counts do not fit"):
        reference.decode(reference.encode(spoilt))
