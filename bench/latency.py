"""From close() in a program to the line in the tracer's file, while there is little traffic.

The program is this one: it holds both ends, and watches the file that the tracer writes.
"""

from __future__ import annotations

import ctypes
import os
import re
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.load import CPU
from bench.tracers import Pytracecon, Tcplife, Tracer

Raw = dict[str, Any]

PACES = {"4 a second": (0.25, 24), "50 a second": (0.02, 150)}
"""Seconds between two connections, and how many: one finds the reader asleep, the other in its nap."""
PATIENCE = 5.0
_IN_MODIFY = 2
_NUMBER = re.compile(rb"\b\d{4,5}\b")


def measure(python: str, folder: Path) -> Raw:
    """By pace and side: seconds from a connection's second close() until both ends' lines are in the file."""
    sides: dict[str, tuple[Callable[[], Tracer], bytes]] = {
        "pytracecon": (lambda: Pytracecon(python, folder), b'"event":"close"'),
        "tcplife": (lambda: Tcplife(folder, by_line=True), b""),
    }
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {CPU})
    try:
        return {
            pace: {name: _delays(side, mark, interval, count) for name, (side, mark) in sides.items()}
            for pace, (interval, count) in PACES.items()
        }
    finally:
        os.sched_setaffinity(0, before)


def _delays(side: Callable[[], Tracer], mark: bytes, interval: float, count: int) -> list[float]:
    with side() as tracer, socket.create_server(("127.0.0.1", 0)) as listener:
        tracer.pin()
        tracer.settle()
        return list(_each(tracer.output, mark, listener, interval, count))


def _each(output: Path, mark: bytes, listener: socket.socket, interval: float, count: int) -> Iterator[float]:
    """Makes so many connections, and waits for the lines of each: two with this mark that have its client's port."""
    closed: dict[bytes, float] = {}
    seen: Counter[bytes] = Counter()
    began = time.monotonic()
    with output.open("rb") as lines, _changes(output) as changes:
        lines.seek(0, os.SEEK_END)
        rest = b""
        for number in range(count + 1):
            due = began + (number + 1) * interval if number < count else time.monotonic() + PATIENCE
            while (left := due - time.monotonic()) > 0 and (number < count or closed):
                if not select.select([changes], [], [], left)[0]:
                    continue
                now = time.monotonic()
                os.read(changes, 1 << 12)
                rest += lines.read()
                *whole, rest = rest.split(b"\n")
                told = [word for line in whole if mark in line for word in set(_NUMBER.findall(line))]
                seen.update(word for word in told if word in closed)
                for port in [port for port in closed if seen[port] >= 2]:
                    yield now - closed.pop(port)
            if number < count:
                port, moment = _connection(listener)
                closed[port] = moment
    if closed:
        raise RuntimeError(f"{len(closed)} connections of {count} are not in {output} after {PATIENCE:.0f} s")


def _connection(listener: socket.socket) -> tuple[bytes, float]:
    """Its client's port, as a line shows it, and when it was closed."""
    near = socket.create_connection(listener.getsockname())
    far, (_, port) = listener.accept()
    near.send(b"12345")
    far.recv(5)
    near.close()
    moment = time.monotonic()
    far.close()
    return str(port).encode(), moment


@contextmanager
def _changes(path: Path) -> Iterator[int]:
    """A descriptor that is readable when the file was written to."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_CLOEXEC)
    if descriptor < 0 or libc.inotify_add_watch(descriptor, os.fsencode(path), _IN_MODIFY) < 0:
        raise OSError(ctypes.get_errno(), "inotify")
    try:
        yield descriptor
    finally:
        os.close(descriptor)
