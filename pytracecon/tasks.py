"""`Task`: something to be done in a thread, and whatever it raised, for who waits for it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Task"]

_BEGINS_WITHIN = 10.0  # seconds
_LOOK_AGAIN = 0.05
_OFTEN = 0.002


class Task:
    """Flags say how far it is, and a lock only wakes: an exception out of a signal handler can leave any lock taken."""

    def __init__(self, what: str, function: Callable[[], None]) -> None:
        self._function = function
        self._failed: BaseException | None = None
        self._began = self._runs = self._ended = False
        self._end = threading.Lock()
        self._end.acquire()
        self._thread = threading.Thread(target=self._run, name=f"pytracecon: {what}", daemon=True)

    def begin(self) -> None:
        self._began = True
        self._thread.start()

    def _run(self) -> None:
        self._runs = True
        try:
            self._function()
        except BaseException as error:  # noqa: BLE001 - result() raises it
            self._failed = error
        finally:
            self._ended = True
            self._end.release()

    def wait(self, often: Callable[[], None] | None = None) -> None:
        """Until it is done, if it was begun at all; also where an exception (Ctrl-C) came up as it was begun.

        Meanwhile `often` is called, every few milliseconds.
        """
        until = time.monotonic() + _BEGINS_WITHIN
        while self._began and not self._ended and (self._runs or time.monotonic() < until):
            if often is not None:
                often()
            self._end.acquire(timeout=_LOOK_AGAIN if often is None else _OFTEN)

    def result(self) -> None:
        """Wait, and raise what it raised."""
        self.wait()
        if self._failed is not None:
            raise self._failed
