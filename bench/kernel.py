"""What the kernel tells of a process and of the BPF programs that it holds."""

from __future__ import annotations

import ctypes
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Self

from pytracecon._libbpf import open_library
from pytracecon.uprobe_multi import RETURN_ZERO

_SYS_BPF = {"x86_64": 321, "aarch64": 280}
_BPF_ENABLE_STATS = 32
_RAW_TRACEPOINT = 17
_TRACEFS = Path("/sys/kernel/tracing")


def cpu_ns(pid: int) -> int:
    """User and system time of all threads, to the nanosecond (those of /proc/PID/stat come in steps of 10 ms)."""
    return sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def pss_kb(pid: int) -> int:
    """Memory: what the process alone uses, and its share of what it uses with others."""
    facts = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return int(facts["Pss"].split()[0])


def peak_rss_kb(pid: int) -> int:
    """The most memory that it ever had, what it shares with others included."""
    facts = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(facts["VmHWM"].split()[0])


def bpf_run_time_ns(pid: int) -> int:
    """Run time of all BPF programs that the process holds, while the kernel measures it (`BpfStats`)."""
    return sum(_each_once(pid, "prog_id", "run_time_ns").values())


def bpf_runs(pid: int) -> int:
    """How often the kernel ran these programs, while it measures."""
    return sum(_each_once(pid, "prog_id", "run_cnt").values())


def map_bytes(pid: int) -> int:
    """What the kernel says that the process's BPF maps take, each of them once."""
    return sum(_each_once(pid, "map_id", "memlock").values())


def _each_once(pid: int, identity: str, fact: str) -> dict[str, int]:
    """One fact of all open descriptors that have it. One thing may have several."""
    found: dict[str, int] = {}
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):
            facts = dict(line.split(":", 1) for line in entry.read_text().splitlines() if ":" in line)
            if identity in facts and fact in facts:
                found[facts[identity]] = int(facts[fact])
    return found


def descriptors(pid: int) -> list[str]:
    """What its open descriptors are, as /proc/PID/fd shows them."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(str(entry.readlink()))
    return found


class BpfStats:
    """While open, the kernel measures every run of a BPF program; that alone costs some time."""

    def __enter__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        run_time = (ctypes.c_uint32 * 1)(0)  # BPF_STATS_RUN_TIME
        self._handle = libc.syscall(
            _SYS_BPF[platform.machine()], _BPF_ENABLE_STATS, ctypes.byref(run_time), ctypes.sizeof(run_time)
        )
        if self._handle < 0:
            raise OSError(ctypes.get_errno(), "BPF_ENABLE_STATS")

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)


class EmptyProgram:
    """A program that does nothing, at each change of a TCP socket's state while this is open."""

    def __enter__(self) -> Self:
        self._lib = open_library()
        self._program = self._lib.prog_load(_RAW_TRACEPOINT, RETURN_ZERO, name="empty")
        self._link = self._lib.raw_tracepoint_open("inet_sock_set_state", self._program)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._link)
        os.close(self._program)

    def run_ns(self) -> float:
        """What `BpfStats` has found for one run: what it costs to measure."""
        info = self._lib.prog_info(self._program)
        return float(info.run_time_ns / info.run_cnt)


def tracefs_is_mounted() -> bool:
    return (_TRACEFS / "events").is_dir()
