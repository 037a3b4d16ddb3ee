"""What is measured. Each function gives raw numbers, ready for JSON; medians are made of them by `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench import kernel
from bench.load import Generator
from bench.tracers import OnTerminal, Pytracecon, Tcplife, Tcpstates, Tracer

Raw = dict[str, Any]

EVENTS_A_CONNECTION = {"connect": 1, "established": 1, "accept": 1, "close": 2}


class Bench:
    def __init__(self, python: str, folder: Path) -> None:
        self._python = python
        self._folder = folder
        self._generator = Generator(folder)

    def _ours(self) -> Pytracecon:
        return Pytracecon(self._python, self._folder)

    def start(self, times: int) -> Raw:
        """From starting the process until it traces: the line that says so; tcplife's header. And the CPU of it."""
        self._ours().stop()  # leaves compiled modules behind, and both in the page cache
        OnTerminal(Tcplife).stop()
        raw: Raw = {side: {"seconds": [], "cpu_ns": []} for side in ("pytracecon", "tcplife")}
        for _ in range(times):
            for start in (self._ours, lambda: OnTerminal(Tcplife)):
                with start() as tracer:
                    raw[tracer.name]["seconds"].append(tracer.start_s)
                    raw[tracer.name]["cpu_ns"].append(tracer.start_cpu_ns)
        return raw

    def delivery(self, connections: int, first: str) -> Raw:
        """Is every event of every connection in the file? And what does the tracer's memory amount to then?"""
        with self._ours() as tracer:
            tracer.pin()
            load = self._generator.run(connections, first)
            tracer.settle()
            pss_kb = kernel.pss_kb(tracer.pid)
            tracer.stop()
            found = tracer.events_of(load.pid)
            rows = tracer.rows()
        with Tcplife(self._folder) as peer:
            peer.pin()
            self._generator.run(connections, first)
            peer.settle()
            peer_pss_kb = kernel.pss_kb(peer.pid)
        return {
            "first to close": first,
            "generator": load.as_json(),
            "expected": {kind: count * connections for kind, count in EVENTS_A_CONNECTION.items()},
            "found": dict(found),
            "events in the file": rows,
            "pss_kb": {"pytracecon": pss_kb, "tcplife": peer_pss_kb},
        }

    def cost(self, connections: int, first: str) -> Raw:
        """One alternation: the load with nothing, then with each of the sides."""
        nothing = self._generator.run(connections, first)
        return {
            "nothing": {"generator": nothing.as_json()},
            "tcplife": self._under_load(Tcplife(self._folder), connections, first),
            "tcpstates": self._under_load(Tcpstates(self._folder), connections, first),
            "pytracecon": self._under_load(self._ours(), connections, first),
        }

    def _under_load(self, tracer: Tracer, connections: int, first: str) -> Raw:
        with tracer:
            tracer.pin()
            tracer.settle()
            cpu_before, bpf_before = kernel.cpu_ns(tracer.pid), kernel.bpf_run_time_ns(tracer.pid)
            runs_before = kernel.bpf_runs(tracer.pid)
            load = self._generator.run(connections, first)
            tracer.settle()
            cpu_ns = kernel.cpu_ns(tracer.pid) - cpu_before
            bpf_ns = kernel.bpf_run_time_ns(tracer.pid) - bpf_before
            bpf_runs = kernel.bpf_runs(tracer.pid) - runs_before
            tracer.stop()
            return {
                "generator": load.as_json(),
                "cpu_ns": cpu_ns,
                "bpf_ns": bpf_ns,
                "bpf_runs": bpf_runs,
                "rows": tracer.rows(),
                "rows of the generator": tracer.rows_of(load.pid),
                "lost": tracer.lost(),
            }

    def bpf_time(self, connections: int, first: str) -> Raw:
        """The same with the kernel's own measuring of BPF programs, which costs time: apart from the rest."""
        with kernel.BpfStats():
            raw = self.cost(connections, first)
            with kernel.EmptyProgram() as empty:
                self._generator.run(connections, first)
                return raw | {"empty program": {"run_ns": empty.run_ns()}}
