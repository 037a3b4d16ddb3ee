"""Where C libraries lie: by default, by what a program's interpreter tells, and in what a process has mapped."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

__all__ = ["LARGEST_TEXT", "Mapped", "default_places", "mapped", "place_by_interpreter", "slow_devices"]

LARGEST_TEXT = 4 << 20
"""So many bytes are read of what /proc tells of one process: some 40,000 mappings. Those at the end are not seen."""

_TUPLE, _MUSL = {"aarch64": ("aarch64-linux-gnu", "aarch64")}.get(os.uname().machine, ("x86_64-linux-gnu", "x86_64"))
# Debian's; Fedora's and SUSE's; Arch's and Void's; each also where /lib is no link into /usr; and Alpine's.
_DEFAULT = (
    *(f"{top}/{rest}/libc.so.6".encode() for rest in (f"lib/{_TUPLE}", "lib64", "lib") for top in ("", "/usr")),
    f"/lib/ld-musl-{_MUSL}.so.1".encode(),
)

_NAMES = rb"libc\.so\.6|libc-2\.[0-9.]+\.so|libc\.so|ld-musl-[^/\s]+\.so\.1|libc\.musl-[^/\s]+\.so\.1"
_MAPPED = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) ..x. [0-9a-f]+ ([0-9a-f]+):([0-9a-f]+) ([0-9]+) +"
    rb"(/(?:.*/)?(?:" + _NAMES + rb"))( \(deleted\))?$",
    re.MULTILINE,
)
_SLOW = re.compile(
    rb"^\d+ \d+ (\d+):(\d+) .* - (?:fuse|nfs|cifs|smb|9p|ceph|afs|coda|orangefs|virtiofs)\S* ", re.MULTILINE
)


class Mapped(NamedTuple):
    """An executable mapping of a file that is named like a C library, as /proc/PID/maps tells it."""

    range: str
    """Its name in /proc/PID/map_files."""
    device: int
    """On btrfs and, before Linux 6.8, on overlayfs, this is not what stat tells."""
    inode: int
    path: bytes
    deleted: bool


def default_places() -> tuple[bytes, ...]:
    """Where the loaders of distributions look for the library of this machine's programs."""
    return _DEFAULT


def place_by_interpreter(interpreter: bytes) -> bytes:
    """glibc's loader has its library beside it (so on NixOS and Guix, where no place is the default); musl's is it."""
    folder, slash, name = interpreter.rpartition(b"/")
    return folder + slash + b"libc.so.6" if name.startswith(b"ld-linux") else interpreter


def mapped(pid: int) -> list[Mapped]:
    """What a process has mapped, each file once."""
    return mapped_in(_text(f"/proc/{pid}/maps"))


def mapped_in(maps: bytes) -> list[Mapped]:
    found: dict[tuple[int, int], Mapped] = {}
    for start, end, major, minor, inode, path, deleted in _MAPPED.findall(maps):
        device = os.makedev(int(major, 16), int(minor, 16))
        span = f"{int(start, 16):x}-{int(end, 16):x}"
        found.setdefault((device, int(inode)), Mapped(span, device, int(inode), path, bool(deleted)))
    return list(found.values())


def slow_devices(pid: int) -> frozenset[int]:
    """Of the file systems in a process's mount namespace, and not in ours, those that somebody must answer for.

    Whoever mounts such a one, and does not answer, keeps all waiting who look into it. Unprivileged users cannot: the
    kernel denies others their FUSE mounts.
    """
    theirs = _slow_devices(f"/proc/{pid}/mountinfo")
    return theirs - _slow_devices("/proc/self/mountinfo") if theirs else theirs


def _slow_devices(path: str) -> frozenset[int]:
    return slow_in(_text(path))


def slow_in(text: bytes) -> frozenset[int]:
    unseen = {-1} if len(text) >= LARGEST_TEXT else set()
    return frozenset(unseen.union(os.makedev(int(major), int(minor)) for major, minor in _SLOW.findall(text)))


def _text(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces: list[bytes] = []
        left = LARGEST_TEXT
        while left > 0 and (piece := os.read(descriptor, left)):  # the kernel gives some 4 KiB at a time
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)
    finally:
        os.close(descriptor)
