"""Overload: what is lost is counted to one, said in its place, and nothing else suffers."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any, TypeGuard

import pytest

from pytracecon import Close, ConnectionEvent, Event, Lost, State, Tracer, reader
from pytracecon.objects import Objects
from pytracecon.prepare import prepare
from traffic.end import End, close, connect, listen, pair
from traffic.network import Network
from traffic.trace import Trace

FLOOD = 600
EVENTS_EACH = 5
"""connect, established, accept, and a close for each end."""


def lost_in(events: list[Event], where: str) -> int:
    return sum(event.count for event in events if isinstance(event, Lost) and event.where == where)


@pytest.mark.parametrize("ring_size", ["4K", pytest.param("64K", marks=pytest.mark.slow)])
def test_a_full_ring_is_counted_to_one(traced: Callable[..., Trace], network: Network, ring_size: str) -> None:
    trace = traced(netns=network.path, ring_size=ring_size)
    assert network.actor("flood").do("flood", FLOOD, 5).result == FLOOD
    events = trace.settle()
    stats = trace.tracer.stats
    told = [event for event in events if isinstance(event, ConnectionEvent)]
    assert stats.wanted == FLOOD * EVENTS_EACH
    assert stats.delivered == len(told)
    assert stats.wanted == stats.delivered + stats.lost_ring
    assert stats.lost_ring > 0
    assert lost_in(events, "ring") == stats.lost_ring
    assert all(event.pid for event in told), "what is told is told right"


def test_a_reader_that_comes_back_learns_of_the_loss_within_a_second(
    traced: Callable[..., Trace], network: Network
) -> None:
    """Though nothing more happens: it need not wait for a record that brings the news."""
    trace = traced(netns=network.path, ring_size="4K")
    network.actor("flood").do("flood", FLOOD, 5)
    back = time.monotonic()
    assert trace.until(lambda events: lost_in(events, "ring") > 0, within=30)
    assert time.monotonic() - back < 1
    trace.until(lambda events: lost_in(events, "ring") == trace.tracer.stats.lost_ring, within=1)
    stats = trace.tracer.stats
    assert stats.wanted == FLOOD * EVENTS_EACH == stats.delivered + stats.lost_ring
    assert lost_in(trace.events, "ring") == stats.lost_ring


def test_a_loss_stands_between_what_came_before_and_after(traced: Callable[..., Trace], network: Network) -> None:
    trace = traced(netns=network.path, ring_size="4K")
    actor = network.actor("flood")
    actor.do("flood", FLOOD, 5)
    trace.until(lambda events: lost_in(events, "ring") > 0)
    actor.do("flood", 1, 5)
    events = trace.settle()
    places = [at for at, event in enumerate(events) if isinstance(event, Lost)]
    assert 0 < places[0] <= places[-1] < len(events) - EVENTS_EACH
    for at in places:
        lost = events[at]
        assert isinstance(lost, Lost)
        assert lost.from_ns is not None and lost.to_ns is not None
        assert lost.from_ns <= lost.to_ns
        assert events[at - 1].time_ns <= lost.to_ns


@pytest.mark.slow(reason="what it tells of is user space's, whatever the kernel")
def test_counts_never_fall_while_the_reader_comes_and_goes(traced: Callable[..., Trace], network: Network) -> None:
    trace = traced(netns=network.path, ring_size="4K")
    actor = network.actor("flood")
    seen = [trace.tracer.stats]
    for _ in range(5):
        actor.do("flood", 50, 5)
        trace.events += trace.tracer.read(timeout=0.5)
        seen.append(trace.tracer.stats)
    events = trace.settle()
    seen.append(trace.tracer.stats)
    for earlier, later in itertools.pairwise(seen):
        for name in ("wanted", "delivered", "handed", "lost_ring", "lost_map", "lost_probe"):
            assert getattr(earlier, name) <= getattr(later, name)
    last = seen[-1]
    assert last.wanted == 5 * 50 * EVENTS_EACH == last.delivered + last.lost_ring
    assert lost_in(events, "ring") == last.lost_ring


@pytest.mark.slow(reason="what it tells of is user space's, whatever the kernel")
def test_the_default_ring_holds_a_flood_that_nobody_reads(
    traced: Callable[..., Trace], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slowly all is read at the end."""
    monkeypatch.setattr(reader, "_SETTLED_WITHIN", 0)
    trace = traced(netns=network.path)
    flood = network.actor("flood").do("flood", 2000, 5)
    events = [event for event in trace.settle() if isinstance(event, ConnectionEvent)]
    assert len(events) == flood.result * EVENTS_EACH == trace.tracer.stats.wanted
    closes = [event for event in events if isinstance(event, Close)]
    assert {(event.direction, event.tx_bytes, event.rx_bytes) for event in closes} == {("out", 5, 0), ("in", 0, 5)}
    assert len({event.conn for event in closes}) == 2 * 2000


