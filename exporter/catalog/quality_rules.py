"""Quality of the fleet, from the labels that all replicas joined: the read-outs of the exporter, over any window.

Classes are told apart instead of averaged: which one is the positive is not in the counters. Accuracy and mean absolute
error, of which every model with labels has one, carry the bounds of their interval, and **degraded** is what the
exporter says: worse than the baseline by more than the tolerance, even at the better bound. With fewer labels than
ml_labels_min_samples there is none.
"""

from collections.abc import Iterator

from exporter.catalog import metrics, thresholds
from exporter.catalog.labels import ACTUAL, MODEL, PREDICTED, QUALITY_METRIC, SCORE_BIN, VERSION
from exporter.catalog.metric import Metric
from exporter.catalog.rules import STEP, Group, Recording, Settings, Window, latest

_VERSION = "model_version"
_ABOVE, _BELOW = "accuracy", "mae"
"""Of which one more, and one less, is better."""
_CHANCE = "0.7978845608"
"""sqrt(2 / pi): the mean of |x| of a normal x, in its standard deviations."""


def _steps(metric: Metric, *labels: str) -> str:
    level = "_".join((_VERSION, *labels))
    return f"{level}:{metric.name.removesuffix('_total')}:increase{STEP}"


JOINED = _steps(metrics.LABELS_JOINED, PREDICTED.name, ACTUAL.name)
"""The record of steps: labels by what was predicted and what was true."""
_MATURED = _steps(metrics.LABELS_MATURED)
_ABSOLUTE = _steps(metrics.LABEL_ABSOLUTE_ERROR)
_SQUARED = _steps(metrics.LABEL_SQUARED_ERROR)
_LOG_LOSS = _steps(metrics.LABEL_LOG_LOSS)
_BIN_LABELS = _steps(metrics.SCORE_BIN_LABELS, SCORE_BIN.name)
_BIN_POSITIVES = _steps(metrics.SCORE_BIN_POSITIVES, SCORE_BIN.name)
_BIN_SCORE = _steps(metrics.SCORE_BIN_SCORE, SCORE_BIN.name)


def qualities(name: str, window: Window) -> str:
    """The record of qualities by metric: `quality`, or what is made of it, e.g. `quality_degraded`."""
    return f"model_version_metric:ml_model_{name}:increase{window.text}"


def joined(window: Window) -> str:
    """The record of how many labels were joined."""
    return f"{_VERSION}:ml_labels_joined:increase{window.text}"


def coverage(window: Window) -> str:
    """The record of the share of predictions whose label is known."""
    return f"{_VERSION}:ml_label_coverage:increase{window.text}"


def quality_steps(settings: Settings) -> Iterator[Recording]:
    """Labels, errors and bins of the score."""
    for record, metric, labels in (
        (JOINED, metrics.LABELS_JOINED, (PREDICTED, ACTUAL)),
        (_MATURED, metrics.LABELS_MATURED, ()),
        (_ABSOLUTE, metrics.LABEL_ABSOLUTE_ERROR, ()),
        (_SQUARED, metrics.LABEL_SQUARED_ERROR, ()),
        (_LOG_LOSS, metrics.LABEL_LOG_LOSS, ()),
        (_BIN_LABELS, metrics.SCORE_BIN_LABELS, (SCORE_BIN,)),
        (_BIN_POSITIVES, metrics.SCORE_BIN_POSITIVES, (SCORE_BIN,)),
        (_BIN_SCORE, metrics.SCORE_BIN_SCORE, (SCORE_BIN,)),
    ):
        yield Recording(record, f"sum by ({settings.by(MODEL, VERSION, *labels)}) (increase({metric.name}[{STEP}]))")


def quality_group(settings: Settings) -> Group:
    """The qualities of every window."""
    return Group("model-health-quality", tuple(_rules(settings)))


def _rules(settings: Settings) -> Iterator[Recording]:
    for window in settings.windows:
        yield from _classes(settings, window)
        yield from _errors(settings, window)
        yield from _scores(settings, window)
        yield from _verdicts(settings, window)


