import pytest

from exporter.assets.rules import all_groups
from exporter.catalog.promql import duration, duration_ms, selectors
from exporter.catalog.rules import Settings
from tests.assets import promql


def read(expr):
    return [(one.name, one.range, one.modifiers) for one in selectors(expr)]


@pytest.mark.parametrize(
    "expr, found",
    [
        ("up", [("up", "", "")]),
        ("level:name:op{a='}', b!~`x\"`}[5m] offset -1h", [("level:name:op", "5m", "offset -1h")]),
        ("a [1h:5m] @ 12.5 + b @ end() offset 5m", [("a", "1h:5m", "@ 12.5"), ("b", "", "@ end() offset 5m")]),
        ("sum by (a, b) (c) / ON (d) Group_Left (e) max without(f) (g)", [("c", "", ""), ("g", "", "")]),
        ("count(h) by (i) AND bool_ > bool 1e3 unless inf", [("h", "", ""), ("bool_", "", "")]),
        ("rate(x[5m]) # not y\n* z", [("x", "5m", ""), ("z", "", "")]),
        ('label_replace(a, "b", "c:d", "e", "")', [("a", "", "")]),
        ("vector(1) and (sum(b))[1h:] offset 1d > 5", [("b", "", "")]),
        ("time()", []),
    ],
)
def test_only_what_reads_series_is_found(expr, found):
    assert read(expr) == found


def test_matchers_and_the_function_around_tell_how_it_is_read():
    expr = "sum_over_time ( a{b='1',c=~\"2|3\"}[5m] ) + quantile_over_time(0.5, d[1h])"
    first, second = selectors(expr)
    assert first.matchers == (("b", "=", "'1'"), ("c", "=~", '"2|3"'))
    assert first.function == "sum_over_time"
    assert expr[slice(*first.place)] == "a{b='1',c=~\"2|3\"}[5m]"
    assert expr[slice(*first.call)] == "sum_over_time ( a{b='1',c=~\"2|3\"}[5m] )"
    assert (second.function, second.call) == ("", second.place)


def test_a_parser_finds_the_same():
    for group in all_groups(Settings()):
        for rule in group.rules:
            parsed = sorted((name, sorted(labels)) for name, labels in promql.selectors(rule.expr))
            found = [(one.name, sorted({label for label, _, _ in one.matchers})) for one in selectors(rule.expr)]
            assert sorted(found) == parsed


@pytest.mark.parametrize(
    "text, ms",
    [("0", 0), (0, 0), ("0s", 0), ("15s", 15_000), ("1h30m", 5_400_000), ("1y2w3d", 33_004_800_000), ("5ms", 5)],
)
def test_durations_are_those_of_prometheus(text: str | int, ms: int):
    assert duration_ms(text) == ms


@pytest.mark.parametrize("text", ["", "5", 5, "1.5h", "5 m", "30m1h", "-5m", "m"])
def test_other_durations_are_refused(text: str | int):
    with pytest.raises(ValueError, match=r"a duration such as 30s or 1h30m expected"):
        duration_ms(text)


@pytest.mark.parametrize("text", ["5ms", "15s", "90m", "60h", "30d"])
def test_a_duration_is_told_in_its_largest_unit(text: str):
    assert duration(duration_ms(text)) == text
