"""`Objects`: the programs of one image, some of them on each CPU while the kernel verifies them.

One libbpf object makes the maps. Where there are CPUs for it the programs are shared out to others, which take their
maps from the first and are loaded at the same time: verifying is most of a start, and the kernel verifies each program
by itself.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from typing import TYPE_CHECKING, Self

from pytracecon.errors import PytraceconError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from pytracecon._libbpf import Libbpf, Map, Object, Program

__all__ = ["Objects"]

_MOST = 2
"""Each reads all types of the kernel and looks for its own among them: with more, that outweighs what is gained."""

_NO_TYPES = struct.pack("=HBBIIIIIx", 0xEB9F, 1, 0, 24, 0, 0, 0, 1)
"""struct btf_header of linux/btf.h, and an empty name."""


class Objects:
    """Opened; load() once. After a failure it cannot be loaded again: close it and open another."""

    def __init__(self, lib: Libbpf, image: bytes, btf: str | None) -> None:
        self.lib = lib
        self._image = image
        self._btf = btf
        self._shares: list[_Share] = []
        self._count = min(_MOST, len(os.sched_getaffinity(0)))
        with contextlib.ExitStack() as on_failure:
            self._types = on_failure.enter_context(contextlib.ExitStack())
            if self._count > 1 and btf is None:
                # What loads no program relocates nothing: it need not read the kernel's types.
                btf = self._types.enter_context(_file(_NO_TYPES))
            self._first = on_failure.enter_context(lib.open_object(image, btf=btf))
            self._last_to_first = on_failure.pop_all()
        self.programs: dict[str, Program] = self._first.programs
        self.maps: dict[str, Map] = self._first.maps

    def load(self, names: Collection[str], ready: Callable[[Program], None]) -> list[PytraceconError]:
        """Create the maps and load the programs of these names, each made ready before.

        What was refused: each CPU goes on to the first. A leaf of `errors` if there cannot even be the maps.
        """
        if self._count == 1:
            _choose(self._first, names, ready)
            try:
                self._first.load()
            except PytraceconError as refused:
                if not refused.program:
                    raise
                return [refused]
            return []
        _choose(self._first, (), ready)
        self._first.load()
        self._types.close()
        mine, *others = self._shared_out(names)
        for each in others:
            self._share(each, ready).begin()
        try:
            self._share(mine, ready).load()
        finally:
            for share in self._shares:
                share.wait()
        outcomes = [self._take(share) for share in self._shares]
        return [outcome for outcome in outcomes if outcome is not None]

    def _share(self, names: Collection[str], ready: Callable[[Program], None]) -> _Share:
        share = _Share(self.lib.open_object(self._image, btf=self._btf))
        self._shares.append(share)
        self._last_to_first.callback(share.close)
        _choose(share.object, names, ready)
        for name, each in share.object.maps.items():
            each.reuse(self.maps[name].fd)
        return share

    def _take(self, share: _Share) -> PytraceconError | None:
        """Its programs are ours now. What was refused of them; whatever else failed is raised."""
        self.programs |= {name: each for name, each in share.object.programs.items() if each.autoload}
        failed = share.failed
        if failed is None or (isinstance(failed, PytraceconError) and failed.program):
            return failed
        raise failed

    def _shared_out(self, names: Collection[str]) -> list[list[str]]:
        """Longer programs take longer: the longest first, each to who has least to do."""
        sizes = sorted(((self.programs[name].length, name) for name in names), reverse=True)
        shares: list[list[str]] = [[] for _ in range(self._count)]
        loads = [0] * self._count
        for size, name in sizes:
            least = loads.index(min(loads))
            shares[least].append(name)
            loads[least] += size
        return shares

    def close(self) -> None:
        """Detach and free everything, whatever fails on the way. Again: nothing."""
        self._last_to_first.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Share:
    """An object of some of the programs. It can be loaded in a thread of its own."""

    def __init__(self, opened: Object) -> None:
        self.object = opened
        self.failed: BaseException | None = None
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        self._thread = threading.Thread(target=self.load, name="pytracecon: loads programs", daemon=True)
        self._thread.start()

    def load(self) -> None:
        try:
            with self.object.lib.trying():
                self.object.load()
        except BaseException as error:  # noqa: BLE001 - whoever waits for it raises it
            self.failed = error

    def wait(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def close(self) -> None:
        self.wait()  # after an interrupt libbpf may still be at it
        self.object.close()


def _choose(opened: Object, names: Collection[str], ready: Callable[[Program], None]) -> None:
    for name, program in opened.programs.items():
        program.autoload = name in names
        ready(program)


@contextlib.contextmanager
def _file(content: bytes) -> Iterator[str]:
    """The path of a file that only this process has, for as long."""
    handle = os.memfd_create("pytracecon")
    try:
        os.write(handle, content)
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)
