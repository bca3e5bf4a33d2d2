"""Every alert about models. Each joins conditions, none of which is worth waking anyone for alone.

Thresholds that models may differ in are series, so that another value needs no other rule. Drift alone is a ticket; it
pages with its consequences. What stops drift from being judged is an alert too: absence never looks like health.
"""

from collections.abc import Iterator

from exporter.catalog import drift_rules, metrics, quality_rules, thresholds, traffic_rules
from exporter.catalog.labels import FEATURE, KIND, MODEL, QUALITY_METRIC, VERSION
from exporter.catalog.process_alerts import process_alerts
from exporter.catalog.rules import Alert, Group, Settings, Severity, Window, latest
from exporter.catalog.threshold_rules import threshold

GROUP = "model-health-alerts"
"""Name of the group of all alerts."""

_VERSION = (MODEL.name, VERSION.name)
_WHO = "{{ $labels.model }} {{ $labels.version }}"
_POLLUTED = "1h"
"""How long what inhibits drift outlasts its cause: what came of it is still in the window, and would page after all."""
_BURNS: tuple[tuple[str, str, str, str, Severity], ...] = (
    ("14.4", "1h", "5m", "2m", "critical"),
    ("6", "6h", "30m", "15m", "critical"),
    ("3", "1d", "2h", "1h", "warning"),
)
"""How many times too fast, over which windows, for how long: 2 %, 5 % and 10 % of a month's budget are gone by then.

Beyer, Murphy, Rensin, Kawahara & Thorne 2018 (The Site Reliability Workbook, chapter 5).
"""


def alert_group(settings: Settings) -> Group:
    """All alerts, of models and of exporters."""
    window = settings.windows[0]
    models = (*_drift(settings, window), *_quality(settings, window), *_serving(settings, window), *_feed(settings))
    return Group(GROUP, (*models, *process_alerts(settings)), interval="1m")


def _drift(settings: Settings, window: Window) -> Iterator[Alert]:
    by, feature = settings.by(MODEL, VERSION), settings.by(MODEL, VERSION, KIND, FEATURE)
    psi, drifted = drift_rules.scores("psi", window), drift_rules.scores("drifted", window)
    inputs, evaluated = drift_rules.counts("drifted", window), drift_rules.counts("evaluated", window)
    yield Alert(
        "MLFeatureDrift",
        f"{psi}\nand\n{drifted} == 1",
        "warning",
        "data",
        f"Feature {{{{ $labels.feature }}}} of {_WHO} has drifted.",
        f'PSI over {window.text} is {{{{ $value | printf "%.3f" }}}}: above the threshold of the feature, and '
        f"above what chance makes of so many samples.",
        (*_VERSION, FEATURE.name),
        pending="30m",
        keep="15m",
        dashboard="model-health-feature",
    )
    yield Alert(
        "MLModelDrift",
        f"(\n"
        f"  {inputs} / {evaluated}\n"
        f"  >= max by ({by}) ({latest(metrics.DRIFTED_FEATURES_THRESHOLD)})\n"
        f")\n"
        f'and on ({by})\nmax by ({by}) ({drifted}{{kind=~"output|score"}}) == 1\n'
        # One alone whose calibration is extrapolated proves too little; where nobody says so, it is not.
        f"and on ({by})\n(\n"
        f"  {inputs} > 1\n"
        f"  or\n"
        f'  {drifted}{{kind="input"}} == 1\n'
        f"  unless on ({feature})\n"
        f"  min by ({feature}) ({latest(metrics.DRIFT_PAGING)}) == 0\n"
        f")\n"
        # Of a version trained anew predictions differ from those of the one before, and its inputs may be meant to.
        f"unless on ({by})\nmax by ({by}) ({latest(metrics.REFERENCE_BORROWED)}) == 1",
        "critical",
        "model",
        f"Inputs and predictions of {_WHO} have both drifted.",
        f"{{{{ $value | humanizePercentage }}}} of the inputs have drifted over {window.text}, and so have the "
        f"predictions or their score.",
        _VERSION,
        pending="15m",
        keep="15m",
    )
    yield Alert(
        "MLStaleModelDrifting",
        f"(\n"
        f"  time() - max by ({by}) ({latest(metrics.TRAINED_TIMESTAMP)})\n"
        f"  > max by ({by}) ({latest(metrics.MAX_AGE)})\n"
        f")\n"
        f"and on ({by})\n{inputs} > 0",
        "warning",
        "model",
        f"{_WHO} is older than it should be, and its inputs drift.",
        f"It was trained {{{{ $value | humanizeDuration }}}} ago. Inputs have drifted over {window.text}: retrain.",
        _VERSION,
        pending="1h",
    )
    yield Alert(
        "MLDriftNotEvaluable",
        f"{traffic_rules.traffic('predictions', window.text)} > 0\nunless on ({by})\n{evaluated}",
        "info",
        "model",
        f"Drift of {_WHO} cannot be judged.",
        f"{{{{ $value | humanize }}}} predictions over {window.text}, but no input has a reference and enough samples.",
        _VERSION,
        pending="2h",
    )


