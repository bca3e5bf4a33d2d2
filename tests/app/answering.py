"""A Prometheus that answers what a test tells it to: a real HTTP server on the loopback."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

Answer = tuple[int, Any]
"""A status, and data where it is 200, else what is the matter; bytes are sent as they are."""


class Answering:
    """The server: its address, and what it was asked."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.asked: list[dict[str, str]] = []
        self.tokens: list[str | None] = []


@contextmanager
def answering(answer: Callable[[str, Mapping[str, str]], Answer]) -> Iterator[Answering]:
    """A server whose answers are those of a function of the last part of the path, and the parameters."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            parameters = {name: values[0] for name, values in parse_qs(body).items()}
            path = self.path.removeprefix("/api/v1/")
            running.asked.append({"path": path, **parameters})
            running.tokens.append(self.headers.get("authorization"))
            status, content = answer(path, parameters)
            told = {"status": "success", "data": content} if status == 200 else {"status": "error", "error": content}
            text = content if isinstance(content, bytes) else json.dumps(told).encode()
            self.send_response(status)
            if status == 302:
                self.send_header("location", "http://127.0.0.1:9/elsewhere")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running = Answering(server.server_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def matrix(*series: tuple[Mapping[str, str], Mapping[float, float]]) -> Mapping[str, Any]:
    """The data of a range query: labels and values by time."""
    found = [
        {"metric": dict(labels), "values": [[at, str(value)] for at, value in values.items()]}
        for labels, values in series
    ]
    return {"resultType": "matrix", "result": found}
