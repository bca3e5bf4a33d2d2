"""Durable before visible: what is served and acknowledged when the state is slow, broken, or not kept at all."""

import asyncio
import json
import logging
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from exporter.app import runtime as runtime_module
from exporter.app.runtime import Feed, Inlet, Runtime
from exporter.app.state import StateError, Store
from exporter.ingest.native import NativeCodec
from exporter.ingest.source import Messages, Trouble
from exporter.monitor.fleet import Fleet
from tests.app.asgi import running
from tests.app.test_runtime import TICK_S, ASource, events, predictions, until
from tests.builders import MODEL, a_fleet


class FakeStore:
    """Keeps what is written, unless it is told to fail or to hang."""

    entries: Mapping[str, bytes] = {}
    positions: Mapping[str, Mapping[str, str]] = {}
    set_aside = None
    trouble = None
    size_bytes = 4096

    def __init__(self) -> None:
        self.written: list[Mapping[str, Mapping[str, str]]] = []
        self.fails = False
        self.closed = False
        self.open = threading.Event()
        self.open.set()
        self.calls = 0

    def write(
        self, changes: Mapping[str, Any], positions: Mapping[str, Mapping[str, str]], blocks: Mapping[str, Any]
    ) -> None:
        self.calls += 1
        assert self.open.wait(20)
        if self.fails:
            raise StateError("/state: No space left on device")
        self.written.append(positions)

    def close(self) -> None:
        self.closed = True


