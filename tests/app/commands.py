"""The real command, and small data for it."""

import csv
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
"""Where the public data sets lie beside a checkout."""

HEADER = ("id", "x", "ties", "same", "colour", "y", "p", "at", "year")
COLUMNS = ("--prediction", "y", "--score", "p", "--timestamp", "at", "--id", "id", "--exclude", "year")
HOUR = 3600


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str


def run(*arguments: object, cwd: Path = ROOT, timeout: float = 60) -> Ended:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "exporter", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={"PYTHONPATH": str(ROOT), "COLUMNS": "150"},
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def rows(count: int, seed: int, *, drifted: bool = False, start: float = 1_600_000_000) -> Iterator[Sequence[object]]:
    """An applicant a second of a small model; drifted ones have another x and colour."""
    rng = random.Random(seed)
    for number in range(count):
        x = rng.gauss(1.0 if drifted else 0.0, 1)
        colour = rng.choices(["red", "green", "blue"], [1, 1, 8] if drifted else [5, 3, 2])[0]
        year = 2001 if drifted else 2000
        yield number, x, rng.randrange(40), 1, colour, rng.randrange(2), round(rng.random(), 3), start + number, year


def write_csv(path: Path, *parts: Iterator[Sequence[object]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for part in parts:
            writer.writerows(part)
    return path