def _quality(settings: Settings, window: Window) -> Iterator[Alert]:
    by = settings.by(MODEL, VERSION)
    lost = quality_rules.qualities("quality_lost", window)
    degraded = f"{lost}\nand\n{quality_rules.qualities('quality_degraded', window)} == 1"
    # Drift that comes and goes, as where samples are hardly enough, would keep both alerts from holding long enough.
    drifted = f"on ({by})\nmax_over_time({drift_rules.counts('drifted', window)}[30m]) > 0"
    worse = (
        f'{{{{ $labels.metric }}}} over {window.text} is {{{{ $value | printf "%.3f" }}}} worse than its baseline: '
        f"more than tolerated, even at the better bound of its interval."
    )
    yield Alert(
        "MLModelRollbackAdvised",
        f"{degraded}\nand {drifted}",
        "critical",
        "model",
        f"{_WHO} has become worse while its inputs drift: roll back.",
        f"{worse} Inputs have drifted.",
        (*_VERSION, QUALITY_METRIC.name),
        pending="15m",
        keep="15m",
        extra={"action": "rollback"},
    )
    yield Alert(
        "MLConceptDriftSuspected",
        f"{degraded}\nunless {drifted}",
        "warning",
        "model",
        f"{_WHO} has become worse, and no drift of its inputs tells why.",
        f"{worse} What the inputs stand for may have changed.",
        (*_VERSION, QUALITY_METRIC.name),
        pending="1h",
    )
    now, yesterday, week_ago = (
        f"sum without (predicted, actual) ({Window('2h').sum(quality_rules.JOINED, offset)})"
        for offset in ("", "1d", "7d")
    )
    yield Alert(
        "MLLabelPipelineStopped",
        f"{yesterday} > {thresholds.STOPPED_LABELS.count}\n"
        f"and\n({now} or 0 * {yesterday}) == 0\n"
        f"and\n{traffic_rules.traffic('predictions', window.text)} > 0\n"
        # As on nights or weekends without labels, of which the day before knows the nights.
        f"unless\n{week_ago} == 0",
        "warning",
        "labels",
        f"Labels of {_WHO} no longer come.",
        "None was joined for 2 hours, in which there were {{ $value | humanize }} a day before; predictions are still "
        "made. Qualities are those of old predictions, or absent.",
        _VERSION,
        pending="30m",
    )


def _serving(settings: Settings, window: Window) -> Iterator[Alert]:
    yield _canary(window)
    for factor, long, short, pending, severity in _BURNS:
        burn = [traffic_rules.traffic("prediction_errors_burn", one) for one in (long, short)]
        yield Alert(
            "MLErrorBudgetBurn",
            f"{burn[0]} > {factor}\nand\n{burn[1]} > {factor}\n"
            f"and\n{traffic_rules.traffic('prediction_errors', long)} >= {thresholds.BURN_ERRORS.count}",
            severity,
            "serving",
            f"Predictions of {_WHO} fail too often.",
            f'Over {long}, failures used the error budget {{{{ $value | printf "%.1f" }}}} times as fast as it lasts, '
            f"and over {short} they still do.",
            _VERSION,
            pending=pending,
            extra={"window": long},
        )
    model = settings.by(MODEL)
    predictions = traffic_rules.traffic("predictions", traffic_rules.QUARTER.text)
    now, yesterday, week_ago = (
        f"sum by ({model}) ({predictions}{offset})" for offset in ("", " offset 1d", " offset 7d")
    )
    ratio = threshold(thresholds.TRAFFIC_RATIO)
    yield Alert(
        "MLPredictionTrafficAbsent",
        f"({now} or 0 * {yesterday}) < {ratio} * {yesterday}\n"
        f"and\n{yesterday} > {threshold(thresholds.TRAFFIC_PREDICTIONS)}\n"
        # A weekend that is as quiet as the last one is no stop.
        f"unless\n({now} or 0 * {yesterday}) >= {ratio} * {week_ago}",
        "warning",
        "serving",
        "Hardly any predictions of {{ $labels.model }} arrive.",
        "{{ $value | humanize }} in 15 minutes, far fewer than a day before. Either the model is "
        "not asked, or its events do not arrive.",
        (MODEL.name,),
        pending="15m",
    )


