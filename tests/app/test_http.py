import asyncio
import base64
import gzip
import hashlib
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from starlette.types import ASGIApp

from exporter.app.clock import LiveSurroundings
from exporter.app.http import Access, build_app
from exporter.app.runtime import Feed, Runtime
from exporter.ingest.http import HttpSource
from exporter.ingest.native import NativeCodec
from exporter.monitor import reference
from tests.app.asgi import ELSEWHERE, HERE, Answered, ask, running
from tests.builders import MODEL, a_fleet, a_reference

EVENT = json.dumps({"model": MODEL, "features": {"x": 1}}).encode()
OPEN = Access()

Talk = Callable[[ASGIApp], Awaitable[Any]]


def a_runtime(**limits: int) -> tuple[Runtime, HttpSource]:
    fleet = a_fleet(a_reference())
    source = HttpSource("http", LiveSurroundings(), **limits)
    return Runtime(fleet, [Feed(source, NativeCodec(fleet, "http"))], tick_s=3600), source


def talk(with_app: Talk, access: Access = OPEN, *, http: bool = True, **limits: int) -> Any:
    """What a client finds that talks to a running exporter."""

    async def talking() -> Any:
        runtime, source = a_runtime(**limits)
        async with running(runtime):
            return await with_app(build_app(runtime, source if http else None, access))

    return asyncio.run(talking())


def get(path: str, access: Access = OPEN, **headers: str) -> Answered:
    return talk(lambda app: ask(app, path, **headers), access)


