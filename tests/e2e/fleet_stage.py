"""The programs among which the story of a fleet is played, on a clock that runs faster, and how it is played.

Three exporters, Prometheus with our rules, Alertmanager with our example, and whom it tells. One exporter is killed and
comes back to its state, one joins late, and meanwhile each model has its trouble; two are mended again.
"""

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from exporter.assets.rules import rule_groups
from exporter.catalog import drift_rules, traffic_rules
from exporter.catalog.rules import Settings
from exporter.monitor.reference import Reference
from tests.brokers import tansu, topics
from tests.brokers.process import free_ports
from tests.e2e import fleet_story
from tests.e2e.alertmanager import Alertmanager, alerting
from tests.e2e.binaries import binary
from tests.e2e.fast_clock import sped_up
from tests.e2e.fleet_story import (
    BROKEN,
    DRIFTS,
    HEALTHY,
    MODELS,
    ROLLED_BACK,
    TROUBLES,
    VERSION,
    WORSE,
    Replica,
    Traffic,
)
from tests.e2e.prometheus import Prometheus, scraping
from tests.e2e.receiving import Receivers, receiving
from tests.e2e.running import Running, configured, started
from tests.e2e.waiting import eventually

SETTINGS = Settings(overrides={"stalled": 10.0, "state_age": 10.0})
"""Thresholds of what rules compare with the time, which is the only clock that runs as ever."""
WINDOW = SETTINGS.windows[0]
WINDOW_S, DAY_S = 60, 1440
"""An hour, and a day."""

_TICK, _SCRAPES = "500ms", {"scrape_interval": "500ms", "scrape_timeout": "500ms"}
"""Half a minute: ten scrapes a step."""
_FLAGS = ("--query.lookback-delta=15s", "--rules.alert.resend-delay=1s")
"""The minute after which Alertmanager is told again; and for longer than 5 minutes a value is current, because machines
are no faster: an evaluation that takes a second is late by as much.
"""
_YESTERDAY = 200
"""Predictions in a quarter of an hour."""


@dataclass
class Story:
    """What there is to look at when the story is over; moments are epoch seconds."""

    prometheus: Prometheus
    alertmanager: Alertmanager
    receivers: Receivers
    traffic: Traffic
    references: Mapping[tuple[str, str], Reference]
    moments: dict[str, float] = field(default_factory=dict)
    alerts: list[dict[str, Any]] = field(default_factory=list)

    def ever(self, alert: str, state: str = "pending|firing") -> set[str]:
        """Models of which an alert was in such a state at any moment of the story."""
        seen = f'count_over_time(ALERTS{{alertname="{alert}",alertstate=~"{state}"}}[10m])'
        return {labels["model"] for labels, _ in self.prometheus.query(seen)}

    def known(self, alert: str, model: str) -> list[dict[str, Any]]:
        """Alerts of a name as Alertmanager had them while all of them fired."""
        return [
            one for one in self.alerts if (alert, model) == (one["labels"]["alertname"], one["labels"].get("model"))
        ]

    def troubled(self) -> bool:
        """Whether Alertmanager knows of everything that befell models for good."""
        self.alerts = self.alertmanager.alerts()
        lasting = [
            ("MLFeatureDrift", DRIFTS),
            ("MLConceptDriftSuspected", WORSE),
            *((alert, BROKEN) for alert in ("MLInputPipelineFailure", "MLFeatureDrift", "MLModelDrift")),
        ]
        return all(self.known(*one) for one in lasting)

    def paged(self, action: str) -> bool:
        """Whether such an event has come for both models that are to be rolled back."""
        return all(self.receivers.pages_of(model, action) for model in ROLLED_BACK)


