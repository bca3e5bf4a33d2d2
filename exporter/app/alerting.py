"""Alerting rules as a Prometheus rule file has them, and when one fires.

A rule is looked at at each moment of a grid, as Prometheus does each evaluation interval (rules/alerting.go, Eval): a
series that is there is pending, and firing once it has been there `for` long; one that is gone is resolved, or kept
firing until it has been gone `keep_firing_for` long. Before the first moment nothing was pending.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from exporter.app.config import ConfigError, parse_yaml, read_text
from exporter.catalog.promql import duration_ms
from exporter.catalog.rules import DEFAULT_INTERVAL, Group, Recording

_LABEL = re.compile(r"{{-?\s*\$labels\.([a-zA-Z_][a-zA-Z0-9_]*)\s*-?}}")


class _Rule(msgspec.Struct, forbid_unknown_fields=True):
    """A rule as it is written; those that record have no alert."""

    expr: str | int | float
    alert: str | None = None
    record: str | None = None
    for_: str | int = msgspec.field(default="0s", name="for")
    keep_firing_for: str | int = "0s"
    labels: dict[str, str | int | float] = {}
    annotations: Any = None


class _Group(msgspec.Struct):
    """Rules that are looked at together; what else a group says has no bearing on when they fire."""

    name: str
    rules: list[_Rule] = []
    interval: str | int = ""


class _File(msgspec.Struct):
    groups: list[_Group] = []


@dataclass(frozen=True, slots=True)
class Rule:
    """An alerting rule; durations in milliseconds."""

    alert: str
    expression: str
    interval_ms: int
    for_ms: int
    keep_ms: int
    labels: Mapping[str, str]

    def labels_of(self, series: Mapping[str, str]) -> dict[str, str]:
        """The labels of the alert that a series raises, sorted. Of templates, `{{ $labels.name }}` is filled in."""
        own = {name: _LABEL.sub(lambda one: series.get(one[1], ""), value) for name, value in self.labels.items()}
        return {name: value for name, value in sorted({**series, **own}.items()) if value and name != "__name__"}


@dataclass(frozen=True, slots=True)
class Rules:
    """A rule file: its alerts, and groups of what it records for them."""

    alerts: Sequence[Rule]
    records: Sequence[Group]


@dataclass(frozen=True, slots=True)
class Firing:
    """From which moment to which (by number) an alert fired, since when it was pending, and its highest value.

    `until` is the first moment at which it no longer did; None if it still fired at the last.
    """

    pending: int
    since: int
    until: int | None
    peak: float


@dataclass(slots=True)
class Watch:
    """One series of a rule, moment by moment; those at which it is not there are left out."""

    for_steps: int
    keep_steps: int
    fired: list[Firing] = field(default_factory=list)
    _pending: int | None = None
    _since: int | None = None
    _last: int = -1
    _peak: float = math.nan

    def see(self, place: int, value: float) -> None:
        """The series is there at this moment, which is later than all before."""
        self._gone(place)
        if self._pending is None:
            self._pending, self._since, self._peak = place, None, value
        elif math.isnan(self._peak) or value > self._peak:
            self._peak = value
        self._last = place
        if self._since is None and place - self._pending >= self.for_steps:
            self._since = place

    def end(self, count: int) -> list[Firing]:
        """When it fired, after all `count` moments."""
        self._gone(count)
        self._close(None)
        return self.fired

    def _gone(self, before: int) -> None:
        """Let the moments pass at which it was not there."""
        first = self._last + 1
        if first == before:
            return
        if self._since is None:
            self._pending = None
        elif first + self.keep_steps < before:
            self._close(first + self.keep_steps)

    def _close(self, until: int | None) -> None:
        if self._pending is not None and self._since is not None:
            self.fired.append(Firing(self._pending, self._since, until, self._peak))
        self._pending = self._since = None


def watch(rule: Rule, step_ms: int) -> Watch:
    """A watch on a series of a rule that is looked at every `step_ms`."""
    return Watch(math.ceil(rule.for_ms / step_ms), math.ceil(rule.keep_ms / step_ms))


def read(path: Path) -> Rules:
    """The rules of a Prometheus rule file. Raises ConfigError, naming file and rule."""
    return parse(read_text(path), str(path))


def parse(text: str, name: str) -> Rules:
    """The rules of the text of a rule file called `name`. Raises ConfigError."""
    try:
        file = msgspec.convert(parse_yaml(text, name) or {}, _File, strict=False)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ConfigError(f"{name}: no Prometheus rule file: {error}") from None
    alerts = [_rule(one, group, name) for group in file.groups for one in group.rules if one.alert is not None]
    return Rules(alerts, [_recorded(group) for group in file.groups])


def _recorded(group: _Group) -> Group:
    recordings = (
        Recording(one.record, str(one.expr), {name: str(value) for name, value in one.labels.items()})
        for one in group.rules
        if one.record is not None
    )
    return Group(group.name, tuple(recordings), str(group.interval))


def _rule(one: _Rule, group: _Group, name: str) -> Rule:
    try:
        interval, held, kept = (
            duration_ms(text) for text in (group.interval or DEFAULT_INTERVAL, one.for_, one.keep_firing_for)
        )
    except ValueError as error:
        raise ConfigError(f"{name}: group {group.name}, alert {one.alert}: {error}") from None
    labels = {name: str(value) for name, value in one.labels.items()}
    return Rule(str(one.alert), str(one.expr), interval, held, kept, labels)
