from exporter.assets.__main__ import ROOT
from tests.assets.promtool import run


def test_committed_rules_pass_the_strictest_check():
    run("check", "rules", "--lint-fatal", ROOT / "alerts/rules.yml")
