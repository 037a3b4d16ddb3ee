"""The highest rate of connections that a tracer tells without a loss, with its default settings, into a file.

The generator has a thread on each of two CPUs, which the tracer has to share.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.load import Generator
from bench.tracers import Pytracecon, Tcplife, Tracer

Raw = dict[str, Any]

ROWS_A_CONNECTION = {"pytracecon": 5, "tcplife": 2}
TRIAL, PROOF = 2.0, 10.0
"""Seconds. What a short one loses may have fitted into a buffer: what is found is tried again for longer."""
HIGHEST = 60_000
STEP = 2_000
KEPT_UP = 0.97


def measure(python: str, folder: Path) -> Raw:
    """By side: every trial with what it lost, and the rate that is proven."""
    generator = Generator(folder)
    sides: dict[str, Callable[[], Tracer]] = {
        "pytracecon": lambda: Pytracecon(python, folder),
        "tcplife": lambda: Tcplife(folder),
    }
    untraced = generator.run(100_000, "server", cpus=(0, 1))
    return {"untraced": untraced.as_json(), **{name: _side(side, generator) for name, side in sides.items()}}


def _side(side: Callable[[], Tracer], generator: Generator) -> Raw:
    trials: list[Raw] = []

    def holds(rate: int, seconds: float) -> bool:
        trials.append(_trial(side, generator, rate, seconds))
        return passed(trials[-1])

    found = highest(lambda rate: holds(rate, TRIAL), STEP, HIGHEST, STEP)
    while found and not holds(found, PROOF):
        found = lower(found)
    return {"rate": found, "seconds": PROOF, "trials": trials}


def highest(holds: Callable[[int], bool], low: int, high: int, step: int) -> int:
    """The highest multiple of `step` from `low` to `high` that holds, if all below one that holds do too; else 0."""
    below, above = low // step - 1, high // step + 1
    while above - below > 1:
        middle = (below + above) // 2
        if holds(middle * step):
            below = middle
        else:
            above = middle
    return below * step if below * step >= low else 0


def lower(rate: int) -> int:
    """A tenth less, and no fewer than a step: what failed for long is not searched for closely."""
    return rate - max(STEP, rate // 10 // STEP * STEP)


def passed(trial: Raw) -> bool:
    """Nothing is missing, and the connections were really made at that rate."""
    made = trial["generator"]["connections"] / trial["generator"]["seconds"]
    return bool(trial["found"] >= trial["expected"] and not trial["lost"] and made >= KEPT_UP * trial["asked"])


def _trial(side: Callable[[], Tracer], generator: Generator, rate: int, seconds: float) -> Raw:
    with side() as tracer:
        load = generator.run(round(rate * seconds), "server", cpus=(0, 1), rate=rate)
        tracer.settle()
        tracer.stop()
        raw = {
            "asked": rate,
            "generator": load.as_json(),
            "expected": ROWS_A_CONNECTION[tracer.name] * load.connections,
            "found": tracer.rows_of(load.pid),
            "lost": dict(tracer.losses()),
            "bytes": tracer.output.stat().st_size,
        }
    os.truncate(tracer.output, 0)
    return raw
