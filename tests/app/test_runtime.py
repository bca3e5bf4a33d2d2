import asyncio
import json
import logging
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.app import runtime as runtime_module
from exporter.app.clock import LiveSurroundings
from exporter.app.http import Access, build_app
from exporter.app.references import load_all
from exporter.app.runtime import LOG_EVERY_S, MISSED_TICKS, Feed, Inlet, Runtime
from exporter.ingest.http import HttpSource
from exporter.ingest.native import NativeCodec
from exporter.ingest.source import Messages, Positions, Sink, Unavailable
from exporter.monitor import reference
from exporter.monitor.fleet import Fleet
from exporter.monitor.health import SourceHealth
from exporter.monitor.reference import Reference
from exporter.monitor.settings import ModelSettings
from exporter.monitor.snapshot import Snapshot
from tests.app.asgi import ask, running
from tests.builders import MODEL, a_fleet, a_reference, an_input

TICK_S = 0.02


async def until(condition: Callable[[], object]) -> None:
    """Wait for it to come true."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for is outside, and has no events
            await asyncio.sleep(0.001)


def events(count: int = 1, **fields: Any) -> list[bytes]:
    return [
        json.dumps({"model": MODEL, "features": {"x": float(i), "colour": "red"}} | fields).encode()
        for i in range(count)
    ]


class ASource:
    """Delivers what it is given, then ends, fails or waits."""

    def __init__(self, name: str, payloads: Sequence[bytes] = (), end: Exception | None = None, *, waits: bool = False):
        self.name = name
        self.ended = False
        self.committed: list[dict[str, str]] = []
        self._payloads = payloads
        self._end = end
        self._waits = waits

    async def run(self, sink: Sink, resume: Positions) -> None:
        for payload in self._payloads:
            await sink(Messages(self.name, [payload], time.time()))
        self.ended = True
        if self._end is not None:
            raise self._end
        if self._waits:
            await asyncio.Event().wait()

    async def commit(self, positions: Positions) -> None:
        self.committed.append(dict(positions))

    def not_ready(self) -> str | None:
        return None

    def waiting(self, positions: Positions) -> Sequence[str]:
        return ()

    def health(self) -> SourceHealth:
        return SourceHealth("exactly_once")


def a_runtime(fleet: Fleet, *sources: ASource, log_values: bool = False, **options: Any) -> Runtime:
    feeds = [Feed(source, NativeCodec(fleet, source.name, log_values=log_values)) for source in sources]
    return Runtime(fleet, feeds, **({"tick_s": TICK_S} | options))


def predictions(runtime: Runtime) -> int:
    return sum(int(model["traffic"]["predictions"]) for model in json.loads(runtime.rendered.status.plain)["models"])


class StoppedFleet(Fleet):
    """Its ticks fail while `broken`."""

    broken = False

    def tick(self, now: float, waiting: Collection[str] = ()) -> Snapshot:
        if self.broken:
            raise ArithmeticError("this tick fails")
        return super().tick(now, waiting)


class TestTicks:
    def test_what_is_served_follows_the_events(self):
        async def story() -> None:
            runtime = a_runtime(a_fleet(), ASource("s", events(5)))
            assert predictions(runtime) == 0
            async with running(runtime):
                await until(lambda: predictions(runtime) == 5)

        asyncio.run(story())

    def test_failing_ticks_kill_nothing_but_health(self, caplog: pytest.LogCaptureFixture):
        async def story() -> None:
            fleet = StoppedFleet([ModelSettings(MODEL, version="1")])
            source = ASource("s", events(3), waits=True)
            runtime = a_runtime(fleet, source)
            app = build_app(runtime, None, Access())
            async with running(runtime) as task:
                await until(lambda: predictions(runtime) == 3)
                fleet.broken = True
                served = runtime.rendered
                await until(lambda: not runtime.healthy())
                assert (await ask(app, "/healthz")).status == 503
                assert (await ask(app, "/metrics")).body == served.text.plain
                assert not task.done()
                fleet.broken = False
                await until(runtime.healthy)
                assert (await ask(app, "/healthz")).status == 200

        asyncio.run(story())
        assert "tick failed" in caplog.text
        assert "this tick fails" in caplog.text

    def test_unhealthy_takes_as_many_missed_ticks_as_agreed(self):
        runtime = a_runtime(a_fleet(), tick_s=1000)
        assert MISSED_TICKS == 5
        runtime._last_tick = time.monotonic() - 4999
        assert runtime.healthy()
        runtime._last_tick = time.monotonic() - 5001
        assert not runtime.healthy()

    def test_new_models_may_turn_up_while_a_tick_counts(self):
        """A tick lets others have their turn; what they bring must not upset it."""

        async def story() -> None:
            fleet = a_fleet()
            runtime = a_runtime(fleet, tick_s=3600)
            sink = Inlet(runtime, Feed(ASource("s"), NativeCodec(fleet, "s")))
            for number in range(20):
                ticking = asyncio.create_task(runtime.tick_once())
                for model, version in ((MODEL, f"v{number % 5}"), (f"m{number}", "1")):
                    payloads = events(3, model=model, version=version)
                    await asyncio.gather(*(sink(Messages("s", payloads, time.time())) for _ in range(3)))
                await ticking
            await runtime.tick_once()
            assert predictions(runtime) == 20 * 2 * 9

        asyncio.run(story())


class TestSources:
    @pytest.mark.parametrize(
        "end, said",
        [
            (None, "source bad: end of input"),
            (Unavailable("cannot read it"), "source bad: cannot read it"),
            (ZeroDivisionError("a bug"), "source bad: failed"),
        ],
        ids=["ends", "unavailable", "bug"],
    )
    def test_one_that_ends_or_fails_does_not_end_the_others(
        self, caplog: pytest.LogCaptureFixture, end: Exception | None, said: str
    ):
        async def story() -> None:
            bad, good = ASource("bad", events(1), end), ASource("good", events(50), waits=True)
            runtime = a_runtime(a_fleet(), bad, good)
            async with running(runtime) as task:
                await until(lambda: bad.ended and predictions(runtime) == 51)
                assert not task.done()
                broken = isinstance(end, ZeroDivisionError)
                assert runtime.not_ready() == (["bad: failed: a bug"] if broken else [])

        with caplog.at_level(logging.INFO):
            asyncio.run(story())
        assert said in caplog.text

    def test_every_source_is_accounted_for_from_the_start(self):
        async def story() -> None:
            runtime = a_runtime(a_fleet(), ASource("quiet", waits=True))
            async with running(runtime):
                await until(lambda: b'ml_ingest_events_total{source="quiet"} 0' in runtime.rendered.text.plain)

        asyncio.run(story())


class TestRejectsInTheLog:
    CARD = "4111-1111-1111-1111"

    def log(self, caplog: pytest.LogCaptureFixture, *, log_values: bool, payloads: Sequence[bytes]) -> list[str]:
        async def story() -> None:
            runtime = a_runtime(a_fleet(), log_values=log_values)
            sink = Inlet(runtime, Feed(ASource("s"), NativeCodec(runtime.fleet, "s", log_values=log_values)))
            for payload in payloads:
                await sink(Messages("s", [payload] * 3, time.time()))

        asyncio.run(story())
        return [record.getMessage() for record in caplog.records]

    def test_a_reason_is_logged_once_a_minute(self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
        assert LOG_EVERY_S == 60
        said = self.log(caplog, log_values=False, payloads=[b"{", b"[]", b"{", b"[]"])
        assert len(said) == 2
        assert "malformed_json" in said[0]
        assert "not_an_object" in said[1]
        caplog.clear()
        monkeypatch.setattr(runtime_module, "LOG_EVERY_S", 0.0)
        assert len(self.log(caplog, log_values=False, payloads=[b"{"])) == 3

    @pytest.mark.parametrize("log_values", [False, True])
    def test_values_are_shown_only_if_asked_for(self, caplog: pytest.LogCaptureFixture, *, log_values: bool):
        bad = [
            *events(timestamp=self.CARD),
            *events(model={"card": self.CARD}),
            *events(features=self.CARD),
            b'{"card": "%s"' % self.CARD.encode(),
            b'"%s"' % self.CARD.encode(),
        ]
        said = self.log(caplog, log_values=log_values, payloads=bad)
        assert len(said) == 5
        assert "invalid_timestamp: timestamp: RFC 3339 or epoch seconds expected" in said[0]
        assert (self.CARD in " ".join(said)) is log_values


def a_model(version: str, **columns: Any) -> Reference:
    return a_reference({an_input(name): values for name, values in columns.items()}, version=version)


class TestReferences:
    def test_a_learned_one_is_adopted_and_can_be_downloaded(self, caplog: pytest.LogCaptureFixture):
        async def story() -> None:
            fleet = Fleet([ModelSettings(MODEL, version="1", learn=200, min_samples=100)])
            http = HttpSource("http", LiveSurroundings())
            runtime = Runtime(fleet, [Feed(http, NativeCodec(fleet, "http"))], tick_s=TICK_S)
            app = build_app(runtime, http, Access())

            async def post(count: int) -> None:
                answer = await ask(app, "/v1/events", method="POST", body=b"\n".join(events(count, version="1")))
                assert answer.json["accepted"] == count

            def model() -> Any:
                return json.loads(runtime.rendered.status.plain)["models"][0]

            async with running(runtime):
                await post(100)
                await until(lambda: model()["learning"] == {"seen": 100, "needed": 200})
                assert model()["state"] == "learning"
                await post(150)
                await until(lambda: model()["reference"])
                known = model()["reference"]
                assert (known["rows"], known["version"], model()["learning"]) == (200, "1", None)
                answer = await ask(app, f"/api/v1/references/{known['id']}")
                learned = reference.decode(answer.body)
                assert learned.id == known["id"]
                assert {feature.name for feature in learned.features} == {"x", "colour"}
                await post(150)
                await until(lambda: model()["state"] not in ("learning", "insufficient_data"))
                assert {feature["n"] for feature in model()["features"]} == {150}

        with caplog.at_level(logging.INFO):
            asyncio.run(story())
        assert "learned reference" in caplog.text

    def test_of_versions_complete_in_one_tick_the_first_is_learned_and_lends_its_reference(self):
        async def story() -> None:
            fleet = Fleet([ModelSettings(MODEL, learn=100, min_samples=50)])
            source = ASource("good", [*events(100, version="1"), *events(100, version="2")], waits=True)
            runtime = Runtime(fleet, [Feed(source, NativeCodec(fleet, "good"))], tick_s=TICK_S)
            async with running(runtime):
                await until(lambda: predictions(runtime) == 200)
                await until(lambda: bool(fleet.references(MODEL)))
                learned = fleet.references(MODEL)
                await runtime.tick_once()
                assert fleet.references(MODEL) == learned
                assert [one.version for one in learned] == ["1"]

        asyncio.run(story())

    def test_what_cannot_be_learned_from_is_said_once(self, caplog: pytest.LogCaptureFixture):
        async def story() -> None:
            fleet = Fleet([ModelSettings(MODEL, version="1", learn=100)])
            payloads = [b'{"model":"car_loan","latency_seconds":0.1}'] * 200
            runtime = a_runtime(fleet, ASource("s", payloads))
            async with running(runtime):
                await until(lambda: "cannot learn a reference" in caplog.text)
                before = runtime.rendered
                for _ in range(3):
                    last = runtime.rendered
                    await until(lambda last=last: runtime.rendered is not last)
                assert runtime.rendered is not before

        asyncio.run(story())
        assert caplog.text.count("cannot learn a reference") == 1

    def test_files_are_looked_for_anew(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ):
        assert runtime_module.RESCAN_S == 60
        monkeypatch.setattr(runtime_module, "RESCAN_S", TICK_S)
        first, second = a_model("1", x=np.arange(100.0)), a_model("2", x=np.arange(200.0))
        (tmp_path / "reference-1.json").write_bytes(reference.encode(first))

        def rescan() -> dict[str, list[Reference]]:
            return {MODEL: load_all(["reference-*.json"], MODEL, tmp_path)}

        async def story() -> None:
            fleet = Fleet([ModelSettings(MODEL, version="1")], rescan())
            runtime = a_runtime(fleet, rescan=rescan)
            async with running(runtime):
                (tmp_path / "reference-2.json").write_bytes(reference.encode(second))
                await until(lambda: len(fleet.references(MODEL)) == 2)
                (tmp_path / "reference-3.json").write_bytes(b"half a file")
                await until(lambda: "references unchanged" in caplog.text)
                assert {one.id for one in fleet.references(MODEL)} == {first.id, second.id}
                (tmp_path / "reference-3.json").unlink()
                (tmp_path / "reference-1.json").unlink()
                await until(lambda: [one.id for one in fleet.references(MODEL)] == [second.id])
            assert "reference-3.json: not a reference" in caplog.text

        asyncio.run(story())

    def test_events_decoded_before_a_reference_comes_and_counted_after_keep_their_columns(self):
        async def story() -> None:
            before = a_model("1", x=np.arange(100.0))
            after = a_model("1", colour=["red", "blue"] * 50, a=np.arange(100.0), x=np.arange(100.0))
            fleet = a_fleet(before, min_samples=1)
            runtime = a_runtime(fleet, tick_s=3600)
            sink = Inlet(runtime, Feed(ASource("s"), NativeCodec(fleet, "s")))
            counting = asyncio.create_task(sink(Messages("s", events(10), time.time())))
            await asyncio.sleep(0)
            fleet.adopt(MODEL, [after])
            await counting
            await sink(Messages("s", events(10), time.time()))
            await runtime.tick_once()
            assert predictions(runtime) == 20
            (model,) = json.loads(runtime.rendered.status.plain)["models"]
            found = {one["feature"]: (one["n"], one["missing_ratio"]) for one in model["features"]}
            assert found["x"] in ((10, 0.0), (20, 0.0))
            assert found["colour"] in ((10, 0.0), (20, 0.0))
            assert found["a"][0] == 0

        asyncio.run(story())


def test_the_sink_says_what_became_of_a_chunk():
    async def story() -> None:
        runtime = a_runtime(a_fleet())
        sink = Inlet(runtime, Feed(ASource("s"), NativeCodec(runtime.fleet, "s")))
        receipt = await sink(Messages("s", [*events(3), b"{", b'{"model":"m","label":1}'], time.time()))
        assert (receipt.accepted, len(receipt.rejects), receipt.dropped) == (3, 1, 1)

    asyncio.run(story())
