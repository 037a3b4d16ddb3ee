"""`Owners`: what each process is that a record refers to, from what the kernel side told of it.

A process told by the kernel has a number, another one with each program that it starts. The program's path and
arguments come once, as it starts; those of one that is older than the tracer are read from /proc when they are needed.
"""

from __future__ import annotations

import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable
from sys import getsizeof
from typing import TYPE_CHECKING, NamedTuple

from pytracecon import wire
from pytracecon.events import Process
from pytracecon.owners.cgroups import Cgroups
from pytracecon.owners.proc import Program, parents_of, program_of
from pytracecon.owners.remembered import Remembered
from pytracecon.owners.shapes import user_of
from pytracecon.text import decode as text

if TYPE_CHECKING:
    from pytracecon.owners.runtimes import Runtimes

__all__ = ["Owner", "Owners"]

Owner = tuple[int, int, int, int]
"""By what an event refers to its owner: the process's number here, its cgroup, its pid, and when it was born."""

_IMAGES, _IMAGES_SIZE = 65_536, 16 << 20
"""Programs that are remembered, and their bytes."""
_TOLD_OF = 32_768
"""Processes whose record is: some 250 bytes each."""
_KNOWN, _KNOWN_SIZE = 8_192, 16 << 20
"""Processes that are in the events of late: some 1,000 bytes each mostly, and 70,000 if its arguments are meant so."""
_BESIDES = 320  # what Python needs for an image or a process besides its bytes
_NAMELESS = 1024
_AGAIN = 30.0  # seconds, after which containers without a name are asked for once more

_HEAD: tuple[wire.Field, ...] = (("time to words", "16x"),)
_IMAGE = wire.layout(_HEAD, wire.OWNER_RECORDS["image_event"])
_TOLD = wire.layout(_HEAD, wire.OWNER_RECORDS["process_event"])
_GROUP = wire.layout(_HEAD, wire.OWNER_RECORDS["group_event"])
_PARENTS = wire.layout(tuple((f"parent {at}", "I") for at in range(wire.PARENTS)))


class _Image(NamedTuple):
    """As it stands in the record, until somebody asks."""

    path: bytes
    args: bytes
    args_cut: bool


class _Told(NamedTuple):
    """Read out of the record when somebody asks: most processes are asked for once."""

    image: int
    origin: tuple[int, int]
    """Pid and birth of the process that started the program."""
    parents: list[int]

    @classmethod
    def of(cls, record: bytes | None) -> _Told | None:
        if record is None:
            return None
        _number, image, _born, origin_born, _pid, origin_pid, parents = _TOLD.unpack(record)
        return cls(image, (origin_pid, origin_born), [pid for pid in _PARENTS.unpack(parents) if pid])


