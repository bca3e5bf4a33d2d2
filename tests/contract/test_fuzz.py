"""100,000 seeded bad records through HTTP, JSON lines and CSV.

Nothing raises or hangs, everything is accounted for once, and the good records among them count as if they were alone.
"""

import asyncio
import gzip
import itertools
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.app.rendering import Renderer
from exporter.catalog import metrics, thresholds
from exporter.ingest.file import FileSource
from exporter.ingest.http import HttpSource
from exporter.ingest.native import NativeCodec
from exporter.ingest.source import Chunk, Codec, Messages, Receipt
from exporter.ingest.tables import TableCodec
from exporter.monitor.events import DROP_REASONS, REJECT_REASONS
from exporter.monitor.fleet import Fleet
from exporter.monitor.reference import Columns
from exporter.monitor.settings import ModelSettings
from tests.app.fakes import FakeSurroundings, settle
from tests.builders import COLOURS, NOW, a_reference, exposed, view

SEED = 20_261_123
RECORDS = 100_000

GOOD, TARGET = "good", "target"
"""Bad records are made of events of the second model, so that whatever is left of them is no event of the first."""


def a_fleet(*models: str, **settings: Any) -> Fleet:
    return Fleet(
        [ModelSettings(model, version="1", min_samples=100, **settings) for model in models],
        {model: [a_reference(rows=500, model=model)] for model in models},
    )


def an_event(rng: random.Random, model: str) -> dict[str, Any]:
    return {
        "model": model,
        "version": "1",
        "id": f"r{rng.random()}",
        "timestamp": NOW - rng.random(),
        "features": {"x": rng.gauss(0, 1), "colour": rng.choice(COLOURS)},
        "prediction": rng.choice("01"),
        "score": rng.random(),
        "latency_seconds": rng.random() / 10,
        "error": "timeout" if rng.random() < 0.1 else None,
        "tags": {"region": "eu"},
    }


# ---- bad records -----------------------------------------------------------------------------------------------------

NUMBERS = (b"1e999", b"-1e999", b"9" * 400, b"-" + b"9" * 5000, b"1e-999", b"18446744073709551616", b"-0", b"01")
TOKENS = (b"NaN", b"Infinity", b"-Infinity", b"nan", b"undefined", b"None")
SURROGATES = (b'"\\ud800"', b'"\\udfff\\ud800"', b'"\xed\xa0\x80"', b'"a\\udc00"')
NULLS = (b"\x00", b'"\\u0000"', b'"a\x00b"')
NOT_UTF8 = (b'"\xff"', b'"\xc3("', b"\xfe\xff", b'"\xe2\x82"')
LONG = b'"%s"' % (b"z" * 200)
OTHER_TYPES = (b"null", b"true", b"[]", b"{}", b'""', b'"text"', b"3", b'"3"', b"[[1]]", b'{"x":{"y":[]}}', LONG)
TIMES = (
    *(b"0", b"-1", b"1", b"1e11", b"1e18", b"1e308", b"253402300799"),
    *(b"%f" % time for time in (NOW + 1e6, NOW * 1000 + 1e9, NOW - 3e7)),
    *(b'"2026-13-01"', b'"yesterday"', b'"9999-12-31T23:59:59Z"', b'"1969-12-31T23:59:59Z"'),
    *(b'"2026-11-23 08:15:00"', b'"0001-01-01"', b'""'),
)
VALUES = (*NUMBERS, *TOKENS, *SURROGATES, *NULLS, *NOT_UTF8, *OTHER_TYPES)
BALANCED = tuple(value for value in VALUES if value not in NULLS[:1] + NOT_UTF8[2:3])
"""Those that may stand between the commas of an array."""


def with_value(rng: random.Random, values: Sequence[bytes]) -> bytes:
    """An event with one of its values, at any depth, replaced by another text."""
    event = an_event(rng, TARGET)
    holder = event["features"] if rng.random() < 0.4 else event
    holder[rng.choice(list(holder))] = "\0"
    return json.dumps(event).encode().replace(b'"\\u0000"', rng.choice(values), 1)


