"""`Objects`: the programs of one image, some of them on each CPU while the kernel verifies them.

One libbpf object makes the maps. Where there are CPUs for it the programs are shared out to others, which take their
maps from the first and are loaded at the same time: verifying is most of a start, and the kernel verifies each program
by itself. These others are opened while the first makes the maps, and libbpf reads the kernel's types meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from pytracecon._libbpf_btf import KERNEL_BTF
from pytracecon._libbpf_objects import Object
from pytracecon.errors import PytraceconError
from pytracecon.kernel_types import FewTypes
from pytracecon.tasks import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from pytracecon._libbpf import Libbpf, Map, Program

__all__ = ["BTF_KINDS", "Objects"]

BTF_KINDS = ("tp_btf", "fentry", "fexit", "iter")
"""Sections whose programs attach by the number of a type: libbpf reads all types of the kernel for them."""
_READING = 3000
"""That takes as long as verifying so many instructions."""

_SHARES = 2
_READS_TYPES = "exit_btf"
"""A program that attaches by the number of a type."""

_NO_TYPES = struct.pack("=HBBIIIIIx", 0xEB9F, 1, 0, 24, 0, 0, 0, 1)
"""struct btf_header of linux/btf.h, and an empty name."""


class Objects:
    """Opened; load() once. After a failure it cannot be loaded again: close it and open another."""

    def __init__(self, lib: Libbpf, image: bytes, btf: str | None, of_modules: Collection[str] = ()) -> None:
        """`btf` replaces the kernel's BTF for relocation. `of_modules`: programs that ask for types of modules too."""
        self.lib = lib
        self._image = image
        self._btf = btf
        self._of_modules = of_modules
        self._few: FewTypes | None = None
        self._shares: list[_Share] = []
        self._ahead: _Ahead | None = None
        self.alone = len(os.sched_getaffinity(0)) == 1
        """There is one CPU: nothing is done at the same time."""
        with contextlib.ExitStack() as on_failure:
            self._until_loaded = on_failure.enter_context(contextlib.ExitStack())
            if btf is None and Path(KERNEL_BTF).exists():
                self._few = self._until_loaded.enter_context(contextlib.closing(FewTypes.begun(image)))
            if self._few is not None and not self.alone:
                self._ahead = self._until_loaded.enter_context(contextlib.closing(_Ahead(lib, image, self._few)))
                self._ahead.begin()
            self._first = on_failure.enter_context(Object(lib, self._opened()))
            self._last_to_first = on_failure.pop_all()
        self.programs: dict[str, Program] = self._first.programs
        self.maps: dict[str, Map] = self._first.maps

    def _opened(self) -> int:
        """Of the first object."""
        pointer = None if self._ahead is None else self._ahead.take_first()
        if pointer is not None:
            return pointer
        types = None
        if not self.alone and self._btf is None:
            # What loads no program relocates nothing.
            types = self._until_loaded.enter_context(_file(_NO_TYPES))
        elif self._few is not None and not self._of_modules:
            types = self._few.path()
        return self.lib.open_pointer(self._image, btf=self._btf, types=types)

    def load(
        self,
        names: Collection[str],
        ready: Callable[[Program], None],
        meanwhile: Callable[[], None],
        often: Callable[[], None],
    ) -> list[PytraceconError]:
        """Create the maps and load the programs of these names, each made ready before. `meanwhile` is called while
        programs are loaded, and `often` again and again after that.

        What was refused: every object goes on to its first. A leaf of `errors` if there cannot even be the maps.
        """
        with self._until_loaded:
            if self.alone:
                return self._load_alone(names, ready)
            _choose(self._first, (), ready)
            maker = _task("makes maps", self._first)
            self._last_to_first.callback(maker.wait)
            maker.begin()
            for share_of in self._shared_out(names):
                self._open(share_of, ready)
            maker.result()
            for share in self._shares:
                for name, each in share.object.maps.items():
                    each.reuse(self.maps[name].fd)
                share.task.begin()
            try:
                meanwhile()
                for share in self._shares:
                    share.task.wait(often)
            finally:
                for share in self._shares:
                    share.task.wait()
            outcomes = [self._take(share) for share in self._shares]
        return [outcome for outcome in outcomes if outcome is not None]

    def loaded(self, names: Collection[str]) -> bool:
        """Whether the kernel has all of these by now, while others may be on their way."""
        return all(self.programs[name].loaded for name in names)

    def _load_alone(self, names: Collection[str], ready: Callable[[Program], None]) -> list[PytraceconError]:
        _choose(self._first, names, ready)
        try:
            self._first.load()
        except PytraceconError as refused:
            if not refused.program:
                raise
            return [refused]
        return []

    def _open(self, names: Collection[str], ready: Callable[[Program], None]) -> None:
        types = pointer = None
        if self._few is not None and not any(name in self._of_modules for name in names):
            types = self._few.path()
            pointer = None if self._ahead is None else self._ahead.take()
        if pointer is None:
            pointer = self.lib.open_pointer(self._image, btf=self._btf, types=types)
        share = _Share(Object(self.lib, pointer, self._first), names)
        self._shares.append(share)
        self._last_to_first.callback(share.close)
        _choose(share.object, names, ready)
        self.programs |= {name: share.object.programs[name] for name in names}

    def _take(self, share: _Share) -> PytraceconError | None:
        """What was refused of its programs; whatever else failed is raised."""
        try:
            share.task.result()
        except PytraceconError as refused:
            if not refused.program:
                raise
            return refused
        return None

    def _shared_out(self, names: Collection[str]) -> list[list[str]]:
        """In two, so that neither takes long, nor both together; and those of modules, whose types are elsewhere."""
        of_modules = [name for name in names if name in self._of_modules]
        programs = (self.programs[name] for name in names if name not in self._of_modules)
        rest = [_Effort(each.name, each.length, _reads_types(each)) for each in programs]
        rest.sort(key=lambda each: (not each.reads_types, -each.length))
        cut = min(range(len(rest) + 1), key=lambda at: _effort(rest[:at]) ** 2 + _effort(rest[at:]) ** 2)
        shares = ([each.name for each in rest[:cut]], [each.name for each in rest[cut:]], of_modules)
        return [share for share in shares if share] or [[]]

    def close(self) -> None:
        """Detach and free everything, whatever fails on the way. Again: nothing."""
        self._last_to_first.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Share:
    """An object of some of the programs."""

    def __init__(self, opened: Object, names: Collection[str]) -> None:
        self.object = opened
        self.names = names
        self.task = _task("loads programs", opened)

    def close(self) -> None:
        self.task.wait()  # after an interrupt libbpf may still be at it
        self.object.close()


