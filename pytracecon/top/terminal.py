"""The terminal of `top`: standard input and output, and nothing left behind on it, whatever becomes of it."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from typing import Any

from textual.drivers.linux_driver import LinuxDriver

from pytracecon.top.screen import is_plain

__all__ = ["Terminal"]

_PATIENCE = 1.0  # seconds for which a terminal that takes nothing is waited for at the end
_QUESTIONS = frozenset({"\x1b[?2026$p", "\x1b[?2048$p"})
"""What a terminal supports. Those that do not know this way of asking show its last letter."""


class _Output:
    """A file that takes everything at once and writes it in its order, in a thread of its own.

    So it holds nobody up: not when the terminal is slow, nor when it is gone, which `gone` is told. Textual's thread
    that writes would block its callers after thirty pieces, for ever if nobody takes them any more.
    """

    def __init__(self, descriptor: int, gone: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._gone = gone
        self._pieces: list[bytes] = []
        self._some = threading.Condition()
        self._stopping = False
        self._failed = False
        self._writes = False
        self._thread = threading.Thread(target=self._run, daemon=True, name="pytracecon: writes to the terminal")
        self._thread.start()

    @property
    def is_behind(self) -> bool:
        return self._writes or bool(self._pieces)

    def write(self, text: str) -> int:
        with self._some:
            if not self._failed:
                self._pieces.append(text.encode(errors="backslashreplace"))
                self._some.notify()
        return len(text)

    def flush(self) -> None:
        """It is written as soon as the terminal takes it."""

    def fileno(self) -> int:
        return self._descriptor

    def stop(self) -> None:
        """After all is written, or the terminal was given its time to take it."""
        with self._some:
            self._stopping = True
            self._some.notify()
        self._thread.join(_PATIENCE)

    def _run(self) -> None:
        while True:
            with self._some:
                while not self._pieces and not self._stopping:
                    self._some.wait()
                data = b"".join(self._pieces)
                self._pieces.clear()
                self._writes = bool(data)
            if not data:
                return
            try:
                while data:
                    data = data[self._write_some(data) :]
            except OSError:  # it was closed
                with self._some:
                    self._failed = True
                    self._pieces.clear()
                    self._writes = False
                self._gone()
                return
            with self._some:
                self._writes = False

    def _write_some(self, data: bytes) -> int:
        while True:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:  # whoever shares the terminal has made it non-blocking
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()


class Terminal(LinuxDriver):
    """Textual's, but for standard output, and for a terminal that may go away at any moment."""

    def __init__(self, app: Any, **given: Any) -> None:
        super().__init__(app, **given)
        self._stop_app: Callable[[], None] = app.stop
        self._output: _Output | None = None

    @property
    def is_behind(self) -> bool:
        """It has not taken yet what was drawn."""
        return self._output is not None and self._output.is_behind

    @property
    def is_gone(self) -> bool:
        poll = select.poll()
        poll.register(1, 0)
        return bool(poll.poll(0))

    def _get_terminal_size(self) -> tuple[int, int]:
        """Textual would go by COLUMNS and LINES first, which do not follow a window that is resized."""
        try:
            wide, high = os.get_terminal_size(1)
        except OSError:  # it was closed
            wide = high = 0
        return wide or 80, high or 24

    def start_application_mode(self) -> None:
        self._file: Any
        self._file = self._output = _Output(1, self._end)
        super().start_application_mode()  # type: ignore[no-untyped-call]

    def write(self, data: str) -> None:
        if data not in _QUESTIONS or not is_plain(os.environ):
            super().write(data)

    def run_input_thread(self) -> None:
        try:
            super().run_input_thread()
        except OSError:  # it was closed
            self._end()

    def close(self) -> None:
        super().close()
        if self._output is not None:
            self._output.stop()
            self._output = None

    def _end(self) -> None:
        self._stop_app()
