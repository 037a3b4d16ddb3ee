"""Takes each need's best candidate that this kernel lets attach, by trying.

One image holds all programs. Those chosen are loaded and attached together; what the kernel refuses is noted,
its candidate gives way to the next, and the whole is tried again, until all that is left works.
"""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path
from typing import TYPE_CHECKING

from pytracecon import _libbpf, settings, uprobe_multi
from pytracecon._libbpf_api import ENOTSUPP
from pytracecon.attaching import FATAL, ToLibcs, attach_need
from pytracecon.errors import MissingBTF, PytraceconError, UnsupportedKernel, VerifierRejected
from pytracecon.existing import read_existing
from pytracecon.image import object_image
from pytracecon.listing import PROGRAMS as ROW_PROGRAMS
from pytracecon.listing import try_rows
from pytracecon.loaded import Loaded
from pytracecon.meanwhile import Meanwhile
from pytracecon.objects import BTF_KINDS, Objects
from pytracecon.prepare import fill, prepare
from pytracecon.probes import NEEDS, Candidate, Need
from pytracecon.trial import Trial, outcome, refuse_whole_rungs, require

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from pytracecon.filters import Filters

__all__ = ["Loaded", "load", "object_image", "survey"]

_RINGBUF = 27  # BPF_MAP_TYPE_RINGBUF
_MULTI = "uprobe/multi"
_OF_THE_KIND = (errno.EPERM, errno.EACCES, errno.EINVAL, errno.EOPNOTSUPP, ENOTSUPP)
"""What a kernel says to all programs of a kind that it does not take. Not ESRCH or ENOENT, by which libbpf says that
the one function or tracepoint that the program is for is absent or inlined here."""


def load(
    filters: Filters,
    also: Container[str] = (),
    modules: tuple[str, ...] = (),
    refused: dict[str, PytraceconError] | None = None,
) -> Loaded:
    """Load and attach what `filters` asks for, and `also` the needs of these names.

    While the kernel verifies the programs `modules` are imported. `refused` are programs that are known not to work,
    and why; what is learnt of others is added. A leaf of `pytracecon.errors` if an essential need cannot be met.
    """
    lib = _libbpf.open_library(filters.libbpf)
    image = object_image()
    trial = Trial(refused)
    needs = [need for need in NEEDS if need.wanted(filters) or need.name in also]
    with lib.trying(), contextlib.closing(Meanwhile(modules, names=filters.names)) as meanwhile:
        refuse_whole_rungs(lib, trial)
        if "resolver_return_multi" not in trial.refused:
            meanwhile.make_ready(lib)
        return _settle(lib, image, filters, needs, trial, meanwhile)


def survey(filters: Filters) -> dict[str, PytraceconError | None]:
    """Try every candidate of every need: what refused each of their programs, None where it works. Nothing stays."""
    filters = filters._replace(probes="auto")
    lib = _libbpf.open_library(filters.libbpf)
    image = object_image()
    trial = Trial()
    works: set[str] = set()
    later: dict[str, PytraceconError] = {}
    with lib.trying(), contextlib.closing(Meanwhile((), names=filters.names)) as meanwhile:
        refuse_whole_rungs(lib, trial)
        if "resolver_return_multi" not in trial.refused:
            meanwhile.make_ready(lib)
        for rank in range(max(len(need.candidates) for need in NEEDS)):
            # One of each need at a time, and none is essential: what is refused does not end the search.
            needs = [need._replace(candidates=need.candidates[rank : rank + 1], essential=False) for need in NEEDS]
            with contextlib.closing(_settle(lib, image, filters, needs, trial, meanwhile)) as loaded:
                if (refused := read_existing(loaded)) is not None:
                    trial.refused["existing"] = refused
                if (refused := try_rows(loaded)) is not None:
                    trial.refused.update(dict.fromkeys(ROW_PROGRAMS, refused))
                works.update(probe.name for probe in loaded.probes if probe.attached)
                waiting = [probe for probe in loaded.probes if not probe.attached and probe.need in trial.waits]
                later |= {probe.name: UnsupportedKernel(probe.detail) for probe in waiting}
    return dict.fromkeys(works) | later | trial.refused


def _settle(
    lib: _libbpf.Libbpf, image: bytes, filters: Filters, needs: list[Need], trial: Trial, meanwhile: Meanwhile
) -> Loaded:
    """Try, with what `trial` learns on the way, until all that is left works."""
    while True:
        chosen = {need.name: trial.choose(need, filters) for need in needs}
        require(needs, chosen, filters, trial)
        loaded = _attempt(lib, image, filters, needs, chosen, trial, meanwhile)
        if loaded is not None:
            return loaded


