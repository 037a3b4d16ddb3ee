"""Takes each need's best candidate that this kernel lets attach, by trying.

One BPF object holds all programs. Those chosen are loaded and attached together; what the kernel refuses is noted,
its candidate gives way to the next, and the whole is tried again, until all that is left works.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytracecon import _libbpf, pinned, privileges, settings, uprobe_multi, wire
from pytracecon._libbpf_api import ENOTSUPP
from pytracecon.attach import attach
from pytracecon.errors import (
    LockedDown,
    MissingBTF,
    MissingPrivilege,
    PytraceconError,
    UnsupportedKernel,
    VerifierRejected,
)
from pytracecon.existing import read_existing
from pytracecon.listing import PROGRAMS as ROW_PROGRAMS
from pytracecon.listing import try_rows
from pytracecon.meanwhile import Search
from pytracecon.modules import Modules
from pytracecon.probes import NEEDS, Candidate, Need, Probe, candidates, has_kprobes

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from pytracecon.filters import Filters
    from pytracecon.uprobes import LibcUprobes

_TRACING, _TRACE_FENTRY = 26, 24  # BPF_PROG_TYPE_TRACING, BPF_TRACE_FENTRY of linux/bpf.h
_RINGBUF = 27  # BPF_MAP_TYPE_RINGBUF
_MULTI = "uprobe/multi"
_BTF_KINDS = ("tp_btf", "fentry", "iter")
_RETURN_ZERO = bytes((0xB7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0))


@dataclass(slots=True)
class Loaded:
    """Programs in the kernel and attached, until close()."""

    object: _libbpf.Object
    links: list[_libbpf.Link]
    probes: list[Probe]
    libcs: LibcUprobes | None = None
    """Where the need "libc lookups" is met."""
    later: list[_libbpf.Object] = field(default_factory=list)
    """What was loaded when it was first asked for; it shares the maps."""
    modules: Modules | None = None
    """Where a need is met, or will be, by functions of a module."""

    @property
    def alone(self) -> list[_libbpf.Program]:
        """What is attached and leaves a gap when the kernel skips it.

        Those of `states` do not: they stand in for each other, and an end that none of them saw is found out by the
        audit. Nor do iterators: whoever runs one sees that it did.
        """
        hooks = [probe for probe in self.probes if probe.attached and probe.rung != "iterator"]
        return [self.object.programs[probe.name] for probe in hooks if probe.need != "states"]

    @property
    def stand_ins(self) -> list[_libbpf.Program]:
        """What tells of ends."""
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

    def close(self) -> None:
        if self.libcs is not None:
            self.libcs.detach()
        with contextlib.ExitStack() as last_to_first:
            last_to_first.callback(self.object.close)
            for opened in self.later:
                last_to_first.callback(opened.close)
            if self.modules is not None:
                last_to_first.callback(self.modules.close)


@dataclass(slots=True)
class _Trial:
    """What was learnt so far: programs that this kernel refused, and why."""

    refused: dict[str, PytraceconError] = field(default_factory=dict)
    search: Search | None = None
    """For libcs, while the kernel verifies programs."""
    waits: dict[str, str] = field(default_factory=dict)
    """Needs whose programs are loaded and not attached yet, and what they wait for."""

    def choose(self, need: Need, rung: str) -> Candidate | None:
        for candidate in candidates(need, rung):
            if not any(name in self.refused for name in candidate.required):
                return candidate
        return None

    def refuse_rung(self, rung: str, cause: PytraceconError) -> None:
        for candidate in (each for need in NEEDS for each in need.candidates if each.rung == rung):
            self.refused.update(dict.fromkeys((*candidate.required, *candidate.extras), cause))

    def programs(self, candidate: Candidate) -> list[str]:
        usable = [name for name in candidate.either if name not in self.refused][:1]
        extras = [name for name in candidate.extras if name not in self.refused]
        return [*candidate.programs, *extras, *usable]


def load(filters: Filters, also: Container[str] = ()) -> Loaded:
    """Load and attach what `filters` asks for, and `also` the needs of these names.

    A leaf of `pytracecon.errors` if an essential need cannot be met.
    """
    lib = _libbpf.open_library(filters.libbpf)
    image = object_image()
    trial = _Trial(waits=_waiting())
    needs = [need for need in NEEDS if need.wanted(filters) or need.name in also]
    if filters.names:
        trial.search = Search()
    try:
        with lib.trying():
            _refuse_whole_rungs(lib, trial)
        return _settle(lib, image, filters, needs, trial)
    finally:
        if trial.search is not None:
            trial.search.close()


def survey(filters: Filters) -> dict[str, PytraceconError | None]:
    """Try every candidate of every need: what refused each of their programs, None where it works. Nothing stays."""
    filters = replace(filters, probes="auto")
    lib = _libbpf.open_library(filters.libbpf)
    image = object_image()
    trial = _Trial(waits=_waiting())
    with lib.trying():
        _refuse_whole_rungs(lib, trial)
    works: set[str] = set()
    later: dict[str, PytraceconError] = {}
    for rank in range(max(len(need.candidates) for need in NEEDS)):
        # One of each need at a time, and none is essential: what is refused does not end the search.
        needs = [replace(need, candidates=need.candidates[rank : rank + 1], essential=False) for need in NEEDS]
        with contextlib.closing(_settle(lib, image, filters, needs, trial)) as loaded:
            if (refused := read_existing(loaded)) is not None:
                trial.refused["existing"] = refused
            if (refused := try_rows(loaded)) is not None:
                trial.refused.update(dict.fromkeys(ROW_PROGRAMS, refused))
            works.update(probe.name for probe in loaded.probes if probe.attached)
            waiting = [probe for probe in loaded.probes if not probe.attached and probe.need in trial.waits]
            later |= {probe.name: UnsupportedKernel(probe.detail) for probe in waiting}
    return dict.fromkeys(works) | later | trial.refused


def _waiting() -> dict[str, str]:
    return {need.name: what for need in NEEDS if (what := need.waits) is not None}


def _settle(lib: _libbpf.Libbpf, image: bytes, filters: Filters, needs: list[Need], trial: _Trial) -> Loaded:
    """Try, with what `trial` learns on the way, until all that is left works."""
    with lib.trying():
        while True:
            chosen = {need.name: trial.choose(need, filters.probes) for need in needs}
            _require(needs, chosen, filters.probes, trial)
            loaded = _attempt(lib, image, filters, needs, chosen, trial)
            if loaded is not None:
                return loaded


def object_image() -> bytes:
    """The compiled object for this machine, from the package."""
    path = Path(__file__).parent / "bpf" / f"pytracecon-{platform.machine()}.bpf.o"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UnsupportedKernel(
            f"there is no BPF object for {platform.machine()} in this installation ({path}): x86-64 and arm64 are "
            "supported; in a source tree, run `make -C bpf`"
        ) from None


def _refuse_whole_rungs(lib: _libbpf.Libbpf, trial: _Trial) -> None:
    """Questions that cost nothing, and save loading all programs once for each answer that is no."""
    if not uprobe_multi.known(lib):
        cause = UnsupportedKernel("this kernel has no links of many uprobes (Linux 6.6 has)")
        trial.refused.update(dict.fromkeys(("resolver_enter_multi", "resolver_return_multi"), cause))
    if not has_kprobes():
        trial.refuse_rung("kprobe", UnsupportedKernel("this kernel has no kprobes (CONFIG_KPROBES)"))
    try:
        # Type 1 is no function, so it never loads: a kernel that knows fentry looks at that, and one that does not
        # let it happen says so before.
        os.close(lib.prog_load(_TRACING, _RETURN_ZERO, expected_attach_type=_TRACE_FENTRY, attach_btf_id=1))
    except OSError as error:
        if error.errno == errno.EPERM and not privileges.missing_capabilities("fentry/"):
            cause = UnsupportedKernel("this kernel does not let fentry programs load, not even for root (EPERM)")
            trial.refuse_rung("fentry", cause)


def _require(needs: list[Need], chosen: dict[str, Candidate | None], rung: str, trial: _Trial) -> None:
    """Raise for an essential need that is not met, and for any that the forced rung could meet and does not."""
    for need in needs:
        if chosen[need.name] is not None or need.name in trial.waits or not (need.essential or rung != "auto"):
            continue
        cause = next(
            trial.refused[name]
            for candidate in candidates(need, rung)
            for name in candidate.required
            if name in trial.refused
        )
        if rung == "auto":
            raise cause
        raise UnsupportedKernel(f"--probes {rung} does not work here ({cause}): use --probes auto") from cause


def _attempt(
    lib: _libbpf.Libbpf,
    image: bytes,
    filters: Filters,
    needs: list[Need],
    chosen: dict[str, Candidate | None],
    trial: _Trial,
) -> Loaded | None:
    """One try with this choice; None if something of it was refused, which `trial` knows now."""
    wanted = {name: trial.programs(candidate) for name, candidate in chosen.items() if candidate is not None}
    workers = {
        name: candidate.worker for name, candidate in chosen.items() if candidate is not None and candidate.worker
    }
    later = {name for candidate in chosen.values() if candidate is not None for name in candidate.loaded}
    names = {name for group in wanted.values() for name in group}.union(workers.values(), later)
    with contextlib.ExitStack() as on_failure:
        opened = on_failure.enter_context(lib.open_object(image, btf=filters.btf))
        if not Path(_libbpf.KERNEL_BTF).exists() and _refuse_btf_kinds(opened, names, trial):
            return None
        for name, program in opened.programs.items():
            program.autoload = name in names
            if program.section == _MULTI:
                program.expect(uprobe_multi.ATTACH_TYPE)
        _prepare(opened, filters, chosen)
        pinned.reuse(opened, filters)
        essential = {name for need in needs if need.essential for name in (*wanted[need.name], workers.get(need.name))}
        if not _load(opened, trial, essential):
            return None
        _fill(opened, filters)
        for worker in workers.values():
            opened.maps["workers"].update(settings.u32(0), settings.u32(opened.programs[worker].fd))
        links: list[_libbpf.Link] = []
        libcs = _attach_to_libcs(opened, chosen.get("libc lookups"), trial)
        if libcs is not None:
            on_failure.callback(libcs.detach)
        elif chosen.get("libc lookups") is not None:
            return None
        for need in needs:
            if not _attach(opened, need, chosen[need.name], wanted.get(need.name, []), trial, links):
                return None
        attached = {
            name
            for need, group in wanted.items()
            for name in group
            if name not in trial.refused and need not in trial.waits
        }
        loaded = Loaded(opened, links, list(_outcome(needs, chosen, attached, trial)), libcs)
        loaded.modules = _follow_modules(loaded, needs, wanted)
        on_failure.pop_all()
    return loaded


def _follow_modules(loaded: Loaded, needs: list[Need], wanted: dict[str, list[str]]) -> Modules | None:
    """None if nothing that was taken is on a module's functions."""
    programs = {
        need.module: [loaded.object.programs[name] for name in wanted[need.name]]
        for need in needs
        if need.module is not None and need.name in wanted
    }
    if not programs:
        return None

    def told(program: _libbpf.Program, refused: PytraceconError | None) -> None:
        for at, probe in enumerate(loaded.probes):
            if probe.name == program.name:
                detail = "" if refused is None else str(refused)
                loaded.probes[at] = replace(probe, attached=refused is None, detail=detail)

    attached = {probe.name for probe in loaded.probes if probe.attached}
    return Modules(programs, {module for module, group in programs.items() if group[0].name in attached}, told)


