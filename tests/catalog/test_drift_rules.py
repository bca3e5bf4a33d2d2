import math

import numpy as np

from exporter.catalog.rules import Settings, Window
from tests.assets.promtool import check, expect, series

VERSION = {"namespace": "prod", "model": "loan", "version": "3"}
INPUT = VERSION | {"reference": "0123456789ab", "kind": "input"}
LEVEL = "model_version_feature:ml_feature"
MINUTES = 1600
CHI2, ALPHA, MIN_SAMPLES, THRESHOLD = 27.88, 0.001, 500, 0.1


class Feature:
    """A feature of two replicas: reference counts by bin, and values a minute by bin of each replica."""

    def __init__(self, name, reference, first, second, **unknown):
        self.labels = INPUT | {"feature": name}
        self.bins, self.reference = list(reference), np.array(list(reference.values()), float)
        self.rates = np.array([first, second])
        self.unknown = unknown
        self.m = self.reference.sum()
        self.q = (self.reference + 0.5) / (self.m + len(self.bins) / 2)

    def given(self):
        for pod, rates in zip("ab", self.rates, strict=True):
            target = self.labels | {"pod": pod}
            for bin_, rate in [*zip(self.bins, rates, strict=True), *self.unknown.items()]:
                # A replica that has not seen a bin may lack its series.
                if rate is not None:
                    yield series("ml_feature_bin_observations_total", f"0+{rate}x{MINUTES}", **target, bin=bin_)
            for bin_, share in zip(self.bins, self.q, strict=True):
                yield series("ml_feature_reference_ratio", f"{float(share)!r}x{MINUTES}", **target, bin=bin_)
            yield series("ml_feature_reference_samples", f"{self.m}x{MINUTES}", **target)
            yield series("ml_feature_reference_chi2_critical", f"{CHI2}x{MINUTES}", **target)
            own = VERSION | {"kind": "input", "feature": self.labels["feature"], "pod": pod}
            yield series("ml_feature_drift_threshold", f"{THRESHOLD}x{MINUTES}", **own)

    def counts(self, minutes):
        return np.array([[rate or 0 for rate in rates] for rates in self.rates.tolist()]).sum(axis=0) * minutes

    def scores(self, minutes):
        """What numpy makes of all predictions of the window."""
        counts, q = self.counts(minutes), self.q
        n = counts.sum()
        p = (counts + 0.5) / (n + len(counts) / 2)
        psi = float(((p - q) * np.log(p / q)).sum())
        critical = CHI2 * (1 / n + 1 / self.m)
        middle = (p + q) / 2
        found = {
            "live_observations": n,
            "psi": psi,
            "psi_critical": critical,
            "js_divergence": float((p * np.log(p / middle) + q * np.log(q / middle)).sum()) / 2,
            "ks_critical": math.sqrt(-0.5 * math.log(ALPHA / 2)) * math.sqrt(1 / n + 1 / self.m),
            "drifted": float(psi > THRESHOLD and psi > critical),
        }
        numbers = [place for place, bin_ in enumerate(self.bins) if bin_.isdigit()]
        if numbers:
            here, there = counts[numbers], self.reference[numbers]
            found["ks"] = float(np.abs(np.cumsum(here) / here.sum() - np.cumsum(there) / there.sum()).max())
        return found


def ordinals(*reference):
    return {f"{place:02d}": count for place, count in enumerate(reference)}


AGE = Feature("age", ordinals(*[400] * 10), [6, 5, 4, 4, 3, 3, 2, 2, 1, 1], [9, 5, 4, 4, 3, 3, 2, 2, 1, None])
CALM = Feature("calm", ordinals(100, 300, 500, 100), [1, 3, 5, 1], [2, 6, 10, 2], missing=7, unseen=1)
MISSED = Feature("missed", ordinals(100, 200, 300) | {"missing": 50}, [10, 20, 30, 8], [1, 2, 3, 4])
COLOUR = Feature("colour", {"=red": 500, "=green": 300, "other": 200}, [20, 5, 5], [20, None, 5], unseen=9)
FEATURES = (AGE, CALM, MISSED, COLOUR)


def replicas(*features, min_samples=MIN_SAMPLES):
    given = [one for feature in features for one in feature.given()]
    for pod in "ab":
        given.append(series("ml_drift_min_samples", f"{min_samples}x{MINUTES}", **VERSION, pod=pod))
        given.append(series("ml_drift_alpha", f"{ALPHA}x{MINUTES}", **VERSION, pod=pod))
    return given


