import numpy as np
import pytest

from exporter.catalog import metrics, thresholds
from exporter.monitor.buffer import ROWS
from exporter.monitor.events import FeatureKey, Reject, Schema
from exporter.monitor.features import BadReference
from exporter.monitor.fleet import Fleet
from exporter.monitor.panes import Window
from exporter.monitor.settings import ModelSettings
from exporter.monitor.snapshot import Snapshot
from exporter.monitor.state import VERSION, BadState, NewerState
from tests.builders import (
    COLOUR,
    MODEL,
    NOW,
    PREDICTION,
    X,
    a_batch,
    a_fleet,
    a_reference,
    an_input,
    columns_of,
    decoded,
    exposed,
    observe,
    values_of,
    view,
)

LIMIT_MODELS, LIMIT_VERSIONS = thresholds.MODEL_LIMIT.count, thresholds.VERSION_LIMIT.count
WINDOW_S = thresholds.WINDOW_S.value


def states(snapshot: Snapshot, version: str = "1") -> dict[str, str]:
    """State by feature, as exported."""
    found = values_of(snapshot, metrics.FEATURE_STATE, model=MODEL, version=version)
    return {feature: state for (_, feature, state) in found}


def predictions(snapshot: Snapshot) -> dict[tuple[str, ...], float]:
    """Predictions by (model, version)."""
    return values_of(snapshot, metrics.PREDICTIONS)


# ---- states ----------------------------------------------------------------------------------------------------------


def test_without_a_reference_there_is_no_score():
    fleet = a_fleet()
    observe(fleet, rows=1000)
    snapshot = fleet.tick(NOW)

    assert states(snapshot) == {"prediction": "no_reference"}
    assert view(snapshot).state == "no_reference"
    assert predictions(snapshot) == {(MODEL, "1"): 1000}
    assert not any(key.startswith("ml_feature_psi") for key in exposed(snapshot))


def test_too_little_data_is_a_state_of_its_own_and_no_score():
    fleet = a_fleet(a_reference(), min_samples=500)
    observe(fleet, columns_of(499))
    snapshot = fleet.tick(NOW)

    assert set(states(snapshot).values()) == {"insufficient_data"}
    assert values_of(snapshot, metrics.PSI) == {}
    assert values_of(snapshot, metrics.DRIFTED) == {}
    assert set(values_of(snapshot, metrics.WINDOW_SAMPLES).values()) == {499}
    assert values_of(snapshot, metrics.FEATURES_EVALUATED) == {(MODEL, "1", "1h"): 0}


def test_ok_then_drifting_then_ok_again_when_the_window_has_moved_on():
    fleet = a_fleet(a_reference())
    same, other = columns_of(1000, seed=1), columns_of(1000, seed=2)
    other[X] = other[X] + 2  # type: ignore[operator]

    observe(fleet, same)
    assert set(states(fleet.tick(NOW)).values()) == {"ok"}

    observe(fleet, other, time=NOW + 600)
    snapshot = fleet.tick(NOW + 600)
    assert states(snapshot) == {"x": "drifting", "colour": "ok", "prediction": "ok", "score": "ok"}
    assert view(snapshot).state == "drifting"
    assert values_of(snapshot, metrics.FEATURES_DRIFTED) == {(MODEL, "1", "1h"): 1}
    assert values_of(snapshot, metrics.FEATURES_EVALUATED) == {(MODEL, "1", "1h"): 4}

    observe(fleet, same, time=NOW + 600 + WINDOW_S)
    assert set(states(fleet.tick(NOW + 600 + WINDOW_S)).values()) == {"ok"}


def test_a_version_without_a_reference_borrows_the_default_one_and_says_so():
    old = a_reference(version="1", created=NOW - 2000)
    newer = a_reference(version="2", created=NOW - 1000, rows=1999)
    fleet = a_fleet(old, newer)  # the configured version is "1"
    for version in ("2", "3"):
        observe(fleet, columns_of(1000), version=version)
    snapshot = fleet.tick(NOW)

    assert set(states(snapshot, "2").values()) == {"ok"}
    assert set(states(snapshot, "3").values()) == {"borrowed_reference"}
    assert view(snapshot, "3").state == "borrowed_reference"
    assert view(snapshot, "2").reference == newer
    assert view(snapshot, "3").reference == old, "that of the configured version"


