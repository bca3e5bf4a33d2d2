"""What this program makes in a Grafana, and how it knows its own: nothing else is ever written, or deleted.

Folder, rules and contact point are known by uids of ours. Anybody may save a dashboard under any uid, so those are
known by what was said when their newest version was saved: who wrote it, and a hash of what. Grafana may keep another
form of a dashboard than it was given, but it keeps that, and whatever anybody changes is a newer version.

Pages are routed by a policy of our own in the tree that belongs to everybody. The other way, a receiver in each rule,
leaves the tree alone, but must group by rule name, and one model in trouble would be as many incidents as it has
alerts. A tree is only ever written as a whole, though: it is read anew right before, all of it but our policy is sent
back as it came, and as locked or editable as it was. A change that somebody makes between these two requests is lost;
Grafana cannot tell.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from exporter.app.config import ConfigError
from exporter.app.grafana import REDACTED, Grafana, Json
from exporter.assets.grafana_paging import NAME
from exporter.assets.grafana_rules import OWN

FOLDER = "model-health"
_KEY = "integrationKey"
_AUTHOR = "model-health-exporter"
_NEW_KEY = "[the one of --pagerduty-key-file]"
_EXACT = frozenset({"labels", "annotations", "details"})
"""Fields whose keys are ours to choose: one more there is a change."""


class Thing(Protocol):
    """One object in a Grafana."""

    @property
    def name(self) -> str:
        """What people call it."""

    def look(self) -> tuple[Any, Any]:
        """What is there, and what should be, in a form that tells whether they differ; None: nothing.

        Raises ConfigError if it must not be touched.
        """

    def write(self) -> None:
        """Make what was there at the last look what it should be."""


@dataclass(slots=True)
class Folder:
    """The folder of dashboards and rules."""

    grafana: Grafana
    title: str
    _there: bool = False

    @property
    def name(self) -> str:
        """What people call it."""
        return f"folder {self.title!r}"

    def look(self) -> tuple[Any, Any]:
        """See `Thing`."""
        stored = self.grafana.folder(FOLDER)
        self._there = stored is not None
        return stored and {"uid": stored["uid"], "title": stored["title"]}, {"uid": FOLDER, "title": self.title}

    def write(self) -> None:
        """See `Thing`."""
        (self.grafana.rename_folder if self._there else self.grafana.create_folder)(FOLDER, self.title)


@dataclass(slots=True)
class Dashboard:
    """A dashboard, by its uid."""

    grafana: Grafana
    document: Json

    @property
    def name(self) -> str:
        """What people call it."""
        return f"dashboard {self.document['title']!r}"

    @property
    def change(self) -> str:
        """What is said when this very document is saved."""
        text = json.dumps(self.document, sort_keys=True, ensure_ascii=False)
        return f"{_AUTHOR} {hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def look(self) -> tuple[Any, Any]:
        """See `Thing`."""
        uid = self.document["uid"]
        wanted = {"folder": FOLDER, "change": self.change, "dashboard": _bare(self.document)}
        stored = self.grafana.dashboard(uid)
        if stored is None:
            for hit in self.grafana.dashboards(FOLDER):
                # Grafana up to 11 takes one of the same title in the same folder for the same, and overwrites it.
                if hit["title"] == self.document["title"]:
                    raise ConfigError(f"{self.name}: the folder has another of that title, {hit['uid']}: rename it")
            return None, wanted
        if stored["meta"].get("provisioned"):
            raise ConfigError(f"{self.name}: {uid} is provisioned from a file, which would win: remove it there first")
        folder = stored["meta"].get("folderUid", "")
        found = {"folder": folder, "change": self.grafana.last_change(uid), "dashboard": _bare(stored["dashboard"])}
        same = found["change"] == self.change or found["dashboard"] == wanted["dashboard"]
        return (wanted if same and folder == FOLDER else found), wanted

    def write(self) -> None:
        """See `Thing`."""
        self.grafana.save_dashboard(self.document, FOLDER, self.change)


@dataclass(slots=True)
class Rules:
    """The group of alert rules. It is ours as a whole: a rule that is no longer made goes with the next change."""

    grafana: Grafana
    group: Json
    editable: bool
    _uids: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """What people call it."""
        return f"alert rules {self.group['title']!r}"

    def look(self) -> tuple[Any, Any]:
        """See `Thing`."""
        stored = self.grafana.rule_group(FOLDER, self.group["title"])
        rules: list[Json] = [] if stored is None else stored["rules"]
        self._uids = frozenset(rule["uid"] for rule in rules)
        foreign = [rule["title"] for rule in rules if not rule["uid"].startswith(OWN)]
        if foreign:
            raise ConfigError(f"{self.name}: has rules of others, move them to another group: {', '.join(foreign)}")
        for rule in rules:
            _check_provenance(self.name, rule, editable=self.editable)
        provenance = _provenance(editable=self.editable)
        wanted = [_without(rule, "orgID") | {"provenance": provenance} for rule in self.group["rules"]]
        if stored is None or not rules:
            return None, _group(self.group, wanted)
        by_uid = {rule["uid"]: rule for rule in wanted}
        known = {"provenance"}.union(*rules)
        # Older Grafanas have no use for some fields, and do not keep them.
        wanted = [{name: value for name, value in rule.items() if name in known} for rule in wanted]
        found = [_seen({"provenance": ""} | rule, by_uid.get(rule["uid"], rule)) for rule in rules]
        return _group(stored, found), _group(self.group, wanted)

    def write(self) -> None:
        """See `Thing`. New rules come one by one: before 11.5.2 Grafana fails at groups with new uids."""
        for rule in self.group["rules"]:
            if rule["uid"] not in self._uids:
                self.grafana.create_rule(rule, editable=self.editable)
        self.grafana.replace_rule_group(self.group, editable=self.editable)


@dataclass(slots=True)
class ContactPoint:
    """Where pages go. Grafana never shows its key, so whether that is still the same cannot be seen."""

    grafana: Grafana
    point: Json
    editable: bool
    new_key: bool
    _there: bool = False

    @property
    def name(self) -> str:
        """What people call it."""
        return self._title + ("" if self.new_key or not self._there else " (its key is not compared)")

    @property
    def _title(self) -> str:
        return f"contact point {self.point['name']!r}"

    def look(self) -> tuple[Any, Any]:
        """See `Thing`."""
        points = self.grafana.contact_points()
        stored = next((point for point in points if point["uid"] == self.point["uid"]), None)
        self._there = stored is not None
        settings = self.point["settings"] | {_KEY: _NEW_KEY if self.new_key else REDACTED}
        wanted = self.point | {"settings": settings, "provenance": _provenance(editable=self.editable)}
        if stored is None:
            if any(point["name"] == self.point["name"] for point in points):
                raise ConfigError(f"{self._title}: there is another of that name, which would be paged too: rename it")
            return None, wanted
        _check_provenance(self._title, stored, editable=self.editable)
        return _seen({"provenance": "", "disableResolveMessage": False} | stored, wanted), wanted

    def write(self) -> None:
        """See `Thing`."""
        write = self.grafana.replace_contact_point if self._there else self.grafana.create_contact_point
        write(self.point, editable=self.editable)


@dataclass(slots=True)
class Policy:
    """Our policy among those of everybody; without `route` there should be none."""

    grafana: Grafana
    route: Json | None
    _tree: Json | None = None

    @property
    def name(self) -> str:
        """What people call it."""
        return f"notification policy to {NAME!r}"

    def look(self) -> tuple[Any, Any]:
        """See `Thing`."""
        self._tree = tree = self.grafana.policies()
        place = _place(tree)
        stored = None if place is None else tree["routes"][place]
        found = stored if stored is None or self.route is None else _seen(stored, self.route)
        if found != self.route and tree.get("provenance", "") not in ("", "api"):
            if self.route is None:
                return None, None  # whoever provisions all of them made this one too
            raise ConfigError(f"{self.name}: policies are provisioned by {tree['provenance']}: change them there")
        return found, self.route

    def write(self) -> None:
        """See `Thing`. A policy that is there keeps its place and what others set in it; a new one comes first."""
        assert self._tree is not None  # noqa: S101 - a look comes before
        tree = dict(self._tree)
        provenance = tree.pop("provenance", "")
        routes = list(tree.get("routes") or [])
        place = _place(tree)
        if place is None:
            routes.insert(0, self.route)
        elif self.route is None:
            del routes[place]
        else:
            routes[place] = routes[place] | self.route
        self.grafana.replace_policies(tree | {"routes": routes}, editable=not provenance)


@dataclass(slots=True)
class Leftover:
    """Something that an earlier run made and this one would not."""

    name: str
    find: Callable[[], Any]
    delete: Callable[[], None]

    def look(self) -> tuple[Any, Any]:
        """See `Thing`."""
        return self.find(), None

    def write(self) -> None:
        """See `Thing`."""
        self.delete()


def is_ours(change: str) -> bool:
    """Whether a version of a dashboard was saved by this program."""
    return change.startswith(f"{_AUTHOR} ")


def _place(tree: Json) -> int | None:
    """Where our policy is in a tree: the first to our contact point that asks for nothing but names of alerts."""
    for place, route in enumerate(tree.get("routes") or []):
        matchers = route.get("object_matchers") or []
        if route.get("receiver") == NAME and [one[:2] for one in matchers] == [["alertname", "=~"]]:
            return place
    return None


def _provenance(*, editable: bool) -> str:
    return "" if editable else "api"


def _check_provenance(name: str, stored: Json, *, editable: bool) -> None:
    """Refuse what Grafana would: what is locked stays locked, and belongs to who locked it."""
    provenance = stored.get("provenance", "")
    if provenance == "api" and editable:
        raise ConfigError(
            f"{name}: was made without --editable, and Grafana does not unlock it: leave --editable out, or delete it "
            "first, by a run with --prune and without --alerts"
        )
    if provenance not in ("", "api"):
        raise ConfigError(f"{name}: is provisioned by {provenance}: remove it there first")


def _group(group: Json, rules: list[Json]) -> Json:
    return {"title": group["title"], "interval": group["interval"], "rules": rules}


def _without(document: Json, *names: str) -> Json:
    return {name: value for name, value in document.items() if name not in names}


def _bare(document: Json) -> Json:
    """A dashboard without what Grafana numbers."""
    return _without(document, "id", "version")


def _seen(stored: Any, wanted: Any) -> Any:
    """Of what is stored, that which is also wanted: Grafana adds fields of its own everywhere."""
    if isinstance(stored, Mapping) and isinstance(wanted, Mapping):
        return {
            name: stored[name] if name in _EXACT else _seen(stored[name], wanted[name])
            for name in wanted
            if name in stored
        }
    if isinstance(stored, list) and isinstance(wanted, list) and len(stored) == len(wanted):
        return [_seen(one, other) for one, other in zip(stored, wanted, strict=True)]
    return stored
