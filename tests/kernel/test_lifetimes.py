"""A connection from its birth to its death, told by both ends: every address family, way of connecting and ending."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytracecon import Established
from traffic.actor import Actor
from traffic.end import End, Listener, begin_connect, close, connect, listen, pair
from traffic.network import Network
from traffic.story import KNOWN, Told, event_of, story
from traffic.trace import Trace

OUT, IN = "connect established close", "accept close"

ADDRESSES = {"IPv4": "127.0.0.1", "IPv6": "::1", "IPv4-mapped": "::ffff:127.0.0.1"}
WAYS = [
    pytest.param("", "", id="blocking"),
    pytest.param("nonblock", "null", id="non-blocking, accepted without asking who"),
    pytest.param("uring", "uring", id="io_uring", marks=pytest.mark.io_uring),
    pytest.param("uring-async", "uring-async", id="io_uring's workers", marks=pytest.mark.io_uring),
]


@pytest.fixture
def listener(server: Actor) -> Listener:
    return listen(server, "::")


@pytest.mark.parametrize("first", ["client", "server"])
@pytest.mark.parametrize(("how", "accept"), WAYS)
@pytest.mark.parametrize("address", ADDRESSES)
def test_both_ends_tell_their_own_story(
    trace: Trace, client: Actor, listener: Listener, address: str, how: str, accept: str, first: str
) -> None:
    near, far = pair(client, listener, to=ADDRESSES[address], how=how, accept=accept)
    near.send(100)
    far.receive_all()
    far.send(23)
    near.receive_all()
    close(*((near, far) if first == "client" else (far, near)))

    trace.tells(
        Told(near, OUT, ended="local_close" if first == "client" else "remote_close"),
        Told(far, IN, ended="local_close" if first == "server" else "remote_close"),
    )


def half_closed_by_client(near: End, far: End) -> None:
    near.shutdown("wr")
    far.await_end()
    far.send(1000)
    near.receive_all()
    close(far, near)


def half_closed_by_server(near: End, far: End) -> None:
    far.shutdown("wr")
    near.await_end()
    near.send(1000)
    far.receive_all()
    close(near, far)


def both_halves_shut(near: End, far: End) -> None:
    near.shutdown("rdwr")
    far.await_end()
    far.shutdown("rdwr")
    near.close()
    far.close()


def reset_by_client(near: End, far: End) -> None:
    near.reset()
    far.await_end()
    far.close()


def reset_by_server(near: End, far: End) -> None:
    far.reset()
    near.await_end()
    near.close()


def closed_by_client_with_unread_data(near: End, far: End) -> None:
    far.send(100)
    near.actor.do("await", near.socket, "in")
    near.close()
    far.await_end()
    far.close()


def closed_by_server_with_unread_data(near: End, far: End) -> None:
    near.send(100)
    far.actor.do("await", far.socket, "in")
    far.close()
    near.await_end()
    near.close()


def disconnected_by_client(near: End, far: End) -> None:
    near.actor.do("disconnect", near.socket)
    far.await_end()
    far.close()


def client_killed(near: End, far: End) -> None:
    near.actor.kill()
    far.await_end()
    far.close()


def server_killed(near: End, far: End) -> None:
    far.actor.kill()
    near.await_end()
    near.close()


def client_killed_with_unread_data(near: End, far: End) -> None:
    far.send(100)
    near.actor.do("await", near.socket, "in")
    near.actor.kill()
    far.await_end()
    far.close()


def last_holder_gone(near: End, far: End) -> None:
    child = near.actor.fork("heir")
    near.close()
    near.send(50, by=child)
    far.receive_all()
    child.kill()
    far.await_end()
    far.close()


def child_closes(near: End, far: End) -> None:
    child = near.actor.fork("heir")
    near.close()
    near.close(by=child)
    far.await_end()
    far.close()


def closed_by_another_thread(near: End, far: End) -> None:
    near.close(by=near.actor.thread("closer"))
    far.await_end()
    far.close()


ENDINGS: dict[Callable[[End, End], None], tuple[str, str]] = {
    half_closed_by_client: ("local_close", "remote_close"),
    half_closed_by_server: ("remote_close", "local_close"),
    both_halves_shut: ("local_close", "remote_close"),
    reset_by_client: ("local_reset", "remote_reset"),
    reset_by_server: ("remote_reset", "local_reset"),
    closed_by_client_with_unread_data: ("local_reset", "remote_reset"),
    closed_by_server_with_unread_data: ("remote_reset", "local_reset"),
    disconnected_by_client: ("local_reset", "remote_reset"),
    client_killed: ("local_close", "remote_close"),
    server_killed: ("remote_close", "local_close"),
    client_killed_with_unread_data: ("local_reset", "remote_reset"),
    last_holder_gone: ("local_close", "remote_close"),
    child_closes: ("local_close", "remote_close"),
    closed_by_another_thread: ("local_close", "remote_close"),
}


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.__name__)
def test_how_it_ended(trace: Trace, client: Actor, server: Actor, ending: Callable[[End, End], None]) -> None:
    near, far = pair(client, listen(server))
    near.send(7)
    far.receive_all()
    ending(near, far)
    near_ended, far_ended = ENDINGS[ending]
    trace.tells(Told(near, OUT, ended=near_ended), Told(far, IN, ended=far_ended))


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
