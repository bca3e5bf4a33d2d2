import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_imports_keep_to_the_floors():
    linter = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    "heavy", ["scipy.stats", "pandas", "pydantic", "numba", "evidently", "pyarrow", "rich", "niquests"]
)
def test_a_running_exporter_does_without(heavy):
    """Memory and start-up of the sidecar: these cost 50 to 300 MiB, or are for commands only."""
    script = (
        "import sys; from exporter.app import setup, http, serve, cli, demo; "
        f"sys.exit({heavy!r} in sys.modules and 'imported')"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("client", "importer"),
    [
        ("prometheus_client", "export/exposition.py"),
        ("yaml", "app/config.py"),
        ("grafana_client", "app/grafana.py"),
    ],
)
def test_each_third_party_client_has_one_importing_file(client, importer):
    importing = re.compile(rf"^\s*(from|import) {client}\b", re.MULTILINE)
    importers = [
        path.relative_to(ROOT / "exporter").as_posix()
        for path in (ROOT / "exporter").rglob("*.py")
        if importing.search(path.read_text(encoding="utf-8"))
    ]

    assert importers == [importer]
