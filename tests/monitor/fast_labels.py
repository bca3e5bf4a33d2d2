"""A stream in which fast labels lie: a positive is known after an hour, a negative only after a day.

As fraud is: whoever was robbed says so at once, and that nobody was is known when the time to complain has passed. One
in twenty is positive. The score is a calibrated probability, whose logit is normal in either class with a common
variance, and cut where the model finds 70 % of the positives and is right about 65.3 % of those it names: an accuracy
of 96.6 %. That is the simulation of statistics.md 5.2.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm

HOUR_S = 3600.0
POSITIVE = 0.05
RECALL = 0.7
PRECISION = 0.653
FALSE_POSITIVE = POSITIVE * RECALL * (1 / PRECISION - 1) / (1 - POSITIVE)
"""Share of the negatives that the model names."""
ACCURACY = POSITIVE * RECALL + (1 - POSITIVE) * (1 - FALSE_POSITIVE)
MATURITY_S = 24 * HOUR_S
"""When the first negatives are known; as with positives, how much longer it takes is exponential with a mean of 1 h."""

_CUT = float(norm.isf(FALSE_POSITIVE))
_APART = _CUT - float(norm.isf(RECALL))
"""Standard deviations between the two classes."""


class Prediction(NamedTuple):
    """`time` in epoch seconds, `prediction` 0 or 1, `score` the probability of 1."""

    time: float
    id: str
    prediction: int
    score: float


class Label(NamedTuple):
    """What was true (0 or 1), and when (epoch seconds) it became known."""

    time: float
    id: str
    label: int


def fast_labels(rows: int, hours: float, start: float, seed: int) -> tuple[Sequence[Prediction], Sequence[Label]]:
    """Predictions spread evenly over some hours from `start`, and the labels of all of them, each in order of time.

    The last labels come a day and some hours after the last prediction.
    """
    rng = np.random.default_rng(seed)
    time = start + np.sort(rng.random(rows)) * hours * HOUR_S
    label = (rng.random(rows) < POSITIVE).astype(np.int64)
    known = time + HOUR_S * rng.exponential(1.0, rows) + np.where(label == 1, 0.0, MATURITY_S)
    place = rng.normal(label * _APART)
    score = expit(logit(POSITIVE) + _APART * (place - _APART / 2))
    ids = [f"{seed}-{row}" for row in range(rows)]
    predictions = map(Prediction, time.tolist(), ids, (place > _CUT).astype(int).tolist(), score.tolist())
    labels = map(Label, known.tolist(), ids, label.tolist())
    return list(predictions), sorted(labels)
