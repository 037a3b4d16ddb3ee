"""The reader alone: real records out of the ring, then what each step takes for an event. Root, to record them.

sudo python -m bench.reader
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.load import Generator
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


def best(times: int, step: Callable[[], object]) -> float:
    """CPU seconds of the fastest of so many: the others were disturbed."""
    taken = []
    for _ in range(times):
        start = time.thread_time()
        step()
        taken.append(time.thread_time() - start)
    return min(taken)


def _render(output: Output, batches: list[list[Event]]) -> None:
    for batch in batches:
        output.render(batch)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.reader", description="What each step takes for an event.")
    parser.add_argument("--connections", type=int, default=4000, help="to record; default: 4000")
    parser.add_argument("--repetitions", type=int, default=30, help="of which the best counts; default: 30")
    options = parser.parse_args()
    batches = record(options.connections)
    offset = wall_offset()
    events: list[list[Event]] = [list(decode(batch, offset)) for batch in batches]
    count = sum(map(len, events))
    outputs: dict[str, Output] = {
        "JSON": JsonLines(),
        "CSV": CsvRows(),
        "table": trace.table(lambda: None, utc=True),
    }
    print(f"{count} events in {len(batches)} batches, {sum(map(len, batches)) / count:.0f} bytes each")

    def show(name: str, step: Callable[[], object]) -> None:
        seconds = best(options.repetitions, step)
        print(f"{name:<20} {seconds / count * 1e6:6.2f} µs an event  {count / seconds:>12,.0f} events a second")

    show("to dataclasses", lambda: [decode(batch, offset) for batch in batches])
    for name, output in outputs.items():
        show(f"from those to {name}", partial(_render, output, events))
    show("records to JSON", lambda: [outputs["JSON"].render(decode(batch, offset)) for batch in batches])
    json = Json()
    show("the same in C", lambda: [json.records(memoryview(batch), offset) for batch in batches])
    return 0


if __name__ == "__main__":
    sys.exit(main())
