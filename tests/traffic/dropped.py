"""A tracer in a process of its own that has dropped its privileges, and what it tells from then on."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytracecon import Tracer, drop_privileges
from traffic.actor import DEADLINE
from traffic.waiting import readable

Told = dict[str, Any]


class DroppedTracer:
    """Forked from here: no start of Python to wait for. `user` and `keep` are for `drop_privileges`."""

    def __init__(self, *, user: str | None = None, keep: str = "needs", **keywords: Any) -> None:
        self.events: list[Told] = []
        self._buffer = b""
        self._socket, there = socket.socketpair()
        self.pid = os.fork()
        if not self.pid:
            self._socket.close()
            _trace(there, user, keep, keywords)
        there.close()
        self.dropped = self._answer("dropped")

    def status(self) -> dict[str, str]:
        """What the kernel tells of its process."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def until(self, condition: Callable[[list[Told]], bool], *, within: float = DEADLINE) -> bool:
        """Read until the condition holds of all events so far; false when it did not in time."""
        deadline = time.monotonic() + within
        while not condition(self.events):
            if time.monotonic() > deadline:
                return False
            self._read(0.2)
        return True

    def snapshot(self) -> list[Told]:
        self._socket.send(b"s")
        rows: list[Told] = self._answer("rows")
        return rows

    def close(self) -> None:
        self._socket.close()
        os.waitpid(self.pid, 0)

    def _answer(self, key: str) -> Any:
        found: list[Told] = []

        def answered(events: list[Told]) -> bool:
            found.extend(event for event in events if key in event)
            return bool(found)

        assert self.until(answered), f"it did not answer: {self.events[-3:]}"
        self.events.remove(found[0])
        return found[0][key]

    def _read(self, patience: float) -> None:
        if not readable(self._socket.fileno(), patience):
            return
        data = self._socket.recv(1 << 16)
        assert data, f"it ended: {self.events[-3:]}"
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        self.events += map(json.loads, lines)


def _trace(there: socket.socket, user: str | None, keep: str, keywords: dict[str, Any]) -> None:
    """In the child, until the other end is closed."""
    try:
        with Tracer(**keywords) as tracer:
            tracer.prepare_snapshots()
            dropped = drop_privileges(tracer, user=user, keep=keep)
            _send(there, {"dropped": {"kept": dropped.kept, "lost": dropped.lost}})
            while True:
                there.sendall(tracer.read_json(0.05).data)
                if readable(there.fileno(), 0):
                    if not there.recv(1):
                        return
                    rows = [{"pid": each.pid, "local_port": each.local_port} for each in tracer.snapshot()]
                    _send(there, {"rows": rows})
    except BaseException as error:  # noqa: BLE001 - the parent shows it
        _send(there, {"failed": repr(error)})
    finally:
        os._exit(0)


def _send(there: socket.socket, what: Told) -> None:
    there.sendall(json.dumps(what).encode() + b"\n")
