from exporter.catalog.threshold_rules import threshold
from exporter.catalog.thresholds import CANARY_MARGIN
from tests.assets.promtool import check, expect, series

LOAN = {"namespace": "prod", "model": "loan"}
MARGIN = {"threshold": "canary_margin"}


def test_a_threshold_is_one_of_the_model_whatever_its_replicas(tmp_path):
    given = [
        series("ml_alert_threshold", "0.01x30", **LOAN, **MARGIN, pod="a"),
        series("ml_alert_threshold", "0.01x10 0.02x20", **LOAN, **MARGIN, pod="b"),
        series("ml_alert_threshold", "3x30", **LOAN, threshold="canary_z", pod="a"),
        series("ml_alert_threshold", "0.5x30", **LOAN | {"namespace": "test"}, **MARGIN, pod="a"),
    ]
    elsewhere = (LOAN | {"namespace": "test"}, 0.5)

    check(
        tmp_path,
        given,
        [
            expect(threshold(CANARY_MARGIN), "5m", (LOAN, 0.01), elsewhere),
            expect(threshold(CANARY_MARGIN), "30m", (LOAN, 0.02), elsewhere),
        ],
    )


def test_a_threshold_outlives_its_exporters_by_a_day(tmp_path):
    given = [series("ml_alert_threshold", "0.01x30 stale", **LOAN, **MARGIN, pod="a")]
    seen = expect(threshold(CANARY_MARGIN), "24h20m", (LOAN, 0.01))

    check(tmp_path, given, [seen, expect(threshold(CANARY_MARGIN), "24h40m")])
