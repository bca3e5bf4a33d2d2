"""Panels of dashboards as data. Each answers a question, and its description says how to read the answer.

Limits are series beside those that must keep them, dashed, so that a threshold changed in a configuration moves its
line. The JSON is Grafana's classic schema, which Grafana 9 to 13 read.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, NamedTuple

from exporter.catalog import metrics
from exporter.catalog.labels import MODEL, THRESHOLD
from exporter.catalog.metric import Label
from exporter.catalog.rules import Settings
from exporter.catalog.thresholds import Default

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
"""The data source that a person picks on top of the dashboard."""
RATE = "$__rate_interval"
"""Range for rates of raw counters: at least four scrapes, at least a step of the graph."""
RANGE = "$__range"
"""The time that is shown."""
_LIMIT = (
    ("custom.lineStyle", {"fill": "dash", "dash": [8, 8]}),
    ("custom.fillOpacity", 0),
    ("color", {"mode": "fixed", "fixedColor": "red"}),
)


class Query(NamedTuple):
    """An expression, and its legend, or the title of its column. `limit` draws it dashed; `unit` if the panel's not."""

    expr: str
    legend: str
    limit: bool = False
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel without its place: its JSON, its width of 24 columns, and alerts to whose runbooks it links."""

    body: Mapping[str, Any]
    width: int
    height: int
    alerts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """What panels are made for: a place where rules run, and labels of which one value is shown at a time."""

    settings: Settings
    one: frozenset[str] = frozenset()

    def matcher(self, label: str) -> str:
        """A label is what its variable is set to. Grafana escapes only what may be several for a regular expression."""
        return f'{label}="${label}"' if label in self.one else f'{label}=~"${label}"'

    def where(self, *labels: Label, more: str = "") -> str:
        """The matchers of a selector: those of the target, and of these labels."""
        matchers = [self.matcher(name) for name in (*self.settings.targets, *(label.name for label in labels))]
        return "{" + ",".join(matchers + ([more] if more else [])) + "}"

    def threshold(self, default: Default) -> str:
        """One of ALERT_THRESHOLDS of each model that is shown."""
        where = self.where(MODEL, more=f'{THRESHOLD.name}="{default.name}"')
        return f"max by ({self.settings.by(MODEL)}) ({metrics.ALERT_THRESHOLD.name}{where})"

    def shown(self, record: str) -> str:
        """A record of the first window as that of the window that a person picks."""
        return record.removesuffix(self.settings.windows[0].text) + "$window"


def drill(title: str, uid: str, labels: Iterable[str], value: str = "${{__field.labels.{}}}") -> dict[str, str]:
    """A link to another dashboard at the same time, with its variables set to labels of what was clicked."""
    variables = "".join(f"&var-{label}={value.format(label)}" for label in labels)
    return {"title": title, "url": f"/d/{uid}?${{datasource:queryparam}}{variables}&${{__url_time_range}}"}


def drill_row(title: str, uid: str, labels: Iterable[str]) -> dict[str, str]:
    """The same from a row of a table."""
    return drill(title, uid, labels, "${{__data.fields.{}}}")


def timeseries(
    title: str,
    question: str,
    unit: str,
    *queries: Query,
    width: int = 8,
    height: int = 8,
    alerts: tuple[str, ...] = (),
    link: Mapping[str, str] | None = None,
    stacked: bool = False,
) -> Panel:
    """Lines over time; limits are dashed. Gaps stay gaps: there was too little data for a value."""
    custom: dict[str, Any] = {"lineWidth": 1, "fillOpacity": 30 if stacked else 0, "showPoints": "auto"}
    if stacked:
        custom["stacking"] = {"mode": "normal", "group": "A"}
    overrides = [
        _override("byFrameRefID", ref, {"unit": query.unit} if query.unit else {}, _LIMIT if query.limit else ())
        for ref, query in _named(queries)
        if query.limit or query.unit
    ]
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    targets = [_target(ref, query, "time_series", instant=False) for ref, query in _named(queries)]
    body = _body("timeseries", title, question, _fields(unit, custom, overrides, [link] if link else []), options)
    return Panel(body | {"targets": targets}, width, height, alerts)


def stat(
    title: str, question: str, unit: str, *queries: Query, width: int = 8, height: int = 8, alerts: tuple[str, ...] = ()
) -> Panel:
    """Numbers as they are now, one a query and series."""
    overrides = [
        _override("byFrameRefID", ref, {"unit": query.unit}, ()) for ref, query in _named(queries) if query.unit
    ]
    options = {
        "reduceOptions": {"values": False, "calcs": ["lastNotNull"], "fields": ""},
        "orientation": "auto",
        "textMode": "value_and_name",
        "colorMode": "none",
        "graphMode": "none",
        "justifyMode": "auto",
    }
    targets = [_target(ref, query, "time_series", instant=True) for ref, query in _named(queries)]
    return Panel(
        _body("stat", title, question, _fields(unit, {}, overrides, []), options) | {"targets": targets},
        width,
        height,
        alerts,
    )


def table(
    title: str,
    question: str,
    *queries: Query,
    width: int = 24,
    height: int = 9,
    alerts: tuple[str, ...] = (),
    link: tuple[str, Mapping[str, str]] | None = None,
    sort: str = "",
) -> Panel:
    """A row for each combination of labels now, a column a query; `link` is of a column, `sort` the highest first."""
    overrides = [
        _override("byName", query.legend, {"unit": query.unit}, ()) for _, query in _named(queries) if query.unit
    ]
    if link:
        overrides.append(_override("byName", link[0], {"links": [link[1]]}, ()))
    options = {"showHeader": True, "sortBy": [{"displayName": sort, "desc": True}] if sort else []}
    body = _body("table", title, question, _fields("short", {"filterable": True}, overrides, []), options)
    return Panel(body | _rows(queries), width, height, alerts)


def bars(title: str, question: str, unit: str, by: Label, *queries: Query, width: int, height: int = 9) -> Panel:
    """Bars now, one a query, beside each other for each value of a label."""
    options = {
        "xField": by.name,
        "orientation": "vertical",
        "stacking": "none",
        "showValue": "never",
        "barWidth": 0.9,
        "groupWidth": 0.8,
        "xTickLabelRotation": 0,
        "xTickLabelSpacing": 0,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "none"},
    }
    body = _body("barchart", title, question, _fields(unit, {"lineWidth": 1, "fillOpacity": 70}, [], []), options)
    rows = _rows(queries)
    rows["transformations"].append({"id": "sortBy", "options": {"fields": {}, "sort": [{"field": by.name}]}})
    return Panel(body | rows, width, height)


def placed(panels: Iterable[Panel], settings: Settings) -> list[dict[str, Any]]:
    """Panels from left to right in rows of 24 columns, with ids in that order, and links to their runbooks."""
    found: list[dict[str, Any]] = []
    x = y = 0
    for number, panel in enumerate(panels, 1):
        links = [
            {"title": f"Runbook: {alert}", "url": f"{settings.runbooks}/{alert.lower()}.md", "targetBlank": True}
            for alert in panel.alerts
        ]
        place = {"h": panel.height, "w": panel.width, "x": x, "y": y}
        found.append({"id": number, **panel.body, "gridPos": place, "links": links})
        x += panel.width
        if x >= 24:
            x, y = 0, y + panel.height
    return found


def _named(queries: Iterable[Query]) -> Iterable[tuple[str, Query]]:
    return zip(ascii_uppercase, queries, strict=False)


def _target(ref: str, query: Query, shape: str, *, instant: bool) -> dict[str, Any]:
    return {
        "refId": ref,
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": query.expr,
        "format": shape,
        "instant": instant,
        "legendFormat": query.legend,
        "range": not instant,
    }


def _rows(queries: tuple[Query, ...]) -> dict[str, Any]:
    # A single table's column is `Value`, those of several are told apart by their queries.
    names = {f"Value #{ref}" if len(queries) > 1 else "Value": query.legend for ref, query in _named(queries)}
    return {
        "targets": [_target(ref, query, "table", instant=True) for ref, query in _named(queries)],
        "transformations": [
            {"id": "merge", "options": {}},
            {
                "id": "organize",
                "options": {"excludeByName": {"Time": True}, "indexByName": {}, "renameByName": names},
            },
        ],
    }


def _override(
    matcher: str, name: str, properties: Mapping[str, Any], more: Iterable[tuple[str, Any]]
) -> dict[str, Any]:
    return {
        "matcher": {"id": matcher, "options": name},
        "properties": [{"id": key, "value": value} for key, value in (*properties.items(), *more)],
    }


def _fields(
    unit: str, custom: Mapping[str, Any], overrides: list[dict[str, Any]], links: list[Mapping[str, str]]
) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": unit, "custom": dict(custom)}
    if links:
        defaults["links"] = links
    return {"defaults": defaults, "overrides": overrides}


def _body(
    kind: str, title: str, question: str, fields: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "type": kind,
        "title": title,
        "description": question,
        "datasource": DATASOURCE,
        "fieldConfig": fields,
        "options": options,
    }
