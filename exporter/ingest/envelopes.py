"""Record headers to envelopes. Most records have none, so that case costs next to nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from exporter.ingest.source import EMPTY, Envelope

HEADERS = {"model": "model", "version": "version", "content_type": "content-type"}
"""Which header carries which part of the envelope, unless configured otherwise."""


def envelopes_of(headers: Sequence[Sequence[tuple[str, Any]] | None], names: Mapping[str, str]) -> Sequence[Envelope]:
    """The envelope of each record; nothing when all are empty. `names` tells the header of each of its fields."""
    if not any(headers):
        return ()
    fields = {header.lower(): field for field, header in names.items()}
    envelopes = [_envelope(own, fields) if own else EMPTY for own in headers]
    return () if all(one is EMPTY for one in envelopes) else envelopes


def _envelope(headers: Sequence[tuple[str, Any]], fields: Mapping[str, str]) -> Envelope:
    found: dict[str, str] = {}
    for name, value in headers:
        field = fields.get(name.lower())
        if field is not None and value is not None:
            found[field] = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return Envelope(**found) if found else EMPTY
