"""What a PromQL expression names: series with their matchers, and labels of aggregations and joins; parsed."""

from collections.abc import Iterable
from typing import Any

import promql_parser

from exporter.catalog.metrics import METRICS
from exporter.catalog.rules import EXTERNAL, TARGET_LABELS

_SCRAPED = {label.name for label in TARGET_LABELS}
DECLARED = {metric.name: {label.name for label in metric.labels} | _SCRAPED for metric in (*METRICS, *EXTERNAL)}
DECLARED |= {
    f"{metric.name}_{part}": DECLARED[metric.name]
    for metric in METRICS
    if metric.kind == "histogram"
    for part in ("bucket", "count", "sum")
}
"""Labels of every series of the catalogue, by name."""
LABELS = set().union(*DECLARED.values())


def selectors(expr: str) -> list[tuple[str, set[str]]]:
    """Names of the series an expression reads, with the labels it selects them by."""
    found = [node for node in _nodes(expr) if isinstance(node, promql_parser.VectorSelector)]
    return [(node.name, {matcher.name for matcher in node.matchers.matchers}) for node in found]


def labels(expr: str) -> set[str]:
    """Labels an expression aggregates, joins or makes by."""
    found: set[str] = set()
    for node in _nodes(expr):
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            found |= set(node.modifier.labels)
        elif isinstance(node, promql_parser.BinaryExpr) and node.modifier is not None:
            matching = node.modifier.matching
            found |= set(matching.labels if matching is not None else ()) | set(node.modifier.group_labels or ())
        elif isinstance(node, promql_parser.Call) and node.func.name == "label_replace":
            found |= {node.args[1].val, node.args[3].val} - {""}
    return found


def needed(groups: list[dict[str, Any]], expressions: Iterable[str]) -> list[dict[str, Any]]:
    """The groups with only the records that expressions read, and what these read."""
    names: set[str] = set()
    waiting = list(expressions)
    records: dict[str, list[str]] = {}
    for rule in (rule for group in groups for rule in group["rules"]):
        records.setdefault(rule.get("record", rule.get("alert")), []).append(rule["expr"])
    while waiting:
        for name in {name for name, _ in selectors(waiting.pop())} & records.keys() - names:
            names.add(name)
            waiting += records[name]
    return [group | {"rules": [rule for rule in group["rules"] if rule.get("record") in names]} for group in groups]


def _nodes(expr: str) -> list[Any]:
    found: list[Any] = []
    promql_parser.walk(promql_parser.parse(expr), found.append)
    return found
