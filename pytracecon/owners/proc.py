"""What /proc tells of a process that is older than the tracer.

A number may serve another process by now: what was read counts only if the one that has the number afterwards was born
when the one that is meant was.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from pytracecon.clock import SECOND
from pytracecon.text import decode as text
from pytracecon.wire import PARENTS

__all__ = ["Program", "args_in", "parents_of", "program_of", "stat_in"]

_LONGEST = 4096
_DELETED = " (deleted)"
_TICKS = os.sysconf("SC_CLK_TCK")


class Program(NamedTuple):
    exe: str | None = None
    args: list[str] | None = None
    args_cut: bool | None = None


def program_of(pid: int, born: int) -> Program | None:
    """None if it is gone or cannot be looked at. `born` is of the clock that runs in suspend, in nanoseconds."""
    try:
        args = _read(f"/proc/{pid}/cmdline", _LONGEST + 1)
        exe = _exe(pid)
        if _stat(pid)[1] != born * _TICKS // SECOND:
            return None
    except OSError:  # it is gone, or hidden from us, or no descriptor is left to look
        return None
    return Program(exe, *args_in(args))


def args_in(raw: bytes) -> tuple[list[str] | None, bool | None]:
    """Of the beginning of /proc/PID/cmdline, and whether there is more than is told."""
    cut = len(raw) > _LONGEST
    parts = raw[:_LONGEST].split(b"\0")
    if not cut and not parts[-1]:
        parts.pop()
    return [text(part) for part in parts] or None, True if cut else None


def parents_of(pid: int, born: int) -> list[int]:
    """Nearest first; as many as the kernel side tells. Empty if the process is gone."""
    found: list[int] = []
    try:
        parent, since = _stat(pid)
        if since != born * _TICKS // SECOND:
            return []
        while parent and len(found) < PARENTS:
            found.append(parent)
            parent, _ = _stat(parent)
    except OSError:
        return []
    return found


def _exe(pid: int) -> str | None:
    try:
        path = Path(f"/proc/{pid}/exe").readlink()
    except (PermissionError, FileNotFoundError):  # another user's, a kernel thread's, a zombie's
        return None
    return text(os.fsencode(path)).removesuffix(_DELETED)


def _stat(pid: int) -> tuple[int, int]:
    """The parent, and the birth in ticks."""
    return stat_in(_read(f"/proc/{pid}/stat", _LONGEST))


def stat_in(raw: bytes) -> tuple[int, int]:
    """Of a line of /proc/PID/stat, in which a process's name may hold anything."""
    fields = raw.rpartition(b") ")[2].split()
    return int(fields[1]), int(fields[19])


def _read(path: str, most: int) -> bytes:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = b""
        while len(found) < most and (more := os.read(handle, most - len(found))):
            found += more
        return found
    finally:
        os.close(handle)
