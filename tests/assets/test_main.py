from exporter.assets.__main__ import GENERATED, ROOT, main
from exporter.catalog.metrics import METRICS
from exporter.catalog.thresholds import DEFAULTS


def test_committed_files_are_up_to_date():
    assert main(["--check"]) == 0


def test_check_names_a_file_that_differs_and_writing_mends_it(tmp_path, capsys):
    assert main(["--check"], tmp_path) == 1
    assert "docs/metrics.md is out of date" in capsys.readouterr().err

    assert main([], tmp_path) == 0
    assert main(["--check"], tmp_path) == 0

    (tmp_path / "docs/metrics.md").write_text("edited by hand")
    assert main(["--check"], tmp_path) == 1


def test_every_metric_label_and_default_is_in_the_docs():
    page = (ROOT / GENERATED[0][0]).read_text(encoding="utf-8")
    missing = [metric.name for metric in METRICS if f"| `{metric.name}` |" not in page]
    missing += [label.name for metric in METRICS for label in metric.labels if f"| `{label.name}` |" not in page]
    missing += [default.name for default in DEFAULTS if f"| `{default.name}` |" not in page]

    assert missing == []
