"""Where a program goes is in its section's name: libbpf knows most of them, the rest is found here."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from pytracecon import tracefs
from pytracecon.errors import MissingPrivilege, UnsupportedKernel
from pytracecon.filters.places import cgroup2_mounts, mountinfo

if TYPE_CHECKING:
    from pytracecon import _libbpf


def attach(program: _libbpf.Program) -> list[_libbpf.Link]:
    """Several links if the section names several tracepoints, as "tracepoint/category/one,other"."""
    kind, _, place = program.section.partition("/")
    if kind == "tracepoint":
        category, _, names = place.partition("/")
        return [program.attach_perf_event(_opened(category, name)) for name in names.split(",")]
    if kind in ("sockops", "cgroup", "cgroup_skb"):
        handle = _root_cgroup()
        try:
            return [program.attach_cgroup(handle)]
        finally:
            os.close(handle)
    return [program.attach()]


def _opened(category: str, name: str) -> int:
    try:
        return tracefs.open_tracepoint(category, name)
    except PermissionError as error:
        text = f"tracepoint {category}/{name} needs CAP_SYS_ADMIN, or tracefs where this user may read it"
        raise MissingPrivilege(f"{text}: run as root (sudo)") from error
    except OSError as error:
        raise UnsupportedKernel(f"tracepoint {category}/{name} cannot be opened: {error.strerror}") from error


def _root_cgroup() -> int:
    for mount in cgroup2_mounts(mountinfo()):
        with contextlib.suppress(OSError):
            return os.open(mount.point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    raise UnsupportedKernel("cgroup2 is not mounted: mount it, or let systemd do so")
