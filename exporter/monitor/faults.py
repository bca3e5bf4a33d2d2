"""Data faults: rates of bad values that have risen above what the reference lets expect, and since when.

Every rate of every feature (missing, of the wrong type, not finite, out of range, unseen) has a Shiryaev-Roberts
e-detector of its own, a fold over sealed panes: each is folded once, and in order. An alarm starts the evidence of its
rate again, so that a fault which lasts raises the next alarm; it is active while the last one lies in the window.

The bound: while none of R rates is above its limit, row by row and whatever went before, false alarms are at most
`level` a pane and rate on average. The level is a share of the budget (thresholds.FAULT_BUDGET_RATIO) over R and the
panes of the period: in a period all R together raise at most that share of its pages on average, and P(any) is no more.
How rates depend on each other does not matter. A burst that takes a rate above its limit is what it is all for.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exporter.catalog import thresholds
from exporter.monitor.drift import DriftTracker
from exporter.monitor.entries import FaultsEntry
from exporter.monitor.evidence import Evidence
from exporter.monitor.features import Feature, Numeric
from exporter.monitor.panes import OUTSIDE, PaneRing
from exporter.monitor.plan import FAULTS, FeaturePlan
from exporter.monitor.readout import DriftReadout
from exporter.monitor.state import EVIDENCE, Piece
from exporter.stats import Counts, Floats, significance
from exporter.stats.sequential import ShiryaevRoberts

_CONFIDENCE = 0.999
_Z = 3.29  # two-sided 99.9 %


@dataclass(frozen=True)
class Fault:
    """A rate of bad values that rose above its limit within the window.

    `ratio` is the window's, of `n` values, with its 99.9 % interval; `reference` what the reference lets expect;
    `since` the start of the pane that gave the first alarm, epoch seconds.
    """

    reason: str
    ratio: float
    lower: float
    upper: float
    reference: float
    limit: float
    n: int
    since: float


@dataclass(frozen=True, eq=False)
class Alarms:
    """What a detector says at one moment, an element a feature and fault; the arrays never change."""

    level: float
    expected: Floats
    limits: Floats
    active: NDArray[np.bool_]
    since: Counts

    @property
    def watched(self) -> NDArray[np.bool_]:
        """Which features have a rate that is watched [features]."""
        return np.asarray(np.isfinite(self.limits).any(axis=1))

    def faults(self, readout: DriftReadout) -> Sequence[Sequence[Fault]]:
        """The faults of each feature, with the numbers of a window."""
        tracker, pane_s = readout.tracker, readout.tracker.settings.window.pane_s
        totals = tracker.totals(readout.counts)
        bad, n = (np.asarray(part, np.float64) for part in (tracker.fault_counts(readout.counts), totals[:, None]))
        lower, upper = significance.wilson(bad, n, _Z)
        return [
            [
                Fault(
                    FAULTS[j],
                    float(readout.fault_ratios[i, j]),
                    float(lower[i, j]),
                    float(upper[i, j]),
                    float(self.expected[i, j]),
                    float(self.limits[i, j]),
                    int(totals[i]),
                    float(self.since[i, j] * pane_s),
                )
                for j in np.flatnonzero(self.active[i])
            ]
            for i in range(len(totals))
        ]

    def verdicts(self, readout: DriftReadout) -> Floats:
        """1 for a feature with a fault, else 0 [features]; NaN with too few values to say that there is none."""
        totals = readout.tracker.totals(readout.counts)
        enough = self.watched & (totals >= max(readout.tracker.settings.min_samples, 1))
        faulty = self.active.any(axis=1)
        return np.where(faulty | enough, faulty.astype(np.float64), np.nan)


class FaultDetector:
    """Evidence for faults of one version against one reference, and the pane up to which it goes."""

    def __init__(self, tracker: DriftTracker) -> None:
        self._window = tracker.settings.window
        self._expected, self._limits = limits(tracker.features)
        self._watched = ~np.isnan(self._limits)
        self._feature = np.nonzero(self._watched)[0]
        self._p_null = self._limits[self._watched]
        self.level = tracker.settings.fault_level(len(self._feature))
        self._evidence = Evidence.none(len(self._feature))
        self._sealed = OUTSIDE
        self._changed = False

    def seal(self, end: int, tracker: DriftTracker, ring: PaneRing) -> None:
        """Fold those of the ring's panes in that are sealed while the window ends at pane `end`."""
        last = self._window.sealed(end)
        for pane in sorted(pane for pane in ring.panes if self._sealed < pane <= last):
            counts = ring.counts(pane)
            self.fold(pane, tracker.fault_counts(counts), tracker.totals(counts))
        self._sealed = max(self._sealed, last)

    def fold(self, pane: int, bad: Counts, n: Counts) -> None:
        """Learn from the next pane: bad values [features, faults] of `n` values [features]."""
        known = self._evidence
        detector = ShiryaevRoberts(self._p_null, known.log_m).update(bad[self._watched], n[self._feature])
        alarms = detector.alarms(1 / self.level)
        fresh = alarms & (known.alarmed < pane - self._window.panes)
        self._evidence = Evidence(
            detector.restart(alarms).log_m,
            np.where(alarms, pane, known.alarmed),
            np.where(fresh, pane, known.since),
        )
        self._changed = True

    def alarms(self, left: int) -> Alarms:
        """What is to be said while pane `left` is the last that the window has left behind."""
        active, since = np.zeros_like(self._watched), np.full(self._watched.shape, OUTSIDE)
        active[self._watched] = self._evidence.alarmed > left
        since[self._watched] = self._evidence.since
        return Alarms(self.level, self._expected, self._limits, active, since)

    def merge(self, other: "FaultDetector") -> None:
        """Add another process's evidence, as of a detector that has lived through the panes of both.

        It is not what one process with the rows of both would have: evidence of sealed panes does not add up.
        """
        ours, theirs = self._evidence, other._evidence
        self._evidence = Evidence(
            np.logaddexp(ours.log_m, theirs.log_m),
            np.maximum(ours.alarmed, theirs.alarmed),
            np.where(theirs.alarmed > ours.alarmed, theirs.since, ours.since),
        )
        self._sealed = max(self._sealed, other._sealed)
        self._changed = True

    # ---- state -----------------------------------------------------------------------------------------------------

    def pieces(self) -> AbstractSet[Piece]:
        """The evidence."""
        return {EVIDENCE}

    def piece(self, piece: Piece) -> bytes:
        """It."""
        assert piece == EVIDENCE  # noqa: S101 - the only piece
        return self._evidence.pack()

    def take_changed(self) -> AbstractSet[Piece]:
        """The evidence, if a pane was folded in since the last call."""
        changed, self._changed = self._changed, False
        return self.pieces() if changed else frozenset()

    def entry(self) -> FaultsEntry:
        """How many rates there are, and how far panes are folded in."""
        return FaultsEntry(len(self._feature), self._sealed)

    def load(self, entry: FaultsEntry, evidence: Evidence) -> None:
        """Take over evidence from equal windows; not of other rates."""
        if entry.rates == len(self._feature):
            self._sealed, self._evidence = entry.sealed, evidence


