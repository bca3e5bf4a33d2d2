from exporter.monitor import freshness
from exporter.monitor.settings import ModelSettings
from tests.builders import NOW, a_reference, as_text


def test_ages_are_exported_as_timestamps_and_only_what_is_known():
    settings = ModelSettings("m", trained=NOW - 86_400, max_age_s=30 * 86_400.0)

    lines = as_text(freshness.samples(settings, "1", a_reference(created=NOW - 3600), NOW - 1.5))

    assert lines == {
        'ml_prediction_last_timestamp_seconds{model="m",version="1"}': NOW - 1.5,
        'ml_model_trained_timestamp_seconds{model="m",version="1"}': NOW - 86_400,
        'ml_model_max_age_seconds{model="m",version="1"}': 30 * 86_400,
        'ml_reference_created_timestamp_seconds{model="m",version="1"}': NOW - 3600,
    }
    assert as_text(freshness.samples(ModelSettings("m"), "1", None, None)) == {}
