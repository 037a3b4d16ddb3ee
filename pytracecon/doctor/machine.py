"""What tracing stands on, as this process finds it: kernel, privileges, libbpf, file systems. No program is tried here.

Each `problem` is one line with the cause and the remedy, None if there is no problem.
"""

from __future__ import annotations

import os
import platform
import re
import resource
from dataclasses import dataclass
from pathlib import Path

from pytracecon import _libbpf, privileges, tracefs
from pytracecon.errors import InvalidValue, MissingBTF, MissingLibbpf
from pytracecon.filters import Filters, files, places

SYSCTLS = (
    "kernel.unprivileged_bpf_disabled",
    "kernel.perf_event_paranoid",
    "kernel.kptr_restrict",
    "net.core.bpf_jit_enable",
    "net.core.bpf_jit_harden",
)
_PARANOID = "kernel.perf_event_paranoid"
_PARANOID_FOR_ALL = 3
"""From here on Debian's and Ubuntu's kernels want CAP_SYS_ADMIN for every perf event."""


@dataclass(frozen=True, slots=True)
class Kernel:
    release: str
    machine: str


@dataclass(frozen=True, slots=True)
class Btf:
    """`path` is None if libbpf found the kernel's types elsewhere than the kernel shows them."""

    path: str | None
    size: int | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class Lockdown:
    mode: str | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Of those that matter: what is in effect; and what is not and should be, with what for."""

    effective: list[str]
    missing: dict[str, str]


@dataclass(frozen=True, slots=True)
class Memlock:
    """RLIMIT_MEMLOCK in bytes, None where it is unlimited. `charged`: whether BPF memory counts against it."""

    charged: bool | None
    soft: int | None
    hard: int | None


@dataclass(frozen=True, slots=True)
class Library:
    version: str | None
    path: str | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class Tracefs:
    """It need not be mounted to be `usable`."""

    mounts: list[str]
    usable: bool
    problem: str | None


@dataclass(frozen=True, slots=True)
class Cgroup2:
    """`hybrid`: hierarchies of cgroup v1 are mounted too."""

    mounts: list[str]
    hybrid: bool
    problem: str | None


@dataclass(frozen=True, slots=True)
class Machine:
    kernel: Kernel
    btf: Btf
    lockdown: Lockdown
    capabilities: Capabilities
    sysctls: dict[str, int | None]
    memlock: Memlock
    libbpf: Library
    tracefs: Tracefs
    cgroup2: Cgroup2


def look(filters: Filters) -> Machine:
    """With the BTF file and the libbpf of `filters`, if there are such."""
    lib, library = _library(filters.libbpf)
    sysctls = {name: _sysctl(name) for name in SYSCTLS}
    memlock = _memlock(lib)
    no_tracefs = _no_tracefs()
    # Only now: the way through debugfs is mounted when it is walked.
    mounts = places.mountinfo()
    return Machine(
        Kernel(platform.release(), platform.machine()),
        _btf(lib, filters.btf),
        _lockdown(mounts),
        _capabilities(sysctls[_PARANOID], memlock),
        sysctls,
        memlock,
        library,
        Tracefs(mount_points(mounts, "tracefs"), no_tracefs is None, no_tracefs),
        _cgroup2(mounts),
    )


def mount_points(mountinfo: str, kind: str) -> list[str]:
    """Where file systems of that kind are mounted, from the text of /proc/self/mountinfo."""
    parts = (line.partition(" - ") for line in mountinfo.split("\n"))
    return [before.split(" ")[4] for before, _, after in parts if after.split(" ", 1)[0] == kind]


def _library(path: str | None) -> tuple[_libbpf.Libbpf | None, Library]:
    try:
        lib = _libbpf.open_library(path)
    except MissingLibbpf as error:
        return None, Library(None, path, str(error))
    return lib, Library(lib.version_text, path or _mapped("libbpf.so"), None)


def _mapped(name: str) -> str | None:
    """The path of a shared library that is loaded, from its name's beginning."""
    found = re.search(rf"(/\S*/{re.escape(name)}\S*)$", Path("/proc/self/maps").read_text(), re.MULTILINE)
    return found[1] if found else None


