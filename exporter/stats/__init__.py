"""Statistics from counters: bins, distances, significance. numpy and scipy.special only; no clock, no IO, no logging.

Every function works on many features at once. Features of different width lie one behind the other in a flat array;
`starts` holds the index at which each begins. Formulas and their simulated error rates: the docstrings name the paper.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Counts: TypeAlias = NDArray[np.int64]


def sizes(starts: Counts, length: int) -> Counts:
    """How many elements of a flat array of this length each feature has."""
    return np.diff(np.append(starts, length))
