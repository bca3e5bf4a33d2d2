"""Data faults as a user sees them: columns into a fleet, verdicts out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy import stats

from exporter.catalog import metrics
from exporter.monitor.events import MISSING, NON_FINITE_NUMBER, WRONG_TYPE, WRONG_TYPE_NUMBER, FeatureKey
from exporter.monitor.faults import Fault, limits
from exporter.monitor.fleet import Fleet
from exporter.monitor.panes import Window
from exporter.monitor.plan import FAULTS, plan_feature
from exporter.monitor.reference import Reference, schema_of
from exporter.monitor.settings import Budget, ModelSettings
from exporter.monitor.snapshot import Snapshot
from tests.builders import (
    COLOUR,
    MODEL,
    NOW,
    X,
    a_batch,
    a_fleet,
    a_reference,
    columns_of,
    decoded,
    observe,
    values_of,
    view,
)

ONE_PANE = Window(3600.0, 1, "1h", open_panes=0)
"""A window that is looked at once, when it is over."""
TEN_PANES = Window(60.0, 10, "10m")
LAG = TEN_PANES.open_panes
"""Panes until one is sealed."""
MINUTE = 60.0
START = NOW - NOW % MINUTE


def in_one_window(
    reference: Reference, columns: Mapping[FeatureKey, Any], feature: int = 0, **settings: Any
) -> dict[str, float]:
    """Faults of a feature in a window with these values: ratios by reason."""
    fleet = a_fleet(reference, window=ONE_PANE, **settings)
    observe(fleet, columns)
    return {fault.reason: fault.ratio for fault in view(fleet.tick(NOW)).faults[feature]}


# ---- what is a fault -------------------------------------------------------------------------------------------------

ROWS = 1000


@pytest.fixture
def reference() -> Reference:
    return a_reference(columns_of(5000))


def test_nothing_is_wrong_with_sound_data(reference: Reference):
    for feature in range(4):
        assert in_one_window(reference, columns_of(ROWS, seed=9), feature) == {}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [(np.nan, "missing"), (WRONG_TYPE_NUMBER, "wrong_type"), (NON_FINITE_NUMBER, "non_finite"), (99.0, "out_of_range")],
)
@pytest.mark.parametrize("share", [0.9, 0.05])
def test_a_number_that_breaks_is_a_fault(reference: Reference, bad: float, reason: str, share: float):
    x = np.random.default_rng(7).normal(size=ROWS)
    x[: int(ROWS * share)] = bad

    assert in_one_window(reference, {X: x}) == {reason: pytest.approx(share, abs=0.005)}


def test_missing_values_that_the_reference_knows_are_a_fault_when_they_grow():
    rng = np.random.default_rng(8)
    holes = np.where(rng.random(5000) < 0.1, np.nan, rng.normal(size=5000))

    for share, fault in ((0.1, False), (0.2, True)):
        current = np.where(rng.random(1000) < share, np.nan, rng.normal(size=1000))
        assert ("missing" in in_one_window(a_reference({X: holes}), {X: current})) == fault


@pytest.mark.parametrize(("code", "reason"), [("mauve", "unseen"), (None, "missing"), (WRONG_TYPE, "wrong_type")])
def test_a_category_that_breaks_in_a_tenth_of_the_rows_is_a_fault(reference: Reference, code: Any, reason: str):
    fleet = a_fleet(reference, window=ONE_PANE)
    colours = [code if isinstance(code, str | None) else "red"] * 100 + columns_of(900)[COLOUR]
    batch = a_batch(fleet.schema(MODEL), {COLOUR: colours})
    if isinstance(code, int):
        batch.codes[:100, fleet.schema(MODEL).categorical.index(COLOUR)] = code
    fleet.observe(decoded(batch), NOW)

    (fault,) = view(fleet.tick(NOW)).faults[1]

    assert (fault.reason, fault.ratio, fault.reference, fault.limit, fault.n) == (reason, 0.1, 0.0, 0.01, 1000)
    assert fault.lower < 0.1 < fault.upper


def test_a_constant_that_starts_to_vary_is_a_fault():
    constant = a_reference({X: np.full(2000, 7.0)})

    assert in_one_window(constant, {X: np.full(1000, 7.0)}) == {}
    assert in_one_window(constant, {X: np.where(np.arange(1000) % 10 == 0, 7.5, 7.0)}) == {"out_of_range": 0.1}


def test_a_value_between_those_of_a_discrete_number_is_a_fault():
    discrete = a_reference({X: np.repeat([0.0, 1.0], 1000)})

    assert in_one_window(discrete, {X: np.repeat([0.0, 1.0], 500)}) == {}
    assert in_one_window(discrete, {X: np.repeat([0.0, 0.5], 500)}) == {"unseen": 0.5}


@pytest.mark.parametrize("rows", [100, 300, 1000])
def test_beyond_the_extremes_of_a_small_reference_lies_something_without_drift(rows: int):
    rng = np.random.default_rng(rows)
    found = [in_one_window(a_reference({X: rng.normal(size=rows)}), {X: rng.normal(size=2000)}) for _ in range(60)]

    assert sum("out_of_range" in one for one in found) <= 1


def test_names_that_a_reference_of_rare_ones_has_not_seen_are_no_fault():
    rng = np.random.default_rng(5)
    column = [f"shop-{i}" for i in rng.zipf(1.5, 8000)]
    same, new = column[4000:], [f"new-{i}" for i in range(4000)]
    reference = a_reference({COLOUR: column[:4000]})

    assert in_one_window(reference, {COLOUR: same}) == {}
    assert in_one_window(reference, {COLOUR: new}) == {"unseen": 1.0}
    assert in_one_window(a_reference({COLOUR: ["a"] * 4000}), {COLOUR: ["a"] * 3000 + new[:1000]}) == {"unseen": 0.25}


def test_an_unknown_category_of_a_reference_with_too_many_names_is_none():
    names = [f"id-{i}" for i in range(10_100)] + ["common"] * 10_100

    assert in_one_window(a_reference({COLOUR: names}), {COLOUR: ["never seen"] * 400 + ["common"] * 600}) == {}


def test_a_fault_needs_evidence_and_not_only_a_ratio_above_its_limit(reference: Reference):
    x = np.random.default_rng(7).normal(size=600)
    x[:9] = np.nan  # 1.5 %: above the limit of 1 %, but 600 rows cannot tell

    assert in_one_window(reference, {X: x}) == {}
    x[:36] = np.nan
    assert in_one_window(reference, {X: x}) == {"missing": 0.06}


def test_the_limit_is_what_the_reference_leaves_open_or_a_tolerance_above_it():
    def limit(column: Any, fault: str, key: FeatureKey = X) -> float:
        known = a_reference({key: column})
        plans = [plan_feature(one, schema_of([known]), ModelSettings(MODEL)) for one in known.features]
        return float(limits(plans)[1][0, FAULTS.index(fault)])

    numbers = np.arange(20_000.0)
    assert limit(np.where(numbers % 100 == 0, np.nan, numbers), "missing") == pytest.approx(0.02)
    assert limit(numbers, "missing") == 0.01
    # None bad of 100: a rate with which that happens once in a thousand samples.
    assert (1 - limit(numbers[:100], "missing")) ** 100 == pytest.approx(0.001)
    assert stats.binom.cdf(5, 200, limit([np.nan] * 5 + [*range(195)], "missing")) == pytest.approx(0.001)
    # With how many of 100 new values beyond the extremes of 100: the share is Beta(2, 99).
    assert limit(numbers[:100], "out_of_range") == pytest.approx(stats.beta.isf(0.001, 2, 99))
    # Of 100 values 20 were seen once: as many again may be unseen.
    names = [f"once-{i}" for i in range(20)] + ["often"] * 80
    assert stats.binom.cdf(20, 100, limit(names, "unseen", COLOUR)) == pytest.approx(0.001)
    assert np.isnan(limit(numbers, "unseen")), "between the knots of many values lie more"
    assert np.isnan(limit([np.nan] * 99 + [1.0], "missing")), "it cannot rise by the tolerance"


# ---- pane by pane ----------------------------------------------------------------------------------------------------


def many(count: int, rows: int, missing: Callable[[np.random.Generator], np.ndarray], seed: int) -> Reference:
    """A reference of so many categories, each with missing values of its own."""
    rng = np.random.default_rng(seed)
    features = []
    for place in range(count):
        gone = int(missing(rng))
        one = a_reference({COLOUR: ["red"] * (rows - gone) + [None] * gone})
        features.append(msgspec.structs.replace(one.features[0], name=f"f{place:04}"))
    return msgspec.structs.replace(one, features=tuple(features))


class Stream:
    """Panes of `rows` rows for a fleet of categories, of which given shares are missing."""

    def __init__(self, fleet: Fleet, seed: int, rows: int = 100) -> None:
        self.fleet, self.rows, self.pane = fleet, rows, 0
        self._rng = np.random.default_rng(seed)

    def go(self, missing: Any, panes: int = 1) -> Snapshot:
        """The next panes, and a tick within the last."""
        for _ in range(panes):
            now = START + MINUTE * self.pane + 1
            batch = a_batch(self.fleet.schema(MODEL), {}, rows=self.rows, time=now)
            gone = self._rng.random(batch.codes.shape) < missing
            self.fleet.observe(decoded(replace(batch, codes=np.where(gone, MISSING, 0).astype(np.int32))), now)
            self.pane += 1
        return self.fleet.tick(now)


def faulty(snapshot: Snapshot) -> np.ndarray:
    """The verdict on each feature, as exposed."""
    return np.array(list(values_of(snapshot, metrics.FAULTY).values()))


def since(snapshot: Snapshot) -> list[float]:
    """The pane in which each fault began."""
    return [(fault.since - START) / MINUTE for faults in view(snapshot).faults for fault in faults]


def test_false_alarms_at_the_limit_are_no_more_than_the_level():
    """Four hundred rates just at their limit, in 40 panes: at most 40 in a hundred alarm at a level of 1 %."""
    reference = many(400, 10_000, lambda _: 100, seed=1)
    shares = []
    for missing in (0.02, 0.03):
        stream = Stream(a_fleet(reference, alpha=0.01, min_samples=1, series_limit=10**6), seed=2)
        shares.append(faulty(stream.go(missing, panes=40 + LAG)).mean())

    assert 0.05 < shares[0] <= 0.4
    assert shares[1] > 0.6, "a rate half as high again is told apart"


def test_a_share_of_the_budget_is_the_level_of_each_rate():
    reference = many(50, 1000, lambda _: 0, seed=1)
    period = {"budget": Budget(2, 30 * 86_400)}
    for settings, level in (
        (period, 0.1 * 2 / (3 * 50 * 30 * 1440)),
        (period | {"window": TEN_PANES}, 0.1 * 2 / (3 * 50 * 30 * 1440)),
        ({"budget": Budget(1e9, 86_400)}, 0.05),
        ({"alpha": 0.001}, 0.001),
    ):
        (exported,) = values_of(a_fleet(reference, **settings).tick(NOW), metrics.FAULT_ALPHA).values()
        assert exported == pytest.approx(level)


def test_a_rise_from_one_to_five_percent_is_found_in_the_sixteenth_pane_and_none_where_there_is_none():
    """Two hundred features, each with a reference of 2,000 rows of its own, at the default budget for all of them.

    None alarms in five hours of what the references were drawn from, whatever each of them makes of it.
    """
    reference = many(200, 2000, lambda rng: rng.binomial(2000, 0.01), seed=3)
    stream = Stream(a_fleet(reference, min_samples=1, series_limit=10**6), seed=4)
    for _ in range(6):
        assert faulty(stream.go(0.01, panes=50)).tolist() == [0.0] * 200

    found = np.array(since(stream.go(0.05, panes=50)))
    assert len(found) == 200
    assert np.median(found) - 299 <= 16


def test_a_fault_that_lasts_stays_active_and_one_that_is_cured_ages_out():
    stream = Stream(a_fleet(many(1, 1000, lambda _: 0, seed=0), window=TEN_PANES, min_samples=1), seed=5)
    told = [stream.go(share) for share in [0.0] * 20 + [0.5] * 40 + [0.0] * 30 + [0.5] * 5]

    verdicts = np.concatenate([faulty(snapshot) for snapshot in told])
    assert np.flatnonzero(np.diff(verdicts)).tolist() == [20 + LAG - 1, 59 + TEN_PANES.panes - 1, 90 + LAG - 1]
    assert {tuple(since(told[pane])) for pane in range(20 + LAG, 60 + TEN_PANES.panes - 1)} == {(20,)}
    assert since(told[-1]) == [90]


def test_a_fault_is_told_of_few_values_but_its_absence_is_not():
    for missing, verdict in ((1.0, [1.0]), (0.0, [])):
        stream = Stream(a_fleet(many(1, 1000, lambda _: 0, seed=0), min_samples=500), seed=6, rows=20)
        assert faulty(stream.go(missing)).tolist() == []
        assert faulty(stream.go(missing, panes=LAG)).tolist() == verdict


def test_verdicts_wait_while_the_source_catches_up():
    fleet = a_fleet(many(1, 1000, lambda _: 0, seed=0), window=TEN_PANES, min_samples=1)
    stream = Stream(fleet, seed=7)
    stream.go(1.0, panes=5)
    now = START + MINUTE * stream.pane
    assert list(values_of(fleet.tick(now), metrics.FAULTY).values()) == [1.0]

    observe(fleet, rows=1, time=now, now=now + 20 * MINUTE)
    snapshot = fleet.tick(now + 20 * MINUTE)
    assert view(snapshot).catching_up
    assert (values_of(snapshot, metrics.FAULTY), view(snapshot).faults) == ({}, ((),))


def test_without_a_reference_there_is_no_verdict():
    snapshot = a_fleet().tick(NOW)
    assert (values_of(snapshot, metrics.FAULTY), values_of(snapshot, metrics.FAULT_ALPHA)) == ({}, {})
    assert view(snapshot).faults == ()


# ---- restarts, references, processes ---------------------------------------------------------------------------------


def history(shares: Sequence[float], restart_at: int | None, settings: Mapping[str, Any]) -> tuple[list[Any], Fleet]:
    """What each pane showed of five features; the process may be another from some pane on."""
    reference = many(5, 1000, lambda rng: rng.binomial(1000, 0.02), seed=8)
    stream = Stream(a_fleet(reference, window=TEN_PANES, min_samples=1), seed=9)
    told: list[tuple[list[float], Sequence[Sequence[Fault]]]] = []
    for pane, share in enumerate(shares):
        if pane == restart_at:
            stream.fleet, before = a_fleet(reference, **settings), stream.fleet
            stream.fleet.load(before.dump())
        snapshot = stream.go(share)
        told.append((faulty(snapshot).tolist(), view(snapshot).faults))
    return told, stream.fleet


def test_a_restart_in_any_pane_changes_no_verdict_and_no_bit_of_the_evidence():
    shares = [0.02] * 10 + [0.15] * 10 + [0.02] * 5
    settings = {"window": TEN_PANES, "min_samples": 1}
    lasting, fleet = history(shares, None, settings)
    assert {tuple(verdicts) for verdicts, _ in lasting} > {(0.0,) * 5, (1.0,) * 5}, "it tells something"

    for pane in (1, 12, 15, 20):
        told, other = history(shares, pane, settings)
        assert told == lasting
        assert other.dump() == fleet.dump()


def test_a_window_of_another_length_starts_without_evidence():
    shares = [0.02] * 5 + [0.5] * 5
    told, _ = history([*shares, 0.02], 10, {"window": Window(60.0, 11, "11m"), "min_samples": 1})
    assert [verdicts for verdicts, _ in told[-2:]] == [[1.0] * 5, [0.0] * 5]


def test_another_reference_starts_without_evidence_and_the_same_goes_on():
    known, other = many(1, 1000, lambda _: 0, seed=0), many(1, 1000, lambda _: 900, seed=0)
    later = msgspec.structs.replace(other, version="7")
    stream = Stream(a_fleet(known, window=TEN_PANES, min_samples=1), seed=10)
    stream.go(0.5, panes=5)
    stream.fleet.adopt(MODEL, [known, later])
    assert faulty(stream.go(0.5)).tolist() == [1.0]
    stream.fleet.adopt(MODEL, [msgspec.structs.replace(other, id="0" * 12)])
    assert faulty(stream.go(0.5, panes=15)).tolist() == [0.0]


def test_merged_processes_know_what_each_of_them_knew():
    reference = many(1, 1000, lambda _: 0, seed=0)
    ours, theirs = (Stream(a_fleet(reference, window=TEN_PANES, min_samples=1), seed=seed) for seed in (11, 12))
    for pane in range(6):
        ours.go(0.0)
        told = theirs.go(0.5 if pane > 1 else 0.0)
    assert since(told) == [2]
    for fleet, other in (
        (a_fleet(reference, window=TEN_PANES, min_samples=1), theirs.fleet),
        (ours.fleet, theirs.fleet),
    ):
        fleet.merge(other)
        merged = fleet.tick(told.now)
        assert (faulty(merged).tolist(), since(merged)) == ([1.0], [2])
