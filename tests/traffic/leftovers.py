"""BPF objects in the kernel, by the kernel's own numbers: who holds them, and what was left behind."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import subprocess
import time
from contextlib import suppress
from pathlib import Path

SYS_BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
GET_NEXT_ID = {"prog": 11, "map": 12, "link": 31}

BpfId = tuple[str, int]


def bpf_ids() -> set[BpfId]:
    """Every program, map and link that is in the kernel now."""
    return {(kind, number) for kind in GET_NEXT_ID for number in _ids(kind)}


def _ids(kind: str) -> list[int]:
    libc = ctypes.CDLL(None, use_errno=True)
    request = (ctypes.c_uint32 * 3)()  # start_id, next_id, open_flags
    numbers = []
    while libc.syscall(SYS_BPF, GET_NEXT_ID[kind], ctypes.byref(request), ctypes.sizeof(request)) == 0:
        numbers.append(request[1])
        request[0] = request[1]
    if ctypes.get_errno() not in (0, 2):  # ENOENT: that was the last one
        raise OSError(ctypes.get_errno(), f"cannot list BPF {kind}s")
    return numbers


def bpf_ids_of(pid: int) -> set[BpfId]:
    """The programs, maps and links that a process holds open."""
    held = set()
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):
            for kind, number in re.findall(r"^(prog|map|link)_id:\s*(\d+)$", entry.read_text(), re.MULTILINE):
                held.add((kind, int(number)))
    return held


def bpf_ids_of_others() -> set[BpfId]:
    """What other processes of this machine hold open."""
    held = set()
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and int(process.name) != os.getpid():
            with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                held |= bpf_ids_of(int(process.name))
    return held


def await_gone(ids: set[BpfId], *, within: float = 30.0) -> set[BpfId]:
    """What of these is still there when all could be gone: the kernel frees them a little after the last close."""
    deadline = time.monotonic() + within
    while (left := ids & bpf_ids()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def await_nothing_but(before: set[BpfId], *, within: float) -> set[BpfId]:
    """What came into the kernel since then, is held by no process, and is still there when `within` seconds are over.

    All processes that existed before may have made more meanwhile; the others must have ended.
    """
    deadline = time.monotonic() + within
    while True:
        late = time.monotonic() > deadline
        left = bpf_ids() - before
        if left:
            left -= bpf_ids_of_others()
        if not left or late:
            return left
        time.sleep(0.02)


TRACEFS = (
    'mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing; cat /sys/kernel/tracing/"$0"'
)


def probes_of_tracefs() -> str:
    """The kprobes and uprobes that were made by way of tracefs, which ends with no process."""
    command = ["unshare", "--mount", "sh", "-c", TRACEFS, "dynamic_events"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def namespaces() -> set[str]:
    """Named network namespaces."""
    folder = Path("/run/netns")
    return {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
