"""The command line of `backtest`."""

import sys
import time
from pathlib import Path

import click

from exporter.app.printing import FINDING, print_json, progress_bar
from exporter.app.rule_options import rule_options
from exporter.catalog.rules import Settings


@click.command()
@click.option("--prometheus", "url", required=True, help="Address, e.g. http://prometheus:9090.")
@click.option(
    "--rules",
    "rules_path",
    type=click.Path(path_type=Path),
    help="Prometheus rule file [default: what `rules` prints with the same options].",
)
@click.option("--start", required=True, help="First moment: RFC 3339, a date, or epoch seconds.")
@click.option("--end", help="Last moment [default: now].")
@click.option("--step", help="How often rules are looked at [default: the interval of their group, else 1m].")
@click.option("--token-file", type=click.Path(path_type=Path), help="File with a bearer token for Prometheus.")
@click.option("--format", "output_format", type=click.Choice(["table", "json"]), default="table", show_default=True)
@rule_options
@click.option("--exit-code", is_flag=True, help="Exit with 1 if an alert would have fired, but of severity none.")
def backtest(
    url: str,
    rules_path: Path | None,
    start: str,
    end: str | None,
    step: str | None,
    token_file: Path | None,
    output_format: str,
    settings: Settings,
    exit_code: bool,
) -> None:
    """List the alerts that would have fired over a past time, from the metrics in a Prometheus."""
    from exporter.app import backtest as testing  # noqa: PLC0415 - commands import what they need
    from exporter.app.alerting import parse, read  # noqa: PLC0415
    from exporter.app.prometheus import Prometheus  # noqa: PLC0415
    from exporter.catalog.promql import duration_ms  # noqa: PLC0415

    if rules_path is not None:
        if settings != Settings():
            raise click.UsageError("rules of --rules have their own labels, windows and thresholds")
        rules = read(rules_path)
    else:
        from exporter.assets.rules import prometheus  # noqa: PLC0415

        rules = parse(prometheus(settings), "the rules of this release")
    first, last = _moment(start, "--start"), time.time() if end is None else _moment(end, "--end")
    if last < first:
        raise click.BadParameter("before --start", param_hint="--end")
    try:
        step_s = None if step is None else duration_ms(step) / 1000
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--step") from None
    if step_s == 0:
        raise click.BadParameter("longer than 0 expected", param_hint="--step")
    token = None
    if token_file is not None:
        from exporter.app.setup import secret  # noqa: PLC0415

        token = secret(token_file, "--token-file")
    with progress_bar("asking", "moments", testing.looks(rules, first, last, step_s)) as progress:
        found = testing.run(Prometheus(url, token), rules, first, last, step_s, progress)
    if output_format == "json":
        print_json(testing.as_json(found))
    else:
        from exporter.app.tables import show_backtest  # noqa: PLC0415

        show_backtest(found)
    # What always fires, for whoever minds its silence, is of severity none by custom.
    if exit_code and any(one.labels.get("severity") != "none" for one in found.alerts):
        sys.exit(FINDING)


def _moment(text: str, option: str) -> float:
    from exporter.ingest.timestamps import epoch_s  # noqa: PLC0415

    moment = epoch_s(float(text) if text.replace(".", "", 1).isdigit() else text)
    if moment is None:
        raise click.BadParameter(f"RFC 3339 or epoch seconds expected, found {text!r}", param_hint=option)
    return moment
