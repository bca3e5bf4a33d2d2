"""What a model's owner can set, resolved to plain values. Built from configuration on the top floor."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from exporter.catalog import thresholds
from exporter.monitor.events import ErrorReasons, FeatureKey
from exporter.monitor.panes import Window, sliding_window
from exporter.stats import significance


@dataclass(frozen=True, slots=True)
class Budget:
    """How many false pages a model may cause in a period."""

    pages: float = thresholds.BUDGET_PAGES.value
    per_s: float = thresholds.BUDGET_PER_S.value


class Segmentation(NamedTuple):
    """A tag whose `top` most frequent values are watched one by one, and the others together."""

    tag: str
    top: int = thresholds.SEGMENT_TOP.count


@dataclass(frozen=True, slots=True)
class JoinSettings:
    """How long predictions wait for labels that come alone, how many may wait, and which share of ids is looked at."""

    maturity_s: float
    max_pending: int = thresholds.MAX_PENDING.count
    sample: float = 1.0


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Settings of one model; the defaults and their reasons stand in catalog.thresholds.

    `alpha` is the level of each test if it was set; otherwise it follows from the budget, of which drift and data
    faults have a share each (see `level` and `fault_level`).
    """

    name: str
    configured: bool = True
    version: str | None = None
    window: Window = field(default_factory=lambda: sliding_window(thresholds.WINDOW_S.value, "1h"))
    min_samples: int = thresholds.MIN_SAMPLES.count
    alpha: float | None = None
    budget: Budget = field(default_factory=Budget)
    psi_threshold: float = thresholds.PSI_THRESHOLD.value
    feature_psi_thresholds: Mapping[str, float] = field(default_factory=dict)
    multivariate_threshold: float = thresholds.MULTIVARIATE_THRESHOLD.value
    join: JoinSettings | None = None
    min_labels: int = thresholds.MIN_LABELS.count
    quality_tolerances: Mapping[str, float] = field(default_factory=dict)
    drifted_features_ratio: float = thresholds.DRIFTED_FEATURES_RATIO.value
    error_reasons: ErrorReasons = field(default_factory=ErrorReasons)
    segments: tuple[Segmentation, ...] = ()
    learn: int | None = None
    learn_categorical: frozenset[str] = frozenset()
    trained: float | None = None
    max_age_s: float | None = None
    latency_objective_s: Mapping[str, float] = field(default_factory=dict)
    error_budget: float = thresholds.ERROR_BUDGET.value
    alert_thresholds: Mapping[str, float] = field(
        default_factory=lambda: {one.name: one.value for one in thresholds.ALERT_THRESHOLDS}
    )
    info: Mapping[str, str] = field(default_factory=dict)

    def threshold(self, feature: FeatureKey) -> float:
        """PSI that counts as an effect for this feature."""
        return self.feature_psi_thresholds.get(feature.name, self.psi_threshold)

    @property
    def slices(self) -> int:
        """Segments that can have a verdict, whether values turn up for all of them or not."""
        return sum(one.top + 1 for one in self.segments)

    def level(self, tests: int) -> float:
        """The level of each of so many tests of drift that may page."""
        share = 1 - thresholds.FAULT_BUDGET_RATIO.value
        return self._level(share, tests, self.window.seconds, self.window.panes)

    def fault_level(self, rates: int) -> float:
        """How many false alarms each of so many rates of data faults may raise a pane, on average at most."""
        return self._level(thresholds.FAULT_BUDGET_RATIO.value, rates, self.window.pane_s, 1)

    def _level(self, share: float, tests: int, every_s: float, looks: int) -> float:
        if self.alpha is not None:
            return self.alpha
        pages = share * self.budget.pages
        alpha = significance.budgeted_alpha(pages, self.budget.per_s, tests, every_s, looks)
        return min(alpha, thresholds.LOOSEST_ALPHA.value)
