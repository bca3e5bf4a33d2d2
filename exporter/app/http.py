"""HTTP: bytes of the last tick out, events in. No handler computes anything that a tick can prepare.

Posts of events go around the routing and its layers of error handling, which took a third of a request with one event.
"""

import asyncio
import base64
import hashlib
import hmac
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from ipaddress import ip_address

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.app.rendering import Body
from exporter.app.runtime import Runtime
from exporter.export.exposition import OPENMETRICS_TYPE, TEXT_TYPE, wants_openmetrics
from exporter.export.panes import panes
from exporter.ingest.http import HttpSource
from exporter.ingest.tables import number_or_text
from exporter.ingest.timestamps import epoch_s
from exporter.monitor.reference import encode

Handler = Callable[[Request], Awaitable[Response]]

_RETRY_AFTER_S = b"1"
_JSON = "application/json"
_BASIC = {"www-authenticate": 'Basic realm="model-health-exporter"'}
_BEARER = {"www-authenticate": "Bearer"}
_NO_GZIP = re.compile(r"gzip\s*;\s*q=0(\.0*)?\s*(,|$)")


@dataclass(frozen=True, slots=True)
class Access:
    """Who may do what. Without a write token only this machine may post, unless `insecure`; reading is then open."""

    read_token: str | None = None
    write_token: str | None = None
    insecure: bool = False


def build_app(runtime: Runtime, source: HttpSource | None, access: Access) -> ASGIApp:
    """The ASGI application. `source` takes the posted events; None when HTTP is no source."""
    page, policy = _page()

    async def metrics(request: Request) -> Response:
        rendered = runtime.rendered
        if wants_openmetrics(request.headers.get("accept", "")):
            return _served(request, rendered.openmetrics, OPENMETRICS_TYPE)
        return _served(request, rendered.text, TEXT_TYPE)

    async def models(request: Request) -> Response:
        return _served(request, runtime.rendered.status, _JSON)

    async def archived(request: Request) -> Response:
        since = request.query_params.get("since", "0")
        moment = epoch_s(number_or_text(since))
        if moment is None:
            return _problem(400, "since: RFC 3339 or epoch seconds expected")
        views = runtime.fleet.archived(moment)
        body = await asyncio.to_thread(lambda: msgspec.json.encode(panes(views)))  # a day of many features is megabytes
        return Response(body, headers={"cache-control": "no-store"}, media_type=_JSON)

    async def index(_: Request) -> Response:
        headers = {"content-security-policy": policy, "cache-control": "no-cache"}
        return Response(page, media_type="text/html", headers=headers)

    async def reference(request: Request) -> Response:
        for settings in runtime.fleet.models:
            for known in runtime.fleet.references(settings.name):
                if known.id == request.path_params["id"]:
                    return Response(encode(known), media_type=_JSON)
        return _problem(404, "no such reference")

    async def healthz(_: Request) -> Response:
        if runtime.healthy():
            return Response("ok\n", media_type="text/plain")
        return Response("ticks have stopped\n", 503, media_type="text/plain")

    async def readyz(_: Request) -> Response:
        reasons = runtime.not_ready()
        return Response("\n".join(reasons or ["ok"]) + "\n", 503 if reasons else 200, media_type="text/plain")

    readable = _guarded(access.read_token)
    routed = Starlette(
        routes=[
            Route("/", readable(index)),
            Route("/metrics", readable(metrics)),
            Route("/api/v1/models", readable(models)),
            Route("/api/v1/references/{id}", readable(reference)),
            Route("/api/v1/panes", readable(archived)),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
        ]
    )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/v1/events":
            await _events(source, access, scope, receive, send)
        else:
            await routed(scope, receive, send)

    return app


async def _events(source: HttpSource | None, access: Access, scope: Scope, receive: Receive, send: Send) -> None:
    """POST /v1/events."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    refusal = _refusal(access, scope, headers)
    if refusal is not None:
        await refusal(scope, receive, send)
        return
    if source is None:
        await _problem(404, "this exporter has no source of type http")(scope, receive, send)
        return
    encoding = headers.get(b"content-encoding", b"").decode("latin-1").strip().lower()
    try:
        answer = await source.receive(_body(receive), encoding)
    except _Gone:
        await Response(status_code=499)(scope, receive, send)
        return
    body = msgspec.json.encode(answer.body)
    answered = [(b"content-type", _JSON.encode()), (b"content-length", b"%d" % len(body))]
    if answer.status in (429, 503):
        answered.append((b"retry-after", _RETRY_AFTER_S))
    await send({"type": "http.response.start", "status": answer.status, "headers": answered})
    await send({"type": "http.response.body", "body": body})


def _refusal(access: Access, scope: Scope, headers: dict[bytes, bytes]) -> Response | None:
    """Why this request may not post; None if it may."""
    if scope["method"] != "POST":
        return _problem(405, "POST expected", {"allow": "POST"})
    if access.write_token is not None:
        authorization = headers.get(b"authorization", b"").decode("latin-1")
        return None if _has_token(authorization, access.write_token) else _problem(401, "token expected", _BASIC)
    if not access.insecure and not _is_local(scope):
        return _problem(401, "without a write token only this machine may post", _BEARER)
    # A browser sends this for a page of another site; other clients send no Origin.
    origin = headers.get(b"origin")
    if origin is not None and origin.partition(b"://")[2] != headers.get(b"host", b""):
        return _problem(403, "without a write token pages of other sites may not post")
    return None


class _Gone(Exception):
    """Whoever posted has gone before the end of the body."""


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        yield message.get("body", b"")
        more = message.get("more_body", False)


def _served(request: Request, body: Body, media_type: str) -> Response:
    headers = {"cache-control": "no-store", "vary": "accept, accept-encoding"}
    accepted = request.headers.get("accept-encoding", "")
    if "gzip" in accepted and not _NO_GZIP.search(accepted):
        return Response(body.gzipped, headers={**headers, "content-encoding": "gzip"}, media_type=media_type)
    return Response(body.plain, headers=headers, media_type=media_type)


def _guarded(token: str | None) -> Callable[[Handler], Handler]:
    """Ask for a token, as bearer or as the password of basic authentication; None asks for nothing."""

    def guard(handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            if token is not None and not _has_token(request.headers.get("authorization", ""), token):
                return _problem(401, "token expected", _BASIC)
            return await handler(request)

        return guarded

    return guard


def _has_token(authorization: str, token: str) -> bool:
    scheme, _, credentials = authorization.partition(" ")
    offered = credentials.strip().encode("latin-1")  # as it came: headers are decoded so
    if scheme.lower() == "basic":
        try:
            _, _, offered = base64.b64decode(offered, validate=True).partition(b":")
        except ValueError:
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(offered, token.encode())


def _is_local(scope: Scope) -> bool:
    client = scope.get("client")
    return client is not None and _is_loopback(client[0])


@lru_cache
def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _problem(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode({"error": message}), status, headers, _JSON)


def _page() -> tuple[bytes, str]:
    """The page and a content security policy that allows its own script and style, and nothing from elsewhere."""
    page = resources.files("exporter.export").joinpath("page.html").read_bytes()
    script, style = (
        _hash(re.findall(rb"<%s>(.*?)</%s>" % (tag, tag), page, re.DOTALL)[0]) for tag in (b"script", b"style")
    )
    return page, (
        f"default-src 'none'; script-src '{script}'; style-src '{style}'; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hash(content: bytes) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content).digest()).decode()
