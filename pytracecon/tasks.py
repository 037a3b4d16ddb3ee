"""`Task`: something to be done in a thread, and whatever it raised, for who waits for it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Task"]

_BEGINS_WITHIN = 10.0  # seconds


class Task:
    def __init__(self, what: str, function: Callable[[], None]) -> None:
        self._function = function
        self._failed: BaseException | None = None
        self._began = False
        self._runs = threading.Event()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"pytracecon: {what}", daemon=True)

    def begin(self) -> None:
        self._began = True
        self._thread.start()

    def _run(self) -> None:
        self._runs.set()
        try:
            self._function()
        except BaseException as error:  # noqa: BLE001 - result() raises it
            self._failed = error
        finally:
            self._done.set()

    def wait(self) -> None:
        """Until it is done, if it was begun at all; also where an exception (Ctrl-C) came up as it was begun."""
        if self._began and self._runs.wait(_BEGINS_WITHIN):
            self._done.wait()

    def result(self) -> None:
        """Wait, and raise what it raised."""
        self.wait()
        if self._failed is not None:
            raise self._failed
