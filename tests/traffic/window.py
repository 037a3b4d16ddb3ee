"""A terminal of the test's own with a program on it: keys go in, and what it shows is read as a person would."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from typing import Any

import pyte

from traffic.actor import DEADLINE
from traffic.peers import TOP
from traffic.waiting import readable

ENTERS, LEAVES = b"\x1b[?1049h", b"\x1b[?1049l"
"""The alternate screen: what a program draws there is gone when it leaves."""


class Window:
    """The program leads a session on the terminal, as what a login or an ssh starts does."""

    def __init__(self, *command: str, wide: int = 80, high: int = 24, **environment: str) -> None:
        self._master, self._slave = pty.openpty()
        self._screen = pyte.Screen(wide, high)
        self._stream = pyte.ByteStream(self._screen)
        self.said = b""
        self.resize(wide, high)
        self.settings_before = self.settings()
        own = {
            name: value for name, value in os.environ.items() if name not in ("TERM", "NO_COLOR", "COLUMNS", "LINES")
        }
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *command],
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            env=own | environment,
            cwd=TOP,
        )

    def settings(self) -> list[Any]:
        return termios.tcgetattr(self._slave)

    def resize(self, wide: int, high: int) -> None:
        self._screen.resize(high, wide)
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", high, wide, 0, 0))

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._screen.display]

    def read(self, within: float) -> bool:
        """What it writes next; False if that is nothing."""
        if not readable(self._master, max(0.0, within)):
            return False
        data = os.read(self._master, 1 << 16)
        self.said += data
        self._stream.feed(data)
        return bool(data)

    def until(self, shown: Callable[[list[str]], bool]) -> list[str]:
        """The lines of the screen, as soon as they are so."""
        deadline = time.monotonic() + DEADLINE
        while not shown(self.lines()):
            assert time.monotonic() < deadline, "\n".join(self.lines())
            assert self.process.poll() is None or self.read(0), f"it ended: {self.said!r}"
            self.read(0.1)
        return self.lines()

    def until_shown(self, *words: str) -> list[str]:
        return self.until(lambda lines: all(any(word in line for line in lines) for word in words))

    def status(self) -> int:
        """Of its end, with all that it said before."""
        deadline = time.monotonic() + DEADLINE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "it does not end"
            self.read(0.05)
        while self.read(0):
            pass
        return self.process.returncode

    def stall(self) -> None:
        """From now on it takes nothing, as when somebody types Ctrl-S, or the line is down."""
        termios.tcflow(self._slave, termios.TCOOFF)

    def resume(self) -> None:
        termios.tcflow(self._slave, termios.TCOON)

    def hang_up(self) -> None:
        """As when a window is closed."""
        os.close(self._master)
        self._master = -1

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for descriptor in (self._master, self._slave):
            if descriptor >= 0:
                os.close(descriptor)
        self._master = self._slave = -1
