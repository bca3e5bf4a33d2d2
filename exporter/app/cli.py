"""The command line. Exit codes: 0 good, 1 a finding (--exit-code), 2 bad usage or input, 3 something is unavailable."""

import asyncio
import gc
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec

from exporter import __version__
from exporter.app import config as configuration
from exporter.app.backtest_command import backtest
from exporter.app.config import ConfigError, Listen
from exporter.app.printing import BAD_INPUT, FINDING, UNAVAILABLE, print_json, progress_bar
from exporter.app.provision_command import provision
from exporter.app.rules import rules
from exporter.app.schema import PORT, KafkaConfig
from exporter.catalog import thresholds
from exporter.ingest.source import Unavailable
from exporter.monitor.features import BadReference
from exporter.monitor.reference import Columns, Resolution

_FILE = click.Path(path_type=Path, dir_okay=False)
_ALPHA = thresholds.ALPHA.value
_FORMAT = click.Choice(["table", "json"])


def main() -> None:
    """Entry point: one clear line instead of a traceback for everything a user can get wrong."""
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(BAD_INPUT)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except (ConfigError, BadReference) as error:
        _fail(str(error), BAD_INPUT)
    except Unavailable as error:
        _fail(str(error), UNAVAILABLE)
    except BrokenPipeError:
        sys.stderr.close()  # the reader has what it wanted


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="model-health-exporter")
def cli() -> None:
    """Watch ML models in production: drift, traffic and data faults as Prometheus metrics."""


@cli.command()
@click.option("--config", "path", type=_FILE, required=True, help="Configuration file.")
def run(path: Path) -> None:
    """Run the exporter."""
    from exporter.app.setup import access, build_runtime  # noqa: PLC0415 - commands import what they need

    loaded = configuration.load(path)
    tokens = access(loaded, path.parent)
    listen = configuration.listen_address(loaded.listen)
    _log()
    from exporter.app.serve import bind  # noqa: PLC0415

    bound = bind(listen)
    runtime, http = build_runtime(loaded, path.parent)
    _serve(runtime, http, tokens, bound)


@cli.command()
@click.option("--listen", default=f"127.0.0.1:{PORT}", show_default=True, help="Address; if it is taken, any port.")
@click.option("--round", "round_s", default=120.0, show_default=True, help="Seconds that one round of the data takes.")
def demo(listen: str, round_s: float) -> None:
    """Watch a real model drift within two minutes."""
    from exporter.app.demo import demo_runtime  # noqa: PLC0415
    from exporter.app.http import Access  # noqa: PLC0415
    from exporter.app.serve import address, bind  # noqa: PLC0415

    wanted = _listen(listen)
    try:
        bound = bind(wanted)
    except Unavailable:
        bound = bind(Listen(wanted.host, 0))
    if round_s < 4:
        raise click.BadParameter("at least 4 seconds expected", param_hint="--round")
    url = address(bound)
    click.echo(
        f"A loan model is served and watched; its applicants change {round_s / 2:g} s from now.\n"
        f"  page     {url}\n  metrics  {url}metrics\n  JSON     {url}api/v1/models\nCtrl-C ends it."
    )
    _log(logging.WARNING)
    logging.getLogger("exporter.app.runtime").setLevel(logging.ERROR)  # its unreadable events are on purpose
    _serve(demo_runtime(round_s), None, Access(), bound)


cli.add_command(rules)
cli.add_command(provision)


@cli.group()
def reference() -> None:
    """Build and look at references."""


