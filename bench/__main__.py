from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import kernel, names, snapshot, throughput, top
from bench.measures import Bench, Raw
from bench.report import table

_PARTS = ("start", "delivery", "cost", "bpf_time", "names", "snapshot", "top", "throughput")
_ORDERS = ("server", "client")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="pytracecon beside tcplife of libbpf-tools.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(_PARTS)}; default: all")
    parser.add_argument("--python", default=sys.executable, help="what runs pytracecon; default: this interpreter")
    parser.add_argument("--connections", type=int, default=20_000, help="of one load; default: 20000")
    parser.add_argument("--starts", type=int, default=20, help="default: 20")
    parser.add_argument("--repetitions", type=int, default=3, help="of what varies; default: 3")
    parser.add_argument("--names", type=int, default=1_000_000, help="distinct names of one process; default: 1000000")
    parser.add_argument("--open", type=int, default=50_000, help="ends of open connections; default: 50000")
    parser.add_argument("--watched", type=int, default=10_000, help="the same, for top; default: 10000")
    parser.add_argument("--name", help="keep the raw numbers as bench/results/NAME.json")
    options = parser.parse_args()
    unknown = set(options.parts) - set(_PARTS)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: give any of {', '.join(_PARTS)}")
    if os.geteuid() != 0:
        parser.error("both tracers need root: run with sudo")
    if (os.cpu_count() or 1) < 2:
        parser.error("the load and the tracer need a CPU each")
    if not kernel.tracefs_is_mounted():
        return _again_with_tracefs()
    with tempfile.TemporaryDirectory(prefix="pytracecon-bench-") as folder:
        results = _measure(options, Path(folder))
    print(table(results))
    if options.name:
        path = Path(__file__).parent / "results" / f"{options.name}.json"
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


def _again_with_tracefs() -> int:
    """tcplife needs tracefs. It is mounted for another process of ours alone, and gone when that is."""
    mount = 'mount -t tracefs tracefs /sys/kernel/tracing && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, "-m", "bench", *sys.argv[1:]]
    return subprocess.run(command, check=False).returncode


def _measure(options: argparse.Namespace, folder: Path) -> Raw:
    bench = Bench(options.python, folder)
    parts = options.parts or _PARTS
    count, times = options.connections, range(options.repetitions)
    results: Raw = {
        "machine": _machine(options.python),
        "options": {name: value for name, value in vars(options).items() if name != "python"},
    }
    if "start" in parts:
        results["start"] = bench.start(options.starts)
    if "delivery" in parts:
        results["delivery"] = [bench.delivery(count, first) for first in _ORDERS]
    if "cost" in parts:
        results["cost"] = [bench.cost(count, "server") for _ in times]
    if "bpf_time" in parts:
        results["bpf_time"] = [bench.bpf_time(count, "server") for _ in times]
    if "names" in parts:
        results["names"] = names.measure(options.python, folder, options.names)
    if "snapshot" in parts:
        results["snapshot"] = snapshot.measure(options.python, folder, options.open)
    if "top" in parts:
        results["top"] = top.measure(options.python, folder, options.watched)
    if "throughput" in parts:
        results["throughput"] = throughput.measure(options.python, options.repetitions)
    return results


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
