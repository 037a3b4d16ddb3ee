"""A UDP conversation ends by the clock, with its socket, its owner or its tracer; what finds no room is counted."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Iterator

import pytest

from pytracecon import Flow, Lost, Tracer
from traffic.actor import Actor
from traffic.datagrams import Socket, flows, told_of, udp
from traffic.network import Network
from traffic.trace import Beacon, Trace

V4 = ("127.0.0.1", 0)
NOBODY = ("127.0.0.1", 9)
PIDFD_GETFD = 438
SECOND = 1_000_000_000

Start = Callable[..., Trace]


def lost_in(trace: Trace, where: str) -> int:
    return sum(event.count for event in trace.events if isinstance(event, Lost) and event.where == where)


@pytest.fixture(scope="module")
def all_told(beacon: Beacon) -> Iterator[Trace]:
    with Tracer(events="flow,failed", names=False, processes=False, ring_size="64M", udp_idle=1) as tracer:
        yield Trace(tracer, beacon)


@pytest.fixture
def trace(all_told: Trace) -> Trace:
    """One tracer for all tests that ask for no other: a second of silence is an end."""
    all_told.restart()
    return all_told


def test_silence_is_an_end_though_nothing_else_happens(traced: Start, network: Network, client: Actor) -> None:
    """The reader waits for events without a limit meanwhile. What goes on afterwards is another conversation."""
    trace = traced(netns=network.path, events="flow", udp_idle=0.5)
    server, near = udp(network.actor("server"), bound=V4), udp(client, bound=V4)
    first = near.tell(10, server.address)
    (idle,) = trace.tracer.read()
    waited = time.monotonic_ns() - first.mono[1]
    assert isinstance(idle, Flow)
    assert told_of(idle) == near.flow(server.address, sent="10", ended="idle")
    assert 0.45 * SECOND < waited < 3 * SECOND
    assert idle.duration_ns == 0
    begun = near.tell(20, server.address)
    last = near.tell(30, server.address)
    near.close()
    (again,) = flows(trace.settle(), network)
    assert told_of(again) == near.flow(server.address, sent="20 30")
    assert again.conn != idle.conn
    assert again.duration_ns is not None
    assert last.mono[0] - begun.mono[1] <= again.duration_ns <= last.mono[1] - begun.mono[0]


@pytest.mark.slow(reason="who detaches is user space")
def test_what_is_open_ends_with_the_tracer(traced: Start, network: Network, client: Actor) -> None:
    trace = traced(netns=network.path, events="flow")
    near = udp(client, bound=V4)
    near.tell(40, NOBODY)
    assert list(map(told_of, flows(trace.settle(), network))) == [near.flow(NOBODY, sent="40", ended="stopped")]


@pytest.mark.slow(reason="the clock is user space's")
def test_what_goes_on_does_not_end(traced: Start, network: Network, client: Actor) -> None:
    trace = traced(netns=network.path, events="flow", udp_idle=0.5)
    near = udp(client, bound=V4)
    sent = []
    until = time.monotonic() + 1.2
    while time.monotonic() < until:
        near.tell(10, NOBODY)
        sent.append("10")
        trace.events += trace.tracer.read(timeout=0.1)
    assert trace.events == []
    near.close()
    trace.settle()
    assert [told_of(each) for each in flows(trace.events, network)] == [near.flow(NOBODY, sent=" ".join(sent))]


def test_an_owner_that_ends_leaves_its_socket_to_another(trace: Trace, network: Network, client: Actor) -> None:
    near = udp(client, bound=V4)
    heir = near.held_by(client.fork("heir"))
    near.tell(10, NOBODY)
    heir.tell(20, NOBODY)
    heir.actor.kill()
    near.tell(30, NOBODY)
    assert trace.until(lambda events: bool(flows(events, network)), within=10)
    near.close()
    assert trace.until(lambda events: len(flows(events, network)) == 2, within=10)
    gone, closed = flows(trace.events, network)
    assert told_of(gone) == heir.flow(NOBODY, sent="20", ended="owner_gone")
    assert told_of(closed) == near.flow(NOBODY, sent="10 30")


def test_a_socket_that_dies_with_its_owner_is_closed(trace: Trace, network: Network, client: Actor) -> None:
    near = udp(client, bound=V4)
    near.tell(10, NOBODY)
    client.kill()
    trace.settle()
    assert [told_of(each) for each in flows(trace.events, network)] == [near.flow(NOBODY, sent="10")]


def handed_over(socket: Socket, to: Actor) -> Socket:
    """The socket in another process, which is no relative: by SCM_RIGHTS."""
    libc = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(socket.actor.pid)
    here = libc.syscall(PIDFD_GETFD, process, socket.fd, 0)
    os.close(process)
    assert here >= 0, os.strerror(ctypes.get_errno())
    try:
        return socket.held_by(to, to.do("adopt", fd=here).fd)
    finally:
        os.close(here)


def test_a_socket_that_is_handed_over_has_two_conversations(trace: Trace, network: Network, client: Actor) -> None:
    first = udp(network.actor("first"), bound=("127.0.0.1", 5353))
    near = udp(client, to=first.address)
    near.send(1)
    first.hear()
    second = handed_over(first, network.actor("second"))
    first.close()
    near.send(2)
    second.hear()
    second.tell(3, near.address)
    near.hear()
    near.close()
    second.close()
    assert trace.until(lambda events: len(flows(events, network)) == 3, within=10)
    assert sorted(map(told_of, flows(trace.events, network))) == sorted(
        [
            near.flow(first.address, sent="1 2", received="3"),
            first.flow(near.address, received="1"),
            second.flow(near.address, received="2", sent="3", direction="in"),
        ]
    )


def test_a_socket_that_spoke_to_thousands(trace: Trace, network: Network, client: Actor) -> None:
    """All of it is told once, though whoever closes the socket tells of one conversation only."""
    near = udp(client, bound=V4)
    many = client.do("tell-many", near.fd, 10, "127.0.0.1", 20_000, 3000)
    assert many.result == 3000
    near.close()
    assert trace.until(lambda events: len(flows(events, network)) >= 3000, within=30)
    told = flows(trace.settle(), network)
    assert len(told) == 3000
    assert {each.remote_port for each in told} == set(range(20_000, 23_000))
    assert {(each.tx_bytes, each.tx_packets, each.ended, each.pid) for each in told} == {(10, 1, "closed", client.pid)}
    assert len({each.conn for each in told}) == 3000
    assert trace.tracer.stats.lost == 0


@pytest.mark.slow(reason="how a ring is filled is no kernel's business")
def test_what_finds_no_room_in_the_ring_is_counted(traced: Start, network: Network, client: Actor) -> None:
    """Sockets that close tell of it at once, whether somebody reads or not."""
    trace = traced(netns=network.path, events="flow", ring_size="4K")
    for _ in range(100):
        near = udp(client, bound=V4)
        near.tell(10, NOBODY)
        near.close()
    crowd = udp(client, bound=V4)
    client.do("tell-many", crowd.fd, 10, "127.0.0.1", 20_000, 500)
    crowd.close()
    trace.settle()
    stats = trace.tracer.stats
    assert stats.wanted == 600 == stats.delivered + stats.lost_ring
    assert stats.lost_ring == lost_in(trace, "ring") > 0
    told = flows(trace.events, network)
    assert len(told) == stats.delivered
    assert len([each for each in told if each.remote_port != NOBODY[1]]) >= 499, "a sweep waits for room"


def test_what_finds_no_room_in_the_table_is_counted_once(traced: Start, network: Network, client: Actor) -> None:
    """Those that have been silent longest go first. What was left out is marked, should it find room later."""
    trace = traced(netns=network.path, events="flow", max_connections=64)
    near = udp(client, bound=V4)
    client.do("tell-many", near.fd, 10, "127.0.0.1", 20_000, 40)
    client.do("pause", 2500)
    for _ in range(3):
        client.do("tell-many", near.fd, 10, "127.0.0.1", 30_000, 40)
    assert trace.until(lambda events: len(flows(events, network)) >= 40 and lost_in(trace, "map") >= 16)
    old = flows(trace.events, network)
    assert {each.remote_port for each in old} == set(range(20_000, 20_040))
    assert {(each.ended, each.partial, each.tx_packets) for each in old} == {("idle", None, 1)}
    near.tell(20, ("127.0.0.1", 30_039))
    near.close()
    young = flows(trace.settle(), network)[40:]
    assert [each.remote_port for each in young if each.partial] == [30_039]
    assert {each.tx_packets for each in young if not each.partial} == {3}
    left_out = 40 - (len(young) - 1)
    # The rest of the machine may have its conversations meanwhile, and has a part in the same table.
    assert 16 <= left_out <= trace.tracer.stats.lost_map == lost_in(trace, "map") < 2 * left_out


FILTERS: dict[str, Callable[[Socket, Socket], dict[str, object]]] = {
    "pid": lambda near, _: {"pid": near.actor.pid},
    "port": lambda _, far: {"port": far.address[1]},
    "local_port": lambda near, _: {"local_port": near.address[1]},
    "remote": lambda _, far: {"remote": far.address[0]},
    "direction": lambda _near, _far: {"direction": "out"},
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in FILTERS])
def test_filters_let_through_what_they_should(traced: Start, network: Network, client: Actor, name: str) -> None:
    far, other = udp(network.actor("server"), bound=("127.0.0.2", 7000)), udp(network.actor("other"), bound=V4)
    near = udp(client, bound=V4)
    trace = traced(events="flow", netns=network.path, **FILTERS[name](near, far))
    near.tell(10, far.address)
    far.hear()
    far.tell(20, near.address)
    near.hear()
    other.tell(30, (NOBODY[0], 10)) if name != "direction" else None
    for each in (near, far, other):
        each.close()
    trace.settle()
    assert [told_of(each) for each in flows(trace.events, network)] == [
        near.flow(far.address, sent="10", received="20", pre_existing=True)
    ]


@pytest.mark.slow(reason="of TCP there is more in test_filters_in_the_kernel")
def test_flows_have_no_latency_to_be_chosen_by(traced: Start, network: Network, client: Actor) -> None:
    trace = traced(events="flow,established", netns=network.path, min_latency=1)
    near = udp(client, bound=V4)
    near.tell(10, NOBODY)
    near.close()
    assert trace.settle() == []
