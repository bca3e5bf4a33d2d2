"""What a Grafana should hold, what would have to change for that, and changing it, one object after the other.

All is looked at before anything is written, so that what is refused is refused as a whole. What is written is looked at
again right before, and again after trouble: an answer may be lost after the deed, and nothing is made twice. A second
run finds nothing to do.
"""

import difflib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from exporter.app.config import ConfigError
from exporter.app.grafana import Forbidden, Grafana, Json
from exporter.app.patience import patiently
from exporter.app.provisioned import (
    FOLDER,
    ContactPoint,
    Dashboard,
    Folder,
    Leftover,
    Policy,
    Rules,
    Thing,
    is_ours,
)
from exporter.assets.dashboards import DASHBOARDS, dashboard
from exporter.assets.grafana_paging import CONTACT_POINT, NAME, contact_point, policy
from exporter.assets.grafana_rules import OWN, rule_group
from exporter.catalog.alerts import GROUP
from exporter.catalog.rules import Settings

Action = Literal["create", "change", "delete", "left", "unchanged"]

_PROMETHEUS = "prometheus"
_ALWAYS_FIRING = 'ALERTS{alertname="MLWatchdog"}'
_SHOWN_LINES = 40
"""Of an object that is made or deleted. All its lines differ, and a dashboard has a thousand: then they are counted."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a Grafana should hold.

    With `alerts` Grafana evaluates them; `key` is that of PagerDuty, which is written to a contact point that is there
    only with `new_key`.
    """

    settings: Settings
    folder: str
    alerts: bool = False
    key: str | None = None
    new_key: bool = False
    editable: bool = False
    prune: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done about a thing: what is there, and what should be."""

    thing: Thing
    action: Action
    before: Any
    after: Any

    @property
    def writes(self) -> bool:
        """Whether it changes anything."""
        return self.action not in ("left", "unchanged")

    @property
    def diff(self) -> str:
        """How the two differ, line by line."""
        was, becomes = (
            [] if one is None else json.dumps(_lines(one), indent=1, sort_keys=True, ensure_ascii=False).splitlines()
            for one in (self.before, self.after)
        )
        if not (was and becomes) and len(was) + len(becomes) > _SHOWN_LINES:
            return f"{'+' if becomes else '-'} {len(was) + len(becomes):,} lines"
        return "\n".join(difflib.unified_diff(was, becomes, "in Grafana", "wanted", lineterm="", n=2))


def choose_datasource(sources: Sequence[Json], wanted: str | None) -> Json:
    """The data source that is meant: by uid, by name, or the only or default Prometheus. Raises ConfigError."""
    kind = [source for source in sources if source["type"] == _PROMETHEUS]
    listed = ", ".join(f"{source['uid']} ({source['name']})" for source in kind) or "none"
    if wanted is not None:
        for field in ("uid", "name"):
            for source in sources:
                if source[field] == wanted:
                    if source["type"] != _PROMETHEUS:
                        raise ConfigError(f"--datasource: {wanted} is of type {source['type']}, not {_PROMETHEUS}")
                    return source
        raise ConfigError(f"--datasource: Grafana has no {wanted!r}; of type {_PROMETHEUS} it has {listed}")
    default = [source for source in kind if source.get("isDefault")] if len(kind) > 1 else kind
    if len(default) != 1:
        raise ConfigError(f"--datasource: which one? Of type {_PROMETHEUS} Grafana has {listed}")
    return default[0]


def plan(grafana: Grafana, wish: Wish, source: Json, pause: Callable[[float], None]) -> list[Step]:
    """Every thing, and what is to be done about it. Writes nothing.

    Raises ConfigError if something must not be touched, or alerts would page twice; Unavailable.
    """
    if wish.alerts and patiently(lambda: grafana.query(source["uid"], _ALWAYS_FIRING), pause):
        raise ConfigError(
            f"--alerts: the data source {source['name']} evaluates these alerts already, and both would page: give it "
            "the rules of `rules --no-alerts`, or leave --alerts out"
        )
    steps = []
    for thing in _things(grafana, wish, source):
        before, after = patiently(thing.look, pause)
        action: Action = "create" if before is None else "unchanged" if before == after else "change"
        steps.append(Step(thing, action, before, after))
    for thing in patiently(lambda: list(_leftovers(grafana, wish)), pause):
        try:
            before, after = patiently(thing.look, pause)
        except Forbidden:
            # Who provisions dashboards alone need not have a right to alerting.
            if wish.prune:
                raise
            continue
        if before is not None:
            steps.append(Step(thing, "delete" if wish.prune else "left", before, after))
    return steps


def carry_out(step: Step, pause: Callable[[float], None]) -> None:
    """Do what a step says, unless somebody has meanwhile. Raises ConfigError and Unavailable."""

    def once() -> None:
        before, after = step.thing.look()
        if before != after:
            step.thing.write()

    if step.writes:
        patiently(once, pause)


def _things(grafana: Grafana, wish: Wish, source: Json) -> Iterator[Thing]:
    """In the order in which they need each other; alerts come last, when it is said where they go."""
    settings = wish.settings
    yield Folder(grafana, wish.folder)
    for uid in DASHBOARDS:
        document = json.loads(dashboard(uid, settings))
        for variable in document["templating"]["list"]:
            if variable["type"] == "datasource":
                variable["current"] = {"text": source["name"], "value": source["uid"], "selected": True}
        yield Dashboard(grafana, document)
    if wish.alerts:
        group = rule_group(settings, FOLDER, source["uid"])
        if wish.key is not None:
            yield ContactPoint(grafana, contact_point(settings, wish.key), wish.editable, wish.new_key)
            yield Policy(grafana, policy(settings, group))
        yield Rules(grafana, group, wish.editable)


def _leftovers(grafana: Grafana, wish: Wish) -> Iterator[Thing]:
    """What earlier runs may have made and this wish has no place for; alerts first, then what leads to where."""
    group = GROUP if wish.alerts else None

    def rules() -> list[Json]:
        # Those in the group that is wanted go when the group is replaced.
        ours = (rule for rule in grafana.rules() if _made_by_us(rule, OWN))
        return [rule for rule in ours if (rule["folderUID"], rule["ruleGroup"]) != (FOLDER, group)]

    def delete_rules() -> None:
        for rule in rules():
            grafana.delete_rule(rule["uid"])

    def point() -> list[str]:
        return [one["name"] for one in grafana.contact_points() if _made_by_us(one, CONTACT_POINT)]

    yield Leftover(
        "alert rules of earlier runs, which Grafana evaluates",
        lambda: [rule["title"] for rule in rules()] or None,
        delete_rules,
    )
    if not wish.alerts or wish.key is None:
        yield Policy(grafana, None)
        yield Leftover(
            f"contact point {NAME!r}",
            lambda: point() or None,
            lambda: grafana.delete_contact_point(CONTACT_POINT),
        )
    for hit in grafana.dashboards(FOLDER):
        if hit["uid"] not in DASHBOARDS:
            yield _old_dashboard(grafana, hit)


def _old_dashboard(grafana: Grafana, hit: Json) -> Leftover:
    uid, title = hit["uid"], hit["title"]
    return Leftover(
        f"dashboard {title!r}",
        lambda: {"uid": uid, "title": title} if is_ours(grafana.last_change(uid)) else None,
        lambda: grafana.delete_dashboard(uid),
    )


def _made_by_us(thing: Json, uid: str) -> bool:
    """Whether it has our uid, or one that begins so, and was not provisioned from a file."""
    return thing["uid"].startswith(uid) and thing.get("provenance", "") in ("", "api")


def _lines(value: Any) -> Any:
    """The same with texts of several lines as lists of lines, so that a difference shows where it is."""
    if isinstance(value, Mapping):
        return {name: _lines(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_lines(one) for one in value]
    return value.splitlines() if isinstance(value, str) and "\n" in value else value