class Owners:
    """One per tracer. What takes records and what asks is one thread.

    Containers' names come from another one: `refresh` takes them over.
    """

    def __init__(
        self,
        runtimes: Callable[[Callable[[], None]], Runtimes] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._new_runtimes = runtimes
        self._clock = clock
        self._cgroups = Cgroups()
        self._images: Remembered[int, _Image] = Remembered(_IMAGES, _IMAGES_SIZE, _size_of_image)
        self._told: OrderedDict[int, bytes] = OrderedDict()
        self._known: Remembered[Owner, Process] = Remembered(_KNOWN, _KNOWN_SIZE, _size_of_process)
        self._runtimes: Runtimes | None = None
        self._named = False
        self._nameless: dict[str, int] = {}
        self._ask_again = 0.0
        self._on_named: list[Callable[[], None]] = []
        self._taken = {
            wire.OWNER_KINDS["image"]: self._started,
            wire.OWNER_KINDS["process"]: self._introduced,
            wire.OWNER_KINDS["group"]: self._made,
        }

    def watch(self, on_named: Callable[[], None]) -> None:
        """`on_named` is called in this thread when what `of` gave is not all that is known now, or is to be let go."""
        self._on_named.append(on_named)

    def take(self, batch: bytes | memoryview, at: int) -> None:
        """The record that begins there; its kind is one of `wire.OWNER_KINDS`."""
        self._taken[batch[at + wire.KIND_OFFSET]](batch, at)

    def refresh(self) -> None:
        """Before each batch."""
        if self._known.gone > _KNOWN_SIZE:
            self._known.gone = 0
            self._tell_watchers()  # who may have them still
        if self._named:
            self._forget_the_nameless()
        elif self._nameless and self._clock() >= self._ask_again:
            self._ask_again = self._clock() + _AGAIN
            for container, cgroup in self._nameless.items():
                self._name_of(container, cgroup)

    def of(self, owner: Owner) -> Process:
        known = self._known.get(owner)
        if known is None:
            known = self._process(owner)
            self._known.remember(owner, known)
        else:
            self._known.move_to_end(owner)
        return known

    def close(self) -> None:
        self._cgroups.close()
        if self._runtimes is not None:
            self._runtimes.close()

    def _started(self, batch: bytes | memoryview, at: int) -> None:
        number, _pid, path, args, args_cut = _IMAGE.unpack_from(batch, at)
        begin = at + _IMAGE.size
        middle, end = begin + path, begin + path + args
        self._images.remember(number, _Image(bytes(batch[begin:middle]), bytes(batch[middle:end]), bool(args_cut)))

    def _introduced(self, batch: bytes | memoryview, at: int) -> None:
        number, *_ = _TOLD.unpack_from(batch, at)
        self._told[number] = bytes(batch[at : at + _TOLD.size])
        if len(self._told) > _TOLD_OF:
            self._told.popitem(last=False)

    def _made(self, batch: bytes | memoryview, at: int) -> None:
        number, length = _GROUP.unpack_from(batch, at)
        begin = at + _GROUP.size
        self._cgroups.made(number, bytes(batch[begin : begin + length]))

    def _process(self, owner: Owner) -> Process:
        number, cgroup, pid, born = owner
        told = _Told.of(self._told.get(number))
        place = self._cgroups.place(cgroup)
        container = None if place is None else place.container
        program, source = self._program(told, (pid, born))
        return Process(
            container,
            None if container is None else self._name_of(container, cgroup),
            None if place is None else place.pod,
            None if place is None else place.unit,
            program.exe,
            source if program.exe is not None or program.args is not None else None,
            program.args,
            program.args_cut,
            (told.parents if told is not None else parents_of(pid, born)) or None,
        )

    def _program(self, told: _Told | None, process: tuple[int, int]) -> tuple[Program, str]:
        image = None if told is None else self._images.get(told.image)
        if image is not None and image.path and image.args:
            return _program(image), "exec"
        found = program_of(*process)
        if told is not None and told.origin != process:
            # It ran the same, and may live longer. Where both are there and run two, either has started another since,
            # or the number is another's who was born within the same tick of the clock: nobody knows which of them.
            other = program_of(*told.origin)
            if found is None or other is None:
                found = found or other
            elif found.exe != other.exe:
                found = None
        if image is None:
            return found or Program(), "proc"
        at_exec = _program(image)
        if found is None:
            return at_exec, "exec"
        args, args_cut = at_exec[1:] if at_exec.args else found[1:]
        return Program(at_exec.exe or found.exe, args, args_cut), "proc"

    def _name_of(self, container: str, cgroup: int) -> str | None:
        name = None
        with contextlib.suppress(OSError):  # no descriptor may be left, not even to import; it is tried again later
            if self._runtimes is None:
                from pytracecon.owners.runtimes import Runtimes  # noqa: PLC0415 - for hosts that have containers

                self._runtimes = (self._new_runtimes or Runtimes)(self._note_name)
            name = self._runtimes.name_of(container, user_of(self._cgroups.path(cgroup) or ""))
        if name is None and len(self._nameless) < _NAMELESS:
            self._nameless[container] = cgroup
        return name

    def _note_name(self) -> None:
        """Called by the thread that asks for names."""
        self._named = True

    def _forget_the_nameless(self) -> None:
        self._named = False
        self._nameless.clear()
        for owner in [owner for owner, known in self._known.items() if known.container and not known.container_name]:
            self._known.forget(owner)
        self._tell_watchers()

    def _tell_watchers(self) -> None:
        for forget in self._on_named:
            forget()


def _size_of_image(image: _Image) -> int:
    return len(image.path) + len(image.args) + _BESIDES


def _size_of_process(process: Process) -> int:
    return getsizeof(process.exe) + sum(map(getsizeof, process.args or ())) + _BESIDES


def _program(image: _Image) -> Program:
    names = image.path.split(b"\0")[:-1]
    args = image.args.split(b"\0")
    if not image.args_cut and not args[-1]:
        args.pop()  # what stands behind the last NUL
    return Program(
        "/" + "/".join([text(name) for name in reversed(names)]) if names else None,
        [text(each) for each in args] or None,
        True if image.args_cut else None,
    )