def wrong_value(rng: random.Random) -> bytes:
    return with_value(rng, BALANCED)


def a_time(rng: random.Random) -> bytes:
    event = an_event(rng, TARGET) | {"timestamp": "\0"}
    return json.dumps(event).encode().replace(b'"\\u0000"', rng.choice(TIMES), 1)


def nested(rng: random.Random) -> bytes:
    depth = rng.choice((10, 200, 900, 2000)) if rng.random() < 0.99 else 100_000
    opening, closing = rng.choice(((b"[", b"]"), (b'{"x":', b"}")))
    return with_value(rng, (opening * depth + b"1" + closing * depth,))


def twice(rng: random.Random) -> bytes:
    first, second = json.dumps(an_event(rng, TARGET)), wrong_value(rng)
    return first[:-1].encode() + b"," + second[1:]


def a_name(rng: random.Random) -> bytes:
    """An event of a model, a version, features and categories that nobody has configured."""
    random_text = "".join(rng.choices('abcé\U0001f600"\\\n\u202e{}<>', k=rng.choice((1, 5, 60, 300))))
    event = an_event(rng, random_text if rng.random() < 0.5 else TARGET)
    event["version"] = rng.choice((random_text, rng.random(), rng.getrandbits(70), "2"))
    event["features"] = {random_text: 1, "x": 1, "colour": random_text}
    event["error"] = random_text
    return json.dumps(event).encode()


def no_prediction(rng: random.Random) -> bytes:
    event = an_event(rng, TARGET)
    kept = rng.sample(sorted(event), rng.randrange(len(event)))
    return json.dumps({name: event[name] for name in kept} | rng.choice(({}, {"label": 1}))).encode()


def no_event(rng: random.Random) -> bytes:
    return rng.choice(BALANCED)


def truncated(rng: random.Random) -> bytes:
    event = json.dumps(an_event(rng, TARGET)).encode()
    return event[: rng.randrange(1, len(event))]


