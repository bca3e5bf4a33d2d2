"""Drift of the fleet, from counters of all replicas: what one process would say that had seen every prediction.

Scores of replicas are never averaged: PSI is biased by (B - 1) (1/n + 1/m), so that twenty healthy replicas of 100
samples each would show a drift of 0.1. Shares, PSI and its critical value are the formulas of the exporter, on live
bins only. **Drifted = n >= min_samples AND psi > threshold AND psi > psi_critical.**
An exporter asks the likelihood ratio of its counts as well (monitor.readout), the rules do not: see docs/reading.md.
"""

from collections.abc import Iterator

from exporter.catalog import metrics
from exporter.catalog.labels import BIN, FEATURE, KIND, MODEL, REFERENCE, VERSION
from exporter.catalog.rules import STEP, Group, Recording, Settings, Window, latest

_FEATURE = "model_version_feature"
_BIN = "model_version_feature_bin"
OBSERVATIONS = f"{_BIN}:ml_feature_bin_observations:increase{STEP}"
"""The record of steps: values by bin."""
_RATIO = f"{_BIN}:ml_feature_reference_ratio:max"
_COUNT = f"{_BIN}:ml_feature_reference_observations:max"
_SAMPLES = f"{_FEATURE}:ml_feature_reference_samples:max"
_CHI2 = f"{_FEATURE}:ml_feature_reference_chi2_critical:max"
_ORDINALS = '{bin=~"[0-9]+"}'
"""Bins of numbers; categories and specials have no order, and no KS."""


def scores(name: str, window: Window) -> str:
    """The record of a feature's score over a window, e.g. `psi`, `ks`, `drifted`."""
    return f"{_FEATURE}:ml_feature_{name}:increase{window.text}"


def counts(name: str, window: Window) -> str:
    """The record of how many inputs of a version are `drifted` or `evaluated`."""
    return f"model_version:ml_inputs_{name}:increase{window.text}"


def drift_steps(settings: Settings) -> Iterator[Recording]:
    """Values by bin."""
    binned = settings.by(MODEL, VERSION, REFERENCE, KIND, FEATURE, BIN)
    yield Recording(OBSERVATIONS, f"sum by ({binned}) (increase({metrics.BIN_OBSERVATIONS.name}[{STEP}]))")


def drift_group(settings: Settings) -> Group:
    """References, and the scores of every window."""
    return Group("model-health-drift", tuple(_rules(settings)))


def _rules(settings: Settings) -> Iterator[Recording]:
    feature = settings.by(MODEL, VERSION, REFERENCE, KIND, FEATURE)
    # Every replica exports its references: they are the same, and count once.
    yield Recording(_RATIO, f"max by ({feature}, {BIN.name}) ({latest(metrics.REFERENCE_RATIO)})")
    yield Recording(_SAMPLES, f"max by ({feature}) ({latest(metrics.REFERENCE_SAMPLES)})")
    yield Recording(_CHI2, f"max by ({feature}) ({latest(metrics.REFERENCE_CHI2_CRITICAL)})")
    # Shares are exported smoothed; KS has none of that.
    yield Recording(
        _COUNT, f"{_RATIO}\n* ignoring (bin) group_left ()\n({_SAMPLES} + 0.5 * count without (bin) ({_RATIO}))\n- 0.5"
    )
    for window in settings.windows:
        yield from _windowed(settings, window)


def _windowed(settings: Settings, window: Window) -> Iterator[Recording]:
    version = settings.by(MODEL, VERSION)
    threshold = settings.by(MODEL, VERSION, KIND, FEATURE)
    live = f"{_BIN}:ml_feature_live_observations:increase{window.text}"
    share = f"{_BIN}:ml_feature_ratio:increase{window.text}"
    gap = f"{_BIN}:ml_feature_cdf_gap:increase{window.text}"
    n, psi, critical = scores("live_observations", window), scores("psi", window), scores("psi_critical", window)
    drifted = scores("drifted", window)
    # A bin that was never seen counts 0; one that the reference does not have does not count.
    yield Recording(live, f"({window.sum(OBSERVATIONS)} or 0 * {_RATIO})\nand {_RATIO}")
    yield Recording(n, f"sum without (bin) ({live})")
    # Absent below min_samples, and with it everything that is made of it.
    yield Recording(
        share,
        f"({live} + 0.5)\n"
        f"/ ignoring (bin) group_left ()\n"
        f"(\n"
        f"  (\n"
        f"    {n}\n"
        f"    >= on ({version}) group_left ()\n"
        f"    max by ({version}) ({latest(metrics.DRIFT_MIN_SAMPLES)})\n"
        f"  )\n"
        f"  + 0.5 * count without (bin) ({_RATIO})\n"
        f")",
    )
    yield Recording(psi, f"sum without (bin) (\n  ({share} - {_RATIO})\n  * ln({share} / {_RATIO})\n)")
    yield Recording(critical, f"{_CHI2} * (1 / ({n} > 0) + 1 / {_SAMPLES})")
    yield Recording(
        scores("js_divergence", window),
        f"0.5 * sum without (bin) (\n"
        f"  {share} * ln(2 * {share} / ({share} + {_RATIO}))\n"
        f"  + {_RATIO} * ln(2 * {_RATIO} / ({share} + {_RATIO}))\n"
        f")",
    )
    # The largest gap at the edges of the bins is a lower bound of KS; bins beyond the last cut only make it lower.
    for last in range(settings.bins - 1):
        upto = '{bin=~"' + "|".join(f"{place:02d}" for place in range(last + 1)) + '"}'
        yield Recording(
            gap,
            f"abs(\n"
            f"  sum without (bin) ({live}{upto}) / (sum without (bin) ({live}{_ORDINALS}) > 0)\n"
            f"  - sum without (bin) ({_COUNT}{upto}) / sum without (bin) ({_COUNT}{_ORDINALS})\n"
            f")",
            {"bin": f"{last:02d}"},
        )
    yield Recording(scores("ks", window), f"max without (bin) ({gap})\nand {psi}")
    # Kolmogorov's law in its first term: exact to a thousandth for levels below 0.05.
    yield Recording(
        scores("ks_critical", window),
        f"sqrt(1 / ({n} > 0) + 1 / {_SAMPLES})\n"
        f"* on ({version}) group_left ()\n"
        f"sqrt(-0.5 * ln(max by ({version}) ({latest(metrics.DRIFT_ALPHA)}) / 2))",
    )
    yield Recording(
        drifted,
        f"(\n"
        f"  {psi}\n"
        f"  > bool on ({threshold}) group_left ()\n"
        f"  max by ({threshold}) ({latest(metrics.DRIFT_THRESHOLD)})\n"
        f")\n"
        f"* ({psi} > bool {critical})",
    )
    inputs = f'{drifted}{{{KIND.name}="input"}}'
    yield Recording(counts("drifted", window), f"sum by ({version}) ({inputs})")
    yield Recording(counts("evaluated", window), f"count by ({version}) ({inputs})")
