import numpy as np
import pytest

from exporter.monitor.history import POINTS, History
from tests.builders import NOW, X, a_fleet, a_reference, columns_of, observe, view


def test_one_point_a_pane_oldest_first_and_not_without_end():
    fleet, history = a_fleet(a_reference()), History()
    for minute in range(POINTS + 10):
        observe(fleet, columns_of(20, seed=minute), time=NOW + 60 * minute)
        for second in (0, 5, 10):
            snapshot = fleet.tick(NOW + 60 * minute + second)
            history.record(snapshot)

    points = history.points(view(snapshot))

    assert len(points) == POINTS
    assert np.diff([point.time for point in points]) == pytest.approx(60)
    assert points[-1].predictions == 20 * (POINTS + 10)
    assert history.rate_per_s(view(snapshot), snapshot.now) == pytest.approx(20 / 60)


def test_a_point_shows_the_scores_of_its_window():
    fleet, history = a_fleet(a_reference()), History()
    observe(fleet, columns_of(1000) | {X: np.full(1000, 5.0)}, latency_s=0.2, error=([-1] * 9 + [0]) * 100)
    snapshot = fleet.tick(NOW)
    history.record(snapshot)

    (point,) = history.points(view(snapshot))

    assert point.features_drifted == 1
    assert point.psi[0] > point.psi_critical[0]
    assert point.error_ratio == 0.1
    assert point.latency_p99_s == pytest.approx(0.25, abs=0.01)
    assert history.rate_per_s(view(snapshot), NOW) is None, "one point has no rate"


def test_before_any_event_there_is_no_point_and_a_version_that_is_gone_is_forgotten():
    fleet, history = a_fleet(a_reference()), History()
    empty = fleet.tick(NOW)
    history.record(empty)
    assert history.points(view(empty)) == []

    observe(fleet, model="stranger")
    with_stranger = fleet.tick(NOW)
    history.record(with_stranger)
    assert len(history.points(view(with_stranger, model="stranger"))) == 1

    history.record(fleet.tick(NOW + 7200))
    assert history.points(view(with_stranger, model="stranger")) == []
