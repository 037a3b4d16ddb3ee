"""`python -m pytracecon` as a process of its own, once it traces."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from traffic.actor import DEADLINE

TOP = Path(__file__).parents[2]
READY = "pytracecon: tracing"


class Started:
    """`within` are the words of a command that it is started by, such as `nsenter`. `said` is what it has said."""

    def __init__(
        self,
        *options: object,
        within: Sequence[object] = (),
        environment: Mapping[str, str] | None = None,
        **streams: Any,
    ) -> None:
        command = [*map(str, within), sys.executable, "-m", "pytracecon", *map(str, options)]
        given: dict[str, Any] = {"stdout": subprocess.DEVNULL, "cwd": TOP, "env": environment} | streams
        self.process: subprocess.Popen[str] = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **given)
        self.said: list[str] = []
        try:
            self.await_said(READY)
        except BaseException:
            self.kill()
            raise

    def await_said(self, words: str) -> str:
        """The line that has them."""
        assert self.process.stderr
        while line := self.process.stderr.readline():
            self.said.append(line)
            if words in line:
                return line
        raise AssertionError(f"it ended without having said {words}: {self.said}")

    def end(self, number: int | None = None) -> tuple[int, str]:
        """Send a signal, if one is given, and wait. The exit status, and what it said."""
        if number is not None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=DEADLINE)
        self.said += err.splitlines(keepends=True)
        self.output = out or ""
        return self.process.returncode, "".join(self.said)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream:
                stream.close()


def await_true(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.01)
