"""The laws of a sum, for every tracker: how rows are cut, grouped or spread over processes does not change a count."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.catalog import metrics, thresholds
from exporter.monitor.accuracy import AccuracyTracker
from exporter.monitor.drift import DriftTracker
from exporter.monitor.events import (
    LABEL,
    MISSING,
    NO_ERROR,
    NON_FINITE_NUMBER,
    UNSEEN,
    WRONG_TYPE,
    WRONG_TYPE_NUMBER,
    ErrorReasons,
    FeatureKey,
    Names,
    Rows,
    Schema,
    tag,
)
from exporter.monitor.features import Categorical, Numeric
from exporter.monitor.fleet import TRACKERS
from exporter.monitor.moments import HALF, PER_SD
from exporter.monitor.multivariate import MomentsTracker
from exporter.monitor.outcomes import ERROR_CLIP, LOSS, LOSS_CLIP, PROBABILITY, Task
from exporter.monitor.reference import Reference, Resolution, schema_of
from exporter.monitor.settings import ModelSettings
from exporter.monitor.slots import Slots, Split
from exporter.monitor.traffic import LATENCY_BUCKETS_S, LATENCY_CLIP_S, TrafficTracker
from tests.builders import COLOUR, PREDICTION, SCORE, X, a_reference, an_input, as_text

SETTINGS = ModelSettings("m", version="1", min_samples=100)


def reference(version: str = "1") -> Reference:
    rng = np.random.default_rng(0)
    return a_reference(
        {
            X: rng.normal(size=400).round(2),
            COLOUR: rng.choice(["a", "b", "c", "rare", "rarer"], 400, p=[0.4, 0.3, 0.28, 0.01, 0.01]).tolist(),
            an_input("constant"): np.full(400, 2.0),
            an_input("holes"): np.where(rng.random(400) < 0.3, np.nan, rng.integers(0, 5, 400)),
            PREDICTION: rng.choice(["0", "1"], 400).tolist(),
            SCORE: rng.random(400).round(3),
            LABEL: rng.choice(["0", "1"], 400).tolist(),
        },
        model="m",
        version=version,
        resolution=Resolution(knots=30),
    )


REFERENCE = reference()
# Another reference of the model brings categories and columns that this one does not know.
_KNOWN = schema_of([a_reference({COLOUR: ["new", "a"], an_input("more"): np.arange(2.0)}, version="0"), REFERENCE])
_OF_CLASSES = tuple(FeatureKey("score", name) for name in "012")
# And what models of other tasks have; one schema serves all.
_REGIONS = Names()
_REGIONS.learn(["eu", "us", "asia", "mars"])
SCHEMA = replace(_KNOWN, numeric=(*_KNOWN.numeric, PREDICTION, LABEL, *_OF_CLASSES)).with_tags(
    {tag("region"): _REGIONS}
)
BINARY = REFERENCE.task
MULTICLASS = Task("multiclass", ("0", "1", "2"), scores=("0", "1", "2"))
REGRESSION = Task("regression", unit=0.001)


# ---- counting by hand ------------------------------------------------------------------------------------------------


def drift_by_hand(tracker: DriftTracker, rows: Rows) -> dict[str, float]:
    """Bins and faults by plain comparison of each value with the reference."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for plan in tracker.features:
        feature = plan.feature
        for i in range(len(rows)):
            if feature.kind != "input" and rows.error[i] != NO_ERROR:
                continue
            if isinstance(feature, Numeric):
                value = rows.numeric[i, SCHEMA.numeric.index(plan.key)]
                bin_, fault = number_by_hand(plan, value)
            else:
                place = SCHEMA.categorical.index(plan.key)
                bin_, fault = category_by_hand(plan, SCHEMA, place, rows.codes[i, place])
            counts["ml_feature_bin_observations_total", feature.name, bin_] += 1
            if fault:
                counts["ml_feature_invalid_values_total", feature.name, fault] += 1
    return {"|".join(key): count for key, count in counts.items()}


