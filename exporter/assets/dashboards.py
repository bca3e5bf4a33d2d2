"""Dashboards as Grafana loads them: one for each question, from the fleet down to a feature.

Uids are those that alerts name. Nothing in them is edited by hand: the next release would lose it.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from exporter.assets.canary_panels import canary_panels
from exporter.assets.exporter_panels import exporter_panels
from exporter.assets.feature_panels import feature_panels
from exporter.assets.fleet_panels import fleet_panels
from exporter.assets.model_panels import model_panels
from exporter.assets.panels import DATASOURCE, Panel, View, placed
from exporter.catalog import metrics
from exporter.catalog.labels import FEATURE, KIND, MODEL, QUALITY_METRIC, SOURCE, VERSION
from exporter.catalog.metric import Label, Metric
from exporter.catalog.rules import INSTANCE, JOB, STEP, Settings

_SCHEMA = 39
"""That of Grafana 10.4: older ones ignore what they do not know, newer ones migrate it."""
_TAG = "model-health"
_VERSIONS = ((MODEL, metrics.REPLICA_INFO), (VERSION, metrics.REPLICA_INFO))


@dataclass(frozen=True, slots=True)
class _Dashboard:
    """`variables` are labels with the cheap series that has their values, `one` those of which it shows one at a time.

    `events` are the labels by whose variables versions and references are chosen that are marked in graphs.
    """

    title: str
    description: str
    panels: Callable[[View], tuple[Panel, ...]]
    variables: tuple[tuple[Label, Metric], ...]
    one: tuple[Label, ...] = ()
    windows: bool = True
    events: tuple[Label, ...] = (MODEL,)


DASHBOARDS: Mapping[str, _Dashboard] = {
    "model-health-fleet": _Dashboard(
        "Model health / Fleet",
        "Which models need a look? Click a version for its health.",
        fleet_panels,
        _VERSIONS[:1],
    ),
    "model-health": _Dashboard(
        "Model health / Model",
        "Is this model served, right, and asked what it was trained for? Click a feature for its bins.",
        model_panels,
        (*_VERSIONS, (QUALITY_METRIC, metrics.QUALITY_BASELINE)),
        one=(MODEL,),
        events=(MODEL, VERSION),
    ),
    "model-health-feature": _Dashboard(
        "Model health / Feature",
        "How does this feature differ from its reference, since when, and is it the data's fault?",
        feature_panels,
        (*_VERSIONS, (KIND, metrics.DRIFT_THRESHOLD), (FEATURE, metrics.DRIFT_THRESHOLD)),
        one=(MODEL, VERSION, FEATURE),
        events=(MODEL, VERSION),
    ),
    "model-health-canary": _Dashboard(
        "Model health / Canary",
        "Is the canary worse than the primary, and could that be chance? Roles are those of `info.role`.",
        canary_panels,
        _VERSIONS[:1],
        one=(MODEL,),
    ),
    "model-health-exporter": _Dashboard(
        "Model health / Exporter",
        "Does the exporter see everything, in time, and would it survive a crash?",
        exporter_panels,
        ((JOB, metrics.BUILD_INFO), (INSTANCE, metrics.BUILD_INFO), (SOURCE, metrics.INGEST_READY)),
        windows=False,
        events=(),
    ),
}
"""Every dashboard, by uid."""


def dashboard(uid: str, settings: Settings) -> str:
    """The JSON of a dashboard, for a file or `POST /api/dashboards/db` of Grafana 9 or newer. Raises KeyError."""
    board = DASHBOARDS[uid]
    view = View(settings, frozenset(label.name for label in board.one))
    document = {
        "id": None,
        "uid": uid,
        "title": board.title,
        "description": board.description,
        "tags": [_TAG],
        "schemaVersion": _SCHEMA,
        "editable": False,
        "graphTooltip": 1,
        # What is recorded changes every two minutes; a screen on a wall sets its own refresh.
        "refresh": "",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": _variables(board, view)},
        "annotations": {"list": _annotations(board, view)},
        "links": [
            {
                "type": "dashboards",
                "title": "Model health",
                "tags": [_TAG],
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
                "icon": "external link",
                "tooltip": "",
                "url": "",
            }
        ],
        "panels": placed(board.panels(view), settings),
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _variables(board: _Dashboard, view: View) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {
            "name": "datasource",
            "label": "Data source",
            "type": "datasource",
            "query": "prometheus",
            "refresh": 1,
            "multi": False,
            "includeAll": False,
        }
    ]
    first = board.variables[0][1]
    before: list[str] = []
    for name, metric in (
        *((target, first) for target in view.settings.targets),
        *((label.name, metric) for label, metric in board.variables),
    ):
        # Each offers what goes with those before it.
        chosen = ",".join(view.matcher(name) for name in before)
        values = f"label_values({metric.name}{chosen and f'{{{chosen}}}'}, {name})"
        found.append(_choice(name, values, one=name in view.one))
        before.append(name)
    if board.windows:
        texts = [window.text for window in view.settings.windows]
        found.append(
            {
                "name": "window",
                "label": "Window",
                "type": "custom",
                "query": ",".join(texts),
                "current": {"text": texts[0], "value": texts[0], "selected": True},
                "options": [{"text": text, "value": text, "selected": text == texts[0]} for text in texts],
                "multi": False,
                "includeAll": False,
            }
        )
    return found


def _choice(name: str, values: str, *, one: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": DATASOURCE,
        "definition": values,
        "query": {"query": values, "refId": name},
        # Versions come and go: asked again whenever the time changes.
        "refresh": 2,
        "sort": 1,
        "multi": not one,
        "includeAll": not one,
    }
    # `.*` is true of series without the label too: not every target has a namespace.
    return found if one else found | {"allValue": ".*", "current": {"text": ["All"], "value": ["$__all"]}}


def _annotations(board: _Dashboard, view: View) -> list[dict[str, Any]]:
    if not board.events:
        return []
    by = view.settings.by(MODEL, VERSION)
    seen, built = (
        f"max by ({by}) ({metric.name}{view.where(*board.events)})"
        for metric in (metrics.REPLICA_INFO, metrics.REFERENCE_CREATED_TIMESTAMP)
    )

    def before(expr: str) -> str:
        # What was known last, however long nothing was scraped: neither a gap nor another pod is a deployment.
        return f"last_over_time({expr}[1d:1m] offset {STEP})"

    return [
        _annotation("New versions", f"{seen}\nunless\n{before(seen)}", "Seen first, or again after a day", "blue"),
        _annotation("New references", f"{built}\n!=\n{before(built)}", "Compared with another reference", "purple"),
    ]


def _annotation(name: str, expr: str, text: str, colour: str) -> dict[str, Any]:
    return {
        "name": name,
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": colour,
        "expr": expr,
        "step": "60s",
        "titleFormat": "{{model}} {{version}}",
        "textFormat": text,
        "tagKeys": "model,version",
    }
