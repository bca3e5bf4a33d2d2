"""One model's versions as they are at one moment."""

from collections.abc import Iterator
from dataclasses import replace

from exporter.monitor.archive import ArchiveView
from exporter.monitor.model_view import ModelView
from exporter.monitor.panes import OUTSIDE
from exporter.monitor.versions import ModelState


def views(model: ModelState, now: float) -> Iterator[ModelView]:
    """Each version with copies of its counters, and of those of its segments."""
    settings, end = model.settings, model.watermarks.end
    # The expected version first, then the newest that has shown itself to be more than a stray name.
    newest_first = sorted(
        model.versions.values(),
        key=lambda state: (
            state.first_seen == 0 or state.version == settings.version,
            state.traffic.lifetime[0] >= settings.min_samples,
            state.first_seen,
        ),
        reverse=True,
    )
    for place, state in enumerate(newest_first):
        learner = state.learner
        traffic, drift, accuracy, moments = state.traffic, state.drift, state.accuracy, state.moments
        view = ModelView(
            settings=settings,
            version=state.version,
            reference=state.reference,
            # Of a configured model, two versions are never withheld: the current one and a canary.
            protected=settings.configured and place < 2,
            learning=None if learner is None else (learner.seen, learner.needed),
            catching_up=model.watermarks.lag_s(now) > settings.window.seconds,
            end_pane=None if end == OUTSIDE else end,
            last_prediction=state.last_prediction,
            traffic=traffic.tracker,
            traffic_lifetime=traffic.lifetime.copy(),
            traffic_window=traffic.ring.running.copy(),
            drift=None if drift is None else drift.tracker,
            drift_lifetime=None if drift is None else drift.lifetime.copy(),
            drift_window=None if drift is None else drift.ring.running.copy(),
            alarms=None if state.faults is None else state.faults.alarms(model.watermarks.left),
            accuracy=None if accuracy is None else accuracy.tracker,
            accuracy_lifetime=None if accuracy is None else accuracy.lifetime.copy(),
            accuracy_window=None if accuracy is None else accuracy.ring.running.copy(),
            moments=None if moments is None else moments.tracker,
            moments_lifetime=None if moments is None else moments.lifetime.copy(),
            moments_window=None if moments is None else moments.ring.running.copy(),
        )
        slices = tuple(one for segments in state.segments.values() for one in segments.views(view))
        yield replace(view, segments=slices) if slices else view


def archived(model: ModelState, since: float) -> Iterator[ArchiveView]:
    """What each version did, of the sealed spans that have ended after `since` (epoch seconds)."""
    for state in model.versions.values():
        span_s = state.archive.span_s
        yield ArchiveView(
            model=model.settings.name,
            version=state.version,
            reference=None if state.reference is None else state.reference.id,
            traffic=state.traffic.tracker,
            drift=None if state.drift is None else state.drift.tracker,
            span_s=span_s,
            spans={span: counts for span, counts in state.archive.spans.items() if (span + 1) * span_s > since},
        )
