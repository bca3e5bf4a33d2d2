import pytest

from exporter.catalog.labels import MODEL
from exporter.catalog.rules import Settings, Window
from exporter.catalog.thresholds import STALLED_S


@pytest.mark.parametrize("text", ["", "1", "h", "0h", "-1h", "1.5h", "1w", "5m", "7m", "1h30m", "1h\n"])
def test_what_is_no_window_of_whole_steps_is_refused(text):
    with pytest.raises(ValueError, match="multiple of 5m"):
        Window(text)


@pytest.mark.parametrize("text, range_", [("10m", "9m59s"), ("1h", "59m59s"), ("30d", "43199m59s")])
def test_a_window_lacks_a_second(text, range_):
    assert Window(text).sum("steps") == f"sum_over_time(steps[{range_}])"
    assert Window(text).sum("steps", "1d") == f"sum_over_time(steps[{range_}] offset 1d)"


def test_settings_name_targets_first_and_override_defaults():
    assert Settings(("cluster", "namespace")).by(MODEL) == "cluster, namespace, model"
    assert Settings().number(STALLED_S) == "60"
    assert Settings(overrides={"stalled": 50}).number(STALLED_S) == "50"
