"""What our rules cost a Prometheus: twenty replicas with fifty features each, scraped every 15 s as in production.

Rules read raw counters over five minutes at most, and all else from recorded steps. So a day of steps and the last
minutes of counters are written ahead; then the replicas are scraped while rules are evaluated. Only their interval is
another, shorter one: it does not change what an evaluation costs. Nobody sends labels: what quality costs goes with
models and not with their features.
"""

import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from exporter.assets.rules import rule_groups
from exporter.catalog import metrics
from exporter.catalog.drift_rules import OBSERVATIONS
from exporter.catalog.metric import Metric
from exporter.catalog.rules import STEP_M, Settings
from tests.bench.figures import Figure
from tests.e2e.prometheus import Prometheus, scraping
from tests.e2e.running import value_of
from tests.e2e.waiting import eventually
from tests.loopback import Asked, Told, listening

REPLICAS, FEATURES, CUTS = 20, 50, 20
BINS = (*(f"{place:02d}" for place in range(CUTS)), "missing", "unseen")
SCRAPE_S = 15
INTERVAL_S = 10
"""Between evaluations of every group, here."""
BUDGET_S = 2.0
SAMPLES = 10_000
"""Of the reference."""

_JOB = "fleet"
_MODEL = {"model": "bench", "version": "3"}
_REFERENCE = {**_MODEL, "reference": "0123456789ab"}
_FEATURES = [{**_REFERENCE, "kind": "input", "feature": f"feature_{number:02d}"} for number in range(FEATURES)]
_BEFORE_S = 60 * (STEP_M + 1)
"""Counters that are there when the first rule looks."""


def missing() -> str | None:
    """Why nothing can be measured here; None if it can."""
    absent = [name for name in ("prometheus", "promtool") if shutil.which(name) is None]
    return f"{' and '.join(absent)} not installed" if absent else None


def costs(*, quick: bool) -> list[Figure]:
    """Seconds that each group takes, and the memory of the Prometheus that evaluates them."""
    evaluations = 2 if quick else 6
    groups = [group | {"interval": f"{INTERVAL_S}s"} for group in rule_groups(Settings())]
    with tempfile.TemporaryDirectory() as name, fleet(time.time() - 86_400) as replicas:
        folder = Path(name)
        write_ahead(folder, replicas)
        rules = folder / "rules.yml"
        rules.write_text(yaml.safe_dump({"groups": groups}))
        with scraping("prometheus", folder, [replicas.job()], rule_files=[str(rules)]) as prometheus:
            evaluated(prometheus, 1)
            began, before = time.monotonic(), prometheus.metrics()
            took = evaluated(prometheus, evaluations)
            passed, said = time.monotonic() - began, prometheus.metrics()
    figures = []
    for group in groups:
        name, all_s = f"{rules};{group['name']}", took[group["name"]]
        recorded = value_of(said, "prometheus_rule_group_last_evaluation_samples", rule_group=name)
        note = f"worst {max(all_s):.2f} of {len(all_s)}; {len(group['rules'])} rules, {recorded:,.0f} series"
        figures.append(Figure(group["name"], statistics.median(all_s), "s", BUDGET_S, "at most", note))
    memory, series = (value_of(said, name) for name in ("process_resident_memory_bytes", "prometheus_tsdb_head_series"))
    now, then = (value_of(one, "process_cpu_seconds_total") for one in (said, before))
    return [
        *figures,
        Figure("all groups once, CPU", (now - then) / (passed / INTERVAL_S), "s", note="what else Prometheus does too"),
        Figure("RSS of Prometheus", memory / 2**20, "MiB", note=f"{series:,.0f} series in its head"),
    ]


class Fleet:
    """Replicas that each count as much as the others, from a moment (epoch seconds) on."""

    def __init__(self, began: float, port: int) -> None:
        self.began = began
        self._port = port
        self._counters = [
            (_text(metrics.BIN_OBSERVATIONS, feature | {"bin": label}), 1 + place % 3)
            for feature in _FEATURES
            for place, label in enumerate(BINS)
        ]
        self._counters.append((_text(metrics.PREDICTIONS, _MODEL), 2 * len(BINS)))
        self._gauges = "".join(f"{series} {value}\n" for series, value in _gauges()).encode()

    def job(self) -> dict[str, Any]:
        """The scrape job of all, which one server plays."""
        targets = [
            {
                "targets": [f"127.0.0.1:{self._port}"],
                "labels": {"__metrics_path__": f"/{name}", "instance": name, "namespace": "bench"},
            }
            for name in self.replicas()
        ]
        return {"job_name": _JOB, "scrape_interval": f"{SCRAPE_S}s", "static_configs": targets}

    def replicas(self) -> list[str]:
        """Their names."""
        return [f"replica-{number:02d}" for number in range(REPLICAS)]

    def exposition(self, now: float) -> bytes:
        """What a replica answers."""
        return self._gauges + b"".join(b"%s %d\n" % (series.encode(), value) for series, value in self.counters(now))

    def counters(self, now: float) -> Iterator[tuple[str, int]]:
        """Every counter, and how far it has come."""
        for series, per_s in self._counters:
            yield series, int(per_s * (now - self.began))


