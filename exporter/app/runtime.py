"""The running exporter: sources feed the fleet, ticks turn it into bytes, HTTP serves the bytes.

One event loop owns the fleet, so it needs no lock. A tick copies the counters on the loop (milliseconds) and evaluates,
renders and compresses them on a worker thread; what is served is always a complete rendering.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from exporter import __version__
from exporter.app.rendering import Rendered, Renderer
from exporter.ingest.source import Chunk, Codec, Receipt, Sink, Source, Unavailable
from exporter.monitor.events import Decoded
from exporter.monitor.fleet import Fleet
from exporter.monitor.learner import Learner
from exporter.monitor.reference import BadReference, Reference

logger = logging.getLogger(__name__)

MISSED_TICKS = 5
"""Ticks that may fail or hang before /healthz says so."""

LOG_EVERY_S = 60.0
"""A reason for rejecting events is logged at most this often."""

RESCAN_S = 60.0
"""How often reference files are looked for anew."""


@dataclass(frozen=True, slots=True)
class Feed:
    """A source and the codec of its messages."""

    source: Source
    codec: Codec


class Runtime:
    """Everything between configuration and HTTP."""

    def __init__(
        self,
        fleet: Fleet,
        feeds: Sequence[Feed],
        *,
        tick_s: float,
        rescan: Callable[[], dict[str, list[Reference]]] | None = None,
    ) -> None:
        """`rescan` returns the references that each model's patterns match now; it runs on a worker thread."""
        self.fleet = fleet
        self.feeds = tuple(feeds)
        self.tick_s = tick_s
        self._rescan = rescan
        self._renderer = Renderer(__version__, started=time.time(), tick_s=tick_s)
        self._last_tick = time.monotonic()
        self._logged: dict[tuple[str, str], float] = {}
        self._failed: dict[str, str] = {}
        self.rendered: Rendered = self._renderer.render(fleet.tick(time.time()), self.not_ready())

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
        async with asyncio.TaskGroup() as tasks:
            for feed in self.feeds:
                tasks.create_task(self._feed(feed))
            tasks.create_task(self._tick())
            if self._rescan is not None:
                tasks.create_task(self._look_for_references(self._rescan))

    def sink(self, feed: Feed) -> Sink:
        """Where a source's chunks go: decoded, counted, and accounted for."""

        async def sink(chunk: Chunk) -> Receipt:
            now = time.time()
            decoded = feed.codec.decode(chunk)
            dropped = self.fleet.observe(decoded, now).total()
            if decoded.rejects:
                self._log_rejects(feed.source.name, decoded)
            await asyncio.sleep(0)
            return Receipt(decoded.events - len(decoded.rejects) - dropped, decoded.rejects, dropped)

        return sink

    async def tick_once(self) -> None:
        """Make what is served current."""
        started = time.monotonic()
        for learner in self.fleet.learned():
            await self._adopt_learned(learner)
        for _ in self.fleet.settle():
            await asyncio.sleep(0)
        snapshot = self.fleet.tick(time.time())
        self.rendered = await asyncio.to_thread(self._renderer.render, snapshot, self.not_ready())
        self._last_tick = time.monotonic()
        self._renderer.ticked(self._last_tick - started, time.time())

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
            await feed.source.run(self.sink(feed), {})
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

    def _log_rejects(self, source: str, decoded: Decoded) -> None:
        now = time.monotonic()
        for reject in decoded.rejects:
            last = self._logged.get((source, reject.reason))
            if last is None or now - last >= LOG_EVERY_S:
                self._logged[source, reject.reason] = now
                logger.warning("source %s: event rejected, %s: %s", source, reject.reason, reject.detail)
