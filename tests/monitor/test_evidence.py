import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.monitor.evidence import Evidence
from exporter.monitor.panes import OUTSIDE
from exporter.stats.sequential import ODDS_RATIOS, ShiryaevRoberts

logs = st.floats(max_value=1e300, allow_nan=False) | st.sampled_from([-np.inf, -0.0, 5e-324, 0.1])
panes = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(st.tuples(st.lists(logs, min_size=len(ODDS_RATIOS), max_size=len(ODDS_RATIOS)), panes, panes)))
def test_every_bit_comes_back(rates: list[tuple[list[float], int, int]]):
    log_m = np.array([each for each, _, _ in rates]).reshape(len(rates), len(ODDS_RATIOS))
    alarmed, since = (np.array([pair(one, other) for _, one, other in rates], np.int64) for pair in (max, min))

    read = Evidence.unpack(Evidence(log_m, alarmed, since).pack(), len(rates))

    assert read.log_m.tobytes() == log_m.tobytes()
    assert (read.alarmed.tolist(), read.since.tolist()) == (alarmed.tolist(), since.tolist())


def test_without_panes_it_is_that_of_a_detector_at_its_start():
    none = Evidence.none(3)

    assert none.log_m.tolist() == ShiryaevRoberts.start(np.full(3, 0.1)).log_m.tolist()
    assert {*none.alarmed.tolist(), *none.since.tolist()} == {OUTSIDE}
    assert Evidence.unpack(none.pack(), 3).pack() == none.pack()


@pytest.mark.parametrize("rates", [2, 4, 2**62])
def test_evidence_of_another_number_of_rates_is_refused(rates: int):
    with pytest.raises(ValueError, match=f"{rates} rates expected"):
        Evidence.unpack(Evidence.none(3).pack(), rates)
