"""One full run of the product: what it emits is the catalogue, and what it emits can be read back."""

import json
import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
from prometheus_client import Metric as Family
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.app.rendering import Rendered, Renderer
from exporter.catalog.labels import INFO_LABELS
from exporter.catalog.metrics import METRICS
from exporter.ingest.native import NativeCodec
from exporter.ingest.source import Messages
from exporter.monitor.events import DROP_REASONS, LABEL, LATE_REASONS, REJECT_REASONS, TROUBLE_REASONS, FeatureKey
from exporter.monitor.fleet import Fleet
from exporter.monitor.health import SourceHealth, StateHealth
from exporter.monitor.settings import JoinSettings, ModelSettings, Segmentation
from exporter.monitor.snapshot import Snapshot
from tests.builders import NOW, PREDICTION, SCORE, a_reference

HOSTILE = "\"quoted\" \\ {le='1'} # \N{PILE OF POO}<script>"
"""As a model or version, which must be printable; features and categories can be anything."""
WORSE = HOSTILE + "\u202e\n\r\t\u2028\\n\x00# EOF\n"

PROCESS = ("python_", "process_")
"""Families of prometheus_client's own collectors."""


def an_event(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "model": HOSTILE,
        "version": HOSTILE,
        "timestamp": NOW,
        "features": {WORSE: number % 100, "other": number % 7, "colour": WORSE if number % 2 else "red"},
        "prediction": "01"[number % 2],
        "score": number / 500,
        "label": "01"[number % 3 == 1],
        "latency_seconds": number / 1000,
        "tags": {WORSE: "abc"[number % 3 % 2]},
    } | fields


@cache
def run() -> tuple[Snapshot, Rendered]:
    """A model with everything set and every score evaluated, a learning one, an unknown one, and many faults."""
    known = a_reference(
        {
            FeatureKey("input", WORSE): np.arange(1000.0),
            FeatureKey("input", "other"): np.arange(1000.0) % 7,
            FeatureKey("input", "colour"): [WORSE, "red"] * 500,
            PREDICTION: ["0", "1"] * 500,
            SCORE: np.linspace(0, 1, 1000),
            LABEL: ["0", "1"] * 500,
        },
        model=HOSTILE,
        version=HOSTILE,
    )
    quantity = a_reference({PREDICTION: np.linspace(0, 1, 1000), LABEL: np.linspace(0, 2, 1000)}, model="quantity")
    everything = ModelSettings(
        HOSTILE,
        version=HOSTILE,
        min_samples=100,
        min_labels=100,
        trained=NOW - 1e6,
        max_age_s=1e7,
        latency_objective_s={"0.99": 0.25},
        segments=(Segmentation(WORSE),),
        info={label.name: WORSE for label in INFO_LABELS},
        join=JoinSettings(3600.0),
    )
    fleet = Fleet(
        [everything, ModelSettings("quantity", version="1"), ModelSettings("young", version="1", learn=1000)],
        {HOSTILE: [known], "quantity": [quantity]},
    )
    events = [
        *(an_event(number) for number in range(500)),
        *(an_event(number, error="timeout") for number in range(5)),
        *(an_event(number, model="young", version="1") for number in range(5)),
        *(an_event(number, model="nobody knows") for number in range(5)),
        *(an_event(number, model="quantity", version="1", prediction=0.5, label=number / 500) for number in range(500)),
        an_event(0, timestamp=NOW - 1e5),
        an_event(0, timestamp=NOW + 1e5),
        an_event(0, features={WORSE: "text", "colour": []}),
        an_event(0, model=""),
        {"model": HOSTILE, "label": 1},
    ]
    payloads = [json.dumps(event).encode() for event in events]
    fleet.observe(NativeCodec(fleet, "http").decode(Messages("http", payloads, NOW)), NOW)
    renderer = Renderer("0", started=NOW, tick_s=5)
    renderer.render(fleet.tick(NOW), SOURCES, STATE, [])
    renderer.ticked(0.01, NOW)
    snapshot = fleet.tick(NOW)
    return snapshot, renderer.render(snapshot, SOURCES, STATE, [])


SOURCES = {"http": SourceHealth("at_most_once"), "kafka": SourceHealth("exactly_once", partitions=3, lag_records=7)}
STATE = StateHealth(write_failures=1, last_write=NOW, write_duration_s=0.01, size_bytes=4096, set_aside="newer")

FORMATS = ("text", "openmetrics")


@pytest.fixture(params=FORMATS)
def families(request: pytest.FixtureRequest) -> dict[str, Family]:
    """Families of the catalogue by name, as a scraper reads them."""
    return parsed(run()[1], request.param)


