"""Connections in and between network namespaces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from pytracecon import ConnectionEvent
from traffic.end import close, listen, pair
from traffic.network import Network
from traffic.story import Told, story
from traffic.trace import Trace

OUT, IN = "connect established close", "accept close"


@pytest.mark.parametrize(("here_addr", "there_addr"), [("10.9.0.1", "10.9.0.2"), ("fd00:9::1", "fd00:9::2")])
@pytest.mark.parametrize("first", ["client", "server"])
def test_over_a_wire_each_end_is_in_its_own(
    trace: Trace, networks: Callable[[], Network], here_addr: str, there_addr: str, first: str
) -> None:
    here, there = networks(), networks()
    bits = 24 if "." in here_addr else 64
    here.wire(there, f"{here_addr}/{bits}", f"{there_addr}/{bits}")
    near, far = pair(here.actor("client"), listen(there.actor("server"), there_addr))
    near.send(4000)
    far.receive_all()
    far.send(20)
    near.receive_all()
    close(*((near, far) if first == "client" else (far, near)))
    assert {near.opened.netns, far.opened.netns} == {here.inode, there.inode}
    ended = ("local_close", "remote_close") if first == "client" else ("remote_close", "local_close")
    trace.tells(Told(near, OUT, ended=ended[0]), Told(far, IN, ended=ended[1]))


def test_the_same_four_tuple_in_two_namespaces_is_two_connections(
    trace: Trace, networks: Callable[[], Network]
) -> None:
    pairs = [
        pair(network.actor("client"), listen(network.actor("server"), port=8000), source=("127.0.0.1", 9000))
        for network in (networks(), networks())
    ]
    for amount, (near, far) in enumerate(pairs, start=1):
        near.send(amount)
        far.receive_all()
    for near, far in pairs:
        close(near, far)
    ends = [end for each in pairs for end in each]
    assert len({(end.local, end.remote) for end in ends}) == 2
    trace.tells(
        *(Told(near, OUT, ended="local_close") for near, _ in pairs),
        *(Told(far, IN, ended="remote_close") for _, far in pairs),
    )
    assert len({story(trace.events, end)[0].conn for end in ends}) == 4


def test_a_process_that_moved_on_keeps_its_socket_where_it_was(trace: Trace, networks: Callable[[], Network]) -> None:
    """The namespace is the socket's, not that of whoever holds it."""
    home, abroad = networks(), networks()
    client = home.actor("client")
    near, far = pair(client, listen(home.actor("server")))
    with open(abroad.path) as place:
        client.do("enter", fd=place.fileno())
    assert client.do("hello").netns == abroad.inode
    close(near, far)
    trace.tells(Told(near, OUT, ended="local_close"), Told(far, IN, ended="remote_close"))


def test_2000_connections_one_after_another_have_names_of_their_own(trace: Trace, network: Network) -> None:
    """The kernel uses the same few socks for all of them; a connection's name is never used again."""
    assert network.actor("both").do("flood", 2000, 0).result == 2000
    by_name: dict[str, list[str]] = {}
    for event in trace.settle():
        if isinstance(event, ConnectionEvent) and event.netns == network.inode:
            by_name.setdefault(event.conn, []).append(event.event)
    told = Counter(tuple(kinds) for kinds in by_name.values())
    assert told == {tuple(OUT.split()): 2000, tuple(IN.split()): 2000}
