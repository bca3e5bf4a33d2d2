"""YAML of generated files: keys in the order they were made, expressions as blocks, the same bytes each time.

What a library writes may change with its release, and a test compares bytes.
"""

import re
from collections.abc import Iterator
from typing import Any

_PLAIN = re.compile(r"(?!.*(: | #|[: ]$))[A-Za-z_(/][^\n]*|[0-9]+[smhd]")
"""Texts that stand for themselves: no indicator in front, nothing that ends them or starts a comment."""
_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})


def to_yaml(value: dict[str, Any]) -> str:
    """The text of plain dicts, lists, texts, truths and integers. Lists and dicts in it are not empty."""
    return "".join(f"{line}\n" for line in _lines(value))


def _lines(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, one in value.items():
            if isinstance(one, dict):
                yield f"{key}:"
                yield from (f"  {line}" for line in _lines(one))
            elif isinstance(one, list):
                yield f"{key}:"
                yield from _lines(one)
            elif isinstance(one, str) and "\n" in one:
                yield f"{key}: |-"
                yield from (f"  {line}" for line in one.split("\n"))
            else:
                yield f"{key}: {_scalar(one)}"
    elif isinstance(value, list):
        for one in value:
            first, *others = _lines(one)
            yield f"- {first}"
            yield from (f"  {line}" for line in others)
    else:
        yield _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and (value.lower() in _WORDS or not _PLAIN.fullmatch(value)):
        return "'" + value.replace("'", "''") + "'"
    return str(value)
