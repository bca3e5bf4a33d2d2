"""The real command in its own process: exit codes, and one clear line for everything that can go wrong."""

import csv
import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from exporter import __version__
from exporter.app import config
from exporter.app.setup import build_fleet
from exporter.ingest.native import NativeCodec
from exporter.ingest.source import Messages
from tests.app.commands import COLUMNS, ROOT, Ended, rows, run, write_csv
from tests.builders import NOW, exposed

GOOD, FINDING, BAD_INPUT, UNAVAILABLE = 0, 1, 2, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training data, a reference made of it by the command, data like it and data unlike it."""
    folder = tmp_path_factory.mktemp("cli")
    write_csv(folder / "train.csv", rows(2000, seed=1))
    write_csv(folder / "same.csv", rows(2000, seed=2))
    write_csv(folder / "other.csv", rows(1000, seed=3), rows(1000, seed=4, drifted=True))
    built = build(folder, "reference.json", "--format", "json")
    assert (built.code, built.err) == (GOOD, "")
    assert json.loads(built.out)["rows"] == 2000
    return folder


@pytest.fixture(scope="module")
def labelled(folder: Path) -> Path:
    """A reference of a model that was always right."""
    assert build(folder, "labelled.json", "--label", "y").code == GOOD
    return folder / "labelled.json"


def build(folder: Path, output: str, *more: str, source: str = "train.csv") -> Ended:
    where = ("--input", folder / source, "--output", folder / output, "--model", "m", "--version", "1")
    return run("reference", "build", *where, *COLUMNS, *more)


def replay(folder: Path, data: str, *more: object, reference: str = "reference.json") -> Ended:
    return run("replay", folder / data, "--reference", folder / reference, *more)


def refused(ended: Ended, code: int, message: str) -> None:
    """Nothing on standard output, and one line that says what is wrong."""
    assert ended.code == code, ended.err
    assert ended.out == ""
    *usage, error = ended.err.strip().splitlines()
    assert re.search(message, error, re.IGNORECASE), ended.err
    assert all(line.startswith(("Usage:", "Try ")) or not line for line in usage), ended.err


class TestGood:
    def test_version_and_help(self):
        assert run("--version").out.strip() == f"model-health-exporter, version {__version__}"
        assert "replay" in run("--help").out

    def test_a_reference_is_built_and_shown(self, folder: Path):
        ended = build(folder, "shown.json")
        assert ended.code == GOOD
        assert ended.err == "warning: same: constant; any other value will be reported as out of range\n"
        for text in ("m 1: reference ", "2,000 rows", "colour", "3 categories", f"written to {folder}/shown.json"):
            assert text in ended.out
        assert "year" not in ended.out

    def test_a_finding_is_an_exit_code_only_when_asked_for(self, folder: Path):
        assert replay(folder, "other.csv", "--window", "1000").code == GOOD
        assert replay(folder, "other.csv", "--window", "1000", "--exit-code").code == FINDING
        assert replay(folder, "same.csv", "--window", "1000", "--exit-code").code == GOOD

    def test_replay_as_a_table(self, folder: Path):
        ended = replay(folder, "other.csv", "--window", "1000")
        assert "1 of 2 windows have drifted features" in ended.out
        assert re.search(r"colour.*drifting", ended.out)
        assert "1 of 2 windows have numeric inputs that drifted together" in ended.out
        assert re.search(r"means.*drifting, x mean", ended.out)

    def test_replay_as_json_is_one_object_of_the_agreed_shape(self, folder: Path):
        ended = replay(folder, "other.csv", "--window", "column:year", "--format", "json")
        assert (ended.code, ended.err) == (GOOD, "")
        found = json.loads(ended.out, parse_constant=lambda token: pytest.fail(f"{token} is no JSON"))
        assert {"model", "version", "reference", "windows"} <= found.keys()
        assert (found["model"], found["version"]) == ("m", "1")
        assert found["reference"] == json.loads((folder / "reference.json").read_bytes())["id"]
        assert [window["key"] for window in found["windows"]] == [2000, 2001]
        for window in found["windows"]:
            assert {"start", "end", "key", "samples", "features", "multivariate", "quality"} <= window.keys()
            assert (window["samples"], window["quality"]) == (1000, {})
            assert window["start"].endswith("Z")
            assert {feature["kind"] for feature in window["features"]} == {"input", "output", "score"}
            for feature in window["features"]:
                assert set(SCORES) <= feature.keys()
                assert feature["segment"] is None
                assert isinstance(feature["drifted"], bool)
                assert (feature["ks"] is None) == (feature["feature"] in ("colour", "prediction"))

    def test_replay_with_labels_of_their_own_shows_quality_and_finds_what_is_degraded(
        self, folder: Path, labelled: Path
    ):
        with (folder / "same.csv").open() as file:
            predicted = {row["id"]: row["y"] for row in csv.DictReader(file)}
        for name, right in (("right", lambda _: True), ("wrong", lambda identity: int(identity) % 4)):
            lines = [f"{one},{y if right(one) else 1 - int(y)}" for one, y in predicted.items()]
            (folder / f"{name}.csv").write_text("\n".join(["id,truth", *lines, "nobody,1"]))
        told = (folder / "same.csv", "--reference", labelled, "--label", "truth", "--exit-code")
        right, wrong = (
            run("replay", *told, "--window", "1000", "--labels", folder / f"{name}.csv") for name in ("right", "wrong")
        )
        assert (right.code, wrong.code) == (GOOD, FINDING)
        assert "0 of 2 windows have a degraded quality" in right.out
        assert "2 of 2 windows have a degraded quality" in wrong.out
        assert "labels without a prediction: 1" in wrong.out
        assert re.search(r"accuracy.*1,000.*0\.7500.*0\.7\d{3}.*0\.7\d{3}.*1\.0000.*degraded", wrong.out)
        shown = run("replay", *told, "--window", "1000", "--labels", folder / "wrong.csv", "--format", "json")
        accuracy = json.loads(shown.out)["windows"][0]["quality"]["accuracy"]
        assert (accuracy["value"], accuracy["baseline"], accuracy["n"], accuracy["coverage"]) == (0.75, 1, 1000, 1)
        assert accuracy["lower"] < 0.75 < accuracy["upper"]
        assert accuracy["estimated"] == pytest.approx(1, abs=0.01)

    def test_replay_without_labels_shows_what_is_to_be_expected(self, labelled: Path):
        told = (labelled.parent / "same.csv", "--reference", labelled, "--window", "1000", "--label", "not_yet")
        shown, told_json = run("replay", *told), run("replay", *told, "--format", "json")
        assert re.search(r"\b0 .*accuracy +│ +0 │ +│ +│ +│ +1\.0000 │ +1\.0000 │ no labels", shown.out), shown.out
        for window in json.loads(told_json.out)["windows"]:
            accuracy = window["quality"]["accuracy"]
            assert (accuracy["value"], accuracy["lower"], accuracy["n"]) == (None, None, 0)
            assert accuracy["estimated"] == pytest.approx(1, abs=0.01)
            assert window["quality_gaps"] == {}

    def test_replay_as_openmetrics_is_the_history_of_a_window(self, folder: Path):
        ended = replay(
            folder, "other.csv", "--window", "600s", "--step", "5m", "--format", "openmetrics", "--exit-code"
        )
        assert (ended.code, ended.err) == (FINDING, "")
        assert ended.out.endswith("# EOF\n")
        told = re.findall(r'^ml_predictions_total{model="m",version="1"} (\S+) (\S+)$', ended.out, re.MULTILINE)
        assert [(float(value), float(moment) % 300) for value, moment in told] == [
            *((0, 0), (400, 0), (1000, 0), (1600, 0), (2000, 0))
        ]
        drifted = re.findall(r"^ml_feature_drifted{.*colour.*} (\S+) ", ended.out, re.MULTILINE)
        assert drifted[-1] == "1.0"


SCORES = (
    *("feature", "kind", "segment", "state", "n", "psi", "psi_null_mean", "psi_critical", "threshold"),
    *("ks", "ks_upper", "ks_critical", "p_value", "p_above_threshold", "drifted"),
    *("missing_ratio", "invalid_ratio", "unseen_ratio"),
)


class TestBadUsage:
    def test_of_the_command_line(self, folder: Path):
        refused(run("frobnicate"), BAD_INPUT, "no such command 'frobnicate'")
        refused(run("run"), BAD_INPUT, "missing option '--config'")
        refused(replay(folder, "same.csv", "--window", "soon"), BAD_INPUT, "--window.*rows.*event time.*found 'soon'")
        history = ("same.csv", "--format", "openmetrics")
        refused(replay(folder, *history), BAD_INPUT, "--window.*a history has windows of event time.*found '5000'")
        refused(replay(folder, *history, "--window", "1h", "--step", "2"), BAD_INPUT, "duration.*expected, found '2'")
        refused(replay(folder, *history, "--window", "1h", "--maturity", "5m"), BAD_INPUT, "--maturity is for --labels")
        refused(
            replay(folder, "same.csv", "--step", "5m"), BAD_INPUT, "--step and --maturity are for --format openmetrics"
        )

    @pytest.mark.parametrize(
        "arguments, message",
        [
            (("--label", "nope"), "train.csv: --label: no column nope; there are id, x, "),
            (("--exclude", "nope"), "train.csv: --exclude: no column nope; there are id, x, "),
            (("--score", "a=nope"), "train.csv: --score: no column nope; there are id, x, "),
            (("--numeric", "colour"), "train.csv: colour: no usable number in 2000 rows; exclude it"),
        ],
    )
    def test_a_column_that_is_not_there_is_named(self, folder: Path, arguments: tuple[str, str], message: str):
        refused(build(folder, "out.json", *arguments), BAD_INPUT, message)
        assert not (folder / "out.json").exists()

    def test_a_file_that_cannot_be_read_is_named(self, folder: Path):
        refused(replay(folder, "none.csv"), BAD_INPUT, "none.csv.*no such file")
        refused(build(folder, "out.json", source="none.csv"), BAD_INPUT, "none.csv.*no such file")
        refused(run("check-config", folder / "none.yaml"), BAD_INPUT, "cannot read .*none.yaml: no such file")
        refused(build(folder, "no/such/folder.json"), BAD_INPUT, "cannot write .*no/such/folder.json: no such file")
        (folder / "notes.txt").write_text("x\n1\n")
        refused(replay(folder, "notes.txt"), BAD_INPUT, "notes.txt: unknown format .txt; expected .csv, .parquet")

    def test_data_without_one_readable_row_is_no_success(self, folder: Path):
        (folder / "empty.csv").write_text("x,colour\n")
        refused(replay(folder, "empty.csv"), BAD_INPUT, "empty.csv: no prediction could be read; rejected: none")
        (folder / "timeless.csv").write_text("x,at\n1,soon\n")
        refused(replay(folder, "timeless.csv"), BAD_INPUT, "timeless.csv: .*invalid_timestamp': 1")

    @pytest.mark.parametrize(
        "damage, message",
        [
            (
                lambda text: text.replace(b'"rows": 2000', b'"rows": 2001'),
                "content does not match its id .* edited",
            ),
            (lambda text: text.replace(b'"schema": 3', b'"schema": 99'), "schema 3 expected, found 99: rebuild it"),
            (lambda text: text[:-500], "not a reference: "),
            (lambda _: b'{"hello": "world"}', "schema 3 expected, found none"),
            (lambda _: b"\x89PNG\r\n\xff\x00", "not a reference: "),
            (lambda _: b"", "not a reference: "),
        ],
        ids=["edited", "of another schema", "truncated", "foreign", "binary", "empty"],
    )
    def test_a_broken_or_foreign_reference_is_named(self, folder: Path, damage: Any, message: str):
        (folder / "broken.json").write_bytes(damage((folder / "reference.json").read_bytes()))
        refused(replay(folder, "same.csv", reference="broken.json"), BAD_INPUT, f"broken.json: {message}")

    def test_a_configuration_is_checked_with_its_references_and_tokens(self, tmp_path: Path, folder: Path):
        path = tmp_path / "c.yaml"
        for text, message in (
            ("modles: []", "c.yaml: modles: unknown key; did you mean models"),
            (f"models: [{{name: other, references: ['{folder}/reference.json']}}]", "reference of m, not of other"),
            (f"models: [{{name: m, references: ['{folder}/none-*.json']}}]", "none-.*: no such reference"),
            ("auth: {write_token_file: none}", "auth.write_token_file: cannot read .*none: no such file"),
        ):
            path.write_text(text)
            refused(run("check-config", path), BAD_INPUT, message)
        refused(run("run", "--config", path), BAD_INPUT, "auth.write_token_file: cannot read")


class TestUnavailable:
    def test_a_port_in_use_is_named(self, tmp_path: Path):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            path = tmp_path / "c.yaml"
            path.write_text(f"listen: 127.0.0.1:{port}")
            refused(run("run", "--config", path), UNAVAILABLE, f"listen 127.0.0.1:{port}: address already in use")

    def test_an_address_of_another_machine_is_named(self, tmp_path: Path):
        (tmp_path / "c.yaml").write_text("listen: 192.0.2.1:9878")
        refused(run("run", "--config", tmp_path / "c.yaml"), UNAVAILABLE, "listen 192.0.2.1:9878: ")


class TestCheckConfig:
    def config(self, folder: Path, **more: Any) -> Path:
        model = {"name": "m", "version": "1", "references": ["reference.json"], "min_samples": 100, **more}
        path = folder / "check.yaml"
        path.write_text(json.dumps({"models": [model], "series_limit": 5000}))
        return path

    @pytest.mark.parametrize(
        "more",
        [
            {},
            {"trained": "2026-11-01T00:00:00Z", "latency_objective": {"p99": "1s"}},
            {"references": ["labelled.json"]},
            {"segments": [{"name": "region", "top": 2}]},
        ],
        ids=["plain", "more settings", "with labels", "with segments"],
    )
    @pytest.mark.usefixtures("labelled")
    def test_it_counts_the_series_that_a_running_exporter_exposes_once_every_score_has_data(
        self, folder: Path, more: dict[str, Any]
    ):
        path = self.config(folder, **more)
        checked = run("check-config", path, "--format", "json")
        assert (checked.code, checked.err) == (GOOD, "")
        fleet = build_fleet(config.load(path), folder)
        events = [
            {"model": "m", "features": {"x": x, "ties": ties, "same": 1, "colour": colour}, "prediction": y, "score": p}
            | ({"label": y} if "references" in more else {})
            | {"tags": {"region": ("eu", "us", "asia")[number % 3]}}
            for number, x, ties, _, colour, y, p, *_ in rows(2000, seed=5)
        ]
        payloads = [json.dumps(event).encode() for event in events]
        fleet.observe(NativeCodec(fleet, "http").decode(Messages("http", payloads, NOW)), NOW)
        running = sum('model="m"' in series for series in exposed(fleet.tick(NOW)))
        assert json.loads(checked.out) == {"series": {"m": running}, "total": running, "limit": 5000}

    def test_more_series_than_allowed_are_a_warning(self, folder: Path):
        path = self.config(folder)
        path.write_text(path.read_text().replace("5000", "10"))
        checked = run("check-config", path)
        assert checked.code == GOOD
        assert re.search(r"warning: \d+ series are more than series_limit 10", checked.err)
        assert "".join(f"{path} is good".split()) in "".join(checked.out.split()), "however its lines are broken"


def test_the_command_needs_no_working_directory(tmp_path: Path):
    assert run("--version", cwd=tmp_path).code == GOOD
    assert ROOT.is_dir()