class Steady(ASource):
    """Brings an event, with its position, whenever it is told to."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.sink: Any = None
        self.sent = 0

    async def run(self, sink: Any, resume: Mapping[str, str]) -> None:
        self.sink = sink
        await asyncio.Event().wait()

    async def send(self, count: int = 1) -> None:
        self.sent += count
        await self.sink(Messages("s/t/0", events(count), time.time(), str(self.sent)))


def a_runtime(fleet: Fleet, store: Any, *sources: ASource, tick_s: float = TICK_S) -> Runtime:
    feeds = [Feed(source, NativeCodec(fleet, source.name)) for source in sources]
    return Runtime(fleet, feeds, tick_s=tick_s, store=store)


def metric(runtime: Runtime, name: str) -> float:
    lines = runtime.rendered.text.plain.decode().splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def state(runtime: Runtime) -> Any:
    return json.loads(runtime.rendered.status.plain)["state"]


def test_nothing_is_served_or_acknowledged_before_it_is_durable():
    async def story() -> None:
        store, source = FakeStore(), Steady("s")
        runtime = a_runtime(a_fleet(), store, source, tick_s=0.5)
        async with running(runtime):
            await source.send(3)
            await until(lambda: predictions(runtime) == 3)
            await until(lambda: source.committed and source.committed[-1] == {"s/t/0": "3"})
            await until(lambda: store.open.is_set() and runtime._writing is None)
            store.open.clear()
            calls = store.calls
            await source.send(4)
            await until(lambda: store.calls == calls + 1)
            await source.send(5)  # while it is written: of the next transaction
            assert predictions(runtime) == 3
            assert source.committed[-1] == {"s/t/0": "3"}
            store.open.set()
            await until(lambda: predictions(runtime) == 7)
            assert store.written[calls] == {"s": {"s/t/0": "7"}}
            await until(lambda: predictions(runtime) == 12)

    asyncio.run(story())


def test_what_is_written_together_is_of_one_moment(tmp_path: Path):
    """Sources that are at it all the time: counts and positions of a transaction must agree to the event."""

    class Busy(Steady):
        async def run(self, sink: Any, resume: Mapping[str, str]) -> None:
            self.sink = sink
            while True:
                for _ in range(50):
                    await self.send()
                await asyncio.sleep(0.001)  # a loop that never waits would starve the thread that writes

    class Recording(Store):
        """Keeps what a process would find that was started after each transaction."""

        def write(self, changes: Any, positions: Any, blocks: Any = None) -> None:
            super().write(changes, positions, blocks)
            kept.append(shutil.copytree(tmp_path / "state", tmp_path / f"copy-{len(kept)}"))

    kept: list[Path] = []

    async def story() -> None:
        runtime = a_runtime(a_fleet(), Recording.open(tmp_path / "state"), Busy("s"), tick_s=0.01)
        async with running(runtime):
            await until(lambda: len(kept) > 30)

    asyncio.run(story())
    for copy in kept[1:]:
        found, fleet = Store.open(copy), a_fleet()
        fleet.load(found.entries)
        assert fleet.tick(time.time()).feeds["s"].events == int(found.positions["s"]["s/t/0"])
        found.close()


def test_while_writing_fails_it_measures_on_and_says_so_and_acknowledges_nothing(caplog: pytest.LogCaptureFixture):
    async def story() -> None:
        store, source = FakeStore(), Steady("s")
        runtime = a_runtime(a_fleet(), store, source)
        async with running(runtime):
            await source.send(3)
            await until(lambda: source.committed and source.committed[-1] == {"s/t/0": "3"})
            store.fails = True
            await source.send(4)
            await until(lambda: predictions(runtime) == 7)
            await until(lambda: metric(runtime, "ml_exporter_state_write_failures_total") >= 3)
            assert source.committed[-1] == {"s/t/0": "3"}
            assert state(runtime)["trouble"] == "/state: No space left on device"
            assert await source.sink.checkpoint() is None
            store.fails = False
            await until(lambda: source.committed[-1] == {"s/t/0": "7"})
            await until(lambda: state(runtime)["trouble"] is None)
            assert await source.sink.checkpoint() == {"s/t/0": "7"}

    with caplog.at_level(logging.INFO):
        asyncio.run(story())
    said = [record.getMessage() for record in caplog.records if record.name == "exporter.app.runtime"]
    assert said.count("state is not durable: /state: No space left on device") == 1
    assert "state: durable again" in said


def test_a_write_that_hangs_holds_up_neither_measuring_nor_health(monkeypatch: pytest.MonkeyPatch):
    assert runtime_module.WRITE_S == 5
    monkeypatch.setattr(runtime_module, "WRITE_S", 0.0)

    async def story() -> None:
        store, source = FakeStore(), Steady("s")
        runtime = a_runtime(a_fleet(), store, source)
        async with running(runtime):
            await until(lambda: store.written)
            store.open.clear()
            await source.send(3)
            await until(lambda: predictions(runtime) == 3)
            calls = store.calls
            await until(lambda: metric(runtime, "ml_exporter_state_write_failures_total") >= 3)
            assert store.calls == calls, "no second write is begun beside it"
            assert runtime.healthy()
            assert all(not positions for positions in source.committed)
            assert await source.sink.checkpoint() is None
            store.open.set()
            await until(lambda: source.committed[-1] == {"s/t/0": "3"})

    asyncio.run(story())


def test_without_a_state_path_all_is_acknowledged_and_the_guarantee_is_less():
    async def story() -> None:
        source = Steady("s")
        runtime = a_runtime(a_fleet(), None, source)
        async with running(runtime):
            await source.send(3)
            await until(lambda: source.committed and source.committed[-1] == {"s/t/0": "3"})
            assert metric(runtime, 'ml_ingest_guarantee{source="s",guarantee="at_most_once"}') == 1
            assert state(runtime) is None
            assert await source.sink.checkpoint() == {"s/t/0": "3"}

    asyncio.run(story())


def test_the_next_process_goes_on_where_the_last_transaction_was(tmp_path: Path):
    async def life(expected: Mapping[str, str]) -> None:
        store = Store.open(tmp_path)
        fleet = a_fleet()
        if store.entries:
            fleet.load(store.entries)
        resumed: list[Mapping[str, str]] = []

        class Resuming(Steady):
            async def run(self, sink: Any, resume: Mapping[str, str]) -> None:
                resumed.append(resume)
                self.sent = int(resume.get("s/t/0", "0"))
                await super().run(sink, resume)

        source = Resuming("s")
        runtime = a_runtime(fleet, store, source, tick_s=3600)
        served = predictions(runtime)
        assert served == int(expected.get("s/t/0", "0")), "the first rendering already shows it"
        async with running(runtime):
            await until(lambda: source.sink)
            assert resumed == [expected]
            await source.send(10)

    asyncio.run(life({}))
    asyncio.run(life({"s/t/0": "10"}))
    asyncio.run(life({"s/t/0": "20"}))


def test_a_store_is_closed_in_the_end_with_everything_in_it():
    async def story() -> None:
        store, source = FakeStore(), Steady("s")
        async with running(a_runtime(a_fleet(), store, source, tick_s=3600)):
            await until(lambda: source.sink and store.written)
            await source.send(3)
        assert store.written[-1] == {"s": {"s/t/0": "3"}}
        assert store.closed

    asyncio.run(story())


class TestTroubles:
    def test_they_are_counted_and_logged_once_a_minute(self, caplog: pytest.LogCaptureFixture):
        async def story() -> None:
            runtime = a_runtime(a_fleet(), None, ASource("s"))
            sink = Inlet(runtime, runtime.feeds[0])
            for _ in range(3):
                sink.report(Trouble("connection", "cannot reach the cluster"))
            sink.report(Trouble("expired", "t-0: the broker has deleted 5 records", lost=5))
            sink.report(Trouble("redelivered", "t-0: 7 count again", redelivered=7))
            await runtime.tick_once()
            text = runtime.rendered.text.plain.decode()
            assert 'ml_ingest_source_errors_total{source="s",reason="connection"} 3' in text
            assert 'ml_ingest_dropped_total{source="s",reason="expired"} 5' in text
            assert 'ml_ingest_redelivered_total{source="s"} 7' in text

        asyncio.run(story())
        assert [record.getMessage() for record in caplog.records] == [
            "source s: cannot reach the cluster",
            "source s: t-0: the broker has deleted 5 records",
            "source s: t-0: 7 count again",
        ]


class TestPostsCountedTogether:
    def receipts(self, *chunks: list[bytes], **limits: int) -> list[tuple[int, list[int], int]]:
        async def story() -> list[tuple[int, list[int], int]]:
            runtime = a_runtime(a_fleet(), None, ASource("s"))
            sink = Inlet(runtime, runtime.feeds[0])
            found = await asyncio.gather(*(sink(Messages("s", chunk, time.time())) for chunk in chunks))
            await runtime.tick_once()
            (source,) = json.loads(runtime.rendered.status.plain)["sources"]
            assert source["events"] == sum(map(len, chunks))
            return [(one.accepted, [reject.index for reject in one.rejects], one.dropped) for one in found]

        return asyncio.run(story())

    def test_each_gets_the_account_of_its_own_events(self):
        bad, label = b"{", b'{"model":"m","label":1}'
        assert self.receipts(events(1), events(3), events(20), events(21)) == [(n, [], 0) for n in (1, 3, 20, 21)]
        mixed = self.receipts(events(1), [bad], [*events(2), bad], [label, *events(1)], events(2))
        assert mixed == [(1, [], 0), (0, [0], 0), (2, [2], 0), (1, [], 1), (2, [], 0)]

    def test_a_version_that_finds_no_place_is_dropped_from_its_own(self):
        versions = [events(1, version=f"v{number}") for number in range(12)]
        found = self.receipts(*versions)
        assert sum(accepted for accepted, _, _ in found) + sum(dropped for _, _, dropped in found) == 12
        assert all(accepted + dropped == 1 for accepted, _, dropped in found)
        assert 0 < sum(dropped for _, _, dropped in found) < 12

    def test_of_hundreds_at_once_each_is_counted_once(self):
        assert self.receipts(*[events(1)] * 500) == [(1, [], 0)] * 500

    def test_what_fails_is_told_to_each_and_the_next_is_counted(self):
        class Broken(NativeCodec):
            def decode(self, chunk: Any) -> Any:
                if b"bug" in chunk.payloads:
                    raise ZeroDivisionError
                return super().decode(chunk)

        async def story() -> None:
            fleet = a_fleet()
            source = ASource("s")
            runtime = Runtime(fleet, [Feed(source, Broken(fleet, "s"))], tick_s=TICK_S)
            sink = Inlet(runtime, runtime.feeds[0])
            found = await asyncio.gather(
                sink(Messages("s", [b"bug"], time.time())),
                sink(Messages("s", events(1), time.time())),
                return_exceptions=True,
            )
            assert [type(one) for one in found] == [ZeroDivisionError] * 2
            assert (await sink(Messages("s", events(1), time.time()))).accepted == 1

        asyncio.run(story())

    def test_a_caller_that_has_gone_does_not_keep_its_neighbours_waiting(self):
        async def story() -> None:
            runtime = a_runtime(a_fleet(), None, ASource("s"))
            sink = Inlet(runtime, runtime.feeds[0])
            first, second = (asyncio.create_task(sink(Messages("s", events(1), time.time()))) for _ in range(2))
            await asyncio.sleep(0)
            first.cancel()
            assert (await second).accepted == 1
            await runtime.tick_once()
            assert predictions(runtime) == 2
            assert MODEL in runtime.rendered.text.plain.decode()

        asyncio.run(story())


def test_after_a_long_stop_windows_wait_for_what_is_still_to_be_read(tmp_path: Path):
    """An hour later all partitions look idle, but their next hour is in the backlog."""

    class Backlogged(Steady):
        def waiting(self, positions: Mapping[str, str]) -> Any:
            return positions.keys()

        async def send_at(self, timestamp: float) -> None:
            self.sent += 1
            await self.sink(Messages("s/t/0", events(1), timestamp, str(self.sent)))

    async def life(now: float, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setattr(time, "time", lambda: now)
        store = Store.open(tmp_path)
        fleet = a_fleet()
        if store.entries:
            fleet.load(store.entries)
        source = Backlogged("s")
        runtime = a_runtime(fleet, store, source, tick_s=3600)
        async with running(runtime):
            await until(lambda: source.sink)
            source.sent = 10
            await source.send_at(1_800_000_000.0 + source.sent)
            await runtime.tick_once()
            (account,) = json.loads(runtime.rendered.status.plain)["sources"]
            (model,) = json.loads(runtime.rendered.status.plain)["models"]
        return account["late"], model["window"]["samples"], model["state"]

    with pytest.MonkeyPatch.context() as patch:
        assert asyncio.run(life(1_800_000_010.0, patch)) == ({}, 1, "no_reference")
        assert asyncio.run(life(1_800_000_010.0 + 5 * 3600, patch)) == ({}, 2, "no_reference")