@reference.command()
@click.option("--input", "path", type=_FILE, required=True, help="Training data: CSV, Parquet or JSONL.")
@click.option("--output", type=_FILE, required=True, help="Where to write the reference (JSON).")
@click.option("--model", required=True, help="Name of the model.")
@click.option("--version", required=True, help="Version of the model.")
@click.option("--prediction", help="Column of the prediction.")
@click.option("--score", "scores", multiple=True, help="Column of the score; CLASS=COLUMN for each class of several.")
@click.option("--label", help="Column of the ground truth; it is no feature.")
@click.option("--timestamp", help="Column of the event time; it is no feature.")
@click.option("--timestamp-format", help="strptime format, if the times are neither RFC 3339 nor epoch seconds.")
@click.option("--id", "identity", help="Column of the event id; it is no feature.")
@click.option("--exclude", default="", help="Columns to leave out, separated by commas.")
@click.option("--categorical", default="", help="Columns that are categories though they look like numbers.")
@click.option("--numeric", default="", help="Columns that are numbers though they look otherwise.")
@click.option("--segment", "tags", multiple=True, help="Column whose largest values are kept apart, as segments.")
@click.option("--knots", default=thresholds.KNOTS.count, show_default=True, type=click.IntRange(1, 1_000_000))
@click.option("--bins", default=thresholds.BINS.count, show_default=True, type=click.IntRange(2, 100))
@click.option("--score-bins", default=thresholds.SCORE_BINS.count, show_default=True, type=click.IntRange(2, 1000))
@click.option("--format", "output_format", type=_FORMAT, default="table", show_default=True)
def build(
    path: Path,
    output: Path,
    model: str,
    version: str,
    prediction: str | None,
    scores: tuple[str, ...],
    label: str | None,
    timestamp: str | None,
    timestamp_format: str | None,
    identity: str | None,
    exclude: str,
    categorical: str,
    numeric: str,
    tags: tuple[str, ...],
    knots: int,
    bins: int,
    score_bins: int,
    output_format: str,
) -> None:
    """Build a reference from training data."""
    from exporter.app import build as building  # noqa: PLC0415
    from exporter.app import tables  # noqa: PLC0415
    from exporter.monitor.reference import encode  # noqa: PLC0415

    columns = Columns(
        prediction=prediction,
        scores=building.parse_scores(scores),
        label=label,
        timestamp=timestamp,
        timestamp_format=timestamp_format,
        id=identity,
    )
    choice = building.Choice(columns, _names(exclude), _names(categorical), _names(numeric), tags)
    resolution = Resolution(knots, bins, score_bins=score_bins)
    with _input_is_ours(path), progress_bar("reading") as progress:
        built = building.build_reference(path, model, version, choice, resolution, progress)
    try:
        output.write_bytes(encode(built))
    except OSError as error:
        raise ConfigError(f"cannot write {output}: {error.strerror}") from None
    warnings = building.warnings(built)
    if output_format == "json":
        print_json({"reference": built.id, "rows": built.rows, "output": str(output), "warnings": warnings})
        return
    tables.show_reference(built, output)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)


@cli.command()
@click.argument("path", metavar="FILE", type=_FILE)
@click.option("--reference", "reference_path", type=_FILE, required=True, help="Reference made by `reference build`.")
@click.option("--window", default="5000", show_default=True, help="Rows (5000), event time (1h) or column:NAME.")
@click.option("--min-samples", default=thresholds.MIN_SAMPLES.count, show_default=True, type=click.IntRange(1))
@click.option("--labels", "labels_path", type=_FILE, help="Ground truth in a file of its own, joined by id.")
@click.option("--label", help="Column of the ground truth, if not that of the reference.")
@click.option("--id", "identity", help="Column of the event id, if not that of the reference.")
@click.option("--min-labels", default=thresholds.MIN_LABELS.count, show_default=True, type=click.IntRange(1))
@click.option("--threshold", default=thresholds.PSI_THRESHOLD.value, show_default=True, help="PSI that is an effect.")
@click.option("--alpha", type=float, help=f"Level of the critical values [{_ALPHA:g}; of openmetrics the budget's].")
@click.option("--prediction", help="Column of the prediction, if not that of the reference.")
@click.option("--score", "scores", multiple=True, help="Column of the score, if not that of the reference.")
@click.option("--timestamp", help="Column of the event time, if not that of the reference.")
@click.option("--timestamp-format", help="strptime format of the event time.")
@click.option(
    "--segment", "tags", multiple=True, help="Column, of JSONL tag, to tell segments by; else those of the reference."
)
@click.option("--format", "output_format", type=click.Choice(["table", "json", "openmetrics"]), default="table")
@click.option("--step", help="How often openmetrics tells what a window of event time shows [default: window/12].")
@click.option("--maturity", help="Age at which openmetrics settles predictions with --labels that have times.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 if a feature is drifted or a quality is degraded.")
def replay(
    path: Path,
    reference_path: Path,
    window: str,
    min_samples: int,
    labels_path: Path | None,
    label: str | None,
    identity: str | None,
    min_labels: int,
    threshold: float,
    alpha: float | None,
    prediction: str | None,
    scores: tuple[str, ...],
    timestamp: str | None,
    timestamp_format: str | None,
    tags: tuple[str, ...],
    output_format: str,
    step: str | None,
    maturity: str | None,
    exit_code: bool,
) -> None:
    """Compare recorded predictions with a reference, window by window."""
    from exporter.app import backfill, tables  # noqa: PLC0415
    from exporter.app import labels as labelling  # noqa: PLC0415
    from exporter.app import replay as replaying  # noqa: PLC0415
    from exporter.app.build import parse_scores  # noqa: PLC0415
    from exporter.app.references import load_file  # noqa: PLC0415
    from exporter.monitor.settings import JoinSettings, ModelSettings  # noqa: PLC0415

    known = load_file(reference_path)
    if (step is not None or maturity is not None) and output_format != "openmetrics":
        raise click.UsageError("--step and --maturity are for --format openmetrics")
    if maturity is not None and labels_path is None:
        raise click.UsageError("--maturity is for --labels")
    try:
        spec = replaying.parse_window(window)
        every = backfill.pace(spec, step) if output_format == "openmetrics" else None
        join = None if maturity is None else JoinSettings(configuration.seconds(maturity))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--window, --step, --maturity") from None
    given = {
        "prediction": prediction,
        "label": label,
        "id": identity,
        "timestamp": timestamp,
        "timestamp_format": timestamp_format,
    }
    columns = msgspec.structs.replace(
        known.columns,
        **{name: value for name, value in given.items() if value is not None},
        **({"scores": parse_scores(scores)} if scores else {}),
    )
    settings = ModelSettings(
        name=known.model,
        version=known.version,
        min_samples=min_samples,
        min_labels=min_labels,
        psi_threshold=threshold,
        alpha=_ALPHA if alpha is None and output_format != "openmetrics" else alpha,
        join=join,
        segments=replaying.segmentations(known, tags),
    )
    labels = None
    if labels_path is not None:
        with _input_is_ours(labels_path):
            labels = labelling.read(labels_path, columns)
    with _input_is_ours(path), progress_bar("replaying") as progress:
        playing = replaying.Replay(known, settings, spec, columns, labels, progress)
        if every is not None:
            recording, finding = backfill.record(playing, path, every)
        else:
            found = list(playing.run(path))
            finding = any(window.finding for window in found)
    if output_format == "json":
        print_json(replaying.as_json(known, found, playing.rejected, labels))
    elif every is not None:
        for part in recording.text():
            click.echo(part, nl=False)
    else:
        tables.show_replay(known, found, playing.rejected, labels)
    if exit_code and finding:
        sys.exit(FINDING)


