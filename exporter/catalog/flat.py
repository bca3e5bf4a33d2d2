"""Rules that stand alone: where one reads what another records, it gets the expression that makes it.

They say what the rules would have said before anybody recorded anything, of scrapes and of histories alike: a window
that is a sum of recorded steps becomes one increase over the whole window, which samples further apart than a step
have too. The two are equal where samples lie on the steps; else each step has made up a little at its ends, about a
thousandth of an hour's count. Flat rules cost a Prometheus much more than records: nothing is shared between them, and
KS reads every counter of a window forty times.
"""

import ast
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from exporter.catalog.promql import Selector, duration, duration_ms, selectors
from exporter.catalog.rules import DEFAULT_INTERVAL, STEP, Group, Recording

_LEAF = re.compile(
    r"(?P<start>(?P<how>\w+\s+by\s*)\((?P<labels>[^()]*)\)\s*\((?P<function>\w+\()?[a-zA-Z_:][\w:]*)"
    r"(?:\{(?P<matchers>[^{}]*)\})?(?P<range>\[\w+\])?(?P<end>(?: offset \w+)?\)+)"
)
"""Series of one metric, or an increase of them, aggregated by labels that their results then have."""
_ALIKE = re.compile(r"(?:[\s()\d.*+-]|\bor\b|\band\b|\bunless\b)*")
"""What joins series of the same labels, each for itself."""
_PLAIN = re.compile(r"(\d+[a-z]+)+")
"""A range of a duration, not one of seconds without a unit, nor of a subquery."""
_MARK = "__kept__"


class Records:
    """What groups record, and what it is made of; but where what is read is `recorded`, it is let be.

    If expressions are evaluated at multiples of `every_ms` only, a range over a record looks no closer than that.
    """

    def __init__(
        self, groups: Iterable[Group], recorded: Callable[[Selector], bool] = lambda _: False, every_ms: int = 0
    ) -> None:
        self._recorded = recorded
        self._every_ms = every_ms
        self._rules: dict[str, list[Recording]] = {}
        self._intervals: dict[str, str] = {}
        self._made: dict[str, list[Recording] | None] = {}
        for group in groups:
            for rule in group.rules:
                if isinstance(rule, Recording):
                    self._rules.setdefault(rule.record, []).append(rule)
                    self._intervals.setdefault(rule.record, group.interval)

    @property
    def replaced(self) -> list[str]:
        """Names of the records that expressions were put in the place of, so far."""
        return sorted(name for name, made in self._made.items() if made is not None)

    def flat(self, expr: str) -> str:
        """An expression in which no record is read that is not recorded. A rule that reads itself is let be.

        Values that are current for the customary five minutes are current for as long as this Prometheus is told.
        """
        parts, done = list[str](), 0
        for one in selectors(expr):
            rules = self._of(one)
            if rules is not None:
                (start, end), text = self._instead(one, rules)
            elif one.function == "last_over_time" and one.range == STEP:
                (start, end), text = one.call, expr[one.place[0] : expr.rindex("[", *one.place)] + one.after
            else:
                continue
            parts += [expr[done:start], text]
            done = end
        return "".join([*parts, expr[done:]])

    def _of(self, one: Selector) -> list[Recording] | None:
        """The rules of a record in a form that reads none; None for what is read by its name."""
        if one.name not in self._rules or self._recorded(one):
            return None
        if one.name not in self._made:
            self._made[one.name] = None
            self._made[one.name] = [replace(rule, expr=self._closed(rule.expr)) for rule in self._rules[one.name]]
        return self._made[one.name]

    def _closed(self, expr: str) -> str:
        """Flat, and on lines of its own where something after it would be in a comment."""
        return self.flat(expr) + ("\n" if "#" in expr else "")

    def _instead(self, one: Selector, rules: list[Recording]) -> tuple[tuple[int, int], str]:
        """What to write instead of a selector, or of the function around it, and where."""
        after, interval = one.after, self._intervals[one.name]
        steps = _steps(rules, interval) if one.function == "sum_over_time" else None
        if steps is not None and _PLAIN.fullmatch(one.range):
            whole = f"{steps['start']}[{_whole(one.range, interval)}]{after}{steps['end']}"
            return one.call, _filtered(whole, one.matchers)
        made = _united(list(_matching(one, rules)))
        if ":" in one.range:
            return one.place, f"{made}[{one.range}]{after}"
        if one.range:
            # The moments of a subquery are multiples of its step: the last of them is now, but not with an offset.
            coarse = not after and self._every_ms > duration_ms(interval or DEFAULT_INTERVAL)
            return one.place, f"{made}[{one.range}:{duration(self._every_ms) if coarse else interval}]{after}"
        if after:
            # Only series and subqueries can be asked for the past.
            every = interval or DEFAULT_INTERVAL
            return one.place, f"last_over_time({made}[{every}:{every}]{after})"
        return one.place, made


