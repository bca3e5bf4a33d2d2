"""What an expression of PromQL reads, and how long its durations are. No parser: what is no selector is skipped.

That is enough to say which series are read, and to put something else in their place. A name inside a string, a list
of labels or a comment reads none.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TEXT = r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|`[^`]*`"
_WORD = r"[a-zA-Z_][a-zA-Z0-9_:]*\b"
_KEYWORDS = r"(?:and|or|unless|atan2|bool|offset|by|without|on|ignoring|group_left|group_right|inf|nan)\b"
_TOKEN = re.compile(
    rf"""
      {_TEXT} | \#[^\n]* | \d[\w.]*
    | (?i:\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^()]*\))
    | (?i:\b{_KEYWORDS})
    | (?:(?P<function>{_WORD})\s*\(\s*)?
      (?P<selector>
        (?P<name>(?!(?i:{_KEYWORDS})){_WORD})(?!\s*\(|\s*(?i:by|without)\b)
        (?:\s*\{{(?P<matchers>(?:[^{{}}"'`]|{_TEXT})*)\}})?
        (?:\s*\[(?P<range>[^\]]*)\])?
        (?P<modifiers>(?:\s*(?i:offset)\s+-?\w+|\s*@\s*(?:[\d.]+|(?i:start|end)\(\)))*)
      )
      (?P<close>\s*\))?
    | {_WORD}
    """,
    re.VERBOSE,
)
_DURATION = re.compile(
    r"(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?",
)
_DAY_MS = 86_400_000
_UNITS_MS = {"y": 365 * _DAY_MS, "w": 7 * _DAY_MS, "d": _DAY_MS, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_MATCHER = re.compile(rf"({_WORD})\s*(=~|!~|!=|=)\s*({_TEXT})")


@dataclass(frozen=True, slots=True)
class Selector:
    """A selector, and where in the expression it stands.

    `matchers` are triples of label, operator and quoted value; `range` is what is in brackets, of a subquery too;
    `modifiers` are offset and @. If it is the only argument of a `function`, `call` is where that stands.
    """

    name: str
    matchers: tuple[tuple[str, str, str], ...]
    range: str
    modifiers: str
    place: tuple[int, int]
    function: str
    call: tuple[int, int]

    @property
    def after(self) -> str:
        """Its modifiers, as they follow what stands for it."""
        return self.modifiers and f" {self.modifiers}"


def selectors(expr: str) -> Iterator[Selector]:
    """All that have a name, from left to right."""
    for found in _TOKEN.finditer(expr):
        if found["name"] is None:
            continue
        alone = found["function"] is not None and found["close"] is not None
        yield Selector(
            found["name"],
            tuple((one[1], one[2], one[3]) for one in _MATCHER.finditer(found["matchers"] or "")),
            (found["range"] or "").strip(),
            found["modifiers"].strip(),
            found.span("selector"),
            found["function"] if alone else "",
            found.span() if alone else found.span("selector"),
        )


def duration_ms(text: str | int) -> int:
    """A duration as Prometheus writes it (`1h30m`, `0`). Raises ValueError."""
    found = _DURATION.fullmatch(str(text))
    if str(text) == "0":
        return 0
    if found is None or not str(text):
        raise ValueError(f"a duration such as 30s or 1h30m expected, found {str(text)!r}")
    return sum(int(part) * unit for part, unit in zip(found.groups(default="0"), _UNITS_MS.values(), strict=True))


def duration(length_ms: int) -> str:
    """The same in one unit, of days at most, as windows are called."""
    unit = next(unit for unit in ("d", "h", "m", "s", "ms") if length_ms % _UNITS_MS[unit] == 0)
    return f"{length_ms // _UNITS_MS[unit]}{unit}"
