"""What each need takes of a process's privileges here: to start, and to go on. Found by trying.

It is tried as a user without any rights of his own, in a child: with all capabilities but CAP_SYS_ADMIN, which stands
for others, and then without each of them. What works less then takes the one that is missing.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from pytracecon import _libbpf, capabilities, loader, privileges
from pytracecon.dropping import become
from pytracecon.errors import PytraceconError, UnsupportedKernel
from pytracecon.filters import Filters
from pytracecon.probes import NEEDS, WATCHED
from pytracecon.upkeep import READING, upkeep

__all__ = ["NeedPrivileges", "try_privileges"]

_ALL = "CAP_SYS_ADMIN"
_IN_ALL = ("CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN", "CAP_CHECKPOINT_RESTORE")
_OF_ALL, _OF_NETWORK = ("CAP_BPF", "CAP_PERFMON"), "CAP_NET_ADMIN"
_OF_LOCKED_MEMORY = "CAP_SYS_RESOURCE"
_LITTLE = 65536  # bytes of locked memory, as old systems allow
_NOBODY = 65534
_WAITS = {need.name: need.module is not None for need in NEEDS}

_Met = Mapping[str, frozenset[str]]
"""Needs, and the programs that meet them."""


@dataclass(frozen=True, slots=True)
class NeedPrivileges:
    """Capabilities that a need takes when it starts, and those that it uses from then on.

    `starting` is None where it is not met with all there are. `instead`: what meets it in another way, or in part.
    """

    need: str
    starting: list[str] | None
    instead: list[str] | None
    running: list[str]


def try_privileges(filters: Filters) -> list[NeedPrivileges]:
    """A row for each need, and one for all: what even `reading` takes. UnsupportedKernel if it cannot be tried.

    This process's own privileges are what there is to give: as root outside of a container it is all.
    """
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(here)
        _tell(there, filters)
    os.close(there)
    with open(here, "rb") as told:
        text = told.read()
    os.waitpid(child, 0)
    if not text:
        raise UnsupportedKernel("what privileges are needed could not be tried: the child that tried it died")
    answer = json.loads(text)
    if "refused" in answer:
        raise UnsupportedKernel(answer["refused"])
    return [NeedPrivileges(**each) for each in answer["rows"]]


def _tell(there: int, filters: Filters) -> None:
    """In the child, which ends here."""
    try:
        if not os.geteuid() and {"CAP_SETUID", "CAP_SETGID"} <= capabilities.now():
            become(_NOBODY, _NOBODY, [])
        answer: dict[str, object] = {"rows": [asdict(each) for each in _rows(filters)]}
    except PytraceconError as error:
        answer = {"refused": str(error)}
    try:
        os.write(there, json.dumps(answer).encode())
    finally:
        os._exit(0)


def _rows(filters: Filters) -> Iterator[NeedPrivileges]:
    filters = filters._replace(pids=(os.getpid(),), events=filters.events | WATCHED | {"flow"})
    most = capabilities.now()
    refused: dict[str, PytraceconError] = {}
    base, running = full, _ = _met(filters, most - {_ALL}, refused)
    if _ALL in most and (not base or any(isinstance(error, PermissionError) for error in refused.values())):
        full, running = _met(filters, most)
    without = dict(_without_each(filters, most - {_ALL}, refused))
    for name in [need.name for need in NEEDS]:
        takes = [capability for capability, met in without.items() if met.get(name) != base.get(name)]
        uses = running.get(name, [])
        if name not in full:
            yield NeedPrivileges(name, None, None, [])
        elif base.get(name) == full[name]:
            yield NeedPrivileges(name, _and(takes, uses), None, _and(uses, []))
        else:
            of_all = [capability for capability, met in without.items() if not met]
            instead = _and(takes, uses) if name in base else None
            yield NeedPrivileges(name, _and([_ALL, *of_all], uses), instead, _and(uses, []))
    yield NeedPrivileges(READING, [], None, running.get(READING, []))


def _and(takes: list[str], uses: list[str]) -> list[str]:
    """What is used later is used at the start, too; CAP_SYS_ADMIN stands for some others."""
    both = list(dict.fromkeys([*takes, *uses]))
    return [name for name in both if _ALL not in both or name not in _IN_ALL]


def _without_each(
    filters: Filters, most: frozenset[str], refused: dict[str, PytraceconError]
) -> Iterator[tuple[str, _Met]]:
    """`refused` are programs that do not work with all of them either."""
    little = filters._replace(pids=(), events=frozenset({"close"}), names=False, processes=False)
    for capability in _OF_ALL:
        if capability in most:
            # What cannot be done without the essential needs little to show.
            met = _met(little, most - {capability}, dict(refused))[0]
            yield capability, _met(filters, most - {capability}, dict(refused))[0] if met else {}
    if _OF_NETWORK in most:
        yield _OF_NETWORK, _met(filters, most - {_OF_NETWORK}, dict(refused))[0]
    if _OF_LOCKED_MEMORY in most and privileges.memlock_charged(_libbpf.open_library(filters.libbpf)):
        # Last: libbpf raises it once in a process, and so far it may have.
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (_LITTLE, _LITTLE))
        yield _OF_LOCKED_MEMORY, _met(little, most - {_OF_LOCKED_MEMORY}, dict(refused))[0]


def _met(
    filters: Filters, names: frozenset[str], refused: dict[str, PytraceconError] | None = None
) -> tuple[_Met, dict[str, list[str]]]:
    """What is met with these alone; and what that uses later, by need."""
    with capabilities.only(names):
        try:
            loaded = loader.load(filters, ("snapshot",), refused=refused)
        except PytraceconError as error:
            if not isinstance(error, PermissionError):
                raise
            return {}, {}
        with contextlib.closing(loaded):
            found: dict[str, set[str]] = {}
            for probe in loaded.probes:
                # What waits for a module is loaded; what attaching it takes is told by what it uses later.
                if probe.attached or (_WAITS[probe.need] and loaded.modules is not None):
                    found.setdefault(probe.need, set()).add(probe.name)
            running = {each.need: sorted(each.capabilities) for each in upkeep(loaded)}
    return {need: frozenset(programs) for need, programs in found.items()}, running
