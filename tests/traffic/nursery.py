"""Many runs of the command, each a process of its own, and all imports made once.

    nursery = Nursery()
    run = nursery.start("--format", "json", "-o", path)
    run.await_ready()
    run.signal(signal.SIGTERM)
    run.status()

The process that forks them is this file, run as a program. It has imported what the command does, so each child has
only to begin.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Self

TOP = Path(__file__).parents[2]
DEADLINE = 120.0
READY = "pytracecon: tracing"
WARMING = ("--format", "json", "--port", "9", "--duration", "0.01")


class Run:
    """A child of the nursery's, from the moment it was forked."""

    def __init__(self, nursery: Nursery, pid: int, said: Path) -> None:
        self._nursery = nursery
        self._said = said
        self.pid = pid
        self._process = os.pidfd_open(pid)  # its number cannot go to another one before the nursery was asked

    @property
    def said(self) -> str:
        """Its standard error up to now."""
        return self._said.read_text()

    def await_ready(self) -> None:
        """Until it traces."""
        deadline = time.monotonic() + DEADLINE
        while READY not in self.said:
            assert not self.ended(0), f"it ended before it traced anything: {self.said}"
            assert time.monotonic() < deadline, f"it does not get ready: {self.said}"
            time.sleep(0.002)

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, number)

    def ended(self, within: float) -> bool:
        waits = select.poll()  # select() takes no descriptor above 1,023
        waits.register(self._process, select.POLLIN)
        return bool(waits.poll(within * 1000))

    def status(self) -> int:
        """Once it ended, which it must: what it ended with; -n for signal n."""
        assert self.ended(DEADLINE), f"it does not end: {self.said}"
        os.close(self._process)
        return int(self._nursery.answer())


class Nursery:
    """One run at a time."""

    def __init__(self, *, warm: tuple[str, ...] = WARMING) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="nursery-")
        self._started = 0
        command = [sys.executable, __file__, *warm]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=TOP
        )
        assert self.answer() == "warm"

    def answer(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, "the nursery ended"
        return line.strip()

    def start(self, *options: object, output: int | None = None) -> Run:
        """The command with these options, its standard output on this descriptor; else there is none."""
        assert self._process.stdin
        self._started += 1
        said = Path(self._folder.name) / str(self._started)
        target = os.devnull if output is None else f"/proc/{os.getpid()}/fd/{output}"
        order = {"options": list(map(str, options)), "output": target, "said": str(said)}
        said.touch()
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        pid = int(self.answer())
        run = Run(self, pid, said)
        self._process.stdin.write("\n")  # it is held: now it may end
        self._process.stdin.flush()
        return run

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def tell(what: object) -> None:
    os.write(1, f"{what}\n".encode())


def imported_by(options: list[str]) -> list[str]:
    """The modules of ours that a run of the command imports: a child's, for it gives up its privileges."""
    from pytracecon.cli import main  # noqa: PLC0415 - of the program alone

    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(2, 1)
        main(options)
        os.write(writes, " ".join(name for name in sys.modules if name.startswith("pytracecon")).encode())
        os._exit(0)
    os.close(writes)
    with open(reads) as names:
        found = names.read().split()
    os.waitpid(pid, 0)
    return found


def rear(warming: list[str]) -> None:
    sys.path.insert(0, str(TOP))
    from pytracecon.cli import main  # noqa: PLC0415 - of the program alone

    for name in imported_by(warming):
        import_module(name)
    tell("warm")
    while line := sys.stdin.readline():
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            for descriptor, name in ((1, order["output"]), (2, order["said"])):
                opened = os.open(name, os.O_WRONLY)
                os.dup2(opened, descriptor)
                os.close(opened)
            os._exit(main(order["options"]))
        tell(pid)
        sys.stdin.readline()
        tell(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    rear(sys.argv[1:])
