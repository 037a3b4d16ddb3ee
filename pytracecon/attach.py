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


def attach(program: _libbpf.Program) -> _libbpf.Link:
    kind, _, place = program.section.partition("/")
    if kind == "tracepoint":
        category, _, name = place.partition("/")
        try:
            event = tracefs.open_tracepoint(category, name)
        except PermissionError as error:
            text = f"tracepoint {place} needs CAP_SYS_ADMIN, or tracefs where this user may read it"
            raise MissingPrivilege(f"{text}: run as root (sudo)") from error
        except OSError as error:
            raise UnsupportedKernel(f"tracepoint {place} cannot be opened: {error.strerror}") from error
        return program.attach_perf_event(event)
    if kind in ("sockops", "cgroup", "cgroup_skb"):
        handle = _root_cgroup()
        try:
            return program.attach_cgroup(handle)
        finally:
            os.close(handle)
    return program.attach()


def _root_cgroup() -> int:
    for mount in cgroup2_mounts(mountinfo()):
        with contextlib.suppress(OSError):
            return os.open(mount.point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    raise UnsupportedKernel("cgroup2 is not mounted: mount it, or let systemd do so")
