"""What ends a run from outside."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Protocol, Self

__all__ = ["Signals"]


class Stoppable(Protocol):
    def stop(self) -> None: ...


class Signals:
    """SIGINT, SIGTERM and SIGHUP stop the tracer, now or as soon as there is one. A SIGINT after that kills.

    Entered before anything slow is done: Python's own handler would raise KeyboardInterrupt anywhere in an import,
    and there are places where that is lost.
    """

    def __init__(self) -> None:
        self.asked = False
        self._tracer: Stoppable | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            before = signal.getsignal(number)
            if number == signal.SIGHUP and before == signal.SIG_IGN:  # nohup
                continue
            self._before[number] = before
            signal.signal(number, self._stop)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def stop_at_signal(self, tracer: Stoppable | None) -> None:
        """From now on, and at once if a signal came already. None before it is closed."""
        self._tracer = tracer
        if self.asked and tracer is not None:
            tracer.stop()

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if self._tracer is not None:
            self._tracer.stop()
