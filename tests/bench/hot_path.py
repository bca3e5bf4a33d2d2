"""Events as JSON bytes to windowed counters, in memory, on one core: rates, their ratios, and the longest single step.

Times are CPU times of this process. Every round has a fleet of its own, which is fed for a while before time is taken,
and ends with a tick that counts what waits. Messages are split off their body just before they are decoded, outside of
the time taken: they are in the cache then, as messages are that a socket or a file has just brought. Left lying since
they were generated, they would cost 1.7 us each to fetch from memory.
"""

import gc
import gzip
import json
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from time import process_time

from exporter.app.rendering import Renderer
from exporter.ingest.http import ELSEWHERE_BYTES, EVENTS_AT_ONCE, gunzip, split
from exporter.ingest.source import Messages
from exporter.monitor.reference import Reference
from tests.bench.figures import Figure, cpu_s, interleaved, paired, ratios
from tests.bench.workloads import VERSION, W1, W2, Pipeline, Workload, pipeline, without_quality

STEP_BUDGET_MS = 5.0
WARM_UP = 10
"""Bodies of every stream that come before time is taken."""
SEALED_S = 180
"""Seconds after which nothing is expected for a pane any more: of a window of an hour, three panes."""
PANES_WITHIN = 8192
"""Events among which 60 panes are mixed."""
DECODED_AT_ONCE = 256
"""Decoded events alive at once when decoding alone: few enough to stay in the cache, as the codec keeps it."""
QUIET_MS = 16.5
"""The calibration on the machine that the budget was set on, when it is quiet."""