class _Ahead:
    """Opens the object that makes the maps, and in another thread those for shares.

    The first of these is for programs that attach by a type's number.
    """

    def __init__(self, lib: Libbpf, image: bytes, few: FewTypes) -> None:
        self._lib = lib
        self._few = few
        self._image = image
        self._firsts: list[int] = []
        self._pointers: list[int] = []
        self._first = Task("opens an object", self._open_first)
        self._task = Task("opens objects", self._open)

    def begin(self) -> None:
        self._first.begin()
        self._task.begin()

    # What fails in these fails again, and is told, where it is needed.

    def _open_first(self) -> None:
        with self._lib.trying(), contextlib.suppress(OSError):
            self._firsts.append(self._lib.open_pointer(self._image, types=self._few.path()))

    def _open(self) -> None:
        with self._lib.trying(), contextlib.suppress(OSError):
            types = self._few.path()
            for _ in range(_SHARES):
                self._pointers.append(self._lib.open_pointer(self._image, types=types))
            self._lib.read_types(self._pointers[0], _READS_TYPES)

    def take_first(self) -> int | None:
        """For the maps. Waits; None if there is none."""
        self._first.wait()
        return self._firsts.pop() if self._firsts else None

    def take(self) -> int | None:
        """The next one. Waits; None if there is none."""
        self._task.wait()
        return self._pointers.pop(0) if self._pointers else None

    def close(self) -> None:
        """Those that nobody took."""
        self._first.wait()
        self._task.wait()
        for pointer in (*self._firsts, *self._pointers):
            self._lib.close_pointer(pointer)
        self._firsts.clear()
        self._pointers.clear()


class _Effort(NamedTuple):
    name: str
    length: int
    reads_types: bool


def _task(what: str, opened: Object) -> Task:
    def load() -> None:
        with opened.lib.trying():
            opened.load()

    return Task(what, load)


def _reads_types(program: Program) -> bool:
    return program.section.partition("/")[0] in BTF_KINDS


def _effort(programs: list[_Effort]) -> int:
    """In instructions: longer programs take longer to verify."""
    return sum(each.length for each in programs) + _READING * any(each.reads_types for each in programs)


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
