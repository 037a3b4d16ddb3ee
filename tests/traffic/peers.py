"""A verb of ours, and the tool of libbpf-tools that it is like, each as a process that traces."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bench.tracers import libbpf_tool
from traffic.actor import DEADLINE

TOP = Path(__file__).parents[2]


def as_wide_as_ours(name: str) -> bool:
    """With -w: the tools of Debian 13, which have other names, are wider."""
    return not (libbpf_tool(name) or "").endswith("-libbpf")


class Tool:
    """A process that traces, once `await_ready` returns."""

    def __init__(self, *command: str) -> None:
        # A pipe that nobody reads meanwhile would stop it when it is full.
        self._out = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it is closed in end()
        self.process = subprocess.Popen(command, stdout=self._out, stderr=subprocess.PIPE, text=True, cwd=TOP)

    def await_ready(self) -> None:
        raise NotImplementedError

    def lines(self) -> list[str]:
        """All that it wrote, after a Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        return self.ended().splitlines()

    def ended(self) -> str:
        """All that it wrote, when it has ended by itself."""
        _, err = self.process.communicate(timeout=DEADLINE)
        assert self.process.returncode == 0, err
        self._out.seek(0)
        return self._out.read()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()
        self._out.close()


class Peer(Tool):
    """It needs tracefs, and gets one that nobody else sees."""

    def __init__(self, name: str, line: str) -> None:
        mount = 'mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing; exec "$@"'
        super().__init__("unshare", "--mount", "sh", "-c", mount, "sh", libbpf_tool(name) or name, *line.split())

    def await_ready(self) -> None:
        """Nothing tells of it, so look again."""
        deadline = time.monotonic() + DEADLINE
        while not self.is_ready():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, "it does not get ready"
            time.sleep(0.005)

    def is_ready(self) -> bool:
        """What it polls is made after it has attached."""
        return "anon_inode:[eventpoll]" in _descriptors(self.process.pid)

    def lines(self) -> list[str]:
        """At a Ctrl-C it leaves unread what it has not read yet. It sleeps only when nothing is left.

        The first of two sleeps may have begun just before the last record came.
        """
        slept = self.sleeps()
        deadline = time.monotonic() + DEADLINE
        while self.sleeps() < slept + 2:
            assert time.monotonic() < deadline, "it does not come to rest"
            time.sleep(0.005)
        return super().lines()

    def sleeps(self) -> int:
        return int(_status(self.process.pid, "voluntary_ctxt_switches"))


class CountingPeer(Peer):
    """With -c it polls nothing. It takes Ctrl-C as soon as it has attached."""

    def is_ready(self) -> bool:
        caught = int(_status(self.process.pid, "SigCgt"), 16)
        return bool(caught >> (signal.SIGINT - 1) & 1)

    def lines(self) -> list[str]:
        """It counts in the kernel, and reads that when it ends."""
        return Tool.lines(self)


class Ours(Tool):
    def __init__(self, verb: str, line: str) -> None:
        super().__init__(sys.executable, "-m", "pytracecon", verb, *line.split())

    def await_ready(self) -> None:
        assert self.process.stderr
        said = [self.process.stderr.readline()]
        while not said[-1].startswith("pytracecon: tracing"):
            assert said[-1], said
            said.append(self.process.stderr.readline())


@contextmanager
def tracing(tools: Iterable[Tool]) -> Iterator[None]:
    """All of them trace; none outlives this, whatever becomes of another."""
    started = list(tools)
    with ExitStack() as stack:
        for tool in started:
            stack.callback(tool.end)
        for tool in started:
            tool.await_ready()
        yield


def _status(pid: int, key: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (value,) = [line.split()[1] for line in lines if line.startswith(f"{key}:")]
    return value


def _descriptors(pid: int) -> list[str]:
    found = []
    for descriptor in list(Path(f"/proc/{pid}/fd").iterdir()):
        with suppress(FileNotFoundError):  # it has just been closed
            found.append(str(descriptor.readlink()))
    return found
