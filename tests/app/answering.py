"""A Prometheus that answers what a test tells it to: a real HTTP server on the loopback."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs

from tests.loopback import Asked, Told, listening

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

    def told(asked: Asked) -> Told:
        parameters = {name: values[0] for name, values in parse_qs(asked.body.decode()).items()}
        path = asked.path.removeprefix("/api/v1/")
        running.asked.append({"path": path, **parameters})
        running.tokens.append(asked.headers.get("authorization"))
        status, content = answer(path, parameters)
        told = {"status": "success", "data": content} if status == 200 else {"status": "error", "error": content}
        text = content if isinstance(content, bytes) else json.dumps(told).encode()
        return Told(text, status, {"location": "http://127.0.0.1:9/elsewhere"} if status == 302 else None)

    with listening(told) as port:
        running = Answering(port)
        yield running


def matrix(*series: tuple[Mapping[str, str], Mapping[float, float]]) -> Mapping[str, Any]:
    """The data of a range query: labels and values by time."""
    found = [
        {"metric": dict(labels), "values": [[at, str(value)] for at, value in values.items()]}
        for labels, values in series
    ]
    return {"resultType": "matrix", "result": found}
