"""What every command that makes rules is told about them, in the same words: options that become one `Settings`."""

import functools
import re
from collections.abc import Callable
from typing import Any

import click

from exporter.catalog import thresholds
from exporter.catalog.rules import OVERRIDABLE, Settings, Window

_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_OPTIONS = (
    click.option(
        "--label",
        "targets",
        multiple=True,
        default=("namespace",),
        show_default=True,
        help="Label of the scrape that tells deployments apart, e.g. cluster; give each.",
    ),
    click.option(
        "--window",
        "windows",
        multiple=True,
        default=("1h", "1d"),
        show_default=True,
        help="Window of the scores, e.g. 30d; give each. Alerts read the first.",
    ),
    click.option("--bins", default=thresholds.DISCRETE_VALUES.count, show_default=True, type=click.IntRange(2, 100)),
    click.option("--score-bins", default=thresholds.SCORE_BINS.count, show_default=True, type=click.IntRange(2, 100)),
    click.option("--set", "overrides", multiple=True, help=f"NAME=VALUE of {', '.join(OVERRIDABLE)}."),
    click.option("--runbooks", default=Settings().runbooks, show_default=True, help="URL below which runbooks lie."),
    click.option("--dashboards", default=Settings().dashboards, show_default=True, help="URL of Grafana's dashboards."),
)


def rule_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command these options, and as its argument `settings` what they say. Raises click.BadParameter."""

    @functools.wraps(command)
    def told(
        *,
        targets: tuple[str, ...],
        windows: tuple[str, ...],
        bins: int,
        score_bins: int,
        overrides: tuple[str, ...],
        runbooks: str,
        dashboards: str,
        **others: Any,
    ) -> None:
        for label in targets:
            if not _LABEL.fullmatch(label):
                raise click.BadParameter(f"{label!r} is no label name", param_hint="--label")
        settings = Settings(
            targets=tuple(dict.fromkeys(targets)),
            windows=_windows(windows),
            bins=bins,
            score_bins=score_bins,
            overrides=dict(map(_override, overrides)),
            runbooks=runbooks.rstrip("/"),
            dashboards=dashboards.rstrip("/"),
        )
        command(settings=settings, **others)

    for option in reversed(_OPTIONS):
        told = option(told)
    return told


def pair(text: str, option: str) -> tuple[str, str]:
    """NAME=VALUE in two. Raises click.BadParameter, naming the option."""
    name, separator, value = text.partition("=")
    if not (name and separator):
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint=option)
    return name, value


def _windows(texts: tuple[str, ...]) -> tuple[Window, ...]:
    try:
        windows = tuple(map(Window, dict.fromkeys(texts)))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--window") from None
    lengths = [window.minutes for window in windows]
    if len(set(lengths)) < len(lengths):
        raise click.BadParameter("two windows have the same length", param_hint="--window")
    return windows


def _override(text: str) -> tuple[str, float]:
    name, value = pair(text, "--set")
    if name not in OVERRIDABLE:
        raise click.BadParameter(f"{name} is none of {', '.join(OVERRIDABLE)}", param_hint="--set")
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise click.BadParameter(f"{name}: a positive number expected, got {value!r}", param_hint="--set")
    return name, number
