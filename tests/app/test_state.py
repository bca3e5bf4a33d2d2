import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from exporter.app import database
from exporter.app.state import StateError, Store
from exporter.ingest.source import Unavailable
from tests.builders import MODEL, NOW, a_fleet, a_reference, columns_of, exposed, observe

ROOT = Path(__file__).parents[2]
NAME = database.NAME
NOBODY = 65534
State = tuple[dict[str, bytes], dict[str, dict[str, str]]]

FIRST: State = ({"a": b"1", "b": b"2" * 9000}, {"kafka": {"t/0": "5", "t/1": "7"}, "file": {"x": "1:2"}})


def held(directory: Path) -> State:
    """What the next process would find, of a copy: a running one keeps its own."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(directory, copy)
        with closing(Store.open(copy)) as store:
            assert (store.set_aside, store.trouble) == (None, None)
            return store.entries, store.positions


def filled(directory: Path, state: State = FIRST) -> Store:
    store = Store.open(directory)
    store.write(*state)
    return store


def files(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


# ---- what is written -------------------------------------------------------------------------------------------------


def test_what_is_written_is_what_the_next_process_finds(tmp_path: Path):
    store = Store.open(tmp_path / "not" / "there")
    assert (store.entries, store.positions, store.set_aside, store.trouble) == ({}, {}, None, None)

    store.write(*FIRST)
    assert held(store.path.parent) == FIRST

    store.write({"a": None, "b": b"", "ü, \"]'\0": b"3", "gone": None}, {"kafka": {"t/1": "9"}})
    expected = ({"b": b"", "ü, \"]'\0": b"3"}, {"kafka": {"t/1": "9"}, "file": {"x": "1:2"}})
    assert held(store.path.parent) == expected, "positions of other sources stay"

    store.close()
    assert files(store.path.parent) == {NAME}
    assert held(store.path.parent) == expected


def test_the_first_changes_of_a_process_are_its_whole_state(tmp_path: Path):
    filled(tmp_path).close()
    store = Store.open(tmp_path)
    assert (store.entries, store.positions) == FIRST

    store.write({"c": b"3"}, {"kafka": {"t/0": "6"}})

    assert store.entries == {}, "not kept twice"
    assert held(tmp_path) == ({"c": b"3"}, {"kafka": {"t/0": "6"}, "file": {"x": "1:2"}})


def test_a_fleet_goes_on_from_what_was_written(tmp_path: Path):
    fleet = a_fleet(a_reference())
    for minute in range(70):
        observe(fleet, columns_of(50, seed=minute), time=NOW + 60 * minute)
        if minute % 8 == 0:
            fleet = a_fleet(a_reference())
            with closing(Store.open(tmp_path)) as store:
                if store.entries:
                    fleet.load(store.entries)
                observe(fleet, columns_of(50, seed=minute), time=NOW + 60 * minute)
                store.write(fleet.changes(), {"http": {"p0": str(minute)}})

    with closing(Store.open(tmp_path)) as store:
        again = a_fleet(a_reference())
        again.load(store.entries)
        assert store.positions == {"http": {"p0": "64"}}
    now = NOW + 60 * 64
    assert exposed(again.tick(now))[f'ml_predictions_total{{model="{MODEL}",version="1"}}'] == 9 * 50


def test_what_is_stored_is_not_for_everybody_to_read(tmp_path: Path):
    store = filled(tmp_path)

    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o007 == 0, "what models learn from may be personal data"
    store.close()


def test_the_log_is_bounded_and_space_is_reused(tmp_path: Path):
    rng = random.Random(0)
    store, most = filled(tmp_path), 0
    for number in range(300):
        store.write({f"k{number % 20}": rng.randbytes(50_000)}, {})
        most = max(most, store.size_bytes)

    assert most < 20 * 60_000 + 6 * 2**20
    store.close()
    assert store.size_bytes < 20 * 60_000


# ---- blocks ----------------------------------------------------------------------------------------------------------


def test_blocks_are_read_again_one_by_one(tmp_path: Path):
    store = Store.open(tmp_path)
    store.write({"a": b"1"}, {}, {"x": b"rows", "y": b"more"})
    assert (store.read("x"), store.read("y"), store.read("z")) == (b"rows", b"more", None)

    store.write({}, {}, {"x": b"rows and rows", "y": None})
    store.close()
    with closing(Store.open(tmp_path)) as again:
        assert again.entries == {"a": b"1"}
        assert (again.read("x"), again.read("y")) == (b"rows and rows", None)
        again.write({"a": b"2"}, {})
        assert again.read("x") == b"rows and rows", "the first transaction of a process leaves them"


def test_blocks_that_nobody_has_a_use_for_are_gone_with_the_next_write(tmp_path: Path):
    store = Store.open(tmp_path)
    store.write({}, {}, {"x": b"1", "y": b"2"})
    store.close()
    with closing(Store.open(tmp_path)) as again:
        again.keep_blocks({"y"})
        again.write({}, {})
        assert (again.read("x"), again.read("y")) == (None, b"2")


def test_a_block_that_was_changed_behind_our_back_is_not_there(tmp_path: Path):
    store = Store.open(tmp_path)
    store.write({}, {}, {"x": b"1", "y": b"2"})
    store.close()
    with closing(sqlite3.connect(tmp_path / NAME)) as other:
        other.execute("UPDATE blocks SET value = ? WHERE key = 'x'", (b"3",))
        other.commit()
    with closing(Store.open(tmp_path)) as again:
        assert again.set_aside is None, "the rest is good"
        assert (again.read("x"), again.read("y")) == (None, b"2")


def test_a_block_more_or_less_is_another_state(tmp_path: Path):
    store = Store.open(tmp_path)
    store.write({}, {}, {"x": b"1", "y": b"2"})
    store.close()
    with closing(sqlite3.connect(tmp_path / NAME)) as other:
        other.execute("DELETE FROM blocks WHERE key = 'x'")
        other.commit()
    with closing(Store.open(tmp_path)) as again:
        assert again.set_aside is not None
        assert again.set_aside[0] == "damaged"


def test_blocks_that_could_not_be_written_are_written_with_the_next(tmp_path: Path):
    store = filled(tmp_path)
    assert store._connection is not None
    store._connection.execute("PRAGMA max_page_count=12")
    with pytest.raises(StateError):
        store.write({}, {}, {"x": b"1" * 10**6})
    assert store.read("x") is None
    store._connection.execute("PRAGMA max_page_count=100000")
    store.write({}, {}, {"y": b"2"})
    assert store.read("x") == b"1" * 10**6
    assert store.read("y") == b"2"
    store.close()


def test_of_a_file_that_is_lost_blocks_are_lost_and_entries_are_not(tmp_path: Path):
    store = filled(tmp_path)
    store.write({}, {}, {"x": b"1"})
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    with suppress(StateError):
        store.write({}, {})
    store.write({}, {}, {"y": b"2"})
    assert (store.read("x"), store.read("y")) == (None, b"2")
    store.close()
    with closing(Store.open(tmp_path)) as again:
        assert again.entries == FIRST[0]


# ---- one process at a time -------------------------------------------------------------------------------------------

HOLDER = """
import sys
from pathlib import Path
from exporter.app.state import Store
store = Store.open(Path(sys.argv[1]))
store.write({"a": b"1"}, {"kafka": {"0": "1"}})
print("open", flush=True)
sys.stdin.read()
"""


@contextmanager
def running(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path):
    with running(HOLDER, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        with pytest.raises(Unavailable, match=f"state {tmp_path}: another process is using it"):
            Store.open(tmp_path)
        assert files(tmp_path) == {NAME, f"{NAME}-wal"}

        process.kill()
        process.wait()
        with closing(Store.open(tmp_path)) as store:
            assert (store.entries, store.positions) == ({"a": b"1"}, {"kafka": {"0": "1"}})


WRITER = """
import random, sys
from pathlib import Path
from exporter.app.state import Store
store, rng = Store.open(Path(sys.argv[1])), random.Random(sys.argv[2])
assert store.set_aside is None
start = int(store.positions.get("kafka", {}).get("0", "0"))
entries = dict(store.entries)
entries.pop("sum", None)
for number in range(start + 1, start + 10_000):
    changed = {f"k{rng.randrange(30)}": b"%d " % number * rng.choice([1, 500, 5000]) for _ in range(5)}
    gone = {key: None for key in entries if rng.random() < 0.1 and key not in changed}
    entries = {key: value for key, value in entries.items() if key not in gone} | changed
    sum_ = b"%d %d" % (number, sum(map(len, entries.values())))
    changes = entries if number == start + 1 else {**changed, **gone}
    store.write({**changes, "sum": sum_}, {"kafka": {"0": str(number)}})
    print(number, flush=True)