def limits(features: Sequence[FeaturePlan]) -> tuple[Floats, Floats]:
    """Of each fault the share to be expected, and the highest that is in order [features, faults]; NaN for none.

    In order is what the reference leaves possible at 99.9 %, or its own share and a tolerance where that is more. A
    rate that cannot rise above that has no limit.
    """
    bad, n = np.zeros((2, len(features), len(FAULTS)), np.int64)
    for i, plan in enumerate(features):
        known = _in_reference(plan.feature)
        for j in set(plan.fault_of_slot.tolist()) - {-1}:
            bad[i, j], n[i, j] = known[FAULTS[j]]
    with np.errstate(invalid="ignore"):
        expected = bad / n
    limit = np.fmax(expected + thresholds.FAULT_TOLERANCE.value, significance.highest_rate(bad, n, _CONFIDENCE))
    return expected, np.where(limit < 1, limit, np.nan)


def _in_reference(feature: Feature) -> dict[str, tuple[int, int]]:
    """Values with each fault, of how many: counted, or as many as tell the same of values that the reference lacks.

    Beyond the extremes of n values lies a share of Beta(2, n - 1), which is also what one bad of n leaves open. Values
    that were not seen have about the share of those seen once (Good 1953, Biometrika 40); where most occurred once or
    twice, the limit that follows was simulated to be passed by 3 % of references rather than by one in a thousand.
    """
    values = feature.values
    rows = values + feature.missing + feature.wrong_type
    if not isinstance(feature, Numeric):
        unseen = feature.singletons, values
        return {"missing": (feature.missing, rows), "wrong_type": (feature.wrong_type, rows), "unseen": unseen}
    rows += feature.non_finite
    return {
        "missing": (feature.missing, rows),
        "wrong_type": (feature.wrong_type, rows),
        "non_finite": (feature.non_finite, rows),
        "out_of_range": (1, values),
        "unseen": (feature.cells.count(1), values),
    }