def number_by_hand(plan: Any, value: float) -> tuple[str, str | None]:
    if np.isnan(value):
        return "missing", "missing"
    if value == WRONG_TYPE_NUMBER:
        return "invalid", "wrong_type"
    if value == NON_FINITE_NUMBER:
        return "invalid", "non_finite"
    knots = plan.feature.knots
    # The bin of the cell, counted through the cells: below, = r_1, between, = r_2, ...
    cell = sum(knot < value for knot in knots) + sum(knot <= value for knot in knots)
    label = plan.bins[plan.bin_of_slot[1 + cell]].label
    if not knots[0] <= value <= knots[-1]:
        return label, "out_of_range"
    discrete = len(knots) <= thresholds.DISCRETE_VALUES.count and not any(plan.feature.cells[::2])
    return label, "unseen" if discrete and value not in knots else None


def category_by_hand(plan: Any, schema: Schema, place: int, code: int) -> tuple[str, str | None]:
    if code == MISSING:
        return "missing", "missing"
    if code == WRONG_TYPE:
        return "invalid", "wrong_type"
    texts = [text for text, known in schema.vocabularies[place].items() if known == code and isinstance(text, str)]
    feature: Categorical = plan.feature
    for text in texts:
        if f"={text}" in {exported.label for exported in plan.bins}:
            return f"={text}", None
        if text in feature.categories or text in feature.others:
            return "other", None
    return "unseen", "unseen"


def traffic_by_hand(tracker: TrafficTracker, rows: Rows) -> dict[str, float]:
    counts: Counter[str] = Counter()
    for latency, error in zip(rows.latency_s.tolist(), rows.error.tolist(), strict=True):
        counts["predictions"] += 1
        if error != NO_ERROR:
            counts[f"error|{tracker.reasons[error]}"] += 1
        if np.isnan(latency):
            continue
        if latency == WRONG_TYPE_NUMBER:
            counts["invalid|wrong_type"] += 1
        elif latency == NON_FINITE_NUMBER:
            counts["invalid|non_finite"] += 1
        elif latency < 0:
            counts["invalid|out_of_range"] += 1
        else:
            if latency > LATENCY_CLIP_S:
                counts["invalid|out_of_range"] += 1
            counts["latencies"] += 1
            counts["us"] += round(min(latency, LATENCY_CLIP_S) * 1e6)
            for bound in LATENCY_BUCKETS_S:
                counts[f"le|{bound}"] += latency <= bound
    return dict(counts)


def accuracy_by_hand(tracker: AccuracyTracker, rows: Rows) -> dict[str, float]:
    """Sums by plain comparison of each prediction with its label."""
    counts: Counter[str] = Counter()
    task = tracker.task
    for i in range(len(rows)):
        if rows.error[i] != NO_ERROR:
            continue
        if task.kind == "regression":
            predicted, actual = (rows.numeric[i, SCHEMA.numeric.index(key)] for key in (PREDICTION, LABEL))
            if not np.isfinite(predicted):
                continue
            counts["matured"] += 1
            counts["invalid"] += bool(np.isinf(actual))
            if np.isfinite(actual):
                units = min(abs(np.rint((predicted - actual) / task.unit)), ERROR_CLIP)
                counts["joined||"] += 1
                counts["absolute"] += int(units)
                counts["squared"] += int(units) ** 2
            continue
        predicted, actual = (class_by_hand(task, rows, i, key) for key in (PREDICTION, LABEL))
        if predicted is None or predicted == "invalid":
            continue
        counts["matured"] += 1
        counts["invalid"] += actual == "invalid"
        if actual is None or actual == "invalid":
            continue
        counts[f"joined|{predicted}|{actual}"] += 1
        scores = [rows.numeric[i, SCHEMA.numeric.index(FeatureKey("score", name))] for name in task.scores]
        if task.kind == "multiclass":
            if actual != "other" and 0 <= (given := scores[task.classes.index(actual)]) <= 1:
                counts["loss"] += round(-np.log(max(given, LOSS_CLIP)) / LOSS)
        elif 0 <= scores[0] <= 1:
            score, positive = scores[0], actual == task.positive
            bin_ = sum(edge < score for edge in task.edges)
            counts["loss"] += round(-np.log(max(score if positive else 1 - score, LOSS_CLIP)) / LOSS)
            counts["squared"] += round(score**2 / PROBABILITY)
            counts["squared"] += (10**9 - 2 * round(score / PROBABILITY)) * positive
            counts[f"labels|{bin_:02d}"] += 1
            counts[f"positives|{bin_:02d}"] += positive
            counts[f"score|{bin_:02d}"] += round(score / PROBABILITY)
    return dict(counts)


