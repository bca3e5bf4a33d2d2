"""The features of a reference, as counters: numbers by knots, categories by name."""

from itertools import pairwise
from typing import TypeAlias

import msgspec
import numpy as np

from exporter.monitor import calibration
from exporter.monitor.calibration import Calibration
from exporter.monitor.events import FeatureKey, FeatureKind
from exporter.stats import Counts


class BadReference(ValueError):
    """A reference that cannot be built or must not be used; the message says why."""


class Numeric(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="type", tag="numeric"
):
    """A numeric feature: K knots, counts in their 2K + 1 cells, and how many cells each PSI bin takes.

    Without a calibration it has no such key, here as with categories: the id of a document does not know of it.
    """

    name: str
    kind: FeatureKind
    knots: tuple[float, ...]
    cells: tuple[int, ...]
    bins: tuple[int, ...]
    missing: int
    wrong_type: int
    non_finite: int
    calibration: tuple[Calibration, ...] = ()

    @property
    def values(self) -> int:
        """Usable reference values."""
        return sum(self.cells)


class Categorical(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="type", tag="categorical"
):
    """A categorical feature: its frequent categories with counts, and the names (not counts) of the others.

    `others_complete` is false when there were too many names to keep: an unknown value then counts as `other`.
    `singletons` is how many categories occurred once.
    """

    name: str
    kind: FeatureKind
    categories: tuple[str, ...]
    counts: tuple[int, ...]
    others: tuple[str, ...]
    others_count: int
    others_complete: bool
    singletons: int
    missing: int
    wrong_type: int
    calibration: tuple[Calibration, ...] = ()

    @property
    def values(self) -> int:
        """Usable reference values."""
        return sum(self.counts) + self.others_count


Feature: TypeAlias = Numeric | Categorical


def key(feature: Feature) -> FeatureKey:
    """The feature's kind and name."""
    return FeatureKey(feature.kind, feature.name)


def check(feature: Feature) -> None:
    """Raise BadReference unless the numbers of a feature fit together."""
    if isinstance(feature, Numeric):
        sound = (
            len(feature.knots) > 0
            and len(feature.cells) == 2 * len(feature.knots) + 1 == sum(feature.bins)
            and all(left < right for left, right in pairwise(feature.knots))
            and min(feature.bins) > 0
            and min(feature.cells) >= 0
        )
    else:
        sound = (
            len(feature.categories) == len(feature.counts)
            and len(set(feature.categories)) == len(feature.categories)
            and min(feature.counts, default=0) > 0
            and feature.others_count >= 0
            and 0 <= feature.singletons <= feature.values
        )
    sound = sound and calibration.sound(feature.calibration)
    if not sound or feature.values <= 0 or feature.missing < 0 or feature.wrong_type < 0:
        raise BadReference(f"feature {feature.name}: knots, counts and bins do not fit together")


def coarse_slots(feature: Feature) -> int:
    """Slots of a feature with a knot at each edge of a bin: its cells or categories, and what is beside them."""
    if isinstance(feature, Categorical):
        return len(feature.counts) + 4
    return 6 if is_constant(feature) else 2 * len(feature.bins) + 2


def is_constant(feature: Numeric) -> bool:
    """Whether the reference has a single value, which has bins below and above it."""
    return len(feature.knots) == 1 and len(feature.bins) == 3


def psi_bins(feature: Numeric) -> Counts:
    """The PSI bin of each cell."""
    return np.repeat(np.arange(len(feature.bins)), feature.bins)
