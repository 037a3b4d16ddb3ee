"""Start and size, beside the tools that people know: from the start of the process to its first row, memory, `--help`.

What is not on this machine is left out, with the reason. `guest.py` runs this in a virtual machine, where bcc is too.
"""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import kernel, size
from bench.load import CPU, compiled
from bench.tracers import Tracer, libbpf_tool

Raw = dict[str, Any]

TOP = Path(__file__).parents[1]
UNPACKED = TOP / "build" / "peers" / "usr"
"""What `scripts/set_up --bench` unpacks."""
MARK = b"generator"
"""The command's name, in each row of every side."""
RATE = 500
BORROWED = "6.1"
HELPS = 5


@dataclass(frozen=True, slots=True)
class Side:
    name: str
    command: tuple[str, ...]
    help: tuple[str, ...]
    parts: tuple[Path, ...]
    """What it consists of: programs, or folders. Of ours that is asked of Python."""
    environment: dict[str, str] = field(default_factory=dict)
    remarks: str = ""


class Started(Tracer):
    """On a terminal, where each of them writes by lines, until its first row is there."""

    patience = 600.0  # bcc compiles, and a virtual machine is slow
    ending = signal.SIGTERM  # bcc's tools may miss an interrupt while they print

    def __init__(self, side: Side) -> None:
        self.name = side.name
        here, there = pty.openpty()
        super().__init__([*side.command], Path(os.devnull), stdout=there, stderr=there, extra=side.environment)
        os.close(there)
        self._terminal = here
        self.start_s = self.await_output(here, lambda heard: MARK in heard)
        self.start_cpu_ns = kernel.cpu_ns(self.pid)

    def stop(self) -> None:
        os.close(self._terminal)  # first: who waits for room in it would wait for ever
        super().stop()


def sides(python: str) -> tuple[list[Side], dict[str, str]]:
    """Those that are here, and why others are not."""
    libraries = UNPACKED / "lib" / f"{os.uname().machine}-linux-gnu"
    lent = {"LD_LIBRARY_PATH": str(libraries)} if libraries.exists() else {}
    found = [Side("pytracecon", (python, "-m", "pytracecon"), (python, "-m", "pytracecon", "--help"), ())]
    absent: dict[str, str] = {}
    for name in ("tcplife", "tcpstates"):
        if program := libbpf_tool(name):
            found.append(Side(name, (program,), (program, "--help"), (Path(program),)))
        else:
            absent[name] = "libbpf-tools is not installed"
    bpftrace = shutil.which("bpftrace", path=f"{UNPACKED}/bin:{os.environ['PATH']}")
    if bpftrace:
        script = Path(__file__).with_name("states.bt")
        found.append(Side("bpftrace", (bpftrace, str(script)), (bpftrace, "--help"), (Path(bpftrace), script), lent))
    else:
        absent["bpftrace"] = "scripts/set_up --bench unpacks it"
    module = UNPACKED / "lib/python3/dist-packages/bcc"
    if module.exists():
        headers, remarks = _headers()
        tool = UNPACKED / "sbin/tcplife-bpfcc"
        command = ("/usr/bin/python3", str(tool))
        environment = lent | {"PYTHONPATH": str(module.parent), "BCC_KERNEL_SOURCE": headers}
        parts = (tool, module, *libraries.glob("libbcc.so.0"))
        found.append(Side("bcc", command, (*command, "--help"), parts, environment, remarks))
    else:
        absent["bcc"] = "scripts/set_up --bench unpacks it"
    return found, absent


def _headers() -> tuple[str, str]:
    """Those that bcc compiles with, and a remark on them. Those of another kernel take as long to compile."""
    own = Path("/lib/modules", os.uname().release, "build")
    if given := os.environ.get("BCC_KERNEL_SOURCE") or (str(own) if own.exists() else None):
        return given, ""
    command = [str(TOP / "scripts/kernels"), "headers", BORROWED]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip(), f"with the headers of Linux {BORROWED}, as this kernel has none"


def measure(python: str, folder: Path, times: int, *, warm_up: bool = True) -> Raw:
    found, absent = sides(python)
    raw: Raw = {"absent": absent}
    started: dict[str, list[Raw]] = {side.name: [] for side in found}
    with subprocess.Popen(
        [compiled("generator", folder, "-pthread"), "100000000", "server", str(CPU), str(RATE)],
        stdout=subprocess.DEVNULL,
    ) as traffic:
        try:
            if warm_up:  # leaves compiled modules behind, and all in the page cache
                for side in found:
                    _start(side)
            for _ in range(times):
                for side in found:
                    try:
                        started[side.name].append(_start(side))
                    except TimeoutError as error:
                        absent[side.name] = str(error)
        finally:
            traffic.terminate()
    raw["sides"] = {
        side.name: {
            "remarks": side.remarks,
            "started": started[side.name],
            "help_seconds": [_help(side) for _ in range(HELPS)],
            "bytes": size.of(side.parts, side.environment) if side.parts else size.of_ours(python),
        }
        for side in found
        if side.name not in absent
    }
    return raw


def _start(side: Side) -> Raw:
    with Started(side) as tracer:
        return {
            "seconds": tracer.start_s,
            "cpu_ns": tracer.start_cpu_ns,
            "pss_kb": kernel.pss_kb(tracer.pid),
        }


def _help(side: Side) -> float:
    began = time.monotonic()
    subprocess.run(side.help, check=False, capture_output=True, env=os.environ | side.environment)
    return time.monotonic() - began


if __name__ == "__main__":
    print(json.dumps(measure(sys.executable, Path(sys.argv[1]), int(sys.argv[2]), warm_up=False)))