def parsed(rendered: Rendered, text_format: str) -> dict[str, Family]:
    text = getattr(rendered, text_format).plain.decode()
    parse = parse_text if text_format == "text" else parse_openmetrics
    found = [family for family in parse(text) if not family.name.startswith(PROCESS)]
    assert len({family.name for family in found}) == len(found), "a family is torn apart"
    return {family.name: family for family in found}


def name_of(family: Family) -> str:
    """Both parsers leave the suffix of counters off."""
    return f"{family.name}_total" if family.type == "counter" else family.name


def test_every_emitted_family_is_in_the_catalogue_with_exactly_its_labels(families: Mapping[str, Family]):
    catalogue = {metric.name: metric for metric in METRICS}
    for family in families.values():
        metric = catalogue[name_of(family)]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        for sample in family.samples:
            names = set(sample.labels) - ({"le"} if metric.kind == "histogram" else set())
            assert names == {label.name for label in metric.labels}, sample.name


def test_every_metric_of_the_catalogue_is_emitted(families: Mapping[str, Family]):
    assert {name_of(family) for family in families.values()} == {metric.name for metric in METRICS}


def test_every_sample_is_read_back_as_it_was(families: Mapping[str, Family]):
    exposed, withheld = run()[0].exposed
    assert withheld == 0
    samples = [*exposed, *(sample for source, health in SOURCES.items() for sample in health.samples(source))]
    expected = {}
    for series, value in samples:
        labels = dict(zip((label.name for label in series.metric.labels), series.values, strict=True))
        name, _, pairs = series.text.partition("{")
        if name.endswith("_bucket"):
            labels["le"] = pairs.rpartition('le="')[2].removesuffix('"}')
        expected[name, frozenset(labels.items())] = float(value)
    assert len(expected) == len(samples)
    found = {
        (sample.name, frozenset(sample.labels.items())): float(sample.value)
        for family in families.values()
        for sample in family.samples
        if not sample.name.startswith("ml_exporter_")
    }
    assert found == expected


def test_no_sample_is_nan_and_no_timestamp_is_sent(families: Mapping[str, Family]):
    samples = [sample for family in families.values() for sample in family.samples]
    assert not [sample for sample in samples if math.isnan(sample.value) or sample.timestamp is not None]
    assert not [sample for sample in samples if sample.name.endswith("_created")]


def test_every_reason_is_there_from_the_start(families: Mapping[str, Family]):
    known = {
        "rejected": REJECT_REASONS,
        "dropped": DROP_REASONS,
        "late": LATE_REASONS,
        "source_errors": TROUBLE_REASONS,
    }
    for name, reasons in known.items():
        samples = families[f"ml_ingest_{name}"].samples
        assert {sample.labels["reason"] for sample in samples} == set(reasons)


def test_the_exporter_counts_its_own_series(families: Mapping[str, Family]):
    own = sum(len(family.samples) for name, family in families.items() if name.startswith("ml_exporter_"))
    (series,) = families["ml_exporter_series"].samples
    assert series.value + own == sum(len(family.samples) for family in families.values())


def test_both_formats_say_the_same():
    text, openmetrics = (
        {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in parsed(run()[1], text_format).values()
            for sample in family.samples
        }
        for text_format in FORMATS
    )
    assert text == openmetrics


def test_what_the_status_shows_of_a_model_are_its_series(families: Mapping[str, Family]):
    """The page and a dashboard must not disagree."""
    status = json.loads(run()[1].status.plain)
    (model,) = [one for one in status["models"] if one["model"] == HOSTILE]
    for feature in model["features"]:
        for name, shown in (
            ("psi", "psi"),
            ("psi_critical", "psi_critical"),
            ("drift_pvalue", "p_value"),
            ("ks", "ks"),
        ):
            values = [
                sample.value
                for sample in families[f"ml_feature_{name}"].samples
                if (HOSTILE, feature["feature"], feature["kind"])
                == (sample.labels["model"], sample.labels["feature"], sample.labels["kind"])
            ]
            assert values == ([] if feature[shown] is None else [feature[shown]])


def test_qualities_of_the_status_are_series_too(families: Mapping[str, Family]):
    status = json.loads(run()[1].status.plain)
    for model in status["models"]:
        if model["quality"] is None:
            continue
        assert model["quality"]["metrics"]
        for suffix, shown in (("", "value"), ("_lower", "lower"), ("_upper", "upper"), ("_baseline", "baseline")):
            series = {
                sample.labels["metric"]: sample.value
                for sample in families[f"ml_model_quality{suffix}"].samples
                if sample.labels["model"] == model["model"]
            }
            assert series == {name: one[shown] for name, one in model["quality"]["metrics"].items()}
