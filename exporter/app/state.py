"""The state on disk: one SQLite database that holds the last transaction whole, whatever happens to the process.

A transaction replaces what has changed of the fleet together with the positions of the sources, and is on disk (WAL,
synchronous=FULL) before `write` returns. While writing fails, changes are kept and written with the next that succeed.

Entries are kept in memory too: whatever becomes of the file, they can be written anew. Blocks of rows are not, once
they are durable: they are read again one by one, by any thread, and those of a file that is lost are lost.

A database that is damaged, of a later release or somebody else's is moved aside with all its files and a fresh one
started: it is never used, and never deleted. What cannot be seen is a write-ahead log that has lost its end, or a whole
older copy of the files: then the state is that of an earlier transaction, whole in itself. Counters have gone back to
it, and sources resume from its positions.
"""

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from exporter.app.database import (
    BESIDE,
    NAME,
    Held,
    Reason,
    Unusable,
    cause_of,
    check_header,
    checksum,
    code_of,
    connect,
    create,
    is_busy,
    is_trouble,
    read,
    read_block,
    readable,
    seal_of,
    stat_of,
    sync_directory,
)
from exporter.ingest.source import Unavailable

logger = logging.getLogger(__name__)

Changes: TypeAlias = Mapping[str, bytes | None]
"""Values by key; None for one that is gone."""
PositionsBySource: TypeAlias = Mapping[str, Mapping[str, str]]
"""Where each partition of each source is."""


class StateError(Exception):
    """The state could not be written; the message says where and why. The last that was written is as it was."""


