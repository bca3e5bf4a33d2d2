"""HTTP: bytes of the last tick out, events in. No handler computes anything that a tick can prepare."""

import base64
import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from ipaddress import ip_address

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from exporter.app.rendering import Body
from exporter.app.runtime import Runtime
from exporter.export.exposition import OPENMETRICS_TYPE, TEXT_TYPE, wants_openmetrics
from exporter.ingest.http import HttpSource
from exporter.monitor.reference import encode

Handler = Callable[[Request], Awaitable[Response]]

_RETRY_AFTER_S = "1"
_JSON = "application/json"
_BEARER = {"www-authenticate": "Bearer"}
_NO_GZIP = re.compile(r"gzip\s*;\s*q=0(\.0*)?\s*(,|$)")


@dataclass(frozen=True, slots=True)
class Access:
    """Who may do what. Without a write token only this machine may post, unless `insecure`; reading is then open."""

    read_token: str | None = None
    write_token: str | None = None
    insecure: bool = False


def build_app(runtime: Runtime, source: HttpSource | None, access: Access) -> Starlette:
    """The ASGI application. `source` takes the posted events; None when HTTP is no source."""
    page, policy = _page()

    async def metrics(request: Request) -> Response:
        rendered = runtime.rendered
        if wants_openmetrics(request.headers.get("accept", "")):
            return _served(request, rendered.openmetrics, OPENMETRICS_TYPE)
        return _served(request, rendered.text, TEXT_TYPE)

    async def models(request: Request) -> Response:
        return _served(request, runtime.rendered.status, _JSON)

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

    async def events(request: Request) -> Response:
        if source is None:
            return _problem(404, "this exporter has no source of type http")
        try:
            encoding = request.headers.get("content-encoding", "").strip().lower()
            answer = await source.receive(request.stream(), encoding)
        except ClientDisconnect:
            return Response(status_code=499)
        headers = {"retry-after": _RETRY_AFTER_S} if answer.status in (429, 503) else None
        return Response(msgspec.json.encode(answer.body), answer.status, headers, _JSON)

    readable = _guarded(access.read_token)
    return Starlette(
        routes=[
            # Asked for the most by far, and routes are tried in order.
            Route("/v1/events", _posting(access)(events), methods=["POST"]),
            Route("/", readable(index)),
            Route("/metrics", readable(metrics)),
            Route("/api/v1/models", readable(models)),
            Route("/api/v1/references/{id}", readable(reference)),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
        ]
    )


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
            if token is not None and not _has_token(request, token):
                return _problem(401, "token expected", {"www-authenticate": 'Basic realm="model-health-exporter"'})
            return await handler(request)

        return guarded

    return guard


def _posting(access: Access) -> Callable[[Handler], Handler]:
    def guard(handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            if not access.insecure and not _is_local(request):
                return _problem(401, "without a write token only this machine may post", _BEARER)
            if _is_cross_site(request):
                return _problem(403, "without a write token pages of other sites may not post")
            return await handler(request)

        return guarded

    return guard if access.write_token is None else _guarded(access.write_token)


def _has_token(request: Request, token: str) -> bool:
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    offered = credentials.strip().encode("latin-1")  # as it came: headers are decoded so
    if scheme.lower() == "basic":
        try:
            _, _, offered = base64.b64decode(offered, validate=True).partition(b":")
        except ValueError:
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(offered, token.encode())


def _is_local(request: Request) -> bool:
    return request.client is not None and _is_loopback(request.client.host)


@lru_cache
def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _is_cross_site(request: Request) -> bool:
    """Whether a browser sends this for a page of another site; other clients send no Origin."""
    origin = request.headers.get("origin")
    return origin is not None and origin.partition("://")[2] != request.headers.get("host", "")


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
