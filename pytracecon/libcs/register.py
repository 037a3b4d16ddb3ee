"""Which C libraries are known, so that each is told once; and which files were refused, and why."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field

from pytracecon.libcs.elf import NotALibc
from pytracecon.libcs.files import Status, is_stacked, readable, status
from pytracecon.libcs.libc import Libc, recognise
from pytracecon.logs import warn
from pytracecon.text import one_line

__all__ = ["MOST_LIBCS", "MOST_OF_OTHERS", "MOST_OF_OURS", "MOST_REFUSALS", "Register"]

MOST_LIBCS = 256
"""First found in other mount namespaces than ours, at a time. A file that was written over counts again."""
MOST_OF_OTHERS = 16
"""Of them, in one namespace: no container uses up what others need."""
MOST_OF_OURS = 64
"""First found in our own; these do not count above."""
MOST_REFUSALS = 1024
"""That are remembered, each logged once. Those beyond are not logged, and counted whenever they are met."""

_MOST_NAMESPACES = 4096  # a library that was seen in so many is taken to be in use for good


class _NoRoom(NotALibc):
    """Not here and now."""


@dataclass(slots=True)
class _Known:
    status: Status
    stacked: bool
    first: str
    """The mount namespace in which it was found."""
    namespaces: set[str] = field(default_factory=set)
    """All in which it was seen since."""
    times: int = 1

    def unchanged(self, now: Status) -> bool:
        return (self.status.size, self.status.modified) == (now.size, now.modified)

    def note(self, namespace: str) -> None:
        if len(self.namespaces) < _MOST_NAMESPACES:
            self.namespaces.add(namespace)


class Register:
    def __init__(self, home: str) -> None:
        """`home` is our own mount namespace; each is named as the link in /proc does."""
        self.refused = 0
        self._home = home
        self._known: dict[tuple[int, int], _Known] = {}
        self._born: dict[tuple[int, int], _Known] = {}
        self._refusals: dict[object, bool] = {}

    def knows(self, device: int, inode: int, namespace: str) -> bool:
        """Whether it is known; then it is noted that it is used there."""
        known = self._known.get((device, inode))
        if known is not None:
            known.note(namespace)
        return known is not None

    def take(self, descriptor: int, shown: str, namespace: str) -> Libc | None:
        """The library behind the descriptor of a place, unless it is known as it is, or refused.

        What cannot be read now is an OSError, and can be tried again.
        """
        now = status(at=descriptor)
        known = self._known.get((now.device, now.inode))
        same = known if known is not None and known.unchanged(now) else None
        if known is None:
            same = self._twin(descriptor, now)
        if same is not None:
            same.note(namespace)
            return None
        file = now.device, now.inode, now.changed
        if file in self._refusals or (file, namespace) in self._refusals:
            return None
        stacked = is_stacked(descriptor)
        try:
            libc = self._opened(descriptor, shown, now, namespace)
        except _NoRoom as error:
            self.refuse((file, namespace), shown, str(error), final=False)
            return None
        except NotALibc as error:
            self.refuse(file, shown, str(error))
            return None
        self._remember(now, stacked, namespace)
        return libc

    def refuse(self, file: object, shown: str, why: str, *, final: bool = True) -> None:
        """Counts a file, and logs it; both once. `file` is what it is known by."""
        if file in self._refusals:
            return
        self.refused += 1
        if len(self._refusals) < MOST_REFUSALS:
            self._refusals[file] = final
            warn("pytracecon.libcs", "%s: not traced: %s", one_line(shown), one_line(why))

    def forget_all_but(self, alive: set[str]) -> list[tuple[int, int]]:
        """(device, inode) of those that were seen in none of these namespaces. They may be told again."""
        gone = []
        for identity, known in list(self._known.items()):
            if len(known.namespaces) < _MOST_NAMESPACES:
                known.namespaces &= alive
            if not known.namespaces:
                gone.append(identity)
                self._forget(identity)
        if gone:
            self._refusals = {file: final for file, final in self._refusals.items() if final}
        return gone

    def _opened(self, place: int, shown: str, now: Status, namespace: str) -> Libc:
        if not stat.S_ISREG(now.mode):
            raise NotALibc("it is no regular file")
        self._find_room(namespace)
        descriptor = readable(place)
        try:
            flavour, offsets = recognise(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return Libc(descriptor, one_line(shown), now.device, now.inode, flavour, offsets)

    def _find_room(self, namespace: str) -> None:
        there = sum(known.times for known in self._known.values() if known.first == namespace)
        most = MOST_OF_OURS if namespace == self._home else MOST_OF_OTHERS
        if there >= most:
            raise _NoRoom(f"{most} C libraries of its mount namespace are known already")
        elsewhere = sum(known.times for known in self._known.values() if known.first != self._home)
        if namespace != self._home and elsewhere >= MOST_LIBCS:
            raise _NoRoom(f"{MOST_LIBCS} C libraries are known already")

    def _twin(self, descriptor: int, now: Status) -> _Known | None:
        """The same file, known by itself or through another overlay: to the kernel, they are one inode.

        overlayfs gives a file the number and the times that it has in the layer where it lies. One that has the same
        number there and was born in the same nanosecond, but is another, can only lie on a copied file system.
        """
        twin = self._born.get((now.inode, now.born))
        if twin is None or twin.status.device == now.device or not (twin.stacked or is_stacked(descriptor)):
            return None
        return twin

    def _remember(self, now: Status, stacked: bool, namespace: str) -> None:
        known = _Known(now, stacked, namespace)
        earlier = self._known.get((now.device, now.inode))
        if earlier is not None:
            known.times += earlier.times
            known.namespaces |= earlier.namespaces
            self._forget((now.device, now.inode))
        known.note(namespace)
        self._known[now.device, now.inode] = known
        self._born.setdefault((now.inode, now.born), known)

    def _forget(self, identity: tuple[int, int]) -> None:
        known = self._known.pop(identity)
        birth = known.status.inode, known.status.born
        if self._born.get(birth) is known:
            del self._born[birth]
