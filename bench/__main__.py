"""Measurements beside peers, `tcplife` and `tcpstates` of libbpf-tools first of all: `sudo python -m bench`.

From the top of the source tree. All sides are measured in one run, with the same load. What was measured is kept,
number by number, in `bench/results/`; the tables that are printed show medians. `python -m bench.publish` makes the
figures of the documents from what was kept.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bench import (
    burst,
    full_ring,
    growth,
    guest,
    kernel,
    latency,
    names,
    peers,
    reader,
    report,
    snapshot,
    sustained,
    throughput,
    top,
)
from bench.measures import Bench, Raw

RESULTS = Path(__file__).parent / "results"
READINGS = 5
_ORDERS = ("server", "client")


class Run(NamedTuple):
    """What a part is given."""

    python: str
    folder: Path
    options: argparse.Namespace

    @property
    def bench(self) -> Bench:
        return Bench(self.python, self.folder)

    @property
    def connections(self) -> int:
        return int(self.options.connections)

    @property
    def times(self) -> int:
        return int(self.options.repetitions)


PARTS: dict[str, Callable[[Run], Any]] = {
    "start": lambda run: run.bench.start(run.options.starts),
    "delivery": lambda run: [run.bench.delivery(run.connections, first) for first in _ORDERS],
    "cost": lambda run: [run.bench.cost(run.connections, "server") for _ in range(run.times)],
    "bpf_time": lambda run: [run.bench.bpf_time(run.connections, "server") for _ in range(run.times)],
    "latency": lambda run: latency.measure(run.python, run.folder),
    "loss_free": lambda run: {
        "burst": burst.measure(run.python, run.folder, run.times),
        "sustained": sustained.measure(run.python, run.folder),
    },
    "growth": lambda run: growth.measure(run.python, run.folder, run.times),
    "reader": lambda run: full_ring.measure(run.python, READINGS),
    "steps": lambda run: reader.measure(run.python, READINGS),
    "peers": lambda run: peers.measure(run.python, run.folder, run.times),
    "names": lambda run: names.measure(run.python, run.folder, run.options.names),
    "snapshot": lambda run: snapshot.measure(run.python, run.folder, run.options.open),
    "top": lambda run: top.measure(run.python, run.folder, run.options.watched),
    "throughput": lambda run: throughput.measure(run.python, run.times),
    "guest": lambda run: guest.measure(run.python, run.options.kernel, run.times),
}
ONLY_IF_NAMED = {"guest"}
"""What needs what `scripts/set_up --bench` downloads, and minutes."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="pytracecon beside others.")
    default = f"all but {', '.join(sorted(ONLY_IF_NAMED))}"
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: {default}")
    parser.add_argument("--python", default=sys.executable, help="what runs pytracecon; default: this interpreter")
    parser.add_argument("--connections", type=int, default=20_000, help="of one load; default: 20000")
    parser.add_argument("--starts", type=int, default=20, help="default: 20")
    parser.add_argument("--repetitions", type=int, default=3, help="of what varies; default: 3")
    parser.add_argument("--names", type=int, default=1_000_000, help="distinct names of one process; default: 1000000")
    parser.add_argument("--open", type=int, default=50_000, help="ends of open connections; default: 50000")
    parser.add_argument("--watched", type=int, default=10_000, help="the same, for top; default: 10000")
    parser.add_argument("--kernel", default="6.1", help="of the guest; default: 6.1")
    parser.add_argument(
        "--name", help="keep the raw numbers in bench/results/NAME.json, beside those of parts that were not measured"
    )
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: give any of {', '.join(PARTS)}")
    if os.geteuid() != 0:
        parser.error("tracers need root: run with sudo")
    if (os.cpu_count() or 1) < 2:
        parser.error("the load and the tracer need a CPU each")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # who installs it has it compiled
    if not kernel.tracefs_is_mounted():
        return _again_with_tracefs()
    with tempfile.TemporaryDirectory(prefix="pytracecon-bench-") as folder:
        for results in _measured(Run(options.python, Path(folder), options)):
            print(report.text(results), flush=True)
            if options.name:
                keep(results, RESULTS / f"{options.name}.json")
    return 0


def _again_with_tracefs() -> int:
    """libbpf-tools need tracefs. It is mounted for another process of ours alone, and gone when that is."""
    mount = 'mount -t tracefs tracefs /sys/kernel/tracing && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, "-m", "bench", *sys.argv[1:]]
    return subprocess.run(command, check=False).returncode


def _measured(run: Run) -> Iterator[Raw]:
    """Part by part, so that what is done stays if a later one fails."""
    for part in run.options.parts or [part for part in PARTS if part not in ONLY_IF_NAMED]:
        taken = _machine(run.python)
        began = time.monotonic()
        raw = PARTS[part](run)
        taken |= {"seconds": time.monotonic() - began, "repetitions": run.times}
        yield {"taken": {part: taken}, part: raw}


def keep(results: Raw, path: Path) -> None:
    """Beside what the file has of other parts."""
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"taken": {}}
    both = kept | results | {"taken": kept["taken"] | results["taken"]}
    path.write_text(json.dumps(both, indent=1) + "\n", encoding="utf-8")


def _machine(python: str) -> Raw:
    version = subprocess.run([python, "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "load average": os.getloadavg(),
        "python": version,
    }


if __name__ == "__main__":
    sys.exit(main())
