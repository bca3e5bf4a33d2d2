"""What the windows said before: one point a pane for the status page. Prometheus keeps the real history."""

from collections import deque
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from exporter.monitor.model_view import ModelView
from exporter.monitor.snapshot import Snapshot
from exporter.stats import Counts, Floats

POINTS = 120

Key: TypeAlias = tuple[str, str, str]
"""Model, version and reference id ("" without one): another reference starts another history."""


@dataclass(frozen=True, slots=True)
class Point:
    """One window of a model version; arrays have an element a feature, `predictions` is the lifetime count."""

    time: float
    predictions: int
    error_ratio: float | None
    latency_p99_s: float | None
    features_drifted: int
    psi: Floats
    psi_critical: Floats
    n: Counts


@dataclass(slots=True)
class _Series:
    pane: int | None = None
    points: deque[Point] = field(default_factory=lambda: deque(maxlen=POINTS))


class History:
    """The last points of every model version that a snapshot holds."""

    def __init__(self) -> None:
        self._series: dict[Key, _Series] = {}

    def record(self, snapshot: Snapshot) -> None:
        """Add a point for each model version whose window has moved; forget versions that are gone."""
        current: dict[Key, _Series] = {}
        for view in snapshot.models:
            series = current[_key(view)] = self._series.get(_key(view), _Series())
            if view.end_pane is not None and view.end_pane != series.pane:
                series.pane = view.end_pane
                series.points.append(_point(view, snapshot.now))
        self._series = current

    def rate_per_s(self, view: ModelView, now: float) -> float | None:
        """Predictions a second over the window, or since the first point in it; None before there are two."""
        within = [point for point in self.points(view) if point.time >= now - view.settings.window.seconds]
        if len(within) < 2 or within[-1].time <= within[0].time:
            return None
        return (within[-1].predictions - within[0].predictions) / (within[-1].time - within[0].time)

    def points(self, view: ModelView) -> list[Point]:
        """Points of a model version, oldest first."""
        series = self._series.get(_key(view))
        return [] if series is None else list(series.points)


def _key(view: ModelView) -> Key:
    return view.settings.name, view.version, "" if view.reference is None else view.reference.id


def _point(view: ModelView, now: float) -> Point:
    traffic, drift = view.traffic_readout, view.drift_readout
    nothing = np.zeros(0)
    return Point(
        time=now,
        predictions=int(view.traffic_lifetime[0]),
        error_ratio=traffic.error_ratio,
        latency_p99_s=traffic.latency_quantile_s(0.99),
        features_drifted=sum(view.drifted),
        psi=nothing if drift is None else drift.psi,
        psi_critical=nothing if drift is None else drift.psi_critical,
        n=np.zeros(0, np.int64) if drift is None else drift.n,
    )
