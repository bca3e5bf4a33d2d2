"""A Grafana in a process: a real HTTP server on the loopback, with whatever trouble a test wants."""

import json
import re
import ssl
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from tests.app.grafana_content import GrafanaContent


@dataclass
class Trouble:
    """What happens to the next requests of a kind, instead of an answer or after it was made but not sent."""

    method: str
    path: str
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    lost: bool = False
    cut: bool = False
    hang: bool = False
    body: bytes = b'{"message": "starting"}'
    times: int = 1

    def meets(self, method: str, path: str) -> bool:
        return self.times > 0 and method == self.method and re.fullmatch(self.path, path) is not None


class FakeGrafana(GrafanaContent):
    """Where it is, what it was asked, and what goes wrong."""

    def __init__(self, version: str, prefix: str) -> None:
        super().__init__(version)
        self.prefix = prefix
        self.url = ""
        self.troubles: list[Trouble] = []
        self.asked: list[tuple[str, str]] = []
        self.released = threading.Event()


@contextmanager
def fake_grafana(
    version: str = "12.1.0", prefix: str = "", certificate: tuple[Path, Path] | None = None
) -> Iterator[FakeGrafana]:
    """It runs; in the end it must not have seen, or said, anything that the description does not have."""
    fake = FakeGrafana(version, prefix)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or each answer waits 40 ms for the client to acknowledge its headers

        def handle_any(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            text = self.rfile.read(length)
            parts = urlsplit(self.path)
            start = f"{fake.prefix}/api/"
            if not parts.path.startswith(start):
                self.tell(404, b"<html>not here</html>", {"content-type": "text/html"})
                return
            path = "/" + unquote(parts.path.removeprefix(start))
            fake.asked.append((self.command, path))
            trouble = next((one for one in fake.troubles if one.meets(self.command, path)), None)
            if trouble is not None:
                trouble.times -= 1
                if trouble.hang:
                    fake.released.wait(10)
                if trouble.status:
                    self.tell(trouble.status, trouble.body, trouble.headers)
                    return
            body = json.loads(text) if text else None
            status, told = fake.answer(self.command, path, parse_qs(parts.query), self.headers, body)
            if trouble is not None and (trouble.lost or trouble.hang):
                self.close_connection = True
                return
            answer = b"" if told is None else json.dumps(told).encode()
            self.tell(status, answer, {"content-type": "application/json"}, cut=trouble is not None and trouble.cut)

        do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815 - names that http.server looks for

        def tell(self, status: int, text: bytes, headers: Mapping[str, str], *, cut: bool = False) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text[: len(text) // 2] if cut else text)
            self.close_connection = self.close_connection or cut

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            error = sys.exc_info()[1]
            if not isinstance(error, ConnectionError):  # clients may go away
                fake.broken.append(repr(error))

    server = Server(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    fake.url = f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}{fake.prefix}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        fake.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
    assert fake.broken == []