def _of(name: str, window: Window) -> str:
    return f'{qualities("quality", window)}{{{QUALITY_METRIC.name}="{name}"}}'


def _samples(name: str, window: Window) -> str:
    return f'{qualities("quality_samples", window)}{{{QUALITY_METRIC.name}="{name}"}}'


def _pairs(window: Window) -> str:
    return f"model_version_predicted_actual:ml_labels_joined:increase{window.text}"


def _enough(settings: Settings) -> str:
    by = settings.by(MODEL, VERSION)
    return f">= on ({by}) max by ({by}) ({latest(metrics.LABELS_MIN_SAMPLES)})"


def _classes(settings: Settings, window: Window) -> Iterator[Recording]:
    pairs = _pairs(window)
    right = f"model_version_predicted:ml_labels_joined_right:increase{window.text}"
    actual = f"model_version_predicted:ml_labels_joined_actual:increase{window.text}"
    by_class = f"model_version_predicted_metric:ml_model_quality:increase{window.text}"
    classified = f'{pairs}{{predicted!=""}}'
    predicted = f"sum without (actual) ({classified})"
    enough = f"and on ({settings.by(MODEL, VERSION)}) {_samples(_ABOVE, window)}"
    yield Recording(pairs, window.sum(JOINED))
    yield Recording(joined(window), f"sum without (predicted, actual) ({pairs})")
    yield Recording(coverage(window), f"{joined(window)} / ({window.sum(_MATURED)} > 0)")
    yield Recording(
        qualities("quality_samples", window),
        f"sum without (predicted, actual) ({classified})\n{_enough(settings)}",
        {QUALITY_METRIC.name: _ABOVE},
    )
    # Of each prediction, the pair in which the label says the same.
    yield Recording(
        right,
        f"sum without (actual) (\n"
        f"  {classified}\n"
        f'  and label_replace({predicted}, "actual", "$1", "predicted", "(.+)")\n'
        f")",
    )
    yield Recording(
        actual,
        f"sum without (actual) (\n"
        f"  label_replace(\n"
        f'    sum without (predicted) ({pairs}{{actual!=""}}), "predicted", "$1", "actual", "(.+)"\n'
        f"  )\n"
        f")",
    )
    yield Recording(
        qualities("quality", window),
        f"sum without (predicted) ({right}) / ignoring (metric) {_samples(_ABOVE, window)}",
        {QUALITY_METRIC.name: _ABOVE},
    )
    for name, expr in (
        ("precision", f"{right} / ({predicted} > 0)"),
        ("recall", f"{right} / ({actual} > 0)"),
        ("f1", f"2 * {right} / ({predicted} + {actual} > 0)"),
    ):
        yield Recording(by_class, f"{expr}\n{enough}", {QUALITY_METRIC.name: name})


def _errors(settings: Settings, window: Window) -> Iterator[Recording]:
    n = _samples(_BELOW, window)
    numbers = f'sum without (predicted, actual) ({_pairs(window)}{{predicted=""}})'
    yield Recording(
        qualities("quality_samples", window), f"{numbers}\n{_enough(settings)}", {QUALITY_METRIC.name: _BELOW}
    )
    for name, expr in (
        (_BELOW, f"{window.sum(_ABSOLUTE)} / ignoring (metric) {n}"),
        ("rmse", f"sqrt({window.sum(_SQUARED)} / ignoring (metric) {n})"),
    ):
        yield Recording(qualities("quality", window), expr, {QUALITY_METRIC.name: name})


