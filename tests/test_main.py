"""What happens before anything is loaded."""

import os
import sys

import pytest

from exporter.__main__ import main


@pytest.mark.parametrize(("given", "used"), [(None, "1"), ("4", "4")])
def test_matrices_are_left_to_one_thread_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, given: str | None, used: str
):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", given or "")
    if given is None:
        monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    monkeypatch.setattr(sys, "argv", ["model-health-exporter", "--version"])

    main()

    assert os.environ["OPENBLAS_NUM_THREADS"] == used
