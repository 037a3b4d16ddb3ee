"""Numbers of tracepoints, from tracefs wherever it is; and where it is not mounted, from a mount of nobody's.

`fsmount` makes a mount that is attached nowhere: it is seen by this process alone and is gone with the descriptor.
"""

from __future__ import annotations

import ctypes
import errno
import os
from ctypes import c_char_p, c_int, c_long, c_uint, c_uint32, c_uint64
from pathlib import Path

_MOUNTED = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432  # the same on every architecture
_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
_FSCONFIG_CMD_CREATE = 6
_CLOEXEC = 1
_PERF_TYPE_TRACEPOINT = 2
_PERF_FLAG_FD_CLOEXEC = 8

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = c_long


def _syscall(number: int, *args: object) -> int:
    result = int(_libc.syscall(c_long(number), *args))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _mount_of_nobodys() -> int:
    context = _syscall(_FSOPEN, c_char_p(b"tracefs"), c_uint(_CLOEXEC))
    try:
        _syscall(_FSCONFIG, c_int(context), c_uint(_FSCONFIG_CMD_CREATE), None, None, c_int(0))
        return _syscall(_FSMOUNT, c_int(context), c_uint(_CLOEXEC), c_uint(0))
    finally:
        os.close(context)


def root() -> int:
    """A descriptor of tracefs' top folder; the caller closes it. OSError if this kernel or process may not."""
    for path in _MOUNTED:
        if Path(path, "events").is_dir():
            return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return _mount_of_nobodys()


def tracepoint_number(category: str, name: str) -> int:
    """The number that perf knows a tracepoint by. FileNotFoundError if this kernel has none of that name."""
    top = root()
    try:
        handle = os.open(f"events/{category}/{name}/id", os.O_RDONLY | os.O_CLOEXEC, dir_fd=top)
    finally:
        os.close(top)
    with open(handle, encoding="ascii") as file:
        return int(file.read())


class _PerfEventAttr(ctypes.Structure):
    """struct perf_event_attr, its first published size; the rest is bit fields and zero."""

    _fields_ = (
        ("type", c_uint32),
        ("size", c_uint32),
        ("config", c_uint64),
        ("sample_period", c_uint64),
        ("sample_type", c_uint64),
        ("read_format", c_uint64),
        ("flags", c_uint64),
        ("wakeup_events", c_uint32),
        ("bp_type", c_uint32),
        ("config1", c_uint64),
    )


def open_tracepoint(category: str, name: str) -> int:
    """A perf event on a tracepoint, to attach a BPF program to: it runs for every process on every CPU."""
    number = _PERF_EVENT_OPEN.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, f"perf events are not known on {os.uname().machine}")
    attr = _PerfEventAttr(
        type=_PERF_TYPE_TRACEPOINT,
        size=ctypes.sizeof(_PerfEventAttr),
        config=tracepoint_number(category, name),
        sample_period=1,
        wakeup_events=1,
    )
    return _syscall(number, ctypes.byref(attr), c_int(-1), c_int(0), c_int(-1), c_uint(_PERF_FLAG_FD_CLOEXEC))
