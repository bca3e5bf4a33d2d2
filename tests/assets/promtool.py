"""Rules judged by Prometheus itself: series in, values out, compared to a millionth."""

import math
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from exporter.assets.rules import all_groups, rule_groups
from exporter.catalog.rules import STEP, Settings
from tests.assets.promql import needed
from tests.e2e.binaries import binary

ORDER = [group.name for group in all_groups(Settings())]
"""promtool has none of its own, and evaluates all groups once an interval."""
Labels = Mapping[str, str]


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    """A series of a unit test: a name, labels, and values a minute, e.g. `0+6x90`."""
    return {"series": name + selector(labels), "values": values}


def selector(labels: Labels) -> str:
    return "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}"


def expect(expr: str, at: str, *samples: tuple[Labels, float]) -> dict[str, Any]:
    """That an expression has these values then; none for absence."""
    found = [{"labels": selector(labels), "value": math.floor(value * 1e6 + 0.5) / 1e6} for labels, value in samples]
    return {"expr": f"round({expr}, 0.000001)", "eval_time": at, "exp_samples": found}


def check(
    folder: Path,
    given: Sequence[Mapping[str, str]],
    expected: Sequence[Mapping[str, Any]],
    settings: Settings | None = None,
    interval: str = "1m",
) -> None:
    """Fail with what promtool says unless the recorded series are as expected."""
    groups = needed(rule_groups(settings or Settings()), [one["expr"] for one in expected])
    (folder / "rules.yml").write_text(yaml.safe_dump({"groups": groups}))
    test = {"interval": interval, "input_series": list(given), "promql_expr_test": list(expected)}
    story = {"rule_files": ["rules.yml"], "evaluation_interval": STEP, "group_eval_order": ORDER, "tests": [test]}
    (folder / "test.yml").write_text(yaml.safe_dump(story))
    run("test", "rules", folder / "test.yml")


def run(*arguments: str | Path) -> None:
    """Run promtool, which must succeed."""
    done = subprocess.run([binary("promtool"), *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