def class_by_hand(task: Task, rows: Rows, i: int, key: FeatureKey) -> str | None:
    place = SCHEMA.categorical.index(key)
    code = rows.codes[i, place]
    if code in (MISSING, WRONG_TYPE):
        return None if code == MISSING else "invalid"
    texts = [text for text, known in SCHEMA.vocabularies[place].items() if known == code and isinstance(text, str)]
    return next((text for text in texts if text in task.classes), "other")


def accuracy_as_shown(lines: dict[str, float]) -> dict[str, float]:
    units = {"ml_score_bin_score_total": PROBABILITY, "ml_label_log_loss_total": LOSS}
    regression = any(series.startswith("ml_label_absolute_error") for series in lines)
    units["ml_label_absolute_error_total"] = REGRESSION.unit
    units["ml_label_squared_error_total"] = REGRESSION.unit**2 if regression else PROBABILITY
    names = {
        "ml_labels_matured_total": "matured",
        "ml_feature_invalid_values_total": "invalid",
        "ml_labels_joined_total": "joined|{predicted}|{actual}",
        "ml_label_absolute_error_total": "absolute",
        "ml_label_squared_error_total": "squared",
        "ml_label_log_loss_total": "loss",
        "ml_score_bin_labels_total": "labels|{bin}",
        "ml_score_bin_positives_total": "positives|{bin}",
        "ml_score_bin_score_total": "score|{bin}",
    }
    found = {}
    for series, value in lines.items():
        name, labels = series.split("{")
        named = dict(pair.split("=", 1) for pair in labels.rstrip("}").replace('"', "").split(","))
        found[names[name].format(**named)] = round(value / units.get(name, 1))
    return found


def drift_as_shown(lines: dict[str, float]) -> dict[str, float]:
    found = {}
    for series, value in lines.items():
        name, labels = series.split("{")
        named = dict(pair.split("=", 1) for pair in labels.rstrip("}").replace('"', "").split(","))
        found["|".join((name, named["feature"], named.get("bin") or named["reason"]))] = value
    return found


def traffic_as_shown(lines: dict[str, float]) -> dict[str, float]:
    found = {}
    for series, value in lines.items():
        if series.startswith("ml_predictions_total"):
            found["predictions"] = value
        elif 'le="' in series and "+Inf" not in series:
            found[f"le|{series.split('le=')[1][1:-2]}"] = value
        elif "_count" in series:
            found["latencies"] = value
        elif "_sum" in series:
            found["us"] = round(value * 1e6)
        elif "_errors_total" in series:
            found[f"error|{series.split('reason=')[1][1:-2]}"] = value
        elif "_invalid_values_" in series:
            found[f"invalid|{series.split('reason=')[1][1:-2]}"] = value
    return found


def moments_by_hand(tracker: MomentsTracker, rows: Rows) -> dict[str, float]:
    """Clips by plain comparison of each value with the reference. What else is summed is not exposed."""
    moments, clipped = tracker.moments, 0
    for name, centre, scale in zip(moments.features, moments.centre, moments.scale, strict=True):
        for value in rows.numeric[:, SCHEMA.numeric.index(an_input(name))].tolist():
            clipped += np.isfinite(value) and abs(value - centre) / scale * PER_SD > HALF
    return {"clipped": clipped}