@pytest.fixture
def crowd(network: Network) -> Callable[[], list[tuple[End, End]]]:
    """A hundred connections, open at the same time, each with another amount sent."""

    def gather() -> list[tuple[End, End]]:
        client, server = network.actor("client"), network.actor("server")
        listener = listen(server, backlog=128)
        pairs = []
        for amount in range(100):
            near = connect(client, listener.address)
            far = listener.accept()
            near.peer, far.peer = far, near
            near.send(amount)
            far.receive_all()
            pairs.append((near, far))
        return pairs

    return gather


def test_a_full_map_is_counted_and_marked_and_bytes_stay_exact(
    traced: Callable[..., Trace], network: Network, crowd: Callable[[], list[tuple[End, End]]]
) -> None:
    trace = traced(netns=network.path, max_connections=16, events="connect,established,accept,close,state")
    pairs = crowd()
    for near, far in pairs:
        near.close()
        far.close()
    closes = [event for event in trace.settle() if isinstance(event, Close)]
    stats = trace.tracer.stats
    assert stats.lost_map > 0
    assert lost_in(trace.events, "map") == stats.lost_map
    by_ends = {
        ((event.local_addr, event.local_port), (event.remote_addr, event.remote_port)): event for event in closes
    }
    assert len(by_ends) == len(closes) == 200
    for pair_of_ends in pairs:
        for end in pair_of_ends:
            assert end.local and end.peer
            event = by_ends[end.local, end.remote]
            assert (event.tx_bytes, event.rx_bytes) == (end.sent, end.peer.sent)
            assert event.partial or event.pid == end.actor.pid, "what is not known is marked, not guessed"
            assert not event.partial or event.pid in (None, end.actor.pid)
    whole = [event for event in closes if not event.partial]
    assert 0 < len(whole) <= 16 + 16
    assert all(event.duration_ns for event in whole)
    states = [event for event in trace.events if isinstance(event, State)]
    assert {event.pre_existing for event in states} == {None}, "none is older than the tracer"
    unknown = [event for event in states if event.pid is None]
    assert unknown and all(event.partial for event in unknown)


def test_listeners_that_find_no_room_are_counted_and_connections_that_need_them_marked(
    traced: Callable[..., Trace], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever accepts is known all the same. What nobody takes was the listener's, and nobody knows whose that is."""

    def crowded(opened: Objects, *others: Any) -> None:
        prepare(opened, *others)
        opened.maps["listeners"].max_entries = 1

    monkeypatch.setattr("pytracecon.loader.prepare", crowded)
    trace = traced(netns=network.path)
    client, server = network.actor("client"), network.actor("server")
    listeners = [listen(server, address) for address in ("127.0.0.2", "127.0.0.3", "127.0.0.4")]
    taken = [pair(client, listener) for listener in listeners]
    left = [connect(client, listener.address) for listener in listeners]
    for near, far in taken:
        close(near, far)
    for end in left:
        end.close()
    for listener in listeners:
        listener.close()
    events = trace.settle()
    forgotten = trace.tracer.stats.lost_map
    assert 0 < forgotten == lost_in(events, "map")
    inbound = {(event.local_addr, event.remote_port): event for event in events if closes_inbound(event)}
    for near, _ in taken:
        event = inbound[near.remote[0], (near.local or ("", 0))[1]]
        assert (event.pid, event.partial) == (server.pid, None)
    alone = [inbound[end.remote[0], (end.local or ("", 0))[1]] for end in left]
    assert all(event.partial or event.pid == server.pid for event in alone)
    assert any(event.partial and event.pid is None for event in alone), "no room was left for those"
    assert len(inbound) == 6


def closes_inbound(event: Event) -> TypeGuard[Close]:
    return isinstance(event, Close) and event.direction == "in"


def test_room_in_the_map_is_used_again(traced: Callable[..., Trace], network: Network) -> None:
    trace = traced(netns=network.path, max_connections=16)
    assert network.actor("flood").do("flood", 200, 5).result == 200
    events = trace.settle()
    assert trace.tracer.stats.lost_map == 0
    assert not [event for event in events if isinstance(event, ConnectionEvent) and event.partial]


@pytest.mark.slow(reason="what it tells of is user space's, whatever the kernel")
def test_losses_of_one_tracer_are_not_another_ones(traced: Callable[..., Trace], network: Network) -> None:
    small, large = traced(netns=network.path, ring_size="4K"), traced(netns=network.path)
    network.actor("flood").do("flood", FLOOD, 5)
    assert len(large.settle()) == FLOOD * EVENTS_EACH
    small.settle()
    assert small.tracer.stats.lost_ring > 0
    assert large.tracer.stats.lost_ring == 0


@pytest.mark.slow(reason="what it tells of is user space's, whatever the kernel")
def test_a_tracer_that_lost_much_is_closed_like_any_other(network: Network) -> None:
    with Tracer(netns=network.path, names=False, ring_size="4K") as tracer:
        network.actor("flood").do("flood", FLOOD, 5)
    stats = tracer.stats
    assert stats.wanted == FLOOD * EVENTS_EACH
    assert stats.delivered == stats.handed == 0
