"""What is shown on a fast clock is shown of the rules as they are deployed."""

import copy
import datetime as dt
import re

import promql_parser
import pytest

from exporter.app.alerting import duration_ms
from exporter.assets.rules import rule_groups
from exporter.catalog.rules import Settings
from tests.e2e.fast_clock import FACTOR, expression, sped_up

GROUPS = rule_groups(Settings())
NO_TIME = dt.timedelta(0)


def parts(expr: str) -> tuple[list[dt.timedelta], str]:
    """Durations of an expression as a parser finds them, and its text without them."""
    found: list[dt.timedelta] = []

    def visit(node: object) -> None:
        if isinstance(node, promql_parser.MatrixSelector):
            found.append(node.range)
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node.offset or NO_TIME)

    promql_parser.walk(promql_parser.parse(expr), visit)
    return found, re.sub(r"(?<=\[)[^]]*(?=\])|(?<=offset )\S+?(?=[)\s]|$)", "", expr)


def test_each_duration_of_an_expression_is_divided_and_nothing_else_is_touched():
    divided = 0
    for rule in (rule for group in GROUPS for rule in group["rules"]):
        (before, text), (after, same) = parts(rule["expr"]), parts(expression(rule["expr"]))
        assert same == text
        for long, short in zip(before, after, strict=True):
            assert long / FACTOR - short < dt.timedelta(milliseconds=1)
            assert (short == NO_TIME) == (long == NO_TIME)
            divided += long != NO_TIME
    assert divided > 50


def test_what_is_quoted_is_no_duration():
    told = 'a{b="[5m]",c=~"offset 1d"}[5m] offset 1d'
    assert expression(told) == 'a{b="[5m]",c=~"offset 1d"}[5000ms] offset 1440000ms'


def test_rules_are_the_same_but_for_their_durations():
    before, after = copy.deepcopy(GROUPS), sped_up(GROUPS)
    for group, fast in zip(before, after, strict=True):
        assert duration_ms(group.pop("interval")) == FACTOR * duration_ms(fast.pop("interval"))
        for rule, one in zip(group["rules"], fast["rules"], strict=True):
            del rule["expr"], one["expr"]
            for key in {"for", "keep_firing_for"} & rule.keys():
                assert duration_ms(rule.pop(key)) == FACTOR * duration_ms(one.pop(key))
    assert after == before


@pytest.mark.parametrize("key", ["group_wait", "group_interval", "repeat_interval"])
def test_notifications_wait_as_much_less(key):
    assert sped_up({"route": {"routes": [{key: "5m", "receiver": "5m"}]}}) == {
        "route": {"routes": [{key: "5000ms", "receiver": "5m"}]}
    }
