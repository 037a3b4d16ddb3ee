"""When the table of UDP conversations is swept, and how room is made in it, with a table that a list plays."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from pytracecon import sweep
from pytracecon.clock import SECOND
from pytracecon.ring import SharedPages
from pytracecon.sweep import Sweep

IDLE = 30 * SECOND
MOST = 64


@dataclass
class KernelSide:
    """Conversations by the time since which they are silent, in the order in which a sweep meets them."""

    pages: SharedPages
    silent_for: list[int] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    room: int = 1 << 30
    """In the ring: a sweep leaves alone what finds none."""
    sweeps: int = 0

    def add(self, *silent_for: int) -> None:
        self.silent_for += silent_for
        self.pages.set("conversations", len(self.silent_for))

    def run(self, _program: object, _table: bytes) -> None:
        self.sweeps += 1
        idle, stopping = self.pages.get("idle"), self.pages.get("stopping")
        for each in [each for each in self.silent_for if stopping or each >= idle]:
            if self.room == 0:
                self.pages.set("left", 1)
                continue
            self.room -= 1
            self.silent_for.remove(each)
            self.ended.append(each)
        self.pages.set("conversations", len(self.silent_for))


@pytest.fixture
def pages() -> Iterator[SharedPages]:
    maps = []
    for name in ("counters", "shared"):
        fd = os.memfd_create(name)
        os.ftruncate(fd, 1 << 16)
        maps.append(SimpleNamespace(fd=fd))
    counters, shared = maps
    pages = SharedPages(counters, shared, 1)  # type: ignore[arg-type]
    yield pages
    pages.close()
    for each in maps:
        os.close(each.fd)


@pytest.fixture
def kernel(pages: SharedPages, monkeypatch: pytest.MonkeyPatch) -> KernelSide:
    kernel = KernelSide(pages)
    monkeypatch.setattr(sweep, "run", kernel.run)
    return kernel


def of(kernel: KernelSide) -> Sweep:
    table: Any = SimpleNamespace(fd=0, max_entries=MOST)
    loaded: Any = SimpleNamespace(object=SimpleNamespace(maps={"conversations": table}, programs={"sweep": None}))
    return Sweep(loaded, kernel.pages, IDLE)


def test_where_nobody_speaks_nothing_is_due(kernel: KernelSide) -> None:
    swept = of(kernel)
    assert swept.deadline is None
    swept.look()
    assert kernel.sweeps == 0


def test_one_conversation_is_looked_at_from_time_to_time(kernel: KernelSide) -> None:
    swept = of(kernel)
    kernel.add(0)
    swept.look()
    assert kernel.sweeps == 1
    assert swept.deadline is not None
    assert 0 < swept.deadline - time.monotonic_ns() <= SECOND
    swept.look()
    assert kernel.sweeps == 1, "it is not time yet"


def test_the_kernel_side_asks_for_one_at_once(kernel: KernelSide) -> None:
    swept = of(kernel)
    kernel.add(0)
    swept.look()
    kernel.pages.set("sweep", 1)
    assert swept.deadline == 0
    swept.look()
    assert kernel.sweeps == 2
    assert kernel.pages.get("sweep") == 0


def test_only_what_is_idle_ends_while_there_is_room(kernel: KernelSide) -> None:
    swept = of(kernel)
    kernel.add(IDLE, 0, IDLE - 1, 2 * IDLE)
    swept.run()
    assert sorted(kernel.ended) == [IDLE, 2 * IDLE]


def test_in_a_crowd_those_go_first_that_are_silent_longest(kernel: KernelSide) -> None:
    swept = of(kernel)
    silence = [IDLE * at // MOST for at in range(MOST)]
    kernel.add(*silence)
    swept.run()
    assert 0 < len(kernel.silent_for) < MOST * 3 / 4
    assert max(kernel.silent_for) < min(kernel.ended)
    assert kernel.pages.get("idle") == IDLE, "what comes later is given its time"


def test_a_crowd_that_speaks_stays(kernel: KernelSide) -> None:
    swept = of(kernel)
    kernel.add(*[0] * MOST)
    swept.run()
    assert len(kernel.silent_for) == MOST
    assert kernel.sweeps <= 11


def test_what_finds_no_room_in_the_ring_is_told_by_the_next_one(kernel: KernelSide) -> None:
    swept = of(kernel)
    kernel.add(IDLE, IDLE, IDLE)
    kernel.room = 2
    swept.run()
    assert swept.unfinished
    assert swept.deadline == 0
    kernel.room = 2
    swept.look()
    assert not swept.unfinished
    assert kernel.silent_for == []


def test_a_crowd_waits_for_the_ring(kernel: KernelSide) -> None:
    """Nobody has to go early for want of room that the next sweep makes."""
    swept = of(kernel)
    kernel.add(*[IDLE] * MOST)
    kernel.room = 4
    swept.run()
    assert kernel.sweeps == 1
    assert swept.unfinished


def test_when_tracing_stops_all_are_over(kernel: KernelSide) -> None:
    swept = of(kernel)
    kernel.add(0, 1, IDLE)
    swept.stop()
    assert kernel.silent_for == []
