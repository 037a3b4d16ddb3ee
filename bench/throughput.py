"""What a transfer over loopback keeps of its rate while a tracer of everything watches; iperf3 moves the bytes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Raw = dict[str, Any]

UNPACKED = Path(__file__).parents[1] / "build" / "iperf3" / "usr" / "bin" / "iperf3"
LENGTH = 4.0
SMALL = 64
"""Bytes of a small datagram."""
KINDS = {
    "tcp": [],
    "udp": ["--udp", "--bitrate", "0", "--length", str(SMALL)],
}
_EVENTS = "connect,established,failed,accept,close,lookup,flow"


def measure(python: str, times: int) -> dict[str, list[Raw]]:
    """Without and with a tracer, in turn: by kind, what iperf3 said of each."""
    program = str(UNPACKED) if UNPACKED.exists() else shutil.which("iperf3")
    if program is None:
        raise RuntimeError("iperf3 is missing: scripts/set_up --tests unpacks it, or install it")
    return {
        kind: [{"alone": _rate(program, kind), "traced": _traced(python, program, kind)} for _ in range(times)]
        for kind in KINDS
    }


def _traced(python: str, program: str, kind: str) -> float:
    with _tracer(python):
        return _rate(program, kind)


@contextmanager
def _tracer(python: str) -> Iterator[None]:
    """Of all default events and flows, as JSON to nowhere."""
    command = [python, "-m", "pytracecon", "--format", "json", "--events", _EVENTS, "-o", os.devnull]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        said = "" if tracer.stderr is None else tracer.stderr.readline()
        if not said.startswith("pytracecon: tracing"):
            raise RuntimeError(f"the tracer did not get ready; it said: {said}")
        try:
            yield
        finally:
            tracer.terminate()


def _rate(program: str, kind: str) -> float:
    """Bytes, or datagrams, that arrived in a second."""
    environment = os.environ | _libraries(program)
    server = subprocess.Popen(
        [program, "--server", "--one-off", "--port", "5999", "--forceflush"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    with server:
        if server.stdout is None or not any("listening" in line for line in server.stdout):
            raise RuntimeError("iperf3 does not serve")
        command = [
            program,
            "--client",
            "127.0.0.1",
            "--port",
            "5999",
            "--time",
            str(int(LENGTH)),
            "--json",
            *KINDS[kind],
        ]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    end = json.loads(done.stdout)["end"]
    if kind == "tcp":
        return float(end["sum_received"]["bits_per_second"]) / 8
    received = end["sum"]["packets"] - end["sum"]["lost_packets"]
    return float(received / end["sum"]["seconds"])


def _libraries(program: str) -> dict[str, str]:
    """Those that were unpacked beside it."""
    folder = Path(program).parents[1] / "lib" / f"{os.uname().machine}-linux-gnu"
    return {"LD_LIBRARY_PATH": str(folder)} if program == str(UNPACKED) and folder.exists() else {}


if __name__ == "__main__":
    print(json.dumps(measure(sys.executable, int(sys.argv[1])), indent=1))
