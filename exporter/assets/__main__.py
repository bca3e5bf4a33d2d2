"""Write the generated files, or with --check fail if one of them differs by a byte."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from exporter.assets.alertmanager import alertmanager
from exporter.assets.dashboards import DASHBOARDS, dashboard
from exporter.assets.grafana_rules import grafana
from exporter.assets.metrics_table import metrics_page
from exporter.assets.rules import OPERATOR_LABELS, prometheus, prometheus_rule
from exporter.assets.rules_table import rules_page
from exporter.catalog.rules import Settings

ROOT = Path(__file__).resolve().parents[2]

GENERATED: tuple[tuple[Path, Callable[[], str]], ...] = (
    (Path("docs/metrics.md"), metrics_page),
    (Path("docs/alerts.md"), lambda: rules_page(Settings(runbooks="../alerts/runbooks"))),
    (Path("alerts/rules.yml"), lambda: prometheus(Settings())),
    (Path("alerts/prometheusrule.yml"), lambda: prometheus_rule(Settings(), OPERATOR_LABELS)),
    (Path("alerts/alertmanager.yml"), lambda: alertmanager(Settings())),
    (Path("alerts/grafana.json"), lambda: grafana(Settings())),
    *((Path(f"dashboards/{uid}.json"), partial(dashboard, uid, Settings())) for uid in DASHBOARDS),
)
"""Every generated file, and what makes it."""


def main(arguments: list[str], root: Path = ROOT) -> int:
    """0 if all files are (now) up to date, 1 if --check found one that is not."""
    check = "--check" in arguments
    stale = 0
    for path, make in GENERATED:
        file, content = root / path, make()
        if check:
            if not file.exists() or file.read_text(encoding="utf-8") != content:
                stale += 1
                sys.stderr.write(f"{path} is out of date: run `python -m exporter.assets`\n")
        else:
            file.parent.mkdir(exist_ok=True)
            file.write_text(content, encoding="utf-8")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