def _btf(lib: _libbpf.Libbpf | None, given: str | None) -> Btf:
    if given is not None:
        try:
            return Btf(given, Path(files.btf("--btf", given) or given).stat().st_size, None)
        except InvalidValue as error:
            return Btf(given, None, str(error))
    try:
        return Btf(_libbpf.KERNEL_BTF, Path(_libbpf.KERNEL_BTF).stat().st_size, None)
    except OSError as error:
        if lib is None:
            return Btf(_libbpf.KERNEL_BTF, None, f"{_libbpf.KERNEL_BTF}: {error.strerror}; give a file by --btf")
    try:
        with lib.vmlinux_btf() as btf:  # it knows more places
            return Btf(None, len(btf.raw()), None)
    except MissingBTF as error:
        return Btf(_libbpf.KERNEL_BTF, None, str(error))


def _lockdown(mountinfo: str) -> Lockdown:
    mode = privileges.lockdown()
    if mode == "confidentiality":
        return Lockdown(mode, "no program may read kernel memory: boot with lockdown=integrity or none")
    if mode is None:
        if mount_points(mountinfo, "securityfs"):
            return Lockdown("none", None)  # this kernel was built without it
        return Lockdown(None, "securityfs is not mounted to tell: mount -t securityfs none /sys/kernel/security")
    return Lockdown(mode, None)


def _capabilities(paranoid: int | None, memlock: Memlock) -> Capabilities:
    held, known = privileges.capabilities()
    missing = {}
    if "CAP_SYS_ADMIN" not in held:  # it stands for the three below
        if "CAP_BPF" in known:
            missing["CAP_BPF"] = "maps and programs"
            missing["CAP_PERFMON"] = "reading kernel memory, probes"
            missing["CAP_NET_ADMIN"] = "cgroup programs, of the rung tracepoint"
        if "CAP_BPF" not in known:
            missing["CAP_SYS_ADMIN"] = "all of BPF, on a kernel as old as this"
        elif paranoid is not None and paranoid >= _PARANOID_FOR_ALL:
            missing["CAP_SYS_ADMIN"] = f"kprobes and system calls, while {_PARANOID} is {paranoid}"
    if memlock.charged and memlock.hard is not None:
        missing["CAP_SYS_RESOURCE"] = "raising RLIMIT_MEMLOCK, which BPF memory counts against"
    return Capabilities(sorted(held), {name: why for name, why in missing.items() if name not in held})


def _sysctl(name: str) -> int | None:
    """None if there is none, as in a network namespace, or if this user may not know."""
    try:
        return int(Path("/proc/sys", *name.split(".")).read_text(encoding="ascii"))
    except OSError:
        return None


def _memlock(lib: _libbpf.Libbpf | None) -> Memlock:
    limits = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    soft, hard = (None if limit == resource.RLIM_INFINITY else limit for limit in limits)
    charged = None if lib is None or privileges.missing_capabilities() else privileges.memlock_charged(lib)
    return Memlock(charged, soft, hard)


def _no_tracefs() -> str | None:
    try:
        os.close(tracefs.root())
    except PermissionError:
        if os.geteuid() != 0:
            return "not for this user: run as root (sudo)"
        return "not mounted, and not reached without CAP_SYS_ADMIN: mount -t tracefs none /sys/kernel/tracing"
    except OSError as error:
        return f"not to be had ({error.strerror}): run a kernel with CONFIG_FTRACE"
    return None


def _cgroup2(mountinfo: str) -> Cgroup2:
    points = [mount.point for mount in places.cgroup2_mounts(mountinfo)]
    problem = None if points else "not mounted: mount -t cgroup2 none /sys/fs/cgroup"
    return Cgroup2(points, bool(mount_points(mountinfo, "cgroup")), problem)
