"""Whoever starts many programs, or has many mappings, keeps nobody from the ring."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from pytracecon.libcs import Finder, Libc
from pytracecon.visits import Visits

CROWD = 10
TORN_APART = """
import ctypes, os, sys
library = ctypes.CDLL(None, use_errno=True)
library.mmap.restype = ctypes.c_void_p
pages = 65_000
begin = library.mmap(None, ctypes.c_size_t(pages * 4096), 1, 0x22, -1, ctypes.c_long(0))
for page in range(0, pages, 2):
    if library.mprotect(ctypes.c_void_p(begin + page * 4096), ctypes.c_size_t(4096), 0):
        break  # as many mappings as a process may have
children = []
for _ in range(int(sys.argv[1]) - 1):
    if (child := os.fork()) == 0:
        os.read(0, 1)
        os._exit(0)
    children.append(child)
print(os.getpid(), *children, flush=True)
os.read(0, 1)
"""


class Noted:
    """A finder of this host, and which processes it was asked about."""

    def __init__(self) -> None:
        self.finder = Finder()
        self.programs: list[int] = []
        self.maps: list[int] = []

    def of_program(self, pid: int) -> list[Libc]:
        self.programs.append(pid)
        return self.finder.of_program(pid)

    def mapped_by(self, pid: int) -> list[Libc]:
        self.maps.append(pid)
        return self.finder.mapped_by(pid)


def let_go(libcs: list[Libc]) -> None:
    for libc in libcs:
        libc.close()


@pytest.fixture(scope="module")
def crowd() -> Iterator[list[int]]:
    """Processes with as many mappings as they may have."""
    command = [sys.executable, "-c", TORN_APART, str(CROWD)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout
        yield [int(pid) for pid in first.stdout.readline().split()]
        first.communicate("")


def test_a_process_is_visited_as_it_starts_and_when_its_libraries_are_mapped() -> None:
    noted = Noted()
    visits = Visits(noted)
    assert visits.deadline is None
    now = time.monotonic_ns()
    visits.started(os.getpid(), now)
    assert visits.deadline is not None
    assert visits.deadline <= now
    visits.make(let_go)
    assert (noted.programs, noted.maps) == ([os.getpid()], [])
    assert visits.deadline is not None
    assert now < visits.deadline <= now + 200_000_000
    while visits.deadline is not None:
        visits.make(let_go)
    assert (noted.programs, noted.maps) == ([os.getpid()], [os.getpid()])


def test_who_starts_program_after_program_is_visited_once(crowd: list[int]) -> None:
    noted = Noted()
    visits = Visits(noted)
    for _ in range(10_000):
        visits.started(crowd[0], time.monotonic_ns())
    while visits.deadline is not None:
        visits.make(let_go)
    assert (noted.programs, noted.maps) == ([crowd[0]], [crowd[0]])


def test_visits_that_take_long_are_made_a_few_at_a_time(crowd: list[int]) -> None:
    noted = Noted()
    visits = Visits(noted)
    assert len(crowd) == CROWD
    for pid in crowd:
        visits.started(pid, 0)  # long ago: all are due
    turns = 0
    while visits.deadline is not None:
        visits.make(let_go)
        turns += 1
    assert sorted(noted.maps) == sorted(crowd)
    assert turns > CROWD / 5


def test_so_many_wait_and_the_oldest_go() -> None:
    noted = Noted()
    visits = Visits(noted)
    for pid in range(1, 10_001):
        visits.started(pid + (1 << 22), 0)  # nobody's
    while visits.deadline is not None:
        visits.make(let_go)
    assert noted.programs == noted.maps == list(range(10_001 - 4096 + (1 << 22), 10_001 + (1 << 22)))
