"""Programs of others that answer HTTP: started, waited for, and killed."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import TypeVar

from tests.e2e.waiting import eventually

_READY_S = 20.0


class Server:
    """One that runs, on loopback."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.address = f"127.0.0.1:{port}"
        self.url = f"http://{self.address}"

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of an answer."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def ready(self) -> bool:
        return self.get("/-/ready")[0] == 200


S = TypeVar("S", bound=Server)


@contextmanager
def serving(server: S, command: Sequence[str | Path], log: Path) -> Iterator[S]:
    """The server that a command starts, once it is ready."""
    with log.open("wb") as said, subprocess.Popen(command, stdout=said, stderr=said) as process:
        try:
            eventually(server.ready, lambda: f"{command[0]} is ready: {log.read_text()[-2000:]}", within_s=_READY_S)
            yield server
        finally:
            process.kill()
