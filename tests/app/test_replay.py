"""Replay held against scipy, on public data where it lies beside the checkout, and on generated data always."""

import csv
import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest
from scipy import stats

from exporter.app.build import Choice, build_reference, parse_scores
from exporter.app.labels import read as read_labels
from exporter.app.replay import (
    Found,
    Replay,
    as_json,
    gaps_of,
    multivariate_of,
    parse_window,
    quality_of,
    scores_of,
    segment_of,
    segmentations,
)
from exporter.ingest import tables
from exporter.ingest.source import Unavailable
from exporter.monitor.features import BadReference
from exporter.monitor.reference import Columns, Reference, Resolution
from exporter.monitor.settings import ModelSettings
from tests.app.commands import DATA, HEADER, rows, write_csv
from tests.e2e.lengthy import long

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the public data sets are not at {DATA}")

KEEP_ALL = 200_000
"""Knots that keep every value of the reference."""


def build(
    path: Path,
    columns: Columns,
    exclude: Sequence[str] = (),
    knots: int = 259,
    score_bins: int = 20,
    tags: tuple[str, ...] = (),
) -> Reference:
    choice = Choice(columns, frozenset(exclude), tags=tags)
    return build_reference(path, "m", "1", choice, Resolution(knots, score_bins=score_bins), lambda _: None)


def replay(path: Path, reference: Reference, window: str, labels: Path | None = None, **settings: Any) -> list[Found]:
    asked = ModelSettings("m", version="1", **settings)
    joined = None if labels is None else read_labels(labels, reference.columns)
    return list(Replay(reference, asked, parse_window(window), reference.columns, joined).run(path))


def qualities(found: Sequence[Found], name: str, part: str = "value") -> list[float]:
    return [quality_of(window.view)[name][part] for window in found]


def scores(found: Found) -> dict[str, dict[str, float]]:
    return {one["feature"]: one for one in scores_of(found.view)}


def drifted(found: Sequence[Found]) -> list[set[str]]:
    return [{name for name, one in scores(window).items() if one["drifted"]} for window in found]


def together(found: Sequence[Found]) -> list[dict[str, Any]]:
    """Both tests of each window, by moment."""
    answers = [multivariate_of(window.view) for window in found]
    return [{test["moment"]: test for test in answer["tests"]} for answer in answers if answer is not None]


