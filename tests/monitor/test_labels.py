"""The account of labels as series."""

import numpy as np

from exporter.monitor.labels import DELAYS_S, JoinView, LabelsView, Tally
from exporter.monitor.settings import JoinSettings
from tests.builders import as_text

SETTINGS = JoinSettings(3600.0, 1000)


def lines(view: LabelsView) -> dict[str, float]:
    return as_text(view.samples("m"))


def test_a_model_without_labels_has_no_series_and_one_whose_labels_come_along_has_one():
    assert lines(LabelsView(None, None, expected=False)) == {}
    assert lines(LabelsView(5.0, None, expected=True)) == {'ml_label_last_timestamp_seconds{model="m"}': 5.0}


def test_a_model_that_joins_has_every_counter_from_the_start():
    found = lines(LabelsView(None, JoinView(SETTINGS, Tally(), 3), expected=True))
    assert found['ml_labels_received_total{model="m"}'] == 0
    assert found['ml_labels_pending{model="m"}'] == 3
    assert found['ml_labels_pending_limit{model="m"}'] == 1000
    assert found['ml_labels_maturity_seconds{model="m"}'] == 3600
    assert found['ml_predictions_unjoined_total{model="m",reason="no_id"}'] == 0
    assert found['ml_label_delay_seconds_bucket{model="m",le="+Inf"}'] == 0


def test_the_series_are_as_many_as_are_told_beforehand():
    for view in (
        LabelsView(None, None, expected=False),
        LabelsView(None, None, expected=True),
        LabelsView(None, JoinView(SETTINGS, Tally(), 0), expected=True),
    ):
        known = LabelsView(1.0, view.join, view.expected) if view.expected else view
        assert view.full_series == len(lines(known)) == known.full_series


def test_delays_are_counted_up_to_their_bound_and_early_labels_as_none():
    tally = Tally()
    tally.delayed(np.array([-5.0, 0.0, 60.0, 60.5, 1e9]))
    assert tally.delays[:4] == [2, 0, 1, 1]
    assert tally.delays[-1] == 1
    assert tally.delay_ms == 120_500 + 10**12
    assert len(tally.delays) == len(DELAYS_S) + 1


def test_accounts_add_up():
    one, other = Tally(received=3, late=1), Tally(received=4, duplicate=2)
    one.leave("no_id", 2)
    other.leave("no_id", 1)
    other.leave("lost", 5)
    other.delayed(np.array([1.0]))
    one.merge(other)
    assert (one.received, one.late, one.duplicate, one.unjoined) == (7, 1, 2, {"no_id": 3, "lost": 5})
    assert (one.delays[0], one.delay_ms) == (1, 1000)
    copy = one.copy()
    copy.leave("no_id", 1)
    copy.delays[0] = 9
    assert (one.unjoined["no_id"], one.delays[0]) == (3, 1)
