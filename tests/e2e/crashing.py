"""An exporter that is killed and started again, and what the state's log on disk tells of the moment."""

import os
import random
import struct
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.running import ROOT, command

_HEADER, _FRAME = struct.Struct(">8I"), struct.Struct(">6I")
_LONGEST_WAIT_S = 10.0


@dataclass
class Crashing:
    """One process at a time, each with the same configuration; all say what they say into one log."""

    config: Path
    log: Path
    kills: int = 0
    mid_write: int = 0
    """Kills that left a transaction on disk without its end."""
    at_write: int = 0
    """Kills right after the log on disk was seen to change."""
    lived_s: list[float] = field(default_factory=list)

    def live(self, state: Path, rng: random.Random) -> None:
        """Start, and kill without warning: at a random moment, or as soon as one of the next writes begins."""
        wal = state / "state.sqlite3-wal"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        started = time.monotonic()
        with (
            self.log.open("ab") as log,
            subprocess.Popen(
                command("run", "--config", str(self.config)), stdout=log, stderr=log, cwd=ROOT, env=environment
            ) as process,
        ):
            try:
                if rng.random() < 0.6:
                    for _ in range(rng.randint(1, 6)):
                        changed(wal, process)
                    self.at_write += 1
                else:
                    _still_alive(process, started + rng.uniform(0.2, 4.0))
            finally:
                process.kill()
        assert process.returncode == -9, self.log.read_text()[-2000:]
        self.kills += 1
        self.lived_s.append(time.monotonic() - started)
        self.mid_write += torn(wal)


def torn(wal: Path) -> bool:
    """Whether a write-ahead log ends with pages of a transaction whose last page it lacks."""
    written = wal.read_bytes() if wal.exists() else b""
    if len(written) < _HEADER.size:
        return False
    _, _, page_size, _, *salt, _, _ = _HEADER.unpack_from(written)
    complete = True
    for start in range(_HEADER.size, len(written), _FRAME.size + page_size):
        if start + _FRAME.size + page_size > len(written):
            return True
        _, database_pages, *frame_salt, _, _ = _FRAME.unpack_from(written, start)
        if frame_salt != salt:
            break  # left over from before the log was started anew
        complete = database_pages != 0
    return not complete


def changed(wal: Path, process: "subprocess.Popen[bytes]") -> None:
    """Return as soon as the log changes; looking is all that is done meanwhile."""
    before = _stamp(wal)
    deadline = time.monotonic() + _LONGEST_WAIT_S
    while _stamp(wal) in (before, None):
        assert process.poll() is None, f"ended with {process.returncode}"
        assert time.monotonic() < deadline, "the state was not written"


def _still_alive(process: "subprocess.Popen[bytes]", until: float) -> None:
    try:
        process.wait(max(until - time.monotonic(), 0))
    except subprocess.TimeoutExpired:
        return
    raise AssertionError(f"ended with {process.returncode}")


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size
