"""POST /v1/events: one object, a JSON array, or one object a line; gzip accepted. Transport is the app's business.

Bodies are bounded one by one and all together, what a request costs beside its body included; past the second bound
the answer is "busy" and nothing was accepted.
"""

import json
import re
import zlib
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from exporter.catalog import thresholds
from exporter.ingest.lenient import without_nan
from exporter.ingest.source import Messages, Positions, Receipt, Sink, Surroundings
from exporter.monitor.health import SourceHealth

EVENTS_AT_ONCE = 500
"""Events decoded and counted before other work gets its turn: 2 to 5 ms."""

ELSEWHERE_BYTES = 96 * 2**10
"""Bytes of a body from which unpacking and splitting it are another thread's work: a millisecond, or many of gzip."""

REQUEST_BYTES = 32 * 2**10
"""Memory of a request beside its body: 64 MiB are 2,000 requests at once, however small."""

GZIP_RATIO = 20
"""Bytes that a byte of packed events usually becomes, or more."""

ERRORS_SHOWN = 20

T = TypeVar("T")

_GZIP = 16 + zlib.MAX_WBITS
_BLOCK_BYTES = 1 << 14

_TOKEN = re.compile(rb'"(?:[^"\\\n]++|\\.)*+"?|[][{},]')
"""Strings (an unfinished one to the end of its line, so that a scan is linear), brackets and commas."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status and a JSON body."""

    status: int
    body: dict[str, Any]


class HttpSource:
    """Events that are posted. All of them are one partition: they are in order of arrival."""

    def __init__(
        self,
        name: str,
        surroundings: Surroundings,
        *,
        body_limit_bytes: int = thresholds.BODY_LIMIT_BYTES.count,
        inflight_limit_bytes: int = thresholds.INFLIGHT_LIMIT_BYTES.count,
    ) -> None:
        self.name = name
        self._surroundings = surroundings
        self._body_limit = body_limit_bytes
        self._inflight_limit = inflight_limit_bytes
        self._inflight = 0
        self._sink: Sink | None = None

    async def run(self, sink: Sink, resume: Positions) -> None:  # noqa: ARG002 - what was posted cannot be posted again
        """Serve posts until cancelled."""
        self._sink = sink
        try:
            await self._surroundings.forever()
        finally:
            self._sink = None

    def not_ready(self) -> str | None:
        """Ready once it runs."""
        return None if self._sink is not None else f"{self.name}: not started"

    async def commit(self, positions: Positions) -> None:
        """What was posted was answered already."""

    def waiting(self, positions: Positions) -> Collection[str]:  # noqa: ARG002 - nobody knows what will be posted
        """None: silence means that nothing is posted."""
        return ()

    def health(self) -> SourceHealth:
        """An answer means counted in memory."""
        return SourceHealth("at_most_once", ready=self.not_ready() is None)

    async def receive(self, stream: AsyncIterator[bytes], encoding: str = "") -> Answer:
        """Take one request body in. 202 with counts; 413, 415, 400 or 429 when nothing was accepted."""
        if encoding not in ("", "identity", "gzip"):
            return _refusal(415, f"Content-Encoding {encoding[:40]!r} is not supported; use gzip")
        if self._sink is None:
            return _refusal(503, "starting or shutting down")
        size, held = 0, REQUEST_BYTES
        self._inflight += REQUEST_BYTES
        parts: list[bytes] = []
        try:
            if self._inflight > self._inflight_limit:
                return _refusal(429, "busy, try again")
            async for part in stream:
                size, held = size + len(part), held + len(part)
                self._inflight += len(part)
                if size > self._body_limit:
                    return _refusal(413, f"body over {self._body_limit} bytes")
                if self._inflight > self._inflight_limit:
                    return _refusal(429, "busy, try again")
                parts.append(part)
            body: bytes | None = b"".join(parts)
            if encoding == "gzip":
                body = await self._maybe_elsewhere(gunzip, size * GZIP_RATIO, body, self._body_limit)
                if body is None:
                    return _refusal(400, "body is not gzip")
                if len(body) > self._body_limit:
                    return _refusal(413, f"unpacked body over {self._body_limit} bytes")
            payloads = await self._maybe_elsewhere(split, len(body or b""), body)
            if len(payloads) > thresholds.EVENTS_LIMIT.count:
                return _refusal(413, f"more than {thresholds.EVENTS_LIMIT.count} events")
            return await self._take(payloads, self._sink)
        finally:
            self._inflight -= held

    async def _maybe_elsewhere(self, work: Callable[..., T], size: int, *arguments: Any) -> T:
        """The result of work on so many bytes; on another thread if it would hold up the loop."""
        if size < ELSEWHERE_BYTES:
            return work(*arguments)
        return await self._surroundings.in_thread(work, *arguments)

    async def _take(self, payloads: list[bytes], sink: Sink) -> Answer:
        accepted, dropped, rejected = 0, 0, 0
        errors: list[dict[str, Any]] = []
        for start in range(0, len(payloads), EVENTS_AT_ONCE):
            part = payloads[start : start + EVENTS_AT_ONCE]
            receipt: Receipt = await sink(Messages(self.name, part, self._surroundings.now()))
            accepted += receipt.accepted
            dropped += receipt.dropped
            rejected += len(receipt.rejects)
            errors += [
                {"index": start + reject.index, "reason": reject.reason, "detail": reject.detail}
                for reject in receipt.rejects[: ERRORS_SHOWN - len(errors)]
            ]
        body = {"accepted": accepted, "rejected": rejected, "dropped": dropped, "errors": errors}
        return Answer(202, body)


