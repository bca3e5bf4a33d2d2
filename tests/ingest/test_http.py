import asyncio
import gzip
import json
import math
import zlib
from collections.abc import AsyncIterator, Sequence
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.catalog import thresholds
from exporter.ingest.http import ERRORS_SHOWN, EVENTS_AT_ONCE, REQUEST_BYTES, Answer, HttpSource, gunzip, split
from exporter.ingest.source import Chunk, Receipt, Sink
from exporter.monitor.events import Reject
from tests.app.fakes import FakeSink, FakeSurroundings, settle

GOOD = b'{"model":"m","features":{"x":1}}'


async def parts(*blocks: bytes) -> AsyncIterator[bytes]:
    for block in blocks:
        yield block


def post(body: bytes, encoding: str = "", sink: Sink | None = None, **limits: int) -> Answer:
    async def posting() -> Answer:
        source = HttpSource("http", FakeSurroundings(), **limits)
        running = asyncio.create_task(source.run(sink or FakeSink(), {}))
        await settle()
        answer = await source.receive(parts(body), encoding)
        running.cancel()
        return answer

    return asyncio.run(posting())


def reasons(answer: Answer) -> list[str]:
    return [error["reason"] for error in answer.body["errors"]]


class TestSplit:
    @pytest.mark.parametrize(
        "body, events",
        [
            (b"", []),
            (b" \r\n\t", []),
            (b"[]", []),
            (b"[ ]", []),
            (GOOD, [GOOD]),
            (b"\n" + GOOD + b"\r\n", [GOOD]),
            (GOOD + b"\n\r\n" + GOOD, [GOOD, GOOD]),
            (b"[" + GOOD + b" ,\n" + GOOD + b"]", [GOOD, GOOD]),
            (b'{\n "model": "m",\n "id": 1\n}', [b'{\n "model": "m",\n "id": 1\n}']),
            (b"[\n" + GOOD + b",\n" + GOOD + b"\n]", [GOOD, GOOD]),
            (b'{\n "x": NaN\n}', [b'{\n "x": NaN\n}']),
            (b'{"x":NaN}\n{\n"x":1}', [b'{"x":NaN}', b"{", b'"x":1}']),
            (b"[" + GOOD + b",\n" + GOOD + b"\n" + GOOD, [b"[" + GOOD + b",", GOOD, GOOD]),
            (b"not json", [b"not json"]),
            (b"broken\n" + GOOD, [b"broken", GOOD]),
            (b"[1]\n" + GOOD, [b"[1]", GOOD]),
        ],
    )
    def test_one_object_an_array_or_an_object_a_line(self, body: bytes, events: list[bytes]):
        assert split(body) == events

    @pytest.mark.parametrize(
        "bad",
        [
            b"NaN",
            b'{"x":[-Infinity,"]"]}',
            b"9" * 5000,
            b"[" * 100_000 + b"]" * 100_000,
            b'"\xff"',
            b'"a \\" b, ] }"',
            b"tru",
            b"",
        ],
    )
    def test_what_is_no_json_within_an_array_does_not_cost_its_neighbours(self, bad: bytes):
        assert split(b"[nul," + GOOD + b", " + bad + b" ," + GOOD + b"]") == [b"nul", GOOD, bad, GOOD]

    def test_nan_within_an_array_stands_for_null_but_not_within_a_text(self):
        assert split(b'[{"x": NaN, "y": "NaN"}, ' + GOOD + b"]") == [b'{"x": null, "y": "NaN"}', GOOD]

    @pytest.mark.parametrize(
        "body",
        [
            b"[" + GOOD + b"," + GOOD,
            b"[" * 100_000,
            b'["' + b'\\"' * 1_000_000,
            b'["\\"',
            b"[" + GOOD + b',"unfinished]',
        ],
    )
    def test_an_array_without_end_is_one_event(self, body: bytes):
        assert split(body) == [body]

    @given(
        st.lists(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5), max_size=5)
    )
    def test_an_array_as_python_writes_it_keeps_its_elements(self, events: Sequence[object]):
        body = json.dumps(events).encode()
        read = partial(json.loads, parse_constant={"NaN": None, "Infinity": math.inf, "-Infinity": -math.inf}.get)
        assert repr([read(event) for event in split(body)]) == repr(read(body))


class TestGzip:
    def test_members_are_joined(self):
        assert gunzip(gzip.compress(b"one ") + gzip.compress(b"two"), 100) == b"one two"

    def test_a_bomb_is_not_unpacked_whole(self):
        unpacked = gunzip(gzip.compress(bytes(50_000_000)), 1000)
        assert unpacked is not None
        assert len(unpacked) == 1001

    def test_a_bomb_of_many_members_takes_no_longer_than_its_bytes(self):
        # Copying the rest of the body for each member would take minutes here.
        assert gunzip(gzip.compress(b"") * 200_000, 1000) == b""

    @pytest.mark.parametrize(
        "body",
        [GOOD, gzip.compress(GOOD)[:-1], gzip.compress(GOOD) + b"trailing", zlib.compress(GOOD)],
        ids=["plain", "truncated", "trailing", "zlib"],
    )
    def test_what_is_no_gzip_is_refused(self, body: bytes):
        assert gunzip(body, 1000) is None
        answer = post(body, "gzip")
        assert (answer.status, reasons(answer)) == (400, ["body is not gzip"])

    @given(st.binary(max_size=300), st.integers(0, 299), st.integers(0, 255))
    def test_damage_never_raises(self, content: bytes, place: int, byte: int):
        damaged = bytearray(gzip.compress(content))
        damaged[place % len(damaged)] = byte
        assert gunzip(bytes(damaged), 1000) in (None, content)


