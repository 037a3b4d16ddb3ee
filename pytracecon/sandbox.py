"""Uretprobes are tried on a child of one's own before any other process meets one.

Since ff474a78cef5 (v6.11) a function with one returns by a system call of its own on x86-64, which no seccomp filter
knew; cf6cb56ef244 (v6.14) lets it pass all filters. It is tried, not read from a version, unless a system call of
another kind says that the kernel is past that (v6.18): a trial costs a start 10 ms.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pytracecon._ring import lib as child_of
from pytracecon.errors import UnsupportedKernel
from pytracecon.tasks import Task
from pytracecon.uprobe_multi import ATTACH_TYPE, KPROBE, RETURN_ZERO, MultiLink

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytracecon._libbpf import Libbpf

__all__ = ["Attempt", "needed", "try_one"]


class Link(Protocol):
    def close(self) -> None: ...


L = TypeVar("L", bound=Link)


def needed() -> bool:
    """Whether a uretprobe may kill a process here, for all that is known before it is tried."""
    return bool(child_of.confined_needed())


def try_one(attach: Callable[[str, int, int], L], child: Any = None) -> L:
    """The link that `attach` makes for a file, an offset in it and a process: to close it now would be to wait for RCU.

    UnsupportedKernel where a uretprobe kills a process that a seccomp filter confines, or where nobody knows whether it
    does. `child` waits already.
    """
    child = _start() if child is None else child
    try:
        link = attach(*_place(int(child_of.confined_target())), child.pid)
    except BaseException:
        child_of.confined_end(child)
        raise
    return _ended(child, link)


class Attempt:
    """The same by a link of many uprobes, with a program that does nothing: no other has to be loaded yet.

    The child is made at once, since fork() takes the longer the more is mapped: 1 ms before anything is loaded, and up
    to 15 while threads load. begin() makes the link, in a thread: the kernel takes its time for that.
    """

    def __init__(self, lib: Libbpf) -> None:
        self._lib = lib
        self._child = _start()
        self.begun = False
        self._links: list[MultiLink] = []
        self._task = Task("tries uretprobes", self._try)

    def begin(self) -> None:
        """Again: nothing."""
        if not self.begun:
            self.begun = True
            self._task.begin()

    def _try(self) -> None:
        def attach(path: str, offset: int, pid: int) -> MultiLink:
            with self._lib.trying():
                program = self._lib.prog_load(KPROBE, RETURN_ZERO, expected_attach_type=ATTACH_TYPE)
            try:
                return MultiLink(program, path, [offset], pid=pid, retprobe=True)
            finally:
                os.close(program)

        self._links.append(try_one(attach, self._child))

    def result(self) -> MultiLink:
        """Waits. Instead of close()."""
        self.begin()
        self._task.result()
        return self._links.pop()

    def close(self) -> None:
        if not self.begun:
            self.begun = True
            child_of.confined_end(self._child)
        self._task.wait()
        while self._links:
            self._links.pop().close()


def _start() -> Any:
    """A child, which waits."""
    child = child_of.confined_start()
    if child.pid < 0:
        raise UnsupportedKernel(f"a child to try uretprobes on could not be made: {os.strerror(-child.pid)}")
    return child


def _ended(child: Any, link: L) -> L:
    status = child_of.confined_end(child)
    if status:
        link.close()
    if status < 0:
        raise UnsupportedKernel(
            "whether a uretprobe kills processes that a seccomp filter confines is not known (a child that was made to "
            "try it was killed, or SIGCHLD is ignored, or another thread waits for children), so what is asked of "
            "libcs is not traced"
        )
    if status:
        raise UnsupportedKernel(
            "a uretprobe kills processes that a seccomp filter confines on this kernel (a child that was made to "
            f"try it ended with status {status}), so what is asked of libcs is not traced"
        )
    return link


def _place(address: int) -> tuple[str, int]:
    """The file that is mapped there in this process, and where in it that is."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        span, _permissions, offset, _device, _inode, *path = line.split(maxsplit=5)
        begin, end = (int(number, 16) for number in span.split("-"))
        if begin <= address < end and path:
            return path[0], address - begin + int(offset, 16)
    raise UnsupportedKernel("/proc/self/maps does not tell where this program's own code lies")