def test_drift_against_a_borrowed_reference_is_still_drift():
    fleet = a_fleet(a_reference())
    observe(fleet, columns_of(1000) | {X: np.full(1000, 5.0)}, version="2")

    assert states(fleet.tick(NOW), "2")["x"] == "drifting"


def test_without_a_configured_version_the_newest_reference_is_the_default_and_watched_from_the_start():
    old = a_reference(version="1", created=NOW - 1000)
    newest = a_reference(version="2", created=NOW - 10, rows=1999)
    fleet = a_fleet(newest, old, version=None)

    assert predictions(fleet.tick(NOW)) == {(MODEL, "2"): 0}

    observe(fleet, version="unknown")
    assert view(fleet.tick(NOW), "unknown").reference == newest


def test_every_series_of_a_configured_version_is_there_before_the_first_event():
    lines = exposed(a_fleet(a_reference()).tick(NOW))

    assert lines[f'ml_predictions_total{{model="{MODEL}",version="1"}}'] == 0
    counters = {key: value for key, value in lines.items() if "_bin_observations_total" in key}
    assert len(counters) == sum(
        len(plan.bins)
        for plan in view(a_fleet(a_reference()).tick(NOW)).drift.features  # type: ignore[union-attr]
    )
    assert set(counters.values()) == {0}


def test_while_a_source_lags_more_than_a_window_nothing_is_drifting():
    fleet = a_fleet(a_reference())
    far_off = columns_of(1000) | {X: np.full(1000, 5.0)}

    observe(fleet, far_off, time=NOW - WINDOW_S - 10, now=NOW)
    snapshot = fleet.tick(NOW)
    assert set(states(snapshot).values()) == {"catching_up"}
    assert values_of(snapshot, metrics.DRIFTED) == {}
    assert values_of(snapshot, metrics.FEATURES_DRIFTED) == {(MODEL, "1", "1h"): 0}
    assert values_of(snapshot, metrics.FEATURES_EVALUATED) == {(MODEL, "1", "1h"): 0}

    observe(fleet, far_off, time=NOW)
    assert states(fleet.tick(NOW))["x"] == "drifting"


# ---- windows ---------------------------------------------------------------------------------------------------------


def test_a_window_forgets_and_a_counter_does_not():
    fleet = a_fleet(a_reference(), window=Window(60.0, 5, "5m"))
    for minute in range(10):
        observe(fleet, columns_of(100, seed=minute), time=NOW + 60 * minute)
    snapshot = fleet.tick(NOW + 9 * 60)

    assert set(values_of(snapshot, metrics.WINDOW_SAMPLES).values()) == {500}
    assert predictions(snapshot) == {(MODEL, "1"): 1000}
    assert view(snapshot).window == (NOW + 5 * 60, NOW + 10 * 60)

    emptied = fleet.tick(NOW + 3600)
    assert set(values_of(emptied, metrics.WINDOW_SAMPLES).values()) == {0}
    assert predictions(emptied) == {(MODEL, "1"): 1000}


def test_events_of_a_partition_too_far_behind_are_told_from_those_in_the_window():
    fleet = a_fleet(a_reference())
    observe(fleet, rows=10, partition="live", time=NOW)
    observe(fleet, rows=7, partition="archive", time=NOW - 1e8)
    snapshot = fleet.tick(NOW)

    assert exposed(snapshot)['ml_ingest_late_total{source="http",reason="behind"}'] == 7
    assert predictions(snapshot) == {(MODEL, "1"): 17}
    assert view(snapshot).traffic_readout.predictions == 10


