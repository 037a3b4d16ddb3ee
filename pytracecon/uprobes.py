"""Keeps the programs of the need "libc lookups" attached to every libc in use, the ones that come later too."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, ClassVar, Protocol

from pytracecon import sandbox, wire
from pytracecon.errors import PytraceconError
from pytracecon.libcs import Libc
from pytracecon.logs import INFO, is_heard, logger, warn
from pytracecon.uprobe_multi import MultiLink
from pytracecon.visits import Visits

if TYPE_CHECKING:
    from pytracecon.meanwhile import Meanwhile
    from pytracecon.objects import Objects

__all__ = ["LibcUprobes"]

_LOGGER = "pytracecon.uprobes"

_TIDY_EVERY = 60_000_000_000
_AGAIN_AFTER = 1_000_000_000
"""Nanoseconds, where there was no descriptor left to look around with."""
_AT_ONCE = 16


class _Link(Protocol):
    def close(self) -> None: ...


class _Probes(Protocol):
    """A way to put the programs where they belong."""

    at_return: str

    def attach(self, libc: Libc) -> list[_Link]: ...

    def attach_return(self, path: str, offset: int, pid: int) -> _Link: ...


class _Multi:
    """Two links for each libc. They come and go in a moment, since Linux 6.6."""

    at_return = "resolver_return_multi"

    def __init__(self, opened: Objects) -> None:
        self._enter = opened.programs["resolver_enter_multi"]
        self._return = opened.programs[self.at_return]

    def attach(self, libc: Libc) -> list[_Link]:
        places = [(offset, wire.FUNCTIONS[name]) for name, offsets in libc.offsets.items() for offset in offsets]
        offsets, cookies = [offset for offset, _ in places], [cookie for _, cookie in places]
        at_return = MultiLink(self._return.fd, libc.attach_path, offsets, retprobe=True)
        try:
            return [at_return, MultiLink(self._enter.fd, libc.attach_path, offsets, cookies=cookies)]
        except BaseException:
            at_return.close()
            raise

    def attach_return(self, path: str, offset: int, pid: int) -> _Link:
        return MultiLink(self._return.fd, path, [offset], pid=pid, retprobe=True)


class _Single:
    """A perf event for each place. Each waits for RCU when it goes, so there are only as many as are needed.

    In both libcs the functions without _r end in those with it, where the answer and h_errno can be read as well;
    musl's gethostbyname_r ends in its gethostbyname2_r.
    """

    at_return = "resolver_return"
    _needed: ClassVar = {
        "glibc": ("getaddrinfo", "gethostbyname_r", "gethostbyname2_r"),
        "musl": ("getaddrinfo", "gethostbyname2_r"),
    }

    def __init__(self, opened: Objects) -> None:
        self._programs = opened.programs

    def attach(self, libc: Libc) -> list[_Link]:
        links: list[_Link] = []
        try:
            for function in self._needed[libc.flavour]:
                program = self._programs[f"{function}_enter"]
                for offset in libc.offsets.get(function, ()) if program.autoload else ():
                    links.append(self.attach_return(libc.attach_path, offset, -1))
                    links.append(program.attach_uprobe(libc.attach_path, offset=offset))
        except BaseException:
            for link in links:
                link.close()
            raise
        return links

    def attach_return(self, path: str, offset: int, pid: int) -> _Link:
        return self._programs[self.at_return].attach_uprobe(path, offset=offset, pid=pid, retprobe=True)


class LibcUprobes:
    """One per tracer. `programs` are those of the candidate that was chosen; `meanwhile` has looked around already."""

    def __init__(self, opened: Objects, programs: tuple[str, ...], meanwhile: Meanwhile) -> None:
        self._probes: _Probes = _Multi(opened) if _Multi.at_return in programs else _Single(opened)
        self._meanwhile = meanwhile
        self._finder, self._found = meanwhile.libcs()
        self._links: dict[tuple[int, int], list[_Link]] = {}
        self._tidied = time.monotonic_ns()
        self._pid = os.getpid()
        self._visits = Visits(self._finder)
        self._hindered_until = 0
        self._refused: PytraceconError | None = None
        self.attached = 0
        """libcs in which lookups are seen."""
        at_return = opened.programs[self._probes.at_return].fd
        opened.maps["next_parts"].update(bytes(4), at_return.to_bytes(4, "little"))

    def try_in_a_sandbox(self) -> None:
        """Raises UnsupportedKernel where a uretprobe kills a process that a seccomp filter confines."""
        link: _Link | None = self._meanwhile.tried()
        if link is None and sandbox.needed():
            link = sandbox.try_one(self._probes.attach_return)
        if link is not None:
            self._links[0, 0] = [link]

    def attach(self) -> None:
        """To every libc that is in use now. The reason, if not one of them can be."""
        self._take(self._finder.of_this_host() if self._found is None else self._found)
        self._found = None
        if not self.attached and self._refused is not None:
            raise self._refused

    def attach_nowhere(self) -> None:
        """Try it on a folder. The kernel refuses that, always; for want of privileges, if they are not enough."""
        self._probes.attach_return("/", 0, os.getpid()).close()

    def started(self, pid: int, now: int) -> None:
        """A program that is new, or may have a libc that is."""
        self._visits.started(pid, now)

    @property
    def deadline(self) -> int | None:
        """When a program is to be looked at: as it is new, or as by then its libraries are mapped."""
        return self._visits.deadline

    def look(self) -> None:
        """At the programs whose time has come, and at processes that there was no time for at the start."""
        self._visits.make(self._take)
        now = time.monotonic_ns()
        if now < self._hindered_until:
            return
        try:
            if self._finder.unfinished:
                self._take(self._finder.of_this_host())
            if now - self._tidied > _TIDY_EVERY:
                # As long as a uprobe is in a file, its file system cannot be unmounted.
                self._close([link for libc in self._finder.unused() for link in self._links.pop(libc, [])])
                self._tidied = now
        except OSError as error:
            self._hindered_until = now + _AGAIN_AFTER
            warn(_LOGGER, "C libraries are not looked for now: %s", error)

    def _take(self, libcs: list[Libc]) -> None:
        for libc in libcs:
            with libc:
                file = libc.device, libc.inode
                self._close(self._links.pop(file, []))  # it was written over, and its functions may lie elsewhere
                try:
                    self._links[file] = self._probes.attach(libc)
                except PytraceconError as error:
                    self._refused = error
                    warn(_LOGGER, "lookups of %s are not seen: %s", libc.path_shown, error)
                else:
                    self.attached += 1
                    if is_heard(_LOGGER, INFO):
                        logger(_LOGGER).info("lookups of %s are seen", libc.path_shown)

    def detach(self) -> None:
        """Lookups that began are not told any more. Many at once: perf events wait for RCU, each for itself."""
        links = [link for each in self._links.values() for link in each]
        self._links.clear()
        self._close(links)

    def _close(self, links: list[_Link]) -> None:
        if os.getpid() != self._pid:
            # In a child, where no thread can be made yet; what the parent holds too is gone without waiting.
            for link in links:
                link.close()
            return
        # No pool: its module is imported when it is needed, and that fails where no file can be opened.
        closing = [threading.Thread(target=_close_all, args=(links[first::_AT_ONCE],)) for first in range(_AT_ONCE)]
        for thread in closing[: len(links)]:
            thread.start()
        for thread in closing[: len(links)]:
            thread.join()


def _close_all(links: list[_Link]) -> None:
    for link in links:
        link.close()
