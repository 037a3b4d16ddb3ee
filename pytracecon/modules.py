"""`Modules`: programs on functions of kernel modules, attached when the module is there, be that later than the tracer.

The kernel says that a module came by a uevent, as udev has it: nobody has to ask again and again. Where none arrives
(in a user namespace of one's own), a look once a second while events are read does.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytracecon.attach import attach
from pytracecon.clock import SECOND
from pytracecon.errors import PytraceconError
from pytracecon.logs import warn
from pytracecon.probes import is_loaded

if TYPE_CHECKING:
    from socket import socket

    from pytracecon._libbpf import Link, Program

__all__ = ["Modules"]

_UEVENTS, _FROM_THE_KERNEL = 15, 1  # NETLINK_KOBJECT_UEVENT of linux/netlink.h, and its group
_NOT_FOR_US = (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EPERM, errno.EACCES)
_LONGEST = 8192
_LOOK_EVERY = SECOND
_BEGINS_WITHIN = SECOND // 50


class Modules:
    """`programs` by their module; of those that are in `attached` all is done. It keeps a descriptor, until close().

    A module that goes takes its probes along. When it comes back, they are attached anew.
    """

    def __init__(
        self,
        programs: Mapping[str, Sequence[Program]],
        attached: Collection[str],
        told: Callable[[Program, PytraceconError | None], None],
    ) -> None:
        """`told` learns of each program that it was attached, or why it was not."""
        self._programs = programs
        self._links: dict[str, list[Link]] = {}
        self._told = told
        self.on_attached: Callable[[str], None] | None = None
        """Called with each module whose programs were attached after the start."""
        self._due = set(programs).difference(attached)
        self._looked = time.monotonic_ns()
        self.deadline: int | None = None
        """When to look again although nothing happens: a module that came is not ready before it has begun."""
        self._socket = _uevents()

    @property
    def programs(self) -> list[Program]:
        """Those that are attached when their module comes, be that again."""
        return [program for group in self._programs.values() for program in group]

    @property
    def fd(self) -> int | None:
        """Readable when something came or went."""
        return None if self._socket is None else self._socket.fileno()

    def look(self) -> None:
        """Attach what there is to attach now."""
        came = self._came()
        now = time.monotonic_ns()
        self._due |= came
        if not self._due or not (came or self._is_time(now)):
            return
        self._looked = now
        ready = {module for module in self._due if is_loaded(module)}
        self.deadline = now + _BEGINS_WITHIN if any(_is_there(module) for module in self._due - ready) else None
        for module in ready:
            self._attach(module)

    def _is_time(self, now: int) -> bool:
        return now - self._looked >= _LOOK_EVERY or (self.deadline is not None and now >= self.deadline)

    def _came(self) -> set[str]:
        """Of the modules that matter here."""
        came: set[str] = set()
        while self._socket is not None:
            try:
                said = self._socket.recv(_LONGEST).partition(b"\0")[0]
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                came.update(self._programs)  # there was more than a socket holds: it may have been any of them
                continue
            what, _, where = said.partition(b"@/module/")
            if what == b"add":
                came.update({where.decode("ascii", "replace")}.intersection(self._programs))
        return came

    def _attach(self, module: str) -> None:
        self._due.discard(module)
        self._detach(module)
        links = self._links[module] = []
        for program in self._programs[module]:
            refused = None
            try:
                links += attach(program)
            except PytraceconError as error:
                refused = error
                warn("pytracecon.modules", "%s was loaded, and is not looked into: %s", module, error)
            self._told(program, refused)
        if links and self.on_attached is not None:
            self.on_attached(module)

    def _detach(self, module: str) -> None:
        for link in self._links.pop(module, []):
            link.close()

    def detach(self) -> None:
        """Nothing is attached after this. Again: nothing."""
        self._programs = {}
        self._due.clear()
        for module in list(self._links):
            self._detach(module)

    def close(self) -> None:
        self.detach()
        if self._socket is not None:
            self._socket.close()


def _is_there(module: str) -> bool:
    return Path("/sys/module", module).exists()


def _uevents() -> socket | None:
    """None where this process may not have them."""
    from socket import AF_NETLINK, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, socket  # noqa: PLC0415 - for few

    try:
        made = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, _UEVENTS)
    except OSError as error:
        if error.errno in _NOT_FOR_US:
            return None
        raise
    try:
        made.bind((0, _FROM_THE_KERNEL))
    except BaseException:
        made.close()
        raise
    return made
