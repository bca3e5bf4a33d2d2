"""A broker's process, which tests stop, kill and start again on the same ports."""

import random
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.brokers.topics import answers
from tests.e2e.waiting import eventually

# Below every system's ephemeral range: a client that retries a port of that range while its broker is away will, once
# in some ten thousand times, be given that very port for its own end and be connected to itself.
_PORTS = range(20_000, 32_000)
_LOG_TAIL = 4_000


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    free: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if trial.connect_ex(("127.0.0.1", port)) == 0:
                continue
        free.append(port)
        if len(free) == count:
            return free
    raise AssertionError(f"no {count} free ports in {_PORTS}")


class Process:
    """One process at a time; all that it says goes to one log."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self._command = list(command)
        self._log = log
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def said(self) -> str:
        return self._log.read_text(errors="replace")[-_LOG_TAIL:] if self._log.exists() else ""

    def start(self, bootstrap: str, within_s: float) -> None:
        """Start it and wait until it answers there."""
        assert self._process is None, "already started"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._environment)
        try:
            eventually(lambda: self._answers(bootstrap), self.said, within_s=within_s)
        except BaseException:
            self.kill()
            raise

    def stop(self, within_s: float = 30.0) -> None:
        """SIGTERM, and wait for the end."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(within_s)
            self._process = None

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self, bootstrap: str) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"ended with {self._process.returncode}: {self.said()}"
        return answers(bootstrap)
