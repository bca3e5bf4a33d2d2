"""A whole fleet among the real programs: what Prometheus records is right, and alerts reach whom they should, once.

All tests look at one story (fleet_stage), which is played on a clock that runs faster.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from exporter.catalog import drift_rules, metrics
from exporter.ingest.native import NativeCodec
from exporter.ingest.source import Messages
from exporter.monitor.fleet import Fleet
from exporter.monitor.panes import sliding_window
from exporter.monitor.settings import ModelSettings
from tests.assets.test_dashboards import TARGETS, asked
from tests.builders import view
from tests.e2e import increases
from tests.e2e.alertmanager import TICKETS
from tests.e2e.fast_clock import expression
from tests.e2e.fleet_stage import WINDOW, WINDOW_S, Story, played
from tests.e2e.fleet_story import (
    BROKEN,
    CANARY,
    DRIFTING,
    DRIFTS,
    FEW,
    HEALTHY,
    MIN_SAMPLES,
    MODELS,
    RARE,
    ROLLED_BACK,
    ROUTED,
    VERSION,
    WORSE,
)
from tests.e2e.increases import Key, Scraped
from tests.e2e.lengthy import long

pytestmark = [pytest.mark.e2e, long]

PSI, KS = drift_rules.scores("psi", WINDOW), drift_rules.scores("ks", WINDOW)
STEP_S = 5
RANGE_MS = 59_983
"""An hour that lacks a second."""
SURELY_MS = 2000
"""By then a step is stored that was evaluated, even where machines are slow."""
LAG_S = 1.0
"""Of what is scraped behind what was sent: a file is looked at, a tick ends, and a scrape begins twice a second."""
PSI_TOLERANCE, KS_TOLERANCE, PSI_NEAR_0 = 0.008, 0.0008, 0.0005
"""Of PSI a share, and so much at least; of KS so much."""


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with played(tmp_path_factory.mktemp("live")) as one:
        yield one


@dataclass(frozen=True)
class Judged:
    """What the rules made of a version at one of their evaluations, by kind and feature; and of which steps (ms)."""

    steps_ms: Sequence[int]
    psi: Mapping[tuple[str, str], float]
    ks: Mapping[tuple[str, str], float]


def judged(story: Story, model: str, version: str, moment: float) -> Judged | None:
    """The newest evaluation before a moment whose last step was recorded for sure when it took place; None if it had
    too little to judge by.
    """
    chosen = f'{{model="{model}",version="{version}"}}'
    moments = {at for at in _times_ms(story, PSI + chosen, moment) if at > 1000 * (moment - 2 * STEP_S)}
    written = _times_ms(story, drift_rules.OBSERVATIONS + chosen, moment)
    if not moments:
        return None
    at = max(moments, key=lambda at: (min(at - step for step in written if step <= at) > SURELY_MS, at))
    scores = [
        {
            (labels["kind"], labels["feature"]): value
            for labels, value in story.prometheus.query(name + chosen, at / 1000)
        }
        for name in (PSI, KS)
    ]
    return Judged(sorted(step for step in written if at - RANGE_MS <= step <= at), *scores)


def steps(story: Story, model: str, version: str, one: Judged) -> Iterator[tuple[int, Mapping[Key, float]]]:
    """The recorded increases of each step."""
    selector = f'{drift_rules.OBSERVATIONS}{{model="{model}",version="{version}"}}'
    found: dict[int, dict[Key, float]] = defaultdict(dict)
    for labels, times_ms, values in _stored(story, selector, one.steps_ms[-1]):
        for at, value in zip(times_ms, values, strict=True):
            found[at][_key(labels)] = value
    return ((at, found[at]) for at in one.steps_ms)


def scraped(story: Story, model: str, version: str, one: Judged) -> list[Scraped]:
    """The counters of each replica over the steps."""
    selector = f'{metrics.BIN_OBSERVATIONS.name}{{model="{model}",version="{version}"}}'
    found: dict[tuple[str, tuple[int, ...]], tuple[list[Key], list[list[float]]]] = defaultdict(lambda: ([], []))
    for labels, times_ms, values in _stored(story, selector, one.steps_ms[-1]):
        keys, rows = found[labels["instance"], tuple(times_ms)]
        keys.append(_key(labels))
        rows.append(values)
    return [Scraped(keys, np.array(times), np.array(rows)) for (_, times), (keys, rows) in found.items()]


def _stored(story: Story, selector: str, at_ms: int) -> Iterator[tuple[Mapping[str, str], list[int], list[float]]]:
    """Samples of each series as they are stored, of more than a window: times in ms, and values."""
    query = f"{selector}[{WINDOW_S + 2 * STEP_S}s]"
    for series in story.prometheus.api("query", query=query, time=f"{at_ms / 1000:.3f}")["result"]:
        times, values = zip(*series["values"], strict=True)
        yield series["metric"], [round(1000 * at) for at in times], list(map(float, values))


def _times_ms(story: Story, selector: str, moment: float) -> set[int]:
    return {at for _, times_ms, _ in _stored(story, selector, int(1000 * moment)) for at in times_ms}


def _key(labels: Mapping[str, str]) -> Key:
    return Key(*(labels[name] for name in Key._fields))


def enough(model: str) -> int:
    """Samples that it takes to judge a feature."""
    return FEW if model == RARE else MIN_SAMPLES


def counted(story: Story, model: str, version: str, payloads: Sequence[bytes]) -> tuple[dict[Key, int], dict[Key, int]]:
    """The reference in live bins, and these events in every bin, as one process counts them."""
    settings = ModelSettings(model, version=version, window=sliding_window(600, "10m"), min_samples=enough(model))
    fleet = Fleet([settings], {model: [story.references[model, version]]})
    now = story.moments["mended"]
    fleet.observe(NativeCodec(fleet, "file").decode(Messages("file", payloads, now)), now)
    one = view(fleet.tick(now), version, model)
    tracker = one.drift
    keys = [Key(tracker.reference.id, *plan.key, exported.label) for plan, exported in tracker.bins]
    reference = {
        key: exported.reference for key, (_, exported) in zip(keys, tracker.bins, strict=True) if exported.live
    }
    return reference, dict(zip(keys, tracker.bin_counts(one.drift_lifetime).tolist(), strict=True))


def scores(
    reference: Mapping[Key, float], live: Mapping[Key, float], least: int
) -> tuple[dict[tuple[str, str], float], dict[tuple[str, str], float]]:
    """PSI and KS by kind and feature, of those with enough values; categories have no KS."""
    by_feature: dict[tuple[str, str], list[Key]] = defaultdict(list)
    for key in sorted(reference):
        by_feature[key.kind, key.feature].append(key)
    psi, ks = {}, {}
    for feature, keys in by_feature.items():
        if sum(live[key] for key in keys) < least:
            continue  # as of scores and predictions where some have failed
        psi[feature] = increases.psi(*(np.array([float(counts[key]) for key in keys]) for counts in (reference, live)))
        ordinal = [key for key in keys if key.bin.isdigit()]
        if ordinal:
            ks[feature] = increases.ks(*(np.array([float(one[key]) for key in ordinal]) for one in (reference, live)))
    return psi, ks


SCORES = 7 + 5
"""PSI of every input, the prediction and the score, and KS of those that are numbers."""
EVERY = [(model, VERSION) for model in MODELS] + [(HEALTHY, CANARY)]


def test_recorded_scores_are_those_of_the_counters_that_were_scraped(story: Story):
    compared = 0
    for moment in story.moments.values():
        for model, version in EVERY:
            one = judged(story, model, version, moment)
            if one is None:
                continue
            replicas = scraped(story, model, version, one)
            live: dict[Key, float] = defaultdict(float)
            for at, recorded in steps(story, model, version, one):
                computed = increases.step(replicas, recorded, at, 1000 * STEP_S)
                assert computed == pytest.approx(recorded, rel=1e-9, abs=1e-9), (model, at)
                for key, value in computed.items():
                    live[key] += value
            reference, _ = counted(story, model, version, [])
            psi, ks = scores(reference, live, enough(model))
            assert one.psi == pytest.approx(psi, rel=1e-9)
            assert one.ks == pytest.approx(ks, rel=1e-9)
            compared += len(psi) + len(ks)
    assert compared >= 4 * len(MODELS) * SCORES + 2 * SCORES, "every model at every moment, and the late canary"


def test_recorded_scores_are_those_of_the_events_that_were_sent(story: Story):
    """Of a model that drifts all the time: over windows before, with and after the kill and the late replica."""
    for name in ("changing", "troubled", "mended"):
        one = judged(story, DRIFTS, VERSION, story.moments[name])
        assert one is not None
        start, end = one.steps_ms[0] / 1000 - STEP_S, one.steps_ms[-1] / 1000
        sent = story.traffic.sent(DRIFTS, VERSION, start - LAG_S, end - LAG_S)
        psi, ks = scores(*counted(story, DRIFTS, VERSION, [event.payload for event in sent]), enough(DRIFTS))
        assert psi["input", DRIFTING] > 0.5
        assert one.psi == pytest.approx(psi, rel=PSI_TOLERANCE, abs=PSI_NEAR_0)
        # Of a routed value each replica sees a half: what one of them is late by is missing in its half alone.
        assert one.ks.pop(("input", ROUTED)) == pytest.approx(ks.pop(("input", ROUTED)), abs=10 * KS_TOLERANCE)
        assert one.ks == pytest.approx(ks, abs=KS_TOLERANCE)


def test_scores_of_replicas_must_not_be_averaged(story: Story):
    def mean(series: str) -> float:
        ((_, value),) = story.prometheus.query(f"avg({series})", story.moments["troubled"])
        return value

    # Without any drift PSI is (B - 1) (1/n + 1/m) on average, and each of three replicas has a third of the samples.
    rare = f'{{model="{RARE}",feature=~"x.+"}}'
    assert mean(metrics.PSI.name + rare) > 2 * mean(PSI + rare)
    # Requests that are routed by a value: a replica sees half of what the model was trained on, the fleet all of it.
    routed = f'{{model="{DRIFTS}",feature="{ROUTED}"}}'
    assert mean(metrics.PSI.name + routed) > 1
    assert mean(PSI + routed) < 0.02


def test_no_rule_and_no_text_fails(story: Story):
    name = "prometheus_rule_evaluation_failures_total{"
    failures = [line for line in story.prometheus.metrics().splitlines() if line.startswith(name)]
    assert failures
    assert [line for line in failures if not line.endswith(" 0")] == []
    assert "error expanding" not in str(story.alerts)


CHOSEN = {"window": WINDOW.text, "model": HEALTHY, "version": VERSION, "feature": DRIFTING}


def test_every_query_of_every_panel_has_data(story: Story):
    # Exporters have their window in their configuration, and name it as there.
    window, fast = f'window="{WINDOW.text}"', f'window="{WINDOW_S // 60}m"'
    unanswered = []
    for uid, panel, target in TARGETS:
        expr = expression(asked(target["expr"], CHOSEN)).replace(window, fast)
        if not story.prometheus.query(expr, story.moments["troubled"]):
            unanswered.append((uid, panel["title"], target["legendFormat"]))
    assert unanswered == []


def test_drift_alone_is_a_ticket(story: Story):
    (drift,) = story.known("MLFeatureDrift", DRIFTS)
    assert drift["labels"]["feature"] == DRIFTING
    assert drift["status"]["state"] == "active"
    assert drift["labels"] in story.receivers.alerts(TICKETS)
    assert story.receivers.pages_of(DRIFTS, "trigger") == []


def test_a_broken_pipeline_inhibits_the_drift_that_it_looks_like(story: Story):
    (failure,) = story.known("MLInputPipelineFailure", BROKEN)
    assert failure["status"] == {"state": "active", "inhibitedBy": [], "silencedBy": []}
    drifts = story.known("MLFeatureDrift", BROKEN) + story.known("MLModelDrift", BROKEN)
    assert len(drifts) > 1
    for drift in drifts:
        assert drift["status"]["state"] == "suppressed"
        assert failure["fingerprint"] in drift["status"]["inhibitedBy"]
    (page,) = story.receivers.pages_of(BROKEN, "trigger")
    assert page["payload"]["class"] == "MLInputPipelineFailure"
    assert BROKEN not in {labels["model"] for labels in story.receivers.alerts(TICKETS)}


def test_half_of_a_condition_is_not_enough(story: Story):
    assert story.ever("MLModelRollbackAdvised") == set(ROLLED_BACK), "neither of drift nor of lost quality alone"
    assert story.ever("MLModelDrift") == {BROKEN}, "not of inputs alone"
    assert story.ever("MLConceptDriftSuspected", "firing") == {WORSE}, "not of a model whose inputs drift too"
    assert {page["payload"]["group"] for page in story.receivers.pages} <= {*ROLLED_BACK, BROKEN, ""}


def test_a_rollback_is_one_page_a_model_and_is_resolved(story: Story):
    assert story.receivers.refused == []
    keys = set()
    for model in ROLLED_BACK:
        (page,) = story.receivers.pages_of(model, "trigger")
        (resolved,) = story.receivers.pages_of(model, "resolve")
        assert page["dedup_key"] == resolved["dedup_key"]
        keys.add(page["dedup_key"])
        told = page["payload"]
        assert told["summary"] == f"{model} {VERSION} has become worse while its inputs drift: roll back."
        assert resolved["payload"]["summary"] == "Resolved."
        assert (told["severity"], told["class"]) == ("critical", "MLModelRollbackAdvised")
        assert told["custom_details"]["action"] == "rollback"
        assert [link["text"] for link in page["links"]] == ["Runbook", "Dashboard"]
    assert len(keys) == len(ROLLED_BACK)
