"""The SQLite database that a state is kept in: how it is made, opened, and told from one that must not be used.

SQLite checks its pages. A seal (the sum of checksums of all rows, written in every transaction) tells what it cannot:
flipped bits within values, rows of different transactions, rows that somebody edited. Blocks are many and large: of
them the seal knows the checksums that stand beside them, and their values are checked when they are read.
"""

import contextlib
import os
import shutil
import sqlite3
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import quote

import msgspec

NAME = "state.sqlite3"
APPLICATION_ID = 0x4D484558  # MHEX
SCHEMA = 2

Reason: TypeAlias = Literal["damaged", "newer", "foreign"]

_TABLES = {
    "entries": "CREATE TABLE entries (key TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL)",
    "positions": "CREATE TABLE positions (source TEXT NOT NULL, partition TEXT NOT NULL, position TEXT NOT NULL, "
    "PRIMARY KEY (source, partition))",
    "blocks": "CREATE TABLE blocks (key TEXT PRIMARY KEY NOT NULL, checksum INTEGER NOT NULL, value BLOB NOT NULL)",
    "seal": "CREATE TABLE seal (checksum INTEGER NOT NULL)",
}
BESIDE = ("-wal", "-shm", "-journal")
_WAL_BYTES = 4 * 2**20
"""What is left of a log that one large transaction has made longer; usually it is started anew at this length."""

_PRAGMAS = (
    "locking_mode=EXCLUSIVE",  # nobody else may write; before the first access, so that no shared memory is needed
    "synchronous=FULL",
    "cell_size_check=ON",
    "trusted_schema=OFF",
    "mmap_size=0",  # reading a page that a damaged file lacks must be an error, not a signal
    "cache_size=-2000",
    f"journal_size_limit={_WAL_BYTES}",
)
_TROUBLES = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
}


class Unusable(Exception):
    """A database that must not be used."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason


@dataclass(frozen=True, slots=True)
class Held:
    """What a database holds."""

    entries: dict[str, bytes] = field(default_factory=dict)
    positions: dict[str, dict[str, str]] = field(default_factory=dict)
    blocks: dict[str, int] = field(default_factory=dict)
    """The checksum of each."""
    seal: int = 0


# ---- making ----------------------------------------------------------------------------------------------------------


def create(path: Path) -> None:
    """A fresh database, there at once and whole."""
    fresh = path.with_name(path.name + ".new")
    for suffix in ("", *BESIDE):
        fresh.with_name(fresh.name + suffix).unlink(missing_ok=True)
    # What models learn from may be personal data.
    os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o660))
    with contextlib.closing(connect(fresh)) as connection:
        connection.execute("BEGIN")
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={SCHEMA}")
        for table in _TABLES.values():
            connection.execute(table)
        connection.execute("INSERT INTO seal VALUES (0)")
        connection.execute("COMMIT")
    fresh.rename(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make names durable: those of new and of renamed files."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def connect(path: Path, options: str = "mode=rw") -> sqlite3.Connection:
    """A connection for any thread, without transactions of its own making; nothing has been read yet."""
    address = f"file:{quote(os.fsencode(path))}?{options}"
    return sqlite3.connect(address, uri=True, timeout=0, isolation_level=None, check_same_thread=False)


# ---- reading ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def readable(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a database that cannot be opened for writing: SQLite must write to read a log."""
    log = stat_of(path.with_name(path.name + "-wal"))
    with contextlib.ExitStack() as stack:
        if log is None or log.st_size == 0:
            check_header(path)
            yield stack.enter_context(contextlib.closing(connect(path, "mode=ro&immutable=1")))
            return
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        for suffix in ("", "-wal"):
            shutil.copyfile(path.with_name(path.name + suffix), Path(folder) / (NAME + suffix))
        check_header(Path(folder) / NAME)
        yield stack.enter_context(contextlib.closing(connect(Path(folder) / NAME)))


def check_header(path: Path) -> None:
    """Refuse what SQLite would open and then go wrong with: an empty file, or one that may be read but not written.

    Must not be called while this process has the database open: closing the file would let go of its lock.
    """
    with path.open("rb") as file:
        header = file.read(20)
    if len(header) < 20 or header[18] != header[19]:
        raise Unusable("damaged", "no database")


def read(connection: sqlite3.Connection) -> Held:
    """What a database holds. Raises Unusable, or sqlite3.Error when that cannot be told."""
    try:
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        _check_kind(connection)
        (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise Unusable("damaged", found)
        entries = dict(connection.execute("SELECT key, value FROM entries"))
        positions: dict[str, dict[str, str]] = {}
        for row in connection.execute("SELECT source, partition, position FROM positions"):
            source, partition, position = map(_text, row)
            positions.setdefault(source, {})[partition] = position
        blocks = dict(connection.execute("SELECT key, checksum FROM blocks"))
        seals = connection.execute("SELECT checksum FROM seal").fetchall()
        checksums = [*(checksum(key, value) for key, value in entries.items()), *blocks.values()]
        seal = seal_of(checksums, positions)
    except sqlite3.Error as error:
        if is_trouble(error):
            raise
        raise Unusable("damaged", str(error)) from None
    except (TypeError, UnicodeEncodeError, AttributeError):
        raise Unusable("damaged", "a value of the wrong type") from None
    if seals != [(seal,)]:
        raise Unusable("damaged", "what it holds does not match its checksum")
    return Held(entries, positions, blocks, seal)


def read_block(connection: sqlite3.Connection, key: str) -> bytes | None:
    """The bytes of a block; None if it is not there, or damaged."""
    try:
        found = connection.execute("SELECT checksum, value FROM blocks WHERE key = ?", (key,)).fetchone()
    except sqlite3.DatabaseError as error:
        if is_trouble(error):
            raise
        return None
    if found is None or not isinstance(found[1], bytes) or checksum(key, found[1]) != found[0]:
        return None
    return found[1]


def _check_kind(connection: sqlite3.Connection) -> None:
    """Raise Unusable unless it is a database of this release."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise Unusable("foreign", "a database of another application")
    if version > SCHEMA:
        raise Unusable("newer", f"schema {SCHEMA} expected, found {version}")
    tables = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
    if tables.keys() - _TABLES.keys():
        raise Unusable("foreign", "it holds other tables")
    if version != SCHEMA or tables != _TABLES:
        raise Unusable("damaged", "tables are missing")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def checksum(key: str, value: bytes) -> int:
    """The part of a row of entries in the seal."""
    return zlib.crc32(value, zlib.crc32(key.encode()))


def seal_of(checksums: Iterable[int], positions: Mapping[str, Mapping[str, str]]) -> int:
    """One number for all rows, in whatever order."""
    rows = ((source, *position) for source, of_source in positions.items() for position in of_source.items())
    return sum(checksums) + sum(zlib.crc32(msgspec.json.encode(row)) for row in rows)


# ---- errors ----------------------------------------------------------------------------------------------------------


def code_of(error: Exception) -> int | None:
    """SQLite's primary result code."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else int(code) & 0xFF


def is_trouble(error: Exception) -> bool:
    """Whether it says nothing about what the database holds."""
    return code_of(error) in _TROUBLES


def is_busy(error: Exception) -> bool:
    """Whether another process has it."""
    return code_of(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def cause_of(error: Exception) -> str:
    """What to tell, without the path."""
    return str(getattr(error, "strerror", None) or error)


def stat_of(path: Path) -> os.stat_result | None:
    """What the system knows of a file; None if it is not there."""
    try:
        return path.stat()
    except OSError:
        return None
