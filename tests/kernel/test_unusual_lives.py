"""Connections that do not begin, live or end as most do."""

from __future__ import annotations

from collections.abc import Callable

from pytracecon import ConnectionEvent, Established
from traffic.actor import Actor
from traffic.end import begin_connect, close, connect, listen, pair
from traffic.network import Network
from traffic.story import KNOWN, Told, event_of, story
from traffic.trace import Trace

OUT, IN = "connect established close", "accept close"


def test_a_peer_that_vanishes_ends_it_by_timeout(trace: Trace, networks: Callable[[], Network]) -> None:
    here, there = networks(), networks()
    here.wire(there, "10.9.0.1/24", "10.9.0.2/24")
    near, far = pair(here.actor("client"), listen(there.actor("server"), "10.9.0.2"))
    near.set("TCP_USER_TIMEOUT", 500)
    there.ip("route add blackhole 10.9.0.1/32")  # it hears, and answers no more
    near.send(300)
    near.await_end()
    near.close()
    assert near.resent > 0
    trace.tells(Told(near, OUT, ended="timeout", tx_acked=0), alone=False)
    assert [event.event for event in story(trace.events, far)] == ["accept"], "the other end knows nothing of it yet"


def test_a_connection_that_nobody_accepts_belongs_to_the_listener(trace: Trace, client: Actor, server: Actor) -> None:
    listener = listen(server)
    near = connect(client, listener.address)
    near.send(60)
    far = listener.pending(near)
    listener.close()
    near.await_end()
    near.close()
    trace.tells(Told(near, OUT, ended="remote_reset"), Told(far, "close", ended="local_reset"))


def test_reset_before_accept_is_closed_once_and_accepted_once(trace: Trace, client: Actor, server: Actor) -> None:
    listener = listen(server)
    near = connect(client, listener.address)
    far = listener.pending(near)
    near.send(60)
    near.reset()
    far.settled = server.do("accept", listener.socket)
    trace.tells(
        Told(near, OUT, ended="local_reset"),
        Told(far, "close accept", ended="remote_reset", facts={"owner": KNOWN}),
    )
    assert [event.owner for event in story(trace.events, far)] == ["listen", "accept"]


def test_a_socket_connected_to_itself_is_one_connection(trace: Trace, client: Actor) -> None:
    itself = ("127.0.0.1", 4321)
    end = connect(client, itself, source=itself)
    end.peer = end
    end.send(500)
    end.receive_all()
    end.close()
    trace.tells(Told(end, OUT, ended="local_close"))


def test_two_sockets_that_call_each_other_are_both_outbound(trace: Trace, networks: Callable[[], Network]) -> None:
    here, there = networks(), networks()
    here.wire(there, "10.9.0.1/24", "10.9.0.2/24")
    device = f"to{there.inode}"
    here.ip(f"neighbour replace 10.9.0.2 lladdr 02:00:00:00:00:99 dev {device}")  # what `one` sends is lost
    one, two = here.actor("one"), there.actor("two")
    calls = [begin_connect(one, ("10.9.0.2", 2222), source=("10.9.0.1", 1111))]
    calls += [begin_connect(two, ("10.9.0.1", 1111), source=("10.9.0.2", 2222))]
    here.ip(f"neighbour delete 10.9.0.2 dev {device}")
    near, far = (call.finish() for call in calls)
    near.peer, far.peer = far, near
    near.send(500)
    far.receive_all()
    close(near, far)
    trace.tells(
        Told(near, OUT, ended="local_close", syn_retransmits=near.resent),
        Told(far, OUT, ended="remote_close", syn_retransmits=far.resent),
    )