def test_late_and_future_events_count_for_life_but_in_no_window():
    fleet = a_fleet(a_reference())
    times = [NOW] * 5 + [NOW - 1000] * 3 + [NOW + 1000] * 2
    observe(fleet, {X: np.zeros(10)}, time=times, now=NOW, source="kafka")
    snapshot = fleet.tick(NOW)
    lines = exposed(snapshot)

    assert predictions(snapshot) == {(MODEL, "1"): 10}
    assert view(snapshot).traffic_readout.predictions == 5
    assert lines['ml_ingest_late_total{source="kafka",reason="late"}'] == 3
    assert lines['ml_ingest_late_total{source="kafka",reason="future"}'] == 2
    assert lines['ml_ingest_watermark_timestamp_seconds{source="kafka"}'] == NOW
    assert lines[f'ml_prediction_last_timestamp_seconds{{model="{MODEL}",version="1"}}'] == NOW


def test_a_snapshot_stays_as_it_was():
    fleet = a_fleet(a_reference())
    observe(fleet, columns_of(1000), source="http")
    before = fleet.tick(NOW)
    observe(fleet, columns_of(1000), source="http")
    fleet.tick(NOW)

    assert predictions(before) == {(MODEL, "1"): 1000}
    assert set(values_of(before, metrics.WINDOW_SAMPLES).values()) == {1000}
    assert exposed(before)['ml_ingest_events_total{source="http"}'] == 1000


def waiting(fleet: Fleet) -> int:
    states = [state for model in fleet._models.values() for state in model.versions.values()]
    return max(state.buffer.used for state in states if state.buffer is not None)


