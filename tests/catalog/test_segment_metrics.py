from exporter.catalog.labels import MODEL, SEGMENT, SEGMENT_NAME, VERSION
from exporter.catalog.metrics import METRICS
from exporter.catalog.segment_metrics import METRICS as OF_SEGMENTS


def test_what_says_which_segment_it_is_of_is_here():
    assert [metric for metric in METRICS if SEGMENT in metric.labels] == list(OF_SEGMENTS)
    for metric in OF_SEGMENTS:
        assert metric.name.startswith("ml_segment_")
        assert metric.labels[:4] == (MODEL, VERSION, SEGMENT_NAME, SEGMENT)