def numbers(path: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    """Whole columns of a table."""
    parts = [[tables.numbers(table.columns[name]) for name in names] for table in tables.read(path)]
    return dict(zip(names, map(np.concatenate, zip(*parts, strict=True)), strict=True))


def exact_ks(reference: Path, current: Path, columns: Mapping[str, str], size: int) -> dict[str, list[float]]:
    """Kolmogorov-Smirnov distances by scipy, a value a chunk of `size` rows."""
    before, after = numbers(reference, columns.values()), numbers(current, columns.values())
    return {
        feature: [
            float(stats.ks_2samp(before[name], chunk, method="asymp").statistic)
            for chunk in np.split(after[name], range(size, len(after[name]), size))
        ]
        for feature, name in columns.items()
    }


def hold_ks(found: Sequence[Found], exact: Mapping[str, Sequence[float]], *, near: float, apart: float) -> None:
    for feature, values in exact.items():
        for window, value in zip(found, values, strict=True):
            one = scores(window)[feature]
            assert one["ks"] - 1e-12 <= value <= one["ks_upper"] + 1e-12, (feature, window.key)
            assert abs(one["ks"] - value) <= near
            assert one["ks_upper"] - one["ks"] <= apart


@needs_data
class TestCarLoan:
    """Five chunks of 5,000 like the training data, five of other applicants."""

    columns = Columns("y_pred", {"score": "y_pred_proba"}, label="repaid", timestamp="timestamp", id="id")
    numeric = {name: name for name in ("car_value", "debt_to_income_ratio", "loan_length", "driver_tenure")} | {
        "score": "y_pred_proba"
    }
    reference, current = DATA / "car_loan_reference.csv", DATA / "car_loan_analysis.csv"
    labels = DATA / "car_loan_labels.csv"
    accuracies: ClassVar = [0.9422, 0.9422, 0.9502, 0.9436, 0.9410, 0.9146, 0.9156, 0.9144, 0.9224, 0.9122]
    areas: ClassVar = [
        0.970962,
        0.970248,
        0.976282,
        0.967721,
        0.969886,
        0.960050,
        0.958530,
        0.959041,
        0.963094,
        0.957556,
    ]

    @staticmethod
    @cache
    def known(knots: int) -> Reference:
        return build(TestCarLoan.reference, TestCarLoan.columns, knots=knots)

    @staticmethod
    @cache
    def found(knots: int) -> list[Found]:
        return replay(TestCarLoan.current, TestCarLoan.known(knots), "5000")

    @staticmethod
    @cache
    def exact() -> dict[str, list[float]]:
        return exact_ks(TestCarLoan.reference, TestCarLoan.current, TestCarLoan.numeric, 5000)

    def test_exact_ks_lies_between_the_bounds_and_close_to_both(self):
        hold_ks(self.found(259), self.exact(), near=0.002, apart=0.004)

    def test_with_every_value_a_knot_the_distance_is_exact(self):
        hold_ks(self.found(KEEP_ALL), self.exact(), near=1e-12, apart=1e-12)

    def test_published_accuracies_and_areas_under_the_curve(self):
        """NannyML's tutorial prints them; 101 bins, for the scores have as many values."""
        known = build(self.reference, self.columns, score_bins=101)
        found = replay(self.current, known, "5000", self.labels)
        assert [round(one, 4) for one in qualities(found, "accuracy")] == self.accuracies
        assert [round(one, 6) for one in qualities(found, "roc_auc")] == self.areas
        assert qualities(found, "accuracy", "coverage") == [1.0] * 10
        degraded = [{name for name, one in quality_of(window.view).items() if one["degraded"]} for window in found]
        assert degraded[:5] == [set()] * 5
        assert all("accuracy" in degraded[window] for window in (5, 6, 7, 9))

    def test_areas_of_twenty_bins_are_those_within_their_bounds(self):
        found = replay(self.current, self.known(259), "5000", self.labels)
        for area, lower, upper in zip(
            self.areas, qualities(found, "roc_auc", "lower"), qualities(found, "roc_auc", "upper"), strict=True
        ):
            assert lower < area < upper

    @pytest.mark.parametrize("score_bins", [20, 101])
    def test_estimates_follow_the_applicants_and_gaps_tell_that_scores_mean_something_else(self, score_bins: int):
        """The calibration in the large of reference/statistics.md 5.4; no label of these rows makes an estimate."""
        known = build(self.reference, self.columns, score_bins=score_bins)
        blind, found = (replay(self.current, known, "5000", labels) for labels in (None, self.labels))
        estimates = qualities(found, "accuracy", "estimated")
        assert estimates == qualities(blind, "accuracy", "estimated")
        assert all(np.isnan(qualities(blind, "accuracy")))
        assert [gaps_of(window.view) for window in blind] == [{}] * 10
        np.testing.assert_allclose(estimates, self.accuracies, atol=0.009)
        np.testing.assert_allclose(qualities(found, "roc_auc", "estimated"), qualities(found, "roc_auc"), atol=0.006)
        z = [{name: one["z"] for name, one in gaps_of(window.view).items()} for window in found]
        large = [-0.5, 0.1, -1.6, 1.3, -0.2, -6.3, -4.1, -4.7, -4.4, -5.7]
        np.testing.assert_allclose([one["positives"] for one in z], large, atol=0.25, rtol=0.1)
        assert max(abs(one["accuracy"]) for one in z) < 2.5

    def test_how_labels_come_does_not_change_what_they_say(self, tmp_path: Path):
        """Shuffled, up to 30 days late, some twice and some corrected: the last label of an id is what was true."""
        with self.labels.open() as file:
            labels = list(csv.DictReader(file))
        rng = random.Random(3)
        sent = []
        for label in labels:
            made = datetime(2018, 11, 1, tzinfo=UTC) + timedelta(days=rng.uniform(0, 30))
            if rng.random() < 0.02:
                sent.append((made - timedelta(minutes=1), label["id"], "10"[int(label["repaid"])]))
            sent += [(made, label["id"], label["repaid"])] * (2 if rng.random() < 0.05 else 1)
        rng.shuffle(sent)
        path = tmp_path / "labels.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("timestamp", "id", "repaid"), *((m.isoformat(), *rest) for m, *rest in sent)])
        known = self.known(259)
        plain, tortuous = (replay(self.current, known, "5000", labels) for labels in (self.labels, path))
        assert [quality_of(window.view) for window in tortuous] == [quality_of(window.view) for window in plain]

    def test_published_distances(self):
        published = [0.01576, 0.01272, 0.01746, 0.01282, 0.01922, 0.00824, 0.01068, 0.01002, 0.01070, 0.00700]
        found = [scores(window)["debt_to_income_ratio"]["ks"] for window in self.found(KEEP_ALL)]
        np.testing.assert_allclose(found, published, atol=5e-6)

    def test_what_drifts_drifts_from_chunk_5_and_nothing_else_ever(self):
        changed = {"car_value", "loan_length", "salary_range", "repaid_loan_on_prev_car", "score"}
        assert drifted(self.found(259)) == [set()] * 5 + [changed] * 5

    def test_means_together_drift_from_chunk_5_and_covariances_change_but_are_tolerated(self):
        """Dearer cars and longer loans: a shift, after which they vary together much as before."""
        before, after = np.split(np.array(together(self.found(259))), 2)
        for one in before:
            assert max(test["p_value"] < 0.001 for test in one.values()) == 0
            assert max(abs(test["distance"]) for test in one.values()) < 0.005
        for one in after:
            means, covariances = one["mean"], one["covariance"]
            assert means["drifted"]
            assert [change["features"] for change in means["changes"][:2]] == [("car_value",), ("loan_length",)]
            assert not covariances["drifted"]
            assert covariances["critical"] < covariances["distance"] < 0.06

    def test_every_row_is_counted_and_in_its_time(self):
        found = as_json(self.known(259), self.found(259), Counter())
        assert [window["samples"] for window in found["windows"]] == [5000] * 10
        assert found["windows"][0]["start"] == "2018-10-30T18:00:00.000Z"
        moments = [window[edge] for window in found["windows"] for edge in ("start", "end")]
        assert all(before < after for before, after in itertools.pairwise(moments))


@needs_data
class TestEmployment:
    """A census, year by year: significant everywhere, an effect nowhere."""

    columns = Columns(prediction="prediction", scores={"score": "predicted_probability"}, label="employed", id="id")

    @staticmethod
    @cache
    def found() -> list[Found]:
        known = build(DATA / "employment_reference.parquet", TestEmployment.columns, exclude=["year"])
        return replay(DATA / "employment_analysis.parquet", known, "column:year")

    def test_years_are_the_windows_and_nothing_drifts(self):
        assert [window.key for window in self.found()] == [2016, 2017, 2018]
        assert sum(window.view.traffic_readout.predictions for window in self.found()) == 208_892
        assert drifted(self.found()) == [set()] * 3

    def test_seventy_thousand_rows_of_codes_taken_for_numbers_are_no_drift_together(self):
        names = "SCHL MAR RELP DIS ESP CIT MIG MIL ANC NATIVITY DEAR DEYE DREM SEX RAC1P"
        choice = Choice(self.columns, frozenset({"year"}), numeric=frozenset(names.split()))
        path = DATA / "employment_reference.parquet"
        known = build_reference(path, "m", "1", choice, Resolution(), lambda _: None)

        found = together(replay(DATA / "employment_analysis.parquet", known, "column:year"))

        assert [round(one["mean"]["distance"], 3) for one in found] == [0.004, 0.011, 0.018]
        assert [round(one["covariance"]["distance"], 3) for one in found] == [0.004, 0.012, 0.016]
        for test in (test for one in found for test in one.values()):
            assert (test["state"], test["p_value"] < 1e-7) == ("ok", True)

    def test_ancestry_changes_beyond_doubt_but_hardly(self):
        ancestry = [scores(window)["ANC"] for window in self.found()]
        assert [round(one["psi"], 4) for one in ancestry] == [0.0049, 0.0090, 0.0141]
        # The file is sorted by place, where ancestries cluster: calibrated, p is 1e-21 where plain counts say 1e-30.
        assert max(one["p_value"] for one in ancestry) < 1e-20
        assert all(one["psi"] > one["psi_critical"] for one in ancestry)


COLUMNS = Columns(prediction="y", scores={"score": "p"}, timestamp="at", id="id")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reference of 4,000 rows, and as many served ones of which the last half has drifted."""
    folder = tmp_path_factory.mktemp("replay")
    write_csv(folder / "reference.csv", rows(4000, seed=1))
    start = 1_600_000_000
    parts = list(rows(2000, seed=2)), list(rows(2000, seed=3, drifted=True, start=start + 2000))
    write_csv(folder / "served.csv", *map(iter, parts))
    with (folder / "served.jsonl").open("w") as file:
        for row in itertools.chain(*parts):
            one = dict(zip(HEADER, row, strict=True))
            features = {name: one[name] for name in ("x", "ties", "same", "colour")}
            event = {"timestamp": one["at"], "features": features, "prediction": one["y"], "score": one["p"]}
            event["tags"] = {"colour": one["colour"]}
            file.write(json.dumps(event) + "\n")
    return folder


@pytest.fixture(scope="module")
def known(folder: Path) -> Reference:
    return build(folder / "reference.csv", COLUMNS, exclude=["year"])


def blank_x(served: Path, folder: Path, which: Callable[[int], bool]) -> Path:
    """The served rows, some of which lack x."""
    with served.open(newline="") as file:
        header, *lines = csv.reader(file)
    for row, line in enumerate(lines):
        line[HEADER.index("x")] = "" if which(row) else line[HEADER.index("x")]
    path = folder / "blank.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *lines])
    return path


class TestGenerated:
    def test_bounds_hold_and_are_exact_with_every_value_a_knot(self, folder: Path, known: Reference):
        numeric = {"x": "x", "ties": "ties", "score": "p"}
        exact = exact_ks(folder / "reference.csv", folder / "served.csv", numeric, 1000)
        hold_ks(replay(folder / "served.csv", known, "1000"), exact, near=0.004, apart=0.008)
        every = build(folder / "reference.csv", COLUMNS, exclude=["year"], knots=KEEP_ALL)
        hold_ks(replay(folder / "served.csv", every, "1000"), exact, near=1e-12, apart=1e-12)

    def test_the_change_is_found_where_it_is_and_nowhere_else(self, folder: Path, known: Reference):
        found = replay(folder / "served.csv", known, "1000")
        assert drifted(found) == [set(), set(), {"x", "colour"}, {"x", "colour"}]
        assert [window.key for window in found] == [0, 1, 2, 3]

    def test_events_and_rows_of_the_same_stream_have_the_same_scores(self, folder: Path, known: Reference):
        of_rows, of_events = (replay(folder / name, known, "1000") for name in ("served.csv", "served.jsonl"))
        left, right = (msgspec.json.encode(as_json(known, found, Counter())) for found in (of_rows, of_events))
        assert left == right

    def test_a_change_of_a_single_feature_is_one_of_several_together(self, folder: Path, known: Reference):
        found = replay(folder / "served.csv", known, "1000")
        assert [window.drifted for window in found] == [False, False, True, True]
        assert [one["mean"]["drifted"] for one in together(found)] == [False, False, True, True]
        assert {one["mean"]["changes"][0]["features"] for one in together(found[2:])} == {("x",)}

    def test_windows_of_event_time_are_aligned(self, folder: Path, known: Reference):
        found = replay(folder / "served.csv", known, "30m")
        assert [window.key for window in found] == sorted({at // 1800 for at in range(1_600_000_000, 1_600_004_000)})
        assert sum(window.view.traffic_readout.predictions for window in found) == 4000

    def test_windows_by_column_are_groups_of_any_order(self, folder: Path, known: Reference, tmp_path: Path):
        with (folder / "served.csv").open(newline="") as file:
            header, *served = csv.reader(file)
        shuffled = tmp_path / "shuffled.csv"
        with shuffled.open("w", newline="") as file:
            csv.writer(file).writerows(
                [header, *(served[i] for i in np.random.default_rng(1).permutation(len(served)))]
            )
        found = replay(shuffled, known, "column:year")
        assert [window.key for window in found] == [2000, 2001]
        assert drifted(found) == [set(), {"x", "colour"}]

    def test_too_few_samples_have_no_scores(self, folder: Path, known: Reference):
        (*_, last) = replay(folder / "served.csv", known, "3999", min_samples=500)
        one = scores(last)["x"]
        assert (one["n"], one["state"], one["drifted"]) == (1, "insufficient_data", False)
        assert np.isnan(one["psi"])

    def test_data_faults_are_those_of_the_window_and_say_with_which_one_they_began(
        self, folder: Path, known: Reference, tmp_path: Path
    ):
        broken = blank_x(folder / "served.csv", tmp_path, lambda row: 1000 <= row < 3000 and row % 3 == 0)
        shown = as_json(known, replay(broken, known, "1000", alpha=0.001), Counter())
        faults = [{one["feature"]: one["faults"] for one in window["features"]} for window in shown["windows"]]
        assert [[fault["reason"] for fault in window["x"]] for window in faults] == [[], ["missing"], ["missing"], []]
        assert [window["x"][0]["since"] for window in faults[1:3]] == [1, 1]
        assert [window["x"][0]["ratio"] for window in faults[1:3]] == [pytest.approx(1 / 3, abs=0.001)] * 2
        assert not any(faults[window][name] for window in range(4) for name in ("ties", "same", "score"))

    def test_evidence_of_a_data_fault_adds_up_over_windows(self, folder: Path, known: Reference, tmp_path: Path):
        broken = blank_x(folder / "served.csv", tmp_path, lambda row: row >= 1000 and row % 25 == 0)
        found = replay(broken, known, "100", alpha=0.001)
        first = next(window.key for window in found if any(window.view.faults))
        assert 11 <= first < 20, "100 rows with four missing are too few by themselves"

    def test_a_group_needs_its_column_and_a_table(self, folder: Path, known: Reference):
        with pytest.raises(Unavailable, match="column:nope: there is no such column"):
            replay(folder / "served.csv", known, "column:nope")
        with pytest.raises(Unavailable, match="windows by column need a table"):
            replay(folder / "served.jsonl", known, "column:year")

    def test_unreadable_rows_are_counted_and_others_kept(self, folder: Path, known: Reference, tmp_path: Path):
        text = (folder / "served.csv").read_text().splitlines()
        broken = tmp_path / "broken.csv"
        broken.write_text("\n".join([*text[:1001], "1,2", text[1001].replace("16000", "x6000"), *text[1002:]]))
        playing = Replay(known, ModelSettings("m", version="1"), parse_window("1000"), known.columns)
        found = list(playing.run(broken))
        assert playing.rejected == {"malformed_row": 1, "invalid_timestamp": 1}
        assert sum(window.view.traffic_readout.predictions for window in found) == 3999


class TestSegments:
    def test_rows_of_a_segment_are_scored_like_those_of_the_whole(self, folder: Path):
        known = build(folder / "reference.csv", COLUMNS, exclude=["year"], tags=("colour",))
        found = replay(folder / "served.csv", known, "2000", segments=segmentations(known, ()), min_samples=100)

        first, last = as_json(known, found, Counter())["windows"]

        rows = {(one["segment"], one["feature"]): one for one in last["features"]}
        assert {segment for segment, _ in rows} == {
            None,
            *(f"colour={name}" for name in ("red", "green", "blue", "other")),
        }
        assert rows["colour=blue", "x"].keys() == rows[None, "x"].keys()
        assert (rows["colour=blue", "x"]["drifted"], rows["colour=blue", "ties"]["drifted"]) == (True, False)
        assert (
            rows[None, "x"]["n"] == 2000 == sum(rows[f"colour={name}", "x"]["n"] for name in ("red", "green", "blue"))
        )
        assert not [one for one in first["features"] if one["drifted"]]
        assert [one["samples"] for one in first["segments"] if one["segment"] == "colour=other"] == [0]
        assert [window.alarming for window in found] == [False, True]

    def test_events_carry_tags_where_rows_have_columns(self, folder: Path):
        known = build(folder / "reference.csv", COLUMNS, exclude=["year"], tags=("colour",))
        asked = {"segments": segmentations(known, ()), "min_samples": 100}
        of_rows, of_events = (replay(folder / name, known, "1000", **asked) for name in ("served.csv", "served.jsonl"))

        left, right = (msgspec.json.encode(as_json(known, found, Counter())) for found in (of_rows, of_events))

        assert left == right

    def test_native_events_make_the_reference_that_their_table_makes(self, folder: Path):
        of_rows = build(folder / "served.csv", COLUMNS, exclude=["year", "id"], tags=("colour",))
        of_events = build(folder / "served.jsonl", Columns(), tags=("colour",))

        assert {one.name for one in of_events.features} == {one.name for one in of_rows.features}, "tags are no feature"
        assert [(one.value, one.rows) for one in of_events.segments] == [
            (one.value, one.rows) for one in of_rows.segments
        ]

    def test_what_is_asked_for_goes_before_what_the_reference_knows(self, folder: Path):
        known = build(folder / "reference.csv", COLUMNS, exclude=["year"], tags=("colour",))

        assert [one.tag for one in segmentations(known, ())] == ["colour"]
        assert [one.tag for one in segmentations(known, ("ties", "ties"))] == ["ties"]
        with pytest.raises(BadReference, match="--segment: no column shade"):
            build(folder / "reference.csv", COLUMNS, exclude=["year"], tags=("shade",))

    @long
    @needs_data
    def test_the_worst_slice_of_the_employment_data(self):
        """Accuracy of 2018 by race: the slice `6` is worse than the whole by 2.5 points, as it was in the reference."""
        columns = Columns(prediction="prediction", scores={"score": "predicted_probability"}, label="employed", id="id")
        known = build(DATA / "employment_reference.parquet", columns, exclude=["year"], tags=("RAC1P",))
        found = replay(
            DATA / "employment_analysis.parquet",
            known,
            "column:year",
            DATA / "employment_labels.parquet",
            segments=segmentations(known, ()),
        )

        last = found[-1]

        accuracy = {segment_of(one): quality_of(one)["accuracy"] for one in last.view.segments if quality_of(one)}
        worst = min(accuracy, key=lambda name: accuracy[name]["value"])
        assert (worst, round(accuracy[worst]["value"], 4), accuracy[worst]["n"]) == ("RAC1P=6", 0.8029, 4697)
        assert accuracy[worst]["upper"] < quality_of(last.view)["accuracy"]["lower"]
        assert not accuracy[worst]["degraded"], "it always was"


class TestWindowSpec:
    @pytest.mark.parametrize("text", ["0", "-5", "1.5", "1 h", "h", "column:", "columns:year", "", "5000 rows"])
    def test_anything_else_is_refused(self, text: str):
        with pytest.raises(ValueError, match="or column:NAME expected"):
            parse_window(text)

    def test_scores_of_one_class_or_several(self):
        assert parse_scores(["p"]) == {"score": "p"}
        assert parse_scores(["yes=p1", "no=p2"]) == {"yes": "p1", "no": "p2"}
