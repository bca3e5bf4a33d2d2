"""Alerts as Grafana evaluates them itself, instead of Prometheus: never run both, they page twice.

The conversion is that of Grafana for rules of Prometheus: an instant query, true where there is a value. The recording
rules stay with Prometheus.
"""

import json
from typing import Any

from exporter.assets.rules import alert_labels, all_groups, annotations
from exporter.catalog.rules import Alert, Settings

OWN = "model-health-"
"""What the uids of all rules begin with: no other rule of a Grafana is taken for one of these."""
_EXPRESSIONS = "__expr__"
_THERE = "is_number($query) || is_nan($query) || is_inf($query)"
_MINUTE = 60


def grafana(settings: Settings, folder: str = "model-health", datasource: str = "prometheus") -> str:
    """The JSON of a group, for `PUT /api/v1/provisioning/folder/{folder}/rule-groups/{title}` of Grafana 11.5.2."""
    return json.dumps(rule_group(settings, folder, datasource), indent=1, ensure_ascii=False) + "\n"


def rule_group(settings: Settings, folder: str, datasource: str) -> dict[str, Any]:
    """The rule group; `folder` and `datasource` are uids."""
    *_, group = all_groups(settings)
    rules = [_rule(rule, settings, group.name, folder, datasource) for rule in group.rules if isinstance(rule, Alert)]
    return {"title": group.name, "folderUid": folder, "interval": _MINUTE, "rules": rules}


def _rule(alert: Alert, settings: Settings, group: str, folder: str, datasource: str) -> dict[str, Any]:
    # Titles and uids are unique; burn alerts differ in their window only.
    window = alert.extra.get("window", "")
    return {
        "uid": f"{OWN}{alert.name.lower()}{window and f'-{window}'}",
        "title": f"{alert.name}{window and f' {window}'}",
        "ruleGroup": group,
        "folderUID": folder,
        "orgID": 1,
        "condition": "threshold",
        "data": [
            _node("query", datasource, {"expr": alert.expr, "instant": True, "range": False}),
            _node("value", _EXPRESSIONS, {"type": "math", "expression": _THERE}),
            _node(
                "threshold",
                _EXPRESSIONS,
                {
                    "type": "threshold",
                    "expression": "value",
                    "conditions": [{"evaluator": {"type": "gt", "params": [0]}}],
                },
            ),
        ],
        # No data is what a condition that does not hold looks like.
        "noDataState": "OK",
        "execErrState": "Error",
        "for": alert.pending or "0s",
        "keep_firing_for": alert.keep or "0s",
        "missingSeriesEvalsToResolve": 1,
        "labels": alert_labels(alert),
        "annotations": {name: _template(text) for name, text in annotations(alert, settings).items()},
        "isPaused": False,
    }


def _node(name: str, datasource: str, model: dict[str, Any]) -> dict[str, Any]:
    return {
        "refId": name,
        "datasourceUid": datasource,
        "relativeTimeRange": {"from": 10 * _MINUTE, "to": 0},
        "model": {"refId": name, **model},
    }


def _template(text: str) -> str:
    """Where Prometheus has one value, Grafana has those of all queries."""
    return text.replace("$value", "$values.query.Value")