@contextmanager
def played(folder: Path) -> Iterator[Story]:
    """The story up to its end; everything runs on."""
    prometheus, promtool, amtool = (binary(name) for name in ("prometheus", "promtool", "amtool"))
    alertmanager = binary("prometheus-alertmanager", "alertmanager")
    ports, references = free_ports(3), fleet_story.references()
    with ExitStack() as stage:
        broker = stage.enter_context(tansu.running(folder / "tansu"))
        topic = broker.bootstrap, topics.create(broker.bootstrap, 1)
        receivers = stage.enter_context(receiving())
        alerts = stage.enter_context(alerting(alertmanager, amtool, folder / "alertmanager", receivers))
        _write_yesterday(promtool, folder / "prometheus")
        scraper = stage.enter_context(_scraping(prometheus, folder / "prometheus", ports, alerts))
        replicas = [folder / f"replica-{number}" for number in range(len(ports))]
        for number, (replica, port) in enumerate(zip(replicas, ports, strict=True)):
            configured(
                replica,
                fleet_story.models(number),
                references,
                listen=f"127.0.0.1:{port}",
                tick=_TICK,
                state={"path": "state"},
                sources=_sources(topic if number == 0 else None),
            )
        traffic = stage.enter_context(Traffic())
        story = Story(scraper, alerts, receivers, traffic, {(one.model, one.version): one for one in references})
        _play(story, stage, replicas, topic)
        yield story


def _play(story: Story, stage: ExitStack, replicas: Sequence[Path], topic: tuple[str, str]) -> None:
    first, second, third = replicas
    stage.enter_context(_exporter(first))
    killed = stage.enter_context(_exporter(second))
    story.traffic.join(Replica(0, first / "events.jsonl", topic))
    story.traffic.join(Replica(1, second / "events.jsonl"))
    judged = f"count({drift_rules.counts('evaluated', WINDOW)}) == {len(MODELS)}"
    eventually(lambda: story.prometheus.query(judged), "all models are judged", within_s=90)
    story.moments["in order"] = time.time()

    story.traffic.parts = TROUBLES
    killed.process.kill()
    killed.process.wait()
    stage.enter_context(_exporter(second))
    stage.enter_context(_exporter(third))
    story.traffic.join(Replica(2, third / "events.jsonl"))
    joined = time.time()
    eventually(lambda: story.paged("trigger"), "both models are to be rolled back", within_s=90)
    story.moments["changing"] = time.time()

    story.traffic.parts = {model: part for model, part in TROUBLES.items() if model not in ROLLED_BACK}
    eventually(
        lambda: time.time() > joined + WINDOW_S + 2 and story.troubled(),
        lambda: f"all fires: {story.alerts}",
        within_s=150,
    )
    story.moments["troubled"] = time.time()
    eventually(lambda: story.paged("resolve"), "both incidents are resolved", within_s=120)
    story.moments["mended"] = time.time()


def _exporter(folder: Path) -> AbstractContextManager[Running]:
    return started(folder, "run", "--config", str(folder / "config.yaml"))


def _sources(topic: tuple[str, str] | None) -> list[dict[str, Any]]:
    sources: list[dict[str, Any]] = [{"type": "http"}, {"type": "file", "path": "events.jsonl", "follow": True}]
    if topic is not None:
        bootstrap, name = topic
        share = {"member": 0, "of": 1}
        sources.append({"type": "kafka", "bootstrap_servers": [bootstrap], "topics": [name], "partitions": share})
    return sources


def _scraping(
    prometheus: str, folder: Path, ports: Sequence[int], alerts: Alertmanager
) -> AbstractContextManager[Prometheus]:
    rules = folder / "rules.yml"
    rules.write_text(yaml.safe_dump({"groups": sped_up(rule_groups(SETTINGS))}))
    targets = [{"targets": [f"127.0.0.1:{port}" for port in ports], "labels": {"namespace": "live"}}]
    job = {"job_name": "exporters", "static_configs": targets, **_SCRAPES}
    told = {"static_configs": [{"targets": [alerts.address]}]}
    more = {"rule_files": [str(rules)], "alerting": {"alertmanagers": [told]}}
    return scraping(prometheus, folder, [job], *_FLAGS, **more)


def _write_yesterday(promtool: str, folder: Path) -> None:
    """The traffic of the day before: what there is today is compared with it."""
    folder.mkdir(parents=True)
    began = time.time() - DAY_S - 60
    record = traffic_rules.traffic("predictions", traffic_rules.QUARTER.text)
    lines = [
        f'{record}{{namespace="live",model="{model}",version="{VERSION}"}} {_YESTERDAY} {began + 2 * place:.3f}\n'
        for model in (HEALTHY, DRIFTS, WORSE)
        for place in range(600)
    ]
    (folder / "yesterday.om").write_text("".join([*lines, "# EOF\n"]))
    command = [promtool, "tsdb", "create-blocks-from", "openmetrics", folder / "yesterday.om", folder / "data"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
