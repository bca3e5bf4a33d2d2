import pytest

from exporter.ingest.envelopes import HEADERS, envelopes_of
from exporter.ingest.source import EMPTY, Envelope


def test_records_without_headers_need_no_envelopes():
    assert envelopes_of([None, [], None], HEADERS) == ()


def test_headers_that_say_nothing_of_ours_need_no_envelopes():
    assert envelopes_of([[("trace", b"x")], None], HEADERS) == ()


def test_each_record_has_its_own():
    headers = [[("model", b"m"), ("version", b"2")], None, [("content-type", b"text/csv")], [("trace", b"x")]]
    assert envelopes_of(headers, HEADERS) == [Envelope("m", "2"), EMPTY, Envelope(content_type="text/csv"), EMPTY]


@pytest.mark.parametrize(
    "header, model",
    [
        (("MODEL", b"m"), "m"),
        (("Model", "text"), "text"),
        (("model", None), ""),
        (("model", b""), ""),
        (("model", b"\xc3\xa9"), "é"),
        (("model", b"\xff"), "\ufffd"),
    ],
)
def test_names_of_any_case_and_values_of_any_kind(header: tuple[str, object], model: str):
    (envelope,) = envelopes_of([[header, ("version", b"1")]], HEADERS)
    assert envelope == Envelope(model, "1")


def test_the_last_of_equal_headers_counts():
    assert envelopes_of([[("model", b"a"), ("model", b"b")]], HEADERS) == [Envelope("b")]


def test_headers_may_have_other_names():
    names = HEADERS | {"model": "X-Model-Id"}
    headers = [[("x-model-id", b"m"), ("model", b"not this"), ("version", b"2")]]
    assert envelopes_of(headers, names) == [Envelope("m", "2")]
