from exporter.catalog import metrics
from exporter.catalog.thresholds import ALERT_THRESHOLDS
from exporter.monitor.fleet import Fleet
from exporter.monitor.settings import ModelSettings
from tests.builders import MODEL, NOW, a_fleet, a_reference, columns_of, exposed, observe, values_of

DEFAULTS = {one.name: one.value for one in ALERT_THRESHOLDS}


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
