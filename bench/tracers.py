"""The sides: each a process that traces into a file, from its start to its end."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
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


def libbpf_tool(name: str) -> str | None:
    """Where it is. Debian 13 adds to its name."""
    return shutil.which(name) or shutil.which(f"{name}-libbpf")


def environment() -> dict[str, str]:
    """As a user's: with compiled modules kept, as an installed package has them."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


class Tracer:
    """A process that traces as soon as its constructor returns."""

    name: str
    patience: float = TIMEOUT
    """Seconds in which it must get ready."""
    ending: signal.Signals = signal.SIGINT

    def __init__(
        self,
        command: list[str],
        output: Path,
        *,
        stdout: int | IO[bytes],
        stderr: int | IO[bytes],
        extra: dict[str, str] | None = None,
    ) -> None:
        self.output = output
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=environment() | (extra or {})
        )
        self.pid = self._process.pid

    def await_line(self, said: int, beginning: bytes) -> float:
        """Seconds from the start to the moment when a line that begins so came out of `said`."""
        return self.await_output(said, lambda heard: any(line.startswith(beginning) for line in heard.splitlines()))

    def await_output(self, said: int, enough: Callable[[bytes], bool]) -> float:
        """Seconds from the start to the moment when what came out of `said` was enough."""
        heard = b""
        deadline = self._started + self.patience
        while not enough(heard):
            readable, _, _ = select.select([said], [], [], max(0.0, deadline - time.monotonic()))
            part = b""
            with suppress(OSError):  # of a terminal: nobody has its other end any more
                part = os.read(said, 4096) if readable else b""
            if not part:
                self._process.kill()
                self._process.wait()
                said_so_far = heard.decode(errors="replace")
                raise TimeoutError(f"it did not get ready in {self.patience:.0f} s; it said: {said_so_far}")
            heard += part
        return time.monotonic() - self._started

    def pin(self) -> None:
        os.sched_setaffinity(self.pid, {CPU})

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

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
        self._process.send_signal(self.ending)
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

    def rows_of(self, pid: int) -> int:
        """How many of them are of the generator, which has this number."""
        raise NotImplementedError

    def losses(self) -> Counter[str]:
        """How many it says that it lost, by where; after `stop()`."""
        raise NotImplementedError

    def lost(self) -> int:
        return sum(self.losses().values())


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
        return lines(self.output)

    def losses(self) -> Counter[str]:
        found: Counter[str] = Counter()
        with self.output.open("rb") as rows:
            for row in rows:
                if row.startswith(b'{"event":"lost"'):
                    event = json.loads(row)
                    found[event["where"]] += event["count"]
        return found

    def rows_of(self, pid: int) -> int:
        return lines(self.output, b'"pid":%d,' % pid)  # quicker than `events_of`

    def events_of(self, pid: int) -> Counter[str]:
        """How many of each kind are of that process; `lost`: how many are missing, of whatever process."""
        found: Counter[str] = Counter()
        with self.output.open(encoding="utf-8") as rows:
            for line in rows:
                event = json.loads(line)
                if event["event"] == "lost":
                    found["lost"] += event["count"]
                elif event.get("pid") == pid:
                    found[event["event"]] += 1
        return found


class LibbpfTool(Tracer):
    """One of libbpf-tools. `by_line`: it writes each row at once, not only when stdio's buffer is full."""

    header: bytes

    def __init__(self, folder: Path, *, by_line: bool = False) -> None:
        output = folder / f"{self.name}.txt"
        self._complaints = folder / f"{self.name}.stderr"
        program = libbpf_tool(self.name) or self.name
        command = ["stdbuf", "-oL", program] if by_line else [program]
        with output.open("wb") as file, self._complaints.open("wb") as complaints:
            super().__init__(command, output, stdout=file, stderr=complaints)
        # Its header stays in stdio's buffer. What it polls is made after it has attached.
        while "anon_inode:[eventpoll]" not in kernel.descriptors(self.pid):
            if self._process.poll() is not None or time.monotonic() > self._started + self.patience:
                self._process.kill()
                self._process.wait()
                raise RuntimeError(f"{self.name} did not get ready; it said: {self._complaints.read_text()}")
            time.sleep(0.002)

    def rows(self) -> int:
        return lines(self.output) - 1  # a header

    def rows_of(self, pid: int) -> int:
        return lines(self.output, b"%d " % pid)  # its column is as wide as that at least

    def losses(self) -> Counter[str]:
        told = sum(int(count) for count in re.findall(r"lost (\d+) events", self._complaints.read_text()))
        return Counter({"buffer": told} if told else {})


class Tcplife(LibbpfTool):
    name = "tcplife"
    header = b"PID"


class Tcpstates(LibbpfTool):
    name = "tcpstates"
    header = b"SKADDR"


class OnTerminal(Tracer):
    """To see when it is ready: the header of one of libbpf-tools comes at once."""

    ending = signal.SIGTERM  # they would write what they have, to nobody

    def __init__(self, tool: type[LibbpfTool]) -> None:
        self.name = tool.name
        here, there = pty.openpty()
        super().__init__([libbpf_tool(tool.name) or tool.name], Path(os.devnull), stdout=there, stderr=there)
        os.close(there)
        self._terminal = here
        self.start_s = self.await_line(here, tool.header)
        self.start_cpu_ns = kernel.cpu_ns(self.pid)

    def stop(self) -> None:
        os.close(self._terminal)  # first: who waits for room in it would wait for ever
        super().stop()


def lines(path: Path, mark: bytes = b"") -> int:
    """How many have the mark."""
    with path.open("rb") as file:
        return sum(mark in line for line in file)