def _attempt(
    lib: _libbpf.Libbpf,
    image: bytes,
    filters: Filters,
    needs: list[Need],
    chosen: dict[str, Candidate | None],
    trial: Trial,
    meanwhile: Meanwhile,
) -> Loaded | None:
    """One try with this choice; None if something of it was refused, which `trial` knows now."""
    wanted = {name: trial.programs(candidate) for name, candidate in chosen.items() if candidate is not None}
    workers = {
        name: candidate.worker for name, candidate in chosen.items() if candidate is not None and candidate.worker
    }
    later = {name for candidate in chosen.values() if candidate is not None for name in candidate.loaded}
    names = {name for group in wanted.values() for name in group}.union(workers.values(), later)
    with contextlib.ExitStack() as on_failure:
        of_modules = {name for need in needs if need.module is not None for name in wanted.get(need.name, ())}
        opened = on_failure.enter_context(Objects(lib, image, filters.btf, of_modules))
        if not Path(_libbpf.KERNEL_BTF).exists() and _refuse_btf_kinds(opened, names, trial):
            return None
        prepare(opened, filters, chosen)
        essential = {name for need in needs if need.essential for name in (*wanted[need.name], workers.get(need.name))}
        lookups = chosen.get("libc lookups")
        to_libcs = None
        if lookups is not None:
            to_libcs = ToLibcs(opened, filters, lookups, wanted["libc lookups"], meanwhile)
            on_failure.callback(to_libcs.close)

        def between() -> None:
            if to_libcs is not None:
                to_libcs.begin_if_loaded()

        if not _load(opened, names, trial, essential, meanwhile, between):
            return None
        if to_libcs is None:
            fill(opened, filters)
        else:
            to_libcs.begin_if_loaded()
        for worker in workers.values():
            opened.maps["workers"].update(settings.u32(0), settings.u32(opened.programs[worker].fd))
        links: list[_libbpf.Link] = []
        for need in needs:
            if not attach_need(opened, need, chosen[need.name], wanted.get(need.name, []), trial, links):
                return None
        libcs = None if to_libcs is None else to_libcs.result(trial)
        if libcs is None and to_libcs is not None:
            return None
        attached = {
            name
            for need, group in wanted.items()
            for name in group
            if name not in trial.refused and need not in trial.waits
        }
        loaded = Loaded(opened, links, list(outcome(needs, chosen, attached, trial)), libcs)
        modules = {
            need.module: [opened.programs[name] for name in wanted[need.name]]
            for need in needs
            if need.module is not None and need.name in wanted
        }
        if modules:
            loaded.follow_modules(modules)
        on_failure.pop_all()
    return loaded


def _load(
    opened: Objects,
    names: set[str],
    trial: Trial,
    essential: set[str | None],
    meanwhile: Meanwhile,
    between: Callable[[], None],
) -> bool:
    if opened.alone:
        meanwhile.begin()  # it takes the kernel's time, and nobody's CPU
    try:
        refusals = opened.load(names, _make_ready, lambda: meanwhile.run(between), between)
    except UnsupportedKernel as error:
        if not opened.lib.probe_map_type(_RINGBUF):
            raise UnsupportedKernel("this kernel has no BPF ring buffer: Linux 5.8 or later is needed") from error
        raise
    for refused in refusals:
        if isinstance(refused, FATAL) and refused.program in essential:
            raise refused
        trial.refused[refused.program] = refused
        if not isinstance(refused, VerifierRejected) and isinstance(refused, OSError) and refused.errno in _OF_THE_KIND:
            # The kernel did not even look at it: it refuses the kind, not the program.
            kind = _kind(opened.programs[refused.program])
            trial.refused.update({name: refused for name, each in opened.programs.items() if _kind(each) == kind})
    return not refusals


def _make_ready(program: _libbpf.Program) -> None:
    if program.section == _MULTI:
        program.expect(uprobe_multi.ATTACH_TYPE)


def _refuse_btf_kinds(opened: Objects, names: set[str], trial: Trial) -> bool:
    """A given BTF file relocates; what attaches by a type's number in the kernel's own BTF still needs that."""
    bound = {name for name in names if _kind(opened.programs[name]) in BTF_KINDS}
    cause = MissingBTF(f"the kernel has no BTF of its own ({_libbpf.KERNEL_BTF}), and this attaches by it alone")
    trial.refused.update(dict.fromkeys(bound, cause))
    return bool(bound)


def _kind(program: _libbpf.Program) -> str:
    kind = program.section.partition("/")[0]
    return {"fexit": "fentry", "kretprobe": "kprobe"}.get(kind, kind)
