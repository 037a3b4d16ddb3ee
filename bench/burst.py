"""What the default ring takes while the reader is stopped: measured, and beside the formula.

The formula: bytes of the ring, by the bytes of what a connection puts into it.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from bench.load import Generator
from bench.measures import EVENTS_A_CONNECTION
from bench.tracers import Pytracecon

Raw = dict[str, Any]

CONNECTIONS = 20_000
RING = 8 << 20
"""The default of --ring-size."""
RING_HEADER = 8
"""Bytes that the kernel puts before each record. Records themselves are multiples of 8 bytes, as it wants them."""


def measure(python: str, folder: Path, times: int) -> list[Raw]:
    generator = Generator(folder)
    return [_burst(python, folder, generator) for _ in range(times)]


def _burst(python: str, folder: Path, generator: Generator) -> Raw:
    """More connections than fit while the tracer is stopped (SIGSTOP). What it tells afterwards is what fitted."""
    with Pytracecon(python, folder, "--comm", "generator") as tracer:  # whatever else this machine does
        tracer.settle()
        tracer.signal(signal.SIGSTOP)
        try:
            load = generator.run(CONNECTIONS, "server")
        finally:
            tracer.signal(signal.SIGCONT)
        tracer.settle()
        tracer.stop()
        return {
            "generator": load.as_json(),
            "expected": sum(EVENTS_A_CONNECTION.values()) * CONNECTIONS,
            "found": tracer.rows_of(load.pid),
            "lost": dict(tracer.losses()),
            "events of a connection": EVENTS_A_CONNECTION,
            "ring bytes": RING,
            "bytes a connection": bytes_a_connection(),
        }


def bytes_a_connection() -> int:
    """In the ring, of all default events of a connection whose both ends are here."""
    from pytracecon import wire  # noqa: PLC0415 - only where it is measured

    size = {name: RING_HEADER + wire.RECORD[number].size for name, number in wire.KINDS.items()}
    return sum(count * size[kind] for kind, count in EVENTS_A_CONNECTION.items())
