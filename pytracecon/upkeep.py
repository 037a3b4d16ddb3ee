"""What a tracer's needs still take of this process's privileges once they are attached: mostly nothing.

A program that is attached runs in the kernel's name, and its ring is memory that is mapped. What is looked at later
(processes, libcs that come, modules that are loaded) takes what `TABLE` says, and what attaching takes on this kernel,
which is found by trying: the kernel says that something is not permitted before it says that it is not there.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from pytracecon import capabilities
from pytracecon.attach import attach
from pytracecon.errors import PytraceconError

if TYPE_CHECKING:
    from pytracecon._libbpf import Program
    from pytracecon.loader import Loaded

__all__ = ["READING", "SERVICE_DETAILS", "TABLE", "Upkeep", "of_attaching", "upkeep", "users_engines"]

READING = "reading"
"""No need: what each run does."""


class Upkeep(NamedTuple):
    """What a need uses after the start, and what is lost without. `vital`: nothing works then."""

    need: str
    capabilities: tuple[str, ...]
    costs: str
    vital: bool = False


TABLE = (
    Upkeep(
        "libc lookups",
        ("CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_CHECKPOINT_RESTORE"),
        "libcs that come later, as those of containers do, are not seen",
    ),
    Upkeep(
        "programs",
        ("CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"),
        "of processes of others that are older than the tracer the program is not known",
    ),
    Upkeep("services", ("CAP_SYS_PTRACE",), "IPVS that is loaded later is not looked into"),
)
"""What reading /proc takes, and what is there. Attaching takes more, by kernel."""

SERVICE_DETAILS = Upkeep(
    "service details",
    ("CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SYS_PTRACE"),
    "of services in other network namespaces no scheduler, weight and forwarding are known",
)
"""Of who enters the namespaces of others and asks IPVS there."""

_NAMES_OF_CONTAINERS = Upkeep(
    "container names", ("CAP_DAC_OVERRIDE",), "containers that users' own engines run have no names"
)
_EVERY_CALL = Upkeep(READING, ("CAP_BPF",), "this kernel answers no bpf() call", vital=True)
_ENGINES_OF_USERS = ("podman/podman.sock", "docker.sock")
_LAST = "CAP_SYS_ADMIN"
_FOR_ATTACHING = ((), ("CAP_PERFMON",), ("CAP_BPF", "CAP_PERFMON"), (_LAST,))
_DENIED = (errno.EPERM, errno.EACCES)


def upkeep(loaded: Loaded, users: str = "/run/user") -> Iterator[Upkeep]:
    """Of what is loaded. `users` is where users' engines listen."""
    program = next(iter(each for each in loaded.object.programs.values() if each.autoload))
    # Linux c8644cd0efe7 (v5.19) let everybody use what they have; before it, kernel.unprivileged_bpf_disabled forbade
    # every call of it.
    every_call = of_attaching(program.info, (*_EVERY_CALL.capabilities,))
    if every_call:
        yield _EVERY_CALL
    for each in TABLE:
        if (trying := _attaching(loaded, each.need)) is not None:
            yield each._replace(capabilities=tuple(dict.fromkeys((*each.capabilities, *of_attaching(trying)))))
    if any(probe.need == "programs" and probe.attached for probe in loaded.probes) and users_engines(users):
        yield _NAMES_OF_CONTAINERS


def users_engines(users: str) -> list[str]:
    """The sockets at which users' own engines may listen. A folder is its user's, who may put anything there."""
    try:
        folders = os.listdir(users)
    except OSError:
        return []
    places = ((folder, f"{users}/{folder}/{engine}") for folder in folders for engine in _ENGINES_OF_USERS)
    return [path for user, path in places if _is_socket_of(user, path)]


def _is_socket_of(user: str, path: str) -> bool:
    try:
        found = os.lstat(path)
    except OSError:  # nothing is there, or a link that leads nowhere, or is too long
        return False
    return stat.S_ISSOCK(found.st_mode) and str(found.st_uid) == user


def _attaching(loaded: Loaded, need: str) -> Callable[[], object] | None:
    """Tries to attach what this need attaches later; None where it is not met, or will not be."""
    if need == "libc lookups":
        return None if loaded.libcs is None else loaded.libcs.attach_nowhere
    if need == "services":
        programs = () if loaded.modules is None else loaded.modules.programs
        return None if not programs else partial(_attached_once, programs)
    attached = any(probe.need == need and probe.attached for probe in loaded.probes)
    return (lambda: None) if attached else None


def _attached_once(programs: Collection[Program]) -> None:
    for each in programs:
        for link in attach(each):
            link.close()


def of_attaching(trying: Callable[[], object], alone: Collection[str] = ()) -> tuple[str, ...]:
    """What it takes to do this; CAP_SYS_ADMIN if all is not enough that this process has, and () if it has that.

    `alone`: only that, or nothing, can be it.
    """
    have = capabilities.now()
    for names in ((), tuple(alone)) if alone else _FOR_ATTACHING:
        if not have.issuperset(names):
            continue
        with capabilities.only(names):
            if _permitted(trying):
                return names
    return () if alone or _LAST in have else (_LAST,)


def _permitted(trying: Callable[[], object]) -> bool:
    try:
        trying()
    except OSError as error:
        return error.errno not in _DENIED
    except PytraceconError:
        return True
    return True
