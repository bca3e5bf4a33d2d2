"""A real browser over its DevTools protocol: one Chromium, and tabs that remember what went wrong in them."""

import base64
import itertools
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from websockets.sync.client import ClientConnection, connect

from tests.e2e.waiting import eventually

WIDE = (1440, 900)
PHONE = (375, 812)

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)

_ON_EVERY_PAGE = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(`${event.violatedDirective} ${event.blockedURI}`);
});
"""


class Tab:
    """One page. Events that the browser sends between answers are kept."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._ids = itertools.count(1)
        self._events: list[dict[str, Any]] = []
        for domain in ("Runtime", "Log", "Network", "Page"):
            self.call(f"{domain}.enable")
        self.call("Page.addScriptToEvaluateOnNewDocument", source=_ON_EVERY_PAGE)
        self.resize(*WIDE)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._ids)
        self._connection.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._connection.recv(timeout=20))
            if message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self._events.append(message)

    def open(self, url: str) -> None:
        """Go there, and wait until the page has drawn its first data."""
        self.call("Page.bringToFront")
        answer = self.call("Page.navigate", url=url)
        assert "errorText" not in answer, answer
        self.until("document.body?.dataset.updated !== undefined")

    def evaluate(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str, within_s: float = 10.0) -> Any:
        """The first true value of a JavaScript expression."""
        return eventually(lambda: self.evaluate(expression), expression, within_s=within_s)

    def resize(self, width: int, height: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    @property
    def troubles(self) -> list[str]:
        """Everything that a clean page does not do: errors, warnings, uncaught exceptions, violated policies."""
        self.evaluate("0")  # collects what has arrived by now
        found = [f"policy: {violation}" for violation in self.evaluate("window.violations ?? []")]
        for event in self._events:
            method, params = event["method"], event["params"]
            if method == "Runtime.exceptionThrown":
                found.append(f"exception: {params['exceptionDetails']}")
            elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
                found.append(f"console: {params['args']}")
            elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(f"log: {params['entry']}")
            elif method == "Page.javascriptDialogOpening":
                found.append(f"dialog: {params['message']}")
        return found

    @property
    def requests(self) -> list[str]:
        """Every URL asked for so far, data: URLs aside."""
        self.evaluate("0")
        urls = [
            event["params"]["request"]["url"]
            for event in self._events
            if event["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in urls if not url.startswith("data:")]


class Browser:
    """A running Chromium."""

    def __init__(self, port: int) -> None:
        self._port = port

    @contextmanager
    def tab(self) -> Iterator[Tab]:
        target = json.loads(self._ask("PUT", "/json/new?about:blank"))
        url = target["webSocketDebuggerUrl"]
        # With a socket of our own no proxy of the environment gets in the way.
        parts = urlsplit(url)
        with (
            socket.create_connection((parts.hostname, parts.port)) as plain,
            connect(url, sock=plain, max_size=None, open_timeout=20) as connection,
        ):
            yield Tab(connection)
        self._ask("GET", f"/json/close/{target['id']}")

    def _ask(self, method: str, path: str) -> bytes:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=20)
        try:
            connection.request(method, path)
            return connection.getresponse().read()
        finally:
            connection.close()


@contextmanager
def browsing(chromium: str, folder: Path) -> Iterator[Browser]:
    """Chromium with a new profile in `folder`."""
    port_file = folder / "DevToolsActivePort"
    with (
        (folder / "chromium.log").open("wb") as log,
        subprocess.Popen(
            [chromium, *_FLAGS, f"--user-data-dir={folder}", "about:blank"],
            stdout=log,
            stderr=log,
            start_new_session=True,
        ) as process,
    ):
        try:
            port = eventually(
                lambda: port_file.exists() and port_file.read_text().split()[:1],
                "Chromium listens",
                within_s=30,
            )
            yield Browser(int(port[0]))
        finally:
            os.killpg(process.pid, signal.SIGKILL)
