"""Uretprobes are tried on a child of one's own before any other process meets one.

Since ff474a78cef5 (v6.11) a function with one returns by a system call of its own on x86-64, which no seccomp filter
knew; cf6cb56ef244 (v6.14) lets it pass all filters. It is tried, not read from a version.
"""

from __future__ import annotations

import contextlib
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

__all__ = ["Attempt", "try_one"]


class Link(Protocol):
    def close(self) -> None: ...


L = TypeVar("L", bound=Link)


def try_one(attach: Callable[[str, int, int], L]) -> L:
    """The link that `attach` makes for a file, an offset in it and a process: to close it now would be to wait for RCU.

    UnsupportedKernel where a uretprobe kills a process that a seccomp filter confines.
    """
    child, place = _start()
    try:
        link = attach(*place, child.pid)
    except BaseException:
        child_of.confined_end(child)
        raise
    return _ended(child, link)


class Attempt:
    """The same by a link of many uprobes, with a program that does nothing: no other has to be loaded yet.

    The kernel takes its time to make the link. A thread waits for that.
    """

    def __init__(self, lib: Libbpf) -> None:
        self._links: list[MultiLink] = []
        self._program = lib.prog_load(KPROBE, RETURN_ZERO, expected_attach_type=ATTACH_TYPE)
        try:
            self._child, self._place = _start()
        except BaseException:
            os.close(self._program)
            raise
        self._task = Task("tries uretprobes", self._attach)
        self.begin = self._task.begin

    def _attach(self) -> None:
        path, offset = self._place
        self._links.append(MultiLink(self._program, path, [offset], pid=self._child.pid, retprobe=True))

    def result(self) -> MultiLink:
        """Instead of close()."""
        try:
            self._task.result()
        except BaseException:
            child_of.confined_end(self._child)
            raise
        finally:
            os.close(self._program)
        return _ended(self._child, self._links.pop())

    def close(self) -> None:
        with contextlib.suppress(UnsupportedKernel):
            self.result().close()


def _start() -> tuple[Any, tuple[str, int]]:
    """The child, which waits, and where its function is."""
    child = child_of.confined_start()
    if child.pid < 0:
        raise UnsupportedKernel(f"a child to try uretprobes on could not be made: {os.strerror(-child.pid)}")
    try:
        return child, _place(int(child_of.confined_target()))
    except BaseException:
        child_of.confined_end(child)
        raise


def _ended(child: Any, link: L) -> L:
    status = child_of.confined_end(child)
    if status:
        link.close()
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