def post(body: bytes = EVENT, access: Access = OPEN, **options: Any) -> Answered:
    limits = {name: options.pop(name) for name in list(options) if name.endswith("_bytes")}
    return talk(lambda app: ask(app, "/v1/events", method="POST", body=body, **options), access, **limits)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class TestEndpoints:
    def test_metrics_are_text_unless_openmetrics_is_preferred(self):
        text = get("/metrics")
        assert (text.status, text.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert {"ml_predictions", "process_cpu_seconds"} <= {one.name for one in parse_text(text.body.decode())}
        accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4"
        openmetrics = get("/metrics", accept=accept)
        assert openmetrics.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        assert {"ml_predictions"} <= {one.name for one in parse_openmetrics(openmetrics.body.decode())}
        assert get("/metrics", accept="text/html,*/*").headers["content-type"] == text.headers["content-type"]

    @pytest.mark.parametrize("path", ["/metrics", "/api/v1/models"])
    def test_gzip_for_those_who_take_it(self, path: str):
        async def both(app: ASGIApp) -> tuple[Answered, Answered]:
            return await ask(app, path), await ask(app, path, accept_encoding="br, gzip;q=0.5")

        plain, zipped = talk(both)
        assert "content-encoding" not in plain.headers
        assert zipped.headers["content-encoding"] == "gzip"
        assert gzip.decompress(zipped.body) == plain.body
        assert "accept-encoding" in plain.headers["vary"]

    def test_nobody_who_refuses_gzip_gets_it(self):
        assert "content-encoding" not in get("/metrics", accept_encoding="gzip;q=0, identity").headers

    def test_the_status_is_json_of_every_model(self):
        answer = get("/api/v1/models")
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        assert [model["model"] for model in answer.json["models"]] == [MODEL]

    def test_a_reference_in_use_can_be_downloaded_and_no_other(self):
        known = a_reference()
        answer = get(f"/api/v1/references/{known.id}")
        assert reference.decode(answer.body) == known
        assert get("/api/v1/references/000000000000").status == 404
        assert get("/api/v1/references/../../etc/passwd").status == 404

    @pytest.mark.parametrize("since", ["", "?since=1800000000", "?since=2026-11-23T08:15:00Z"])
    def test_sealed_panes_are_told_from_any_moment_on(self, since: str):
        answer = get(f"/api/v1/panes{since}")
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        (version,) = json.loads(answer.body)["versions"]
        assert (version["model"], version["seconds"], version["panes"]) == (MODEL, 60, [])

    @pytest.mark.parametrize("since", ["yesterday", "", "-1", "1e999"])
    def test_a_moment_that_is_none_is_refused(self, since: str):
        answer = get(f"/api/v1/panes?since={since}")
        assert answer.status == 400
        assert json.loads(answer.body) == {"error": "since: RFC 3339 or epoch seconds expected"}

    def test_health_and_readiness(self):
        assert (get("/healthz").status, get("/healthz").body) == (200, b"ok\n")
        assert (get("/readyz").status, get("/readyz").body) == (200, b"ok\n")

        async def before_it_runs() -> Answered:
            runtime, source = a_runtime()
            return await ask(build_app(runtime, source, OPEN), "/readyz")

        early = asyncio.run(before_it_runs())
        assert (early.status, early.body) == (503, b"http: not started\n")

    @pytest.mark.parametrize(
        "path", ["/nothing", "/metrics/x", "/v1", "/api/v1", "/api/v1/references/", "//", "/index.html"]
    )
    def test_nothing_elsewhere(self, path: str):
        assert get(path).status == 404

    def test_methods_are_told_apart(self):
        assert talk(lambda app: ask(app, "/metrics", method="POST")).status == 405
        assert get("/v1/events").status == 405
        assert talk(lambda app: ask(app, "/metrics", method="HEAD")).status == 200


class TestPage:
    def test_its_policy_allows_its_own_script_and_style_and_nothing_else(self):
        page = get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
        for tag in ("script", "style"):
            blocks = re.findall(rb"<%s[^>]*>(.*?)</%s>" % (tag.encode(), tag.encode()), page.body, re.DOTALL)
            hashes = [base64.b64encode(hashlib.sha256(block).digest()).decode() for block in blocks]
            assert policy[f"{tag}-src"] == " ".join(f"'sha256-{one}'" for one in hashes)
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["connect-src"] == "'self'"
        assert not re.search(rb"""\bstyle=["']|\son\w+=["']""", page.body.partition(b"<script>")[0])

    def test_it_writes_nothing_as_html(self):
        """Names come from events: they may only ever become text."""
        page = get("/").body.decode()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", page)


class TestPost:
    def test_what_became_of_the_events(self):
        answer = post(EVENT + b"\nbroken\n" + b'{"model":"m","label":1}')
        assert (answer.status, answer.headers["content-type"]) == (202, "application/json")
        assert {name: answer.json[name] for name in ("accepted", "rejected", "dropped")} == {
            "accepted": 1,
            "rejected": 1,
            "dropped": 1,
        }
        (error,) = answer.json["errors"]
        assert (error["index"], error["reason"]) == (1, "malformed_json")

    def test_a_body_in_parts_and_one_that_is_packed(self):
        async def in_parts(app: ASGIApp) -> Answered:
            return await ask(app, "/v1/events", method="POST", body=[EVENT[:10], EVENT[10:], b"\n", EVENT])

        assert talk(in_parts).json["accepted"] == 2
        assert post(gzip.compress(EVENT), content_encoding="GZIP").json["accepted"] == 1

    def test_refusals_carry_their_status(self):
        assert post(body_limit_bytes=10).status == 413
        assert post(content_encoding="zstd").status == 415
        assert post(content_encoding="gzip").status == 400
        busy = post(inflight_limit_bytes=10)
        assert (busy.status, busy.headers["retry-after"], busy.json["accepted"]) == (429, "1", 0)

    def test_without_a_source_of_type_http_there_is_nobody_to_post_to(self):
        answer = talk(lambda app: ask(app, "/v1/events", method="POST", body=EVENT), http=False)
        assert (answer.status, answer.json) == (404, {"error": "this exporter has no source of type http"})

    def test_a_client_that_goes_away_is_no_fault(self):
        async def leaving(app: ASGIApp) -> int:
            sent: list[Any] = []
            incoming = iter([{"type": "http.request", "body": EVENT, "more_body": True}, {"type": "http.disconnect"}])

            async def receive() -> dict[str, Any]:
                return next(incoming)

            async def send(message: Any) -> None:
                sent.append(message)

            scope = {"type": "http", "method": "POST", "path": "/v1/events", "headers": [], "client": (HERE, 1)}
            await app(scope, receive, send)
            return sent[0]["status"]

        assert talk(leaving) == 499


READ, WRITE = "r3ad-token", "wr1te-token"
BOTH = Access(READ, WRITE)

NOBODY = ["", "Bearer", "Bearer wrong", "Bearer ", "Basic", "Basic !", basic("x", "wrong"), basic("x", ""), "Digest x"]
NEARLY = [
    READ,
    f"Bearer {READ}x",
    f"Bearer {READ[:-1]}",
    f"Bearer {READ} {READ}",
    basic(READ, ""),
    "Bearer é",
    "Basic /w==",
]


def bearers(token: str) -> list[str]:
    return [f"Bearer {token}", f"bearer {token}", basic("anyone", token), basic("", token)]


class TestAccess:
    @pytest.mark.parametrize("path", ["/", "/metrics", "/api/v1/models", "/api/v1/references/x", "/api/v1/panes"])
    def test_reading_needs_the_token_for_reading(self, path: str):
        async def asking(app: ASGIApp) -> None:
            for refused in (*NOBODY, *NEARLY, *bearers(WRITE)):
                answer = await ask(app, path, authorization=refused)
                assert (answer.status, answer.json) == (401, {"error": "token expected"}), refused
                assert answer.headers["www-authenticate"].startswith("Basic realm=")
            for welcome in bearers(READ):
                assert (await ask(app, path, authorization=welcome)).status == (404 if "references" in path else 200)
            assert (await ask(app, path)).status == 401

        talk(asking, BOTH)

    def test_writing_needs_the_token_for_writing_even_here(self):
        async def asking(app: ASGIApp) -> None:
            for client in (HERE, ELSEWHERE):
                for refused in (*NOBODY, *bearers(READ)):
                    answer = await ask(
                        app, "/v1/events", method="POST", body=EVENT, client=client, authorization=refused
                    )
                    assert answer.status == 401, refused
                for welcome in bearers(WRITE):
                    answer = await ask(
                        app, "/v1/events", method="POST", body=EVENT, client=client, authorization=welcome
                    )
                    assert answer.json["accepted"] == 1

        talk(asking, BOTH)

    def test_probes_need_none(self):
        assert get("/healthz", BOTH).status == get("/readyz", BOTH).status == 200

    @pytest.mark.parametrize(
        "client, status",
        [(HERE, 202), ("127.9.9.9", 202), ("::1", 202), (ELSEWHERE, 401), ("2001:db8::1", 401), ("unix", 401)],
    )
    def test_without_a_token_for_writing_only_this_machine_may_post(self, client: str, status: int):
        assert post(client=client).status == status
        assert post(client=client, access=Access(read_token=READ)).status == status
        assert post(client=client, access=Access(insecure=True)).status == 202

    def test_a_page_of_another_site_may_not_post_through_the_browser_of_this_machine(self):
        assert post(host="localhost:9878", origin="https://evil.example").status == 403
        assert post(host="localhost:9878", origin="null").status == 403
        assert post(host="localhost:9878", origin="http://localhost:9878").status == 202
        bearer = f"Bearer {WRITE}"
        assert post(access=BOTH, host="h", origin="https://good.example", authorization=bearer).status == 202

    def test_tokens_beyond_ascii_work_both_ways(self):
        access = Access(read_token="zwölf")
        assert [get("/metrics", access, authorization=one).status for one in bearers("zwölf")] == [200] * 4
        assert [get("/metrics", access, authorization=one).status for one in bearers("zwolf")] == [401] * 4

    def test_a_client_without_an_address_is_not_this_machine(self):
        assert post(client=None).status == 401

    def test_claims_of_a_client_about_itself_count_for_nothing(self):
        claims = {"x_forwarded_for": HERE, "forwarded": f"for={HERE}", "x_real_ip": HERE, "host": "localhost"}
        assert post(client=ELSEWHERE, **claims).status == 401

    def test_reading_is_open_without_a_token(self):
        assert get("/metrics", Access(write_token=WRITE)).status == 200
