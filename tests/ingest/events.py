"""Native events as hypothesis draws them: mostly sound, with every kind of oddity that JSON can carry."""

import json
from typing import Any

from hypothesis import strategies as st

from tests.builders import MODEL, NOW

ABSENT = "\0absent"


def either(*options: Any) -> st.SearchStrategy[Any]:
    return st.one_of(*(one if isinstance(one, st.SearchStrategy) else st.just(one) for one in options))


numbers = either(
    st.floats(-5, 5),
    st.integers(-3, 3),
    st.floats(),
    st.integers(),
    st.sampled_from([1e308, 5e-324, -0.0, 2**53 + 1, 2**64 + 1, 10**400, 10**30]),
)
not_numbers = st.sampled_from([None, "1.5", "", True, False, [], [1], {}, {"a": 1}])
categories = either(
    st.sampled_from(["red", "green", "blue", "mauve", "", "\ud800", "1", "true", "3.0"]),
    st.sampled_from([1, 1.0, 3, True, False, None, [], {}, float("nan"), 2**64 + 1, 2.5]),
)
times = either(
    st.floats(NOW - 100, NOW + 100),
    st.sampled_from([ABSENT, None, NOW * 1000, int(NOW), "2026-11-23T08:15:00Z", "2026-11-23 08:15:00.5"]),
    st.sampled_from(
        ["2026-11-23t08:15:00z", "2026-11-23", "2026-11-23T08:15:00.9999999Z", "2026-11-23T08:15:00+01:00"]
    ),
    st.sampled_from(["soon", -5, True, [], {}, 1e20, "1960-01-01T00:00:00Z", float("nan"), float("inf")]),
)
names = either(
    MODEL, MODEL, MODEL, "other", "stranger", st.sampled_from([ABSENT, None, "", "a\nb", "x" * 200, 3, [], "\ud800"])
)
versions = either(
    ABSENT, "1", "2", st.sampled_from([None, 2, 2.0, 2.5, True, "", "x" * 200, "a\tb", [], {}, 2**64 + 1, 10**30, 1e22])
)
latencies = either(ABSENT, 0.01, st.floats(-1, 5000), st.sampled_from([None, "fast", True, float("inf"), [], 10**400]))
errors = either(ABSENT, None, "timeout", "made up", "", st.sampled_from([False, True, 0, [], {"code": 5}, "\ud800"]))


def objects(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object; a field that is drawn as ABSENT is not there."""
    return st.fixed_dictionaries(fields).map(
        lambda drawn: {name: value for name, value in drawn.items() if value is not ABSENT and value != ABSENT}
    )


features = objects(
    x=either(ABSENT, numbers, numbers, not_numbers),
    y=either(ABSENT, numbers, not_numbers),
    colour=either(ABSENT, categories),
    unknown=either(ABSENT, st.integers(), st.text(max_size=3)),
)


tags = objects(region=either(ABSENT, "eu", "us", "x" * 65, "other", categories), tier=either(ABSENT, 1))


def common() -> dict[str, st.SearchStrategy[Any]]:
    return {
        "model": names,
        "version": versions,
        "timestamp": times,
        "latency_seconds": latencies,
        "error": errors,
        "id": either(ABSENT, "req-1", 5),
        "tags": either(ABSENT, tags, None, []),
        "prediction": either(ABSENT, "0", 1, None, numbers, not_numbers),
        "score": either(ABSENT, numbers, not_numbers),
        "scores": either(ABSENT, {"yes": 0.3, "no": "x"}, None, []),
        "label": either(ABSENT, ABSENT, ABSENT, 1, None, "yes"),
    }


native = objects(
    features=either(features, features, features, features, ABSENT, None, [], "x", {}),
    **common(),
)
flat = st.tuples(features, objects(**common())).map(lambda pair: pair[0] | pair[1])
sound = objects(
    model=st.just(MODEL),
    timestamp=st.floats(NOW - 100, NOW),
    features=objects(x=st.floats(-3, 3), y=st.floats(-3, 3), colour=st.sampled_from(["red", "green", "blue"])),
    prediction=st.sampled_from([0, 1]),
    score=st.floats(0, 1),
)


@st.composite
def payloads(draw: st.DrawFn, events: st.SearchStrategy[dict[str, Any]]) -> bytes:
    """An event as bytes. Python's encoder writes NaN and Infinity as tokens."""
    text = json.dumps(draw(events), ensure_ascii=True, indent=draw(st.sampled_from([None, None, 1])))
    return text.encode()
