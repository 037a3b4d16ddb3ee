"""The reader alone: real records out of the ring, then what each step takes for an event. Root, to record them.

sudo python -m bench.reader
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench import report
from bench.load import Generator
from bench.tracers import CPU
from pytracecon import loader
from pytracecon.clock import wall_offset
from pytracecon.decode import decode
from pytracecon.events import Event
from pytracecon.filters import Filters
from pytracecon.json_lines import Json
from pytracecon.outputs import Output
from pytracecon.outputs.csv_rows import CsvRows
from pytracecon.outputs.json_lines import JsonLines
from pytracecon.ring import Ring
from pytracecon.views import trace

Raw = dict[str, Any]


def record(connections: int) -> list[bytes]:
    """What that many loopback connections leave in the ring, in batches as a tracer takes them."""
    with contextlib.closing(loader.load(Filters.parse())) as loaded, tempfile.TemporaryDirectory() as folder:
        ring = Ring(loaded.object.maps["ring"], loaded.object.lib.num_possible_cpus())
        with contextlib.closing(ring):
            Generator(Path(folder)).run(connections, "server")
            loaded.detach()
            batches = []
            while batch := bytes(ring.take().data):
                batches.append(batch)
            return batches


def seconds_of(times: int, step: Callable[[], object]) -> list[float]:
    """CPU seconds of each of so many."""
    taken = []
    for _ in range(times):
        start = time.thread_time()
        step()
        taken.append(time.thread_time() - start)
    return taken


def _render(output: Output, batches: list[list[Event]]) -> None:
    for batch in batches:
        output.render(batch)


def steps(batches: list[bytes]) -> dict[str, Callable[[], object]]:
    """What is measured, each for all the events in these batches."""
    offset = wall_offset()
    events: list[list[Event]] = [list(decode(batch, offset)) for batch in batches]
    outputs: dict[str, Output] = {
        "JSON": JsonLines(),
        "CSV": CsvRows(),
        "table": trace.table(lambda: None, utc=True),
    }
    json_in_c = Json()
    return {
        "to dataclasses": lambda: [decode(batch, offset) for batch in batches],
        **{f"from those to {name}": partial(_render, output, events) for name, output in outputs.items()},
        "records to JSON": lambda: [outputs["JSON"].render(decode(batch, offset)) for batch in batches],
        "records to JSON, in C": lambda: [json_in_c.records(memoryview(batch), offset) for batch in batches],
    }


def measure(python: str, times: int) -> Raw:
    """In a process of that Python, bound to a CPU."""
    command = [python, "-m", "bench.reader", "--repetitions", str(times), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])
    found: Raw = json.loads(done.stdout)
    return found


def _measured(connections: int, times: int) -> Raw:
    os.sched_setaffinity(0, {CPU})
    batches = record(connections)
    return {
        "events": sum(len(decode(batch, 0)) for batch in batches),
        "batches": len(batches),
        "bytes": sum(map(len, batches)),
        "seconds": {name: seconds_of(times, step) for name, step in steps(batches).items()},
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.reader", description="What each step takes for an event.")
    parser.add_argument("--connections", type=int, default=4000, help="to record; default: 4000")
    parser.add_argument("--repetitions", type=int, default=30, help="of which the best counts; default: 30")
    parser.add_argument("--json", action="store_true", help="all that was measured")
    options = parser.parse_args()
    raw = _measured(options.connections, options.repetitions)
    print(json.dumps(raw) if options.json else report.text({"reader": raw}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
