from exporter.assets.model_panels import LESS_IS_BETTER, MORE_IS_BETTER
from exporter.monitor.accuracy import LOSSES, QUALITIES


def test_limits_lie_where_the_exporter_has_them():
    assert MORE_IS_BETTER.split("|") == list(QUALITIES)
    assert LESS_IS_BETTER.split("|") == list(LOSSES)
