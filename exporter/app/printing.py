"""How every command ends and what it shows on the way: exit codes, JSON, progress."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
import msgspec

GOOD, FINDING, BAD_INPUT, UNAVAILABLE = 0, 1, 2, 3


@contextmanager
def progress_bar(what: str, unit: str = "rows", total: int | None = None) -> Iterator[Callable[[int], None]]:
    """How many are done so far, of how many if that is known; shown on a terminal only."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (
        SpinnerColumn(),
        TextColumn(what),
        BarColumn(),
        TextColumn(f"{{task.completed:,}} {unit}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)


def print_json(value: Any) -> None:
    """A value as JSON that people can read; NaN is null."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=1).decode())
