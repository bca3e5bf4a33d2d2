"""One version of a model at one moment: immutable, so that evaluating it can happen on another thread.

Scores are computed on first use from copied counters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from exporter.monitor.accuracy import AccuracyReadout, AccuracyTracker
from exporter.monitor.drift import DriftTracker
from exporter.monitor.faults import Alarms, Fault
from exporter.monitor.multivariate import MomentsReadout, MomentsTracker
from exporter.monitor.readout import DriftReadout, read
from exporter.monitor.reference import Reference
from exporter.monitor.settings import ModelSettings
from exporter.monitor.traffic import TrafficReadout, TrafficTracker
from exporter.stats import Counts

State = Literal["ok", "drifting", "learning", "insufficient_data", "borrowed_reference", "no_reference", "catching_up"]


@dataclass(frozen=True, slots=True)
class Segment:
    """The predictions of a version whose tag has this value, or (`other`) one that is not watched by itself.

    Not `known` are those that the reference has too few of, which are compared with the whole of it. `observer` reads
    its counts in the bins of the whole.
    """

    tag: str
    value: str
    known: bool
    observer: DriftTracker


@dataclass(frozen=True)
class ModelView:
    """One version of a model. Counter arrays are copies; `end_pane` is the window's last pane, if there is one.

    `segments` are its slices, each a view of its own with `segment` set, whose drift is seen at the edges of bins.
    """

    settings: ModelSettings
    version: str
    reference: Reference | None
    protected: bool
    learning: tuple[int, int] | None
    catching_up: bool
    end_pane: int | None
    last_prediction: float | None
    traffic: TrafficTracker
    traffic_lifetime: Counts
    traffic_window: Counts
    drift: DriftTracker | None
    drift_lifetime: Counts | None
    drift_window: Counts | None
    alarms: Alarms | None
    accuracy: AccuracyTracker | None
    accuracy_lifetime: Counts | None
    accuracy_window: Counts | None
    moments: MomentsTracker | None
    moments_lifetime: Counts | None
    moments_window: Counts | None
    segment: Segment | None = None
    segments: tuple["ModelView", ...] = ()

    @property
    def borrowed(self) -> bool:
        """Whether the reference is another version's, or that of a slice is the whole."""
        if self.segment is not None and not self.segment.known:
            return True
        return self.reference is not None and self.reference.version != self.version

    @property
    def window(self) -> tuple[float, float] | None:
        """Start and end of the window, epoch seconds; None before any event."""
        if self.end_pane is None:
            return None
        window = self.settings.window
        end = (self.end_pane + 1) * window.pane_s
        return end - window.seconds, end

    @cached_property
    def traffic_readout(self) -> TrafficReadout:
        """Traffic of the window."""
        return self.traffic.read(self.traffic_window)

    @cached_property
    def drift_readout(self) -> DriftReadout | None:
        """Scores of the window; None without a reference."""
        if self.drift is None or self.drift_window is None:
            return None
        return read(self.drift, self.drift_window)

    @cached_property
    def accuracy_readout(self) -> AccuracyReadout | None:
        """Quality of the window; None where it is not known what is predicted, or nobody ever told what was true."""
        if self.accuracy is None or self.accuracy_window is None or self.accuracy_lifetime is None:
            return None
        labelled = self.accuracy.task.counts or self.accuracy.outcomes.joined(self.accuracy_lifetime)
        return self.accuracy.read(self.accuracy_window, catching_up=self.catching_up) if labelled else None

    @cached_property
    def moments_readout(self) -> MomentsReadout | None:
        """Several inputs of the window together; None where the reference does not know enough of them."""
        if self.moments is None or self.moments_window is None or self.drift is None:
            return None
        return self.moments.read(self.moments_window, self.drift.alpha, catching_up=self.catching_up)

    @cached_property
    def drifted(self) -> Sequence[bool]:
        """The verdict on each feature; none is drifted while the source catches up."""
        readout = self.drift_readout
        if readout is None:
            return ()
        return [bool(value) and not self.catching_up for value in readout.drifted]

    @cached_property
    def listed(self) -> Sequence[bool]:
        """Which features to name when something has drifted; none while the source catches up."""
        readout = self.drift_readout
        return () if readout is None else [bool(value) and not self.catching_up for value in readout.listed]

    @cached_property
    def faults(self) -> Sequence[Sequence[Fault]]:
        """The data faults of each feature; none while the source catches up."""
        readout = self.drift_readout
        if readout is None or self.alarms is None:
            return ()
        return ((),) * len(readout.n) if self.catching_up else self.alarms.faults(readout)

    @cached_property
    def judged(self) -> NDArray[np.bool_]:
        """Which features have a verdict."""
        readout = self.drift_readout
        return np.zeros(0, np.bool_) if readout is None else np.isfinite(readout.psi) & (not self.catching_up)

    @cached_property
    def feature_states(self) -> Sequence[State]:
        """The state of each feature of the reference."""
        readout = self.drift_readout
        if readout is None:
            return ()
        return [
            self._feature_state(drifted, bool(enough))
            for drifted, enough in zip(self.drifted, readout.enough, strict=True)
        ]

    @cached_property
    def moment_states(self) -> Sequence[State]:
        """The state of each test of several inputs together."""
        readout = self.moments_readout
        return [] if readout is None else [self._feature_state(test.drifted, test.enough) for test in readout.tests]

    @cached_property
    def state(self) -> State:
        """The state of the model version: the worst that is known of it."""
        if self.learning is not None:
            return "learning"
        if self.reference is None:
            return "no_reference"
        for state in ("catching_up", "drifting", "borrowed_reference", "ok"):
            if state in (*self.feature_states, *self.moment_states):
                return state
        return "insufficient_data"

    def _feature_state(self, drifted: bool, enough: bool) -> State:
        if self.catching_up:
            return "catching_up"
        if not enough:
            return "insufficient_data"
        if drifted:
            return "drifting"
        return "borrowed_reference" if self.borrowed else "ok"
