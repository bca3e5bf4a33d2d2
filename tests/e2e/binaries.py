"""Programs that are not Python: a test without its program is skipped with the reason, or fails where all must run."""

import os
import shutil

import pytest

REQUIRED = "MODEL_HEALTH_REQUIRE_E2E"


def binary(*names: str) -> str:
    """Path of the first of these programs that is installed."""
    for name in names:
        if path := shutil.which(name):
            return path
    missing(f"{' or '.join(names)} is not installed")


def missing(reason: str) -> None:
    """Skip the test, or fail it when the environment says that nothing may be skipped."""
    if os.environ.get(REQUIRED, "0") not in ("", "0"):
        pytest.fail(f"{reason}, and {REQUIRED} is set")
    pytest.skip(reason)
