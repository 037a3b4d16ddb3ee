"""What an event costs, and what the tracer keeps, while so many connections are open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench import kernel
from bench.load import Generator
from bench.snapshot import crowd
from bench.tracers import Pytracecon, Tracer

Raw = dict[str, Any]

OPEN = (1_000, 10_000, 100_000)
"""Both ends of each are on this host, so the tracer remembers twice as many."""
ROOM = 1 << 18
"""For --max-connections: the default, 65,536, is too few for the most of them."""
CONNECTIONS = 20_000


def measure(python: str, folder: Path, times: int) -> Raw:
    generator = Generator(folder)
    return {
        "room": ROOM,
        "steps": [_step(python, folder, generator, pairs, ROOM, times) for pairs in OPEN],
        "without room": _step(python, folder, generator, OPEN[-1], None, 1),
    }


def _step(python: str, folder: Path, generator: Generator, pairs: int, room: int | None, times: int) -> Raw:
    """They open while it traces, stay open while short ones come and go, and end after it."""
    options = () if room is None else ("--max-connections", str(room))
    with Pytracecon(python, folder, *options) as tracer:
        tracer.pin()
        idle_pss_kb = kernel.pss_kb(tracer.pid)
        with crowd(folder, pairs):
            tracer.settle()
            pss_kb = kernel.pss_kb(tracer.pid)
            loads = [_load(tracer, generator) for _ in range(times)]
            maps = kernel.map_bytes(tracer.pid)
            tracer.stop()  # before the crowd does, all at once
        return {
            "open": pairs,
            "loads": [load | {"events": tracer.rows_of(load["generator"]["pid"])} for load in loads],
            "idle_pss_kb": idle_pss_kb,
            "pss_kb": pss_kb,
            "map_bytes": maps,
            "lost": dict(tracer.losses()),
        }


def _load(tracer: Tracer, generator: Generator) -> Raw:
    with kernel.BpfStats():
        cpu_before, bpf_before = kernel.cpu_ns(tracer.pid), kernel.bpf_run_time_ns(tracer.pid)
        load = generator.run(CONNECTIONS, "server")
        tracer.settle()
        return {
            "generator": load.as_json(),
            "cpu_ns": kernel.cpu_ns(tracer.pid) - cpu_before,
            "bpf_ns": kernel.bpf_run_time_ns(tracer.pid) - bpf_before,
        }
