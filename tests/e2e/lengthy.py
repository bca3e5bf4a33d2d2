"""Tests that take longer than ten seconds run where nothing may be skipped."""

import os

import pytest

from tests.e2e.binaries import REQUIRED

long = pytest.mark.skipif(
    os.environ.get(REQUIRED, "0") in ("", "0"), reason=f"takes longer than 10 s; runs where {REQUIRED} is set"
)
clients = pytest.mark.parametrize("client", ["kafka-python", "confluent"])
