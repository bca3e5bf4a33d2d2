"""One event read with the standard library, value by value: slower by far, but it can say what is wrong.

It accepts what Python's own encoder writes (NaN stands for null, Infinity for a value that is not finite), marks single
values as invalid instead of refusing the event, and gives the reason where there is nothing to be saved.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from exporter.ingest.fields import Fields, at
from exporter.ingest.layout import NAME_LIMIT, LabelRow, Layout, Row, is_name
from exporter.ingest.source import EMPTY, Envelope
from exporter.ingest.timestamps import epoch_s
from exporter.monitor.events import (
    LABEL,
    NO_ERROR,
    NON_FINITE_NUMBER,
    OUTPUT,
    SCORE,
    UNSEEN,
    WRONG_TYPE,
    ErrorReasons,
    FeatureKey,
    Names,
    Schema,
    as_number,
    text_of,
)

MESSAGE_LIMIT_BYTES = 4 * 2**20
UNKNOWN_VERSION = "unknown"

_CONSTANTS = {"NaN": None, "Infinity": math.inf, "-Infinity": -math.inf}
_HUGE_DIGITS = 400  # longer integers are beyond any float; int() of them is slow


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the lenient reader made no row of an event; `value` is what was wrong, to be shown only if asked for."""

    reason: str
    detail: str
    value: object = None

    def said(self, *, log_values: bool) -> str:
        """The detail, with the value itself only if that is wanted: it may be personal data."""
        if log_values and self.value is not None:
            return f"{self.detail}: {str(self.value)[:100]!r}"
        return self.detail


