"""The same rows through other libraries, each in a virtual environment of its own that is thrown away afterwards.

They get columns in memory, their best case; ours starts from JSON bytes, the only thing it reads. Installing takes
minutes and the network, so this runs only when asked for.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.bench.figures import Figure
from tests.bench.workloads import REFERENCE_ROWS, W1, W2, Workload

WINDOW_ROWS = 10_000

PEERS: Mapping[str, tuple[str, ...]] = {
    "evidently": ("evidently==0.7.23", "pandas<3"),
    "whylogs": ("whylogs==1.6.4", "numpy<2", "pandas<2.3", "setuptools<81"),
}
"""Versions and the bounds without which they do not run (reference/performance.md)."""

_QUIET = {"DO_NOT_TRACK": "1", "WHYLOGS_NO_ANALYTICS": "True", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def peers(ours: Mapping[str, float]) -> Iterator[Figure]:
    """Rows a second of each peer, beside ours."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for workload in (W1, W2):
            (folder / f"{workload.name}.json").write_text(json.dumps(tables(workload)))
        for peer, requirements in PEERS.items():
            try:
                python = install(folder / peer, requirements)
            except subprocess.CalledProcessError as error:
                print(f"{peer} cannot be installed: {error.stderr.strip().splitlines()[-1]}")
                continue
            for workload in (W1, W2):
                yield from measured(peer, python, folder / f"{workload.name}.json", workload, ours)


def tables(workload: Workload) -> dict[str, dict[str, list]]:
    """Reference and current rows as columns."""
    found = {}
    for name, rows, seed in (("reference", REFERENCE_ROWS, 11), ("current", WINDOW_ROWS, 21)):
        table = workload.table(rows, seed)
        found[name] = {key: values if isinstance(values, list) else values.tolist() for key, values in table.items()}
    return found


def install(folder: Path, requirements: tuple[str, ...]) -> str:
    """Python of a new environment with these packages. Raises CalledProcessError, with what pip said."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True, text=True)
    python = str(folder / "bin" / "python")
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--only-binary=:all:", *requirements],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **_QUIET},
    )
    return python


def measured(peer: str, python: str, rows: Path, workload: Workload, ours: Mapping[str, float]) -> Iterator[Figure]:
    """What the peer's script prints: a name, and the seconds that one window took."""
    script = Path(__file__).with_name(f"peer_{peer}.py")
    ended = subprocess.run(
        [python, str(script), str(rows)],
        check=False,
        capture_output=True,
        text=True,
        timeout=900,
        cwd=rows.parent,
        env={**os.environ, **_QUIET},
    )
    if ended.returncode:
        print(f"{peer} {workload.name} failed: {ended.stderr.strip().splitlines()[-1]}")
        return
    for line in ended.stdout.splitlines():
        if not line.startswith("figure\t"):
            continue
        _, name, seconds = line.split("\t")
        rate = WINDOW_ROWS / float(seconds)
        yield Figure(
            f"{workload.name} {name}",
            rate,
            "rows/s",
            note=f"ours {ours[workload.name]:,.0f} from JSON bytes: {ours[workload.name] / rate:,.1f} times as many",
        )
