"""`reference build` where the order of rows matters: to the calibration, and to nothing else."""

import csv
from pathlib import Path

import numpy as np
import pytest

from exporter.app.build import Choice, build_reference, warnings
from exporter.monitor.reference import Columns, Reference, Resolution

ROWS = 5000


def seasonal() -> list[dict[str, object]]:
    """Rows of which every second 250 differ, as a stream with a season has them."""
    x = np.random.default_rng(0).normal(np.arange(ROWS) // 250 % 2 * 3.0, 1)
    return [{"day": f"{20200101 + i // 250}", "at": i, "x": value} for i, value in enumerate(x.tolist())]


def write(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def built(path: Path, columns: Columns, exclude: str) -> Reference:
    choice = Choice(columns, exclude=frozenset([exclude]))
    return build_reference(path, "m", "1", choice, Resolution(), lambda _: None)


@pytest.mark.parametrize(
    ("columns", "exclude"),
    [(Columns(timestamp="at"), "day"), (Columns(timestamp="day", timestamp_format="%Y%m%d"), "at")],
)
def test_rows_are_put_in_the_order_of_time(tmp_path: Path, columns: Columns, exclude: str):
    rows = seasonal()
    shuffled = [rows[i] for i in np.random.default_rng(1).permutation(ROWS)]
    write(tmp_path / "sorted.csv", rows)
    write(tmp_path / "shuffled.csv", shuffled)

    by_file, by_time, shuffled_by_file = (
        built(tmp_path / name, given, without)
        for name, given, without in (
            ("sorted.csv", columns, exclude),
            ("shuffled.csv", columns, exclude),
            ("shuffled.csv", Columns(id=columns.timestamp), exclude),
        )
    )

    assert by_time.features == by_file.features
    (season,), (none,) = by_time.features[0].calibration, shuffled_by_file.features[0].calibration
    assert (none.g, none.freedom_ratio) == (1.0, 1.0)
    assert season.g * season.freedom_ratio > 10
    assert shuffled_by_file.features[0].values == by_time.features[0].values


def test_a_file_that_is_sorted_by_something_else_than_time_is_warned_of(tmp_path: Path):
    rows = sorted(seasonal(), key=lambda row: float(str(row["x"])))
    write(tmp_path / "sorted.csv", rows)

    (warning,) = warnings(built(tmp_path / "sorted.csv", Columns(id="at"), "day"))

    assert warning == "x: any 250 rows in a row differ a lot; if not ordered by time, shuffle the file"
    assert warnings(built(tmp_path / "sorted.csv", Columns(timestamp="at"), "day")) == []
