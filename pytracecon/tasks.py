"""`Task`: something to be done in a thread, and whatever it raised, for who waits for it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Task"]


class Task:
    def __init__(self, what: str, function: Callable[[], None]) -> None:
        self._function = function
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"pytracecon: {what}", daemon=True)

    def begin(self) -> None:
        """Again: nothing."""
        if self._thread.ident is None:
            self._thread.start()

    def _run(self) -> None:
        try:
            self._function()
        except BaseException as error:  # noqa: BLE001 - result() raises it
            self._failed = error

    def wait(self) -> None:
        """Until it is done, if it was begun at all."""
        if self._thread.ident is not None:
            self._thread.join()

    def result(self) -> None:
        """Wait, and raise what it raised."""
        self.wait()
        if self._failed is not None:
            raise self._failed
