import math

import numpy as np

from exporter.catalog.rules import Settings, Window
from exporter.catalog.thresholds import QUALITY_Z
from exporter.stats import scores
from tests.assets.promtool import check, expect, series

VERSION = {"namespace": "prod", "model": "loan", "version": "3"}
HOUR = Settings(windows=(Window("1h"),), bins=2)
LEVEL = "model_version_metric:ml_model"
Z = QUALITY_Z.value
AT = "70m"

CONFUSION = {"a": np.array([[40, 3, 0], [2, 9, 0], [1, 0, 0]]), "b": np.array([[30, 1, 0], [5, 4, 0], [0, 0, 1]])}
CLASSES = ("0", "1", "other")
LABELS = {"a": np.array([21, 10, 7, 10]), "b": np.array([11, 7, 5, 7])}
POSITIVES = {"a": np.array([1, 2, 4, 9]), "b": np.array([0, 1, 3, 5])}
SCORES = {"a": np.array([2.5, 3.7, 4.4, 8.6]), "b": np.array([1.25, 2.5, 3.25, 6.25])}


def counter(name, pod, rate, **labels):
    return series(name, f"0+{rate}x90", **VERSION, pod=pod, **labels)


def gauge(name, value, pod="a", **labels):
    return series(name, f"{value}x90", **VERSION, pod=pod, **labels)


def classifier():
    for pod in "ab":
        for i, predicted in enumerate(CLASSES):
            for j, actual in enumerate(CLASSES):
                rate = CONFUSION[pod][i, j]
                yield counter("ml_labels_joined_total", pod, rate, predicted=predicted, actual=actual)
        for place in range(4):
            yield counter("ml_score_bin_labels_total", pod, LABELS[pod][place], bin=f"{place:02d}")
            yield counter("ml_score_bin_positives_total", pod, POSITIVES[pod][place], bin=f"{place:02d}")
            yield counter("ml_score_bin_score_total", pod, SCORES[pod][place], bin=f"{place:02d}")
        yield counter("ml_label_squared_error_total", pod, 4.5)
        yield counter("ml_label_log_loss_total", pod, 12.25)
        yield counter("ml_labels_matured_total", pod, 100)
        yield gauge("ml_labels_min_samples", 200, pod)


def regression(absolute=(30, 14.5), squared=(65, 20), labels=(20, 14), min_labels=200):
    for pod, *rates in zip("ab", absolute, squared, labels, strict=True):
        yield counter("ml_label_absolute_error_total", pod, rates[0])
        yield counter("ml_label_squared_error_total", pod, rates[1])
        yield counter("ml_labels_joined_total", pod, rates[2], predicted="", actual="")
        yield gauge("ml_labels_min_samples", min_labels, pod)


def metric(name, value):
    return VERSION | {"metric": name}, value


def of(name, record="quality"):
    return f'{LEVEL}_{record}:increase1h{{metric="{name}"}}'