def _attach_to_libcs(opened: _libbpf.Object, candidate: Candidate | None, trial: _Trial) -> LibcUprobes | None:
    """None if lookups of libcs are not wanted, or cannot be seen: `trial` knows why, then."""
    if candidate is None:
        return None
    # Not imported before it is clear that they are wanted: they bring half the standard library along.
    from pytracecon.uprobes import LibcUprobes  # noqa: PLC0415

    try:
        libcs = LibcUprobes(opened, candidate.programs, trial.search)
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(libcs.detach)
            libcs.try_in_a_sandbox()
            libcs.attach()
            on_failure.pop_all()
    except (PytraceconError, OSError) as error:
        cause = error if isinstance(error, PytraceconError) else UnsupportedKernel(f"libcs cannot be found: {error}")
        trial.refused.update(dict.fromkeys((*candidate.programs, *candidate.extras), cause))
        return None
    return libcs


def _prepare(opened: _libbpf.Object, filters: Filters, chosen: dict[str, Candidate | None]) -> None:
    attempts = chosen.get("attempts")
    opened.maps[".rodata.settings"].initial_value = settings.settings(
        filters,
        syn_hook=chosen.get("first syn") is not None,
        attempt_hook=wire.ATTEMPT_UNSEEN if attempts is None else attempts.attempt_hook,
    )
    opened.maps["ring"].max_entries = filters.ring_size
    opened.maps["socks"].max_entries = filters.max_connections
    opened.maps["watched"].max_entries = filters.max_connections if chosen.get("transitions") else 1
    for name in ("conversations", "datagram_sockets"):
        opened.maps[name].max_entries = filters.max_connections if chosen.get("udp sent") else 1
    if not chosen.get("udp sent"):
        for name in ("left_out", "told_addresses", "ended_owners"):
            opened.maps[name].max_entries = 1
    opened.maps["counters"].max_entries = opened.lib.num_possible_cpus()
    if not filters.children:
        opened.maps["filter_values"].max_entries = len(list(settings.members(filters))) or 1
    for name, networks in _networks(filters):
        opened.maps[name].max_entries = len(networks) + 1


