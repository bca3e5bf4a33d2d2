"""A client for an ASGI application, without a network."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp

from exporter.app.runtime import Runtime

HERE, ELSEWHERE = "127.0.0.1", "203.0.113.9"


@dataclass(frozen=True)
class Answered:
    """A response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def ask(
    app: ASGIApp,
    path: str,
    *,
    method: str = "GET",
    body: bytes | Sequence[bytes] = b"",
    client: str | None = HERE,
    **headers: str,
) -> Answered:
    """One request; header names are written with underscores."""
    path, _, query = path.partition("?")
    blocks = [body] if isinstance(body, bytes) else list(body)
    incoming = [
        {"type": "http.request", "body": block, "more_body": place + 1 < len(blocks)}
        for place, block in enumerate(blocks)
    ]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0)
        return incoming.pop(0) if incoming else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        "client": None if client is None else (client, 1234),
        "server": ("testserver", 80),
    }
    await app(scope, receive, send)
    start, *rest = sent
    answered = {name.decode(): value.decode() for name, value in start["headers"]}
    return Answered(start["status"], answered, b"".join(message.get("body", b"") for message in rest))


@asynccontextmanager
async def running(runtime: Runtime) -> AsyncIterator[asyncio.Task[None]]:
    """The runtime at work, its sources started."""
    task = asyncio.create_task(runtime.run())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
