"""The promise of the critical value: without drift it is passed as often as it says, special bins and all.

Reference and stream are of one distribution; every feature has a reference column of its own, so that the rate is one
over references too, not over the windows of a lucky one. 500 features x 80 tumbling windows are 40,000 replicates.
"""

import numpy as np
import pytest

from exporter.monitor.events import FeatureKey
from exporter.monitor.fleet import Fleet
from exporter.monitor.panes import Window
from exporter.monitor.reference import Resolution
from exporter.monitor.settings import ModelSettings
from tests.builders import MODEL, NOW, a_batch, a_reference, an_input, decoded, view
from tests.e2e.lengthy import long

FEATURES, WINDOWS, REFERENCE_ROWS = 500, 80, 10_000


@pytest.mark.parametrize(
    ("live_bins", "m"), [(10, 200), pytest.param(10, 1000, marks=long), pytest.param(20, 1000, marks=long)]
)
def test_the_false_alarm_rate_is_the_nominal_one(live_bins: int, m: int):
    rng = np.random.default_rng(live_bins * m)

    def column(rows: int, *, holes: bool) -> np.ndarray:
        values = rng.random(rows)
        return np.where(rng.random(rows) < 1 / live_bins, np.nan, values) if holes else values

    # In every second feature "missing" is one of the live bins; in the others it is there, but not live.
    keys: list[FeatureKey] = [an_input(f"f{i}") for i in range(FEATURES)]
    full, holed = (
        a_reference(
            {key: column(REFERENCE_ROWS, holes=holes) for key in keys[holes::2]},
            model=f"{MODEL}-{holes}",
            resolution=Resolution(bins=live_bins - holes),
        )
        for holes in (False, True)
    )
    fleet = Fleet(
        [
            ModelSettings(
                reference.model,
                version="1",
                window=Window(60.0, 1, "1m"),
                min_samples=m,
                alpha=0.05,
                psi_threshold=0.0,
            )
            for reference in (full, holed)
        ],
        {reference.model: [reference] for reference in (full, holed)},
    )

    drifted, significant = [], []
    for i in range(WINDOWS):
        now = NOW + 60 * i
        for holes, reference in enumerate((full, holed)):
            schema = fleet.schema(reference.model)
            columns = {key: column(m, holes=bool(holes)) for key in schema.numeric}
            fleet.observe(decoded(a_batch(schema, columns, model=reference.model, time=now)), now)
        snapshot = fleet.tick(now)
        for reference in (full, holed):
            readout = view(snapshot, model=reference.model).drift_readout
            assert readout is not None
            assert (readout.tracker.live_bins == live_bins).all()
            assert (readout.n == m).all()
            drifted.append(readout.drifted)
            significant.append(readout.p_value < 0.05)

    assert np.size(drifted) == 40_000
    assert 0.04 <= np.mean(drifted) <= 0.055
    assert 0.04 <= np.mean(significant) <= 0.055, "the Pearson test on the same counters"
