"""Who is paged when Grafana evaluates the alerts itself: PagerDuty, an incident a model, as with Alertmanager.

Of Grafana's own: it has no links, so the runbook is a detail, and no inhibitions.
"""

from typing import Any

from exporter.assets.alertmanager import incident
from exporter.assets.grafana_rules import OWN
from exporter.catalog.labels import MODEL
from exporter.catalog.rules import Settings

CONTACT_POINT = f"{OWN}pagerduty"
"""Uid of the contact point."""
NAME = "Model health PagerDuty"
"""What the contact point is called, and policies lead to."""


def contact_point(settings: Settings, key: str) -> dict[str, Any]:
    """The body of `POST /api/v1/provisioning/contact-points` of Grafana 9.5 or newer; `key` is PagerDuty's."""
    told = incident(settings)
    summary = told.pop("description")
    details = told.pop("details") | {"runbook": "{{ (index .Alerts 0).Annotations.runbook_url }}"}
    return {
        "uid": CONTACT_POINT,
        "name": NAME,
        "type": "pagerduty",
        "settings": {"integrationKey": key, "summary": summary, **told, "details": details},
        "disableResolveMessage": False,
    }


def policy(settings: Settings, group: dict[str, Any]) -> dict[str, Any]:
    """A notification policy to that contact point, for the alerts of a rule group that page and for no others."""
    pages = [rule["title"] for rule in group["rules"] if rule["labels"]["severity"] == "critical"]
    return {
        "receiver": NAME,
        "object_matchers": [["alertname", "=~", "|".join(pages)]],
        "group_by": [*settings.targets, MODEL.name],
        "group_wait": "30s",
        "repeat_interval": "4h",
    }
