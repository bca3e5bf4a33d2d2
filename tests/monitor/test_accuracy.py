"""Quality as a user sees it: events with labels into a fleet, series and states out."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from exporter.catalog import metrics
from exporter.catalog.metric import Metric
from exporter.monitor.accuracy import QUALITIES, AccuracyReadout
from exporter.monitor.events import LABEL
from exporter.monitor.fleet import Fleet
from exporter.monitor.reference import Reference
from tests.builders import NOW, PREDICTION, SCORE, X, a_fleet, a_reference, exposed, observe, values_of, view


def a_model(rows: int = 20_000, *, seed: int = 0) -> dict[Any, Any]:
    """Rows of a calibrated binary model, about 0.75 of them right."""
    rng = np.random.default_rng(seed)
    score = rng.random(rows)
    return {
        PREDICTION: np.where(score > 0.5, "1", "0").tolist(),
        SCORE: score,
        LABEL: np.where(rng.random(rows) < score, "1", "0").tolist(),
    }


def known(**options: Any) -> Reference:
    return a_reference(a_model(), **options)


def readout(fleet: Fleet, now: float = NOW) -> AccuracyReadout:
    found = view(fleet.tick(now)).accuracy_readout
    assert found is not None
    return found


def quality(fleet: Fleet, metric: Metric = metrics.QUALITY) -> dict[str, float]:
    found = values_of(fleet.tick(NOW), metric, model="car_loan", version="1", window="1h")
    return {name: value for (name,), value in found.items()}


def flipped(labels: Iterable[str], share: float, seed: int = 9) -> list[str]:
    rng = np.random.default_rng(seed)
    return [("1" if label == "0" else "0") if rng.random() < share else label for label in labels]


class TestBinary:
    def test_qualities_have_bounds_around_them_and_a_baseline(self):
        fleet = a_fleet(known())
        observe(fleet, a_model(5000, seed=1))
        values, lower, upper = (
            quality(fleet, one) for one in (metrics.QUALITY, metrics.QUALITY_LOWER, metrics.QUALITY_UPPER)
        )
        assert set(values) == {"accuracy", "precision", "recall", "f1", "roc_auc", "log_loss", "brier", "ece"}
        assert values["accuracy"] == pytest.approx(0.75, abs=0.02)
        assert values["roc_auc"] == pytest.approx(5 / 6, abs=0.02)
        assert values["brier"] == pytest.approx(1 / 6, abs=0.01)
        assert values["log_loss"] == pytest.approx(0.5, abs=0.02)
        assert values["ece"] < 0.02
        baseline = quality(fleet, metrics.QUALITY_BASELINE)
        for name, value in values.items():
            assert lower[name] <= value <= upper[name]
            assert baseline[name] == pytest.approx(value, abs=0.03)
        assert readout(fleet).state == "ok"

    def test_counters_are_there_at_0_before_the_first_event(self):
        lines = exposed(a_fleet(known()).tick(NOW))
        base = 'model="car_loan",version="1"'
        assert lines[f"ml_labels_matured_total{{{base}}}"] == 0
        assert lines[f'ml_labels_joined_total{{{base},predicted="1",actual="0"}}'] == 0
        assert lines[f'ml_score_bin_labels_total{{{base},bin="19"}}'] == 0
        assert lines[f"ml_label_log_loss_total{{{base}}}"] == 0

    def test_counters_tell_what_was_predicted_and_what_was_true(self):
        fleet = a_fleet(known())
        observe(fleet, {PREDICTION: ["1", "1", "0", "0"], LABEL: ["1", "0", "mauve", None], SCORE: [0.9] * 4})
        joined = values_of(fleet.tick(NOW), metrics.LABELS_JOINED, model="car_loan", version="1")
        assert {key: value for key, value in joined.items() if value} == {
            ("1", "1"): 1,
            ("1", "0"): 1,
            ("0", "other"): 1,
        }
        assert values_of(fleet.tick(NOW), metrics.LABELS_MATURED)["car_loan", "1"] == 4
        (coverage,) = values_of(fleet.tick(NOW), metrics.LABEL_COVERAGE).values()
        assert coverage == 0.75

    def test_a_failed_prediction_is_neither_right_nor_wrong(self):
        fleet = a_fleet(known())
        observe(fleet, {PREDICTION: ["1", "1"], LABEL: ["0", "1"]}, error=[0, -1])
        assert readout(fleet).labels == 1

    def test_labels_are_of_the_pane_of_their_prediction(self):
        fleet = a_fleet(known())
        observe(fleet, a_model(300), time=NOW - 7200, now=NOW - 7200)
        observe(fleet, a_model(250, seed=1))
        assert readout(fleet).labels == 250
        assert values_of(fleet.tick(NOW), metrics.LABELS_MATURED)["car_loan", "1"] == 550


class TestStates:
    def test_without_labels_nor_a_baseline_there_is_nothing_to_see(self):
        fleet = a_fleet(a_reference())
        observe(fleet, {PREDICTION: ["1"]})
        assert view(fleet.tick(NOW)).accuracy_readout is None
        told = [one for one in exposed(fleet.tick(NOW)) if one.startswith(("ml_model_quality", "ml_label"))]
        assert told == ['ml_labels_min_samples{model="car_loan",version="1"}'], "a threshold, which rules read"

    def test_the_first_label_of_a_model_without_a_baseline_is_seen(self):
        fleet = a_fleet(a_reference(), min_labels=1)
        observe(fleet, {PREDICTION: ["1"], LABEL: ["1"]})
        assert quality(fleet)["accuracy"] == 1
        assert quality(fleet, metrics.QUALITY_BASELINE) == quality(fleet, metrics.QUALITY_TOLERANCE) == {}

    def test_no_labels_is_not_too_few(self):
        fleet = a_fleet(known())
        observe(fleet, a_model(300) | {LABEL: [None] * 300})
        assert readout(fleet).state == "no_labels"

    def test_too_few_labels_are_a_state_and_no_number(self):
        fleet = a_fleet(known())
        observe(fleet, a_model(199))
        assert readout(fleet).state == "insufficient_labels"
        assert quality(fleet) == {}
        assert quality(fleet, metrics.QUALITY_BASELINE)
        assert values_of(fleet.tick(NOW), metrics.LABELS_WINDOW_SAMPLES)["car_loan", "1", "1h"] == 199
        observe(fleet, a_model(1, seed=1))
        assert quality(fleet)

    def test_one_class_alone_has_no_auc(self):
        fleet = a_fleet(known())
        observe(fleet, a_model(300) | {LABEL: ["0"] * 300})
        assert "roc_auc" not in quality(fleet)
        assert "accuracy" in quality(fleet)

    def test_what_is_worse_beyond_tolerance_and_chance_is_degraded(self):
        fleet = a_fleet(known())
        model = a_model(5000, seed=1)
        observe(fleet, model | {LABEL: flipped(model[LABEL], 0.2)})
        assert set(QUALITIES) <= set(readout(fleet).degraded)
        assert readout(fleet).state == "degraded"

    def test_what_chance_may_have_done_is_not(self):
        fleet = a_fleet(known())
        model = a_model(250, seed=1)
        observe(fleet, model | {LABEL: flipped(model[LABEL], 0.1)})
        assert quality(fleet)["accuracy"] < quality(fleet, metrics.QUALITY_BASELINE)["accuracy"] - 0.02
        assert "accuracy" not in readout(fleet).degraded

    def test_what_is_better_is_not(self):
        fleet = a_fleet(known())
        model = a_model(5000, seed=1)
        observe(
            fleet, model | {LABEL: model[PREDICTION], SCORE: np.where(np.array(model[PREDICTION]) == "1", 1.0, 0.0)}
        )
        assert quality(fleet)["accuracy"] == 1
        assert readout(fleet).degraded == ()

    def test_there_is_no_verdict_while_the_source_catches_up(self):
        fleet = a_fleet(known())
        model = a_model(5000, seed=1)
        observe(fleet, model | {LABEL: flipped(model[LABEL], 0.2)}, now=NOW + 7200)
        assert (readout(fleet, NOW + 7200).state, readout(fleet, NOW + 7200).degraded) == ("catching_up", ())

    def test_tolerances_are_the_owners(self):
        fleet = a_fleet(known(), quality_tolerances={"accuracy": 0.5, "log_loss": 3.0})
        model = a_model(5000, seed=1)
        observe(fleet, model | {LABEL: flipped(model[LABEL], 0.2)})
        assert quality(fleet, metrics.QUALITY_TOLERANCE)["accuracy"] == 0.5
        assert not {"accuracy", "log_loss"} & set(readout(fleet).degraded)
        assert "recall" in readout(fleet).degraded


class TestEstimates:
    """The scores of `a_model` are calibrated: its accuracy is 0.75, and half of its rows are positive."""

    def test_no_label_is_needed_but_those_of_the_reference(self):
        fleet = a_fleet(known())
        observe(fleet, a_model(20_000, seed=1) | {LABEL: [None] * 20_000})
        assert (readout(fleet).state, quality(fleet)) == ("no_labels", {})
        found = quality(fleet, metrics.QUALITY_ESTIMATED)
        assert set(found) == set(QUALITIES)
        exact = {"accuracy": 3 / 4, "precision": 3 / 4, "recall": 3 / 4, "f1": 3 / 4, "roc_auc": 5 / 6}
        for name, one in readout(fleet).estimates.items():
            assert found[name] == one.value == pytest.approx(exact[name], abs=4 * one.error)
            assert 0.002 < one.error < 0.006
        assert readout(fleet).gaps == {}

    def test_they_follow_the_scores_not_the_baseline(self):
        """Of the same model, only rows of which it is less sure."""
        fleet = a_fleet(known())
        score = np.random.default_rng(1).uniform(0.4, 0.6, 5000)
        observe(fleet, {PREDICTION: np.where(score > 0.5, "1", "0").tolist(), SCORE: score})
        assert quality(fleet, metrics.QUALITY_ESTIMATED)["accuracy"] == pytest.approx(0.55, abs=0.02)

    def test_too_few_predictions_have_none(self):
        fleet = a_fleet(known())
        observe(fleet, a_model(500) | {LABEL: [None] * 500, SCORE: [np.nan, *np.linspace(0, 1, 499)]})
        assert quality(fleet, metrics.QUALITY_ESTIMATED) == {}
        observe(fleet, {PREDICTION: ["1"], SCORE: [0.7]})
        assert quality(fleet, metrics.QUALITY_ESTIMATED)

    def test_a_reference_with_too_few_labels_says_nothing(self):
        for labels in (0, 199, 200):
            rows = a_model(1000)
            rows[LABEL] = rows[LABEL][:labels] + [None] * (1000 - labels)
            fleet = a_fleet(a_reference(rows))
            observe(fleet, a_model(1000, seed=1))
            assert bool(quality(fleet, metrics.QUALITY_ESTIMATED)) == bool(readout(fleet).gaps) == (labels == 200)

    def test_what_is_not_defined_is_absent(self):
        fleet = a_fleet(known())
        observe(fleet, {PREDICTION: ["0"] * 600, SCORE: np.linspace(0, 0.5, 600)})
        assert set(quality(fleet, metrics.QUALITY_ESTIMATED)) == {"accuracy", "recall", "f1", "roc_auc"}

    def test_only_binary_models_with_a_score_have_any(self):
        rng = np.random.default_rng(0)
        plain = {key: values for key, values in a_model().items() if key != SCORE}
        several = {PREDICTION: rng.choice(list("abc"), 5000).tolist(), LABEL: rng.choice(list("abc"), 5000).tolist()}
        quantity = {PREDICTION: rng.normal(size=5000), LABEL: rng.normal(size=5000)}
        for rows in (plain, several, quantity):
            fleet = a_fleet(a_reference(rows))
            observe(fleet, rows)
            assert quality(fleet)
            assert quality(fleet, metrics.QUALITY_ESTIMATED) == readout(fleet).gaps == {}

    def test_they_survive_a_restart(self):
        fleet, again = a_fleet(known()), a_fleet(known())
        observe(fleet, a_model(5000, seed=1))
        again.load(fleet.dump())
        assert quality(again, metrics.QUALITY_ESTIMATED) == quality(fleet, metrics.QUALITY_ESTIMATED)
        assert readout(again).gaps == readout(fleet).gaps


class TestGaps:
    @staticmethod
    def z(fleet: Fleet) -> dict[str, float]:
        gap, sigma = (quality(fleet, one) for one in (metrics.QUALITY_GAP, metrics.QUALITY_GAP_SIGMA))
        return {name: gap[name] / sigma[name] for name in gap}

    def test_there_is_none_while_outcomes_follow_the_scores(self):
        """Whatever the scores are: here only rows of which the model is less sure."""
        fleet = a_fleet(known())
        rng = np.random.default_rng(1)
        score = rng.uniform(0.3, 0.7, 5000)
        rows = {PREDICTION: np.where(score > 0.5, "1", "0").tolist(), SCORE: score}
        observe(fleet, rows | {LABEL: np.where(rng.random(5000) < score, "1", "0").tolist()})
        assert readout(fleet).state == "degraded"
        assert self.z(fleet) == {"accuracy": pytest.approx(0, abs=3), "positives": pytest.approx(0, abs=3)}

    def test_errors_of_either_kind_show_in_accuracy(self):
        fleet = a_fleet(known())
        model = a_model(5000, seed=1)
        observe(fleet, model | {LABEL: flipped(model[LABEL], 0.2)})
        assert quality(fleet, metrics.QUALITY_GAP)["accuracy"] == pytest.approx(-0.1, abs=0.02)
        assert self.z(fleet)["accuracy"] < -10
        assert abs(self.z(fleet)["positives"]) < 3

    def test_outcomes_that_become_rarer_show_in_positives(self):
        fleet = a_fleet(known())
        model = a_model(5000, seed=1)
        rarer = [one if keep else "0" for one, keep in zip(model[LABEL], np.arange(5000) % 5, strict=True)]
        observe(fleet, model | {LABEL: rarer})
        assert quality(fleet, metrics.QUALITY_GAP)["positives"] == pytest.approx(-0.1, abs=0.02)
        assert self.z(fleet)["positives"] < -10

    def test_only_labelled_rows_count_and_few_are_none(self):
        fleet = a_fleet(known())
        observe(fleet, a_model(199, seed=1))
        observe(fleet, {PREDICTION: ["1"] * 5000, SCORE: [0.01] * 5000})
        assert self.z(fleet) == {}
        observe(fleet, a_model(1, seed=2))
        assert self.z(fleet)["accuracy"] == pytest.approx(0, abs=3)


class TestOtherTasks:
    def test_several_classes(self):
        rng = np.random.default_rng(0)

        def rows(n: int) -> dict[Any, Any]:
            truth = rng.choice(list("abc"), n)
            return {PREDICTION: np.where(rng.random(n) < 0.8, truth, "a").tolist(), LABEL: truth.tolist()}

        fleet = a_fleet(a_reference(rows(5000)))
        observe(fleet, rows(2000))
        assert set(quality(fleet)) == {"accuracy", "precision", "recall", "f1"}
        assert quality(fleet)["accuracy"] == pytest.approx(0.8 + 0.2 / 3, abs=0.03)
        assert quality(fleet)["recall"] == pytest.approx((1 + 0.8 + 0.8) / 3, abs=0.03)

    def test_quantities(self):
        rng = np.random.default_rng(0)

        def rows(n: int, bias: float = 0.0) -> dict[Any, Any]:
            truth = rng.normal(1000, 200, n)
            return {PREDICTION: truth + rng.normal(bias, 10, n), LABEL: truth, X: np.arange(float(n))}

        fleet = a_fleet(a_reference(rows(5000)))
        observe(fleet, rows(2000, bias=5))
        found = quality(fleet)
        assert set(found) == {"mae", "rmse", "bias"}
        assert found["bias"] == pytest.approx(5, abs=1)
        assert found["rmse"] == pytest.approx(np.hypot(5, 10), abs=0.7)
        assert quality(fleet, metrics.QUALITY_LOWER)["bias"] > 0
        assert quality(fleet, metrics.QUALITY_TOLERANCE).keys() == {"mae", "rmse"}
        lines = exposed(fleet.tick(NOW))
        assert lines['ml_labels_joined_total{model="car_loan",version="1",predicted="",actual=""}'] == 2000
        absolute = lines['ml_label_absolute_error_total{model="car_loan",version="1"}']
        assert absolute / 2000 == pytest.approx(found["mae"])

    def test_labels_of_the_wrong_type_are_counted_and_nothing_else(self):
        fleet = a_fleet(a_reference({PREDICTION: np.arange(100.0), LABEL: np.arange(100.0)}))
        observe(fleet, {PREDICTION: [1.0, 1.0], LABEL: [-np.inf, 2.0]})
        series = 'ml_feature_invalid_values_total{model="car_loan",version="1",kind="output",feature="label",'
        assert exposed(fleet.tick(NOW))[series + 'reason="wrong_type"}'] == 1
        assert readout(fleet).labels == 1


def test_qualities_survive_a_restart_and_another_reference_starts_anew():
    fleet = a_fleet(known(), min_labels=10)
    observe(fleet, a_model(300))
    before = quality(fleet)
    same, other = a_fleet(known(), min_labels=10), a_fleet(known(version="2"), min_labels=10)
    for one in (same, other):
        one.load(fleet.dump())
    assert quality(same) == before
    assert readout(other).labels == 0


def test_a_reference_that_comes_back_keeps_the_counts():
    fleet = a_fleet(known(), min_labels=10)
    observe(fleet, a_model(300))
    before = quality(fleet)
    fleet.adopt("car_loan", [known(), a_reference({X: np.arange(9.0)}, version="7")])
    assert quality(fleet) == before
