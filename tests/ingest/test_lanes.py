from collections import deque
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.catalog import thresholds
from exporter.ingest import lanes as module
from exporter.ingest.lanes import ROWS_AT_ONCE, Lanes, Partition, Records
from exporter.ingest.source import Envelope
from exporter.monitor.events import Reject
from tests.builders import NOW

A, B, C = (Partition("topic", number) for number in range(3))
SLACK_S = 10.0
PATIENCE_S = thresholds.IDLE_PARTITION_S.value


def records(partition: Partition, *times: float, start: int = 0, **options: Any) -> Records:
    offsets = range(start, start + len(times))
    return Records(partition, start + len(times), times, [b"x"] * len(times), offsets, **options)


def lanes_of(*waiting: Records) -> Lanes:
    lanes = Lanes(SLACK_S)
    for one in waiting:
        lanes.put(one)
    return lanes


def taken(lanes: Lanes, now: float = NOW, pending: Sequence[Partition] = ()) -> list[tuple[Partition, list[float]]]:
    """Everything whose turn it is, one delivery after the other."""
    found = []
    while (one := lanes.take(now, pending)) is not None:
        found.append((one.partition, list(one.times)))
    return found


class TestOrder:
    def test_of_record_times_across_partitions_as_far_as_they_are_apart(self):
        lanes = lanes_of(records(A, 0, 5, 100, 105), records(B, 50, 55, 150))
        assert taken(lanes) == [(A, [0, 5]), (B, [50, 55]), (A, [100, 105]), (B, [150])]

    def test_of_partitions_that_are_no_further_apart_than_the_slack_is_theirs(self):
        lanes = lanes_of(records(A, 0, 5, 9), records(B, 1, 6, 8))
        assert taken(lanes) == [(A, [0, 5, 9]), (B, [1, 6, 8])]

    def test_of_young_records_is_that_of_their_coming(self):
        lanes = lanes_of(records(A, NOW - 5, NOW), records(B, NOW - 9, NOW - 1))
        assert taken(lanes, pending=[C]) == [(B, [NOW - 9, NOW - 1]), (A, [NOW - 5, NOW])]

    def test_a_single_partition_waits_for_nobody(self):
        assert taken(lanes_of(records(A, 0, 1000, 2000)), pending=[A]) == [(A, [0, 1000, 2000])]

    def test_one_record_at_least_is_delivered_though_it_is_far_ahead(self):
        lanes = lanes_of(records(A, 0, 1000), records(B, 500))
        assert taken(lanes) == [(A, [0]), (B, [500]), (A, [1000])]

    def test_what_has_no_time_goes_first(self):
        reject = Reject(0, "corrupt_record", "spoilt")
        lanes = lanes_of(records(A, 0), Records(B, 7, (), (), (), rejects=[reject]), records(B, 50))
        first = lanes.take(NOW, [])
        assert first is not None
        assert (first.partition, first.next_offset, first.rejects) == (B, 7, [reject])
        assert taken(lanes) == [(A, [0]), (B, [50])]


class TestWaiting:
    def test_for_a_partition_that_has_more_at_the_broker_but_nothing_here(self):
        lanes = lanes_of(records(A, 0, 100))
        assert taken(lanes, pending=[A, B]) == []
        lanes.put(records(B, 50, 60))
        assert taken(lanes, pending=[A]) == [(A, [0]), (B, [50, 60]), (A, [100])]

    def test_is_not_needed_for_what_is_within_the_slack_of_its_last_record(self):
        lanes = lanes_of(records(A, 0, 5, 20), records(B, 0))
        assert taken(lanes, pending=[B]) == [(A, [0, 5]), (B, [0])]
        lanes.put(records(B, 15, start=1))
        assert taken(lanes) == [(B, [15]), (A, [20])]

    def test_ends_when_the_broker_has_no_more(self):
        lanes = lanes_of(records(A, 0))
        assert taken(lanes, pending=[B]) == []
        assert taken(lanes) == [(A, [0])]

    def test_ends_when_patience_does_and_begins_again_with_the_next_record(self):
        lanes = lanes_of(records(A, 0, 100))
        assert taken(lanes, NOW, [B]) == []
        assert taken(lanes, NOW + PATIENCE_S - 1, [B]) == []
        assert taken(lanes, NOW + PATIENCE_S, [B]) == [(A, [0, 100])]
        lanes.put(records(A, 200, start=2))
        assert taken(lanes, NOW + PATIENCE_S, [B]) == [(A, [200])], "nobody waits twice"
        lanes.put(records(B, 150))
        lanes.put(records(A, 300, start=3))
        assert taken(lanes, NOW + PATIENCE_S, [B]) == [(B, [150])]

    def test_is_over_for_a_partition_that_is_taken_away(self):
        lanes = lanes_of(records(A, 0), records(B, 50), records(C, 100))
        lanes.drop([A, B])
        assert taken(lanes) == [(C, [100])]


