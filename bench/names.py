"""Names: what a lookup costs the program that makes it, whether any is lost, and what a million of them take."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import kernel
from bench.load import CPU, compiled
from bench.tracers import Pytracecon

Raw = dict[str, Any]

RATE = 10_000
"""Lookups a second that must not be lost."""
SECONDS = 5
TURNS = 5
HOSTS = "127.0.0.1 localhost\n127.0.0.20 measured.example\n"


@dataclass(frozen=True, slots=True)
class Lookups:
    """What the generator did, as it says itself."""

    pid: int
    lookups: int
    seconds: float
    calls_seconds: float


class Names:
    def __init__(self, python: str, folder: Path) -> None:
        self._python = python
        self._folder = folder
        self._program = compiled("lookups", folder)
        self._hosts = folder / "hosts"
        self._hosts.write_text(HOSTS)

    def _look_up(self, way: str, count: int, rate: int) -> Lookups:
        command = [self._program, way, count, rate, CPU, self._hosts]
        done = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True)
        lookups = Lookups(**json.loads(done.stdout))
        if lookups.lookups != count:
            raise RuntimeError(f"{count - lookups.lookups} lookups failed in the generator")
        return lookups

    def cost(self) -> list[Raw]:
        """getaddrinfo of a name in /etc/hosts, which asks nobody: untraced and traced, in turns."""
        return [{"off": asdict(self._look_up("libc", RATE, RATE)), "on": asdict(self._traced())} for _ in range(TURNS)]

    def _traced(self) -> Lookups:
        with Pytracecon(self._python, self._folder) as tracer:
            tracer.pin()
            tracer.settle()
            return self._look_up("libc", RATE, RATE)

    def delivery(self, way: str) -> Raw:
        """So many a second for some seconds: is each of them told?"""
        return self._told(way, RATE * SECONDS, RATE)

    def many(self, count: int) -> Raw:
        """Distinct names from one process; the tracer's memory at its largest."""
        return self._told("packets", count, RATE)

    def _told(self, way: str, count: int, rate: int) -> Raw:
        with Pytracecon(self._python, self._folder) as tracer:
            tracer.pin()
            cpu_before = kernel.cpu_ns(tracer.pid)
            lookups = self._look_up(way, count, rate)
            tracer.settle()
            raw = {
                "way": way,
                "generator": asdict(lookups),
                "cpu_ns": kernel.cpu_ns(tracer.pid) - cpu_before,
                "pss_kb": kernel.pss_kb(tracer.pid),
                "peak_rss_kb": kernel.peak_rss_kb(tracer.pid),
            }
            tracer.stop()
            found = tracer.events_of(lookups.pid)
            return raw | {"found": dict(found)}


def measure(python: str, folder: Path, names: int) -> Raw:
    bench = Names(python, folder)
    return {
        "cost": bench.cost(),
        "delivery": [bench.delivery(way) for way in ("libc", "packets")],
        "many": bench.many(names),
    }
