"""Finds the C libraries of a host, its containers' too: each file once, whoever uses it.

The kernel binds a uprobe to the inode, so one is needed for each, not for each process. What cannot be looked at is
skipped and counted; nothing that lies in a process's root stops the search or makes it long.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pytracecon.libcs.elf import Elf, NotALibc
from pytracecon.libcs.files import Status, identity, inside, place, status
from pytracecon.libcs.libc import Libc
from pytracecon.libcs.places import Mapped, default_places, mapped, place_by_interpreter, slow_devices
from pytracecon.libcs.register import Register
from pytracecon.logs import warn
from pytracecon.text import decode

__all__ = ["MOST_OF_A_PROCESS", "Finder"]

MOST_OF_A_PROCESS = 8
"""Of the libraries that one process has mapped, so many are looked at."""

_ABSENT = (FileNotFoundError, NotADirectoryError)
_ENDED = (FileNotFoundError, ProcessLookupError)


# What a process runs, and in which mount namespace. Those that have both in common use the same library.
_Program = tuple[str, bytes]


class Finder:
    """`of_this_host`, `of_program`, `mapped_by` tell libraries that none of them told before, and whoever calls closes.

    One that was told comes again if its file was written over since: with the same `device` and `inode`, it takes the
    place of the earlier. Numbers of processes are those of /proc. One thread at a time may use a finder.
    """

    def __init__(self, patience: float = 0.05) -> None:
        """`patience` is how many seconds one search of the host may take."""
        self.hidden = 0
        """Looks at a process that were not allowed, or failed."""
        self._hindrances: set[int | None] = set()
        self._patience = patience
        self._home = _namespace("self")
        self._register = Register(self._home)
        self._found: list[Libc] = []
        self._next = 0  # the process to go on with
        self._met: set[_Program] = set()  # in this search
        self._seen: set[_Program] = set()  # in this search and the one before
        self._roots: set[tuple[str, int, int]] = set()

    @property
    def refused(self) -> int:
        """Files that are named like a C library and are none, or none for this machine; each is logged once."""
        return self._register.refused

    @property
    def unfinished(self) -> bool:
        """The search of the host ran out of time: `of_this_host` goes on with the other processes when called again."""
        return self._next > 0

    def of_this_host(self) -> list[Libc]:
        """Of our own root and of all running processes: what they have mapped, and the default places of their roots.

        Takes `patience`, and what looking at one process takes more. Of processes that run the same program in the same
        mount namespace, it looks at the first.
        """
        until = time.monotonic() + self._patience
        with self._telling() as found:
            if not self.unfinished:
                self._met.clear()
                self._roots.clear()
                with place("/") as root:
                    self._look_at_defaults(root, self._home, "")
            for pid in _processes():
                if pid < self._next:
                    continue
                with self._as_it_may_end():
                    self._look_at_process(pid)
                if time.monotonic() > until:
                    self._next = pid + 1
                    return found
            self._next = 0
            self._seen &= self._met
        return found

    def of_program(self, pid: int) -> list[Libc]:
        """Of a process whose program has just started, and may have mapped no library yet.

        That is what lies in the default places of its root by now, and what its interpreter tells.
        """
        with self._telling() as found, self._as_it_may_end():
            namespace = _namespace(pid)
            with self._root(pid, namespace) as (root, prefix, _):
                if self._may_look_around(pid, namespace, prefix):
                    self._look_at_defaults(root, namespace, prefix)
                    interpreter = _interpreter(pid)
                    if interpreter is not None:
                        self._look_inside(root, place_by_interpreter(interpreter), namespace, prefix)
        return found

    def mapped_by(self, pid: int) -> list[Libc]:
        """Of a process that runs already: what it has mapped, wherever that lies, and even if it is deleted."""
        with self._telling() as found, self._as_it_may_end():
            self._look_at_maps(pid, _namespace(pid))
        return found

    def unused(self) -> list[tuple[int, int]]:
        """(device, inode) of libraries that were told, in whose mount namespaces no process is left.

        They are forgotten. Whoever attached to them should detach, for that keeps their file systems busy. Looks at
        all processes, if shortly: once a minute is enough.
        """
        alive = {self._home}
        for pid in _processes():
            with suppress(*_ENDED, PermissionError):
                alive.add(_namespace(pid))
        return self._register.forget_all_but(alive)

    def _look_at_process(self, pid: int) -> None:
        # The cheap part: it is all that most processes cost. Kernel threads and zombies run no program, and end here.
        exe = identity(f"/proc/{pid}/exe".encode())
        namespace = _namespace(pid)
        program = namespace, exe
        self._met.add(program)
        if program in self._seen:
            return
        with self._root(pid, namespace) as (root, prefix, at):
            here = namespace, at.device, at.inode
            if here not in self._roots:
                if self._may_look_around(pid, namespace, prefix):
                    self._look_at_defaults(root, namespace, prefix)
                self._roots.add(here)
        self._look_at_maps(pid, namespace)
        self._seen.add(program)

    def _may_look_around(self, pid: int, namespace: str, prefix: str) -> bool:
        """Not where a path may lead to a file system that does not answer."""
        if namespace == self._home or not slow_devices(pid):
            return True
        why = "only what is in use is traced there: FUSE, or a network file system, is mounted, which may not answer"
        self._register.refuse(namespace, prefix, why)
        return False

    def _look_at_defaults(self, root: int, namespace: str, prefix: str) -> None:
        for path in default_places():
            self._look_inside(root, path, namespace, prefix)

    def _look_inside(self, root: int, path: bytes, namespace: str, prefix: str) -> None:
        shown = prefix + decode(path)
        with self._as_it_may_fail((namespace, path), shown), inside(root, path) as descriptor:
            self._take(descriptor, shown, namespace)

    def _look_at_maps(self, pid: int, namespace: str) -> None:
        for each in mapped(pid)[:MOST_OF_A_PROCESS]:
            if self._register.knows(each.device, each.inode, namespace):
                continue
            # The kernel tells paths as we would see them, or from the top of the namespace if we cannot.
            top = os.fsencode(os.readlink(f"/proc/{pid}/root")).rstrip(b"/")  # noqa: PTH115 - or what is not UTF-8
            path = each.path.removeprefix(top) if each.path.startswith(top + b"/") else each.path
            shown = decode(each.path) if namespace == self._home else f"/proc/{pid}/root{decode(path)}"
            if namespace != self._home and each.device in slow_devices(pid):
                why = "it lies on FUSE or a network file system, which may not answer"
                self._register.refuse((each.device, each.inode), shown, why)
                continue
            with self._as_it_may_fail((each.device, each.inode), shown):
                try:
                    with place(f"/proc/{pid}/map_files/{each.range}") as descriptor:
                        self._take(descriptor, shown, namespace)
                except PermissionError:  # needs CAP_CHECKPOINT_RESTORE; before Linux 5.9, CAP_SYS_ADMIN
                    self._look_by_path(pid, path, each, namespace, shown)

    def _look_by_path(self, pid: int, path: bytes, each: Mapped, namespace: str, shown: str) -> None:
        with place(f"/proc/{pid}/root") as root, suppress(*_ABSENT), inside(root, path) as descriptor:
            if not each.deleted and status(at=descriptor).inode == each.inode:
                self._take(descriptor, shown, namespace)
                return
        why = "processes use one that is replaced or elsewhere; only CAP_CHECKPOINT_RESTORE lets us open it"
        self._register.refuse((each.device, each.inode), shown, why)

    def _take(self, descriptor: int, shown: str, namespace: str) -> None:
        libc = self._register.take(descriptor, shown, namespace)
        if libc is not None:
            self._found.append(libc)

    @contextmanager
    def _telling(self) -> Iterator[list[Libc]]:
        """A list for what is found now. If the search fails, nobody gets it, so all in it are closed."""
        found: list[Libc] = []
        self._found = found
        try:
            yield found
        except BaseException:
            for libc in found:
                libc.close()
            raise

    @contextmanager
    def _as_it_may_fail(self, file: object, shown: str) -> Iterator[None]:
        """A file may not be there, or not open."""
        try:
            yield
        except (*_ABSENT, *_ENDED):
            return
        except OSError as error:
            self._register.refuse((file, error.errno), shown, f"it cannot be opened: {error.strerror}")

    @contextmanager
    def _as_it_may_end(self) -> Iterator[None]:
        """A process may end at any moment; not each may be looked at; the file system of its program may be dead."""
        try:
            yield
        except _ENDED:
            return
        except OSError as error:
            self.hidden += 1
            if error.errno not in self._hindrances:
                self._hindrances.add(error.errno)
                hint = " (CAP_SYS_PTRACE is missing, or a security module forbids it)"
                why = f"{error.strerror}{hint if isinstance(error, PermissionError) else ''}"
                text = "%s: %s; the C libraries of such processes may be missed"
                warn("pytracecon.libcs", text, error.filename, why)

    @contextmanager
    def _root(self, pid: int, namespace: str) -> Iterator[tuple[int, str, Status]]:
        """A process's root, what its paths are shown behind, and which directory it is."""
        with place(f"/proc/{pid}/root") as root:
            at = status(at=root)
            ours = namespace == self._home and at[:2] == status(b"/")[:2]
            yield root, "" if ours else f"/proc/{pid}/root", at


def _processes() -> list[int]:
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def _namespace(pid: int | str) -> str:
    return os.readlink(f"/proc/{pid}/ns/mnt")  # noqa: PTH115 - a Path would take longer than the kernel does


def _interpreter(pid: int) -> bytes | None:
    descriptor = os.open(f"/proc/{pid}/exe", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # what runs is a regular file
    try:
        return Elf(descriptor).interpreter()
    except NotALibc:
        return None  # a program for another kind of machine
    finally:
        os.close(descriptor)
