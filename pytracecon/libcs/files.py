"""Files in other processes' roots, opened without harm: whoever made them may have meant any.

A file is opened first as a place only (O_PATH: nothing waits, nothing is triggered), looked at, and read only if it is
regular.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

__all__ = ["Status", "identity", "inside", "is_stacked", "place", "readable", "status"]

_OPENAT2 = 437  # on every architecture
_STATX = {"x86_64": 332, "aarch64": 291}.get(os.uname().machine, 291)
_RESOLVE_NO_MAGICLINKS, _RESOLVE_IN_ROOT = 0x02, 0x10
_HOW = struct.pack("=3Q", os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_NO_MAGICLINKS | _RESOLVE_IN_ROOT)
_AT_FDCWD = -100
_STATX_FLAGS = 0x5800  # AT_NO_AUTOMOUNT, AT_EMPTY_PATH, AT_STATX_DONT_SYNC
_STATX_INO, _STATX_BORN, _STATX_BASIC_AND_BORN = 0x100, 0x800, 0xFFF
_STATUS = struct.Struct("=I24xHxxQQ32x qIxxxx qIxxxx qIxxxx 8xII")
_OVERLAYFS = 0x794C7630
_TRIES = 4

_libc = ctypes.CDLL(None, use_errno=True)
_openat2 = _libc["syscall"]
_openat2.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
_openat2.restype = ctypes.c_long
_statx = _libc["syscall"]
_statx.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)
_statx.restype = ctypes.c_long
_fstatfs = _libc["fstatfs"]
_fstatfs.argtypes = (ctypes.c_int, ctypes.c_void_p)


class Status(NamedTuple):
    device: int
    inode: int
    mode: int
    size: int
    born: int
    """Nanoseconds, as all times. Where the file system keeps no time of birth, that of the last change."""
    changed: int
    modified: int


def status(path: bytes = b"", *, at: int = _AT_FDCWD) -> Status:
    """What is at a path, or behind the descriptor `at`; a network file system is not asked if the answer is cached."""
    fields = _STATUS.unpack_from(_looked_at(path, at, _STATX_BASIC_AND_BORN))
    mask, mode, inode, size, born, born_ns, changed, changed_ns, modified, modified_ns, major, minor = fields
    change = changed * 1_000_000_000 + changed_ns
    birth = born * 1_000_000_000 + born_ns if mask & _STATX_BORN else change
    return Status(os.makedev(major, minor), inode, mode, size, birth, change, modified * 1_000_000_000 + modified_ns)


def identity(path: bytes) -> bytes:
    """What no other file has: its inode and device, as the kernel wrote them."""
    raw = _looked_at(path, _AT_FDCWD, _STATX_INO).raw
    return raw[32:40] + raw[136:144]


def _looked_at(path: bytes, at: int, wanted: int) -> ctypes.Array[ctypes.c_char]:
    into = ctypes.create_string_buffer(256)
    while _statx(_STATX, at, path, _STATX_FLAGS, wanted, into) < 0:
        if ctypes.get_errno() != errno.EINTR:
            raise _error(path)
    return into


@contextmanager
def place(path: str) -> Iterator[int]:
    """A descriptor of whatever is at a path that is ours to trust, such as /proc/PID/root; not to be read from."""
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def inside(root: int, path: bytes) -> Iterator[int]:
    """The same of a path as a process with that root sees it: no link leads out of it, none of /proc is followed."""
    tries = _TRIES
    while (descriptor := _openat2(_OPENAT2, root, path, _HOW, len(_HOW))) < 0:
        # EAGAIN: something on the way was renamed or mounted meanwhile.
        tries -= 1
        if not tries or ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR):
            raise _error(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def readable(descriptor: int) -> int:
    """A descriptor to read from, of a place that is known to be a regular file. The caller closes it.

    O_NONBLOCK: whoever holds a lease on the file is not waited for.
    """
    return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


def is_stacked(descriptor: int) -> bool:
    """Whether the file lies on overlayfs, so that its inode stands for one of another file system."""
    into = ctypes.create_string_buffer(256)
    while _fstatfs(descriptor, into) < 0:
        if ctypes.get_errno() != errno.EINTR:
            raise _error(b"")
    return int.from_bytes(into.raw[:8], "little") == _OVERLAYFS


def _error(path: bytes) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), os.fsdecode(path) or None)
