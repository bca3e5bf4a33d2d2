"""What goes on while a test does other things, in a thread; what fails in it fails the test."""

import threading
from types import TracebackType
from typing import Self


class Background:
    """Something that goes on until it has done all, or the context that it is used as ends."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def go_on(self) -> None:
        """What is done; it returns soon after `_ended` is set."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        if self._failed is not None:
            raise self._failed

    def _run(self) -> None:
        try:
            self.go_on()
        except BaseException as error:  # noqa: BLE001 - raised where the thread is joined
            self._failed = error
