"""Actors: processes and threads that make traffic step by step and tell what each step really did."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from traffic.waiting import readable

DEADLINE = 60.0
"""Seconds after which a step that should have ended is taken for stuck. Nothing waits for it to pass."""

ACCEPT_CALLS = {"x86_64": {"43", "288"}, "aarch64": {"202", "242"}}
"""System call numbers of accept and accept4."""

HERE = Path(__file__).parent
SOURCES = sorted(HERE.glob("*.[ch]"))
BUILT = HERE.parents[1] / "build" / "traffic"


def build(folder: Path) -> Path:
    """The generator in `folder`: the last one, if it is newer than its sources, as compiling takes a guest long."""
    program = folder / "traffic"
    if is_current(BUILT):
        shutil.copy2(BUILT, program)
        return program
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread"]
    subprocess.run(["cc", *flags, "-o", program, *(path for path in SOURCES if path.suffix == ".c")], check=True)
    if os.access(BUILT.parents[1], os.W_OK):
        BUILT.parent.mkdir(exist_ok=True)
        shutil.copy2(program, BUILT.with_suffix(".new"))
        BUILT.with_suffix(".new").rename(BUILT)
    return program


def is_current(program: Path) -> bool:
    return program.exists() and program.stat().st_mtime > max(path.stat().st_mtime for path in SOURCES)


class TrafficError(RuntimeError):
    """A step failed that should have succeeded, or did not end."""


Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that an actor did, as the actor tells it."""

    op: str
    pid: int
    tid: int
    comm: str
    thread: str
    uid: int
    netns: int
    result: int
    errno: str
    fd: int
    mono: tuple[int, int]
    wall: tuple[int, int]
    local: Address | None = None
    remote: Address | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, answer: bytes) -> Step:
        raw = json.loads(answer, strict=False)  # a name may hold any byte
        known = {name: raw.pop(name) for name in cls.__slots__ if name in raw}
        for pair in {"local", "remote", "mono", "wall"} & known.keys():
            known[pair] = tuple(known[pair])
        return cls(**known, extra=raw)


class Actor:
    """A process, or a thread of one, that does what it is told.

    `fork` and `thread` give further actors. `dismiss` ends the process and all that it forked.
    """

    def __init__(self, channel: socket.socket, family: list[Actor]) -> None:
        channel.settimeout(DEADLINE)
        self._channel = channel
        self._family = family
        family.append(self)
        me = self.do("hello")
        self.pid, self.tid, self.uid, self.netns = me.pid, me.tid, me.uid, me.netns
        # Held while the process certainly lives: its number may go to another one later.
        self._process = os.pidfd_open(self.pid)

    @classmethod
    def start(cls, program: Path, name: str) -> Actor:
        """A fresh process of that name."""
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with there:
            process = subprocess.Popen([program, str(there.fileno()), name], pass_fds=[there.fileno()])
        actor = cls(here, [])
        actor._reap = process.wait
        return actor

    _reap: Callable[[], object] | None = None

    def begin(self, *words: object, fd: int | None = None) -> None:
        """Tell what to do, and do not wait."""
        packet = " ".join(str(word) for word in words).encode()
        socket.send_fds(self._channel, [packet], [] if fd is None else [fd])

    def finish(self) -> Step:
        """Wait for what was begun, however it ended."""
        try:
            answer = self._channel.recv(1 << 17)
        except TimeoutError:
            raise TrafficError(f"process {self.pid} is stuck") from None
        if not answer:
            raise TrafficError("the process is gone")
        return Step.parse(answer)

    def attempt(self, *words: object, fd: int | None = None) -> Step:
        """Do it, however it ends."""
        self.begin(*words, fd=fd)
        return self.finish()

    def do(self, *words: object, fd: int | None = None) -> Step:
        """Do it; it must succeed."""
        step = self.attempt(*words, fd=fd)
        if step.errno:
            raise TrafficError(f"{' '.join(map(str, words))}: {step.errno}")
        return step

    def _offspring(self, verb: str) -> Actor:
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with there:
            self.do(verb, fd=there.fileno())
        return Actor(here, self._family)

    def fork(self, name: str) -> Actor:
        """A child that holds every socket this process holds."""
        child = self._offspring("fork")
        child.do("name", name)
        return child

    def thread(self, name: str) -> Actor:
        """Another thread of this process, with a name of its own."""
        thread = self._offspring("thread")
        thread.do("name", name)
        return thread

    def execute(self, name: str) -> None:
        """Become a fresh program of that name, with the sockets that were told to `keep`."""
        self.begin("exec", name)
        if self._channel.recv(16) != b"{}":
            raise TrafficError("exec failed")
        self.do("hello")

    def set_user(self, uid: int) -> None:
        self.do("setuid", uid)
        self.uid = uid

    @property
    def segments_resent(self) -> int:
        """How often its namespace sent a segment again, all sockets together."""
        lines = Path(f"/proc/{self._family[0].pid}/net/snmp").read_text().splitlines()
        names, values = (line.split() for line in lines if line.startswith("Tcp:"))
        return int(values[names.index("RetransSegs")])

    @property
    def cgroup(self) -> int | None:
        """The id of its cgroup (v2): the inode of the folder. None where no such hierarchy is mounted."""
        mount = cgroup2_mount()
        if mount is None:
            return None
        lines = Path(f"/proc/{self.pid}/cgroup").read_text().splitlines()
        path = next(line for line in lines if line.startswith("0::"))[3:]
        return (mount / path.lstrip("/")).stat().st_ino

    def await_blocked(self) -> None:
        """Until what was begun waits inside the kernel for a connection: nothing tells of it, so look again."""
        calls = ACCEPT_CALLS[platform.machine()]
        deadline = time.monotonic() + DEADLINE
        while Path(f"/proc/{self.pid}/task/{self.tid}/syscall").read_text().split()[0] not in calls:
            if time.monotonic() > deadline:
                raise TrafficError(f"thread {self.tid} does not get to accept")
            time.sleep(0.001)

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone with all it held."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)
        self._await_end()
        self._family.remove(self)
        self._close()

    def _await_end(self) -> None:
        if not readable(self._process, DEADLINE):
            raise TrafficError(f"process {self.pid} does not die")
        if self._reap:
            self._reap()

    def dismiss(self) -> None:
        """End this process and every actor that came from it."""
        for actor in self._family:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(actor._process, signal.SIGKILL)
        for actor in self._family:
            actor._await_end()
            actor._close()
        self._family.clear()

    def _close(self) -> None:
        self._channel.close()
        os.close(self._process)


def cgroup2_mount() -> Path | None:
    """Where the cgroup v2 hierarchy is mounted."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[0] == "cgroup2":
            return Path(before.split()[4])
    return None


def has_io_uring() -> bool:
    """Whether a ring can be set up: it may be compiled out, or off by sysctl."""
    libc = ctypes.CDLL(None, use_errno=True)
    ring = libc.syscall(425, 1, ctypes.create_string_buffer(120))
    if ring >= 0:
        os.close(ring)
    return bool(ring >= 0)


def await_ended(program: Path) -> list[int]:
    """The processes of this program that are still there when all should be gone."""
    deadline = time.monotonic() + DEADLINE
    while (left := _running(program)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left


def _running(program: Path) -> list[int]:
    found = []
    for process in Path("/proc").iterdir():
        with suppress(OSError):  # it has just ended, or is not ours
            if process.name.isdecimal() and (process / "exe").readlink() == program:
                found.append(int(process.name))
    return found
