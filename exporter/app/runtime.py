"""The running exporter: sources feed the fleet, ticks turn it into bytes, HTTP serves the bytes.

One event loop owns the fleet, so it needs no lock. A tick copies the counters on the loop (milliseconds) and evaluates,
renders and compresses them on a worker thread; what is served is always a complete rendering.

Durable before visible: with a state path a tick takes the snapshot, the changed state and the positions of the sources
in one step, writes the latter two in one transaction, and only then serves the snapshot and lets sources acknowledge.
So no counter that was seen goes back, not even over a kill -9, and none counts an event twice. While writing fails or
hangs the exporter goes on measuring and says so; nothing is acknowledged then.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from exporter import __version__
from exporter.app.rendering import Rendered, Renderer
from exporter.app.state import Changes, StateError, Store
from exporter.ingest.source import Chunk, Codec, Messages, Positions, Receipt, Source, Trouble, Unavailable
from exporter.monitor.events import Decoded
from exporter.monitor.features import BadReference
from exporter.monitor.fleet import Fleet
from exporter.monitor.health import SourceHealth, StateHealth
from exporter.monitor.learner import Learner
from exporter.monitor.reference import Reference
from exporter.monitor.snapshot import Snapshot

logger = logging.getLogger(__name__)

MISSED_TICKS = 5
"""Ticks that may fail or hang before /healthz says so."""

LOG_EVERY_S = 60.0
"""The same trouble, and a reason for rejecting events, is logged at most this often."""

FEW = 20
"""Events of a chunk, and chunks, that may be counted together with others."""

WRITE_TICKS = 2
WRITE_S = 5.0
"""Ticks, and at least seconds, that a write of state may take before what is measured is shown without it. A disk needs
milliseconds; but while sources are busy, each call into the database may wait as many for the interpreter."""

HELD_BYTES = 16 * 2**20
"""Rows that wait for labels and are in memory because they are not durable yet."""

RESCAN_S = 60.0
"""How often reference files are looked for anew."""


@dataclass(frozen=True, slots=True)
class Feed:
    """A source and the codec of its messages; `labels`, if they are known to be among them."""

    source: Source
    codec: Codec
    labels: bool = False


class Runtime:
    """Everything between configuration and HTTP."""

    def __init__(
        self,
        fleet: Fleet,
        feeds: Sequence[Feed],
        *,
        tick_s: float,
        rescan: Callable[[], dict[str, list[Reference]]] | None = None,
        store: Store | None = None,
    ) -> None:
        """`rescan` returns the references that each model's patterns match now; it runs on a worker thread.

        The fleet has taken over what `store` held.
        """
        self.fleet = fleet
        self.feeds = tuple(feeds)
        self.tick_s = tick_s
        self._rescan = rescan
        self._store = store
        self._positions = {feed.source.name: dict[str, str]() for feed in feeds}
        self._state: StateHealth | None = None
        if store is not None:
            self._state = StateHealth(set_aside=_set_aside(store), trouble=store.trouble)
            for source, positions in store.positions.items():
                self._positions.setdefault(source, {}).update(positions)
        self._writing: asyncio.Task[bool] | None = None
        self._unwritten: set[str] = set()
        self._renderer = Renderer(__version__, started=time.time(), tick_s=tick_s)
        self._last_tick = time.monotonic()
        self._logged: dict[tuple[str, str], float] = {}
        self._failed: dict[str, str] = {}
        self.rendered: Rendered = self._render(self._snapshot())

    def not_ready(self) -> list[str]:
        """Why traffic should not be relied on yet; empty when ready."""
        reasons = [reason for feed in self.feeds if (reason := feed.source.not_ready()) is not None]
        return [*reasons, *self._failed.values()]

    def healthy(self) -> bool:
        """Whether ticks go on."""
        return time.monotonic() - self._last_tick < MISSED_TICKS * self.tick_s

    async def run(self) -> None:
        """Run sources and ticks until cancelled. A source that ends or fails does not end the others."""
        for feed in self.feeds:
            self.fleet.watch(feed.source.name)
        try:
            async with asyncio.TaskGroup() as tasks:
                for feed in self.feeds:
                    tasks.create_task(self._feed(feed))
                tasks.create_task(self._tick())
                if self._rescan is not None:
                    tasks.create_task(self._look_for_references(self._rescan))
        finally:
            await self.checkpoint()
            if self._store is not None and self._writing is None:
                self._store.close()

    async def tick_once(self) -> None:
        """Make what is served current."""
        started = time.monotonic()
        for learner in self.fleet.learned():
            await self._adopt_learned(learner)
        for _ in self.fleet.settle():
            await asyncio.sleep(0)
        for model, work in self.fleet.label_work(time.time(), self._labels_to_come()):
            await asyncio.to_thread(work.run)
            model.label_done(work)
        snapshot, acknowledged = await self._save()
        self.rendered = await asyncio.to_thread(self._render, snapshot)
        for feed in self.feeds:
            if acknowledged is not None:
                await feed.source.commit(acknowledged[feed.source.name])
        self._last_tick = time.monotonic()
        self._renderer.ticked(self._last_tick - started, time.time())

    async def checkpoint(self) -> Mapping[str, Positions] | None:
        """Make everything counted so far durable; how far that is by source, or None if it failed."""
        _, positions = await self._save()
        return positions

    async def relieve(self) -> None:
        """Where much waits in memory for labels, make it durable before more comes. Awaiting it is back-pressure."""
        if self._store is not None and self.fleet.held_bytes > HELD_BYTES:
            await self.checkpoint()

    def counted(self, source: str, partition: str, position: str) -> None:
        """Take note of how far a source's partition is counted."""
        self._positions[source][partition] = position

    def log_seldom(self, level: int, key: tuple[str, str], message: str, *arguments: object) -> None:
        """Log, unless the same was logged a moment ago."""
        now = time.monotonic()
        last = self._logged.get(key)
        if last is None or now - last >= LOG_EVERY_S:
            self._logged[key] = now
            logger.log(level, message, *arguments)

    def _labels_to_come(self) -> set[str] | None:
        """Partitions that have more labels to deliver; None where that cannot be asked."""
        feeds = [feed for feed in self.feeds if feed.labels]
        if any(feed.source.not_ready() for feed in feeds):
            return None
        return {one for feed in feeds for one in feed.source.waiting(self._positions[feed.source.name])}

    def _snapshot(self) -> Snapshot:
        waiting: list[str] = []
        for feed in self.feeds:
            waiting += feed.source.waiting(self._positions[feed.source.name])
        return self.fleet.tick(time.time(), waiting)

    def _render(self, snapshot: Snapshot) -> Rendered:
        sources = {feed.source.name: self._health(feed.source) for feed in self.feeds}
        return self._renderer.render(snapshot, sources, self._state, self.not_ready())

    def _health(self, source: Source) -> SourceHealth:
        health = source.health()
        if source.name in self._failed:
            health = replace(health, ready=False)
        # Without a state the counters start at 0, whatever the source could give again.
        return health if self._store is not None else replace(health, guarantee="at_most_once")

    async def _save(self) -> tuple[Snapshot, Mapping[str, Positions] | None]:
        """The fleet as it is now, and the positions that are durable with it; None if they are not."""
        limit_s = max(WRITE_TICKS * self.tick_s, WRITE_S)
        deadline = time.monotonic() + limit_s
        while self._writing is not None and time.monotonic() < deadline:
            await asyncio.wait([self._writing], timeout=deadline - time.monotonic())
        # No await from here to the write: snapshot, state and positions are of one moment.
        snapshot = self._snapshot()
        positions = {source: dict(partitions) for source, partitions in self._positions.items()}
        if self._store is None:
            return snapshot, positions
        if self._writing is None:
            # Taken here, not in the task: before that runs, sources may have gone on.
            changes, blocks = self.fleet.changes(), self.fleet.changed_blocks()
            writing = self._writing = asyncio.create_task(self._write(self._store, changes, positions, blocks))
            await asyncio.wait([writing], timeout=limit_s)
            if writing.done():
                return snapshot, positions if writing.result() else None
        self._state_failed(f"a write takes longer than {limit_s:g} s")
        return snapshot, None

    async def _write(self, store: Store, changes: Changes, positions: Mapping[str, Positions], blocks: Changes) -> bool:
        started = time.monotonic()
        try:
            await asyncio.to_thread(store.write, changes, positions, blocks)
        except StateError as error:
            self._unwritten |= blocks.keys()  # the store writes them next time
            self._state_failed(str(error))
            return False
        finally:
            self._writing = None
        self._unwritten |= blocks.keys()
        self.fleet.durable(self._unwritten)
        self._unwritten = set()
        if self._state is not None:
            if self._state.trouble is not None:
                logger.info("state: durable again")
            self._state = replace(
                self._state,
                last_write=time.time(),
                write_duration_s=time.monotonic() - started,
                size_bytes=store.size_bytes,
                set_aside=_set_aside(store),
                trouble=None,
            )
        return True

    def _state_failed(self, trouble: str) -> None:
        if self._state is not None:
            failures = self._state.write_failures + 1
            self._state = replace(self._state, write_failures=failures, trouble=trouble)
        self.log_seldom(logging.ERROR, ("state", trouble), "state is not durable: %s", trouble)

    async def _tick(self) -> None:
        while True:
            started = time.monotonic()
            try:
                await self.tick_once()
            except Exception:
                # The process lives on and goes on counting; /healthz tells after a few misses.
                logger.exception("tick failed")
            await asyncio.sleep(max(0.0, self.tick_s - (time.monotonic() - started)))

    async def _feed(self, feed: Feed) -> None:
        try:
            name = feed.source.name
            await feed.source.run(Inlet(self, feed), dict(self._positions[name]))
            logger.info("source %s: end of input", feed.source.name)
        except Unavailable as error:
            logger.error("source %s: %s", feed.source.name, error)  # noqa: TRY400 - the message says it all
        except Exception as error:
            logger.exception("source %s: failed", feed.source.name)
            self._failed[feed.source.name] = f"{feed.source.name}: failed: {error}"

    async def _adopt_learned(self, learner: Learner) -> None:
        model = learner.settings.name
        if self.fleet.references(model):
            return  # another version was complete in the same tick
        try:
            reference = await asyncio.to_thread(learner.build, time.time())
        except BadReference as error:
            logger.error("model %s: cannot learn a reference: %s", model, error)  # noqa: TRY400
            return
        self.fleet.adopt(model, [reference])
        logger.info("model %s: learned reference %s from %d predictions", model, reference.id, reference.rows)

    async def _look_for_references(self, rescan: Callable[[], dict[str, list[Reference]]]) -> None:
        while True:
            await asyncio.sleep(RESCAN_S)
            try:
                for model, references in (await asyncio.to_thread(rescan)).items():
                    known = {one.id for one in self.fleet.references(model)}
                    if references and {one.id for one in references} != known:
                        self.fleet.adopt(model, references)
                        logger.info("model %s: references %s", model, ", ".join(one.id for one in references))
            except BadReference as error:
                logger.warning("references unchanged: %s", error)


