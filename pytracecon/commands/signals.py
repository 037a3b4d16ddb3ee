"""What ends a run from outside, or has it open its file again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Protocol, Self

__all__ = ["Signals"]


class Stoppable(Protocol):
    def stop(self) -> None: ...


class Signals:
    """SIGINT, SIGTERM and SIGHUP stop the tracer, now or as soon as there is one. A SIGINT after that kills.

    For who writes to a file (`reload_at_hangup`) SIGHUP asks to open that again, and ends nothing, unless the terminal
    that it was started from is gone.

    Entered before anything slow is done: Python's own handler would raise KeyboardInterrupt anywhere in an import,
    and there are places where that is lost.
    """

    def __init__(self) -> None:
        self.asked = False
        self.reload_asked = False
        self.nudge: Callable[[], None] = lambda: None
        """Called when `reload_asked` is true, in the signal handler: whoever waits shall look."""
        self._reloads = False
        self._had_terminal = False
        self._tracer: Stoppable | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            before = signal.getsignal(number)
            if number == signal.SIGHUP and before == signal.SIG_IGN:  # nohup
                continue
            self._before[number] = before
            signal.signal(number, self._hang_up if number == signal.SIGHUP else self._stop)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def stop_at_signal(self, tracer: Stoppable | None) -> None:
        """From now on, and at once if a signal came already. None before it is closed."""
        self._tracer = tracer
        if self.asked and tracer is not None:
            tracer.stop()

    def reload_at_hangup(self) -> None:
        self._had_terminal = _has_terminal()
        self._reloads = True

    def _hang_up(self, number: int, frame: FrameType | None) -> None:
        if not self._reloads or (self._had_terminal and not _has_terminal()):
            self._stop(number, frame)
            return
        self.reload_asked = True
        self.nudge()

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if self._tracer is not None:
            self._tracer.stop()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
