import pytest

from tests.brokers.reading import Read, with_confluent, with_kafka_python
from tests.brokers.security import Access
from tests.brokers.tansu import Tansu
from tests.brokers.topics import COMPRESSIONS, Record, committed, create, produce

RECORDS = [
    Record(b"value", b"key", [("name", b"header"), ("empty", None)], 1_700_000_000_000, 0),
    Record(None, b"key", [], 1_700_000_000_001, 0),
    Record(bytes(5_000_000), None, [], 1_700_000_000_002, 0),
]

both = pytest.mark.parametrize("read", [with_kafka_python, with_confluent])


@both
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_keeps_what_is_produced_with_every_compression(tansu: Tansu, read: Read, compression: str):
    topic = create(tansu.bootstrap)
    produce(tansu.bootstrap, topic, RECORDS, compression)
    assert read(Access(tansu.bootstrap), topic, len(RECORDS)) == RECORDS


def test_groups_begin_without_offsets(tansu: Tansu):
    assert committed(tansu.bootstrap, "nobody") == {}
