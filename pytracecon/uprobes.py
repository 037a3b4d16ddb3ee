"""Keeps the programs of the need "libc lookups" attached to every libc in use, the ones that come later too."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from pytracecon._ring import lib
from pytracecon.errors import PytraceconError, UnsupportedKernel
from pytracecon.libcs import Finder, Libc

if TYPE_CHECKING:
    from pytracecon._libbpf import Link, Object

__all__ = ["LibcUprobes", "try_in_a_sandbox"]

logger = logging.getLogger("pytracecon.uprobes")

_AT_CALL = {
    "getaddrinfo": "getaddrinfo_enter",
    "gethostbyname": "gethostbyname_enter",
    "gethostbyname2": "gethostbyname_enter",
    "gethostbyname_r": "gethostbyname_r_enter",
    "gethostbyname2_r": "gethostbyname2_r_enter",
}
_AT_RETURN = "resolver_return"
_LOADED_WITHIN = 100_000_000
"""Nanoseconds after a program's start at which its loader will have mapped the libraries: then they are looked at."""
_LOOKS = 4096


def try_in_a_sandbox(opened: Object) -> None:
    """Raises UnsupportedKernel where a uretprobe kills a process that a seccomp filter confines.

    Since ff474a78cef5 (v6.11) a function with one returns through a system call of its own on x86-64, which no filter
    knows; filters let it pass again since cf6cb56ef244 (v6.14). It is tried on a child, not read from a version.
    """
    child = lib.confined_start()
    if child.pid < 0:
        raise UnsupportedKernel(f"a child to try uretprobes on could not be made: {os.strerror(-child.pid)}")
    try:
        path, offset = _place(int(lib.confined_target()))
        link = opened.programs[_AT_RETURN].attach_uprobe(path, offset=offset, pid=child.pid, retprobe=True)
    except BaseException:
        lib.confined_end(child)
        raise
    with link:
        status = lib.confined_end(child)
    if status:
        raise UnsupportedKernel(
            f"a uretprobe kills processes that a seccomp filter confines on this kernel (it killed a child that was "
            f"made to try it: status {status}), so what is asked of libcs is not traced"
        )


def _places(libc: Libc) -> list[tuple[str, int]]:
    return [(function, offset) for function, offsets in libc.offsets.items() for offset in offsets]


def _place(address: int) -> tuple[str, int]:
    """The file that is mapped there in this process, and where in it that is."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        span, _permissions, offset, _device, _inode, *path = line.split(maxsplit=5)
        begin, end = (int(number, 16) for number in span.split("-"))
        if begin <= address < end and path:
            return path[0], address - begin + int(offset, 16)
    raise UnsupportedKernel("/proc/self/maps does not tell where this program's own code lies")


class LibcUprobes:
    """One per tracer. Its links are the object's, and go with it."""

    def __init__(self, opened: Object) -> None:
        self._programs = opened.programs
        self._finder = Finder()
        self._links: list[Link] = []
        self._looks: deque[tuple[int, int]] = deque(maxlen=_LOOKS)
        self.refused: PytraceconError | None = None
        """Why the last libc that was refused was."""
        self.attached = 0
        """libcs in which lookups are seen."""
        opened.maps["next_parts"].update(bytes(4), opened.programs[_AT_RETURN].fd.to_bytes(4, "little"))

    def attach(self) -> None:
        """To every libc that is in use now. The reason, if not one of them can be."""
        self._take(self._finder.of_this_host())
        if not self.attached and self.refused is not None:
            raise self.refused

    def started(self, pid: int, now: int) -> None:
        """A program that is new, or may have a libc that is."""
        self._take(self._finder.of_program(pid))
        self._looks.append((now + _LOADED_WITHIN, pid))

    @property
    def deadline(self) -> int | None:
        """When a program is to be looked at again: by now its libraries are mapped."""
        return self._looks[0][0] if self._looks else None

    def look(self) -> None:
        """At the programs whose time has come."""
        now = time.monotonic_ns()
        while self._looks and self._looks[0][0] <= now:
            _, pid = self._looks.popleft()
            self._take(self._finder.mapped_by(pid))

    def _take(self, libcs: list[Libc]) -> None:
        for libc in libcs:
            with libc:
                self._attach(libc)

    def _attach(self, libc: Libc) -> None:
        path = libc.attach_path
        with ExitStack() as on_failure:
            try:
                for function, offset in _places(libc):
                    program = self._programs[_AT_CALL[function]]
                    if not program.autoload:
                        continue
                    at_return = self._programs[_AT_RETURN].attach_uprobe(path, offset=offset, retprobe=True)
                    on_failure.callback(at_return.close)
                    at_call = program.attach_uprobe(path, offset=offset)
                    on_failure.callback(at_call.close)
                    self._links += [at_return, at_call]
            except PytraceconError as error:
                self.refused = error
                logger.warning("lookups of %s are not seen: %s", libc.path_shown, error)
                return
            on_failure.pop_all()
        self.attached += 1
        logger.info("lookups of %s are seen", libc.path_shown)

    def detach(self) -> None:
        """Lookups that began are not told any more."""
        links, self._links = self._links, []
        for link in links:
            link.close()

