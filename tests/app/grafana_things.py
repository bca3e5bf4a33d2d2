"""What people put into a Grafana, as `GrafanaContent` keeps it."""

from typing import Any

Json = dict[str, Any]


def source(uid: str, name: str, *, kind: str = "prometheus", default: bool = False) -> Json:
    return {"uid": uid, "name": name, "type": kind, "isDefault": default}


def folder(uid: str, title: str) -> Json:
    return {"uid": uid, "title": title, "id": 1, "version": 1}


def board(title: str, *, inside: str = "", message: str = "", provisioned: bool = False) -> Json:
    """A dashboard that somebody saved."""
    versions = [{"version": 1, "message": message}]
    document = {"title": title, "panels": []}
    return {"id": 1, "versions": versions, "provisioned": provisioned, "dashboard": document, "folder": inside}


def point(uid: str, name: str, kind: str, settings: Json, provenance: str = "") -> Json:
    return {
        "uid": uid,
        "name": name,
        "type": kind,
        "settings": settings,
        "disableResolveMessage": False,
        "provenance": provenance,
    }


def rule(uid: str, title: str, place: tuple[str, str], provenance: str = "") -> Json:
    """An alert rule that somebody made."""
    return {
        "uid": uid,
        "title": title,
        "folderUID": place[0],
        "ruleGroup": place[1],
        "orgID": 1,
        "condition": "A",
        "data": [{"refId": "A", "datasourceUid": "prom", "model": {"expr": "up == 0"}}],
        "noDataState": "OK",
        "execErrState": "Error",
        "for": "5m",
        "labels": {},
        "provenance": provenance,
    }