"""


def test_a_process_that_is_killed_leaves_one_whole_transaction(tmp_path: Path):
    rng = random.Random(3)
    for _ in range(6):
        with running(WRITER, tmp_path, rng.random()) as process:
            assert process.stdout is not None
            number = 0
            for _ in range(rng.choice([1, 2, 10, 40, 150])):
                number = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            process.wait()
            for line in process.stdout:  # what was reported before the signal arrived
                number = int(line) if line.endswith("\n") else number

        entries, positions = held(tmp_path)
        written = int(positions["kafka"]["0"])
        assert written in (number, number + 1), "nothing that was reported is lost"
        stamp, total = map(int, entries.pop("sum").split())
        assert (stamp, total) == (written, sum(map(len, entries.values()))), "entries and positions are of one write"


# ---- writing fails ---------------------------------------------------------------------------------------------------


def test_while_the_disk_is_full_nothing_is_lost(tmp_path: Path):
    store = filled(tmp_path)
    assert store._connection is not None
    store._connection.execute("PRAGMA max_page_count=12")

    with pytest.raises(StateError, match=f"{tmp_path}/{NAME}: database or disk is full") as caught:
        store.write({"a": b"2" * 200_000, "b": None}, {"kafka": {"t/0": "6"}})
    assert store.trouble == str(caught.value)
    assert held(tmp_path) == FIRST, "the last good state"

    with pytest.raises(StateError):
        store.write({"c": b"3" * 200_000}, {"file": {"x": "9"}})
    assert held(tmp_path) == FIRST

    store._connection.execute("PRAGMA max_page_count=100000")
    store.write({"d": b"4"}, {})

    assert store.trouble is None
    entries = {"a": b"2" * 200_000, "c": b"3" * 200_000, "d": b"4"}
    assert held(tmp_path) == (entries, {"kafka": {"t/0": "6"}, "file": {"x": "9"}})


@contextmanager
def small_disk(directory: Path, options: str = "size=1m") -> Iterator[Callable[[str], object]]:
    """A file system of its own, where mounting is allowed; called with other options, it is mounted anew with them."""

    def mount(*arguments: str) -> bool:
        command = ["mount", "-t", "tmpfs", *arguments, "tmpfs", str(directory)]
        try:
            return subprocess.run(command, capture_output=True, check=False).returncode == 0
        except FileNotFoundError:
            return False

    directory.mkdir()
    if not mount("-o", options):
        pytest.skip("mounting is not allowed here")
    try:
        yield lambda options: mount("-o", f"remount,{options}")
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


def test_a_disk_that_really_is_full(tmp_path: Path):
    def fill(hog: Path) -> None:
        with suppress(OSError), hog.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    with small_disk(tmp_path / "disk"):
        directory = tmp_path / "disk" / "state"
        store = filled(directory)
        hog = tmp_path / "disk" / "hog"
        fill(hog)
        for number in range(3):
            with pytest.raises(StateError, match=r"disk is full|No space|disk I/O error"):
                store.write({f"k{number}": b"3" * 100_000}, {"file": {"x": str(number)}})
        assert held(directory) == FIRST
        fresh = Store.open(tmp_path / "disk" / "other")
        assert (fresh.entries, fresh.set_aside) == ({}, None)
        with pytest.raises(StateError, match=r"disk is full|No space|disk I/O error"):
            fresh.write(*FIRST)
        restarted = filled_again(directory, store)

        hog.unlink()
        restarted.write({}, {})
        expected = FIRST[0] | {f"k{number}": b"3" * 100_000 for number in range(3)}
        assert held(directory) == (expected, FIRST[1] | {"file": {"x": "2"}})
        fresh.write({}, {})
        assert held(tmp_path / "disk" / "other") == FIRST
        restarted.close()
        fresh.close()


def filled_again(directory: Path, store: Store) -> Store:
    """A restart while the disk is full: what was written is there, and the new process waits for room, too."""
    store.close()
    again = Store.open(directory)
    assert (again.entries, again.positions) == FIRST
    with pytest.raises(StateError):
        again.write(again.entries | {f"k{number}": b"3" * 100_000 for number in range(3)}, {"file": {"x": "2"}})
    return again


def test_a_disk_that_is_read_only(tmp_path: Path):
    with small_disk(tmp_path / "disk") as remount:
        directory = tmp_path / "disk"
        with running(HOLDER, directory) as process:  # it leaves a log behind
            assert process.stdout is not None
            process.stdout.readline()
        remount("ro")

        store = Store.open(directory)
        assert (store.entries, store.positions) == ({"a": b"1"}, {"kafka": {"0": "1"}})
        assert store.trouble is not None
        assert store.trouble.startswith(f"{directory}/{NAME}: ")
        with pytest.raises(StateError, match=str(directory)):
            store.write({"a": b"2"}, {"kafka": {"0": "2"}})
        nothing = Store.open(directory / "other")
        assert nothing.trouble == f"{directory}/other/{NAME}: Read-only file system"

        remount("rw")
        store.write({"b": b"3"}, {})
        assert held(directory) == ({"a": b"2", "b": b"3"}, {"kafka": {"0": "2"}})
        store.close()


@contextmanager
def unprivileged() -> Iterator[Path]:
    """A directory whose permissions bind this process, root or not."""
    user = os.geteuid()
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield folder
    finally:
        os.seteuid(user)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o777)
        shutil.rmtree(folder)


@pytest.mark.parametrize("log", [True, False])
def test_without_the_right_to_write_the_state_is_read_and_written_once_it_is_there(log: bool):
    with unprivileged() as folder:
        directory = folder / "state"
        if log:
            filled(folder / "source")
            shutil.copytree(folder / "source", directory)
            (directory / NAME).chmod(0o444)
        else:
            filled(directory).close()
        directory.chmod(0o555)
        before = {path.name: path.read_bytes() for path in directory.iterdir()}

        store = Store.open(directory)
        assert (store.entries, store.positions) == FIRST
        assert store.trouble is not None
        for number in range(2):
            with pytest.raises(StateError, match=str(directory)):
                store.write({"a": b"%d" % number}, {"kafka": {"t/0": str(number)}})
        assert {path.name: path.read_bytes() for path in directory.iterdir()} == before

        directory.chmod(0o777)
        (directory / NAME).chmod(0o666)
        store.write({"b": b"9"}, {})
        assert held(directory) == ({"a": b"1", "b": b"9"}, FIRST[1] | {"kafka": {"t/0": "1"}})
        store.close()


def test_a_place_where_no_directory_can_be_made(tmp_path: Path):
    (tmp_path / "taken").write_text("a file")

    store = Store.open(tmp_path / "taken")
    assert (store.entries, store.trouble) == ({}, f"{tmp_path}/taken/{NAME}: File exists")
    with pytest.raises(StateError, match="File exists"):
        store.write(*FIRST)

    (tmp_path / "taken").unlink()
    store.write({}, {})
    assert held(tmp_path / "taken") == FIRST
    store.close()


@pytest.mark.parametrize("which", [NAME, f"{NAME}-wal"])
def test_a_state_that_may_not_be_read_is_not_started_without(which: str):
    """To start empty would be to overwrite the last good state as soon as that is possible."""
    with unprivileged() as folder:
        filled(folder / "source")
        shutil.copytree(folder / "source", folder / "state")
        (folder / "state" / which).chmod(0)

        with pytest.raises(Unavailable, match=f"state {folder}/state: cannot be read: "):
            Store.open(folder / "state")

        (folder / "state" / which).chmod(0o666)
        (folder / "state").chmod(0)
        with pytest.raises(Unavailable, match="cannot be read: Permission denied"):
            Store.open(folder / "state")
        (folder / "state").chmod(0o777)
        assert held(folder / "state") == FIRST


@pytest.mark.parametrize("lost", ["directory", "database", "log"])
def test_files_that_vanish_are_written_anew(tmp_path: Path, lost: str):
    directory = tmp_path / "state"
    store = filled(directory)
    if lost == "directory":
        shutil.rmtree(directory)
    else:
        (directory / (NAME if lost == "database" else f"{NAME}-wal")).unlink()

    store.write({"c": b"3"}, {})

    assert held(directory) == ({**FIRST[0], "c": b"3"}, FIRST[1])
    store.close()


def test_files_that_vanish_during_a_write_are_not_reported_as_written(tmp_path: Path):
    store = filled(tmp_path)
    assert store._connection is not None
    log = tmp_path / f"{NAME}-wal"
    store._connection.set_trace_callback(lambda statement: log.unlink() if statement == "COMMIT" else None)

    with pytest.raises(StateError, match="deleted or replaced"):
        store.write({"c": b"3"}, {})

    store.write({}, {})
    assert held(tmp_path) == ({**FIRST[0], "c": b"3"}, FIRST[1])
    store.close()


def test_a_database_that_is_replaced_while_it_is_open(tmp_path: Path):
    """By an older copy, say: the counters that were shown are those of the process."""
    filled(tmp_path / "old").close()
    store = filled(tmp_path / "state", ({"x": b"1"}, {}))
    (tmp_path / "old" / NAME).rename(tmp_path / "state" / NAME)

    store.write({"y": b"2"}, {})

    assert held(tmp_path / "state") == ({"x": b"1", "y": b"2"}, {})
    store.close()


def test_a_database_that_is_damaged_while_it_is_open_is_written_anew(tmp_path: Path):
    store = filled(tmp_path)
    assert store._connection is not None
    for path in tmp_path.iterdir():
        with path.open("r+b") as file:
            file.write(random.Random(0).randbytes(path.stat().st_size))
    store._connection.execute("PRAGMA shrink_memory")  # what it has in memory would hide it

    store.write({"a": None, "new": b"1"}, {"file": {"x": "2"}})

    assert store.set_aside is not None
    assert store.set_aside[0] == "damaged"
    assert held(tmp_path) == ({"b": FIRST[0]["b"], "new": b"1"}, FIRST[1] | {"file": {"x": "2"}})
    store.close()


# ---- databases that must not be used ---------------------------------------------------------------------------------


def assert_left(directory: Path, reason: str) -> None:
    """It was moved aside as it was, said so, and a fresh one started."""
    before = {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}

    store = Store.open(directory)

    assert (store.entries, store.positions, store.trouble) == ({}, {}, None)
    assert store.set_aside is not None
    assert store.set_aside[0] == reason
    assert store.set_aside[1].name.startswith(f"{NAME}.{reason}-2")
    assert_moved(before, store.set_aside[1])
    store.write(*FIRST)
    assert held(directory) == FIRST
    store.close()


def assert_moved(before: dict[str, bytes], aside: Path) -> None:
    """Every file is there as it was; SQLite may have made an empty log for one that had none."""
    for name, content in before.items():
        assert aside.with_name(name.replace(NAME, aside.name)).read_bytes() == content


def sql(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize(
    ("statements", "reason"),
    [
        (["PRAGMA user_version=3"], "newer"),
        (["PRAGMA user_version=3", "DROP TABLE entries", "CREATE TABLE other (x)"], "newer"),
        (["PRAGMA user_version=1"], "damaged"),
        (["PRAGMA user_version=0"], "damaged"),
        (["PRAGMA application_id=7"], "foreign"),
        (["CREATE TABLE other (x)"], "foreign"),
        (["CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM positions; END"], "foreign"),
        (["DROP TABLE positions"], "damaged"),
        (["DELETE FROM seal"], "damaged"),
        (["INSERT INTO seal SELECT * FROM seal"], "damaged"),
        (["UPDATE entries SET value = x'31' WHERE key = 'b'"], "damaged"),
        (["UPDATE entries SET value = '1' WHERE key = 'a'"], "damaged"),
        (["UPDATE entries SET key = x'ff' WHERE key = 'a'"], "damaged"),
        (["UPDATE entries SET key = CAST(x'ff' AS TEXT) WHERE key = 'a'"], "damaged"),
        (["DELETE FROM entries WHERE key = 'a'"], "damaged"),
        (["UPDATE positions SET position = '6' WHERE partition = 't/0'"], "damaged"),
        (["UPDATE positions SET position = x'ff'"], "damaged"),
    ],
)
def test_a_database_with_other_contents_is_left(tmp_path: Path, statements: list[str], reason: str):
    filled(tmp_path).close()
    sql(tmp_path / NAME, *statements)

    assert_left(tmp_path, reason)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "damaged"), (b"short", "damaged"), (b"no database at all, but text" * 99, "damaged")],
)
def test_what_is_no_database_is_left(tmp_path: Path, content: bytes, reason: str):
    (tmp_path / NAME).write_bytes(content)

    assert_left(tmp_path, reason)


def test_a_database_that_could_be_read_but_never_written_is_left(tmp_path: Path):
    filled(tmp_path).close()
    with (tmp_path / NAME).open("r+b") as file:
        file.seek(18)
        file.write(b"\x03")  # SQLite takes it for the format of a later SQLite

    assert_left(tmp_path, "damaged")


def test_a_database_of_somebody_else_is_left(tmp_path: Path):
    sql(tmp_path / NAME, "CREATE TABLE theirs (x)", "PRAGMA journal_mode=WAL")

    assert_left(tmp_path, "foreign")


def test_a_directory_in_its_place_is_left(tmp_path: Path):
    (tmp_path / NAME).mkdir()

    assert_left(tmp_path, "foreign")


def test_a_log_without_its_database_is_not_taken_for_that_of_a_fresh_one(tmp_path: Path):
    store = filled(tmp_path / "source")
    (tmp_path / "state").mkdir()
    shutil.copy(tmp_path / "source" / f"{NAME}-wal", tmp_path / "state")
    store.close()

    assert_left(tmp_path / "state", "damaged")


def test_several_in_one_second_are_all_kept(tmp_path: Path):
    for _ in range(3):
        (tmp_path / NAME).write_bytes(b"no database")
        assert_left_only(tmp_path)
    assert len(files(tmp_path)) == 1 + 3


def assert_left_only(directory: Path) -> None:
    with closing(Store.open(directory)) as store:
        assert store.set_aside is not None


def test_what_a_process_was_killed_over_while_making_it_is_made_anew(tmp_path: Path):
    (tmp_path / f"{NAME}.new").write_bytes(b"half")
    (tmp_path / f"{NAME}.new-journal").write_bytes(b"half")

    filled(tmp_path).close()

    assert files(tmp_path) == {NAME}
    assert held(tmp_path) == FIRST


def test_a_state_that_the_fleet_refuses_is_put_aside_with_its_positions(tmp_path: Path):
    filled(tmp_path).close()
    store = Store.open(tmp_path)

    store.put_aside("newer", "state 2 expected, found 3")

    assert (store.entries, store.positions) == ({}, {})
    assert store.set_aside is not None
    assert store.set_aside[0] == "newer"
    store.write({"z": b"1"}, {})
    store.close()
    with closing(Store.open(tmp_path)) as again:
        assert (again.entries, again.positions) == ({"z": b"1"}, {})
    store.set_aside[1].rename(tmp_path / NAME)
    with closing(Store.open(tmp_path)) as again:
        assert (again.entries, again.positions) == FIRST, "as it was, for a release that can read it"


def test_what_cannot_be_moved_aside_is_not_overwritten():
    with unprivileged() as folder:
        filled(folder / "state").close()
        sql(folder / "state" / NAME, "PRAGMA user_version=9")
        (folder / "state").chmod(0o555)
        before = (folder / "state" / NAME).read_bytes()

        store = Store.open(folder / "state")
        assert (store.entries, store.set_aside) == ({}, None)
        with pytest.raises(StateError, match="Permission denied"):
            store.write(*FIRST)
        assert (folder / "state" / NAME).read_bytes() == before

        (folder / "state").chmod(0o777)
        store.write({}, {})
        assert store.set_aside is not None
        assert store.set_aside[1].read_bytes() == before
        store.close()
        with closing(Store.open(folder / "state")) as again:
            assert (again.entries, again.positions) == FIRST


def harm(path: Path, rng: random.Random) -> None:
    """Damage a file in one of the ways in which files are damaged."""
    content = bytearray(path.read_bytes())
    place = rng.randrange(len(content))
    kind = rng.choice(["bit", "bit", "bit", "header", "cut", "zeros", "garbage", "longer", "empty", "gone"])
    if kind == "bit":
        content[place] ^= 1 << rng.randrange(8)
    elif kind == "header":
        content[rng.randrange(100)] = rng.randrange(256)
    elif kind == "cut":
        del content[place:]
    elif kind == "zeros":
        content[place : place + 512] = bytes(len(content[place : place + 512]))
    elif kind == "garbage":
        content[place : place + 4096] = rng.randbytes(len(content[place : place + 4096]))
    elif kind == "longer":
        content += rng.randbytes(3000)
    elif kind == "empty":
        content.clear()
    path.write_bytes(content)
    if kind == "gone":
        path.unlink()


@pytest.mark.parametrize("kind", ["closed", "with a log", "with a log that is in the database too"])
def test_whatever_happens_to_the_files_it_is_one_transaction_or_none(tmp_path: Path, kind: str):
    rng = random.Random(kind)
    source, states = Store.open(tmp_path / "source"), list[State]()
    for number in range(12):
        changes: dict[str, bytes | None] = {
            f"k{rng.randrange(12)}": rng.randbytes(rng.choice([10, 300, 5000, 20_000])) for _ in range(4)
        }
        changes |= {} if number < 6 else {f"k{rng.randrange(12)}": None}
        source.write(changes, {"kafka": {str(partition): str(10 * number) for partition in range(5)}})
        states.append((dict(source._entries), {"kafka": dict(source.positions["kafka"])}))
    assert source._connection is not None
    if kind == "closed":
        source.close()
    elif kind != "with a log":
        source._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    harmed = tmp_path / "harmed"
    found = set[str]()
    for _ in range(120):
        shutil.copytree(tmp_path / "source", harmed)
        harm(rng.choice(sorted(harmed.iterdir())), rng)
        before = {path.name: path.read_bytes() for path in harmed.iterdir()}
        with closing(Store.open(harmed)) as store:
            assert store.trouble is None
            if store.set_aside is None:
                found.add("last" if (store.entries, store.positions) == states[-1] else "an earlier one")
                assert (store.entries, store.positions) in [({}, {}), *states], "not a mixture"
            else:
                found.add("none")
                assert (store.entries, store.positions) == ({}, {})
                assert_moved(before, store.set_aside[1])
            store.write({"new": b"1"}, {"kafka": {"0": "99"}})
        with closing(Store.open(harmed)) as store:
            assert (store.entries, store.positions) == ({"new": b"1"}, {"kafka": {"0": "99"}})
        shutil.rmtree(harmed)
    source.close()
    assert found >= {"last", "none"}
