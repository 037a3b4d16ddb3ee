"""What systemd wants to know of a service: that it is ready, reloads, stops, and that it still does its work.

A datagram of lines for each (`sd_notify(3)`), to the socket that the environment names. Nothing is sent without one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

__all__ = ["Notifier"]

_STATUS_EVERY = 10.0  # seconds
_PATIENCE = 5.0  # seconds, for a manager that is busy; who has a watchdog would be restarted later than that


class Notifier:
    """`path`: the socket, None if nobody wants to know. `watchdog`: seconds within which it wants to hear of progress.

    Each method that tells something returns why it could not, or None.
    """

    def __init__(self, path: str | None = None, watchdog: float | None = None) -> None:
        self.path = path
        self.watchdog = watchdog
        self._due = 0.0
        self._progress: tuple[int, int] | None = None
        self._status = ""

    @classmethod
    def of(cls, environment: Mapping[str, str], pid: int) -> Notifier:
        """As the environment of this process says it. What is for another process is not for this one."""
        path = environment.get("NOTIFY_SOCKET") or None
        if path is None or path[0] not in "/@":
            return cls()
        usec = environment.get("WATCHDOG_USEC", "")
        meant = environment.get("WATCHDOG_PID", str(pid)) == str(pid)
        return cls(path, int(usec) / 1_000_000 if usec.isascii() and usec.isdigit() and meant and int(usec) else None)

    @property
    def due(self) -> float | None:
        """When (`time.monotonic`) something is to be told though nothing happens."""
        return None if self.path is None else self._due

    def ready(self, status: str) -> str | None:
        self._due = time.monotonic() + self._every
        return self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> str | None:
        return self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> str | None:
        return self._send("STOPPING=1", f"STATUS={status}")

    def turned(self, made: int, read: int, status: str) -> str | None:
        """To be called when a loop has read and written. `made` are all events until now, `read` those that were read.

        If there are more to read than before, and none was, that is no progress: then the watchdog is told nothing.
        """
        now = time.monotonic()
        if self.path is None or now < self._due:
            return None
        if self._progress is not None and read == self._progress[1] and made > self._progress[0]:
            self._due = now + self._every / 10
            return None
        self._due = now + self._every
        self._progress = made, read
        lines = [f"STATUS={status}"] if status != self._status else []
        self._status = status
        if self.watchdog is not None:
            lines.append("WATCHDOG=1")
        return self._send(*lines) if lines else None

    @property
    def _every(self) -> float:
        return _STATUS_EVERY if self.watchdog is None else min(_STATUS_EVERY, self.watchdog / 3)

    def _send(self, *lines: str) -> str | None:
        if self.path is None:
            return None
        import socket  # noqa: PLC0415 - for services

        address = f"\0{self.path[1:]}" if self.path.startswith("@") else self.path
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(_PATIENCE)
                sender.sendto("\n".join(lines).encode(errors="backslashreplace"), address)
        except OSError as error:
            return f"{self.path}: the service manager was not told {lines[0]}: {error.strerror or error}"
        return None