class LenientReader:
    """Reads one event with the standard library, value by value: slower by far, but it can say what is wrong."""

    def __init__(
        self, layouts: Mapping[str, Layout], fields: Fields, default_model: str | None, *, event_time: bool
    ) -> None:
        self._layouts = layouts
        self._fields = fields
        self._default_model = default_model
        self._event_time = event_time
        self._unconfigured = Layout("", Schema(), ErrorReasons(), UNKNOWN_VERSION, fields, learns=False)
        self._decoder = json.JSONDecoder(parse_int=_parse_int, parse_constant=_CONSTANTS.get)

    def layout(self, model: str) -> Layout:
        """The layout of a model, configured or not."""
        return self._layouts.get(model, self._unconfigured)

    def read(self, payload: bytes | None, now: float, envelope: Envelope = EMPTY) -> Row | LabelRow | Refusal:
        """The event as a row, or why not. The event's own model, version and time go before those of its envelope."""
        if payload is None:
            return Refusal("tombstone", "a null value")
        if not is_json(envelope.content_type):
            return Refusal("unsupported_content_type", "JSON expected", envelope.content_type)
        if len(payload) > MESSAGE_LIMIT_BYTES:
            return Refusal("too_large", f"{len(payload)} bytes; at most {MESSAGE_LIMIT_BYTES}")
        try:
            event = self._decoder.decode(str(payload, "utf-8").strip())
        except UnicodeDecodeError as error:
            return Refusal("invalid_utf8", f"invalid UTF-8 at byte {error.start}")
        except json.JSONDecodeError as error:
            return Refusal("malformed_json", f"{error.msg} at character {error.pos}")
        except RecursionError:
            return Refusal("too_deep", "nested too deeply")
        if not isinstance(event, dict):
            return Refusal("not_an_object", f"a JSON object expected, found {_json_type(event)}")
        return self._row(event, now, envelope)

    def _row(self, event: dict[str, object], now: float, envelope: Envelope) -> Row | LabelRow | Refusal:
        fields = self._fields
        model = at(event, fields.model)
        if model is None:
            model = envelope.model or self._default_model
        if model is None:
            return Refusal("missing_model", f"no {'.'.join(fields.model)}")
        if not isinstance(model, str) or not is_name(model):
            return Refusal(
                "invalid_model", f"{'.'.join(fields.model)}: 1 to {NAME_LIMIT} printable characters expected", model
            )
        layout = self.layout(model)
        version = at(event, fields.version)
        try:
            version_text = layout.version_text(version, envelope.version)
        except TypeError:
            version_text = ""
        if not is_name(version_text):
            return Refusal(
                "invalid_version",
                f"{'.'.join(fields.version)}: 1 to {NAME_LIMIT} printable characters expected",
                version,
            )
        stamp = at(event, fields.timestamp) if self._event_time else None
        time = now if stamp is None else epoch_s(stamp)
        if time is None:
            detail = f"{'.'.join(fields.timestamp)}: RFC 3339 or epoch seconds expected"
            return Refusal("invalid_timestamp", detail, stamp)
        refusal = self._not_a_prediction(event)
        if refusal is not None:
            return self._label(event, layout, time) if refusal.reason == "label" and layout.schema.joins else refusal
        latency = at(event, fields.latency_seconds)
        error = at(event, fields.error)
        codes = layout.reasons.codes
        return Row(
            model=model,
            version=version_text,
            time=time,
            numeric=[as_number(at(event, path)) for path in layout.numeric_paths],
            codes=[
                _code(at(event, path), vocabulary)
                for path, vocabulary in zip(layout.categorical_paths, layout.schema.vocabularies, strict=True)
            ],
            latency_s=as_number(latency),
            error=(
                codes.get(error, layout.reasons.other)
                if isinstance(error, str | None)
                else (layout.reasons.other if error else NO_ERROR)
            ),
            raw=self._raw(event) if layout.learns else None,
            identity=at(event, fields.id),
        )

    def _label(self, event: dict[str, object], layout: Layout, time: float) -> LabelRow | Refusal:
        """A label without its prediction."""
        identity, label = at(event, self._fields.id), at(event, self._fields.label)
        if not text_of(identity):
            return Refusal("missing_id", f"{'.'.join(self._fields.id)}: a text or a number expected", identity)
        vocabulary = layout.label_vocabulary
        return LabelRow(
            layout.model, time, as_number(label) if vocabulary is None else _code(label, vocabulary), identity
        )

    def _not_a_prediction(self, event: dict[str, object]) -> Refusal | None:
        fields = self._fields
        features = self._flat_features(event) if fields.flat else at(event, fields.features)
        if features is not None and not isinstance(features, dict):
            return Refusal(
                "invalid_features", f"{'.'.join(fields.features)}: an object expected, found {_json_type(features)}"
            )
        if features is not None and not (fields.flat and not features):
            return None
        served = (fields.prediction, fields.score, fields.scores, fields.error, fields.latency_seconds)
        if any(at(event, path) is not None for path in served):
            return None
        if at(event, fields.label) is not None:
            return Refusal("label", "a label without features")
        return Refusal("not_a_prediction", "no features, prediction, score, latency or error")

    def _flat_features(self, event: dict[str, object]) -> dict[str, object]:
        reserved = self._fields.reserved()
        return {name: value for name, value in event.items() if name not in reserved}

    def _raw(self, event: dict[str, object]) -> dict[FeatureKey, object]:
        """Everything of an event that a learned reference may hold."""
        fields = self._fields
        features = self._flat_features(event) if fields.flat else at(event, fields.features)
        scores = at(event, fields.scores)
        raw: dict[FeatureKey, object] = {}
        for kind, values in (("input", features), ("score", scores)):
            if isinstance(values, dict):
                raw |= {FeatureKey(kind, name): value for name, value in values.items() if is_name(name)}  # type: ignore[arg-type]
        for key, path in (
            (OUTPUT, fields.prediction),
            (FeatureKey("score", SCORE), fields.score),
            (LABEL, fields.label),
        ):
            value = at(event, path)
            if value is not None:
                raw[key] = value
        return raw


def without_nan(text: bytes) -> bytes:
    """The text with `null` for each NaN token, which is no JSON; as it is where an escape hides what is a string."""
    if b"NaN" not in text or b"\\" in text:
        return text
    first, *others = text.split(b"NaN")
    parts, quotes = [first], first.count(b'"')
    for part in others:
        parts += (b"NaN" if quotes % 2 else b"null", part)
        quotes += part.count(b'"')
    return b"".join(parts)


def _code(value: object, vocabulary: Mapping[object, int]) -> int:
    if not isinstance(value, str | int | float | None):
        return WRONG_TYPE
    if isinstance(vocabulary, Names):
        vocabulary.learn((value,))
    return vocabulary.get(value, UNSEEN)


def _parse_int(digits: str) -> int | float:
    return int(digits) if len(digits) < _HUGE_DIGITS else NON_FINITE_NUMBER


def is_json(content_type: str) -> bool:
    """Whether a content type (or none at all) leaves it open that a message is one JSON text."""
    essence = content_type.partition(";")[0].strip().lower()
    return essence in ("", "application/json", "application/octet-stream", "text/plain") or essence.endswith("+json")


def _json_type(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