class TestAnswers:
    def test_accepted_events_are_counted(self):
        sink = FakeSink()
        body = b"\n".join([GOOD] * (EVENTS_AT_ONCE + 1))
        answer = post(gzip.compress(body), "gzip", sink)
        assert (answer.status, answer.body) == (
            202,
            {"accepted": EVENTS_AT_ONCE + 1, "rejected": 0, "dropped": 0, "errors": []},
        )
        assert [len(chunk.payloads) for chunk in sink.chunks] == [EVENTS_AT_ONCE, 1]

    def test_an_empty_body_is_no_event(self):
        assert post(b"") == Answer(202, {"accepted": 0, "rejected": 0, "dropped": 0, "errors": []})

    def test_errors_point_into_the_request_not_into_its_chunks(self):
        async def refuse_the_last(chunk: Chunk) -> Receipt:
            size = len(chunk.payloads)
            return Receipt(size - 2, [Reject(size - 1, "malformed_json", "it says why")], 1)

        answer = post(b"\n".join([GOOD] * (EVENTS_AT_ONCE + 10)), sink=refuse_the_last)
        assert answer.status == 202
        assert answer.body == {
            "accepted": EVENTS_AT_ONCE + 6,
            "rejected": 2,
            "dropped": 2,
            "errors": [
                {"index": EVENTS_AT_ONCE - 1, "reason": "malformed_json", "detail": "it says why"},
                {"index": EVENTS_AT_ONCE + 9, "reason": "malformed_json", "detail": "it says why"},
            ],
        }

    def test_the_list_of_errors_is_bounded(self):
        async def refuse_all(chunk: Chunk) -> Receipt:
            return Receipt(0, [Reject(i, "too_deep", "") for i in range(len(chunk.payloads))], 0)

        answer = post(b"\n".join([GOOD] * 3000), sink=refuse_all)
        assert answer.body["rejected"] == 3000
        assert [error["index"] for error in answer.body["errors"]] == list(range(ERRORS_SHOWN))


class TestRefusals:
    """Whatever is refused, nothing of it was accepted."""

    def refused(self, status: int, body: bytes, encoding: str = "", **limits: int) -> None:
        sink = FakeSink()
        answer = post(body, encoding, sink, **limits)
        assert (answer.status, answer.body["accepted"], sink.calls) == (status, 0, 0)
        assert len(reasons(answer)) == 1

    def test_a_body_over_the_limit(self):
        self.refused(413, GOOD, body_limit_bytes=len(GOOD) - 1)
        assert post(GOOD, body_limit_bytes=len(GOOD)).status == 202

    def test_a_bomb(self):
        self.refused(413, gzip.compress(bytes(100_000)), "gzip", body_limit_bytes=10_000)

    def test_more_events_than_their_bytes_let_expect(self):
        limit = thresholds.EVENTS_LIMIT.count
        self.refused(413, b"[" + b",".join([b"1"] * (limit + 1)) + b"]")

    def test_another_encoding(self):
        self.refused(415, GOOD, "br")

    def test_more_at_once_than_may_be_held(self):
        self.refused(429, GOOD, inflight_limit_bytes=REQUEST_BYTES + len(GOOD) - 1)
        self.refused(429, b"", inflight_limit_bytes=REQUEST_BYTES - 1)

    def test_before_it_runs_and_after(self):
        async def posting() -> None:
            source = HttpSource("http", FakeSurroundings())
            assert source.not_ready() == "http: not started"
            assert (await source.receive(parts(GOOD))).status == 503
            running = asyncio.create_task(source.run(FakeSink(), {}))
            await settle()
            assert source.not_ready() is None
            running.cancel()
            await settle()
            assert (await source.receive(parts(GOOD))).status == 503

        asyncio.run(posting())

    def test_back_pressure_refuses_the_newcomer_and_frees_its_place_when_it_is_over(self):
        async def posting() -> None:
            source = HttpSource("http", FakeSurroundings(), inflight_limit_bytes=2 * REQUEST_BYTES + len(GOOD))
            sink = FakeSink()
            running = asyncio.create_task(source.run(sink, {}))
            sink.open.clear()
            first = asyncio.create_task(source.receive(parts(GOOD, b"\n", GOOD)))
            await settle()
            busy = await source.receive(parts(GOOD))
            assert (busy.status, busy.body["accepted"]) == (429, 0)
            sink.open.set()
            assert (await first).body["accepted"] == 2
            assert (await source.receive(parts(GOOD, b"\n", GOOD))).status == 202
            assert sink.payloads == [GOOD] * 4
            running.cancel()

        asyncio.run(posting())

    def test_a_client_that_goes_away_frees_its_place(self):
        async def leaving() -> AsyncIterator[bytes]:
            yield GOOD
            raise ConnectionError

        async def posting() -> None:
            source = HttpSource("http", FakeSurroundings(), inflight_limit_bytes=REQUEST_BYTES + len(GOOD))
            sink = FakeSink()
            running = asyncio.create_task(source.run(sink, {}))
            await settle()
            for _ in range(3):
                with pytest.raises(ConnectionError):
                    await source.receive(leaving())
            assert (await source.receive(parts(GOOD))).status == 202
            assert sink.payloads == [GOOD]
            running.cancel()

        asyncio.run(posting())
