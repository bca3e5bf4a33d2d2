"""A real Alertmanager with our example of a configuration: receivers are on loopback, and its clock is a fast one."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from exporter.assets import alertmanager as example
from exporter.catalog.rules import Settings
from tests.brokers.process import free_ports
from tests.e2e.fast_clock import sped_up
from tests.e2e.receiving import PAGER, ROUTING_KEY, Receivers
from tests.e2e.serving import Server, serving

TICKETS, SWITCH = "/tickets", "/switch"
_CUSTOMARY = {"group_wait": "30s", "group_interval": "5m"}
"""What Alertmanager does where nothing is said; here it must be said, to be sped up."""


class Alertmanager(Server):
    """A running Alertmanager."""

    def alerts(self) -> list[dict[str, Any]]:
        """Every alert it knows of now, inhibited ones included."""
        return json.loads(self.get("/api/v2/alerts")[1])


@contextmanager
def alerting(alertmanager: str, amtool: str, folder: Path, receivers: Receivers) -> Iterator[Alertmanager]:
    """Alertmanager, once it is ready, which tells these receivers."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "alertmanager.yml"
    config.write_text(yaml.safe_dump(_configured(folder, receivers)))
    subprocess.run([amtool, "check-config", config], check=True, capture_output=True, timeout=30)
    (port,) = free_ports(1)
    command = [alertmanager, f"--config.file={config}", f"--storage.path={folder / 'data'}", "--log.level=warn"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]
    with serving(Alertmanager(port), command, folder / "alertmanager.log") as running:
        yield running


def _configured(folder: Path, receivers: Receivers) -> dict[str, Any]:
    """The example, with what its header says is to be filled in."""
    told = yaml.safe_load(example.alertmanager(Settings()))
    key = folder / "routing-key"
    key.write_text(ROUTING_KEY + "\n")
    for receiver in told["receivers"]:
        for one in receiver.get("pagerduty_configs", ()):
            one |= {"routing_key_file": str(key), "url": receivers.url + PAGER}
        for one in receiver.get("webhook_configs", ()):
            one["url"] = receivers.url + (SWITCH if receiver["name"] == "dead-mans-switch" else TICKETS)
    told["route"] = _CUSTOMARY | told["route"]
    return sped_up(told)