def expected(window, minutes, at, *features):
    scores = {feature.labels["feature"]: feature.scores(minutes) for feature in features}
    for name in ("live_observations", "psi", "psi_critical", "js_divergence", "ks_critical", "drifted", "ks"):
        known = [feature for feature in features if name in scores[feature.labels["feature"]]]
        values = [(feature.labels, scores[feature.labels["feature"]][name]) for feature in known]
        yield expect(f"{LEVEL}_{name}:increase{window}", at, *values)


SMALL = Settings(windows=(Window("1h"),), bins=4)


def test_scores_of_two_replicas_are_those_of_all_their_predictions(tmp_path):
    drifted = sum(feature.scores(60)["drifted"] for feature in FEATURES)
    assert 0 < drifted < len(FEATURES)
    counted = [
        expect("model_version:ml_inputs_drifted:increase1h", "90m", (VERSION, drifted)),
        expect("model_version:ml_inputs_evaluated:increase1h", "90m", (VERSION, len(FEATURES))),
    ]

    check(tmp_path, replicas(*FEATURES), [*expected("1h", 60, "90m", *FEATURES), *counted])


def test_a_window_is_a_sum_of_steps_of_any_number(tmp_path):
    settings = Settings(windows=(Window("30m"), Window("1d")), bins=4)
    scores = [*expected("30m", 30, "25h", CALM), *expected("1d", 1440, "25h", CALM)]

    check(tmp_path, replicas(CALM), scores, settings)


def test_too_few_samples_are_no_score(tmp_path):
    n = int(CALM.counts(60).sum())
    names = ("psi", "js_divergence", "ks", "drifted")
    nothing = [expect(f"{LEVEL}_{name}:increase1h", "70m") for name in names]
    some = expect(f"{LEVEL}_live_observations:increase1h", "70m", (CALM.labels, n))
    uncounted = expect("model_version:ml_inputs_evaluated:increase1h", "70m")

    check(tmp_path, replicas(CALM, min_samples=n + 1), [*nothing, some, uncounted], SMALL)
    check(tmp_path, replicas(CALM, min_samples=n), list(expected("1h", 60, "70m", CALM)), SMALL)


def test_a_large_effect_that_chance_can_explain_is_no_drift(tmp_path):
    few = Feature("few", ordinals(*[5] * 4), [5, 2, 2, 1], [5, 2, 2, 1])
    scores = few.scores(60)
    assert scores["psi_critical"] > scores["psi"] > THRESHOLD

    check(tmp_path, replicas(few), list(expected("1h", 60, "70m", few)), SMALL)


def test_a_restarted_replica_is_counted_on(tmp_path):
    given = replicas(CALM)
    for one in given:
        if one["series"].startswith("ml_feature_bin") and 'pod="b"' in one["series"]:
            rate = int(one["values"].removeprefix("0+").split("x")[0])
            one["values"] = f"0+{rate}x40 {rate}+{rate}x60"
    n = CALM.counts(60).sum()

    check(tmp_path, given, [expect(f"{LEVEL}_live_observations:increase1h", "70m", (CALM.labels, n))], SMALL)


def test_a_scrape_that_fails_ends_no_verdict(tmp_path):
    given = replicas(CALM)
    for one in given:
        start, _, rate = one["values"].removesuffix(f"x{MINUTES}").rpartition("+")
        again = f"{int(rate) * 71}+{rate}" if start else rate
        one["values"] = f"{start and f'{start}+'}{rate}x69 stale {again}x20"

    check(tmp_path, given, list(expected("1h", 60, "70m", CALM)), SMALL)


def test_targets_can_be_told_apart_by_more_labels(tmp_path):
    settings = Settings(("cluster", "namespace"), SMALL.windows, bins=4)
    given = [one | {"series": one["series"].replace("{", '{cluster="eu",')} for one in replicas(CALM)]
    psi = (CALM.labels | {"cluster": "eu"}, CALM.scores(60)["psi"])

    check(tmp_path, given, [expect(f"{LEVEL}_psi:increase1h", "70m", psi)], settings)


def test_cuts_beyond_the_last_leave_a_lower_bound(tmp_path):
    settings = Settings(windows=SMALL.windows, bins=3)
    counts, reference = AGE.counts(60)[:2], AGE.reference[:2]
    gap = np.abs(np.cumsum(counts) / AGE.counts(60).sum() - np.cumsum(reference) / AGE.m).max()
    assert gap < AGE.scores(60)["ks"]

    check(tmp_path, replicas(AGE), [expect(f"{LEVEL}_ks:increase1h", "70m", (AGE.labels, float(gap)))], settings)
