"""The search on this machine, as far as it needs no privilege: this process and its children may be looked at."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from pytracecon.libcs import Finder, Libc
from pytracecon.libcs.places import mapped

Identity = tuple[int, int]


class Told:
    """What a finder has told; closed at the end."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack

    def __call__(self, libcs: list[Libc]) -> set[Identity]:
        for libc in libcs:
            self.stack.enter_context(libc)
        return {(libc.device, libc.inode) for libc in libcs}


@pytest.fixture
def told() -> Iterator[Told]:
    with ExitStack() as stack:
        yield Told(stack)


def mine() -> Identity:
    """The library of this Python."""
    (each,) = mapped(os.getpid())
    found = Path(os.fsdecode(each.path)).stat()
    return found.st_dev, found.st_ino


def test_the_search_of_the_host_finds_the_library_of_this_program(told: Told) -> None:
    finder = Finder(patience=10)
    assert mine() in told(finder.of_this_host())
    assert not finder.unfinished


def test_nothing_is_told_twice(told: Told) -> None:
    finder = Finder(patience=10)
    told(finder.of_this_host())
    for again in (finder.of_this_host(), finder.of_program(os.getpid()), finder.mapped_by(os.getpid())):
        assert mine() not in told(again)


def test_a_program_that_starts_brings_the_library_of_its_root(told: Told) -> None:
    finder = Finder()
    assert mine() in told(finder.of_program(os.getpid()))
    assert mine() not in told(finder.mapped_by(os.getpid()))


def test_what_a_process_has_mapped_is_found_by_itself(told: Told) -> None:
    assert told(Finder().mapped_by(os.getpid())) == {mine()}


@pytest.fixture
def ended() -> int:
    """The number of a process that is no more."""
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


@pytest.fixture
def zombie() -> Iterator[int]:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    yield child.pid
    child.wait()


@pytest.mark.parametrize("which", ["ended", "zombie"])
def test_a_process_that_has_ended_is_none_of_our_troubles(which: str, request: pytest.FixtureRequest) -> None:
    pid: int = request.getfixturevalue(which)
    finder = Finder()
    assert finder.of_program(pid) == []
    assert finder.mapped_by(pid) == []
    assert (finder.refused, finder.hidden) == (0, 0)


def test_a_search_without_patience_goes_on_when_called_again(told: Told) -> None:
    finder = Finder(patience=0)
    found = told(finder.of_this_host())
    calls = 1
    while finder.unfinished:
        found |= told(finder.of_this_host())
        calls += 1
    assert mine() in found
    assert calls > 2


def test_a_search_that_fails_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> list[int]:
        raise KeyboardInterrupt

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr("pytracecon.libcs.finder._processes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Finder().of_this_host()
    assert os.listdir("/proc/self/fd") == before


def test_a_search_leaves_only_what_it_told() -> None:
    before = len(os.listdir("/proc/self/fd"))
    libcs = Finder(patience=10).of_this_host()
    assert len(os.listdir("/proc/self/fd")) == before + len(libcs)
    for libc in libcs:
        with closing(libc):
            assert Path(libc.attach_path).stat().st_ino == libc.inode
    assert len(os.listdir("/proc/self/fd")) == before


def test_none_of_those_in_use_is_unused(told: Told) -> None:
    finder = Finder(patience=10)
    told(finder.of_this_host())
    assert finder.unused() == []


def test_the_search_imports_nothing_heavy() -> None:
    code = "import sys; before = set(sys.modules); import pytracecon.libcs; print(*sorted(set(sys.modules) - before))"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    imported = {name.partition(".")[0] for name in said.stdout.split()}
    assert imported.isdisjoint({"asyncio", "subprocess", "socket", "pyroute2", "dns"})


def test_what_it_warns_of_imports_no_logging_for_nobody() -> None:
    code = (
        "import sys; from pytracecon import logs; logs.warn('pytracecon.libcs', '%s', 1); assert 'logging' not in "
        "sys.modules; import logging; logging.basicConfig(); logs.warn('pytracecon.libcs', 'heard: %s', 2)"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert said.stderr == "WARNING:pytracecon.libcs:heard: 2\n"
