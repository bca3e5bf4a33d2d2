"""What a fake Grafana keeps and answers: stricter than a real one.

Each request and each answer is held to `grafana_openapi`; what breaks that is kept in `broken` and refused. How it
behaves beyond that (provenance, redaction, whole groups, what refers to what) is as read in the files of
grafana/grafana that the methods name.
"""

import copy
import re
from collections.abc import Mapping
from typing import Any

import jsonschema

from tests.app.grafana_openapi import OPERATIONS, UNDESCRIBED
from tests.app.grafana_things import Json, folder, point, source

TOKEN = "glsa_token-of-a-test"  # noqa: S105
REDACTED = "[REDACTED]"
UID = re.compile(r"[a-zA-Z0-9_-]{1,40}")


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class GrafanaContent:
    """What is in it, as attributes: tests may put anything there, as its users do."""

    def __init__(self, version: str = "12.1.0") -> None:
        self.version = version
        self.token = TOKEN
        self.forbidden: set[str] = set()
        self.organisations: set[str | None] = set()
        self.datasources = [source("prom", "Prometheus", default=True), source("logs", "Loki", kind="loki")]
        self.firing: list[Json] = []
        self.folders: dict[str, Json] = {}
        self.dashboards: dict[str, Json] = {}
        self.groups: dict[tuple[str, str], Json] = {}
        self.points: list[Json] = [point("email-1", "email", "email", {"addresses": "a@example.com"})]
        self.tree: Json = {"receiver": "email", "group_by": ["grafana_folder", "alertname"]}
        self.writes: list[tuple[str, str]] = []
        self.broken: list[str] = []
        self._numbers = iter(range(1, 1_000_000))

    @property
    def content(self) -> Json:
        """All that it holds, to be compared."""
        return copy.deepcopy(
            {
                "folders": self.folders,
                "dashboards": self.dashboards,
                "groups": {f"{folder}/{title}": group for (folder, title), group in self.groups.items()},
                "points": self.points,
                "tree": self.tree,
            }
        )

    @property
    def old(self) -> bool:
        """Before 11.5.2 a group with new rules that have uids is an error (grafana/grafana#98283)."""
        return tuple(map(int, self.version.split("."))) < (11, 5, 2)

    def answer(
        self, method: str, path: str, query: Mapping[str, list[str]], headers: Any, body: Any
    ) -> tuple[int, Any]:
        """The answer to a request, after both were held to the description."""
        found = _operation(method, path)
        if found is None:
            self.broken.append(f"{method} {path} is no operation")
            return 404, {"message": "Not found"}
        template, values = found
        operation = OPERATIONS[method, template]
        wrong = sorted(set(query) - operation.parameters)
        wrong += [] if operation.body is not None or body is None else ["a body"]
        wrong += [] if operation.body is None else _wrong(body, operation.body)
        if wrong:
            self.broken.append(f"{method} {path}: {wrong}")
            return 400, {"message": "bad request data"}
        try:
            status, told = self._do(method, template, values, query, headers, body)
        except Refused as refused:
            status, told = refused.status, {"message": refused.message}
        extra = UNDESCRIBED if template.startswith("/v1/provisioning") else frozenset()
        if status not in operation.answers and status not in extra:
            self.broken.append(f"{method} {path}: answers {status}")
        schema = operation.answers.get(status)
        listed = isinstance(told, list) and template.endswith("/versions")  # as before Grafana 11
        if schema is not None and not listed:
            self.broken += [f"{method} {path}: answers {one}" for one in _wrong(told, schema)]
        if method != "GET" and status < 300:
            self.writes.append((method, path))
        return status, told

    def _do(
        self,
        method: str,
        template: str,
        values: tuple[str, ...],
        query: Mapping[str, list[str]],
        headers: Any,
        body: Any,
    ) -> tuple[int, Any]:
        if template == "/health":
            return 200, {"database": "ok", "version": self.version, "commit": "0"}
        if headers.get("authorization") != f"Bearer {self.token}":
            raise Refused(401, "Invalid API key")
        self.organisations.add(headers.get("x-grafana-org-id"))
        if any(template.startswith(one) for one in self.forbidden):
            raise Refused(403, "You'll need additional permissions to perform this action")
        # The header counts, whatever it says (determineProvenance).
        provenance = "" if headers.get("x-disable-provenance") is not None else "api"
        body = copy.deepcopy(body)
        kind = template.removeprefix("/v1/provisioning").split("/")[1]
        if kind == "datasources":
            return 200, self._datasources(template, values, query)
        if kind == "folders":
            return self._folders(method, values, body)
        if kind == "search":
            return 200, self._search(query)
        if kind == "dashboards":
            return self._dashboards(method, template, values, body)
        if kind == "contact-points":
            return self._contact_points(method, values, body, provenance)
        if kind == "policies":
            return self._policies(method, body, provenance)
        return self._rules(method, values, body, provenance)

    def _datasources(self, template: str, values: tuple[str, ...], query: Mapping[str, list[str]]) -> Any:
        if template == "/datasources":
            return self.datasources
        if not any(one["uid"] == values[0] for one in self.datasources):
            raise Refused(404, "Unable to find datasource")
        assert values[1] == "api/v1/query"
        result = self.firing if query["query"] == ['ALERTS{alertname="MLWatchdog"}'] else []
        return {"status": "success", "data": {"resultType": "vector", "result": result}}

    def _folders(self, method: str, values: tuple[str, ...], body: Any) -> tuple[int, Any]:
        if method == "POST":
            _check_uid(body["uid"])
            if body["uid"] in self.folders:
                raise Refused(409, "a folder/dashboard with the same uid already exists")
            if any(one["title"] == body["title"] for one in self.folders.values()):
                raise Refused(409, "a folder with the same name already exists in the current location")
            self.folders[body["uid"]] = folder(body["uid"], body["title"])
            return 200, self.folders[body["uid"]]
        found = self.folders.get(values[0])
        if found is None:
            raise Refused(404, "folder not found")
        if method == "PUT":
            found |= {"title": body["title"], "version": found["version"] + 1}
        return 200, found

    def _search(self, query: Mapping[str, list[str]]) -> list[Json]:
        wanted = query.get("folderUIDs")
        return [
            {"uid": uid, "title": one["dashboard"]["title"], "type": "dash-db", "folderUid": one["folder"], "tags": []}
            for uid, one in self.dashboards.items()
            if wanted is None or one["folder"] in wanted
        ]

    def _dashboards(self, method: str, template: str, values: tuple[str, ...], body: Any) -> tuple[int, Any]:
        if method == "POST":
            return 200, self._save(body)
        found = self.dashboards.get(values[0])
        if found is None:
            raise Refused(404, "Dashboard not found")
        if method == "DELETE":
            del self.dashboards[values[0]]
            return 200, {"message": "deleted", "title": found["dashboard"]["title"], "uid": values[0]}
        if template.endswith("/versions"):
            versions = found["versions"][::-1]
            return 200, versions if self.old else {"versions": versions}
        number = found["versions"][-1]["version"]
        document = found["dashboard"] | {"id": found["id"], "version": number}
        if self.version >= "13":  # there dashboards are migrated when they are read
            document |= {"schemaVersion": 42, "preload": False}
        return 200, {
            "dashboard": document,
            "meta": {"folderUid": found["folder"], "version": number, "provisioned": found["provisioned"]},
        }

    def _save(self, body: Json) -> Json:
        document = body["dashboard"]
        uid = document["uid"]
        _check_uid(uid)
        if len(body.get("message", "")) > 500:
            raise Refused(400, "message too long, max 500 characters")
        if document["id"] is not None and uid not in self.dashboards:
            raise Refused(404, "Dashboard not found")
        if body.get("folderUid", "") and body["folderUid"] not in self.folders:
            raise Refused(404, "Folder not found")
        found = self.dashboards.get(uid)
        if found is None:
            self._take_for_the_same(document["title"], body)
            found = self.dashboards[uid] = {"id": next(self._numbers), "versions": [], "provisioned": False}
        elif found["provisioned"]:
            raise Refused(400, "Cannot save provisioned dashboard")
        elif not body.get("overwrite") and document.get("version") != found["versions"][-1]["version"]:
            raise Refused(412, "The dashboard has been changed by someone else")
        number = len(found["versions"]) + 1
        found["versions"].append({"version": number, "message": body.get("message", ""), "uid": uid})
        # Without a folder it moves to the root.
        found |= {"dashboard": document, "folder": body.get("folderUid", "")}
        return {
            "id": found["id"],
            "status": "success",
            "title": document["title"],
            "uid": uid,
            "url": "/d",
            "version": number,
        }

    def _take_for_the_same(self, title: str, body: Json) -> None:
        """What Grafana did up to 11: of two with one title in one folder, the new one takes the place of the other."""
        for uid, one in list(self.dashboards.items()):
            if self.old and (one["dashboard"]["title"], one["folder"]) == (title, body.get("folderUid", "")):
                if not body.get("overwrite"):
                    raise Refused(412, "A dashboard with the same name in the folder already exists")
                del self.dashboards[uid]

    def _rules(self, method: str, values: tuple[str, ...], body: Any, provenance: str) -> tuple[int, Any]:
        every = {rule["uid"]: (place, rule) for place, group in self.groups.items() for rule in group["rules"]}
        if method == "POST":
            if body["uid"] in every:
                raise Refused(400, "rule with this uid exists already")
            place = (body["folderUID"], body["ruleGroup"])
            group = self.groups.setdefault(place, {"interval": 60, "rules": []})
            try:
                group["rules"].append(self._rule(body, place, provenance))
            except Refused:
                self._forget_empty()
                raise
            return 201, _told(group["rules"][-1])
        if len(values) == 2:
            return 200, self._group(method, (values[0], values[1]), body, provenance, every)
        if method == "DELETE":
            if values[0] in every:
                place, rule = every[values[0]]
                self.groups[place]["rules"].remove(rule)
                self._forget_empty()
            return 204, None
        return 200, [_told(rule) for _, rule in every.values()]

    def _group(self, method: str, place: tuple[str, str], body: Any, provenance: str, every: Mapping[str, Any]) -> Json:
        found = self.groups.get(place)
        if method == "GET":
            if found is None:
                raise Refused(404, "alert rule group not found")
            rules = [_told(rule) for rule in found["rules"]]
            return {"title": place[1], "folderUid": place[0], "interval": found["interval"], "rules": rules}
        if self.old and any(rule["uid"] not in every for rule in body["rules"]):
            raise Refused(500, "could not find rule uid in the group")
        for rule in body["rules"]:
            stored = every.get(rule["uid"], (None, {"provenance": provenance}))[1]
            # pkg/services/ngalert/provisioning/validation/provenance.go, before it may be reset
            if stored["provenance"] not in ("", provenance):
                raise Refused(500, f"cannot change provenance from '{stored['provenance']}' to '{provenance}'")
        for stored in (found or {"rules": []})["rules"]:
            if stored["provenance"] not in ("", provenance):
                raise Refused(500, f"cannot delete with provenance '{provenance}'")
        rules = [self._rule(rule, place, provenance) for rule in body["rules"]]
        self.groups[place] = {"interval": body["interval"], "rules": rules}
        return body

    def _rule(self, rule: Json, place: tuple[str, str], provenance: str) -> Json:
        _check_uid(rule["uid"])
        if place[0] not in self.folders:
            raise Refused(400, "folder does not exist")
        known = {one["uid"] for one in self.datasources} | {"__expr__"}
        if any(node["datasourceUid"] not in known for node in rule["data"]):
            raise Refused(400, "data source not found")
        if rule["condition"] not in {node["refId"] for node in rule["data"]}:
            raise Refused(400, "condition does not exist")
        return rule | {"provenance": provenance, "id": next(self._numbers), "orgID": 1}

    def _forget_empty(self) -> None:
        self.groups = {place: group for place, group in self.groups.items() if group["rules"]}

    def _contact_points(self, method: str, values: tuple[str, ...], body: Any, provenance: str) -> tuple[int, Any]:
        """See pkg/services/ngalert/provisioning/contactpoints.go."""
        if method == "GET":
            return 200, [_redacted(one) for one in self.points]
        if method == "POST":
            if any(one["uid"] == body["uid"] for one in self.points):
                raise Refused(500, "receiver configuration with this uid exists already")
            self._check_point(body)
            self.points.append(body | {"provenance": provenance})
            return 202, _redacted(self.points[-1])
        found = next((one for one in self.points if one["uid"] == values[0]), None)
        if found is None:
            raise Refused(404, "contact point not found")
        if method == "DELETE":
            alone = sum(one["name"] == found["name"] for one in self.points) == 1
            if alone and found["name"] in _receivers(self.tree):
                raise Refused(409, "contact point is currently used by a notification policy")
            self.points.remove(found)
            return 202, {"message": "contactpoint deleted"}
        if found["provenance"] not in ("", provenance):
            raise Refused(500, f"cannot change provenance from '{found['provenance']}' to '{provenance}'")
        if body["settings"].get("integrationKey") == REDACTED:
            body["settings"]["integrationKey"] = found["settings"]["integrationKey"]
        self._check_point(body)
        found |= body | {"provenance": provenance}
        return 202, {"message": "contactpoint updated"}

    def _check_point(self, one: Json) -> None:
        if one["type"] == "pagerduty":
            if not one["settings"].get("integrationKey"):
                raise Refused(400, "could not find integration key property in settings")
            if not all(isinstance(value, str) for value in one["settings"].get("details", {}).values()):
                raise Refused(400, "failed to unmarshal settings")

    def _policies(self, method: str, body: Any, provenance: str) -> tuple[int, Any]:
        """See ValidateProvenanceRelaxed in pkg/services/ngalert/provisioning/validation/provenance.go."""
        if method == "GET":
            return 200, self.tree
        stored = self.tree.get("provenance", "")
        if stored and not provenance:
            raise Refused(409, f"cannot change provenance from '{stored}' to ''")
        if not body.get("receiver") or body.get("object_matchers"):
            raise Refused(400, "root route must specify a default receiver and no matchers")
        for receiver in _receivers(body):
            if receiver not in {one["name"] for one in self.points}:
                raise Refused(400, f"receiver '{receiver}' does not exist")
        body.pop("provenance", None)
        self.tree = body | ({"provenance": provenance} if provenance else {})
        return 202, {"message": "policies updated"}


