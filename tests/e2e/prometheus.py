"""A real Prometheus that scrapes what a test tells it to, and its HTTP API."""

import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from tests.e2e.serving import Server, serving


class Prometheus(Server):
    """A running Prometheus."""

    def api(self, path: str, **parameters: str) -> Any:
        answer = json.loads(self.get(f"/api/v1/{path}?{urlencode(parameters)}")[1])
        assert answer["status"] == "success", answer
        return answer["data"]

    def metrics(self) -> str:
        """What it says of itself."""
        return self.get("/metrics")[1].decode()

    def query(self, expression: str, at: float | None = None) -> list[tuple[dict[str, str], float]]:
        """Labels and values of an instant query, now or at a moment (epoch seconds)."""
        found = self.api("query", query=expression, **({} if at is None else {"time": str(at)}))["result"]
        return [(one["metric"], float(one["value"][1])) for one in found]

    def value(self, expression: str) -> float | None:
        """The value of a query that finds one series; None while it finds none."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return found[0][1] if found else None

    def scrape_error(self, job: str) -> str | None:
        """What the last scrape of a job complained of; None before there was one."""
        (target,) = [one for one in self.api("targets")["activeTargets"] if one["labels"]["job"] == job]
        return None if target["health"] == "unknown" else target["lastError"]


@contextmanager
def scraping(
    prometheus: str, folder: Path, jobs: Sequence[Mapping[str, Any]] = (), *flags: str, **more: Any
) -> Iterator[Prometheus]:
    """Prometheus with these scrape jobs, once it is ready; its data in `folder`, what lies there as blocks included.

    `more` are further sections of its configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": list(jobs)} | more))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [prometheus, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", "--log.level=warn"]
    command += ["--storage.tsdb.retention.time=100y", f"--web.listen-address=127.0.0.1:{port}", *flags]
    with serving(Prometheus(port), command, folder / "prometheus.log") as running:
        yield running


def job(name: str, port: int, **options: Any) -> dict[str, Any]:
    """A scrape job of one target."""
    return {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}], **options}
