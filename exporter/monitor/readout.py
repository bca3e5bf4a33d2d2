"""What the drift counters of a window say: every score of every feature, and the one definition of drifted.

A score is absent (NaN) with too little data, never 0, and none comes without what chance alone makes of it.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from exporter.catalog import thresholds
from exporter.monitor.drift import DriftTracker
from exporter.stats import Counts, Floats, distances, significance


@dataclass(frozen=True)
class DriftReadout:
    """Scores of one window, an element a feature in `tracker.features`; NaN where there is too little data.

    `n` counts values in live bins. `drifted` follows the one definition: n >= min_samples and PSI above both the
    threshold and its critical value, if the likelihood ratio agrees: far out in the tail, where a budget puts it, PSI
    alone passes the critical value too often when a bin is small. `extrapolated` features are calibrated from blocks
    smaller than the window, and must not page alone. `listed` are those to name when something has drifted: the effect
    is above the threshold, and among them at most a share (thresholds.FALSE_DISCOVERY_RATIO) is expected not to have
    changed at all.
    """

    tracker: DriftTracker
    counts: Counts
    n: Counts
    enough: NDArray[np.bool_]
    block: Counts  # which of the tracker's calibrations applies
    extrapolated: NDArray[np.bool_]
    psi: Floats
    psi_null_mean: Floats
    psi_critical: Floats
    js_divergence: Floats
    p_value: Floats
    p_above_threshold: Floats
    ks: Floats
    ks_upper: Floats
    ks_critical: Floats
    drifted: NDArray[np.bool_]
    listed: NDArray[np.bool_]

    @property
    def chi2_critical(self) -> Floats:
        """What PSI / (1/n + 1/m) must pass to be significant."""
        return _at(self.tracker.chi2_critical, self.block)

    @cached_property
    def bin_counts(self) -> Counts:
        """Window counts of every exported bin."""
        return self.tracker.bin_counts(self.counts)

    @cached_property
    def fault_ratios(self) -> Floats:
        """Share of each fault in the window [features, faults]; NaN without data."""
        with np.errstate(invalid="ignore"):
            return self.tracker.fault_counts(self.counts) / self.tracker.totals(self.counts)[:, None]


def read(tracker: DriftTracker, counts: Counts) -> DriftReadout:
    """Every score of a window's counts."""
    settings = tracker.settings
    current = tracker.bin_counts(counts)[tracker.live]
    starts = tracker.live_starts
    n = np.add.reduceat(current, starts)
    enough = n >= max(settings.min_samples, 1)
    scale = np.where(enough, significance.psi_scale(tracker.reference_n, n), np.nan)
    block = tracker.calibrations.place(n)
    g, freedom = _at(tracker.calibrations.g, block), _at(tracker.freedom, block)
    freedom_ratio = _at(tracker.calibrations.freedom_ratio, block)
    share, reference = distances.smoothed(current, starts), tracker.live_reference_share
    psi = np.where(enough & (tracker.live_bins > 1), distances.psi(reference, share, starts), np.nan)
    chi2_critical = _at(tracker.chi2_critical, block)
    critical = scale * chi2_critical
    likelihood_ratio = significance.likelihood_ratio(tracker.live_reference, current, starts)
    pearson = significance.pearson_p(tracker.live_reference, current, starts, g, freedom_ratio)
    p_value = np.where(np.isnan(psi), np.nan, pearson)
    ks, ks_upper, ks_critical = (np.full(len(n), np.nan) for _ in range(3))
    numeric = tracker.numeric
    if len(numeric):
        cells = counts[tracker.cell_slots]
        values = np.add.reduceat(cells, tracker.cell_starts)
        known = np.where(values >= max(settings.min_samples, 1), 1.0, np.nan)
        lower, upper = distances.ks(tracker.reference_cdf, cells, tracker.cell_starts)
        ks[numeric], ks_upper[numeric] = lower * known, upper * known
        reference_values = np.add.reduceat(tracker.reference_cells, tracker.cell_starts)
        ks_critical[numeric] = significance.ks_critical(reference_values, values, tracker.alpha) * known
    with np.errstate(invalid="ignore"):
        effect = enough & (psi > tracker.thresholds)
        drifted = effect & (psi > critical) & (likelihood_ratio > chi2_critical)
    # A feature without an effect stays one of the hypotheses: leaving it out would make the others look fewer.
    suspected = np.where(effect | np.isnan(p_value), p_value, 1.0)
    return DriftReadout(
        tracker=tracker,
        counts=counts,
        n=n,
        enough=enough,
        block=block,
        extrapolated=tracker.calibrations.extrapolated(n),
        psi=psi,
        psi_null_mean=significance.psi_null_mean(g * scale, freedom),
        psi_critical=critical,
        js_divergence=np.where(np.isnan(psi), np.nan, distances.js_divergence(reference, share, starts)),
        p_value=p_value,
        p_above_threshold=significance.p_above(psi, tracker.thresholds, g * scale, freedom),
        ks=ks,
        ks_upper=ks_upper,
        ks_critical=ks_critical,
        drifted=drifted,
        listed=significance.discoveries(suspected, thresholds.FALSE_DISCOVERY_RATIO.value),
    )


def _at(values: Floats, block: Counts) -> Floats:
    """The element of each feature [features, block sizes] that its window is judged by."""
    return values[np.arange(len(block)), block]
