"""What a benchmark found: a figure beside its budget. Nothing here is asserted, everything is printed."""

import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import process_time
from typing import Literal

from rich.console import Console
from rich.table import Table

CORES = sorted(os.sched_getaffinity(0))
MEASURED = {CORES[-1]}
"""The core that what is measured has to itself."""
OTHERS = set(CORES[:-1]) or MEASURED
"""The cores of whatever feeds it or asks it."""

Sense = Literal["at least", "at most"]


@dataclass(frozen=True)
class Figure:
    """One line of the table. Without a budget it is there for information."""

    name: str
    measured: float
    unit: str = ""
    budget: float | None = None
    sense: Sense = "at least"
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether it is as good as asked; None where nothing was."""
        if self.budget is None:
            return None
        return self.measured >= self.budget if self.sense == "at least" else self.measured <= self.budget

    @property
    def verdict(self) -> str:
        """What `met` says, and by how much: above 1 is better than asked."""
        if self.met is None:
            return ""
        said = "ok" if self.met else "MISSED"
        if self.measured <= 0 or not self.budget:
            return said
        return f"{said} {self.measured / self.budget if self.sense == 'at least' else self.budget / self.measured:.2f}x"


def show(title: str, figures: Sequence[Figure]) -> None:
    """Print figures as one table."""
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    table.add_column("figure")
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("budget", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("note")
    for figure in figures:
        budget = (
            "" if figure.budget is None else f"{'>=' if figure.sense == 'at least' else '<='} {text(figure.budget)}"
        )
        measured = f"{text(figure.measured)} {figure.unit}".strip()
        table.add_row(figure.name, measured, budget, figure.verdict, figure.note)
    Console(width=150, highlight=False).print(table)


def text(value: float) -> str:
    """Four digits are more than a benchmark knows."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def interleaved(contenders: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Results of each contender, a round of all after the other: what the machine does meanwhile hits all alike."""
    results: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        # Every second round runs backwards: to come first is no advantage then.
        for name in list(contenders)[:: 1 if number % 2 == 0 else -1]:
            results[name].append(contenders[name]())
    return results


def cpu_s(work: Callable[[], object]) -> float:
    """CPU seconds of this process for some work: what others run meanwhile does not count."""
    started = process_time()
    work()
    return process_time() - started


def paired(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Median of the ratios of the same rounds."""
    return statistics.median(ratios(numerators, denominators))


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """The ratio of each round."""
    return [a / b for a, b in zip(numerators, denominators, strict=True)]


@contextmanager
def on(cores: set[int]) -> Iterator[None]:
    """Stay on these cores, with whatever is started meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