def rates(*, quick: bool) -> list[Figure]:
    """Events a second and core, and what mixing costs."""
    count, rounds = (8000, 3) if quick else (40_000, 9)
    generated = count + WARM_UP * EVENTS_AT_ONCE
    contenders: dict[str, Callable[[], float]] = {}
    for workload in (W1, W2):
        bodies = bodies_of(workload.events(generated))
        references = {workload.model: [workload.reference()]}
        contenders[f"{workload.name} counted"] = counting(references, bodies)
        contenders[f"{workload.name} decoded"] = decoding(references, bodies)

    start = time.time() - 86_400
    pane_s = 60 * 60 / PANES_WITHIN
    panes = W1.events(generated, times=[start + i * pane_s for i in range(generated)])
    contenders["60 panes"] = counting({W1.model: [W1.reference()]}, bodies_of(panes))
    pairs = [(f"model_{i % 5}", str(i // 5)) for i in range(10)]
    by_model = {model: [W1.reference(model, version) for version in ("0", "1")] for model, _ in pairs[:5]}
    contenders["5 models x 2 versions"] = counting(by_model, bodies_of(mixed(pairs, generated)))
    pairs = [(f"model_{i}", VERSION) for i in range(10)]
    by_model = {model: [W1.reference(model)] for model, _ in pairs}
    contenders["10 models"] = counting(by_model, bodies_of(mixed(pairs, generated)))
    contenders["calibration"] = lambda: cpu_s(calibrate)

    found = interleaved(contenders, rounds)
    figures = [
        Figure(
            "calibration: json.loads of 2,000 W1 events",
            1000 * statistics.median(found["calibration"]),
            "ms",
            note=f"best {1000 * min(found['calibration']):.1f}; quiet machine {QUIET_MS:g}",
        )
    ]
    for workload, budget in ((W1, 300_000), (W2, 700_000)):
        counted, decoded = found[f"{workload.name} counted"], found[f"{workload.name} decoded"]
        figures += [
            Figure(
                f"{workload.name} JSON -> windowed counters",
                count / statistics.median(counted),
                "events/s",
                budget,
                note=f"best {count / min(counted):,.0f}; {mean_size(workload):.0f} bytes an event",
            ),
            Figure(
                f"{workload.name} decoding alone, same decoder",
                count / statistics.median(decoded),
                "events/s",
                note=f"best {count / min(decoded):,.0f}",
            ),
            Figure(
                f"{workload.name} counted / decoding alone",
                paired(decoded, counted),
                budget=0.45 if workload is W1 else None,
                note="median of rounds",
            ),
        ]
    figures += [
        Figure(
            f"W1 {name}, mixed / one",
            paired(found["W1 counted"], found[name]),
            budget=0.6,
            note=f"{count / statistics.median(found[name]):,.0f} events/s",
        )
        for name in ("60 panes", "5 models x 2 versions", "10 models")
    ]
    return figures


def quality(*, quick: bool) -> list[Figure]:
    """What readiness for labels costs events that have none: estimates, a column, the archive of sealed panes."""
    count, rounds = (8000, 3) if quick else (16_000, 41)
    figures = []
    for workload in (W1, W2):
        references = {workload.model: [workload.reference()]}
        # What warms up lies in a pane that is sealed by the last tick.
        start, before = time.time() - 86_400, WARM_UP * EVENTS_AT_ONCE
        times = [*[start] * before, *[start + SEALED_S] * count]
        bodies = bodies_of(workload.events(before + count, times=times))
        contenders = {
            "everything": counting(references, bodies),
            "alone": counting(references, bodies, without_quality),
        }
        found = interleaved(contenders, rounds)
        each = ratios(found["everything"], found["alone"])
        below, median, above = statistics.quantiles(each, n=4)
        figures.append(
            Figure(
                f"{workload.name} cost an event without label, everything / traffic and drift",
                median,
                budget=1.15,
                sense="at most",
                note=f"median of {rounds} rounds, quartiles {below:.3f} and {above:.3f}",
            )
        )
    return figures


def window_length(*, quick: bool) -> list[Figure]:
    """Cost an event with long windows and late in a long stream; 1,000 come every 12 minutes, so panes are evicted."""
    chunks, rounds = (160, 3) if quick else (480, 9)
    bodies = bodies_of(W1.events(20_000))
    references = {W1.model: [W1.reference()]}

    def stream(window_s: float) -> tuple[float, float]:
        piped = warm(pipeline(references, window_s=window_s, event_time=False), bodies[0])
        now = 1.7e9
        spent = []
        settle()
        for number in range(chunks):
            now += 720.0
            chunk = Messages("p", bodies[number % len(bodies)].split(b"\n"), now)
            began = process_time()
            piped.fleet.observe(piped.codec.decode(chunk), now)
            spent.append(process_time() - began)
            del chunk
        spent.append(cpu_s(lambda: piped.fleet.tick(now)))
        quarter = chunks // 4
        return sum(spent), sum(spent[-quarter:]) / sum(spent[:quarter])

    ages: list[float] = []

    def cost(window_s: float) -> float:
        total, age = stream(window_s)
        if window_s > 3600:
            ages.append(age)
        return total

    found = interleaved({"1h": lambda: cost(3600.0), "24h": lambda: cost(86_400.0)}, rounds)
    hours = chunks * 720 / 3600
    micros = 1e6 * statistics.median(found["1h"]) / chunks / EVENTS_AT_ONCE
    return [
        Figure(
            "cost an event, window 24 h / 1 h",
            paired(found["24h"], found["1h"]),
            budget=1.05,
            sense="at most",
            note=f"stream of {hours:.0f} h; with 1 h {micros:.2f} us an event",
        ),
        Figure(
            "cost an event, last quarter / first",
            statistics.median(ages),
            budget=1.05,
            sense="at most",
            note="24 h window",
        ),
    ]


def steps(*, quick: bool) -> list[Figure]:
    """The longest that the event loop is held by one step."""
    repeats = 40 if quick else 200
    events = W1.events(10_000)
    now = time.time()
    bodies = bodies_of(events)
    piped = warm(pipeline({W1.model: [W1.reference()]}), bodies[0])

    def observe(number: int) -> None:
        chunk = Messages("p", bodies[number % len(bodies)].split(b"\n"), now)
        piped.fleet.observe(piped.codec.decode(chunk), now)

    def wait() -> None:
        piped.fleet.tick(now)
        for number in range(8):
            observe(number)

    # Python's own encoder writes NaN, which is no JSON.
    tokens = [event.replace(b'"n00":', b'"n00":NaN,"x":') for event in events[:EVENTS_AT_ONCE]]
    with_nan = Messages("p", tokens, now)
    # Larger bodies are unpacked and split on another thread.
    largest = events[: ELSEWHERE_BYTES // len(events[0])]
    body, array = b"\n".join(largest), b"[" + b",".join(largest) + b"]"
    nan_array = b"[" + tokens[0] + b"," + array[1:]
    packed = gzip.compress(body, 6)
    size = f"{ELSEWHERE_BYTES / 1024:.0f} KiB"
    figures = [
        step(f"decode and observe {EVENTS_AT_ONCE} events", held(observe, repeats)),
        step("tick after thousands of waiting events", held(lambda _: piped.fleet.tick(now), repeats // 5, wait)),
        step(f"decode {EVENTS_AT_ONCE} events with NaN tokens", held(lambda _: piped.codec.decode(with_nan), 5)),
        step(f"split a body of {size}", held(lambda _: split(body), 5)),
        step(f"split a JSON array of {size}", held(lambda _: split(array), 5)),
        step(f"split an array of {size}, a NaN token in it", held(lambda _: split(nan_array), 3)),
        step(f"unpack gzip to {size}", held(lambda _: gunzip(packed, len(body)), 5)),
    ]
    renderer = Renderer("bench", started=now, tick_s=5)
    series = len(piped.fleet.tick(now).exposed[0])
    rendering = held(lambda _: renderer.render(piped.fleet.tick(now), {}, None, []), 5)
    figures.append(
        Figure(
            "evaluate and render one model (worker thread)",
            1000 * statistics.median(rendering),
            "ms",
            note=f"{series:,} series, both formats, page and gzip",
        )
    )
    return figures


def counting(
    references: Mapping[str, Sequence[Reference]],
    bodies: Sequence[bytes],
    make: Callable[[Mapping[str, Sequence[Reference]]], Pipeline] = pipeline,
) -> Callable[[], float]:
    """A round: CPU seconds to decode and count the events of all bodies but the first `WARM_UP`."""

    def once() -> float:
        piped = make(references)
        now = time.time()
        for body in bodies[:WARM_UP]:
            piped.fleet.observe(piped.codec.decode(Messages("p", body.split(b"\n"), now)), now)
        piped.fleet.tick(now)
        spent = 0.0
        settle()
        for body in bodies[WARM_UP:]:
            chunk = Messages("p", body.split(b"\n"), now)
            began = process_time()
            piped.fleet.observe(piped.codec.decode(chunk), now)
            spent += process_time() - began
            del chunk
        return spent + cpu_s(lambda: piped.fleet.tick(now))

    return once


def decoding(references: Mapping[str, Sequence[Reference]], bodies: Sequence[bytes]) -> Callable[[], float]:
    """A round: CPU seconds of the codec's own decoder, its results thrown away."""

    def once() -> float:
        decode = warm(pipeline(references), bodies[0]).codec._union
        assert decode is not None
        spent = 0.0
        settle()
        for body in bodies[WARM_UP:]:
            payloads = body.split(b"\n")
            began = process_time()
            for start in range(0, len(payloads), DECODED_AT_ONCE):
                list(map(decode, payloads[start : start + DECODED_AT_ONCE]))
            spent += process_time() - began
            del payloads
        return spent

    return once


def warm(piped: Pipeline, body: bytes) -> Pipeline:
    """Decode a little, count nothing: the codec prepares itself with the first chunk."""
    piped.codec.decode(Messages("p", body.split(b"\n")[:DECODED_AT_ONCE], time.time()))
    return piped


def settle() -> None:
    """As in the running exporter: what start-up made is not looked at by the garbage collector again."""
    gc.collect()
    gc.freeze()


def bodies_of(events: Sequence[bytes]) -> list[bytes]:
    """Events as they arrive, as many together as are decoded before other work gets its turn."""
    return [b"\n".join(events[i : i + EVENTS_AT_ONCE]) for i in range(0, len(events), EVENTS_AT_ONCE)]


def mixed(pairs: Sequence[tuple[str, str]], count: int) -> list[bytes]:
    """W1 events of models and versions at random."""
    rng = random.Random(5)
    return W1.events(count, names=[rng.choice(pairs) for _ in range(count)])


def mean_size(workload: Workload) -> float:
    """Bytes an event."""
    return statistics.mean(map(len, workload.events(1000)))


def held(work: Callable[[int], object], repeats: int, prepare: Callable[[], object] = lambda: None) -> list[float]:
    """CPU seconds of each repeat, without its preparation."""
    spent = []
    for number in range(repeats):
        prepare()
        began = process_time()
        work(number)
        spent.append(process_time() - began)
    return spent


def step(name: str, spent: Sequence[float]) -> Figure:
    """The longest of some steps, beside the budget of the event loop."""
    return Figure(
        f"step: {name}",
        1000 * max(spent),
        "ms",
        STEP_BUDGET_MS,
        "at most",
        f"longest of {len(spent)}; median {1000 * statistics.median(spent):.2f}",
    )


_CALIBRATION = W1.events(2000)


def calibrate() -> None:
    """Work that has nothing to do with the exporter: tells a slow machine from slow code."""
    for event in _CALIBRATION:
        json.loads(event)