def test_a_slow_handshake_counts_its_syns(trace: Trace, networks: Callable[[], Network]) -> None:
    here, there = networks(), networks()
    here.wire(there, "10.9.0.1/24", "10.9.0.2/24")
    there.ip("route add blackhole 10.9.0.1/32")
    listener = listen(there.actor("server"), "10.9.0.2")
    call = begin_connect(here.actor("client"), listener.address)
    call.await_resent()
    there.ip("route delete blackhole 10.9.0.1/32")
    near, far = call.finish(), listener.accept()
    near.peer, far.peer = far, near
    close(near, far)
    assert near.resent >= 1
    trace.tells(
        Told(near, OUT, ended="local_close", syn_retransmits=near.resent),
        Told(far, IN, ended="remote_close"),
    )
    latency = event_of(trace.events, near, Established).latency_ns
    assert latency is not None and latency >= 900_000_000, "a SYN is sent again after a second"


def test_behind_syn_cookies(trace: Trace, network: Network, client: Actor, server: Actor) -> None:
    """The server keeps nothing of a SYN: the connection is born of the last packet of the handshake."""
    network.sysctl("net.ipv4.tcp_syncookies", 2)
    near, far = pair(client, listen(server))
    near.send(1000)
    far.receive_all()
    close(near, far)
    trace.tells(Told(near, OUT, ended="local_close"), Told(far, IN, ended="remote_close"))


def test_a_server_that_waits_for_data(trace: Trace, client: Actor, server: Actor) -> None:
    """With TCP_DEFER_ACCEPT the last packet of the handshake is ignored if it brings nothing."""
    listener = listen(server, options={"TCP_DEFER_ACCEPT": 5})
    near = connect(client, listener.address)
    near.send(1000)
    far = listener.accept()
    near.peer, far.peer = far, near
    far.receive_all()
    close(near, far)
    trace.tells(Told(near, OUT, ended="local_close"), Told(far, IN, ended="remote_close"))


def test_to_no_address_means_this_host(trace: Trace, client: Actor, server: Actor) -> None:
    near, far = pair(client, listen(server), to="0.0.0.0")
    close(near, far)
    assert near.remote[0] == "127.0.0.1"
    trace.tells(Told(near, OUT, ended="local_close"), Told(far, IN, ended="remote_close"))


def test_a_socket_that_disconnects_and_connects_anew(trace: Trace, client: Actor, server: Actor) -> None:
    listener = listen(server)
    near, far = pair(client, listener)
    client.do("disconnect", near.socket)
    far.await_end()
    far.close()
    again = connect(client, listener.address, socket=near.socket)
    again_far = listener.accept()
    again.peer, again_far.peer = again_far, again
    again.send(20)
    again_far.receive_all()
    close(again, again_far)
    trace.tells(
        Told(near, OUT, ended="local_reset"),
        Told(far, IN, ended="remote_reset"),
        Told(again, OUT, ended="local_close"),
        Told(again_far, IN, ended="remote_close"),
    )


def test_the_same_four_tuple_again_is_another_connection(trace: Trace, client: Actor, server: Actor) -> None:
    """The server closes first and remembers the tuple (TIME_WAIT); the client comes back from the same port."""
    listener = listen(server)
    near, far = pair(client, listener, source=("127.0.0.1", 4000))
    far.send(100)
    near.receive_all()
    close(far, near)
    again, again_far = pair(client, listener, source=("127.0.0.1", 4000))
    again_far.send(7)
    again.receive_all()
    close(again_far, again)
    assert (near.local, near.remote) == (again.local, again.remote)
    trace.until(lambda events: sum(event.event == "close" for event in story(events, near)) == 2)
    trace.settle()
    stories: dict[str, list[ConnectionEvent]] = {}
    for event in story(trace.events, near) + story(trace.events, far):
        stories.setdefault(event.conn, []).append(event)
    assert [" ".join(event.event for event in events) for events in stories.values()] == [OUT, OUT, IN, IN]
    closes = [events[-1] for events in stories.values()]
    assert [getattr(event, "tx_bytes", None) for event in closes] == [0, 0, 100, 7]
    assert [getattr(event, "rx_bytes", None) for event in closes] == [100, 7, 0, 0]
