"""Laws of several means together: against scipy's, against simulation, and where there is nothing to invert."""

import numpy as np
import pytest
from scipy import stats

from exporter.stats import Floats, hotelling
from exporter.stats.hotelling import Form, Law

RNG = np.random.default_rng(0)


def normal(d: int, rows: int = 1000, kurtosis: float = 0.0) -> Form:
    return hotelling.form(np.eye(d), np.ones(d), rows, kurtosis)


def test_the_form_is_that_of_the_inverse_whatever_the_units():
    factor = RNG.normal(size=(5, 5))
    covariance = factor @ factor.T
    difference = RNG.normal(size=5)

    found = hotelling.form(covariance, np.sqrt(np.diag(covariance)), 1000)

    assert found.rank == 5
    assert found.squares(difference) == pytest.approx(difference @ np.linalg.solve(covariance, difference))
    scale = 10.0 ** np.arange(5)
    scaled = hotelling.form(covariance * np.outer(scale, scale), np.sqrt(np.diag(covariance)) * scale, 1000)
    assert scaled.squares(difference * scale) == pytest.approx(found.squares(difference))


@pytest.mark.parametrize(
    ("columns", "rank"),
    [
        ([[1, 0], [0, 1]], 2),
        ([[1, 0], [0, 1], [0, 1]], 2),  # a column twice
        ([[1, 0], [0, 1], [0.6, 0.8]], 2),  # a sum of others
        ([[1, 0], [0, 0]], 1),  # a constant
        ([[1, 0], [0.9999, 0.0141]], 1),  # the same but for rounding
    ],
)
def test_what_follows_from_the_others_counts_once(columns: list[list[float]], rank: int):
    loadings = np.array(columns)
    covariance = loadings @ loadings.T

    found = hotelling.form(covariance, np.sqrt(np.diag(covariance)), 1000)

    assert found.rank == rank
    assert found.squares(loadings @ [0.3, 0.0]) == pytest.approx(0.09, rel=0.01)


def test_the_law_is_hotellings():
    """T2 (n - p) / (p (n - 1)) is F(p, n - p): here of one sample of n rows, S estimated from the same n."""
    known = normal(7, rows=50)
    law = hotelling.law(known, np.array([1 / 50, 0.0]), 1.0, 1.0)
    for t2 in (1.0, 10.0, 40.0):
        assert law.p_value(known.shrink * t2) == pytest.approx(stats.f.sf(t2 * 43 / (7 * 49), 7, 43))
    assert law.mean == pytest.approx(7 * stats.f.mean(7, 43))


@pytest.mark.parametrize("alpha", [0.05, 1e-3, 1e-9, 1e-14])
def test_a_critical_value_is_passed_with_its_probability_even_a_tiny_one(alpha: float):
    law = Law(1.3, 210.0, 20_000.0)

    assert law.p_value(law.critical(alpha)) == pytest.approx(alpha, rel=1e-6)
    assert stats.f.sf(law.critical(alpha) / (1.3 * 210), 210, 20_000) == pytest.approx(alpha, rel=1e-6)
    assert Law(1.0, 4.0, 1e9).critical(alpha) == pytest.approx(stats.chi2.isf(alpha, 4), rel=1e-6)


def drawn(rows: tuple[int, ...], d: int) -> Floats:
    """Whitened rows of many zeros and few large values, whose fourth cumulant is 96 a quantity."""
    return np.where(RNG.random((*rows, d)) < 0.01, 10.0, 0.0) * RNG.choice([-1.0, 1.0], (*rows, d))


def test_heavy_tails_widen_the_law_by_as_much_as_they_vary():
    d, n = 4, 50
    kurtosis = d * (1e4 * 0.01 - 3)
    t2 = np.square(drawn((20_000, n), d).mean(axis=1)).sum(axis=1) * n

    law = hotelling.law(normal(d, 10**6, kurtosis), np.array([1 / n, 0.0]), 1.0, 1.0)

    assert law.scale * law.freedom == pytest.approx(t2.mean(), rel=0.03)
    assert 2 * law.scale**2 * law.freedom == pytest.approx(t2.var(), rel=0.08)
    assert np.mean(t2 > law.critical(0.01)) == pytest.approx(0.01, abs=0.006)
    assert np.mean(t2 > stats.chi2.isf(0.01, d)) > 0.02, "which without it"


def test_the_fourth_cumulant_of_rows_is_found():
    squares = normal(3).squares(drawn((200_000,), 3))
    assert hotelling.excess(normal(3), squares) == pytest.approx(3 * 97, rel=0.05)
    assert hotelling.excess(normal(3), normal(3).squares(RNG.choice([-1.0, 1.0], (1000, 3)))) == 0, "light tails"


def test_calibration_widens_and_never_narrows():
    parts = np.array([1e-3, 1e-5])
    plain, wide, narrow = (hotelling.law(normal(10), parts, g, 1.0) for g in (1.0, 3.0, 0.5))

    assert wide.mean == pytest.approx(3 * plain.mean)
    assert wide.critical(0.01) == pytest.approx(3 * plain.critical(0.01))
    assert 2 * narrow.scale**2 * narrow.freedom == pytest.approx(20)


def test_an_estimate_from_few_rows_is_too_small_and_its_inverse_too_large_by_what_shrink_takes_out():
    """Heavy tails make it worse: simulated, the excess is to first order (rank + 1 + kurtosis / rank) / rows."""
    d, rows = 5, 2000
    found = []
    for _ in range(40):
        sample = drawn((rows,), d)
        estimate = hotelling.form(np.cov(sample.T), sample.std(axis=0), rows, d * 97.0)
        found.append(np.square(np.linalg.norm(estimate.axes)) / d * estimate.shrink)
    assert np.mean(found) == pytest.approx(1.0, abs=0.02)
    assert normal(d, rows, d * 97.0).shrink == pytest.approx(1 - (5 + 97) / rows, abs=0.001)
