"""The two sides: each a process that traces into a file, from its start to its end."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

from bench import kernel

CPU = 1
"""Where a tracer runs while there is load. The load has another one."""

TIMEOUT = 30.0
_IDLE_FOR = 0.25
_IDLE_BELOW_NS = 1_000_000
_SETTLED_WITHIN = 5.0


def _environment() -> dict[str, str]:
    """As a user's: with compiled modules kept, as an installed package has them."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


class Tracer:
    """A process that traces as soon as its constructor returns."""

    name: str

    def __init__(self, command: list[str], output: Path, *, stdout: int | IO[bytes], stderr: int | IO[bytes]) -> None:
        self.output = output
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=_environment()
        )
        self.pid = self._process.pid

    def await_line(self, said: int, beginning: bytes) -> float:
        """Seconds from the start to the moment when a line that begins so came out of `said`."""
        heard = b""
        deadline = self._started + TIMEOUT
        while not any(line.startswith(beginning) for line in heard.splitlines()):
            readable, _, _ = select.select([said], [], [], max(0.0, deadline - time.monotonic()))
            part = b""
            with suppress(OSError):  # of a terminal: nobody has its other end any more
                part = os.read(said, 4096) if readable else b""
            if not part:
                self.stop()
                raise RuntimeError(f"{self.name} did not get ready; it said: {heard.decode(errors='replace')}")
            heard += part
        return time.monotonic() - self._started

    def pin(self) -> None:
        os.sched_setaffinity(self.pid, {CPU})

    def settle(self) -> None:
        """Until it has nothing left to do; not for ever, as other traffic of the machine may keep it busy."""
        deadline = time.monotonic() + _SETTLED_WITHIN
        used = kernel.cpu_ns(self.pid)
        while time.monotonic() < deadline:
            time.sleep(_IDLE_FOR)
            before, used = used, kernel.cpu_ns(self.pid)
            if used - before < _IDLE_BELOW_NS:
                return

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self.stop()

    def rows(self) -> int:
        """How many it wrote, for whatever process; after `stop()`."""
        raise NotImplementedError

    def lost(self) -> int:
        """How many it says that it lost; after `stop()`."""
        raise NotImplementedError


class Pytracecon(Tracer):
    name = "pytracecon"

    def __init__(self, python: str, folder: Path, *options: str) -> None:
        output = folder / "pytracecon.json"
        command = [python, "-m", "pytracecon", "--format", "json", "-o", str(output), *options]
        said, there = os.pipe()
        super().__init__(command, output, stdout=subprocess.DEVNULL, stderr=there)
        os.close(there)
        with open(said, "rb", buffering=0) as pipe:
            self.start_s = self.await_line(pipe.fileno(), b"pytracecon: tracing")
        self.start_cpu_ns = kernel.cpu_ns(self.pid)
        # Its last line finds a closed pipe, which it does not mind.

    def rows(self) -> int:
        return self.output.read_bytes().count(b"\n")

    def lost(self) -> int:
        return self.events_of(0)["lost"]

    def events_of(self, pid: int) -> Counter[str]:
        """How many of each kind are of that process; `lost`: how many are missing, of whatever process."""
        found: Counter[str] = Counter()
        with self.output.open(encoding="utf-8") as lines:
            for line in lines:
                event = json.loads(line)
                if event["event"] == "lost":
                    found["lost"] += event["count"]
                elif event.get("pid") == pid:
                    found[event["event"]] += 1
        return found


class Tcplife(Tracer):
    name = "tcplife"

    def __init__(self, folder: Path) -> None:
        output = folder / "tcplife.txt"
        self._complaints = folder / "tcplife.stderr"
        with output.open("wb") as file, self._complaints.open("wb") as complaints:
            super().__init__(["tcplife"], output, stdout=file, stderr=complaints)
        # Its header stays in stdio's buffer. What it polls is made after it has attached.
        while "anon_inode:[eventpoll]" not in kernel.descriptors(self.pid):
            if self._process.poll() is not None or time.monotonic() > self._started + TIMEOUT:
                self._process.kill()
                self._process.wait()
                raise RuntimeError(f"tcplife did not get ready; it said: {self._complaints.read_text()}")
            time.sleep(0.002)

    def rows(self) -> int:
        return self.output.read_bytes().count(b"\n") - 1  # a header

    def lost(self) -> int:
        return sum(int(count) for count in re.findall(r"lost (\d+) events", self._complaints.read_text()))


class TcplifeOnTerminal(Tracer):
    """To see when it is ready: its header comes at once."""

    name = "tcplife"

    def __init__(self, _folder: Path) -> None:
        here, there = pty.openpty()
        super().__init__(["tcplife"], Path(os.devnull), stdout=there, stderr=there)
        os.close(there)
        self._terminal = here
        self.start_s = self.await_line(here, b"PID")
        self.start_cpu_ns = kernel.cpu_ns(self.pid)

    def stop(self) -> None:
        super().stop()
        os.close(self._terminal)
