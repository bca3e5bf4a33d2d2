"""Whole runs of the provisioner against a fake Grafana, without waiting."""

from dataclasses import dataclass, field
from typing import Any

from exporter.app.grafana import Grafana
from exporter.app.provision import Step, Wish, carry_out, choose_datasource, plan
from exporter.catalog.rules import Settings
from tests.app.fake_grafana import FakeGrafana
from tests.app.grafana_content import TOKEN

KEY = "0123456789abcdef0123456789abcdef"
PAGING: dict[str, Any] = {"alerts": True, "key": KEY}


@dataclass
class Run:
    """What a run did, or would have, and the pauses it made."""

    steps: list[Step] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)

    def told(self, *actions: str) -> list[str]:
        """Names of the things about which this was to be done."""
        return [step.thing.name for step in self.steps if step.action in actions]


def provision(fake: FakeGrafana, *, dry: bool = False, **wish: Any) -> Run:
    """A run with these wishes."""
    run = Run()
    with Grafana(fake.url, TOKEN) as grafana:
        source = choose_datasource(grafana.datasources(), None)
        run.steps = plan(grafana, Wish(Settings(), "Model health", **wish), source, run.pauses.append)
        for step in () if dry else run.steps:
            carry_out(step, run.pauses.append)
    return run