def _networks(filters: Filters) -> tuple[tuple[str, list[tuple[bytes, bytes]]], ...]:
    return (
        ("filter_remote", list(settings.prefixes(filters.remote))),
        ("filter_local", list(settings.prefixes(filters.local))),
        ("filter_not_remote", list(settings.prefixes(filters.not_remote))),
    )


_FATAL = (MissingPrivilege, MissingBTF, LockedDown)
_OF_THE_KIND = (errno.EPERM, errno.EACCES, errno.EINVAL, errno.EOPNOTSUPP, ENOTSUPP)
"""What a kernel says to all programs of a kind that it does not take. Not ESRCH or ENOENT, by which libbpf says that
the one function or tracepoint that the program is for is absent or inlined here."""


def _load(opened: _libbpf.Object, trial: _Trial, essential: set[str | None]) -> bool:
    try:
        opened.load()
    except PytraceconError as error:
        refused = isinstance(error, UnsupportedKernel) and not error.program
        if refused and not opened.lib.probe_map_type(_RINGBUF):
            raise UnsupportedKernel("this kernel has no BPF ring buffer: Linux 5.8 or later is needed") from error
        if not error.program or (isinstance(error, _FATAL) and error.program in essential):
            raise
        trial.refused[error.program] = error
        if not isinstance(error, VerifierRejected) and isinstance(error, OSError) and error.errno in _OF_THE_KIND:
            # The kernel did not even look at it: it refuses the kind, not the program.
            kind = _kind(opened.programs[error.program])
            trial.refused.update({name: error for name, each in opened.programs.items() if _kind(each) == kind})
        return False
    return True


