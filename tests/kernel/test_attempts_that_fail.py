"""Outbound attempts that come to nothing: why, when, and that nothing of them stays behind."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from pytracecon import Connect, ConnectionEvent, Failed
from traffic.actor import Actor
from traffic.end import End, begin_connect, blocked_connect, close, connect, listen, pair
from traffic.network import Network
from traffic.story import Told, event_of, story
from traffic.trace import Trace

SENT, NOT_SENT = "connect failed", "failed"
"""Whether a SYN left."""

NOBODY = {"local_addr": None, "local_port": None}
"""An attempt that found no way out got no source address either."""

HOW = [
    pytest.param("", id="blocking"),
    "nonblock",
    pytest.param("uring", marks=pytest.mark.io_uring),
    pytest.param("uring-async", marks=pytest.mark.io_uring),
]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_refused(trace: Trace, client: Actor, address: str, how: str) -> None:
    end = connect(client, (address, 9), how=how, source=(address, 4000))
    assert end.error == "ECONNREFUSED"
    trace.tells(Told(end, SENT, reason="refused", error="ECONNREFUSED"))


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(
    ("route", "error", "reason"),
    [
        pytest.param("", "ENETUNREACH", "unreachable", id="no route"),
        pytest.param("unreachable", "EHOSTUNREACH", "unreachable", id="unreachable route"),
        pytest.param("prohibit", "EACCES", "denied", id="prohibit route"),
    ],
)
def test_no_way_there(
    trace: Trace, network: Network, client: Actor, route: str, error: str, reason: str, how: str
) -> None:
    if route:
        network.ip(f"route add {route} 10.8.0.0/16")
    end = connect(client, ("10.8.0.1", 80), how=how)
    assert end.error == error
    trace.tells(Told(end, NOT_SENT, reason=reason, error=error, facts=NOBODY))


def test_no_way_there_by_ipv6(trace: Trace, client: Actor) -> None:
    end = connect(client, ("2001:db8::1", 80))
    assert end.error == "ENETUNREACH"
    trace.tells(Told(end, NOT_SENT, reason="unreachable", error="ENETUNREACH", facts=NOBODY))


@pytest.fixture
def beyond(networks: Callable[[], Network]) -> tuple[Network, Network]:
    """Two hosts on one wire, 10.9.0.1 and 10.9.0.2."""
    here, there = networks(), networks()
    here.wire(there, "10.9.0.1/24", "10.9.0.2/24")
    return here, there


def test_a_host_that_does_not_answer_arp(trace: Trace, beyond: tuple[Network, Network]) -> None:
    here, there = beyond
    here.sysctl(f"net.ipv4.neigh.to{there.inode}.mcast_solicit", 1)
    end = connect(here.actor("client"), ("10.9.0.77", 80), source=("10.9.0.1", 4000))
    assert end.error == "EHOSTUNREACH"
    trace.tells(Told(end, SENT, reason="unreachable", error="EHOSTUNREACH", syn_retransmits=here.syns_resent))


def test_a_router_that_forbids_it(trace: Trace, beyond: tuple[Network, Network]) -> None:
    here, there = beyond
    there.sysctl("net.ipv4.ip_forward", 1)
    there.ip("route add prohibit 10.7.0.0/16")
    here.ip("route add 10.7.0.0/16 via 10.9.0.2")
    end = connect(here.actor("client"), ("10.7.0.1", 80), source=("10.9.0.1", 4000))
    assert end.error == "EHOSTUNREACH"
    trace.tells(Told(end, SENT, reason="unreachable", error="EHOSTUNREACH", syn_retransmits=here.syns_resent))


@pytest.mark.parametrize("how", ["", "nonblock"], ids=lambda how: how or "blocking")
def test_a_silent_host_times_out(trace: Trace, beyond: tuple[Network, Network], how: str) -> None:
    here, there = beyond
    there.ip("route add blackhole 10.9.0.1/32")
    end = connect(here.actor("client"), ("10.9.0.2", 80), how=how, source=("10.9.0.1", 4000), options={"TCP_SYNCNT": 1})
    assert end.error == "ETIMEDOUT"
    assert here.syns_resent > 0
    trace.tells(Told(end, SENT, reason="timeout", error="ETIMEDOUT", syn_retransmits=here.syns_resent))
    latency = event_of(trace.events, end, Failed).latency_ns
    assert latency is not None and latency > 1_900_000_000, "a second for the first SYN, another for the next"


def test_a_full_backlog_times_out(trace: Trace, network: Network, client: Actor, server: Actor) -> None:
    listener = listen(server, backlog=0)
    near = connect(client, listener.address)
    late = connect(client, listener.address, source=("127.0.0.1", 4000), options={"TCP_SYNCNT": 1})
    assert late.error == "ETIMEDOUT"
    far = listener.accept()
    near.peer, far.peer = far, near
    close(near, far)
    trace.tells(
        Told(near, "connect established close", ended="local_close"),
        Told(far, "accept close", ended="remote_close"),
        Told(late, SENT, reason="timeout", error="ETIMEDOUT", syn_retransmits=network.syns_resent),
    )


def test_no_free_port(trace: Trace, network: Network, client: Actor) -> None:
    network.sysctl("net.ipv4.ip_local_port_range", 40000, 40000)
    client.do("bind", client.do("socket", 4).fd, "127.0.0.1", 40000)
    end = connect(client, ("127.0.0.1", 80))
    assert end.error == "EADDRNOTAVAIL"
    trace.tells(Told(end, NOT_SENT, reason="no_address", error="EADDRNOTAVAIL", facts={"local_port": None}))


def close_it(end: End) -> None:
    end.close()


def kill_its_process(end: End) -> None:
    end.actor.kill()


def disconnect_it(end: End) -> None:
    end.actor.do("disconnect", end.socket)


@pytest.mark.parametrize("give_up", [close_it, kill_its_process, disconnect_it], ids=lambda how: how.__name__)
def test_given_up_by_its_process(trace: Trace, beyond: tuple[Network, Network], give_up: Callable[[End], None]) -> None:
    here, there = beyond
    there.ip("route add blackhole 10.9.0.1/32")
    attempt = begin_connect(here.actor("client"), ("10.9.0.2", 80), source=("10.9.0.1", 4000))
    assert attempt.opened.errno == "EINPROGRESS"
    end = attempt.give_up(give_up)
    trace.tells(Told(end, SENT, reason="cancelled"))


def test_killed_while_it_blocks_in_connect(trace: Trace, beyond: tuple[Network, Network]) -> None:
    here, there = beyond
    there.ip("route add blackhole 10.9.0.1/32")
    end = blocked_connect(here.actor("client"), ("10.9.0.2", 80), ("10.9.0.1", 4000)).give_up(kill_its_process)
    trace.tells(Told(end, SENT, reason="cancelled"))


@pytest.mark.ends
@pytest.mark.parametrize(
    ("probes", "names"),
    [
        pytest.param("auto", False, marks=pytest.mark.once),
        pytest.param("tracepoint", False, marks=pytest.mark.once),
        ("tracepoint", True),
    ],
)
@pytest.mark.parametrize(
    "address", ["127.0.0.1", pytest.param("::1", marks=pytest.mark.slow(reason="as the other, and takes as long"))]
)
def test_a_syn_that_the_hosts_own_filter_drops_is_told_at_once(
    traced: Callable[..., Trace], network: Network, client: Actor, address: str, probes: str, names: bool
) -> None:
    """It never comes to where packets are looked at, and the process waits."""
    chain = "add table inet t; add chain inet t out { type filter hook output priority 0; }"
    network.run("nft", f"{chain}; add rule inet t out tcp dport 80 drop")
    trace = traced(netns=network.path, probes=probes, names=names)
    attempt = begin_connect(client, (address, 80), source=(address, 4000))
    assert attempt.opened.errno == "EINPROGRESS"
    assert trace.until(lambda events: [event.event for event in events] == ["connect"])
    (event,) = trace.events
    assert isinstance(event, Connect)
    assert (event.pid, event.local_port, event.remote_addr) == (client.pid, 4000, address)
    end = attempt.give_up(close_it)
    trace.tells(Told(end, SENT, reason="cancelled"))


def test_the_same_socket_tries_again(trace: Trace, client: Actor, server: Actor) -> None:
    first = connect(client, ("127.0.0.1", 9), source=("127.0.0.1", 4000))
    listener = listen(server)
    near = connect(client, listener.address, socket=first.socket)
    far = listener.accept()
    near.peer, far.peer = far, near
    close(near, far)
    trace.tells(
        Told(first, SENT, reason="refused", error="ECONNREFUSED"),
        Told(near, "connect established close", ended="local_close"),
        Told(far, "accept close", ended="remote_close"),
    )
    assert story(trace.events, first)[0].conn != story(trace.events, near)[0].conn


def test_an_error_asked_for_later_is_told_once(trace: Trace, client: Actor) -> None:
    """A non-blocking connect that failed tells its error at the next connect(), which is no new attempt."""
    attempt = begin_connect(client, ("127.0.0.1", 9), source=("127.0.0.1", 4000))
    assert attempt.opened.errno == "EINPROGRESS"
    end = attempt.finish(by="connect")
    assert end.error == "ECONNREFUSED"
    trace.tells(Told(end, SENT, reason="refused", error="ECONNREFUSED"))


def test_a_second_connect_of_a_connected_socket_is_no_attempt(trace: Trace, client: Actor, server: Actor) -> None:
    near, far = pair(client, listen(server))
    assert client.attempt("connect", near.socket, *near.remote).errno == "EISCONN"
    close(near, far)
    trace.tells(
        Told(near, "connect established close", ended="local_close"), Told(far, "accept close", ended="remote_close")
    )


def test_a_raw_socket_attempts_nothing(trace: Trace, network: Network, client: Actor) -> None:
    network.ip("address add 10.9.0.1/24 dev lo")
    raw = client.do("raw", int(socket.AF_INET), socket.IPPROTO_TCP).fd
    assert client.attempt("connect", raw, "10.9.0.255", 0).errno == "EACCES"
    told = [event for event in trace.settle() if isinstance(event, ConnectionEvent)]
    assert [event for event in told if event.netns == network.inode] == []


def test_1200_refused_attempts_leave_no_state(traced: Callable[..., Trace], client: Actor) -> None:
    trace = traced(max_connections=16)
    assert client.do("refused", 1200, "127.0.0.1", 9).result == 1200
    events = [event for event in trace.settle() if isinstance(event, Failed) and event.netns == client.netns]
    assert len(events) == 1200
    assert {(event.reason, event.pid, event.partial) for event in events} == {("refused", client.pid, None)}
    assert trace.tracer.stats.lost_map == 0