def _set_aside(store: Store) -> str | None:
    """Why a database was not used, if one was not; it can turn out to be damaged while we run."""
    return None if store.set_aside is None else store.set_aside[0]


class Inlet:
    """The sink of one source: chunks are decoded, counted and accounted for in one step.

    Posts of an event or a few that are ready at the same turn of the loop are counted together: columns cost much the
    same for one row as for a hundred. Only if nothing of them is rejected or dropped, so that each caller gets the
    account of its own events; else one by one.
    """

    def __init__(self, runtime: Runtime, feed: Feed) -> None:
        self._runtime = runtime
        self._source = feed.source.name
        self._codec = feed.codec
        self._together: list[tuple[Messages, asyncio.Future[Receipt]]] = []

    async def __call__(self, chunk: Chunk) -> Receipt:
        """Decode and count a chunk."""
        if isinstance(chunk, Messages) and len(chunk.payloads) <= FEW and not chunk.position:
            loop = asyncio.get_running_loop()
            counted: asyncio.Future[Receipt] = loop.create_future()
            if not self._together:
                loop.call_soon(self._count_together)
            self._together.append((chunk, counted))
            return await counted
        receipt = self._count(chunk, self._codec.decode(chunk))
        await asyncio.sleep(0)
        await self._runtime.relieve()
        return receipt

    async def checkpoint(self) -> Positions | None:
        """Make everything counted so far durable; how far that is, or None if it failed."""
        positions = await self._runtime.checkpoint()
        return None if positions is None else positions[self._source]

    def report(self, trouble: Trouble) -> None:
        """Count and log a trouble."""
        self._runtime.fleet.report(self._source, trouble.reason, lost=trouble.lost, redelivered=trouble.redelivered)
        key = (self._source, trouble.reason)  # details name offsets: there is no end of them
        self._runtime.log_seldom(logging.WARNING, key, "source %s: %s", self._source, trouble.detail)

    def _count(self, chunk: Chunk, decoded: Decoded) -> Receipt:
        runtime = self._runtime
        dropped = runtime.fleet.observe(decoded, time.time()).total()
        if chunk.position:
            runtime.counted(self._source, chunk.partition, chunk.position)
        for reject in decoded.rejects:
            key = (self._source, reject.reason)
            said = (self._source, reject.reason, reject.detail)
            runtime.log_seldom(logging.WARNING, key, "source %s: event rejected, %s: %s", *said)
        return Receipt(decoded.events - len(decoded.rejects) - dropped, decoded.rejects, dropped)

    def _count_together(self) -> None:
        """Count what waits, up to FEW callers at a time so that the loop is not held."""
        waiting, self._together = self._together[:FEW], self._together[FEW:]
        if self._together:
            asyncio.get_running_loop().call_soon(self._count_together)
        try:
            receipts = self._receipts([chunk for chunk, _ in waiting])
        except Exception as error:  # noqa: BLE001 - belongs to those who wait for it
            for _, counted in waiting:
                if not counted.done():
                    counted.set_exception(error)
            return
        for (_, counted), receipt in zip(waiting, receipts, strict=True):
            if not counted.done():  # else its caller has gone
                counted.set_result(receipt)

    def _receipts(self, chunks: Sequence[Messages]) -> list[Receipt]:
        if len(chunks) > 1:
            payloads = [payload for chunk in chunks for payload in chunk.payloads]
            times = [chunk.time_of(place) for chunk in chunks for place in range(len(chunk.payloads))]
            joined = Messages(chunks[0].partition, payloads, times)
            decoded = self._codec.decode(joined)
            if self._runtime.fleet.admits(decoded):
                self._count(joined, decoded)
                return [Receipt(len(chunk.payloads), (), 0) for chunk in chunks]
        return [self._count(chunk, self._codec.decode(chunk)) for chunk in chunks]
