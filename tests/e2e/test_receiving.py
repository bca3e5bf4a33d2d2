"""The PagerDuty of tests refuses what the real one refuses, or a lost page would look like one that arrived."""

import json

import pytest

from tests.e2e.receiving import PAGER, ROUTING_KEY, Receivers

PAYLOAD = {"summary": "roll back", "source": "prod/loan", "severity": "critical", "group": "loan"}
EVENT = {"routing_key": ROUTING_KEY, "event_action": "trigger", "dedup_key": "k", "payload": PAYLOAD}


def taken(event: object) -> tuple[int, Receivers]:
    receivers = Receivers(1)
    return receivers.take(PAGER, json.dumps(event).encode())[0], receivers


def test_a_valid_event_opens_an_incident_and_its_end_needs_the_key_alone():
    status, receivers = taken(EVENT)
    assert (status, receivers.refused) == (202, [])
    ended = {key: value for key, value in EVENT.items() if key != "payload"} | {"event_action": "resolve"}
    assert receivers.take(PAGER, json.dumps(ended).encode())[0] == 202
    assert receivers.pages_of("loan", "resolve") == [ended]


@pytest.mark.parametrize(
    "wrong",
    [
        {"routing_key": "another"},
        {"event_action": "page"},
        {"dedup_key": ""},
        {"dedup_key": "k" * 256},
        {"payload": None},
        {"payload": PAYLOAD | {"severity": ""}},
        {"payload": PAYLOAD | {"severity": "page"}},
        {"payload": PAYLOAD | {"summary": "s" * 1025}},
        {"payload": PAYLOAD | {"source": ""}},
        {"links": [{"href": "", "text": "Runbook"}]},
        {"service_key": "of version 1"},
    ],
    ids=str,
)
def test_what_pagerduty_would_refuse_is_refused(wrong: dict[str, object]):
    status, receivers = taken(EVENT | wrong)
    assert status == 400
    assert len(receivers.refused) == 1
    assert receivers.pages == []
