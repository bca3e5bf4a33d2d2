"""What a reference keeps of some slices of its rows: the counters that a running exporter would have of them.

A slice is compared with itself as it was: against all rows every slice that differs by nature would be called drifted.
"""

from collections.abc import Sequence

import msgspec

from exporter.monitor import calibration
from exporter.monitor.calibration import Calibration


class SliceCounts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Reference rows whose tag has this value.

    `counts` are those of the slots (see plan) of each coarse feature, one feature behind the other, `outcomes` those of
    the task; empty without labels.
    """

    tag: str
    value: str
    rows: int
    counts: tuple[int, ...]
    outcomes: tuple[int, ...]
    calibrations: tuple[tuple[Calibration, ...], ...]


def sound(slices: Sequence[SliceCounts], slots: Sequence[int], outcomes: int) -> bool:
    """Whether they fit a reference of features with so many coarse slots each, and so many sums of outcomes."""
    return len({(one.tag, one.value) for one in slices}) == len(slices) and all(
        one.rows > 0
        and len(one.counts) == sum(slots)
        and len(one.outcomes) in (0, outcomes)
        and min(one.counts + one.outcomes, default=0) >= 0
        and len(one.calibrations) == len(slots)
        and all(map(calibration.sound, one.calibrations))
        for one in slices
    )