def _operation(method: str, path: str) -> tuple[str, tuple[str, ...]] | None:
    for known, template in OPERATIONS:
        # Of the path behind a data source nothing is said.
        pattern = re.sub(r"\{(\w+)\}", lambda one: "(.+)" if one[1].endswith("route") else "([^/]+)", template)
        found = re.fullmatch(pattern, path)
        if known == method and found is not None:
            return template, found.groups()
    return None


def _wrong(value: Any, schema: Json) -> list[str]:
    return [error.message[:200] for error in jsonschema.Draft202012Validator(schema).iter_errors(value)]


def _check_uid(uid: str) -> None:
    if not UID.fullmatch(uid):
        raise Refused(400, "uid contains illegal characters or is longer than 40")


def _told(one: Json) -> Json:
    """A rule as Grafana gives it back: with numbers of its own, and with what it adds to queries."""
    data = [
        node | {"model": {"intervalMs": 1000, "maxDataPoints": 43200} | node["model"], "queryType": ""}
        for node in one["data"]
    ]
    told = one | {"data": data, "updated": "2026-11-26T12:00:00Z", "notification_settings": None, "record": None}
    return told if told["provenance"] else {name: value for name, value in told.items() if name != "provenance"}


def _redacted(one: Json) -> Json:
    settings = one["settings"]
    if "integrationKey" in settings:
        settings = settings | {"integrationKey": REDACTED}
    told = one | {"settings": settings}
    return told if told["provenance"] else {name: value for name, value in told.items() if name != "provenance"}


def _receivers(route: Json) -> set[str]:
    found = {route["receiver"]} if route.get("receiver") else set()
    return found.union(*(_receivers(one) for one in route.get("routes") or []))