def split(body: bytes) -> list[bytes]:
    """The events of a body, undecoded. What cannot be split is one event, which the codec rejects with a reason."""
    body = body.strip()
    if not body:
        return []
    if body.startswith(b"[") and (elements := _split_array(body)) is not None:
        return elements
    if b"\n" not in body:
        return [body]
    first, _, _ = body.partition(b"\n")
    if not _is_json(first) and _is_json(body):
        return [body]  # one object, printed over several lines
    return [line for line in map(bytes.strip, body.split(b"\n")) if line]


def gunzip(body: bytes, limit: int) -> bytes | None:
    """Unpacked bytes, at most a little more than `limit` (a bomb is not unpacked whole); None if it is not gzip."""
    unpacked, inflate = bytearray(), zlib.decompressobj(_GZIP)
    # By blocks: zlib copies what follows a member, and a body can be 400,000 empty members.
    for start in range(0, len(body), _BLOCK_BYTES):
        block = body[start : start + _BLOCK_BYTES]
        while block:
            if inflate.eof:
                inflate = zlib.decompressobj(_GZIP)
            try:
                unpacked += inflate.decompress(block, limit + 1 - len(unpacked))
            except zlib.error:
                return None
            if len(unpacked) > limit:
                return bytes(unpacked)
            block = inflate.unused_data
    return bytes(unpacked) if inflate.eof or not body else None


def _split_array(body: bytes) -> list[bytes] | None:
    """The elements of an array; None if the body is something else that begins like one."""
    try:
        return [bytes(raw) for raw in msgspec.json.decode(without_nan(body), type=list[msgspec.Raw])]
    except (msgspec.MsgspecError, RecursionError):
        pass
    # One bad element must not cost its neighbours.
    elements, depth, start = list[bytes](), 0, 1
    for token in _TOKEN.finditer(body):
        kind = token[0]
        if kind in b"[{":
            depth += 1
        elif kind in b"]}":
            depth -= 1
        if depth == 0 or (depth == 1 and kind == b","):
            elements.append(body[start : token.start()].strip())
            start = token.end()
        if depth == 0:
            break
    return None if depth or body[start:].strip() else [] if elements == [b""] else elements


def _is_json(text: bytes) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
        return True
    except (msgspec.MsgspecError, RecursionError):
        pass
    try:
        json.loads(text.decode(errors="replace"))  # NaN tokens are welcome
        return True
    except (ValueError, RecursionError):
        return False


def _refusal(status: int, message: str) -> Answer:
    return Answer(status, {"accepted": 0, "rejected": 0, "dropped": 0, "errors": [{"reason": message}]})
