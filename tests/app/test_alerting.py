"""When a rule fires is held against Prometheus' own evaluation, written out moment by moment."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.app.alerting import Firing, Rule, Watch, read, watch
from exporter.app.config import ConfigError
from exporter.catalog.rules import Group, Recording

RULES = """
groups:
  - name: drift
    interval: 30s
    limit: 10
    rules:
      - record: model:psi:30d
        expr: avg(ml_feature_psi)
        labels: {level: 1}
      - alert: Drifted
        expr: model:psi:30d > 0.1 and ml_feature_drifted{feature!="a:b"} == 1
        for: 1h30m
        keep_firing_for: 5m
        labels: {severity: page, what: "{{ $labels.feature }}/{{$labels.gone}}", level: 1}
        annotations: {summary: "{{ $value }}"}
  - name: others
    rules: [{alert: Always, expr: 1}]
"""


def prometheus(present: Sequence[bool], hold: int, keep: int) -> list[tuple[int, int, int | None]]:
    """rules/alerting.go, Eval: one series, a moment a step. Pending, firing from, resolved at."""
    found = list[tuple[int, int, int | None]]()
    state, active_at, fired_at, keep_since = "inactive", 0, 0, None
    for ts, there in enumerate(present):
        if there:
            if state == "inactive":
                state, active_at = "pending", ts
            keep_since = None
        elif state != "inactive":
            keeps = False
            if state == "firing" and keep > 0:
                keep_since = ts if keep_since is None else keep_since
                keeps = ts - keep_since < keep
            if not keeps:
                if state == "firing":
                    found.append((active_at, fired_at, ts))
                state, keep_since = "inactive", None
        if state == "pending" and ts - active_at >= hold:
            state, fired_at = "firing", ts
    return [*found, (active_at, fired_at, None)] if state == "firing" else found


@given(st.lists(st.booleans(), max_size=40), st.integers(0, 6), st.integers(0, 6))
def test_a_rule_fires_as_in_prometheus(present: list[bool], hold: int, keep: int):
    watched = Watch(hold, keep)
    for place, there in enumerate(present):
        if there:
            watched.see(place, 1.0)
    told = [(one.pending, one.since, one.until) for one in watched.end(len(present))]
    assert told == prometheus(present, hold, keep)


def test_the_peak_is_of_one_alert_pending_or_firing():
    watched = Watch(1, 0)
    for place, value in {0: 9.0, 1: 2.0, 2: float("nan"), 5: 1.0, 6: 3.0}.items():
        watched.see(place, value)
    assert watched.end(7) == [Firing(0, 1, 3, 9.0), Firing(5, 6, None, 3.0)]


def test_durations_that_are_no_multiple_of_the_step_take_one_more():
    rule = Rule("a", "up", 60_000, 90_000, 1, {})
    assert watch(rule, 60_000) == Watch(2, 1)
    assert watch(rule, 90_000) == Watch(1, 1)


def test_a_rule_file_is_read(tmp_path: Path):
    path = tmp_path / "rules.yml"
    path.write_text(RULES)
    rules = read(path)
    drifted, always = rules.alerts
    assert (drifted.alert, drifted.interval_ms, drifted.for_ms, drifted.keep_ms) == (
        "Drifted",
        30_000,
        5_400_000,
        300_000,
    )
    assert (always.alert, always.expression, always.interval_ms, always.for_ms) == ("Always", "1", 60_000, 0)
    series = {"__name__": "model:psi:30d", "feature": "age", "severity": "info"}
    assert drifted.labels_of(series) == {"feature": "age", "level": "1", "severity": "page", "what": "age/"}
    recorded = Recording("model:psi:30d", "avg(ml_feature_psi)", {"level": "1"})
    assert rules.records == [Group("drift", (recorded,), "30s"), Group("others", (), "")]


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "groups: [{name: a, rules: [{alert: b, expr: up, for: soon}]}]",
            "group a, alert b: a duration .* found 'soon'",
        ),
        ("groups: [{name: a, rules: [{alert: b}]}]", r"missing required field `expr`"),
        ("groups: [{name: a, rules: [{alert: b, expr: up, fro: 5m}]}]", "unknown field `fro`"),
        ("groups: [", "not YAML"),
        ("- a", "no Prometheus rule file"),
    ],
)
def test_a_file_that_is_none_is_named(tmp_path: Path, text: str, message: str):
    path = tmp_path / "rules.yml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"rules.yml: .*{message}"):
        read(path)
    with pytest.raises(ConfigError, match=r"cannot read .*none.yml: No such file"):
        read(tmp_path / "none.yml")
