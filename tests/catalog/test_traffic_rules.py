import numpy as np

from exporter.catalog.rules import Settings, Window
from tests.assets.promtool import check, expect, series

VERSION = {"namespace": "prod", "model": "loan", "version": "3"}
CANARY = VERSION | {"version": "4"}
MODEL = {"namespace": "prod", "model": "loan"}
HOUR = Settings(windows=(Window("1h"),), bins=2)
AT = "70m"


def counter(name, rate, pod="a", version=VERSION, **labels):
    return series(name, f"0+{rate}x90", **version, pod=pod, **labels)


def test_failures_are_a_share_of_all_replicas_predictions_and_burn_the_budget(tmp_path):
    given = [
        counter("ml_predictions_total", 300),
        counter("ml_predictions_total", 100, "b"),
        counter("ml_prediction_errors_total", 3, reason="timeout"),
        counter("ml_prediction_errors_total", 1, "b", reason="other"),
        series("ml_error_budget_ratio", "0.001x90", **VERSION, pod="a"),
        series("ml_error_budget_ratio", "0.001x90", **VERSION, pod="b"),
    ]
    ratio, burn = "model_version:ml_prediction_errors_ratio", "model_version:ml_prediction_errors_burn"

    check(
        tmp_path,
        given,
        [
            expect("model_version:ml_predictions:increase5m", AT, (VERSION, 2000)),
            expect("model_version:ml_predictions:increase1h", AT, (VERSION, 24000)),
            expect(f"{ratio}:increase5m", AT, (VERSION, 0.01)),
            expect(f"{ratio}:increase1h", AT, (VERSION, 0.01)),
            expect(f"{burn}:increase5m", AT, (VERSION, 10)),
            expect(f"{burn}:increase30m", AT, (VERSION, 10)),
        ],
        HOUR,
    )


def test_no_predictions_have_no_share_of_failures(tmp_path):
    given = [counter("ml_predictions_total", 0), counter("ml_prediction_errors_total", 0, reason="timeout")]

    check(tmp_path, given, [expect("model_version:ml_prediction_errors_ratio:increase1h", AT)], HOUR)


def test_latency_is_that_of_all_replicas(tmp_path):
    cumulative = {"a": {"0.1": 50, "0.25": 90, "+Inf": 100}, "b": {"0.1": 10, "0.25": 80, "+Inf": 100}}
    given = [
        counter("ml_prediction_duration_seconds_bucket", rate, pod, le=le)
        for pod, buckets in cumulative.items()
        for le, rate in buckets.items()
    ]
    # 60 of 200 within 0.1 s, 170 within 0.25 s; linear within a bucket.
    median = np.interp(100, [60, 170], [0.1, 0.25])
    record = "model_version_objective_quantile:ml_prediction_duration_seconds:increase1h"
    expected = [("0.5", median), ("0.95", 0.25), ("0.99", 0.25)]

    check(
        tmp_path,
        given,
        [expect(record, AT, *((VERSION | {"objective_quantile": q}, value) for q, value in expected))],
        HOUR,
    )


def test_versions_are_summed_by_their_role(tmp_path):
    given = [
        *(
            series("ml_model_info", "1x90", **version, pod=pod, role=role)
            for version, pod, role in (
                (VERSION, "a", "primary"),
                (VERSION, "b", "primary"),
                (CANARY, "a", "canary"),
                (CANARY | {"version": "5"}, "a", ""),
            )
        ),
        counter("ml_predictions_total", 10),
        counter("ml_predictions_total", 10, "b"),
        counter("ml_predictions_total", 2, version=CANARY),
        counter("ml_predictions_total", 7, version=CANARY | {"version": "5"}),
    ]
    values = [(MODEL | {"role": "canary"}, 120), (MODEL | {"role": "primary"}, 1200)]

    check(tmp_path, given, [expect("model_role:ml_predictions:increase1h", AT, *values)], HOUR)


def test_a_version_counts_for_both_roles_while_its_replicas_are_promoted(tmp_path):
    given = [
        series("ml_model_info", "1x90", **CANARY, pod="a", role="primary"),
        series("ml_model_info", "1x90", **CANARY, pod="b", role="canary"),
        counter("ml_predictions_total", 10, version=CANARY),
    ]
    values = [(MODEL | {"role": "canary"}, 600), (MODEL | {"role": "primary"}, 600)]

    check(tmp_path, given, [expect("model_role:ml_predictions:increase1h", AT, *values)], HOUR)