def flat(groups: Iterable[Group]) -> tuple[Group, ...]:
    """The same rules, none of which reads another. They are evaluated as often as whoever evaluates them likes."""
    groups = tuple(groups)
    records = Records(groups)
    return tuple(
        Group(group.name, tuple(replace(rule, expr=records.flat(rule.expr)) for rule in group.rules), interval="")
        for group in groups
    )


def _steps(rules: list[Recording], interval: str) -> re.Match[str] | None:
    """A sum of increases that is recorded as often as the increases are long."""
    found = _LEAF.fullmatch(rules[0].expr) if len(rules) == 1 and not rules[0].labels else None
    if found is None or found["how"].split()[0] != "sum" or found["function"] != "increase(" or found["matchers"]:
        return None
    return found if found["range"] == f"[{interval}]" else None


def _whole(window: str, step: str) -> str:
    """The range of samples whose increase is that of all steps in a window."""
    step_ms = duration_ms(step)
    return duration(math.ceil(duration_ms(window) / step_ms) * step_ms)


def _united(exprs: list[str]) -> str:
    """All series of several expressions; of none, none."""
    return f"({' or '.join(exprs) or 'absent(vector(1))'})"


def _matching(one: Selector, rules: list[Recording]) -> Iterator[str]:
    """What each rule yields that a selector selects. Labels that a rule adds are known beforehand."""
    for rule in rules:
        known = [matcher for matcher in one.matchers if matcher[0] in rule.labels]
        if all(_matches(rule.labels[label], operator, value) for label, operator, value in known):
            expr = _filtered(rule.expr, [matcher for matcher in one.matchers if matcher not in known])
            for label, text in rule.labels.items():
                expr = f'label_replace({expr}, "{label}", {_quoted(text.replace("$", "$$"))}, "", "")'
            yield expr


def _matches(text: str, operator: str, value: str) -> bool:
    value = _unquoted(value)
    equal = re.fullmatch(value, text) is not None if "~" in operator else value == text
    return equal is not operator.startswith("!")


def _filtered(expr: str, matchers: Iterable[tuple[str, str, str]]) -> str:
    """The series of an expression whose labels match: selected so, or else marked, and the mark taken off again."""
    for label, operator, value in matchers:
        leaves = list(_LEAF.finditer(expr))
        known = leaves and all(label in re.findall(r"\w+", leaf["labels"]) for leaf in leaves)
        if known and _ALIKE.fullmatch(_LEAF.sub("", expr)):
            for leaf in reversed(leaves):
                inside = ",".join(filter(None, [leaf["matchers"], label + operator + value]))
                expr = f"{expr[: leaf.end('start')]}{{{inside}}}{leaf['range'] or ''}{expr[leaf.start('end') :]}"
            continue
        pattern = value if "~" in operator else _quoted(re.escape(_unquoted(value)))
        marked = f'label_replace({expr}, "{_MARK}", "1", "{label}", {pattern})'
        mark = f'label_replace(vector(1), "{_MARK}", "1", "", "")'
        keep = "unless" if operator.startswith("!") else "and"
        expr = f"max without ({_MARK}) ({marked} {keep} on ({_MARK}) {mark})"
    return expr


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _unquoted(text: str) -> str:
    return text[1:-1] if text[0] == "`" else str(ast.literal_eval(text))