@pytest.mark.parametrize("models", [1, 40])
def test_rows_do_not_wait_without_limit(models: int):
    fleet = a_fleet(a_reference())
    for i in range(200):
        observe(fleet, rows=ROWS // 4, model=MODEL if i % models == 0 else f"model-{i % models}")
        assert waiting(fleet) < ROWS


def test_many_panes_at_once_are_counted_as_one_after_the_other():
    window = Window(1.0, 100, "100s")
    at_once, one_by_one = (a_fleet(a_reference(), window=window) for _ in range(2))
    times = (NOW + np.arange(300) * 0.7).tolist()
    columns = columns_of(300, seed=1)

    observe(at_once, columns, time=times)
    for i, time in enumerate(times):
        observe(one_by_one, {key: [column[i]] for key, column in columns.items()}, time=time, now=times[-1])
        one_by_one.dump()  # counts what waits

    assert at_once.dump() == one_by_one.dump()
    assert view(at_once.tick(times[-1])).traffic_readout.predictions == sum(
        time // 1 > times[-1] // 1 - 100 for time in times
    )


def test_versions_in_one_batch_are_told_apart():
    fleet = a_fleet(a_reference())
    observe(fleet, {X: [0.0, 9.0, 9.0]}, version=["1", "2", "2"])
    snapshot = fleet.tick(NOW)

    assert predictions(snapshot) == {(MODEL, "1"): 1, (MODEL, "2"): 2}
    assert view(snapshot, "2").drift.fault_counts(view(snapshot, "2").drift_lifetime)[0, 3] == 2  # type: ignore[union-attr,arg-type]


# ---- what names in events can claim ----------------------------------------------------------------------------------


def test_random_model_names_take_a_limited_number_of_places_and_none_of_a_configured_model():
    fleet = a_fleet(a_reference())
    observe(fleet, rows=3)
    for i in range(LIMIT_MODELS + 30):
        observe(fleet, rows=2, model=f"random-{i}", source="http")
    snapshot = fleet.tick(NOW)

    assert len(snapshot.models) == 1 + LIMIT_MODELS
    assert len(fleet._models) == 1 + LIMIT_MODELS
    assert predictions(snapshot)[MODEL, "1"] == 3
    assert exposed(snapshot)['ml_ingest_dropped_total{source="http",reason="model_limit"}'] == 60

    observe(fleet, rows=4)
    assert predictions(fleet.tick(NOW))[MODEL, "1"] == 7


def test_an_unconfigured_model_that_falls_silent_makes_room():
    fleet = a_fleet()
    for i in range(LIMIT_MODELS):
        observe(fleet, model=f"old-{i}", time=NOW)
    later = NOW + WINDOW_S + 1
    observe(fleet, model="new", time=later)
    assert (("new", "unknown") in predictions(fleet.tick(later))) is False

    observe(fleet, model="new", time=later)
    assert set(predictions(fleet.tick(later))) == {(MODEL, "1"), ("new", "1")}


def test_random_versions_take_a_limited_number_of_places_and_none_of_a_known_version():
    fleet = a_fleet(a_reference(version="1"), a_reference(version="2", rows=1999))
    for i in range(LIMIT_VERSIONS + 30):
        observe(fleet, version=f"random-{i}", source="http")
    for version in ("1", "2"):
        observe(fleet, rows=5, version=version)
    snapshot = fleet.tick(NOW)
    counted = predictions(snapshot)

    assert len(counted) <= LIMIT_VERSIONS + 2
    assert counted[MODEL, "1"] == counted[MODEL, "2"] == 5
    turned_away = exposed(snapshot)['ml_ingest_dropped_total{source="http",reason="version_limit"}']
    assert turned_away + sum(counted.values()) == LIMIT_VERSIONS + 30 + 10


def test_a_version_in_use_keeps_its_place_and_an_idle_one_makes_room():
    fleet = a_fleet(version="1")
    for i in range(LIMIT_VERSIONS - 1):
        observe(fleet, version=f"v{i}", time=NOW + i)
    later = NOW + WINDOW_S + 2.5
    observe(fleet, version="v0", time=later)

    observe(fleet, version="new", time=later)

    versions = {version for _, version in predictions(fleet.tick(later))}
    assert versions == {"1", "v0", *(f"v{i}" for i in range(2, LIMIT_VERSIONS - 1)), "new"}, "the longest idle one went"


def test_a_drop_is_reported_to_who_sent_it():
    fleet = a_fleet()
    for i in range(LIMIT_MODELS):
        observe(fleet, model=f"m{i}")

    dropped = fleet.observe(decoded(a_batch(Schema(), rows=3, model="more"), dropped={"label": 2}), NOW)

    assert dropped == {"label": 2, "model_limit": 3}


def test_the_account_of_a_source_is_complete():
    fleet = a_fleet()
    fleet.watch("file")
    batch = a_batch(Schema(), rows=7)
    rejects = [Reject(3, "malformed_json", "at 5"), Reject(4, "too_deep", "")]
    fleet.observe(decoded(batch, source="kafka", rejects=rejects, dropped={"label": 1}), NOW)
    lines = exposed(fleet.tick(NOW))

    assert lines['ml_ingest_events_total{source="kafka"}'] == 10
    assert lines['ml_ingest_rejected_total{source="kafka",reason="malformed_json"}'] == 1
    assert lines['ml_ingest_rejected_total{source="kafka",reason="too_deep"}'] == 1
    assert lines['ml_ingest_dropped_total{source="kafka",reason="label"}'] == 1
    assert lines[f'ml_predictions_total{{model="{MODEL}",version="1"}}'] == 7
    assert lines['ml_ingest_events_total{source="file"}'] == 0, "watched, though it has brought nothing"


# ---- references that come and go -------------------------------------------------------------------------------------


def test_adopting_keeps_the_counters_of_an_unchanged_reference_and_empties_those_of_a_changed_one():
    one, two = a_reference(version="1"), a_reference(version="2", rows=1999)
    fleet = a_fleet(one, two)
    for version in ("1", "2"):
        observe(fleet, columns_of(1000), version=version)

    # The third has one more column, before all others: columns move.
    three = a_reference({an_input("first"): np.arange(1900.0)} | columns_of(1900), version="2", created=NOW)
    revision = fleet.revision
    fleet.adopt(MODEL, [three, one])
    assert fleet.revision != revision
    snapshot = fleet.tick(NOW)

    assert set(view(snapshot, "1").drift_readout.n) == {1000}  # type: ignore[union-attr]
    assert set(view(snapshot, "2").drift_readout.n) == {0}  # type: ignore[union-attr]
    assert predictions(snapshot) == {(MODEL, "1"): 1000, (MODEL, "2"): 1000}, "traffic needs no reference"
    assert view(snapshot, "2").reference == three

    observe(fleet, columns_of(500), version="1")
    readout = view(fleet.tick(NOW), "1").drift_readout
    assert set(readout.n) == {1500}  # type: ignore[union-attr]
    assert readout.psi[0] < 0.02, "x is still x"  # type: ignore[union-attr]


def test_rows_that_wait_are_counted_against_the_reference_they_were_decoded_for():
    fleet = a_fleet(a_reference())
    observe(fleet, columns_of(1000))

    fleet.adopt(MODEL, [a_reference({an_input("first"): np.arange(2000.0)} | columns_of(2000), created=NOW)])

    assert predictions(fleet.tick(NOW)) == {(MODEL, "1"): 1000}


def test_adopting_references_that_disagree_changes_nothing():
    one = a_reference({X: np.arange(100.0)})
    fleet = a_fleet(one)
    observe(fleet, {X: np.arange(100.0)})
    before = fleet.dump()

    with pytest.raises(BadReference, match="disagree"):
        fleet.adopt(MODEL, [one, a_reference({X: ["a", "b"]}, version="2")])

    assert fleet.references(MODEL) == (one,)
    assert fleet.dump() == before


def test_losing_every_reference_leaves_traffic():
    fleet = a_fleet(a_reference())
    observe(fleet, columns_of(1000))
    fleet.adopt(MODEL, [])
    snapshot = fleet.tick(NOW)

    assert states(snapshot) == {"prediction": "no_reference"}
    assert predictions(snapshot) == {(MODEL, "1"): 1000}


def raw_rows(rows: int, seed: int) -> list[dict[FeatureKey, object]]:
    columns = columns_of(rows, seed)
    return [{X: float(columns[X][i]), COLOUR: columns[COLOUR][i], PREDICTION: i % 2} for i in range(rows)]


def test_learning_shows_progress_then_scores():
    fleet = a_fleet(learn=1000)
    assert fleet.learns(MODEL)

    observe(fleet, rows=600, raw=raw_rows(600, 1))
    snapshot = fleet.tick(NOW)
    assert view(snapshot).state == "learning"
    assert view(snapshot).learning == (600, 1000)
    assert states(snapshot) == {"prediction": "learning"}
    assert fleet.learned() == ()

    observe(fleet, rows=600, raw=raw_rows(600, 2))
    (learner,) = fleet.learned()
    assert learner.seen == 1000
    fleet.adopt(MODEL, [learner.build(NOW)])
    assert not fleet.learns(MODEL)
    assert fleet.learned() == ()
    assert set(states(fleet.tick(NOW)).values()) == {"insufficient_data"}, "what was learned from is not judged"

    columns = columns_of(1000, 3)
    del columns[next(key for key in columns if key.kind == "score")]
    observe(fleet, columns | {PREDICTION: ["0", "1"] * 500})
    snapshot = fleet.tick(NOW)
    assert states(snapshot) == {"x": "ok", "colour": "ok", "prediction": "ok"}
    assert view(snapshot).learning is None


def test_a_model_with_a_reference_does_not_learn():
    fleet = a_fleet(a_reference(), learn=1000)

    assert not fleet.learns(MODEL)
    assert view(fleet.tick(NOW)).learning is None


# ---- state over a restart --------------------------------------------------------------------------------------------


def restarted(fleet: Fleet, again: Fleet) -> Snapshot:
    again.load(fleet.dump())
    return again.tick(NOW)


def test_counts_against_another_reference_are_left_behind():
    fleet = a_fleet(a_reference())
    observe(fleet, columns_of(1000))

    snapshot = restarted(fleet, a_fleet(a_reference(rows=1999)))

    assert predictions(snapshot) == {(MODEL, "1"): 1000}
    assert set(view(snapshot).drift_lifetime) == {0}  # type: ignore[arg-type]


def test_another_window_starts_empty_and_is_not_stuck_in_panes_of_the_old_length():
    fleet = a_fleet(a_reference(), window=Window(60.0, 60, "1h"))
    observe(fleet, columns_of(1000))
    again = a_fleet(a_reference(), window=Window(1440.0, 60, "24h"))

    snapshot = restarted(fleet, again)
    assert predictions(snapshot) == {(MODEL, "1"): 1000}
    assert set(view(snapshot).drift_readout.n) == {0}  # type: ignore[union-attr]

    observe(again, columns_of(700))
    snapshot = again.tick(NOW)
    assert set(view(snapshot).drift_readout.n) == {700}  # type: ignore[union-attr]
    assert predictions(snapshot) == {(MODEL, "1"): 1700}


def test_other_settings_do_not_keep_a_fleet_from_starting():
    rare = {COLOUR: ["a"] * 1000 + ["b"] * 20}
    fleet = a_fleet(a_reference(rare), min_samples=500)
    observe(fleet, rare)

    folded = restarted(fleet, a_fleet(a_reference(rare), min_samples=100))
    assert predictions(folded) == {(MODEL, "1"): 1020}
    assert set(view(folded).drift_readout.n) == {1020}, "the bins are others, the counters the same"  # type: ignore[union-attr]

    from exporter.monitor.events import ErrorReasons

    more = restarted(fleet, a_fleet(a_reference(rare), error_reasons=ErrorReasons(["quota"])))
    assert set(view(more).drift_readout.n) == {1020}  # type: ignore[union-attr]


def test_unconfigured_models_come_back_too():
    fleet = a_fleet()
    observe(fleet, rows=5, model="stranger")

    assert predictions(restarted(fleet, a_fleet()))["stranger", "1"] == 5


def test_settings_of_a_fleet_are_those_of_its_configured_models():
    fleet = Fleet([ModelSettings("a"), ModelSettings("b")], {})
    observe(fleet, model="stranger")

    assert [settings.name for settings in fleet.models] == ["a", "b"]
    assert fleet.schema("nobody") == Schema()


def test_a_tick_of_steady_traffic_changes_a_pane_and_the_sums():
    fleet = a_fleet(a_reference())
    for minute in range(70):
        observe(fleet, columns_of(100, seed=minute), time=NOW + 60 * minute)
        fleet.tick(NOW + 60 * minute)
    whole = fleet.changes()
    panes = "the light one; lifetime and 60 panes of traffic, drift and accuracy; 68 that are sealed, and the evidence"
    assert len(whole) == 1 + 3 * 61 + 68 + 1, panes

    observe(fleet, columns_of(100), time=NOW + 60 * 69)
    fleet.tick(NOW + 60 * 69)

    changes = fleet.changes()
    pane, concerns = int(NOW // 60) + 69, ("traffic", "drift", "accuracy")
    assert changes.keys() == {
        '["fleet"]',
        *(f'["{concern}","{MODEL}","1",{piece}]' for concern in concerns for piece in ('"lifetime"', pane)),
    }
    assert fleet.changes() == {}

    observe(fleet, columns_of(100), time=NOW + 60 * 70)
    gone = [key for key, entry in fleet.changes().items() if entry is None]
    fleet.tick(NOW + 60 * 70)
    sealed = [f'["archive","{MODEL}","1",{pane - 1}]', f'["faults","{MODEL}","1","evidence"]']
    assert list(fleet.changes()) == ['["fleet"]', *sealed]
    assert gone == [f'["{concern}","{MODEL}","1",{pane - 59}]' for concern in concerns]


def test_a_learned_reference_outlives_a_restart_and_what_was_seen_against_it():
    fleet = a_fleet(learn=1000)
    observe(fleet, rows=1000, raw=raw_rows(1000, 1))
    (learner,) = fleet.learned()
    learned = learner.build(NOW)
    fleet.adopt(MODEL, [learned])
    observe(fleet, {X: np.zeros(700)})

    again = a_fleet(learn=1000)
    revision = again.revision
    snapshot = restarted(fleet, again)

    assert again.references(MODEL) == (learned,)
    assert again.revision != revision, "codecs must bring its columns"
    assert not again.learns(MODEL)
    assert view(snapshot).learning is None
    assert view(snapshot).drift_readout.n[0] == 700  # type: ignore[union-attr]

    for other in (a_fleet(), a_fleet(a_reference()), a_fleet(a_reference(), learn=1000)):
        before = other.references(MODEL)
        other.load(fleet.dump())
        assert other.references(MODEL) == before, "a model that is not to learn, or was given a reference, has its own"


def test_progress_of_learning_outlives_restarts_and_gives_the_same_reference():
    lasting, mortal, kept = a_fleet(learn=1000), a_fleet(learn=1000), dict[str, bytes | None]()
    for i, rows in enumerate((100, 156, 300, 1, 400, 100)):
        for fleet in (lasting, mortal):
            observe(fleet, rows=rows, raw=raw_rows(rows, i))
        kept |= mortal.changes()
        mortal = a_fleet(learn=1000)
        mortal.load({key: entry for key, entry in kept.items() if entry is not None})
        assert view(mortal.tick(NOW)).learning == view(lasting.tick(NOW)).learning

    (ours,), (theirs,) = mortal.learned(), lasting.learned()
    assert ours.build(NOW) == theirs.build(NOW)

    mortal.changes()
    mortal.adopt(MODEL, [ours.build(NOW)])
    gone = [key for key, entry in mortal.changes().items() if entry is None]
    assert sorted(gone) == [f'["learner","{MODEL}","1",{number}]' for number in range(4)]


def test_a_learner_without_hope_finds_that_out_again():
    """Its owner is told once more, and other settings may help it."""
    fleet, again = a_fleet(learn=4), a_fleet(learn=4)
    observe(fleet, rows=4, raw=[{X: []}] * 4)
    for one in (fleet, again):
        (learner,) = one.learned()
        with pytest.raises(BadReference, match="no feature"):
            learner.build(NOW)
        assert one.learned() == ()
        if one is fleet:
            again.load(fleet.dump())
            assert view(again.tick(NOW)).learning == (4, 4)


def test_another_goal_of_learning_keeps_the_rows():
    fleet = a_fleet(learn=1000)
    observe(fleet, rows=600, raw=raw_rows(600, 1))

    sooner, later = a_fleet(learn=500), a_fleet(learn=2000)
    assert view(restarted(fleet, sooner)).learning == (600, 500)
    assert view(restarted(fleet, later)).learning == (600, 2000)
    observe(sooner, rows=700, raw=raw_rows(700, 2))
    assert [learner.seen for learner in sooner.learned()] == [600]
    assert later.learned() == ()


def test_a_replaced_reference_goes_and_its_counts_with_it():
    fleet = a_fleet(learn=4)
    one, two = a_reference(), a_reference(rows=1999)
    fleet.adopt(MODEL, [one])
    observe(fleet, columns_of(10))
    kept = dict(fleet.changes())
    fleet.adopt(MODEL, [two])

    changes = fleet.changes()

    pane = int(NOW // 60)
    assert changes[f'["reference","{MODEL}","{one.id}","document"]'] is None
    assert changes[f'["drift","{MODEL}","1",{pane}]'] is None
    assert {key: entry for key, entry in (kept | changes).items() if entry is not None} == fleet.dump()


def test_what_two_processes_have_counted_is_told_as_changed():
    fleet, other = a_fleet(a_reference()), a_fleet(a_reference())
    for one in (fleet, other):
        observe(one, columns_of(10))
    kept = dict(fleet.changes())

    fleet.merge(other)

    assert kept | fleet.changes() == fleet.dump()


def test_a_state_of_another_make_is_refused():
    state = a_fleet(a_reference()).dump()
    light = bytearray(state['["fleet"]'])
    assert light[1] == VERSION

    for version, error in ((VERSION + 1, NewerState), (VERSION - 1, BadState)):
        light[1] = version
        with pytest.raises(error, match=f"state {VERSION} expected, found {version}"):
            a_fleet(a_reference()).load(state | {'["fleet"]': bytes(light)})
    assert issubclass(NewerState, BadState)


def test_versions_without_a_reference_get_that_of_the_configured_version_or_else_the_newest():
    old, new = (a_reference(version=version, created=NOW + i) for i, version in enumerate(("1", "2")))

    for references in ([old, new], [new, old]):
        for configured, default, expected in (("1", old, "1"), (None, new, "2"), ("3", new, "3")):
            fleet = Fleet([ModelSettings(MODEL, version=configured)], {MODEL: references})
            assert (fleet.default_reference(MODEL), fleet.expected_version(MODEL)) == (default, expected)
    nothing = Fleet([ModelSettings(MODEL)])
    assert (nothing.default_reference(MODEL), nothing.expected_version(MODEL)) == (None, None)
