"""A connection from its birth to its death, told by both ends: every address family, way of connecting and ending."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from traffic.actor import Actor
from traffic.end import End, Listener, close, listen, pair
from traffic.network import Network
from traffic.story import Told
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


@pytest.mark.parametrize("first", ["client", "server"])
def test_data_that_nobody_takes_any_more_end_it_by_a_reset(
    trace: Trace, client: Actor, server: Actor, first: str
) -> None:
    """The kernel of the end that shut both halves resets, by the way that a reset goes that is received."""
    near, far = pair(client, listen(server))
    shut, other = (near, far) if first == "client" else (far, near)
    shut.send(7)
    other.receive_all()
    shut.shutdown("rdwr")
    other.await_end()
    other.send(100)
    shut.close()
    other.close()
    ways = {near: OUT, far: IN}
    trace.tells(
        Told(shut, ways[shut], ended="local_reset", rx_bytes=0),
        Told(other, ways[other], ended="remote_reset", tx_acked=0),
    )


def test_a_reset_to_who_shut_both_halves_is_the_peers(trace: Trace, client: Actor, server: Actor) -> None:
    near, far = pair(client, listen(server))
    near.shutdown("rdwr")
    far.await_end()
    far.reset()
    near.close()
    trace.tells(Told(near, OUT, ended="remote_reset"), Told(far, IN, ended="local_reset"))


def test_a_reset_behind_data_that_came_twice_is_the_peers(trace: Trace, networks: Callable[[], Network]) -> None:
    """The acknowledgement of the data is lost, and so they come again when nobody takes any more."""
    here, there = networks(), networks()
    here.wire(there, "10.9.0.1/24", "10.9.0.2/24")
    near, far = pair(here.actor("client"), listen(there.actor("server"), "10.9.0.2"))
    here.ip("route add blackhole 10.9.0.2/32")
    far.send(100)
    near.receive_all()
    near.close()
    far.await_info(lambda info: info["timeouts"] >= 1)
    far.reset()
    trace.tells(Told(near, OUT, ended="remote_reset"), Told(far, IN, ended="local_reset", tx_acked=0))
