"""The status of everything as plain values: what the page draws and GET /api/v1/models answers.

What is not known is null, never 0: NaN becomes null when the JSON is written.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np

from exporter.export.distribution import distribution
from exporter.export.exposition import ExporterState
from exporter.monitor.accuracy import AccuracyReadout
from exporter.monitor.features import Numeric
from exporter.monitor.feed import SourceFeed
from exporter.monitor.health import SourceHealth, StateHealth
from exporter.monitor.history import History, Point
from exporter.monitor.labels import DELAYS_S, LabelsView
from exporter.monitor.model_view import ModelView
from exporter.monitor.multivariate import MomentsReadout
from exporter.monitor.plan import FAULTS
from exporter.monitor.readout import DriftReadout
from exporter.monitor.snapshot import Snapshot
from exporter.stats import Floats
from exporter.stats.scores import Estimate, Interval

_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def status(
    snapshot: Snapshot,
    history: History,
    exporter: ExporterState,
    sources: Mapping[str, SourceHealth],
    state: StateHealth | None,
    *,
    tick_s: float,
    not_ready: Sequence[str],
) -> dict[str, Any]:
    """The answer of GET /api/v1/models; `state` is None when nothing is kept over a restart."""
    samples, withheld = snapshot.exposed
    return {
        "now": snapshot.now,
        "exporter": {
            "version": exporter.version,
            "started": exporter.started,
            "tick_s": tick_s,
            "series": len(samples),
            "series_limit": snapshot.series_limit,
            "series_dropped": withheld,
            "not_ready": list(not_ready),
        },
        "state": None if state is None else asdict(state),
        "sources": [_source(name, feed, sources.get(name)) for name, feed in snapshot.feeds.items()],
        "models": [
            {
                **_model(view, history.points(view), history.rate_per_s(view, snapshot.now)),
                "labels": _labels(snapshot.labels[view.settings.name]),
            }
            for view in snapshot.models
        ],
    }


def feature_scores(view: ModelView, readout: DriftReadout, place: int) -> dict[str, Any]:
    """Scores and rates of one feature, as the page and `replay --format json` show them."""
    plan = readout.tracker.features[place]
    ratios = dict(zip(FAULTS, readout.fault_ratios[place].tolist(), strict=True))
    return {
        "feature": plan.key.name,
        "kind": plan.key.kind,
        "state": view.feature_states[place],
        "n": int(readout.n[place]),
        "psi": float(readout.psi[place]),
        "psi_null_mean": float(readout.psi_null_mean[place]),
        "psi_critical": float(readout.psi_critical[place]),
        "threshold": plan.threshold,
        "ks": float(readout.ks[place]),
        "ks_upper": float(readout.ks_upper[place]),
        "ks_critical": float(readout.ks_critical[place]),
        "js_divergence": float(readout.js_divergence[place]),
        "p_value": float(readout.p_value[place]),
        "p_above_threshold": float(readout.p_above_threshold[place]),
        "drifted": view.drifted[place],
        "listed": view.listed[place],
        "alpha": readout.tracker.alpha,
        "extrapolated": bool(readout.extrapolated[place]),
        "missing_ratio": ratios["missing"],
        "invalid_ratio": ratios["wrong_type"] + ratios["non_finite"],
        "out_of_range_ratio": ratios["out_of_range"],
        "unseen_ratio": ratios["unseen"],
    }


def quality_scores(readout: AccuracyReadout) -> dict[str, Any]:
    """Every quality of a window that has enough labels or can be estimated, with what it is to be compared with."""
    tracker, values, estimates = readout.tracker, readout.values, readout.estimates
    unknown, no_estimate = Interval(math.nan, math.nan, math.nan), Estimate(math.nan, math.nan)
    return {
        name: {
            **values.get(name, unknown)._asdict(),
            "estimated": estimates.get(name, no_estimate).value,
            "estimated_error": estimates.get(name, no_estimate).error,
            "baseline": tracker.baseline[name].value if name in tracker.baseline else None,
            "tolerance": tracker.tolerance(name),
            "degraded": name in readout.degraded,
            "n": readout.labels,
            "coverage": readout.coverage,
        }
        for name in dict.fromkeys((*values, *estimates))
    }


def quality_gaps(readout: AccuracyReadout) -> dict[str, Any]:
    """Realised less expected shares of a window's labelled predictions; `z` is in standard errors."""
    return {
        name: {"gap": one.value, "sigma": one.error, "z": one.value / one.error} for name, one in readout.gaps.items()
    }


