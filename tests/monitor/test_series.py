import numpy as np

from exporter.catalog import metrics
from exporter.catalog.thresholds import ALERT_THRESHOLDS
from exporter.monitor.fleet import Fleet
from exporter.monitor.series import full_series, groups
from exporter.monitor.settings import ModelSettings
from tests.builders import MODEL, NOW, a_fleet, a_reference, columns_of, exposed, observe, values_of, view

DEFAULTS = {one.name: one.value for one in ALERT_THRESHOLDS}


def test_settings_are_series():
    fleet = Fleet(
        [
            ModelSettings(
                "m",
                version="1",
                min_samples=300,
                drifted_features_ratio=0.5,
                min_labels=50,
                error_budget=0.01,
                feature_psi_thresholds={"x": 0.3},
                latency_objective_s={"0.99": 0.25},
                info={"team": "risk"},
            )
        ],
        {"m": [a_reference(model="m")]},
    )

    lines = exposed(fleet.tick(NOW))

    base = 'model="m",version="1"'
    assert lines[f"ml_drift_min_samples{{{base}}}"] == 300
    assert lines[f"ml_drifted_features_threshold_ratio{{{base}}}"] == 0.5
    assert lines[f"ml_labels_min_samples{{{base}}}"] == 50
    assert lines[f"ml_error_budget_ratio{{{base}}}"] == 0.01
    assert lines[f'ml_latency_objective_seconds{{{base},objective_quantile="0.99"}}'] == 0.25
    thresholds = {key: value for key, value in lines.items() if key.startswith("ml_feature_drift_threshold")}
    assert thresholds[f'ml_feature_drift_threshold{{{base},kind="input",feature="x"}}'] == 0.3
    assert thresholds[f'ml_feature_drift_threshold{{{base},kind="score",feature="score"}}'] == 0.1
    (info,) = [key for key in lines if key.startswith("ml_model_info")]
    assert 'team="risk"' in info
    assert 'owner=""' in info


def test_a_version_says_whether_its_reference_is_anothers():
    fleet = a_fleet(a_reference())
    observe(fleet, columns_of(10))
    observe(fleet, columns_of(10), version="2")

    assert values_of(fleet.tick(NOW), metrics.REFERENCE_BORROWED) == {(MODEL, "1"): 0, (MODEL, "2"): 1}


def test_a_score_is_a_number_or_absent():
    fleet = a_fleet(a_reference())
    for rows in (0, 1, 499, 600):
        if rows:
            observe(fleet, columns_of(rows))
        assert np.isfinite([v for k, v in exposed(fleet.tick(NOW)).items() if "upper_bound" not in k]).all()


def test_the_number_of_series_announced_is_the_number_exported_with_enough_data():
    reference = a_reference()
    announced = full_series(view(a_fleet(reference).tick(NOW)))
    fleet = a_fleet(reference)
    observe(fleet, columns_of(1000))
    model = view(fleet.tick(NOW))

    exported = sum(len(samples) for _, samples in groups(model))
    assert exported == announced


def test_thresholds_are_a_models_whatever_its_versions():
    fleet = a_fleet(a_reference(), alert_thresholds=DEFAULTS | {"canary_margin": 0.02})
    observe(fleet, columns_of(10))
    observe(fleet, columns_of(10), version="2")

    found = {key: value for key, value in exposed(fleet.tick(NOW)).items() if key.startswith("ml_alert_threshold")}

    expected = DEFAULTS | {"canary_margin": 0.02}
    assert found == {
        f'ml_alert_threshold{{model="{MODEL}",threshold="{name}"}}': value for name, value in expected.items()
    }


def test_a_model_that_is_not_configured_has_the_defaults_as_long_as_its_traffic_is_exposed():
    def names_of(series_limit):
        fleet = Fleet([ModelSettings("known", version="1")], series_limit=series_limit)
        observe(fleet, model="stranger", rows=3)
        return {model for model, _ in values_of(fleet.tick(NOW), metrics.ALERT_THRESHOLD)}

    assert names_of(10_000) == {"known", "stranger"}
    assert names_of(0) == {"known"}
