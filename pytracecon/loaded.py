"""`Loaded`: what the loader leaves behind, until it is closed."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from pytracecon._libbpf_api import ProgInfo
from pytracecon._ring import ffi, lib
from pytracecon.probes import PAIRS, REPEATED

if TYPE_CHECKING:
    from pytracecon import _libbpf
    from pytracecon.errors import PytraceconError
    from pytracecon.modules import Modules
    from pytracecon.objects import Objects
    from pytracecon.probes import Probe
    from pytracecon.uprobes import LibcUprobes

__all__ = ["Loaded"]

_UNGUARDED = ("cgroup", "cgroup_skb", "sockops", "uprobe/multi")
"""Sections, or what they begin with, whose programs the kernel runs even where one interrupts itself: it skips none."""

_MISSES = ProgInfo.recursion_misses.offset // 8


def _skipped(programs: Any) -> int:
    """In all, of an array of descriptors."""
    count = int(lib.sum_of_infos(programs, len(programs), _MISSES))
    if count < 0:
        raise OSError(ffi.errno, os.strerror(ffi.errno))
    return count


class Loaded:
    """Programs in the kernel and attached, until close()."""

    def __init__(
        self, opened: Objects, links: list[_libbpf.Link], probes: list[Probe], libcs: LibcUprobes | None
    ) -> None:
        """`libcs`: where the need "libc lookups" is met."""
        self.object = opened
        self.links = links
        self.probes = probes
        self.libcs = libcs
        self.later: list[_libbpf.Object] = []
        """What was loaded when it was first asked for; it shares the maps."""
        self.modules: Modules | None = None
        """Where a need is met, or will be, by functions of a module."""
        self._asked_for: list[Probe] = []
        self._asked: list[list[Any]] = []

    def misses(self) -> tuple[int, int]:
        """How often the kernel skipped a program that nothing stands in for, in all; of a pair, how often both at most.
        And how often it skipped the first of those that tell of ends.

        0 where it does not count that (before 5.12).
        """
        if self._asked_for != self.probes:  # the same ones all the time: then nothing but the calls
            groups = [[self.stand_ins[:1]], [self.alone], *([[program] for program in pair] for pair in self.pairs)]
            self._asked = [[ffi.new("int[]", [each.fd for each in some]) for some in group] for group in groups]
            self._asked_for = list(self.probes)
        first, *others = [min(map(_skipped, group)) for group in self._asked]
        return sum(others), first

    @property
    def pairs(self) -> list[tuple[_libbpf.Program, ...]]:
        attached = {probe.name for probe in self.probes if probe.attached}
        return [tuple(self.object.programs[name] for name in pair) for pair in PAIRS if attached.issuperset(pair)]

    @property
    def alone(self) -> list[_libbpf.Program]:
        """What is attached and leaves a gap when the kernel skips it.

        Those of `states` do not: they stand in for each other, and what none of them saw is found out. Nor do pairs,
        what comes again, what the kernel never skips, nor iterators: whoever runs one sees that it did.
        """
        left_out = REPEATED.union(program.name for pair in self.pairs for program in pair)
        hooks = [probe for probe in self.probes if probe.attached and probe.rung != "iterator"]
        names = [probe.name for probe in hooks if probe.need != "states" and probe.name not in left_out]
        found = [self.object.programs[name] for name in names]
        return [each for each in found if not {each.section, each.section.partition("/")[0]}.intersection(_UNGUARDED)]

    @property
    def stand_ins(self) -> list[_libbpf.Program]:
        """What tells of ends. The others stand in for the first."""
        hooks = [probe for probe in self.probes if probe.attached and probe.need == "states"]
        return [self.object.programs[probe.name] for probe in hooks]

    @property
    def audit(self) -> _libbpf.Program | None:
        """Counts ends that nobody told of; None where there are no iterators."""
        found = any(probe.attached and probe.need == "existing" for probe in self.probes)
        return self.object.programs["audit"] if found else None

    def detach(self) -> None:
        """Nothing is traced after this; what is in the ring stays readable."""
        with contextlib.ExitStack() as last_to_first:
            for link in self.links:
                last_to_first.callback(link.close)
            if self.libcs is not None:
                last_to_first.callback(self.libcs.detach)
            if self.modules is not None:
                last_to_first.callback(self.modules.detach)

    def follow_modules(self, programs: dict[str, list[_libbpf.Program]]) -> None:
        """`programs` by the module whose functions they are on."""
        from pytracecon.modules import Modules  # noqa: PLC0415 - not where nothing is on a module's functions

        def told(program: _libbpf.Program, refused: PytraceconError | None) -> None:
            for at, probe in enumerate(self.probes):
                if probe.name == program.name:
                    detail = "" if refused is None else str(refused)
                    self.probes[at] = probe._replace(attached=refused is None, detail=detail)

        attached = {probe.name for probe in self.probes if probe.attached}
        met = {module for module, group in programs.items() if group[0].name in attached}
        self.modules = Modules(programs, met, told)

    def close(self) -> None:
        self._asked_for = []  # these numbers may be others' from now on
        if self.libcs is not None:
            self.libcs.detach()
        with contextlib.ExitStack() as last_to_first:
            last_to_first.callback(self.object.close)
            for opened in self.later:
                last_to_first.callback(opened.close)
            if self.modules is not None:
                last_to_first.callback(self.modules.close)