class Store:
    """The state of one process in one directory. Calls may come from any thread, one at a time."""

    def __init__(self, directory: Path) -> None:
        """Use `Store.open`."""
        self.path = directory.absolute() / NAME
        self.entries: dict[str, bytes] = {}
        """What the last process left; let go with the first write."""
        self.positions: dict[str, dict[str, str]] = {}
        """Where each partition of each source was with it."""
        self.set_aside: tuple[Reason, Path] | None = None
        """Why and where to a database was moved that could not be used."""
        self.trouble: str | None = None
        """Why nothing can be written; each write tries again."""
        self._directory = directory
        self._connection: sqlite3.Connection | None = None
        self._files: tuple[int | None, ...] = ()
        self._unusable: Unusable | None = None
        # All that is to be durable: whatever becomes of the file, it can be written anew.
        self._entries: dict[str, bytes] = {}
        self._checksums: dict[str, int] = {}
        self._blocks: dict[str, int] = {}
        self._due_blocks: dict[str, bytes | None] = {}
        self._lock = threading.Lock()
        self._seal = 0
        self._due: set[str] | None = None
        self._due_sources: set[str] = set()

    @classmethod
    def open(cls, directory: Path) -> "Store":
        """Open the state in a directory, which is made if it is missing, and read it.

        Where nothing can be written the state is read all the same, and `trouble` says why. Raises Unavailable when
        another process uses it, or when there is one that cannot be read: to start without would be to lose it.
        """
        store = cls(directory)
        try:
            held = store._attach()
        except (sqlite3.Error, OSError, Unusable) as error:
            if is_busy(error):
                raise Unavailable(f"state {directory}: another process is using it") from None
            store.trouble = f"{store.path}: {cause_of(error)}"
            held = store._read_only()
        store.entries, store.positions, store._seal = held.entries, held.positions, held.seal
        store._blocks = held.blocks
        return store

    @property
    def size_bytes(self) -> int:
        """Size of the database and its log."""
        return sum(found.st_size for found in map(stat_of, self._paths("", "-wal")) if found is not None)

    def read(self, key: str) -> bytes | None:
        """A durable block; None if it is not there, or damaged. Implements blocks.Shelf, for any thread."""
        with self._lock:
            if self._connection is None:
                return None
            try:
                return read_block(self._connection, key)
            except sqlite3.Error:
                return None

    def write(self, changes: Changes, positions: PositionsBySource, blocks: Changes | None = None) -> None:
        """Make changes, and all positions of the sources that are given, durable in one transaction.

        The first changes of a process are its whole state, but for blocks. Raises StateError; then they are kept for
        the next write.
        """
        with self._lock:
            self._write(changes, positions, blocks or {})

    def _write(self, changes: Changes, positions: PositionsBySource, blocks: Changes) -> None:
        self._take(changes, positions)
        self._due_blocks.update(blocks)
        try:
            if self._connection is not None and self._files != self._inodes():
                self._detach()
            try:
                self._transact()
            except sqlite3.DatabaseError as error:
                if code_of(error) is None or is_trouble(error):
                    raise
                self._leave(Unusable("damaged", str(error)))
                self._transact()
        except (sqlite3.Error, OSError, UnicodeEncodeError, Unusable) as error:
            self._recover(error)
            self.trouble = f"{self.path}: {'another process is using it' if is_busy(error) else cause_of(error)}"
            raise StateError(self.trouble) from None
        self.trouble = None

    def keep_blocks(self, keys: Collection[str]) -> None:
        """Let all blocks but these be gone with the next write: their reader has no use for them."""
        self._due_blocks.update({key: None for key in self._blocks if key not in keys})

    def put_aside(self, reason: Reason, detail: str) -> None:
        """Move the database aside and start a fresh one, as its reader cannot use what it holds."""
        self.entries, self.positions, self._blocks = {}, {}, {}
        self._unusable = Unusable(reason, detail)
        try:
            self._leave(self._unusable)
            self._attach()
        except (sqlite3.Error, OSError, Unusable) as error:
            self.trouble = f"{self.path}: {cause_of(error)}"

    def close(self) -> None:
        """Let another process have it."""
        self._detach()

    # ---- opening ---------------------------------------------------------------------------------------------------

    def _attach(self) -> Held:
        """Open the database for writing, a fresh one where there is none that can be used; returns what it holds."""
        self._directory.mkdir(parents=True, exist_ok=True)
        if self._unusable is not None:
            self._leave(self._unusable)
        if not self.path.exists():
            self._create()
        try:
            return self._connect()
        except Unusable as error:
            self._leave(error)
            self._create()
            return self._connect()

    def _connect(self) -> Held:
        if not self.path.is_file():
            raise Unusable("foreign", "not a file")
        check_header(self.path)
        connection = self._connection = connect(self.path)
        try:
            held = read(connection)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("BEGIN IMMEDIATE")  # tells whether it can be written, and makes the log
            connection.execute("COMMIT")
        except Unusable:
            raise  # the connection is closed when its files have been moved
        except BaseException:
            self._detach()
            raise
        if held.seal != self._seal:
            self._due = None  # it is not what was written last
            self._blocks = {key: one for key, one in self._blocks.items() if held.blocks.get(key) == one}
        self._files = self._inodes()
        return held

    def _create(self) -> None:
        if any(path.exists() for path in self._paths(*BESIDE)):
            # It would be taken for the log of the new one.
            self._leave(Unusable("damaged", "a log without its database"))
        create(self.path)

    def _read_only(self) -> Held:
        """What a database holds that cannot be opened for writing; nothing if there is none."""
        try:
            if not self.path.exists():
                return Held()
            with readable(self.path) as connection:
                return read(connection)
        except (OSError, sqlite3.Error) as error:
            raise Unavailable(f"state {self._directory}: cannot be read: {cause_of(error)}") from None
        except Unusable as error:
            self._unusable = error
            self.trouble = f"{self.path}: {error}; it cannot be moved aside"
            return Held()

    # ---- writing ---------------------------------------------------------------------------------------------------

    def _take(self, changes: Changes, positions: PositionsBySource) -> None:
        """Take note of what is to be durable."""
        self.entries = {}
        for key, value in changes.items():
            if value is None:
                self._entries.pop(key, None)
                self._checksums.pop(key, None)
            else:
                self._entries[key] = value
                self._checksums[key] = checksum(key, value)
        if self._due is not None:
            self._due |= changes.keys()
        for source, of_source in positions.items():
            if self.positions.get(source) != of_source:
                self.positions[source] = dict(of_source)
                self._due_sources.add(source)

    def _transact(self) -> None:
        """Write what is due, or everything into a database that holds something else."""
        if self._connection is None:
            self._attach()
        connection = self._connection
        assert connection is not None  # noqa: S101 - just attached
        connection.execute("BEGIN IMMEDIATE")
        due, sources = self._due, self._due_sources
        if due is None:
            connection.execute("DELETE FROM entries")
            connection.execute("DELETE FROM positions")
            others = [(key,) for (key,) in connection.execute("SELECT key FROM blocks") if key not in self._blocks]
            connection.executemany("DELETE FROM blocks WHERE key = ?", others)
            due, sources = set(self._entries), set(self.positions)
        connection.executemany("DELETE FROM entries WHERE key = ?", [(key,) for key in due - self._entries.keys()])
        connection.executemany(
            "INSERT INTO entries VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            [(key, self._entries[key]) for key in due & self._entries.keys()],
        )
        connection.executemany("DELETE FROM positions WHERE source = ?", [(source,) for source in sources])
        connection.executemany(
            "INSERT INTO positions VALUES (?, ?, ?)",
            [(source, *position) for source in sources for position in self.positions[source].items()],
        )
        blocks = {key: checksum(key, value) for key, value in self._due_blocks.items() if value is not None}
        connection.executemany("DELETE FROM blocks WHERE key = ?", [(key,) for key in self._due_blocks])
        connection.executemany(
            "INSERT INTO blocks VALUES (?, ?, ?)", [(key, blocks[key], self._due_blocks[key]) for key in blocks]
        )
        blocks = {key: one for key, one in self._blocks.items() if key not in self._due_blocks} | blocks
        seal = seal_of([*self._checksums.values(), *blocks.values()], self.positions)
        connection.execute("UPDATE seal SET checksum = ?", (seal,))
        connection.execute("COMMIT")
        if self._files != self._inodes():
            raise OSError("its files were deleted or replaced")
        self._seal, self._due, self._due_sources = seal, set(), set()
        self._blocks, self._due_blocks = blocks, {}

    def _recover(self, error: Exception) -> None:
        """Make the next write possible after one that failed."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            if code_of(error) != sqlite3.SQLITE_FULL:
                self._detach()

    # ---- files -----------------------------------------------------------------------------------------------------

    def _leave(self, why: Unusable) -> None:
        """Move the database aside. Raises OSError; then it will not be used until that has succeeded."""
        self._unusable = why
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        aside = self.path.with_name(f"{NAME}.{why.reason}-{stamp}")
        number = 1
        while any(aside.with_name(aside.name + suffix).exists() for suffix in ("", *BESIDE)):
            number += 1
            aside = aside.with_name(f"{NAME}.{why.reason}-{stamp}-{number}")
        try:
            # The log first: beside a fresh database it would be taken for the log of that.
            for suffix in (*BESIDE, ""):
                with contextlib.suppress(FileNotFoundError):
                    self.path.with_name(NAME + suffix).rename(aside.with_name(aside.name + suffix))
            sync_directory(self.path.parent)
        finally:
            # Not before: SQLite would merge the log into the database and delete it. Once they are moved it does not.
            self._detach()
        self.set_aside = (why.reason, aside)
        self._unusable, self._due = None, None
        logger.error("state %s: %s; moved aside to %s", self._directory, why, aside)

    def _detach(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _paths(self, *suffixes: str) -> list[Path]:
        return [self.path.with_name(NAME + suffix) for suffix in suffixes]

    def _inodes(self) -> tuple[int | None, ...]:
        """Which files the names stand for now; a connection goes on with those it has opened, deleted or not."""
        return tuple(None if found is None else found.st_ino for found in map(stat_of, self._paths("", "-wal")))
