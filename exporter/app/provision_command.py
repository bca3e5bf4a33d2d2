"""The command line of `provision`."""

import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import click

from exporter.app.config import ConfigError
from exporter.app.printing import FINDING
from exporter.app.rule_options import rule_options
from exporter.catalog.rules import Settings

_FILE = click.Path(path_type=Path)
_DONE = {"create": "created", "change": "changed", "delete": "deleted"}


@click.group()
def provision() -> None:
    """Put dashboards and alerts where they are looked at."""


@provision.command()
@click.option("--url", required=True, help="Address, e.g. https://grafana.example.com or one with a path.")
@click.option("--token-file", type=_FILE, required=True, help="File with the token of a service account.")
@click.option("--folder", default="Model health", show_default=True, help="Title of the folder.")
@click.option("--datasource", help="Uid or name of the Prometheus [default: the only or default one].")
@click.option("--alerts", is_flag=True, help="Let Grafana evaluate the alerts, instead of Prometheus.")
@click.option("--pagerduty-key-file", "key_file", type=_FILE, help="File with PagerDuty's integration key.")
@click.option("--new-key", is_flag=True, help="Write that key even if there is one: Grafana does not show it.")
@click.option("--editable", is_flag=True, help="Let alerts be edited in Grafana; the next run sets them right.")
@click.option("--prune", is_flag=True, help="Delete what earlier runs made and this one does not.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--exit-code", is_flag=True, help="With --dry-run, exit with 1 if anything would change.")
@click.option("--org", "organisation", type=click.IntRange(1), help="Id of the organisation [default: the token's].")
@click.option("--ca-file", type=_FILE, help="Certificates to trust instead of the system's.")
@rule_options
def grafana(
    url: str,
    token_file: Path,
    folder: str,
    datasource: str | None,
    alerts: bool,
    key_file: Path | None,
    new_key: bool,
    editable: bool,
    prune: bool,
    dry_run: bool,
    exit_code: bool,
    organisation: int | None,
    ca_file: Path | None,
    settings: Settings,
) -> None:
    """Make folder and dashboards in a Grafana, and with --alerts rules, contact point and policy."""
    if exit_code and not dry_run:
        raise click.UsageError("--exit-code is for --dry-run")
    if not alerts and (key_file is not None or editable):
        raise click.UsageError("--pagerduty-key-file and --editable are for --alerts")
    if new_key and key_file is None:
        raise click.UsageError("--new-key is for --pagerduty-key-file")
    try:
        from exporter.app.grafana import Grafana  # noqa: PLC0415 - commands import what they need
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "grafana_client":
            raise
        raise ConfigError("no Grafana client is installed; pip install 'model-health-exporter[grafana]'") from None
    from exporter.app import provision as provisioning  # noqa: PLC0415
    from exporter.app.patience import patiently  # noqa: PLC0415
    from exporter.app.setup import secret  # noqa: PLC0415

    token = secret(token_file, "--token-file")
    key = None if key_file is None else secret(key_file, "--pagerduty-key-file")
    with Grafana(url, token, organisation=organisation, ca_file=ca_file, hidden=[] if key is None else [key]) as server:
        if settings.dashboards == Settings().dashboards:  # an example: those that are provisioned are meant
            settings = replace(settings, dashboards=f"{server.url}/d")
        version = patiently(server.version, time.sleep)
        source = provisioning.choose_datasource(patiently(server.datasources, time.sleep), datasource)
        click.echo(f"Grafana {version} at {server.url}, data source {source['name']} ({source['uid']})")
        wish = provisioning.Wish(settings, folder, alerts, key, new_key, editable, prune)
        steps = provisioning.plan(server, wish, source, time.sleep)
        for step in steps:
            if not dry_run:
                provisioning.carry_out(step, time.sleep)
            click.echo(f"{step.action if dry_run else _DONE.get(step.action, step.action):<10} {step.thing.name}")
            if dry_run and step.writes:
                click.echo("".join(f"    {line}\n" for line in step.diff.splitlines()), nl=False)
    counts = Counter[str](step.action for step in steps)
    click.echo(_summary(counts, dry_run=dry_run))
    if exit_code and any(step.writes for step in steps):
        sys.exit(FINDING)


def _summary(counts: Counter[str], *, dry_run: bool) -> str:
    """One line: what was done, or would be, and what was not."""
    would = "would be " if dry_run else ""
    done = ", ".join(f"{counts[action]} {would}{done}" for action, done in _DONE.items() if counts[action])
    same = f"{counts['unchanged']} as they should be"
    left = f"; {counts['left']} left of earlier runs: --prune deletes them" if counts["left"] else ""
    return f"{done or 'Nothing to change'}; {same}{left}.{' Nothing was written.' if dry_run else ''}"
