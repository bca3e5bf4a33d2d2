import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.monitor.events import ErrorReasons, category_spellings, category_text, vocabulary


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((3, 3.0, "3"), "3"),
        ((-7, -7.0, "-7"), "-7"),
        ((0, 0.0, -0.0, "0"), "0"),
        ((2.5, "2.5"), "2.5"),
        ((True, "True", "TRUE", "true"), "true"),
        ((False, "False", "FALSE", "false"), "false"),
        (("0 - 20K",), "0 - 20K"),
        (("",), ""),
        ((1e22, 10**22, "10000000000000000000000"), "10000000000000000000000"),
        # Ids of 64 bits: no float can stand for them.
        ((9007199254740993, "9007199254740993"), "9007199254740993"),
        ((18446744073709551615, "18446744073709551615"), "18446744073709551615"),
    ],
)
def test_a_category_has_one_spelling_and_an_event_may_carry_any(values: tuple[object, ...], text: str):
    codes = vocabulary([text])

    for value in values:
        assert category_text(value) == text
        assert codes.get(value) == 0, repr(value)


def test_missing_is_no_category():
    assert category_text(None) is None
    assert category_text(math.nan) is None
    assert vocabulary(["a"])[None] == -1


@pytest.mark.parametrize("value", [[], {}, (), ["a"], object(), "\ud800", "a\udfffb"])
def test_what_cannot_be_written_as_text_is_no_category(value: object):
    with pytest.raises(TypeError):
        category_text(value)


def test_an_exact_text_always_means_its_own_category():
    codes = vocabulary(["true", "True!", "1", "1.0", "01"])

    assert [codes[text] for text in ("true", "True!", "1", "1.0", "01")] == [0, 1, 2, 3, 4]
    assert codes["TRUE"] == 0


@given(st.one_of(st.text(), st.integers(), st.floats(), st.booleans()))
def test_every_value_is_found_under_its_own_text(value: object):
    try:
        text = category_text(value)
    except TypeError:
        return
    if text is not None:
        assert vocabulary([text]).get(value) == 0
        assert value in category_spellings(text)
        assert category_text(text) == text, "a spelling is its own spelling"


@given(st.lists(st.text(max_size=3), unique=True, max_size=6))
def test_codes_are_the_places_of_the_categories(texts: list[str]):
    codes = vocabulary(texts)

    assert [codes[text] for text in texts] == list(range(len(texts)))


def test_reasons_of_failure_are_a_closed_list():
    reasons = ErrorReasons(["quota", "timeout"])

    assert reasons.names.count("timeout") == 1
    assert reasons.names[-1] == "other"
    assert reasons.names[reasons.codes["quota"]] == "quota"
    assert reasons.codes[None] == reasons.codes[""] == -1
    assert "made up" not in reasons.codes
