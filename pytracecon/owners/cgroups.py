"""`Cgroups`: where the cgroup with this id lies, as the kernel said when it was made, or as long as it is there.

A cgroup's id (v2) is never used again and its path never changes, so whatever was known once stays right.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import time
from collections import OrderedDict
from collections.abc import Callable
from sys import getsizeof
from types import TracebackType
from typing import NamedTuple, Self

from pytracecon.filters.places import Mount, cgroup2_mounts, mountinfo
from pytracecon.owners.remembered import Remembered
from pytracecon.owners.shapes import Place, place_of

__all__ = ["Cgroups"]

_KNOWN, _KNOWN_SIZE = 8_192, 8 << 20
_AGAIN = 1.0  # after so many seconds is an id that was not found looked for once more
_MOST_WALKED, _MOST_WALKED_SIZE = 65_536, 16 << 20
_WALK_SHARE = 20  # where a walk over all cgroups is needed, it gets a 20th of the time

# struct file_handle with FILEID_KERNFS, Linux 33c5ac917517 (v5.5): the id is all there is to say.
_HANDLE = struct.Struct("=IiQ")
_FILEID_KERNFS = 0xFE
_DELETED = b" (deleted)"
# CAP_DAC_READ_SEARCH is missing, or a seccomp filter does not let it pass: so it will stay.
_DENIED = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP)

_libc = ctypes.CDLL(None, use_errno=True)
_open_by_handle_at = _libc["open_by_handle_at"]
_open_by_handle_at.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int)


class Cgroups:
    """For one tracer, and one thread. 8,192 are remembered; those asked for longest ago are forgotten first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._paths: Remembered[int, str] = Remembered(_KNOWN, _KNOWN_SIZE, getsizeof)
        self._missing: OrderedDict[int, float] = OrderedDict()
        self._mount = _mount()
        self._walked: dict[int, bytes] = {}
        self._walk_again = 0.0
        self._by_handle = True

    def made(self, number: int, path: bytes) -> None:
        """The kernel told the path of a cgroup (v2) when it was made, from the root of the hierarchy."""
        self._missing.pop(number, None)
        self._paths.remember(number, path.partition(b"\0")[0].decode("utf-8", "backslashreplace"))

    def place(self, number: int) -> Place | None:
        """None: not known. Most that is asked was asked before, and that takes well below a microsecond."""
        path = self.path(number)
        return None if path is None else place_of(path)

    def path(self, number: int) -> str | None:
        """From the root of the hierarchy, or of what is mounted of it here."""
        path = self._paths.get(number)
        if path is None:
            return self._found(number)
        self._paths.move_to_end(number)
        return path

    def close(self) -> None:
        """What is known stays known; nothing more is looked for."""
        if self._mount is not None:
            os.close(self._mount.descriptor)
            self._mount = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _found(self, number: int) -> str | None:
        if self._mount is None:
            return None
        now = self._clock()
        if self._missing.get(number, now) > now:
            return None
        path = self._looked_up(self._mount, number)
        if path is not None:
            self._missing.pop(number, None)
            self._paths.remember(number, path)
            return path
        self._missing[number] = now + _AGAIN
        self._missing.move_to_end(number)
        if len(self._missing) > _KNOWN:
            self._missing.popitem(last=False)
        return None

    def _looked_up(self, mount: _Mounted, number: int) -> str | None:
        if self._by_handle:
            try:
                return _path_by_handle(mount, number)
            except OSError as error:
                if error.errno not in _DENIED:  # mostly ESTALE: it is gone
                    return None
                self._by_handle = False
        return self._path_by_walk(mount, number)

    def _path_by_walk(self, mount: _Mounted, number: int) -> str | None:
        begun = self._clock()
        if number not in self._walked and begun >= self._walk_again:
            self._walked = _walk(mount)
            ended = self._clock()
            self._walk_again = ended + max(_AGAIN, _WALK_SHARE * (ended - begun))
        path = self._walked.get(number)
        return None if path is None else mount.inside(path)


class _Mounted(NamedTuple):
    descriptor: int
    point: bytes
    root: bytes
    """What of the hierarchy is at the point: b"" for all of it."""

    def inside(self, path: bytes) -> str | None:
        """The path in the hierarchy of one in the file system. None: not mounted here, and the kernel said "/"."""
        below = path.removeprefix(self.point)
        if path == below or below[:1] not in (b"/", b""):
            return None
        return (self.root + below or b"/").decode("utf-8", "backslashreplace")


def _mount() -> _Mounted | None:
    for mount in cgroup2_mounts(mountinfo()):
        descriptor = _opened(mount)
        if descriptor is not None:
            # Above the root of our own cgroup namespace, which is as far as paths are told from here.
            above = mount.root.startswith("/..")
            root = b"" if above else os.fsencode(mount.root).rstrip(b"/")
            return _Mounted(descriptor, os.fsencode(mount.point), root)
    return None


def _opened(mount: Mount) -> int | None:
    """None: something else was mounted over it, or it may not be looked into."""
    try:
        descriptor = os.open(mount.point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    if os.fstat(descriptor).st_dev != mount.device:
        os.close(descriptor)
        return None
    return descriptor


def _path_by_handle(mount: _Mounted, number: int) -> str | None:
    handle = _HANDLE.pack(8, _FILEID_KERNFS, number)
    descriptor = _open_by_handle_at(mount.descriptor, handle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if descriptor < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    try:
        path = os.readlink(b"/proc/self/fd/%d" % descriptor)  # noqa: PTH115 - bytes, as they are
    finally:
        os.close(descriptor)
    # It may have been removed in between; or it is called so.
    if path.endswith(_DELETED) and not _is(path, number):
        path = path.removesuffix(_DELETED)
    return mount.inside(path)


def _is(path: bytes, number: int) -> bool:
    try:
        return os.lstat(path).st_ino == number
    except OSError:
        return False


def _walk(mount: _Mounted) -> dict[int, bytes]:
    """All cgroups that are mounted and may be looked at, by their ids, which their inodes have (Linux 5.5)."""
    found = {os.fstat(mount.descriptor).st_ino: mount.point}
    folders = [mount.point]
    size = 0
    while folders and len(found) < _MOST_WALKED and size < _MOST_WALKED_SIZE:
        try:
            entries = os.scandir(folders.pop())
        except OSError:  # removed meanwhile, or not for us to read
            continue
        with entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    found[entry.inode()] = entry.path
                    folders.append(entry.path)
                    size += len(entry.path)
    return found