def multivariate_scores(view: ModelView, readout: MomentsReadout) -> dict[str, Any]:
    """Drift of several inputs together, as the page and `replay --format json` show it."""
    tracker = readout.tracker
    return {
        "features": list(tracker.moments.features),
        "left_out": [
            plan.key.name
            for plan in (() if view.drift is None else view.drift.features)
            if isinstance(plan.feature, Numeric)
            and plan.key.kind == "input"
            and len(plan.feature.knots) > 1
            and plan.key.name not in tracker.moments.features
        ],
        "n": readout.n,
        "threshold": tracker.settings.multivariate_threshold,
        "alpha": readout.alpha,
        "clipped_ratio": readout.clipped_ratio,
        "tests": [
            {
                "moment": test.moment,
                "state": state,
                "distance": test.distance,
                "critical": test.critical,
                "p_value": test.p_value,
                "drifted": test.drifted,
                "extrapolated": test.extrapolated,
                "changes": [one._asdict() for one in readout.changes(test.moment)],
            }
            for test, state in zip(readout.tests, view.moment_states, strict=True)
        ],
    }


def _source(name: str, feed: SourceFeed, health: SourceHealth | None) -> dict[str, Any]:
    """A source's account, and how it is now; null for one that is only known from the state of an earlier process."""
    return {
        "source": name,
        "health": None if health is None else asdict(health),
        "events": feed.events,
        "rejected": dict(feed.rejected),
        "late": dict(feed.late),
        "dropped": dict(feed.dropped),
        "troubles": dict(feed.troubles),
        "redelivered": feed.redelivered,
        "watermark": feed.watermark,
        "examples": [{"time": one.time, "reason": one.reason, "detail": one.detail} for one in feed.examples],
    }


def _model(view: ModelView, points: Sequence[Point], rate_per_s: float | None) -> dict[str, Any]:
    settings, window, traffic = view.settings, view.window, view.traffic_readout
    start, end = window or (None, None)
    reference, learning = view.reference, view.learning
    readout = view.drift_readout
    lifetime = view.traffic.read(view.traffic_lifetime)
    latencies = {name: traffic.latency_quantile_s(quantile) for name, quantile in _QUANTILES.items()}
    return {
        "model": settings.name,
        "version": view.version,
        "configured": settings.configured,
        "state": view.state,
        "reference": None
        if reference is None
        else {
            "id": reference.id,
            "created": reference.created.timestamp(),
            "rows": reference.rows,
            "version": reference.version,
        },
        "trained": settings.trained,
        "max_age_s": settings.max_age_s,
        "learning": None if learning is None else {"seen": learning[0], "needed": learning[1]},
        "window": {
            "label": settings.window.label,
            "seconds": settings.window.seconds,
            "start": start,
            "end": end,
            "samples": traffic.predictions,
        },
        "traffic": {
            "predictions": lifetime.predictions,
            "errors": {reason: count for reason, count in lifetime.errors.items() if count},
            "rate_per_s": rate_per_s,
            "error_ratio": traffic.error_ratio,
            "latency_s": None if latencies["p50"] is None else latencies,
            "latency_objective_s": {
                f"p{float(quantile) * 100:g}": seconds for quantile, seconds in settings.latency_objective_s.items()
            },
            "last_prediction": view.last_prediction,
        },
        "history": {
            "time": [point.time for point in points],
            "rate_per_s": _rates(points),
            "error_ratio": [point.error_ratio for point in points],
            "latency_p99_s": [point.latency_p99_s for point in points],
            "features_drifted": [point.features_drifted for point in points],
        },
        "quality": None if view.accuracy_readout is None else _quality(view.accuracy_readout),
        "multivariate": None if view.moments_readout is None else multivariate_scores(view, view.moments_readout),
        "segments": [_segment(one) for one in view.segments],
        "features_drifted": sum(view.drifted),
        "features_evaluated": int(view.judged.sum()),
        "features": [] if readout is None else _features(view, readout, points),
    }