def moments_as_shown(lines: dict[str, float]) -> dict[str, float]:
    (value,) = lines.values()
    return {"clipped": value}


@dataclass(frozen=True)
class Case:
    """A tracker, and an independent way to count for it."""

    tracker: Any
    by_hand: Callable[[Any, Rows], dict[str, float]]
    as_shown: Callable[[dict[str, float]], dict[str, float]]


def accuracy(task: Task | None) -> Case:
    assert task is not None
    return Case(AccuracyTracker(task, SCHEMA, SETTINGS, "1"), accuracy_by_hand, accuracy_as_shown)


MOMENTS = REFERENCE.moments
assert MOMENTS is not None


def split(tracker: Any) -> Case:
    """Of three slots, one is free. What is exposed of segments is not a tracker's to say: test_slots counts by hand."""
    slots = Slots(_REGIONS, 3, ["us", "mars"])
    return Case(Split(tracker, slots, len(SCHEMA.categorical) - 1), lambda *_: {}, lambda _: {})


CASES = {
    "traffic": Case(TrafficTracker(SETTINGS, "1"), traffic_by_hand, traffic_as_shown),
    "drift": Case(DriftTracker(REFERENCE, SCHEMA, SETTINGS, "1"), drift_by_hand, drift_as_shown),
    "binary": accuracy(BINARY),
    "multiclass": accuracy(MULTICLASS),
    "regression": accuracy(REGRESSION),
    "moments": Case(MomentsTracker(MOMENTS, SCHEMA, SETTINGS, "1"), moments_by_hand, moments_as_shown),
    "drift by segment": split(DriftTracker(REFERENCE, SCHEMA, SETTINGS, "1")),
    "quality by segment": split(accuracy(BINARY).tracker),
}


def test_every_tracker_is_held_to_the_laws():
    assert {type(case.tracker) for case in CASES.values()} == set(TRACKERS)


each = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


# ---- rows ------------------------------------------------------------------------------------------------------------

sentinels = [np.nan, WRONG_TYPE_NUMBER, NON_FINITE_NUMBER]
borders = sorted({*REFERENCE.features[0].knots, 0.0, 1.0, 2.0, 3.0, -99.0, 99.0})  # type: ignore[union-attr]


def drawn_rows(rng: np.random.Generator, n: int, *, sound: bool = False) -> Rows:
    """Rows with everything that a batch may hold: values on, between and beyond the knots, and all sentinels."""
    shape = (n, len(SCHEMA.numeric))
    numeric = np.where(rng.random(shape) < 0.5, rng.choice(borders, shape), rng.normal(size=shape) * 2)
    numeric = np.where(rng.random(shape) < (0 if sound else 0.2), rng.choice(sentinels, shape), numeric)
    codes = np.empty((n, len(SCHEMA.categorical)), np.int32)
    for place, vocabulary in enumerate(SCHEMA.vocabularies):
        codes[:, place] = rng.integers(UNSEEN, max(vocabulary.values()) + 1, n)
    latency = np.where(rng.random(n) < 0.3, rng.choice([*sentinels, -1.0, 0.005, 4000.0], n), rng.exponential(0.1, n))
    error = np.where(rng.random(n) < 0.8, NO_ERROR, rng.integers(0, len(ErrorReasons().names), n)).astype(np.int16)
    return Rows(numeric, codes, latency, error, None, 1)


def part(rows: Rows, chosen: Any, group: np.ndarray | None = None, groups: int = 1) -> Rows:
    return Rows(rows.numeric[chosen], rows.codes[chosen], rows.latency_s[chosen], rows.error[chosen], group, groups)


def counted(case: Case, *parts: Rows) -> np.ndarray:
    sums = np.zeros((1, case.tracker.width), np.int64)
    for one in parts:
        case.tracker.add(sums, one)
    return sums[0]


row_sets = st.builds(
    lambda seed, n, sound: drawn_rows(np.random.default_rng(seed), n, sound=sound),
    st.integers(0, 2**32),
    st.one_of(st.integers(0, 40), st.integers(500, 600)),
    st.booleans(),
)


