"""Statistics from counters: bins, distances, significance, scores, and tests that may be read after every pane.

numpy and scipy.special only; no clock, no IO, no logging. What is said of features is said of many at once: those of
different width lie one behind the other in a flat array; `starts` holds the index at which each begins. Formulas and
their simulated error rates: the docstrings name the paper.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Counts: TypeAlias = NDArray[np.int64]


def sizes(starts: Counts, length: int) -> Counts:
    """How many elements of a flat array of this length each feature has."""
    return np.diff(np.append(starts, length))
