from exporter.catalog.process_alerts import process_alerts
from exporter.catalog.rules import Settings


def test_processes_are_told_apart_by_target_and_never_by_model():
    conditional = [alert for alert in process_alerts(Settings(("cluster",))) if alert.labels]
    assert len(conditional) == 5
    for alert in conditional:
        assert alert.labels[:2] == ("job", "instance")
        assert "by (cluster, job, instance" in alert.expr


def test_thresholds_are_overridden_by_name():
    (stalled,) = [
        alert for alert in process_alerts(Settings(overrides={"stalled": 90})) if alert.name == "MLExporterTicksStalled"
    ]
    assert "> 90\n" in stalled.expr
