"""One MPTCP connection is one connection; its paths say whose they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytracecon import Close, ConnectionEvent
from traffic.actor import Actor
from traffic.end import close, connect, listen, pair
from traffic.network import Network
from traffic.story import Told
from traffic.trace import Trace

OUT, IN = "connect established close", "accept close"


@pytest.fixture(autouse=True)
def mptcp(network: Network, client: Actor) -> None:
    if client.attempt("socket", 4, "mptcp").errno:
        pytest.skip("no MPTCP in this kernel")
    network.sysctl("net.mptcp.enabled", 1)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("first", ["client", "server"])
def test_one_connection(trace: Trace, client: Actor, server: Actor, address: str, first: str) -> None:
    near, far = pair(client, listen(server, address, mptcp=True))
    near.send(100_000)
    far.receive_all()
    far.send(77)
    near.receive_all()
    close(*((near, far) if first == "client" else (far, near)))
    ended = ("local_close", "remote_close") if first == "client" else ("remote_close", "local_close")
    trace.tells(Told(near, OUT, ended=ended[0]), Told(far, IN, ended=ended[1]))
    assert_paths_belong(trace, near.opened.netns, {near.actor.pid, far.actor.pid})


def assert_paths_belong(trace: Trace, netns: int, pids: set[int]) -> None:
    """Every path is TCP, of one of the connections told, and has its owner."""
    ours = [event for event in trace.events if isinstance(event, ConnectionEvent) and event.netns == netns]
    whole = {event.conn for event in ours if event.proto == "mptcp"}
    paths = [event for event in ours if event.subflow_of]
    assert {event.subflow_of for event in paths} <= whole
    assert {event.proto for event in paths} <= {"tcp"}
    assert {event.pid for event in paths} <= pids


@pytest.mark.parametrize("first", ["client", "server"])
def test_a_path_that_joins_belongs_from_its_beginning(
    trace: Trace, networks: Callable[[], Network], first: str
) -> None:
    """The accepting end's further paths have the connection's file before they are established."""
    here, there = networks(), networks()
    here.wire(there, "10.9.0.1/24", "10.9.0.2/24")
    device = f"to{there.inode}"
    for network in (here, there):
        network.sysctl("net.mptcp.enabled", 1)
        network.ip("mptcp limits set subflow 2 add_addr_accepted 2")
    here.ip(f"address add 10.9.0.3/24 dev {device}", f"mptcp endpoint add 10.9.0.3 dev {device} subflow")
    near, far = pair(here.actor("client"), listen(there.actor("server"), "10.9.0.2", mptcp=True))
    near.send(1000)
    far.receive_all()
    far.send(1000)
    near.receive_all()
    there.await_counted("MPTcpExt", "MPJoinAckRx", 1)
    close(*((near, far) if first == "client" else (far, near)))
    assert trace.until(lambda _: all(len(closes(paths_of(trace, each))) == 2 for each in (here, there)))
    for network, end in ((here, near), (there, far)):
        (whole,) = {event.conn for event in of(trace, network) if event.proto == "mptcp"}
        paths = paths_of(trace, network)
        assert {(event.subflow_of, event.pid, event.pre_existing) for event in paths} == {(whole, end.actor.pid, None)}
        assert {frozenset((event.local_addr, event.remote_addr)) for event in closes(paths)} == {
            frozenset(("10.9.0.1", "10.9.0.2")),
            frozenset(("10.9.0.3", "10.9.0.2")),
        }
        assert all(event.duration_ns for event in closes(paths))


def of(trace: Trace, network: Network) -> list[ConnectionEvent]:
    return [event for event in trace.events if isinstance(event, ConnectionEvent) and event.netns == network.inode]


def paths_of(trace: Trace, network: Network) -> list[ConnectionEvent]:
    return [event for event in of(trace, network) if event.proto == "tcp"]


def closes(events: list[ConnectionEvent]) -> list[Close]:
    return [event for event in events if isinstance(event, Close)]


def test_a_peer_without_mptcp(trace: Trace, client: Actor, server: Actor) -> None:
    """The connection falls back to TCP: for its process it is the MPTCP socket all the same."""
    listener = listen(server)
    near = connect(client, listener.address, mptcp=True)
    far = listener.accept()
    near.peer, far.peer = far, near
    near.send(1000)
    far.receive_all()
    close(near, far)
    trace.tells(Told(near, OUT, ended="local_close"), Told(far, IN, ended="remote_close"))


def test_refused(trace: Trace, client: Actor) -> None:
    end = connect(client, ("127.0.0.1", 9), mptcp=True, source=("127.0.0.1", 4000))
    assert end.error == "ECONNREFUSED"
    trace.tells(Told(end, "connect failed", reason="refused", error="ECONNREFUSED"))
