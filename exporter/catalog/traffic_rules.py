"""Traffic, failures and latency of the fleet, and how fast the failures use up the error budget."""

from collections.abc import Iterator

from exporter.catalog import metrics
from exporter.catalog.labels import MODEL, QUANTILE, VERSION
from exporter.catalog.rules import LE, STEP, Group, Recording, Settings, Window, latest

ROLE = next(label for label in metrics.MODEL_INFO.labels if label.name == "role")
ROLES = ("canary", "primary")
"""Of those of `info.role`, the two that are compared."""
QUANTILES = ("0.5", "0.95", "0.99")
BURN_WINDOWS = tuple(map(Window, ("30m", "1h", "2h", "6h", "1d")))
"""Those of the burn alerts; beside each long one there is a short one, which says that it still burns."""
QUARTER = Window("15m")
"""As short as traffic can be judged by."""
_COUNTED = (("predictions", metrics.PREDICTIONS), ("prediction_errors", metrics.PREDICTION_ERRORS))
_BUCKETS = f"model_version_le:ml_prediction_duration_seconds_bucket:increase{STEP}"


def traffic(name: str, window: str) -> str:
    """The record of a version's `predictions`, `prediction_errors` or their ratio, e.g. over `1h`."""
    return f"model_version:ml_{name}:increase{window}"


def of_role(name: str, window: Window) -> str:
    """The record of `predictions` or `prediction_errors` by the role of the version, e.g. canary."""
    return f"model_role:ml_{name}:increase{window.text}"


def latency(window: Window) -> str:
    """The record of latency by quantile, in seconds."""
    return f"model_version_objective_quantile:ml_prediction_duration_seconds:increase{window.text}"


def standard_error(share: str, *counts: str) -> str:
    """What chance makes of a difference of shares, of so many predictions each, if both are the same (two-sample z)."""
    inverse = " + ".join(f"1 / {count}" for count in counts)
    return f"sqrt(\n  {share} * (1 - {share})\n  * ({inverse})\n)"


def traffic_steps(settings: Settings) -> Iterator[Recording]:
    """Predictions, failures and latencies."""
    by = settings.by(MODEL, VERSION)
    for record, metric in _COUNTED:
        yield Recording(traffic(record, STEP), f"sum by ({by}) (increase({metric.name}[{STEP}]))")
    buckets = f"{metrics.PREDICTION_DURATION.name}_bucket"
    yield Recording(_BUCKETS, f"sum by ({settings.by(MODEL, VERSION, LE)}) (increase({buckets}[{STEP}]))")


def traffic_group(settings: Settings) -> Group:
    """What every window says."""
    return Group("model-health-traffic", tuple(_rules(settings)))


def _rules(settings: Settings) -> Iterator[Recording]:
    by = settings.by(MODEL, VERSION)
    # Of the last minutes, not of the last step, which may be that old itself.
    predictions, errors = (f"sum by ({by}) (increase({metric.name}[{STEP}]))" for _, metric in _COUNTED)
    yield from _failures(settings, STEP, errors, predictions)
    windows = sorted({*settings.windows, *BURN_WINDOWS, QUARTER}, key=lambda window: window.minutes)
    for window in windows:
        records = {name: traffic(name, window.text) for name, _ in _COUNTED}
        for name, record in records.items():
            yield Recording(record, window.sum(traffic(name, STEP)))
        yield from _failures(settings, window.text, records["prediction_errors"], records["predictions"])
    for window in settings.windows:
        for name, _ in _COUNTED:
            for role in ROLES:
                one = f'{{{ROLE.name}="{role}"}}'
                # While a version is promoted its replicas differ, and it counts for both. Were the label joined, the
                # rule would fail then, for every model.
                yield Recording(
                    of_role(name, window),
                    f"sum by ({settings.by(MODEL)}) (\n"
                    f"  {traffic(name, window.text)}\n"
                    f"  and on ({by}) {latest(metrics.MODEL_INFO, one)}\n"
                    f")",
                    {ROLE.name: role},
                )
        for quantile in QUANTILES:
            yield Recording(
                latency(window), f"histogram_quantile({quantile}, {window.sum(_BUCKETS)})", {QUANTILE.name: quantile}
            )


def _failures(settings: Settings, window: str, errors: str, predictions: str) -> Iterator[Recording]:
    ratio = traffic("prediction_errors_ratio", window)
    yield Recording(ratio, f"{errors} / ({predictions} > 0)")
    by = settings.by(MODEL, VERSION)
    budget = f"max by ({by}) ({latest(metrics.ERROR_BUDGET)})"
    yield Recording(traffic("prediction_errors_burn", window), f"{ratio}\n/ on ({by})\n{budget}")
