"""A snapshot of very many open connections: what it takes, and what the first one takes more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.load import compiled
from bench.tracers import CPU

Raw = dict[str, Any]

PAIRS_OF_A_PROCESS = 4_000
"""Fewer than half of the descriptors that a process may have where nobody has raised that."""
LEAST_PROCESSES = 10
TIMES = 10


def measure(python: str, folder: Path, connections: int) -> Raw:
    """Both ends are here, so half as many pairs."""
    with crowd(folder, connections // 2):
        done = subprocess.run(
            [python, "-m", "bench.snapshot", str(TIMES)],
            check=True,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[1],
            text=True,
        )
    found: Raw = json.loads(done.stdout)
    return {"connections": connections} | found


@contextmanager
def crowd(folder: Path, pairs: int) -> Iterator[None]:
    """So many connections are open while this is."""
    processes = max(LEAST_PROCESSES, -(-pairs // PAIRS_OF_A_PROCESS))
    command = [str(compiled("crowd", folder)), str(pairs), str(processes)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, start_new_session=True, text=True) as crowd:
        if crowd.stdout is None or crowd.stdout.readline() != "ready\n":
            raise RuntimeError("the connections could not be opened: see above")
        yield  # it ends with its standard input


def _take(times: int) -> Raw:
    """As many in a row, of all that a tracer tells, by a process that has a CPU for itself."""
    from pytracecon import Tracer  # noqa: PLC0415 - only the process that takes them

    os.sched_setaffinity(0, {CPU})
    seconds, cpu, rows = [], [], []
    with Tracer() as tracer:
        for _ in range(times + 1):
            before, used = time.perf_counter(), time.process_time()
            taken = tracer.snapshot(limit=None)
            cpu.append(time.process_time() - used)
            seconds.append(time.perf_counter() - before)
            rows.append(len(taken))
    return {"first_seconds": seconds[0], "seconds": seconds[1:], "cpu_seconds": cpu[1:], "rows": rows[1:]}


if __name__ == "__main__":
    print(json.dumps(_take(int(sys.argv[1]))))
