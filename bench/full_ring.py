"""From a full ring to what a user gets, the walk included: real traffic fills it while nobody reads. Root.

sudo python -m bench.full_ring
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from bench import kernel
from bench.load import Generator
from bench.measures import EVENTS_A_CONNECTION
from bench.tracers import CPU, Pytracecon
from pytracecon import Tracer

Raw = dict[str, Any]

CONNECTIONS = 9_000
"""They fill the default ring to nine tenths: nothing is lost."""
EVENTS = CONNECTIONS * sum(EVENTS_A_CONNECTION.values())
COMMAND = "pytracecon --format json -o FILE"
PATIENCE = 10.0
"""Seconds, after which nobody waits for events that are missing."""
GOALS = {
    "Tracer.read()": 1_500_000,
    "for event in tracer": 1_500_000,
    "Tracer.batches()": 50_000_000,
    "Tracer.read_json()": None,
    COMMAND: 600_000,
}
"""Events a second on one core."""


def _read(tracer: Tracer) -> int:
    count = 0
    while found := len(tracer.read(0)):
        count += found
    return count


def _iterate(tracer: Tracer) -> int:
    count = 0
    for count, event in zip(range(1, EVENTS + 1), tracer, strict=False):  # noqa: B007 - the last one is asked for
        if event.event == "lost":
            break  # or it would wait for events that do not come
    return count


def _batches(tracer: Tracer) -> int:
    count = 0
    for batch in tracer.batches():
        count += batch.count
        if count >= EVENTS or batch.events:  # a loss: what is missing does not come
            break
    return count


def _json(tracer: Tracer) -> int:
    count = 0
    while found := tracer.read_json(0).events:
        count += found
    return count


WAYS: dict[str, Callable[[Tracer], int]] = {
    "Tracer.read()": _read,
    "for event in tracer": _iterate,
    "Tracer.batches()": _batches,
    "Tracer.read_json()": _json,
}


def measure(python: str, times: int) -> Raw:
    """CPU seconds for `events`, of each repetition. The library's in a process of that Python, bound to a CPU."""
    command = [python, "-m", "bench.full_ring", "--repetitions", str(times), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])
    found: Raw = json.loads(done.stdout)
    return found


def _measured(times: int) -> Raw:
    os.sched_setaffinity(0, {CPU})
    seconds: dict[str, list[float]] = {name: [] for name in GOALS}
    with tempfile.TemporaryDirectory(prefix="pytracecon-bench-") as folder:
        generator = Generator(Path(folder))
        with Tracer(pid=os.getpid(), children=True) as tracer:
            for _ in range(times + 1):  # the first time is for what has to be loaded and learnt
                for name, way in WAYS.items():
                    seconds[name].append(_one(generator, tracer, way))
            if tracer.stats.lost:
                raise RuntimeError(f"{tracer.stats.lost} events did not fit into the ring: their reading is missing")
        for _ in range(times + 1):
            seconds[COMMAND].append(_of_command(generator, Path(folder)))
    return {"events": EVENTS, "seconds": {name: each[1:] for name, each in seconds.items()}, "goals": GOALS}


def _one(generator: Generator, tracer: Tracer, way: Callable[[Tracer], int]) -> float:
    generator.run(CONNECTIONS, "server")
    too_late = threading.Timer(PATIENCE, tracer.stop)
    too_late.start()
    try:
        start = time.thread_time()
        count = way(tracer)
        taken = time.thread_time() - start
    finally:
        too_late.cancel()
    if count != EVENTS:
        raise RuntimeError(f"{count} events instead of {EVENTS}")
    return taken


def _of_command(generator: Generator, folder: Path) -> float:
    """Of the whole process, from its awakening to the last line."""
    with Pytracecon(sys.executable, folder, "--pid", str(os.getpid()), "--children") as command:
        command.pin()
        command.settle()
        os.kill(command.pid, signal.SIGSTOP)
        load = generator.run(CONNECTIONS, "server")
        before = kernel.cpu_ns(command.pid)
        os.kill(command.pid, signal.SIGCONT)
        command.settle()
        taken = kernel.cpu_ns(command.pid) - before
        command.stop()
        found = command.events_of(load.pid)
    if found.total() != EVENTS or found["lost"]:
        raise RuntimeError(f"{found.total()} lines instead of {EVENTS}, {found['lost']} lost")
    return taken / 1e9


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.full_ring", description="What reading a full ring takes.")
    parser.add_argument("--repetitions", type=int, default=10, help="default: 10")
    parser.add_argument("--json", action="store_true", help="all that was measured")
    options = parser.parse_args()
    raw = _measured(options.repetitions)
    if options.json:
        print(json.dumps(raw))
        return 0
    for name, seconds in raw["seconds"].items():
        goal = f"; goal: {GOALS[name]:,}" if GOALS[name] else ""
        rates = [EVENTS / each for each in seconds]
        print(f"{name:<33} {max(rates):>12,.0f} events a second at best, {median(rates):,.0f} mostly{goal}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