def _quality(readout: AccuracyReadout) -> dict[str, Any]:
    return {
        "state": readout.state,
        "kind": readout.tracker.task.kind,
        "positive": readout.tracker.task.positive,
        "labels": readout.labels,
        "coverage": readout.coverage,
        "min_labels": readout.tracker.settings.min_labels,
        "metrics": quality_scores(readout),
        "gaps": quality_gaps(readout),
    }


def _labels(labels: LabelsView) -> dict[str, Any]:
    """When the newest label of a model was, and what became of those that came alone; null where none may."""
    join = labels.join
    if join is None:
        return {"last": labels.last, "join": None}
    tally, settings = join.tally, join.settings
    return {
        "last": labels.last,
        "join": {
            "maturity_s": settings.maturity_s,
            "sample": settings.sample,
            "pending": join.pending,
            "max_pending": settings.max_pending,
            "received": tally.received,
            "unmatched": tally.unmatched,
            "duplicate": tally.duplicate,
            "corrected": tally.corrected,
            "late": tally.late,
            "unjoined": dict(tally.unjoined),
            "delays_s": list(DELAYS_S),
            "delays": list(tally.delays),
        },
    }


def _segment(view: ModelView) -> dict[str, Any]:
    """A slice: of its features the one with most of an effect, and those that are drifted."""
    segment, readout, traffic = view.segment, view.drift_readout, view.traffic_readout
    assert segment is not None  # noqa: S101 - a slice
    assert readout is not None  # noqa: S101 - there are slices of versions with a reference alone
    excess = readout.psi / np.maximum(readout.tracker.thresholds, readout.psi_critical)
    worst = None if np.isnan(excess).all() else int(np.nanargmax(excess))
    names = [plan.key.name for plan in readout.tracker.features]
    return {
        "segment_name": segment.tag,
        "segment": segment.value,
        "state": view.state,
        "borrowed_reference": view.borrowed,
        "samples": traffic.predictions,
        "predictions": view.traffic.read(view.traffic_lifetime).predictions,
        "error_ratio": traffic.error_ratio,
        "reference_rows": readout.tracker.reference.rows,
        "features_evaluated": int(view.judged.sum()),
        "drifted": [name for name, drifted in zip(names, view.drifted, strict=True) if drifted],
        "worst": None if worst is None else feature_scores(view, readout, worst),
        "quality": None if view.accuracy_readout is None else _quality(view.accuracy_readout),
    }


def _rates(points: Sequence[Point]) -> list[float | None]:
    """Predictions a second between each point and the one before."""
    rates = [(b.predictions - a.predictions) / max(b.time - a.time, 1e-9) for a, b in pairwise(points)]
    return [None, *rates] if points else []


def _features(view: ModelView, readout: DriftReadout, points: Sequence[Point]) -> list[dict[str, Any]]:
    tracker = readout.tracker
    slots = np.split(readout.counts, np.cumsum([plan.width for plan in tracker.features])[:-1])
    bins = np.split(readout.bin_counts, tracker.bin_starts[1:])
    psi, critical = (_shortened(np.array([getattr(p, name) for p in points])) for name in ("psi", "psi_critical"))
    n = np.array([point.n for point in points])
    return [
        {
            **feature_scores(view, readout, place),
            "type": "numeric" if isinstance(plan.feature, Numeric) else "categorical",
            "min_samples": view.settings.min_samples,
            "faults": [asdict(fault) for fault in view.faults[place]],
            "distribution": distribution(plan, slots[place], bins[place]),
            "history": {
                "psi": psi[:, place].tolist() if len(points) else [],
                "critical": critical[:, place].tolist() if len(points) else [],
                "n": n[:, place].tolist() if len(points) else [],
            },
        }
        for place, plan in enumerate(tracker.features)
    ]


def _shortened(values: Floats) -> Floats:
    """Values with four significant digits: a chart needs no more, and the JSON is a third of the size."""
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 10.0 ** (3 - np.floor(np.log10(np.abs(values))))
        return np.where(values == 0, 0.0, np.round(values * scale) / scale)
