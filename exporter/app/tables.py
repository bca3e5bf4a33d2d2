"""What commands print for people."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from exporter.app.backtest import Backtest
from exporter.app.labels import Labels
from exporter.app.replay import Found, multivariate_of, quality_of, scores_of, segment_of
from exporter.app.schema import Config
from exporter.monitor.accuracy import LOSSES
from exporter.monitor.features import Numeric
from exporter.monitor.model_view import ModelView
from exporter.monitor.reference import Reference


def show_reference(built: Reference, output: Path) -> None:
    """A reference that was built."""
    table = Table(title=f"{escape(built.model)} {escape(built.version)}: reference {built.id}, {built.rows:,} rows")
    for heading in ("feature", "kind", "type", "resolution"):
        table.add_column(heading)
    table.add_column("missing", justify="right")
    for feature in built.features:
        resolution = (
            f"{len(feature.bins)} bins, {len(feature.knots)} knots"
            if isinstance(feature, Numeric)
            else f"{len(feature.categories)} categories" + (f" + {len(feature.others)} other" if feature.others else "")
        )
        kind = "numeric" if isinstance(feature, Numeric) else "categorical"
        missing = f"{feature.missing / built.rows:.1%}" if feature.missing else ""
        table.add_row(escape(feature.name), feature.kind, kind, resolution, missing)
    console = Console()
    console.print(table)
    for tag in dict.fromkeys(one.tag for one in built.segments):
        slices = [f"{one.value} ({one.rows:,})" for one in built.segments if one.tag == tag]
        console.print(f"segments by {tag}: {', '.join(slices)}", highlight=False, markup=False)
    console.print(f"written to {output}", highlight=False, markup=False)


_DRIFTED = "drifted = enough samples, PSI above its threshold and critical value, and the likelihood ratio agrees"


def show_replay(
    reference: Reference, found: Sequence[Found], rejected: Counter[str], labels: Labels | None = None
) -> None:
    """Each window and feature; what is drifted stands out."""
    title = f"{escape(reference.model)} {escape(reference.version)} against reference {reference.id}"
    table = Table(
        title=title,
        caption="drifted = enough samples, PSI above threshold and critical value, and a likelihood ratio that agrees",
    )
    table.add_column("window", no_wrap=True)
    table.add_column("feature", overflow="ellipsis", no_wrap=True)
    for heading in ("n", "PSI", "critical", "KS", "p"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("note", min_width=8)
    for window in found:
        for place, one in enumerate(scores_of(window.view)):
            table.add_row(
                escape(str(window.key)) if place == 0 else "",
                escape(one["feature"]),
                f"{one['n']:,}",
                *(_number(one[name]) for name in ("psi", "psi_critical", "ks")),
                _p(one["p_value"]),
                _note(window.view, place, one["state"]),
                style="bold red" if one["drifted"] else None,
                end_section=place == len(reference.features) - 1,
            )
    console = Console()
    console.print(table)
    drifted = sum(any(window.view.drifted) for window in found)
    console.print(f"{drifted} of {len(found)} windows have drifted features", highlight=False)
    if reference.moments is not None:
        _show_multivariate(console, found)
    if any(window.view.accuracy_readout is not None for window in found):
        _show_quality(console, found)
    if any(window.view.segments for window in found):
        _show_segments(console, found)
    if labels is not None and labels.unmatched:
        console.print(f"labels without a prediction: {labels.unmatched:,}", highlight=False)
    if rejected:
        counts = ", ".join(f"{reason} {count:,}" for reason, count in rejected.items())
        console.print(f"not counted: {counts}", highlight=False, markup=False)


def _show_multivariate(console: Console, found: Sequence[Found]) -> None:
    """Numeric inputs of each window together; what is drifted stands out, with what changed most by itself."""
    table = Table(
        title="numeric inputs together",
        caption="drifted = enough samples, distance above its threshold and above its critical value",
    )
    for heading in ("window", "of their"):
        table.add_column(heading, no_wrap=True)
    for heading in ("n", "distance", "critical", "p"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("note", min_width=8)
    for window in found:
        scores = multivariate_of(window.view) or {"tests": []}
        for place, one in enumerate(scores["tests"]):
            most = [f"{' / '.join(change['features'])} {change['statistic']}" for change in one["changes"][:1]]
            said = [] if one["state"] == "ok" else [one["state"].replace("_", " ")]
            table.add_row(
                escape(str(window.key)) if place == 0 else "",
                {"mean": "means", "covariance": "covariances"}[one["moment"]],
                f"{scores['n']:,}",
                *(_number(one[name]) for name in ("distance", "critical")),
                _p(one["p_value"]),
                escape(", ".join(said + most * one["drifted"])),
                style="bold red" if one["drifted"] else None,
                end_section=place == len(scores["tests"]) - 1,
            )
    console.print(table)
    drifted = sum("drifting" in window.view.moment_states for window in found)
    console.print(f"{drifted} of {len(found)} windows have numeric inputs that drifted together", highlight=False)


def _show_quality(console: Console, found: Sequence[Found]) -> None:
    """Qualities of each window with their bounds; what is degraded stands out."""
    table = Table(
        title="quality against ground truth",
        caption="degraded = worse than the baseline by more than the tolerance, at the better bound of 95 % too",
    )
    for heading in ("window", "quality"):
        table.add_column(heading, no_wrap=True)
    for heading in ("labels", "value", "lower", "upper", "estimated", "baseline"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("note", min_width=8)
    for window in found:
        readout, key = window.view.accuracy_readout, escape(str(window.key))
        state = "" if readout is None else readout.state.replace("_", " ")
        rows = quality_of(window.view)
        if readout is None or not rows:
            table.add_row(key, *[""] * 7, state, end_section=True)
            continue
        covered = "" if readout.coverage == 1 else f"coverage {readout.coverage or 0:.0%}"
        said = covered if readout.values else state
        for place, (name, one) in enumerate(rows.items()):
            table.add_row(
                key if place == 0 else "",
                name,
                f"{readout.labels:,}" if place == 0 else "",
                *(_number(one[part]) for part in ("value", "lower", "upper", "estimated", "baseline")),
                "degraded" if one["degraded"] else said if place == 0 else "",
                style="bold red" if one["degraded"] else None,
                end_section=place == len(rows) - 1,
            )
    console.print(table)
    degraded = sum(window.degraded for window in found)
    console.print(f"{degraded} of {len(found)} windows have a degraded quality", highlight=False)


def _show_segments(console: Console, found: Sequence[Found]) -> None:
    """Segments that are drifted or degraded: the features that are, and the qualities."""
    table = Table(
        title="segments", caption="a borrowed reference is that of all rows, from which a slice may differ by nature"
    )
    for heading in ("window", "segment"):
        table.add_column(heading, no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("drifted or degraded", overflow="ellipsis", no_wrap=True)
    for heading in ("value", "limit"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("note", min_width=8)
    for window in found:
        rows = [(one, *row) for one in window.suspects for row in _findings(one)]
        for place, (one, name, value, limit) in enumerate(rows):
            first = place == 0 or rows[place - 1][0] is not one
            table.add_row(
                escape(str(window.key)) if place == 0 else "",
                escape(segment_of(one) or "") if first else "",
                f"{one.traffic_readout.predictions:,}" if first else "",
                escape(name),
                _number(value),
                _number(limit),
                "borrowed reference" if one.borrowed else "",
                style=None if one.borrowed else "bold red",
                end_section=place == len(rows) - 1,
            )
    if table.row_count:
        console.print(table)
    alarming = sum(window.alarming for window in found)
    console.print(f"{alarming} of {len(found)} windows have segments that differ from themselves", highlight=False)


def _findings(view: ModelView) -> Iterator[tuple[str, float, float]]:
    """What is drifted or degraded of a segment: name, value, and what it should not have passed."""
    for one in scores_of(view):
        if one["drifted"]:
            yield f"{one['feature']}: PSI", one["psi"], max(one["psi_critical"], one["threshold"])
    for name, quality in quality_of(view).items():
        if quality["degraded"]:
            better = quality["tolerance"] if name in LOSSES else -quality["tolerance"]
            yield name, quality["value"], quality["baseline"] + better


def show_check(path: Path, config: Config, counts: Mapping[str, int]) -> None:
    """A configuration that is good, and what it costs."""
    table = Table(title=f"{escape(str(path))} is good", caption=f"series_limit {config.series_limit:,}")
    table.add_column("model")
    table.add_column("references or learning")
    table.add_column("window", no_wrap=True)
    table.add_column("series a version", justify="right")
    for model in config.models:
        known = ", ".join(model.references) or (f"learns from {model.learn:,}" if model.learn else "none: traffic only")
        table.add_row(escape(model.name), escape(known), model.window, f"{counts.get(model.name, 0):,}")
    Console().print(table)


def show_backtest(found: Backtest) -> None:
    """What would have fired, and what was not there to say so."""
    table = Table(title=f"{_minute(found.start)} to {_minute(found.end)} UTC")
    for heading in ("from", "until"):
        table.add_column(heading, no_wrap=True)
    table.add_column("alert", overflow="fold")
    table.add_column("peak", justify="right", no_wrap=True)
    for one in found.alerts:
        until = "still firing" if one.until is None else _minute(one.until)
        labels = ", ".join(f"{name}={value}" for name, value in one.labels.items())
        said = f"[bold]{escape(one.alert)}[/bold]\n{escape(labels)}"
        table.add_row(_minute(one.since), until, said, f"{one.peak:.4g}", end_section=True)
    console = Console()
    if found.alerts:
        console.print(table)
    names = {one.alert for one in found.alerts}
    console.print(
        f"alerts that would have fired: {len(found.alerts)}, by {len(names)} of {len(found.rules)} rules",
        highlight=False,
    )
    if found.pending:
        said = "true at times, but not for long enough (is --step the step of the history?)"
        console.print(f"{said}: {', '.join(found.pending)}", highlight=False, markup=False)
    if found.absent:
        console.print(f"not in Prometheus at that time: {', '.join(found.absent)}", highlight=False, markup=False)
    if found.sparse:
        said = ", ".join(f"{alert} ({', '.join(ranges)})" for alert, ranges in found.sparse.items())
        console.print(f"samples too far apart for: {said}", highlight=False, markup=False)
    if found.worked_out:
        count = f"{len(found.worked_out)} record{'s' if len(found.worked_out) > 1 else ''}"
        console.print(
            f"not recorded all that time, and worked out from metrics: {count}", highlight=False, markup=False
        )


def _minute(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M")


def _note(view: ModelView, place: int, state: str) -> str:
    """What a reader must not miss: a state other than ok, and data faults."""
    said = [] if state == "ok" else [state.replace("_", " ")]
    return ", ".join(said + [f"{fault.reason.replace('_', ' ')} {fault.ratio:.0%}" for fault in view.faults[place]])


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.4f}"


def _p(value: float) -> str:
    if math.isnan(value):
        return ""
    if value == 0:
        return "<1e-300"
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"
