"""Under overload the books come out to one: what is told, and what is told to be lost, is what happened.

How much that was, the processes say that did it: both ends of each connection are theirs.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections import Counter

import pytest

from pytracecon import ConnectionEvent, Event, Lost, Stats, Tracer
from traffic.actor import DEADLINE, Actor
from traffic.network import Network

EVENTS_EACH = 5
"""connect, established, accept, and a close for each end."""
WRITERS = 3
RINGS = ("4K", "8K", "64K")
RUNS_OF_ONE = 10
BACK_WITHIN = 1.0
"""Seconds after which a reader that came back has been told of all that it lost."""


class Books:
    """What one tracer told, and what really was."""

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer
        self.made = 0
        self.told = 0
        self.lost: Counter[str] = Counter()

    def read(self, timeout: float = 0) -> None:
        events = self.tracer.read(timeout)
        self.enter(events)

    def enter(self, events: list[Event]) -> None:
        self.told += sum(isinstance(event, ConnectionEvent) for event in events)
        for event in events:
            if isinstance(event, Lost):
                self.lost[event.where] += event.count

    @property
    def due(self) -> int:
        return self.made * EVENTS_EACH

    @property
    def untold(self) -> int:
        """What is neither told nor told to be lost in the ring."""
        return self.due - self.told - self.lost["ring"]

    @property
    def balanced(self) -> bool:
        """To one, save where the kernel passed a hook by: not every call of one makes an event."""
        return 0 <= self.untold <= self.lost["probe"]

    def judge(self, stats: Stats) -> None:
        assert self.balanced, f"{self.due} events, {self.told} told, {self.lost}, {stats}"
        assert stats.wanted + self.untold == self.due
        assert stats.wanted == stats.delivered + stats.lost_ring
        assert stats.delivered == self.told
        for where in ("ring", "map", "names", "probe", "queue"):
            assert self.lost[where] == getattr(stats, f"lost_{where}")


def overload(books: Books, writers: list[Actor], chance: random.Random) -> None:
    """They write at the same time, and the reader is away, or there from time to time, or comes back in the middle."""
    counts = [chance.randrange(10, 60) for _ in writers]
    for writer, count in zip(writers, counts, strict=True):
        writer.begin("flood", count, 5)
    how = chance.choice(("away", "busy", "back"))
    for at, writer in enumerate(writers):
        books.made += writer.finish().result
        if how == "busy" or (how == "back" and at == 1):
            books.read()
    assert books.made, "they wrote"
    deadline = time.monotonic() + BACK_WITHIN
    while not books.balanced and time.monotonic() < deadline:
        books.read(timeout=0.05)


@pytest.mark.parametrize(
    "runs", [pytest.param(10, id="ten runs"), pytest.param(1000, marks=pytest.mark.long, id="a thousand runs")]
)
def test_what_is_told_and_what_is_lost_is_what_happened(network: Network, runs: int) -> None:
    writers = [network.actor(f"writer-{number}") for number in range(WRITERS)]
    for writer, cpu in zip(writers, itertools.cycle(sorted(os.sched_getaffinity(0)))):
        os.sched_setaffinity(writer.pid, {cpu})
    lost = 0
    for first in range(0, runs, RUNS_OF_ONE):
        chance = random.Random(first)  # noqa: S311 - the same each time, so that it can be looked at
        with Tracer(netns=network.path, names=False, ring_size=chance.choice(RINGS)) as tracer:
            books = Books(tracer)
            for _ in range(min(RUNS_OF_ONE, runs - first)):
                overload(books, writers, chance)
                books.judge(tracer.stats)
            tracer.stop()
            while not tracer.stopped:
                books.read(timeout=DEADLINE)
            books.judge(tracer.stats)
            lost += tracer.stats.lost_ring
    assert lost > runs * WRITERS, "it was too much for the ring"
