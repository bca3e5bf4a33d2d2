"""The server process: a socket bound before anything else can fail, uvicorn on it, and an orderly end."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator

import uvicorn
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.app.config import Listen
from exporter.app.runtime import Runtime
from exporter.ingest.source import Unavailable

_BACKLOG = 2048
_GRACE_S = 5


def bind(listen: Listen) -> socket.socket:
    """A listening socket. Raises Unavailable when the address is taken or not ours."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    # The protocol is named because asyncio turns off the delay of small writes (40 ms an answer) only where it is.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((listen.host, listen.port))
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        raise Unavailable(f"listen {listen.host}:{listen.port}: {error.strerror or error}") from None
    bound.setblocking(False)
    return bound


def address(bound: socket.socket) -> str:
    """The URL at which a browser on this machine finds it."""
    host, port = bound.getsockname()[:2]
    return f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}/"  # noqa: S104 - shown, not bound


async def serve(runtime: Runtime, app: ASGIApp, bound: socket.socket) -> None:
    """Run until SIGTERM or SIGINT, then finish what is in flight."""
    config = uvicorn.Config(
        _answering_to_the_end(app),
        access_log=False,
        lifespan="off",
        log_config=None,
        proxy_headers=False,  # a header must not make a caller local
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = _Server(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    running = asyncio.create_task(runtime.run())
    running.add_done_callback(lambda _: server.stop())
    await server.serve(sockets=[bound])
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


def _answering_to_the_end(app: ASGIApp) -> ASGIApp:
    """The application; a request that is cut off at the end, half-sent perhaps, is told so instead of failing."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def sent(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await app(scope, receive, sent)
        except asyncio.CancelledError:
            if not begun:
                await Response(status_code=503, headers={"connection": "close"})(scope, receive, send)

    return answer


class _Server(uvicorn.Server):
    """uvicorn that leaves signals to us: its own handling re-raises them after the end."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def stop(self) -> None:
        self.should_exit = True
