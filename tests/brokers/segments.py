"""The files in which Apache Kafka keeps a partition: a batch of records after the other."""

import struct
from pathlib import Path

_HEAD = struct.Struct(">qi")  # first offset; length of what follows
_DELTA_AT = 23  # of the last offset, from the first
_SMALLEST = 61  # a batch without records


def spoil(partition: Path, offset: int) -> None:
    """Flip the last byte of the batch with this offset, and leave its checksum."""
    segment = max(path for path in partition.glob("*.log") if int(path.stem) <= offset)
    content = bytearray(segment.read_bytes())
    start = 0
    while start + _SMALLEST <= len(content):
        first, length = _HEAD.unpack_from(content, start)
        (delta,) = struct.unpack_from(">i", content, start + _DELTA_AT)
        end = start + _HEAD.size + length
        if first <= offset <= first + delta:
            content[end - 1] ^= 0xFF
            segment.write_bytes(content)
            return
        start = end
    raise AssertionError(f"no batch with offset {offset} in {segment}")
