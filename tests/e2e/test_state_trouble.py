"""A disk that is full or read-only, a database that cannot be used: it goes on measuring, says so, and recovers."""

import resource
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from io import RawIOBase
from pathlib import Path

import pytest

from tests.e2e import stories
from tests.e2e.running import ROOT, Running, command, configured, run
from tests.e2e.test_followed_file import append, counted, lines
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

SOURCE = {"type": "file", "path": "events.jsonl", "follow": True}
DATABASE = "state.sqlite3"
DISK_BYTES = 4 * 2**20


class SmallDisk:
    """A file system of its own, which can be filled and made read-only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self, _exporter: Running) -> None:
        with self._filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            _write_for_ever(file)

    def free(self, _exporter: Running) -> None:
        self._filler.unlink()

    def allow(self, how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.path)], check=True)


def _write_for_ever(file: RawIOBase) -> None:
    while True:
        file.write(bytes(4096))


class Limited:
    """Without privileges: no file of the process may grow beyond what its log and a page of a database need."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self, exporter: Running) -> None:
        self._limit(exporter, 8192)

    def free(self, exporter: Running) -> None:
        self._limit(exporter, resource.RLIM_INFINITY)

    def _limit(self, exporter: Running, most: int) -> None:
        if exporter.process.poll() is None:
            _, hard = resource.prlimit(exporter.process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(exporter.process.pid, resource.RLIMIT_FSIZE, (most, hard))


@contextmanager
def small_disk(path: Path) -> Iterator[SmallDisk]:
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"file systems cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", str(path)], check=True)


@pytest.fixture(params=["tmpfs", "limit"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallDisk | Limited]:
    if request.param == "limit":
        yield Limited(tmp_path / "disk")
        return
    with small_disk(tmp_path / "disk") as one:
        yield one


def test_a_full_disk_stops_neither_counting_nor_serving_and_takes_nothing_of_the_last_good_state(
    tmp_path: Path, disk: SmallDisk | Limited
):
    path = tmp_path / "events.jsonl"
    with watching(tmp_path, disk.path) as exporter:
        append(path, lines(100, seed=1))
        counted(exporter, 100)
        assert failures(exporter) == 0

        disk.fill(exporter)
        append(path, lines(200, seed=2))
        counted(exporter, 300)
        fail(exporter)
        assert exporter.get("/healthz").status == 200
        assert "state is not durable" in exporter.said()

        disk.free(exporter)
        eventually(lambda: "durable again" in exporter.said(), exporter.said)
        durable(exporter)

        disk.fill(exporter)
        append(path, lines(50, seed=3))
        counted(exporter, 350)
        fail(exporter)
        assert exporter.said().count("state is not durable") <= 2, "it says so once a minute, and once a trouble"
        exporter.process.kill()
        exporter.process.wait()
        disk.free(exporter)
    with watching(tmp_path, disk.path) as exporter:
        counted(exporter, 350)
        assert exporter.value("ml_ingest_events_total", source="file") == 350
        durable(exporter)
        assert set_aside(exporter) == set()


def test_a_read_only_disk_is_started_from_and_written_to_as_soon_as_it_can_be(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    with small_disk(tmp_path / "disk") as disk:
        with watching(tmp_path, disk.path) as exporter:
            append(path, lines(100, seed=1))
            counted(exporter, 100)
        disk.allow("ro")
        with watching(tmp_path, disk.path) as exporter:
            assert exporter.value("ml_predictions_total", model=stories.MODEL) == 100
            append(path, lines(30, seed=2))
            counted(exporter, 130)
            fail(exporter)
            disk.allow("rw")
            durable(exporter)
            exporter.process.kill()
            exporter.process.wait()
        with watching(tmp_path, disk.path) as exporter:
            assert exporter.value("ml_predictions_total", model=stories.MODEL) == 130


def test_a_path_that_is_no_directory_is_used_as_soon_as_it_can_be(tmp_path: Path):
    in_the_way = tmp_path / "state"
    in_the_way.touch()
    with watching(tmp_path, in_the_way) as exporter:
        append(tmp_path / "events.jsonl", lines(100, seed=1))
        counted(exporter, 100)
        fail(exporter)
        in_the_way.unlink()
        durable(exporter)
        exporter.process.kill()
        exporter.process.wait()
    with watching(tmp_path, in_the_way) as exporter:
        assert exporter.value("ml_predictions_total", model=stories.MODEL) == 100


def flip_bits(database: Path) -> None:
    content = bytearray(database.read_bytes())
    start = content.index(b'["fleet"]')  # elsewhere there may be nothing yet
    for place in range(start, start + 200):
        content[place] ^= 0x55
    database.write_bytes(content)


def make_newer(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA user_version = 99")


def make_foreign(database: Path) -> None:
    database.unlink()
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE customers (name TEXT)")


SPOILED = {"damaged": flip_bits, "newer": make_newer, "foreign": make_foreign}


@pytest.mark.parametrize("reason", SPOILED)
def test_a_database_that_cannot_be_used_is_set_aside_and_said_to_be(tmp_path: Path, reason: str):
    state = tmp_path / "state"
    append(tmp_path / "events.jsonl", lines(100, seed=1))
    with watching(tmp_path, state) as exporter:
        counted(exporter, 100)
    SPOILED[reason](state / DATABASE)
    spoiled = (state / DATABASE).read_bytes()
    with watching(tmp_path, state) as exporter:
        assert set_aside(exporter) == {reason}
        (line,) = [line for line in exporter.said().splitlines() if "moved aside to" in line]
        assert reason in line
        aside = Path(line.rpartition(" ")[2])
        assert aside.read_bytes() == spoiled
        counted(exporter, 100)  # from the beginning of the file: where it was is gone with the counts
        durable(exporter)
    with watching(tmp_path, state) as exporter:
        assert exporter.value("ml_predictions_total", model=stories.MODEL) == 100
        assert set_aside(exporter) == set()


def test_a_state_that_another_process_uses_is_one_line_and_exit_code_3(tmp_path: Path):
    state = tmp_path / "state"
    with watching(tmp_path, state) as exporter:
        eventually((state / DATABASE).exists, exporter.said)
        config = configured(tmp_path / "second", state={"path": str(state)})
        second = subprocess.run(
            command("run", "--config", str(config)), cwd=ROOT, capture_output=True, text=True, timeout=20, check=False
        )
    assert second.returncode == 3
    assert second.stderr.splitlines() == [f"error: state {state}: another process is using it"]


@contextmanager
def watching(folder: Path, state: Path) -> Iterator[Running]:
    told = {"sources": [SOURCE], "state": {"path": str(state)}}
    with run(folder, [stories.MODEL_CONFIG], [stories.reference()], **told) as exporter:
        yield exporter


def failures(exporter: Running) -> float:
    return exporter.value("ml_exporter_state_write_failures_total") or 0


def fail(exporter: Running) -> None:
    """Wait until writes fail, again and again."""
    before = failures(exporter)
    eventually(lambda: failures(exporter) > before + 2, exporter.said)


def durable(exporter: Running) -> None:
    """Wait until two more writes have succeeded, for one may have begun before."""
    for _ in range(2):
        before = exporter.value("ml_exporter_state_last_write_timestamp_seconds")
        eventually(
            lambda last=before: exporter.value("ml_exporter_state_last_write_timestamp_seconds") != last, exporter.said
        )


def set_aside(exporter: Running) -> set[str]:
    reasons = ("damaged", "newer", "foreign")
    return {reason for reason in reasons if exporter.value("ml_exporter_state_set_aside", reason=reason) == 1}
