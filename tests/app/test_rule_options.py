import click
from click.testing import CliRunner

from exporter.app.rule_options import rule_options
from exporter.catalog.rules import Settings, Window


@click.command()
@click.option("--own")
@rule_options
def command(settings: Settings, own: str | None) -> None:
    click.echo(f"{own} {settings!r}")


def told(*arguments: str) -> str:
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 0, done.output
    return done.output


def test_without_options_the_settings_are_those_of_the_catalogue():
    assert told("--own", "yes") == f"yes {Settings()!r}\n"


def test_options_become_settings_without_repetitions_and_trailing_slashes():
    expected = Settings(
        targets=("cluster", "namespace"),
        windows=(Window("2h"), Window("30d")),
        bins=3,
        score_bins=2,
        overrides={"stalled": 90.0},
        runbooks="https://r.example",
        dashboards="https://g.example/d",
    )
    assert told(
        *("--label", "cluster", "--label", "namespace", "--label", "cluster", "--window", "2h", "--window", "30d"),
        *("--bins", "3", "--score-bins", "2", "--set", "stalled=90"),
        *("--runbooks", "https://r.example/", "--dashboards", "https://g.example/d/"),
    ) == (f"None {expected!r}\n")
