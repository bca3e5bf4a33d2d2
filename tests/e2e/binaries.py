"""Programs that are not Python: a test without its program is skipped with the reason, or fails where all must run."""

import os
import shutil
from typing import NoReturn

import pytest

REQUIRED = "MODEL_HEALTH_REQUIRE_E2E"


def binary(*names: str) -> str:
    """Path of the first of these programs that is installed."""
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        missing(f"{' or '.join(names)} is not installed")
    return path


def missing(reason: str) -> NoReturn:
    """Skip the test, or fail it when the environment says that nothing may be skipped."""
    if os.environ.get(REQUIRED, "0") not in ("", "0"):
        pytest.fail(f"{reason}, and {REQUIRED} is set")
    pytest.skip(reason)