def _refuse_btf_kinds(opened: _libbpf.Object, names: set[str], trial: _Trial) -> bool:
    """A given BTF file relocates; what attaches by a type's number in the kernel's own BTF still needs that."""
    bound = {name for name in names if _kind(opened.programs[name]) in _BTF_KINDS}
    cause = MissingBTF(f"the kernel has no BTF of its own ({_libbpf.KERNEL_BTF}), and this attaches by it alone")
    trial.refused.update(dict.fromkeys(bound, cause))
    return bool(bound)


def _kind(program: _libbpf.Program) -> str:
    kind = program.section.partition("/")[0]
    return {"fexit": "fentry", "kretprobe": "kprobe"}.get(kind, kind)


def _fill(opened: _libbpf.Object, filters: Filters) -> None:
    one = settings.u32(1)
    for member in settings.members(filters):
        opened.maps["filter_values"].update(member, one)
    for number, ranges in enumerate((filters.remote_ports, filters.local_ports, filters.not_remote_ports)):
        if ranges:
            opened.maps["filter_ports"].update(settings.u32(number), settings.port_set(ranges))
    for name, networks in _networks(filters):
        for key, value in networks:
            opened.maps[name].update(key, value)


def _attach(
    opened: _libbpf.Object,
    need: Need,
    candidate: Candidate | None,
    names: list[str],
    trial: _Trial,
    links: list[_libbpf.Link],
) -> bool:
    """False if something that the candidate cannot do without was refused, or another of `either` can be tried."""
    if candidate is None or need.name in ("existing", "snapshot", "libc lookups") or need.name in trial.waits:
        return True
    for name in names:
        try:
            links.append(attach(opened.programs[name]))
        except PytraceconError as error:
            if isinstance(error, _FATAL) and need.essential:
                raise
            trial.refused[name] = error
            if name in candidate.programs or name in candidate.either:
                return False
    return True


def _outcome(
    needs: list[Need], chosen: dict[str, Candidate | None], attached: set[str], trial: _Trial
) -> Iterator[Probe]:
    """Every program that was attached or refused on the way to what was chosen."""
    for need in needs:
        for candidate in need.candidates:
            for name in (*candidate.required, *candidate.extras, *candidate.either):
                if candidate is chosen[need.name] and name in attached:
                    yield Probe(need.name, candidate.rung, name, attached=True)
                elif name in trial.refused:
                    yield Probe(need.name, candidate.rung, name, attached=False, detail=str(trial.refused[name]))
                elif candidate is chosen[need.name] and need.name in trial.waits:
                    yield Probe(need.name, candidate.rung, name, attached=False, detail=trial.waits[need.name])
            if candidate is chosen[need.name]:
                break