cli.add_command(backtest)


@cli.command("check-config")
@click.argument("path", metavar="CONFIG", type=_FILE)
@click.option("--format", "output_format", type=_FORMAT, default="table", show_default=True)
def check_config(path: Path, output_format: str) -> None:
    """Check a configuration and its references, and count the series each model will export."""
    from exporter.app import tables  # noqa: PLC0415
    from exporter.app.setup import access, build_fleet, kafka_connection  # noqa: PLC0415

    loaded = configuration.load(path)
    access(loaded, path.parent)
    for source in loaded.sources:
        if isinstance(source, KafkaConfig):
            kafka_connection(source, path.parent)
    fleet = build_fleet(loaded, path.parent)
    counts = fleet.tick(0.0).full_series
    total = sum(counts.values())
    if output_format == "json":
        print_json({"series": counts, "total": total, "limit": loaded.series_limit})
    else:
        tables.show_check(path, loaded, counts)
    if total > loaded.series_limit:
        click.echo(f"warning: {total:,} series are more than series_limit {loaded.series_limit:,}", err=True)


def _serve(runtime: Any, http: Any, tokens: Any, bound: Any) -> None:
    from exporter.app.http import build_app  # noqa: PLC0415
    from exporter.app.serve import address, serve  # noqa: PLC0415

    # What start-up made lives for ever: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    logging.getLogger(__name__).info("listening on %s", address(bound))
    asyncio.run(serve(runtime, build_app(runtime, http, tokens), bound))


def _log(level: int = logging.INFO) -> None:
    logging.basicConfig(
        level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%S%z"
    )
    for library in ("kafka", "librdkafka"):  # what goes wrong is told by us, once a minute instead of at each attempt
        logging.getLogger(library).setLevel(logging.CRITICAL)


def _listen(text: str) -> Listen:
    try:
        return configuration.listen_address(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--listen") from None


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip() for name in text.split(",") if name.strip())


@contextmanager
def _input_is_ours(path: Path) -> Iterator[None]:
    """An input file that cannot be read is bad input, not a missing dependency."""
    try:
        yield
    except Unavailable as error:
        raise ConfigError(str(error)) from None
    except BadReference as error:
        raise BadReference(f"{path}: {error}") from None


def _fail(message: str, code: int) -> None:
    click.echo(f"error: {message}", err=True)
    sys.exit(code)
