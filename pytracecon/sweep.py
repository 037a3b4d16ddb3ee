"""UDP conversations end by the clock: the kernel side is asked from time to time which of them are over."""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING

from pytracecon.clock import SECOND
from pytracecon.iterators import run

if TYPE_CHECKING:
    from pytracecon.loaded import Loaded
    from pytracecon.ring import SharedPages

__all__ = ["Sweep", "sweep_of"]

_EVERY = 32  # times within what makes one idle
_SHORTEST, _LONGEST = SECOND // 50, SECOND
_CROWDED, _ROOMY = 7 / 8, 3 / 4  # parts of the table that are taken
_PATIENCE = 10  # halvings of the idle time, to make room


class Sweep:
    """Runs the kernel side's sweep when it is due. Where nobody exchanges datagrams it costs nothing."""

    def __init__(self, loaded: Loaded, pages: SharedPages, idle_ns: int) -> None:
        conversations = loaded.object.maps["conversations"]
        self._program = loaded.object.programs["sweep"]
        self._table = struct.pack("=I", conversations.fd)
        self._most = conversations.max_entries
        self._pages = pages
        self._idle = idle_ns
        self._every = min(_LONGEST, max(_SHORTEST, idle_ns // _EVERY))
        self._due = 0
        pages.set("idle", idle_ns)

    @property
    def deadline(self) -> int | None:
        """When the next one is due, by the kernel's clock."""
        if self._pages.get("sweep"):
            return 0
        return self._due if self._pages.get("conversations") else None

    def look(self) -> None:
        """Sweep, if it is time."""
        asked = self._pages.get("sweep")
        if asked or (self._pages.get("conversations") and time.monotonic_ns() >= self._due):
            self.run()

    def run(self) -> None:
        """What ended is in the ring then."""
        self._once()
        patience = self._idle
        for _ in range(_PATIENCE):
            if self._pages.get("conversations") < self._most * _CROWDED or self.unfinished:
                break
            patience //= 2
            self._pages.set("idle", patience)
            self._once()
            if self._pages.get("conversations") < self._most * _ROOMY:
                break
        self._pages.set("idle", self._idle)
        self._due = time.monotonic_ns() + self._every

    def stop(self) -> None:
        """From now on every conversation is over."""
        self._pages.set("stopping", 1)
        self._once()

    @property
    def unfinished(self) -> bool:
        """Some that are over are yet to be told: the ring has no room."""
        return bool(self._pages.get("left"))

    def _once(self) -> None:
        self._pages.set("sweep", 0)
        self._pages.set("left", 0)
        run(self._program, self._table)
        if self.unfinished:
            self._pages.set("sweep", 1)


def sweep_of(loaded: Loaded, pages: SharedPages, idle_ns: int) -> Sweep | None:
    """None where no datagrams are counted."""
    counted = any(probe.need == "udp sent" and probe.attached for probe in loaded.probes)
    return Sweep(loaded, pages, idle_ns) if counted else None
