"""What is shipped: the page and the demo's data are in the package, and a fresh clone of the last commit runs."""

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from importlib import resources

import pytest

from tests.e2e.binaries import binary
from tests.e2e.running import ROOT, started
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

DATA = (
    "exporter/py.typed",
    "exporter/export/page.html",
    "exporter/app/demo_data/car_loan_events.csv.gz",
    "exporter/app/demo_data/car_loan_reference.json",
)


@pytest.mark.parametrize("name", DATA)
def test_data_is_in_the_package(name):
    package, *rest = name.split("/")
    assert resources.files(package).joinpath(*rest).read_bytes() or name.endswith("py.typed")


def test_the_wheel_holds_the_data_and_the_command(tmp_path):
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed")
    # A copy: what is untracked or ignored in this tree is no business of the wheel's.
    source = tmp_path / "source"
    shutil.copytree(ROOT / "exporter", source / "exporter", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE", ".gitignore"):
        shutil.copy(ROOT / name, source / name)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=source,
        check=True,
        capture_output=True,
        timeout=60,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        (entry_points,) = [packed.read(name).decode() for name in names if name.endswith("entry_points.txt")]
    modules = [str(path.relative_to(ROOT)) for path in (ROOT / "exporter").rglob("*.py")]
    assert {*DATA, *modules} <= set(names)
    assert not [name for name in names if name.startswith("tests/")]
    assert "model-health-exporter = exporter.__main__:main" in entry_points


def test_a_fresh_clone_runs(tmp_path):
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    clone = tmp_path / "clone"
    subprocess.run(
        [binary("git"), "clone", "--quiet", "--no-hardlinks", str(ROOT), str(clone)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    with started(tmp_path, "demo", "--listen", "127.0.0.1:0", "--round", "8", cwd=clone) as exporter:
        assert "model-health-exporter" in exporter.get("/").text
        eventually(lambda: (exporter.value("ml_predictions_total", model="car_loan") or 0) > 100, "predictions")
