"""The JSON contract of GET /api/v1/models: what the page relies on."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from exporter.app.rendering import Renderer
from exporter.monitor.accuracy import QUALITIES
from exporter.monitor.coarse import with_slices
from exporter.monitor.events import LABEL, FeatureKey, Reject, tag
from exporter.monitor.fleet import Fleet
from exporter.monitor.health import SourceHealth
from exporter.monitor.history import POINTS
from exporter.monitor.reference import Column
from exporter.monitor.settings import ModelSettings, Segmentation
from tests.builders import (
    MODEL,
    NOW,
    PREDICTION,
    SCORE,
    X,
    a_batch,
    a_fleet,
    a_reference,
    an_input,
    columns_of,
    decoded,
    observe,
)

KEYS = {
    "": "now exporter state sources models",
    "exporter": "version started tick_s series series_limit series_dropped not_ready",
    "source": "source health events rejected late dropped troubles redelivered watermark examples",
    "example": "time reason detail",
    "model": "model version configured state reference trained max_age_s learning window traffic history quality "
    "labels multivariate segments features_drifted features_evaluated features",
    "segment": "segment_name segment state borrowed_reference samples predictions error_ratio reference_rows "
    "features_evaluated drifted worst quality",
    "reference": "id created rows version",
    "window": "label seconds start end samples",
    "traffic": "predictions errors rate_per_s error_ratio latency_s latency_objective_s last_prediction",
    "history": "time rate_per_s error_ratio latency_p99_s features_drifted",
    "multivariate": "features left_out n threshold alpha clipped_ratio tests",
    "test": "moment state distance critical p_value drifted extrapolated changes",
    "change": "statistic features reference window z",
    "quality": "state kind positive labels coverage min_labels metrics gaps",
    "metric": "value lower upper estimated estimated_error baseline tolerance degraded n coverage",
    "gap": "gap sigma z",
    "feature": "feature kind type state drifted listed extrapolated n min_samples alpha psi psi_null_mean psi_critical "
    "threshold ks ks_upper ks_critical js_divergence p_value p_above_threshold missing_ratio invalid_ratio "
    "unseen_ratio out_of_range_ratio faults distribution history",
    "fault": "reason ratio lower upper reference limit n since",
    "distribution": "labels edges reference current",
    "feature_history": "psi critical n",
}


SOURCES = {"events": SourceHealth("exactly_once", lag_records=3)}


def has(part: Mapping[str, Any], name: str) -> None:
    assert set(part) == set(KEYS[name].split()), name


def rendered(fleet: Fleet, now: float = NOW, *, renderer: Renderer | None = None) -> dict[str, Any]:
    renderer = renderer or Renderer("0.1", started=NOW - 60, tick_s=5)
    plain = renderer.render(fleet.tick(now), SOURCES, None, ["events.jsonl: not there"]).status.plain
    return json.loads(plain, parse_constant=lambda token: pytest.fail(f"{token} is no JSON"))


TALL = an_input("tall")


def busy() -> Fleet:
    """Two versions, a drifted and a faulty feature, latencies, errors, rejects and drops."""
    reference = a_reference(columns_of(2000) | {TALL: np.arange(2000.0)})
    fleet = a_fleet(reference, min_samples=100, latency_objective_s={"0.99": 0.25})
    columns = columns_of(500, seed=7) | {TALL: np.arange(500.0) * 4}
    shifted = {key: values + 3 if key.name == "x" else values for key, values in columns.items()}
    error = np.where(np.arange(500) % 50 == 0, 0, -1).tolist()
    observe(fleet, {}, rows=200, version="2", time=NOW - 180)  # in a pane that is sealed by now
    observe(fleet, shifted, latency_s=np.linspace(0, 1, 500).tolist(), error=error)
    rejects = [Reject(i, "malformed_json", "x" * 1000) for i in range(30)]
    batch = a_batch(fleet.schema(MODEL), {}, rows=1, time=NOW + 1e6)
    fleet.observe(decoded(batch, rejects=rejects, dropped={"label": 2}), NOW)
    return fleet


def answers(rows: int, wrong: int | None = None) -> dict[FeatureKey, Column]:
    """Predictions and scores, as many 0 as 1; and labels, if it is known how many predictions were wrong."""
    predicted = [str(row % 2) for row in range(rows)]
    columns: dict[FeatureKey, Column] = {PREDICTION: predicted, SCORE: np.array([0.25, 0.75] * (rows // 2))}
    if wrong is not None:
        columns[LABEL] = ["10"[row % 2] if row < wrong else one for row, one in enumerate(predicted)]
    return columns


def quality(fleet: Fleet) -> dict[str, Any]:
    (model,) = rendered(fleet)["models"]
    return model["quality"]


def everything(value: Any) -> Iterator[Any]:
    yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from everything(part)


def test_every_key_is_there_and_no_other():
    answer = rendered(busy())
    has(answer, "")
    has(answer["exporter"], "exporter")
    assert answer["exporter"]["not_ready"] == ["events.jsonl: not there"]
    (source,) = answer["sources"]
    has(source, "source")
    for example in source["examples"]:
        has(example, "example")
    assert {model["version"] for model in answer["models"]} == {"1", "2"}
    for model in answer["models"]:
        for name in ("model", "reference", "window", "traffic", "history"):
            has(model if name == "model" else model[name], name)
        has(model["multivariate"], "multivariate")
        for test in model["multivariate"]["tests"]:
            has(test, "test")
            for change in test["changes"]:
                has(change, "change")
        for feature in model["features"]:
            has(feature, "feature")
            has(feature["distribution"], "distribution")
            has(feature["history"], "feature_history")
            for fault in feature["faults"]:
                has(fault, "fault")


def test_inputs_that_are_not_watched_together_are_named():
    """There are rows for two of them; a constant is none that could be."""
    inputs = {an_input(name): np.random.default_rng(i).normal(size=200) for i, name in enumerate("abcd")}
    (model,) = rendered(a_fleet(a_reference(inputs | {an_input("same"): np.ones(200)})))["models"]

    assert (model["multivariate"]["features"], model["multivariate"]["left_out"]) == (["a", "b"], ["c", "d"])
    (model,) = rendered(a_fleet(a_reference(rows=100)))["models"]
    assert model["multivariate"] is None


def test_what_is_shown_of_traffic_and_feed():
    answer = rendered(busy())
    (source,) = answer["sources"]
    assert (source["events"], source["rejected"], source["dropped"]) == (733, {"malformed_json": 30}, {"label": 2})
    assert source["late"] == {"future": 1}
    assert len(source["examples"]) == 10
    assert len(source["examples"][0]["detail"]) == 200
    assert source["watermark"] == NOW
    model = next(one for one in answer["models"] if one["version"] == "1")
    assert (model["traffic"]["predictions"], model["traffic"]["errors"]) == (501, {"timeout": 10})
    assert model["traffic"]["error_ratio"] == pytest.approx(10 / 500)
    assert 0.4 < model["traffic"]["latency_s"]["p50"] < 0.6
    assert model["traffic"]["latency_objective_s"] == {"p99": 0.25}
    assert (model["window"]["label"], model["window"]["seconds"], model["window"]["samples"]) == ("1h", 3600, 500)


def test_scores_and_faults_of_the_features():
    answer = rendered(busy())
    one, two = sorted(answer["models"], key=lambda model: model["version"])
    x = next(feature for feature in one["features"] if feature["feature"] == "x")
    assert (x["type"], x["state"], x["drifted"], x["n"]) == ("numeric", "drifting", True, 500)
    assert x["psi"] > x["threshold"]
    assert x["ks"] <= x["ks_upper"]
    assert x["p_value"] < 1e-10
    colour = next(feature for feature in one["features"] if feature["feature"] == "colour")
    assert colour["type"] == "categorical"
    assert [colour[score] for score in ("ks", "ks_upper", "ks_critical")] == [None] * 3
    assert one["features_drifted"] == 1
    assert (one["state"], one["features_evaluated"]) == ("drifting", 5)
    missing = [fault for feature in two["features"] for fault in feature["faults"]]
    assert {(fault["reason"], fault["ratio"], fault["n"]) for fault in missing} == {("missing", 1.0, 200)}
    assert all(fault["lower"] < fault["ratio"] <= fault["upper"] + 1e-9 for fault in missing)
    assert all((fault["reference"], fault["limit"], fault["since"]) == (0.0, 0.01, NOW - 180) for fault in missing)


def test_what_is_not_known_is_null_and_never_zero():
    (model,) = rendered(a_fleet(a_reference()))["models"]
    assert (model["state"], model["learning"], model["window"]["start"]) == ("insufficient_data", None, None)
    for name in ("error_ratio", "latency_s", "rate_per_s", "last_prediction"):
        assert model["traffic"][name] is None
    for feature in model["features"]:
        for score in ("psi", "psi_null_mean", "psi_critical", "ks", "js_divergence", "p_value", "missing_ratio"):
            assert feature[score] is None, score
        assert (feature["n"], feature["drifted"], feature["distribution"]["current"]) == (0, False, None)


def test_quality_is_null_where_nobody_ever_told_what_was_true():
    fleet = a_fleet(a_reference(answers(2000)))
    observe(fleet, answers(500))
    assert quality(fleet) is None
    observe(fleet, answers(10, wrong=1))
    assert quality(fleet)["state"] == "insufficient_labels"


def test_quality_waits_for_labels_and_is_then_told_from_the_baseline():
    fleet = a_fleet(a_reference(answers(2000, wrong=100)))
    observe(fleet, answers(300))
    bare = quality(fleet)
    has(bare, "quality")
    assert (bare["state"], bare["labels"], bare["coverage"], bare["metrics"]) == ("no_labels", 0, 0, {})
    assert (bare["kind"], bare["positive"], bare["min_labels"]) == ("binary", "1", 200)

    observe(fleet, answers(100, wrong=5))
    few = quality(fleet)
    assert (few["state"], few["labels"], few["coverage"], few["metrics"]) == ("insufficient_labels", 100, 0.25, {})

    observe(fleet, answers(400, wrong=20))
    enough = quality(fleet)
    assert (enough["state"], enough["labels"], enough["coverage"]) == ("ok", 500, 500 / 800)
    assert enough["metrics"].keys() == {*QUALITIES, "log_loss", "brier", "ece"}
    for one in enough["metrics"].values():
        has(one, "metric")
        assert one["lower"] <= one["value"] <= one["upper"]
        assert (one["n"], one["coverage"], one["degraded"]) == (500, 500 / 800, False)
    accuracy = enough["metrics"]["accuracy"]
    assert (accuracy["value"], accuracy["baseline"], accuracy["tolerance"]) == (0.95, 0.95, 0.02)

    observe(fleet, answers(400, wrong=100))
    worse = quality(fleet)
    assert worse["state"] == "degraded"
    accuracy = worse["metrics"]["accuracy"]
    assert (accuracy["value"], accuracy["degraded"]) == (775 / 900, True)
    assert accuracy["upper"] < accuracy["baseline"] - accuracy["tolerance"]
    assert worse["metrics"]["brier"]["degraded"], "a loss is worse where it is more"


def test_quality_without_a_baseline_is_told_but_not_judged():
    fleet = a_fleet(a_reference(answers(2000)))
    observe(fleet, answers(400, wrong=400))
    found = quality(fleet)
    assert (found["state"], found["metrics"]["accuracy"]["value"]) == ("ok", 0)
    for one in found["metrics"].values():
        assert (one["baseline"], one["tolerance"], one["degraded"]) == (None, None, False)


def test_of_a_slice_the_worst_feature_is_shown_and_what_is_drifted():
    columns = answers(600, wrong=60) | {X: np.random.default_rng(0).normal(size=600)}
    known = with_slices(a_reference(columns), columns, {"region": ["eu", "us"] * 300}, 2)
    fleet = a_fleet(known, min_samples=100, segments=(Segmentation("region"),))
    shifted = columns | {X: np.asarray(columns[X]) + 3.0 * (np.arange(600) % 2), tag("region"): ["eu", "us"] * 300}
    observe(fleet, shifted)

    (model,) = rendered(fleet)["models"]

    eu, us, other = model["segments"]
    for one in (eu, us, other):
        has(one, "segment")
    assert [one["segment"] for one in (eu, us, other)] == ["eu", "us", "other"]
    assert (us["state"], us["drifted"], us["worst"]["feature"]) == ("drifting", ["x"], "x")
    assert (us["samples"], us["predictions"], us["reference_rows"], us["borrowed_reference"]) == (300, 300, 300, False)
    assert us["quality"]["metrics"]["accuracy"]["n"] == 300
    assert (eu["state"], eu["drifted"]) == ("ok", [])
    assert (other["state"], other["samples"], other["worst"], other["borrowed_reference"]) == (
        "insufficient_data",
        0,
        None,
        True,
    )


def test_models_without_a_reference_say_why():
    fleet = Fleet([ModelSettings("bare", version="1"), ModelSettings("young", version="1", learn=100)])
    observe(fleet, {}, model="stranger", rows=3)
    answer = {model["model"]: model for model in rendered(fleet)["models"]}
    assert {name: model["state"] for name, model in answer.items()} == {
        "bare": "no_reference",
        "young": "learning",
        "stranger": "no_reference",
    }
    assert answer["young"]["learning"] == {"seen": 0, "needed": 100}
    assert [answer[name]["configured"] for name in ("bare", "stranger")] == [True, False]
    assert all(model["features"] == [] and model["reference"] is None for model in answer.values())
    assert all(model["quality"] is None for model in answer.values())


def test_no_fleet_at_all_is_an_answer_too():
    answer = rendered(Fleet())
    assert (answer["models"], answer["sources"], answer["exporter"]["series"]) == ([], [], 0)


def test_history_has_a_point_a_pane_and_its_series_are_of_one_length():
    fleet = a_fleet(a_reference(), min_samples=10)
    renderer = Renderer("0.1", started=NOW, tick_s=5)
    answer: dict[str, Any] = {}
    for minute in range(POINTS + 5):
        now = NOW + 60 * minute
        if minute:
            observe(fleet, columns_of(20, seed=minute), time=now)
        for second in (0, 5):
            answer = rendered(fleet, now + second, renderer=renderer)
    (model,) = answer["models"]
    times = model["history"]["time"]
    assert len(times) == POINTS
    assert times == sorted(set(times))
    for series in (model["history"], *(feature["history"] for feature in model["features"])):
        assert {len(values) for values in series.values()} == {POINTS}
    assert model["history"]["rate_per_s"][0] is None
    assert model["history"]["rate_per_s"][-1] == pytest.approx(20 / 60)
    assert model["traffic"]["rate_per_s"] == pytest.approx(20 / 60, rel=0.05)


def test_every_number_is_finite():
    numbers = [value for value in everything(rendered(busy())) if isinstance(value, float)]
    assert len(numbers) > 100
    assert np.isfinite(numbers).all()


def test_quality_is_known_or_estimated():
    columns = columns_of(1000)
    truth = {LABEL: columns[PREDICTION]}
    fleet = a_fleet(a_reference(columns | truth))
    qualities = [rendered(fleet)["models"][0]["quality"]]
    for labels in ({}, truth):
        observe(fleet, columns | labels)
        qualities.append(rendered(fleet)["models"][0]["quality"])
    before, blind, known = qualities
    for quality in qualities:
        has(quality, "quality")
        for metric in quality["metrics"].values():
            has(metric, "metric")
        for gap in quality["gaps"].values():
            has(gap, "gap")
    assert (before["state"], before["metrics"], before["gaps"]) == ("no_labels", {}, {})
    assert (blind["state"], blind["gaps"], blind["metrics"]["accuracy"]["value"]) == ("no_labels", {}, None)
    assert blind["metrics"]["accuracy"]["baseline"] == 1
    assert (known["state"], known["metrics"]["accuracy"]["value"]) == ("ok", 1)
    assert (known["metrics"]["brier"]["estimated"], known["metrics"]["brier"]["estimated_error"]) == (None, None)
    assert set(known["gaps"]) == {"accuracy", "positives"}
    for quality in (blind, known):
        assert quality["metrics"]["accuracy"]["estimated"] == pytest.approx(1)
        assert 0 < quality["metrics"]["accuracy"]["estimated_error"] < 0.01