def _canary(window: Window) -> Alert:
    errors, predictions = (traffic_rules.of_role(name, window) for name in ("prediction_errors", "predictions"))

    def of(record: str, role: str) -> str:
        return f'sum without (role) ({record}{{role=~"{role}"}})'

    both = f"({of(errors, 'canary|primary')} / {of(predictions, 'canary|primary')})"
    noise = traffic_rules.standard_error(both, *(of(predictions, role) for role in traffic_rules.ROLES))
    least = threshold(thresholds.CANARY_PREDICTIONS)
    return Alert(
        "MLCanaryWorseThanPrimary",
        f"{of(errors, 'canary')}\n"
        f"/ ({of(predictions, 'canary')} >= {least})\n"
        f"> {of(errors, 'primary')}\n"
        f"/ ({of(predictions, 'primary')} >= {least})\n"
        f"+ {threshold(thresholds.CANARY_MARGIN)}\n"
        f"+ {threshold(thresholds.CANARY_Z)} * {noise}",
        "critical",
        "model",
        "The canary of {{ $labels.model }} fails more often than its primary: roll back.",
        f"{{{{ $value | humanizePercentage }}}} of the canary's predictions failed over {window.text}: more than of "
        f"the primary's, by a margin and more than chance makes of it.",
        (MODEL.name,),
        pending="5m",
        keep="15m",
        dashboard="model-health-canary",
        extra={"action": "rollback"},
    )


def _feed(settings: Settings) -> Iterator[Alert]:
    by, feature = settings.by(MODEL, VERSION), settings.by(MODEL, VERSION, KIND, FEATURE)
    of_model = f"on ({settings.by(MODEL)}) group_left ()"
    half = Window("30m")
    values = drift_rules.OBSERVATIONS + '{kind="input"}'
    bad = drift_rules.OBSERVATIONS + '{kind="input",bin=~"missing|invalid|unseen"}'
    yield Alert(
        "MLInputPipelineFailure",
        f"count by ({by}) (\n"
        f"  sum by ({feature}) ({half.sum(bad)})\n"
        f"  / sum by ({feature}) ({half.sum(values)})\n"
        f"  > {of_model} {threshold(thresholds.FAULTY_RATIO)}\n"
        f"  and on ({feature})\n"
        f"  max by ({feature}) ({latest(metrics.FAULTY)}) == 1\n"
        f") >= {of_model} {threshold(thresholds.FAULTY_FEATURES)}",
        "critical",
        "data",
        f"Inputs of {_WHO} fail together.",
        "Far more values than is in order were missing, invalid or unseen over 30 minutes, in so many inputs at the "
        "same time: {{ $value }}. Look upstream, not at the model.",
        _VERSION,
        pending="10m",
        keep=_POLLUTED,
        dashboard="model-health-feature",
    )
    state = f'max by ({by}) ({metrics.FEATURE_STATE.name}{{state="catching_up"}})'
    yield Alert(
        "MLFeedCatchingUp",
        f"{state} == 1\nand on ({by})\n{traffic_rules.traffic('predictions', traffic_rules.QUARTER.text)} > 0",
        "info",
        "exporter",
        f"Predictions of {_WHO} are read with delay.",
        "Events are more than a window behind, and are being caught up with. Until then nothing is judged.",
        _VERSION,
        pending="10m",
        keep=_POLLUTED,
        dashboard="model-health-exporter",
    )
