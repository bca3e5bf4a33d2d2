"""`python -m tests.bench.quarters`: false pages of whole quarters of healthy traffic, beside their budget.

Twenty models with a budget of one page a quarter, which is 8,640 windows, of 500 and of 1,000 events (tests.app.healthy
says how): 260 million events, half an hour of two cores. Exits with 1 when there were more pages than allowed.
"""

import argparse
import math
import multiprocessing
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from scipy.stats import poisson

from tests.app.healthy import FEATURES, PANES, Healthy, Seen, days
from tests.bench.figures import CORES, Figure, show

QUARTER_DAYS = 90
SAID_EVERY_DAYS = 5
OVERRUN = 0.025
"""How likely it may be that a model which uses up its budget has more pages than allowed."""


@dataclass(frozen=True)
class Part:
    """Quarters that are watched by one process, or only so many days of them."""

    healthy: Healthy
    days: int


@dataclass(frozen=True)
class Found:
    """What there was to see, and how long it took."""

    part: Part
    seen: Seen
    wall_s: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.quarters", description=__doc__)
    parser.add_argument("--quarters", default="0-19", help="their seeds, first and last")
    parser.add_argument("--n", type=int, nargs="+", default=[500, 1000], help="events a window")
    parser.add_argument("--days", type=int, default=QUARTER_DAYS, help="fewer: a part of a quarter")
    parser.add_argument("--processes", type=int, default=len(CORES))
    given = parser.parse_args()
    first, _, last = given.quarters.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    size = math.ceil(len(seeds) / max(given.processes // len(given.n), 1))
    parts = [
        Part(Healthy(n, tuple(seeds[start : start + size]), QUARTER_DAYS), given.days)
        for n in given.n
        for start in range(0, len(seeds), size)
    ]
    with multiprocessing.get_context("spawn").Pool(given.processes) as pool:
        found = list(pool.imap(watch, parts))
    figures = [figure for n in given.n for figure in judged([one for one in found if one.part.healthy.n == n])]
    title = f"\n{len(seeds)} times {given.days} days, {FEATURES} features, one page each in {QUARTER_DAYS} days"
    show(title, figures)
    sys.exit(any(figure.met is False for figure in figures))


def watch(part: Part) -> Found:
    """Let the days of a part go by, and tell now and then what was seen."""
    began = time.monotonic()
    for day, seen in enumerate(islice(days(part.healthy), part.days), 1):
        if day % SAID_EVERY_DAYS == 0 or day == part.days:
            say(part.healthy, day, seen, time.monotonic() - began)
    return Found(part, seen, time.monotonic() - began)


def say(healthy: Healthy, day: int, seen: Seen, wall_s: float) -> None:
    """A line about a part so far."""
    print(
        f"n {healthy.n}, quarters {healthy.seeds[0]}-{healthy.seeds[-1]}, day {day}: "
        f"{seen.pages.total()} pages ({seen.incidents} incidents, {seen.drifted} drifted) in "
        f"{seen.looks:,} looks at {FEATURES * len(healthy.seeds):,} features; "
        f"{seen.events:,} events each; {wall_s:.0f} s",
        flush=True,
    )


def judged(parts: Sequence[Found]) -> list[Figure]:
    """Pages of all quarters with equally many events a window."""
    pages = [one.seen.pages[place] for one in parts for place in range(len(one.part.healthy.seeds))]
    budget = len(pages) * parts[0].part.days / QUARTER_DAYS
    looks, events = (
        sum(of(one.seen) * len(one.part.healthy.seeds) for one in parts)
        for of in (lambda seen: seen.looks, lambda seen: seen.events)
    )
    wall_s = sum(one.wall_s for one in parts)
    name = f"n {parts[0].part.healthy.n}"
    return [
        Figure(
            f"{name}: pages",
            sum(pages),
            budget=float(poisson.isf(OVERRUN, budget)),
            sense="at most",
            note="by quarter " + " ".join(map(str, pages)),
        ),
        Figure(f"{name}: incidents", sum(one.seen.incidents for one in parts), note="pages with no row in common"),
        Figure(
            f"{name}: drifted",
            sum(one.seen.drifted for one in parts),
            note=f"of {looks * FEATURES:,} verdicts; the budget is {budget:.3g}",
        ),
        Figure(
            f"{name}: looks", looks, note=f"at {looks // PANES:,} windows of {FEATURES} features, {events:,} events"
        ),
        Figure(f"{name}: time", wall_s, "s", note=f"{1e6 * wall_s / looks:.0f} us a look"),
    ]


if __name__ == "__main__":
    main()
