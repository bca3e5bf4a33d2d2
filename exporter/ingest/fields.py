"""Where the fields of an event lie in its JSON, so that a topic that exists already works unchanged."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TypeAlias

Path: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fields:
    """Path of each field. With `flat`, features are the keys beside the other fields, but for those in `exclude`."""

    model: Path = ("model",)
    version: Path = ("version",)
    timestamp: Path = ("timestamp",)
    features: Path = ("features",)
    prediction: Path = ("prediction",)
    score: Path = ("score",)
    scores: Path = ("scores",)
    latency_seconds: Path = ("latency_seconds",)
    error: Path = ("error",)
    label: Path = ("label",)
    id: Path = ("id",)
    tags: Path = ("tags",)
    flat: bool = False
    exclude: frozenset[str] = frozenset()

    def feature(self, name: str) -> Path:
        """Path of an input feature."""
        return (name,) if self.flat else (*self.features, name)

    def reserved(self) -> frozenset[str]:
        """Top-level keys that are no flat features."""
        return self.exclude | {path[0] for path in self.paths().values()}

    def paths(self) -> dict[str, Path]:
        """Path by field name."""
        return {name: getattr(self, name) for name in FIELD_NAMES if not (self.flat and name == "features")}


FIELD_NAMES = tuple(field.name for field in fields(Fields) if field.name not in ("flat", "exclude"))


def remap(remapped: Mapping[str, str], exclude: frozenset[str] = frozenset()) -> Fields:
    """Fields with some moved, e.g. {"id": "request_id", "features": "payload.inputs"}; features "*" means flat.

    Raises ValueError naming an unknown field, an empty path, or one that leads through another field's value.
    """
    flat = remapped.get("features") == "*"
    paths: dict[str, Path] = {}
    for name, path in remapped.items():
        if name not in FIELD_NAMES:
            raise ValueError(f"{name}: unknown field; expected one of {', '.join(FIELD_NAMES)}")
        if flat and name == "features":
            continue
        parts = tuple(path.split("."))
        if not all(parts):
            raise ValueError(f"{name}: {path!r} is not a dotted path")
        paths[name] = parts
    fields = Fields(**paths, flat=flat, exclude=exclude)
    places = fields.paths()
    for inner, long in places.items():
        for outer, short in places.items():
            through = long[: len(short)] == short and (len(long) > len(short) or inner == "features")
            if outer not in (inner, "features") and through:
                raise ValueError(f"{inner}: {'.'.join(long)} leads through {'.'.join(short)}, which is the {outer}")
    return fields


def at(event: object, path: Path) -> object:
    """The value at a path of decoded JSON; None where it does not lead anywhere."""
    for part in path:
        if not isinstance(event, dict):
            return None
        event = event.get(part)
    return event
