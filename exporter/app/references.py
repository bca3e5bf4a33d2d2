"""Reference files: found by path or pattern, read, refused with the file's name when broken."""

import glob
from collections.abc import Sequence
from pathlib import Path

from exporter.monitor import reference
from exporter.monitor.features import BadReference
from exporter.monitor.reference import Reference


def load_file(path: Path) -> Reference:
    """Read one reference. Raises BadReference, naming the file."""
    try:
        return reference.decode(path.read_bytes())
    except OSError as error:
        raise BadReference(f"cannot read {path}: {error.strerror}") from None
    except BadReference as error:
        raise BadReference(f"{path}: {error}") from None


def load_all(patterns: Sequence[str], model: str, base: Path) -> list[Reference]:
    """Read every file that the patterns match, relative to `base`. Raises BadReference, naming the file or pattern."""
    found: dict[str, Reference] = {}
    for pattern in patterns:
        paths = sorted(glob.glob(str(base / pattern)))  # noqa: PTH207 - patterns may be absolute, which Path.glob refuses
        if not paths:
            raise BadReference(f"{base / pattern}: no such reference")
        for path in paths:
            one = load_file(Path(path))
            if one.model != model:
                raise BadReference(f"{path}: reference of {one.model}, not of {model}")
            found[one.id] = one
    return list(found.values())
