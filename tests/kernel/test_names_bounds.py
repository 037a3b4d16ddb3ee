"""Names under load: one process's flood costs nobody else theirs, and what is lost makes no name wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from pytracecon import ConnectionEvent, Event, Lost
from pytracecon.events import Lookup
from traffic.actor import Actor
from traffic.naming import lookups, name_of, visit
from traffic.resolver import Place
from traffic.trace import Trace

SERVER = "127.0.0.6"


@contextmanager
def answering(place: Place, count: int, first: str) -> Iterator[None]:
    """A name server that answers so many questions, each with the next address."""
    server = place.actor("server")
    socket = server.do("datagram", 4).fd
    server.do("bind", socket, SERVER, 53)
    server.begin("answers", socket, count, first, -300)
    yield
    assert server.finish().result == count
    server.do("close", socket)


def read_while(trace: Trace, asking: Actor, count: int) -> None:
    """A reader that keeps up: it reads while the other asks."""
    looked_at = told = 0

    def all_told(events: list[Event]) -> bool:
        nonlocal looked_at, told
        told += len(lookups(events[looked_at:], asking))
        looked_at = len(events)
        return told >= count

    assert trace.until(all_told)
    assert asking.finish().result == count


@pytest.mark.parametrize("count", [500, pytest.param(50_000, marks=pytest.mark.slow)])
def test_one_that_asks_for_very_many_names_costs_nobody_else_theirs(
    traced: Callable[..., Trace], place: Place, count: int
) -> None:
    """Neither those of another user, nor those of another process of the same one."""
    trace = traced(netns=place.path, ring_size="64M")
    flood, same, other = (place.actor(name) for name in ("flood", "same", "other"))
    other.set_user(4711)
    for actor in (same, other):
        actor.do("lookup", "one.test", 4, 1)
    with answering(place, count, "10.5.0.0"):
        flood.begin("questions", count, "n#.flood.test", SERVER, 53, 10_000)
        read_while(trace, flood, count)
    ends = [visit(actor, place.web, "127.0.0.11") for actor in (same, other)]
    flood.do("lookup", "two.test", 4, 1)
    own = visit(flood, place.web, "127.0.0.12")
    events = trace.settle()
    assert [name_of(events, end) for end in ends] == [("one.test", "getaddrinfo")] * 2
    assert name_of(events, own) == ("two.test", "getaddrinfo"), "its latest name is not the one that had to go"
    assert [event for event in events if isinstance(event, Lost)] == []


def test_with_a_ring_that_is_too_small_names_are_missing_but_never_wrong(
    traced: Callable[..., Trace], place: Place
) -> None:
    """Three connect to one address, under two names and none, while another one asks and asks."""
    trace = traced(netns=place.path, ring_size="4K")
    askers = {name: place.actor(name.partition(".")[0]) for name in ("shared-a.test", "shared-b.test")}
    names = {actor.pid: name for name, actor in askers.items()}
    flood, bare = place.actor("flood"), place.actor("bare")
    with answering(place, 200, "127.0.0.14"):
        flood.begin("questions", 200, "n#.flood.test", SERVER, 53, 0)
        for _ in range(10):
            for name, actor in askers.items():
                actor.do("lookup", name, 4, 1)
                visit(actor, place.web, "127.0.0.14")
                visit(bare, place.web, "127.0.0.14")
        flood.finish()
    events = trace.settle()
    assert trace.tracer.stats.lost_ring + trace.tracer.stats.lost_names > 0, "else nothing was tried"
    for event in events:
        if isinstance(event, ConnectionEvent) and event.host is not None:
            assert event.host == names.get(event.pid or 0), event
        if isinstance(event, Lookup) and event.pid in names and event.result == "ok":
            assert event.name == names[event.pid]
            assert event.addresses in (["127.0.0.14"], None, [])
    stats = trace.tracer.stats
    assert stats.wanted == stats.delivered + stats.lost_ring
