"""`pytracecon top` on a terminal, with very many open connections to look at: how much of a core it takes."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import termios
import time
from pathlib import Path
from typing import Any

from bench import kernel
from bench.snapshot import crowd

Raw = dict[str, Any]

WIDE, HIGH = 80, 24
SETTLES = 5.0
SECONDS = 12.0


def measure(python: str, folder: Path, connections: int) -> list[Raw]:
    """Both ends are here, so half as many pairs. For each thing that a row can be."""
    with crowd(folder, connections // 2):
        return [_watched(python, by, connections) for by in ("process", "connection", "host")]


def _watched(python: str, by: str, connections: int) -> Raw:
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", HIGH, WIDE, 0, 0))
    command = [python, "-m", "pytracecon", "top", "--by", by, "--limit", str(connections)]
    top = subprocess.Popen(
        command, stdin=slave, stdout=slave, cwd=Path(__file__).parents[1], env=os.environ | {"TERM": "xterm-256color"}
    )
    os.close(slave)
    try:
        _shown(master, SETTLES)
        before, began = kernel.cpu_ns(top.pid), time.perf_counter()
        written = _shown(master, SECONDS)
        cpu_ns, seconds = kernel.cpu_ns(top.pid) - before, time.perf_counter() - began
        peak = kernel.peak_rss_kb(top.pid)
        os.write(master, b"q")
        status = top.wait()
    finally:
        top.kill()
        top.wait()
        os.close(master)
    if status != 0:
        raise RuntimeError(f"pytracecon top ended with {status}")
    return {
        "by": by,
        "connections": connections,
        "cpu_ns": cpu_ns,
        "seconds": seconds,
        "bytes": written,
        "peak_rss_kb": peak,
    }


def _shown(terminal: int, seconds: float) -> int:
    """The bytes that were drawn in this time."""
    until = time.perf_counter() + seconds
    written = 0
    while (left := until - time.perf_counter()) > 0:
        if select.select([terminal], [], [], left)[0]:
            written += len(os.read(terminal, 1 << 16))
    return written