class TestPieces:
    def test_are_small_and_lose_nothing(self):
        count = 2 * ROWS_AT_ONCE + 10
        envelopes = [Envelope(str(number)) for number in range(count)]
        lanes = Lanes(SLACK_S)
        values = [b"%d" % number for number in range(count)]
        lanes.put(Records(A, count + 5, [NOW] * count, values, range(count), envelopes, [Reject(0, "x", "y")]))
        pieces = [lanes.take(NOW, []) for _ in range(3)]
        assert lanes.take(NOW, []) is None
        assert [len(one.values) for one in pieces if one] == [ROWS_AT_ONCE, ROWS_AT_ONCE, 10]
        assert [one.next_offset for one in pieces if one] == [ROWS_AT_ONCE, 2 * ROWS_AT_ONCE, count + 5]
        assert [value for one in pieces if one for value in one.values] == values
        assert [one for piece in pieces if piece for one in piece.envelopes] == envelopes
        assert [len(one.rejects) for one in pieces if one] == [1, 0, 0]

    def test_resume_behind_gaps_in_the_offsets(self):
        first, rest = Records(A, 20, [1, 2, 3], [b"a", None, b""], [3, 7, 12]).split(2)
        assert (first.next_offset, first.start) == (8, 3)
        assert rest is not None
        assert (rest.next_offset, rest.start) == (20, 12)


class TestBounds:
    def test_the_fullest_are_full_when_all_together_are(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(module, "LANES_BYTES", 10_000)
        lanes = lanes_of(Records(A, 1, [0], [bytes(9000)], [0]), records(B, 0))
        assert lanes.full() == set()
        lanes.put(Records(A, 2, [1], [bytes(900)], [1]))
        assert lanes.full() == {A}
        lanes.take(NOW, [])
        assert lanes.full() == set()

    def test_records_without_values_fill_them_too(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(module, "LANES_BYTES", 10_000)
        lanes = lanes_of(Records(A, 200, [0.0] * 200, [None, b""] * 100, range(200)))
        assert lanes.full() == {A}
        lanes.drop([A])
        assert lanes.full() == set()


ages = st.lists(st.sampled_from([0, 1, 4, 9, 25]), min_size=1, max_size=12).map(lambda steps: list(accumulate(steps)))


@given(st.lists(ages, min_size=1, max_size=4), st.data())
def test_however_blocks_come_each_partition_is_in_order_and_none_is_far_ahead(
    produced: list[list[float]], data: st.DataObject
):
    partitions = [Partition("topic", number) for number in range(len(produced))]
    unread = dict(zip(partitions, map(deque, produced), strict=True))
    undelivered = dict(zip(partitions, map(deque, produced), strict=True))
    read = dict.fromkeys(partitions, 0)
    lanes = Lanes(SLACK_S)
    delivered: dict[Partition, list[float]] = {partition: [] for partition in partitions}
    while any(unread.values()):
        partition = data.draw(st.sampled_from([one for one in partitions if unread[one]]))
        size = data.draw(st.integers(1, len(unread[partition])))
        lanes.put(records(partition, *(unread[partition].popleft() for _ in range(size)), start=read[partition]))
        read[partition] += size
        while (one := lanes.take(NOW, [left for left in partitions if undelivered[left]])) is not None:
            own = undelivered[one.partition]
            others = [times[0] for other, times in undelivered.items() if other != one.partition and times]
            assert len(one.times) == 1 or not others or one.times[-1] <= min(others) + SLACK_S
            assert not others or one.times[0] <= min(others) + SLACK_S
            assert list(one.offsets) == list(range(len(delivered[one.partition]), one.next_offset))
            for time in one.times:
                assert own.popleft() == time
                delivered[one.partition].append(time)
    assert list(delivered.values()) == produced