def test_classes_and_scores_of_two_replicas_are_those_of_all_their_labels(tmp_path):
    table = (CONFUSION["a"] + CONFUSION["b"]) * 60
    n = table.sum()
    accuracy = scores.proportion(np.trace(table), n, Z)
    labels, positives, sums = ((one["a"] + one["b"]) * 60 for one in (LABELS, POSITIVES, SCORES))
    ece = scores.calibration_error(labels, positives, sums, sums * (1 - sums / labels), Z).value
    area, _ = scores.roc_auc(labels, positives, Z)
    by_class = [
        expect(
            f'model_version_predicted_metric:ml_model_quality:increase1h{{metric="{name}"}}',
            AT,
            *(
                (VERSION | {"metric": name, "predicted": one}, c * hits / of_class)
                for one, hits, of_class in zip(CLASSES, np.diagonal(table), total, strict=True)
            ),
        )
        for name, c, total in (
            ("precision", 1, table.sum(axis=1)),
            ("recall", 1, table.sum(axis=0)),
            ("f1", 2, table.sum(axis=1) + table.sum(axis=0)),
        )
    ]

    check(
        tmp_path,
        [*classifier()],
        [
            expect(of("accuracy"), AT, metric("accuracy", accuracy.value)),
            expect(of("accuracy", "quality_lower"), AT, metric("accuracy", accuracy.lower)),
            expect(of("accuracy", "quality_upper"), AT, metric("accuracy", accuracy.upper)),
            expect(of("accuracy", "quality_samples"), AT, metric("accuracy", n)),
            expect(of("ece"), AT, metric("ece", ece)),
            expect(of("roc_auc"), AT, metric("roc_auc", area.value)),
            expect(of("brier"), AT, metric("brier", 9 * 60 / labels.sum())),
            expect(of("log_loss"), AT, metric("log_loss", 24.5 * 60 / labels.sum())),
            expect("model_version:ml_label_coverage:increase1h", AT, (VERSION, n / 12000)),
            expect("model_version:ml_labels_joined:increase1h", AT, (VERSION, n)),
            expect(of("mae"), AT),
            *by_class,
        ],
        HOUR,
    )


def test_errors_of_two_replicas_are_those_of_all_their_labels(tmp_path):
    mae = scores.mean(44.5 * 60, 85 * 60, 34 * 60, Z)

    check(
        tmp_path,
        [*regression()],
        [
            expect(of("mae"), AT, metric("mae", mae.value)),
            expect(of("mae", "quality_lower"), AT, metric("mae", mae.lower)),
            expect(of("mae", "quality_upper"), AT, metric("mae", mae.upper)),
            expect(of("rmse"), AT, metric("rmse", math.sqrt(85 / 34))),
            expect(of("accuracy"), AT),
            expect(of("brier"), AT),
        ],
        HOUR,
    )


def test_too_few_labels_are_no_quality(tmp_path):
    nothing = [expect(of("mae", record), AT) for record in ("quality", "quality_upper", "quality_samples")]

    check(tmp_path, [*regression(min_labels=34 * 60 + 1)], nothing, HOUR)
    check(tmp_path, [*regression(min_labels=34 * 60)], [expect(of("mae"), AT, metric("mae", 44.5 / 34))], HOUR)


def test_an_area_of_more_bins_than_rules_is_none(tmp_path):
    settings = Settings(windows=HOUR.windows, bins=2, score_bins=3)

    check(tmp_path, [*classifier()], [expect(of("roc_auc"), AT)], settings)


def test_degraded_is_worse_than_tolerated_even_at_the_better_bound(tmp_path):
    table = (CONFUSION["a"] + CONFUSION["b"]) * 60
    accuracy = scores.proportion(np.trace(table), table.sum(), Z)
    mae = scores.mean(44.5 * 60, 85 * 60, 34 * 60, Z)
    for gap, degraded in ((0.001, 1), (-0.001, 0)):
        baseline = accuracy.upper + 0.02 + gap
        given = [
            *classifier(),
            gauge("ml_model_quality_baseline", baseline, metric="accuracy"),
            gauge("ml_model_quality_tolerance", 0.02, metric="accuracy"),
        ]
        lost = metric("accuracy", baseline - accuracy.value)
        check(
            tmp_path,
            given,
            [
                expect(of("accuracy", "quality_degraded"), AT, metric("accuracy", degraded)),
                expect(of("accuracy", "quality_lost"), AT, lost),
            ],
            HOUR,
        )

        baseline = mae.lower - 0.1 - gap
        given = [
            *regression(),
            gauge("ml_model_quality_baseline", baseline, metric="mae"),
            gauge("ml_model_quality_tolerance", 0.1, metric="mae"),
        ]
        lost = metric("mae", mae.value - baseline)
        check(
            tmp_path,
            given,
            [
                expect(of("mae", "quality_degraded"), AT, metric("mae", degraded)),
                expect(of("mae", "quality_lost"), AT, lost),
            ],
            HOUR,
        )
