from exporter.monitor.events import DROP_REASONS, LATE_REASONS, REJECT_REASONS, TROUBLE_REASONS, Reject
from exporter.monitor.feed import EXAMPLES, SourceFeed
from tests.builders import NOW, as_text


def test_every_reason_is_there_from_the_start_at_zero():
    lines = as_text(SourceFeed().samples("kafka"))

    expected = {'ml_ingest_events_total{source="kafka"}': 0.0}
    expected['ml_ingest_redelivered_total{source="kafka"}'] = 0.0
    for name, reasons in (
        ("rejected", REJECT_REASONS),
        ("late", LATE_REASONS),
        ("dropped", DROP_REASONS),
        ("source_errors", TROUBLE_REASONS),
    ):
        expected |= {f'ml_ingest_{name}_total{{source="kafka",reason="{reason}"}}': 0 for reason in reasons}
    assert lines == expected, "and no watermark before an event"


def test_what_was_counted_is_what_is_shown():
    feed = SourceFeed(events=10)
    feed.reject([Reject(0, "malformed_json", "at 3"), Reject(4, "malformed_json", "at 7")], NOW)
    feed.late["future"] += 2
    feed.dropped["label"] += 1
    feed.newest(NOW)
    feed.newest(NOW - 5)

    shown = {series: value for series, value in as_text(feed.samples("http")).items() if value}

    assert shown == {
        'ml_ingest_events_total{source="http"}': 10,
        'ml_ingest_rejected_total{source="http",reason="malformed_json"}': 2,
        'ml_ingest_late_total{source="http",reason="future"}': 2,
        'ml_ingest_dropped_total{source="http",reason="label"}': 1,
        'ml_ingest_watermark_timestamp_seconds{source="http"}': NOW,
    }


def test_the_last_examples_are_kept_newest_first_and_short():
    feed = SourceFeed()
    feed.reject([Reject(i, "malformed_json", f"early {i}") for i in range(50)], NOW)
    feed.reject([Reject(0, "not_an_object", "x" * 10_000)], NOW + 1)

    assert len(feed.examples) == EXAMPLES
    assert feed.examples[0].reason == "not_an_object"
    assert len(feed.examples[0].detail) == 200
    assert [example.detail for example in feed.examples][1:3] == ["early 49", "early 48"]


def test_accounts_of_two_processes_add_up_and_copies_are_independent():
    one, other = SourceFeed(events=3, watermark=5.0), SourceFeed(events=4)
    one.rejected["too_deep"] += 1
    other.rejected["too_deep"] += 1
    other.dropped["label"] += 2
    one.troubles["connect"] += 1
    other.troubles["connect"] += 2
    one.redelivered, other.redelivered = 5, 6
    before = one.copy()

    one.merge(other)

    assert (one.events, one.watermark) == (7, 5.0)
    assert one.rejected["too_deep"] == 2
    assert one.dropped["label"] == 2
    assert (one.troubles, one.redelivered) == ({"connect": 3}, 11)
    assert before.events == 3
    assert (before.troubles, before.redelivered) == ({"connect": 1}, 5)
    assert before.rejected["too_deep"] == 1
    again = SourceFeed()
    again.load(one.dump())
    assert again == one