@contextmanager
def fleet(began: float) -> Iterator[Fleet]:
    """Replicas that listen."""

    def told(_: Asked) -> Told:
        return Told(replicas.exposition(time.time()), headers={"content-type": "text/plain; version=0.0.4"})

    with listening(told) as port:
        replicas = Fleet(began, port)
        yield replicas


def write_ahead(folder: Path, replicas: Fleet) -> None:
    """Blocks of a day of steps, and of the counters of the last minutes."""
    now = time.time()
    told = {
        "steps": _steps(now),
        "counters": _counters(replicas, [now - age for age in range(_BEFORE_S, 0, -SCRAPE_S)]),
    }
    for name, lines in told.items():
        history = folder / f"{name}.om"
        with history.open("w") as file:
            file.writelines(lines)
            file.write("# EOF\n")
        command = ["promtool", "tsdb", "create-blocks-from", "--max-block-duration=48h", "openmetrics"]
        subprocess.run([*command, history, folder / "data"], check=True, capture_output=True)


def evaluated(prometheus: Prometheus, times: int) -> dict[str, list[float]]:
    """Seconds of so many evaluations of each group."""
    took: dict[str, dict[str, float]] = {}

    def enough() -> bool:
        for group in prometheus.api("rules")["groups"]:
            failed = {rule["name"]: rule["lastError"] for rule in group["rules"] if rule.get("lastError")}
            assert not failed, failed
            if group["evaluationTime"] > 0:
                took.setdefault(group["name"], {})[group["lastEvaluation"]] = group["evaluationTime"]
        return bool(took) and min(map(len, took.values())) >= times

    eventually(enough, "rules are evaluated", within_s=(times + 3) * INTERVAL_S)
    return {name: list(seen.values())[:times] for name, seen in took.items()}


def _gauges() -> Iterator[tuple[str, float]]:
    yield _text(metrics.DRIFT_MIN_SAMPLES, _MODEL), 500
    yield _text(metrics.DRIFT_ALPHA, _MODEL), 1e-5
    yield _text(metrics.DRIFTED_FEATURES_THRESHOLD, _MODEL), 1 / 3
    yield _text(metrics.ERROR_BUDGET, _MODEL), 0.001
    for feature in _FEATURES:
        yield _text(metrics.DRIFT_THRESHOLD, {key: feature[key] for key in (*_MODEL, "kind", "feature")}), 0.1
        yield _text(metrics.REFERENCE_SAMPLES, feature), SAMPLES
        yield _text(metrics.REFERENCE_CHI2_CRITICAL, feature), 50
        for label in BINS[:CUTS]:
            yield _text(metrics.REFERENCE_RATIO, feature | {"bin": label}), 1 / CUTS


def _steps(now: float) -> Iterator[str]:
    step_s = 60 * STEP_M
    moments = [now - 1 - step_s * age for age in range(86_400 // step_s, -1, -1)]
    for feature in _FEATURES:
        for place, label in enumerate(BINS):
            labels = _labels(feature | {"bin": label, "namespace": "bench"})
            yield from (f"{OBSERVATIONS}{labels} {step_s * REPLICAS * (1 + place % 3)} {at:.3f}\n" for at in moments)


def _counters(replicas: Fleet, moments: Sequence[float]) -> Iterable[str]:
    scrapes = [list(replicas.counters(at)) for at in moments]
    for name in replicas.replicas():
        target = f',instance="{name}",job="{_JOB}",namespace="bench"}}'
        for at, scrape in zip(moments, scrapes, strict=True):
            yield from (f"{series[:-1]}{target} {value} {at:.3f}\n" for series, value in scrape)


def _text(metric: Metric, labels: Mapping[str, str]) -> str:
    return metric.name + _labels(labels)


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"
