"""`Visits`: which processes' libraries are looked at while the ring is read, and when."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from pytracecon.libcs import Libc

__all__ = ["Visits"]

_PATIENCE = 100_000_000
"""Nanoseconds that visits may keep the reader from the ring at a time, and what the last of them takes more."""

_MAPPED_WITHIN = 100_000_000
"""Nanoseconds after a program's start at which its loader will have mapped the libraries."""
_MOST = 4096


class _Finder(Protocol):
    def of_program(self, pid: int) -> list[Libc]: ...

    def mapped_by(self, pid: int) -> list[Libc]: ...


class Visits:
    """A process is visited when its program has started, and again when its libraries are mapped.

    Once for all the programs that it has started by then: whoever starts one after the other, or has so many mappings
    that to look at them takes long, keeps others' visits waiting and not the ring.
    """

    def __init__(self, finder: _Finder) -> None:
        self._finder = finder
        self._fresh: OrderedDict[int, None] = OrderedDict()
        self._again: OrderedDict[int, int] = OrderedDict()

    def started(self, pid: int, now: int) -> None:
        """A program that is new, or may have a libc that is."""
        self._fresh[pid] = None
        self._again.pop(pid, None)
        self._again[pid] = now + _MAPPED_WITHIN
        for each in (self._fresh, self._again):
            if len(each) > _MOST:
                each.popitem(last=False)

    @property
    def deadline(self) -> int | None:
        """When somebody is to be visited; that may be over."""
        return 0 if self._fresh else next(iter(self._again.values()), None)

    def make(self, take: Callable[[list[Libc]], None]) -> None:
        """Those that are due, while there is time. `take` gets what is found."""
        until = time.monotonic_ns() + _PATIENCE
        while True:
            visited = False
            if self._fresh:
                pid, _ = self._fresh.popitem(last=False)
                take(self._finder.of_program(pid))
                visited = True
            if self._again and next(iter(self._again.values())) <= time.monotonic_ns():
                pid, _ = self._again.popitem(last=False)
                take(self._finder.mapped_by(pid))
                visited = True
            if not visited or time.monotonic_ns() > until:
                return
