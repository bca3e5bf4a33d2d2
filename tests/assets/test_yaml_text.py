import pytest
import yaml

from exporter.assets.yaml_text import to_yaml

TEXTS = (
    *("", "plain text, (with) {braces}", "a: b", "a #b", "a#b", "ends:", "ends ", " starts", "it's", "- a", "{{ $x }}"),
    *(
        "true",
        "No",
        "null",
        "1",
        "0.5",
        "1e5",
        "05",
        "5m",
        "1:30",
        "~",
        "'",
        '"',
        "@a",
        "%a",
        "&a",
        "*a",
        "!a",
        "|",
        ">",
    ),
    *("a\nb", "a\n  b\nc", "a:\n# b", "\N{PILE OF POO}", "on", "y", "2026-11-26", "=", "?", "[a", "a]", ".inf", "none"),
)


def test_expressions_are_blocks_and_keys_keep_their_order():
    value = {"record": "a:b", "expr": "sum (\n  x\n)", "for": "5m"}

    assert to_yaml(value) == "record: a:b\nexpr: |-\n  sum (\n    x\n  )\nfor: 5m\n"


@pytest.mark.parametrize("text", TEXTS)
def test_texts_are_read_as_they_were(text):
    value = {"key": text, "nested": {"key": text, "list": [{"a": text, "b": text}, {"c": 1}]}}

    assert yaml.safe_load(to_yaml(value)) == value


def test_what_is_no_text_is_read_as_it_was():
    value = {"truths": [True, False], "number": 3, "list": [["a", "b"], ["c"]]}

    assert yaml.safe_load(to_yaml(value)) == value
