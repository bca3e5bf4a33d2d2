"""Whom Alertmanager tells: PagerDuty's Events API v2 as strict as it is documented, and any webhook; on loopback."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.loopback import Asked, Told, listening

ROUTING_KEY = "0123456789abcdef0123456789abcdef"
PAGER = "/v2/enqueue"

_KNOWN = {"routing_key", "event_action", "dedup_key", "payload", "images", "links", "client", "client_url"}
_PAYLOAD = {"summary", "source", "severity", "timestamp", "component", "group", "class", "custom_details"}
_LARGEST_BYTES = 512 * 1024


class Receivers:
    """What was received, in order: events that PagerDuty takes, those it refuses, with why, and webhooks by path."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.pages: list[dict[str, Any]] = []
        self.refused: list[tuple[str, bytes]] = []
        self.webhooks: dict[str, list[dict[str, Any]]] = {}

    def pages_of(self, model: str, action: str) -> list[dict[str, Any]]:
        """Events of an action for the incidents of a model."""
        keys = {page["dedup_key"] for page in self.pages if page.get("payload", {}).get("group") == model}
        return [page for page in self.pages if page["dedup_key"] in keys and page["event_action"] == action]

    def alerts(self, path: str) -> list[Mapping[str, str]]:
        """Labels of every alert that a webhook was told of while it fired."""
        told = [alert for message in self.webhooks.get(path, ()) for alert in message["alerts"]]
        return [alert["labels"] for alert in told if alert["status"] == "firing"]

    def take(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """The status and answer to a message."""
        if path != PAGER:
            self.webhooks.setdefault(path, []).append(json.loads(body))
            return 200, {}
        wrong = trouble(body)
        if wrong:
            self.refused.append((wrong, body))
            return 400, {"status": "invalid event", "message": "Event object is invalid", "errors": [wrong]}
        event = json.loads(body)
        self.pages.append(event)
        return 202, {"status": "success", "message": "Event processed", "dedup_key": event["dedup_key"]}


def trouble(body: bytes) -> str | None:
    """Why PagerDuty refuses an event; None if it takes it."""
    if len(body) > _LARGEST_BYTES:
        return f"{len(body)} bytes"
    try:
        event = json.loads(body)
    except ValueError as error:
        return f"not JSON: {error}"
    if event.get("routing_key") != ROUTING_KEY:
        return "routing_key"
    action, key = event.get("event_action"), event.get("dedup_key")
    if action not in ("trigger", "acknowledge", "resolve"):
        return f"event_action {action!r}"
    if not isinstance(key, str) or not 0 < len(key) <= 255:
        return f"dedup_key {key!r}"
    if event.keys() - _KNOWN:
        return f"unknown {event.keys() - _KNOWN}"
    return _payload_trouble(event) if action == "trigger" else None


def _payload_trouble(event: Mapping[str, Any]) -> str | None:
    payload = event.get("payload")
    if not isinstance(payload, dict) or payload.keys() - _PAYLOAD:
        return f"payload {payload!r}"
    for name, longest in (("summary", 1024), ("source", 255)):
        if not isinstance(payload.get(name), str) or not 0 < len(payload[name]) <= longest:
            return f"{name} {payload.get(name)!r}"
    if payload.get("severity") not in ("critical", "error", "warning", "info"):
        return f"severity {payload.get('severity')!r}"
    for link in event.get("links", ()):
        if not str(link.get("href", "")).startswith("http"):
            return f"link {link!r}"
    return None


@contextmanager
def receiving() -> Iterator[Receivers]:
    """Receivers that listen."""

    def told(asked: Asked) -> Told:
        status, answer = receivers.take(asked.path, asked.body)
        return Told(json.dumps(answer).encode(), status, {"content-type": "application/json"})

    with listening(told) as port:
        receivers = Receivers(port)
        yield receivers