# ---- laws ------------------------------------------------------------------------------------------------------------


@each
@given(rows=row_sets, data=st.data())
def test_rows_may_be_cut_and_reordered(case: Case, rows: Rows, data: st.DataObject):
    order = np.random.default_rng(data.draw(st.integers(0, 9))).permutation(len(rows))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=4)))

    pieces = [part(rows, chosen) for chosen in np.split(order, cuts)]

    assert counted(case, rows).tolist() == counted(case, *pieces).tolist()


@each
@given(rows=row_sets, groups=st.integers(1, 5), seed=st.integers(0, 9))
def test_counting_in_groups_is_counting_each_group(case: Case, rows: Rows, groups: int, seed: int):
    group = np.random.default_rng(seed).integers(0, groups, len(rows))
    sums = np.zeros((groups, case.tracker.width), np.int64)

    case.tracker.add(sums, part(rows, slice(None), group, groups))

    for i in range(groups):
        assert sums[i].tolist() == counted(case, part(rows, group == i)).tolist()


@each
@pytest.mark.parametrize("n", [0, 1, 37, 511, 512, 1500])
def test_counting_by_any_route_is_counting_by_hand(case: Case, n: int):
    rows = drawn_rows(np.random.default_rng(n), n)
    expected = case.by_hand(case.tracker, rows)

    for lifetime in (counted(case, rows), counted(case, *[part(rows, [i]) for i in range(n)])):
        shown = case.as_shown(as_text(case.tracker.samples(lifetime)))
        assert {key: value for key, value in shown.items() if value} == {k: v for k, v in expected.items() if v}


def test_the_hand_count_covers_every_bin_and_fault():
    """Or the comparison above would show less than it says."""
    tracker = CASES["drift"].tracker
    seen = drift_by_hand(tracker, drawn_rows(np.random.default_rng(0), 3000))

    bins = {f"ml_feature_bin_observations_total|{plan.key.name}|{exported.label}" for plan, exported in tracker.bins}
    assert bins - set(seen) == {"ml_feature_bin_observations_total|prediction|other"}, "it has two classes"
    assert {key.split("|")[2] for key in seen if "invalid_values" in key} == {
        "missing",
        "wrong_type",
        "non_finite",
        "out_of_range",
        "unseen",
    }


@given(row_sets, row_sets, row_sets)
def test_merging_is_a_sum_and_nothing_is_its_identity(one: Rows, two: Rows, three: Rows):
    for case in CASES.values():
        a, b, c = (counted(case, rows) for rows in (one, two, three))
        nothing = counted(case)
        together = counted(case, one, two, three)

        assert ((a + b) + c).tolist() == (a + (b + c)).tolist() == together.tolist()
        assert (a + nothing).tolist() == a.tolist()
        assert np.frombuffer(a.tobytes(), np.int64).tolist() == a.tolist()
        shown = [as_text(case.tracker.samples(part)) for part in (a, b, a + b)]
        for series in shown[2]:
            assert shown[2][series] == pytest.approx(shown[0][series] + shown[1][series])


@each
def test_a_pane_holds_what_a_tracker_can_sum_in_one(case: Case):
    """A million predictions of an hour each, in one pane."""
    rows = drawn_rows(np.random.default_rng(0), 1000)
    rows.latency_s[:] = LATENCY_CLIP_S
    most = counted(case, rows) * 1000

    assert np.iinfo(case.tracker.cells).max >= most.max()


@each
@given(rows=row_sets)
def test_nothing_is_emitted_outside_the_catalogue(case: Case, rows: Rows):
    samples = list(case.tracker.samples(counted(case, rows)))

    assert len({sample.series.text for sample in samples}) == len(samples)
    for sample in samples:
        assert sample.series.metric in metrics.METRICS
        assert len(sample.series.values) == len(sample.series.metric.labels)
        assert sample.series.metric.kind in ("counter", "histogram")
        assert sample.value >= 0