def _scores(settings: Settings, window: Window) -> Iterator[Recording]:
    """Of binary models with a score."""
    labels, positives, score = (
        f"model_version_bin:{name}:increase{window.text}"
        for name in ("ml_score_bin_labels", "ml_score_bin_positives", "ml_score_bin_score")
    )
    pairs = f"model_version_bin:ml_score_bin_ordered_pairs:increase{window.text}"
    for record, step in ((labels, _BIN_LABELS), (positives, _BIN_POSITIVES), (score, _BIN_SCORE)):
        yield Recording(record, window.sum(step))
    n = f"(sum without (bin) ({labels}) {_enough(settings)})"
    quality = qualities("quality", window)
    yield Recording(quality, f"{window.sum(_LOG_LOSS)} / {n}", {QUALITY_METRIC.name: "log_loss"})
    yield Recording(quality, f"{window.sum(_SQUARED)} / {n}", {QUALITY_METRIC.name: "brier"})
    # Less what chance alone makes of calibrated scores, with the variance of a bin's mean score.
    yield Recording(
        quality,
        f"clamp_min(\n"
        f"  sum without (bin) (abs({score} - {positives}))\n"
        f"  - {_CHANCE} * sum without (bin) (sqrt({score} * clamp_min(1 - {score} / ({labels} > 0), 0))),\n"
        f"  0\n"
        f") / {n}",
        {QUALITY_METRIC.name: "ece"},
    )
    # Positives in higher bins, and half of those in its own, are right about each negative of a bin.
    for place in range(settings.score_bins):
        own = f'{{bin="{place:02d}"}}'
        upto = '{bin=~"' + "|".join(f"{one:02d}" for one in range(place + 1)) + '"}'
        yield Recording(
            pairs,
            f"sum without (bin) ({labels}{own} - {positives}{own})\n"
            f"* (\n"
            f"  sum without (bin) ({positives})\n"
            f"  - sum without (bin) ({positives}{upto})\n"
            f"  + 0.5 * sum without (bin) ({positives}{own})\n"
            f")",
            {SCORE_BIN.name: f"{place:02d}"},
        )
    # Without a rule for each bin there is no area rather than a wrong one.
    total = f"sum without (bin) ({positives})"
    yield Recording(
        quality,
        f"sum without (bin) ({pairs})\n"
        f"/ ({total} * ({n} - {total}) > 0)\n"
        f'unless sum without (bin) ({labels}{{bin="{settings.score_bins:02d}"}})',
        {QUALITY_METRIC.name: "roc_auc"},
    )


def _verdicts(settings: Settings, window: Window) -> Iterator[Recording]:
    z = f"{thresholds.QUALITY_Z.value:.10g}"
    share, error = _of(_ABOVE, window), _of(_BELOW, window)
    n, m = _samples(_ABOVE, window), _samples(_BELOW, window)
    wilson = f"{z} * sqrt({share} * (1 - {share}) / {n} + {z}^2 / (4 * {n} ^ 2))"
    mean = (
        f"{z} * sqrt(\n"
        f"  clamp_min({window.sum(_SQUARED)} / ignoring (metric) {m} - ignoring (metric) {error} ^ 2, 0)\n"
        f"  / ignoring (metric) ({m} - 1)\n"
        f")"
    )
    for bound, sign in (("lower", "-"), ("upper", "+")):
        record = qualities(f"quality_{bound}", window)
        yield Recording(
            record,
            f"({share} + {z}^2 / (2 * {n}) {sign} {wilson})\n/ (1 + {z}^2 / {n})",
            {QUALITY_METRIC.name: _ABOVE},
        )
        yield Recording(record, f"{error} {sign} ignoring (metric)\n{mean}", {QUALITY_METRIC.name: _BELOW})
    by = settings.by(MODEL, VERSION, QUALITY_METRIC)
    for name, better, worse in ((_ABOVE, "upper", "<"), (_BELOW, "lower", ">")):
        one = f'{{{QUALITY_METRIC.name}="{name}"}}'
        baseline = f"max by ({by}) ({latest(metrics.QUALITY_BASELINE, one)})"
        tolerance = f"max by ({by}) ({latest(metrics.QUALITY_TOLERANCE, one)})"
        quality, bound = _of(name, window), qualities(f"quality_{better}", window) + one
        lost, limit = (
            (f"{baseline} - {quality}", f"({baseline} - {tolerance})")
            if name == _ABOVE
            else (f"{quality} - {baseline}", f"({baseline} + {tolerance})")
        )
        yield Recording(qualities("quality_lost", window), lost, {QUALITY_METRIC.name: name})
        yield Recording(
            qualities("quality_degraded", window), f"{bound} {worse} bool\n{limit}", {QUALITY_METRIC.name: name}
        )
