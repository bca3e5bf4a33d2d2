"""Sealed spans as JSON: what a judge of canaries adds up over processes and compares between versions."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from numpy.typing import NDArray

from exporter.monitor.archive import ArchiveView
from exporter.monitor.traffic import LATENCY_BUCKETS_S


def panes(views: Iterable[ArchiveView]) -> dict[str, Any]:
    """The answer of GET /api/v1/panes. Spans of equal `start` and `seconds` of the same reference can be added."""
    return {"latency_bounds": LATENCY_BUCKETS_S, "versions": [_version(view) for view in views]}


def _version(view: ArchiveView) -> dict[str, Any]:
    plans = () if view.drift is None else view.drift.features
    return {
        "model": view.model,
        "version": view.version,
        "reference": view.reference,
        "seconds": view.span_s,
        "features": [
            {"kind": plan.key.kind, "feature": plan.key.name, "bins": [exported.label for exported in plan.bins]}
            for plan in plans
        ],
        "panes": [_pane(view, span, view.spans[span]) for span in sorted(view.spans)],
    }


def _pane(view: ArchiveView, span: int, counts: NDArray[Any]) -> dict[str, Any]:
    width = view.traffic.width
    traffic = view.traffic.read(counts[:width])
    starts = [] if view.drift is None else [*view.drift.bin_starts.tolist(), len(counts) - width]
    return {
        "start": span * view.span_s,
        "predictions": traffic.predictions,
        "errors": {reason: count for reason, count in traffic.errors.items() if count},
        "latency": traffic.latency_buckets.tolist(),
        "bins": [counts[width + start : width + end].tolist() for start, end in pairwise(starts)],
    }
