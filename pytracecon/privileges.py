"""What this process may do with BPF: its capabilities, the kernel's lockdown, the limit of locked memory."""

from __future__ import annotations

import re
import resource
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytracecon._libbpf import Libbpf

CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_SYS_RESOURCE": 24, "CAP_PERFMON": 38, "CAP_BPF": 39}
_NETWORK_SECTIONS = ("cgroup", "socket", "sockops", "sk_", "tc", "xdp", "classifier", "action", "lwt", "flow_dissector")
_PERF_SECTIONS = ("kprobe", "kretprobe", "uprobe", "uretprobe", "tracepoint", "tp/", "perf_event", "usdt")
_SOCKET_FILTER, _KTIME_GET_COARSE_NS = 1, 160  # BPF_PROG_TYPE_SOCKET_FILTER, BPF_FUNC_ktime_get_coarse_ns


def capabilities() -> tuple[frozenset[str], frozenset[str]]:
    """Of the capabilities that BPF asks for: those in effect in this process, and those that this kernel has."""
    # As bytes: the name of a process, which is on top, need not be text.
    found = re.search(rb"^CapEff:\t([0-9a-f]+)$", Path("/proc/self/status").read_bytes(), re.MULTILINE)
    effective = int(found[1], 16) if found else 0
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    held = frozenset(name for name, bit in CAPABILITIES.items() if effective >> bit & 1)
    return held, frozenset(name for name, bit in CAPABILITIES.items() if bit <= last)


def lockdown() -> str | None:
    """The kernel's lockdown: "none", "integrity", "confidentiality"; None if unknown (securityfs not mounted)."""
    try:
        found = re.search(r"\[(\w+)\]", Path("/sys/kernel/security/lockdown").read_text())
    except OSError:
        return None
    return found[1] if found else None


def missing_capabilities(section: str = "", *, attaching: bool = False) -> list[str]:
    """What this process lacks to load (or attach) a program of that section, by name; [] if it lacks nothing."""
    held, known = capabilities()
    if "CAP_SYS_ADMIN" in held:  # stands for all of them, but for CAP_SYS_RESOURCE
        return []
    if "CAP_BPF" not in known:
        return ["CAP_SYS_ADMIN"]
    wanted = ["CAP_BPF", "CAP_PERFMON"]
    if section.startswith(_NETWORK_SECTIONS):
        wanted.append("CAP_NET_ADMIN")
    if attaching and section.startswith(_PERF_SECTIONS):
        wanted.append("CAP_SYS_ADMIN")
    return [name for name in wanted if name not in held]


def in_user_namespace() -> bool:
    return Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]


def memlock_charged(lib: Libbpf) -> bool:
    """Whether BPF memory counts against RLIMIT_MEMLOCK. Only a process that may load programs can find out.

    Linux 5.11 charges the cgroup instead. libbpf finds that out by a helper that came with the same release, and takes
    a program that does not load for one that knows it: where none loads at all, the limit is used up.
    """
    return not lib.probe_prog_type(_SOCKET_FILTER) or not lib.probe_helper(_SOCKET_FILTER, _KTIME_GET_COARSE_NS)


def memlock_is_short(lib: Libbpf) -> bool:
    """Whether BPF memory counts against RLIMIT_MEMLOCK, and it is limited, and this process may not raise it."""
    limited = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] != resource.RLIM_INFINITY
    return limited and "CAP_SYS_RESOURCE" not in capabilities()[0] and memlock_charged(lib)