def mutated(rng: random.Random) -> bytes:
    event = bytearray(json.dumps(an_event(rng, TARGET)).encode())
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(event))
        event[place : place + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
    return bytes(event)


def raw_value(rng: random.Random) -> bytes:
    return with_value(rng, VALUES)


def noise(rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(1, 60))


def shuffled(rng: random.Random) -> bytes:
    """The characters that JSON is made of, in no order."""
    return bytes(rng.choices(b'{}[]",:\\0123eE+-.tfnu \x00\xff', k=rng.randrange(1, 60)))


Maker = Callable[[random.Random], bytes]
WHOLE: tuple[Maker, ...] = (wrong_value, a_time, nested, twice, a_name, no_prediction, no_event)
BROKEN: tuple[Maker, ...] = (truncated, mutated, raw_value, noise, shuffled)


def a_line(rng: random.Random, makers: Sequence[Maker] = WHOLE + BROKEN) -> bytes:
    """A bad record that is one line, and is not blank."""
    line = rng.choice(makers)(rng).replace(b"\n", b"\\n").strip()
    return line or b"?"


# ---- the product, and the account it must give -----------------------------------------------------------------------


@dataclass
class Account:
    """Receives chunks as the runtime does, and holds the product to its word for each of them."""

    fleet: Fleet
    codec: Codec
    source: str
    events: int = 0
    accepted: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    async def __call__(self, chunk: Chunk) -> Receipt:
        decoded = self.codec.decode(chunk)
        size = len(chunk.payloads) if isinstance(chunk, Messages) else chunk.rows + len(chunk.rejects)
        rows, dropped = sum(map(len, decoded.batches)), sum(decoded.dropped.values())
        assert size == decoded.events == rows + len(decoded.rejects) + dropped
        assert all(0 <= reject.index < size for reject in decoded.rejects)
        if isinstance(chunk, Messages):
            assert len({reject.index for reject in decoded.rejects}) == len(decoded.rejects)
        dropped = self.fleet.observe(decoded, NOW).total()
        self.events += size
        self.accepted += size - len(decoded.rejects) - dropped
        self.reasons.update(reject.reason for reject in decoded.rejects)
        return Receipt(size - len(decoded.rejects) - dropped, decoded.rejects, dropped)

    def check(self, events: int) -> None:
        """The feed says what happened: every event once, every reject with a reason of the list."""
        feed = self.fleet.tick(NOW).feeds[self.source]
        assert feed.events == self.events == events
        assert feed.rejected == self.reasons
        assert set(feed.rejected) <= set(REJECT_REASONS)
        assert set(feed.dropped) <= set(DROP_REASONS)
        assert self.accepted + sum(feed.rejected.values()) + sum(feed.dropped.values()) == events


def counted_alone(events: Sequence[bytes], source: str) -> dict[str, float]:
    """What a fleet exposes of the good model when it sees nothing but these events."""
    fleet = a_fleet(GOOD, TARGET)
    asyncio.run(Account(fleet, NativeCodec(fleet, source), source)(Messages("p", events, NOW)))
    return of_good(fleet)


def of_good(fleet: Fleet) -> dict[str, float]:
    return {series: value for series, value in exposed(fleet.tick(NOW)).items() if f'model="{GOOD}"' in series}


def check_rendering(fleet: Fleet) -> None:
    """The exposition is whole, within its budget, and read back by the parsers of both formats; the status is JSON."""
    snapshot = fleet.tick(NOW)
    rendered = Renderer("test", started=NOW, tick_s=5).render(snapshot, {}, None, [])
    for families in (parse_text(rendered.text.plain.decode()), parse_openmetrics(rendered.openmetrics.plain.decode())):
        assert sum(len(family.samples) for family in families) > 100
    status = json.loads(rendered.status.plain)
    assert {model["model"] for model in status["models"]} >= {GOOD, TARGET}
    assert len(exposed(snapshot)) <= thresholds.SERIES_LIMIT.count


def lines_of_good(events: Sequence[bytes], lines: list[bytes], rng: random.Random) -> list[bytes]:
    """Lines in random order; the last is good, so that no lot of them looks like one array."""
    mixed = [*events[1:], *lines]
    rng.shuffle(mixed)
    return [*mixed, events[0]]


async def stream(rng: random.Random, body: bytes) -> AsyncIterator[bytes]:
    cut = rng.randrange(len(body) + 1)
    yield body[:cut]
    yield body[cut:]


def bodies(rng: random.Random, records: int) -> Iterator[tuple[bytes, int | None, list[bytes]]]:
    """Request bodies with `records` bad ones among them, how many events each holds (None: it is for the product to
    say), and the good ones."""
    while records > 0:
        size = min(rng.choice((1, 3, 30, 60, 300)), records)
        records -= size
        good = [json.dumps(an_event(rng, GOOD)).encode() for _ in range(rng.randrange(1, 2 + size // 4))]
        framing = rng.random()
        if framing < 0.6:
            lines = lines_of_good(good, [a_line(rng) for _ in range(size)], rng)
            yield rng.choice((b"\n", b"\r\n", b"\n\n")).join(lines), len(lines), good
        elif framing < 0.9:
            elements = [*good, *(a_line(rng, WHOLE) for _ in range(size))]
            rng.shuffle(elements)
            yield b"[" + rng.choice((b",", b" ,\n")).join(elements) + b"]", len(elements), good
        else:
            for _ in range(size):
                yield rng.choice(WHOLE + BROKEN)(rng), None, []


@pytest.fixture(autouse=True)
def _never_hangs() -> Iterator[None]:
    import signal

    def hang(*_: object) -> None:
        raise TimeoutError("the fuzz hangs")

    previous = signal.signal(signal.SIGALRM, hang)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


def test_posted_bodies():
    rng = random.Random(SEED)
    fleet = a_fleet(GOOD, TARGET)
    account = Account(fleet, NativeCodec(fleet, "http"), "http")
    good: list[bytes] = []
    events = 0

    async def posting() -> None:
        nonlocal events
        source = HttpSource("http", FakeSurroundings(now=NOW))
        running = asyncio.create_task(source.run(account, {}))
        await settle()
        for body, size, neighbours in bodies(rng, RECORDS * 6 // 10):
            before = account.events
            encoding = rng.choice(("", "", "", "gzip"))
            answer = await source.receive(stream(rng, gzip.compress(body, 1) if encoding else body), encoding)
            assert answer.status == 202
            counts = [answer.body[name] for name in ("accepted", "rejected", "dropped")]
            assert sum(counts) == account.events - before
            assert size is None or sum(counts) == size
            assert counts[0] >= len(neighbours)
            events += sum(counts)
            good.extend(neighbours)
        running.cancel()

    asyncio.run(posting())
    account.check(events)
    assert of_good(fleet) == counted_alone(good, "http")
    assert of_good(fleet)[f'ml_predictions_total{{model="{GOOD}",version="1"}}'] == len(good)
    assert {"malformed_json", "invalid_utf8", "not_an_object", "too_deep", "invalid_model"} <= set(account.reasons)
    check_rendering(fleet)
    known = {(one.settings.name, one.version) for one in fleet.tick(NOW).models}
    assert len({name for name, _ in known}) <= thresholds.MODEL_LIMIT.count + 2
    assert sum(name == TARGET for name, _ in known) <= thresholds.VERSION_LIMIT.count
    assert {(GOOD, "1"), (TARGET, "1")} <= known


def test_lines_of_a_file(tmp_path: Path):
    rng = random.Random(SEED + 1)
    path = tmp_path / "events.jsonl"
    good = [json.dumps(an_event(rng, GOOD)).encode() for _ in range(5000)]
    lines = lines_of_good(good, [a_line(rng) for _ in range(RECORDS * 2 // 10)], rng)
    path.write_bytes(b"\n".join(lines))
    fleet = a_fleet(GOOD, TARGET)
    account = Account(fleet, NativeCodec(fleet, "file"), "file")
    asyncio.run(FileSource("file", path, "jsonl", FakeSurroundings(now=NOW)).run(account, {}))
    account.check(len(lines))
    assert of_good(fleet) == counted_alone(good, "file")
    check_rendering(fleet)


def test_rows_of_a_table(tmp_path: Path):
    """Good rows are those of a known colour; bad ones never are."""
    rng = random.Random(SEED + 2)
    cells = ("", "1", "-2.5", "1e999", "nan", "NaN", "text", "\0", '"', '"a', 'a"b', "\r", "9" * 400, "é", "True")

    def bad(rng: random.Random) -> bytes:
        if rng.random() < 0.2:
            return rng.randbytes(rng.randrange(1, 80)).replace(b"\n", b"").strip() or b"?"
        row = [rng.choice((*cells, "purple")) for _ in range(rng.choice((1, 4, 5, 5, 5, 5, 6)))]
        return ",".join(row).encode().strip() or b"?"

    colours = [rng.choice(COLOURS) for _ in range(5000)]
    good = [f"{rng.gauss(0, 1)},{colour},1,0.5,{NOW}".encode() for colour in colours]
    lines = lines_of_good(good, [bad(rng) for _ in range(RECORDS * 2 // 10)], rng)
    path = tmp_path / "rows.csv"
    path.write_bytes(b"x,colour,y,p,at\n" + b"\n".join(lines))
    fleet = a_fleet(TARGET)
    columns = Columns(prediction="y", scores={"score": "p"}, timestamp="at")
    account = Account(fleet, TableCodec(fleet, "file", TARGET, "1", columns), "file")
    asyncio.run(FileSource("file", path, "csv", FakeSurroundings(now=NOW)).run(account, {}))
    account.check(len(lines))
    assert set(account.reasons) == {"malformed_row", "invalid_timestamp"}
    shown = exposed(fleet.tick(NOW))
    for colour, count in Counter(colours).items():
        name, label = metrics.BIN_OBSERVATIONS.name, f'bin="={colour}"'
        assert [shown[one] for one in shown if one.startswith(name) and label in one] == [count]
    Renderer("test", started=NOW, tick_s=5).render(fleet.tick(NOW), {}, None, [])


def test_texts_of_ten_megabytes():
    """Too large for a request by default; where larger bodies are welcome the event itself is too large."""
    good = json.dumps(an_event(random.Random(SEED), GOOD)).encode()
    huge = good.replace(b'"1"', b'"' + b"1" * 10_000_000 + b'"', 1)
    fleet = a_fleet(GOOD, TARGET)
    account = Account(fleet, NativeCodec(fleet, "http"), "http")

    async def posting(limit: int, body: bytes) -> Any:
        source = HttpSource("http", FakeSurroundings(now=NOW), body_limit_bytes=limit)
        running = asyncio.create_task(source.run(account, {}))
        await settle()
        answer = await source.receive(stream(random.Random(SEED), body))
        running.cancel()
        return answer

    body = b"\n".join((good, huge, good))
    assert asyncio.run(posting(thresholds.BODY_LIMIT_BYTES.count, body)).status == 413
    assert account.events == 0
    answer = asyncio.run(posting(2**26, body))
    assert (answer.body["accepted"], [error["index"] for error in answer.body["errors"]]) == (2, [1])
    account.check(3)
    assert account.reasons == {"too_large": 1}


def test_times_of_another_age_do_not_wedge_the_window():
    """Whatever an event says of its time, the next ones are in the window."""
    rng = random.Random(SEED)
    fleet = a_fleet(TARGET)
    account = Account(fleet, NativeCodec(fleet, "http"), "http")
    asyncio.run(account(Messages("p", [a_time(rng) for _ in range(2000)], NOW)))
    late = fleet.tick(NOW).feeds["http"].late
    assert late["future"] > 0
    assert late["late"] > 0
    events = [json.dumps(an_event(rng, TARGET)).encode() for _ in range(200)]
    asyncio.run(account(Messages("p", events, NOW)))
    model = view(fleet.tick(NOW), model=TARGET)
    assert model.window is not None
    assert NOW <= model.window[1] <= NOW + 120
    assert model.traffic_readout.predictions >= 200
    assert model.state in ("ok", "drifting")
    assert model.drift_readout is not None
    assert np.isfinite(model.drift_readout.psi).all()


def test_names_cannot_grow_the_exposition_nor_displace_a_configured_model():
    fleet = a_fleet(GOOD)
    account = Account(fleet, NativeCodec(fleet, "http"), "http")
    names = (f"model-{number}" for number in itertools.count())

    def an_unknown(number: int) -> bytes:
        model, version = (GOOD, f"v{number}") if number % 2 else (next(names), "1")
        return json.dumps({"model": model, "version": version, "features": {f"f{number}": f"c{number}"}}).encode()

    asyncio.run(account(Messages("p", [an_unknown(number) for number in range(200)], NOW)))
    size = len(exposed(fleet.tick(NOW)))
    before = of_good(fleet)
    asyncio.run(account(Messages("p", [an_unknown(number) for number in range(200, 5000)], NOW)))
    assert len(exposed(fleet.tick(NOW))) == size <= thresholds.SERIES_LIMIT.count
    assert of_good(fleet).keys() == before.keys()
    dropped = fleet.tick(NOW).feeds["http"].dropped
    assert dropped["model_limit"] == 2500 - thresholds.MODEL_LIMIT.count
    assert dropped["version_limit"] > 2000
    event = json.dumps(an_event(random.Random(SEED), GOOD)).encode()
    asyncio.run(account(Messages("p", [event], NOW)))
    predictions = metrics.PREDICTIONS.series(model=GOOD, version="1").text
    assert of_good(fleet)[predictions] == before[predictions] + 1
