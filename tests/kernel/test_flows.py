"""What a UDP conversation carried: each datagram that the kernel took or handed over, once, whoever did it and how.

Each rung that the kernel has tells the same; where it cannot, the test says what it tells instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pytracecon import Endpoint, Flow, Lost, Tracer
from pytracecon.errors import UnsupportedKernel
from traffic.actor import has_io_uring
from traffic.datagrams import Socket, Told, flows, told_of, udp
from traffic.network import Network
from traffic.trace import Beacon, Trace

V4, V6, MAPPED = ("127.0.0.1", 0), ("::1", 0), ("::ffff:127.0.0.1", 0)
NOBODY = ("127.0.0.1", 9)


@dataclass
class Rung:
    """A tracer that stands on one rung alone, and sockets that were there before it: a server's and a client's."""

    trace: Trace
    sees_packets: bool
    """Or only what a call says: not from whom, if it does not ask; nor where to, nor how many in one."""
    network: Network
    older: tuple[Socket, Socket]


@pytest.fixture(scope="module")
def refused() -> set[str]:
    """Rungs that this kernel does not have: to find that out takes a start each time."""
    return set()


@pytest.fixture(scope="module")
def rung(request: pytest.FixtureRequest, program: Path, beacon: Beacon, refused: set[str]) -> Iterator[Rung]:
    if request.param in refused:
        pytest.skip(f"{request.param} programs do not attach in this kernel")
    network = Network(program)
    older = udp(network.actor("server"), bound=("127.0.0.1", 7000)), udp(network.actor("client"), bound=V4)
    try:
        with Tracer(events="flow,failed", probes=request.param, names=False, ring_size="64M") as tracer:
            received = {probe.rung for probe in tracer.probes if probe.attached and probe.need == "udp received"}
            assert received == {request.param}
            yield Rung(Trace(tracer, beacon), request.param != "tracepoint", network, older)
    except UnsupportedKernel:
        refused.add(request.param)
        pytest.skip(f"{request.param} programs do not attach in this kernel")
    finally:
        network.close()


Traffic = Callable[[Network, bool], list[Told]]


def assert_told(trace: Trace, network: Network, told: list[Told]) -> None:
    trace.until(lambda events: len(flows(events, network)) >= len(told), within=10)
    events = trace.settle()
    assert sorted(map(repr, map(told_of, flows(events, network)))) == sorted(map(repr, told))
    assert [event for event in events if isinstance(event, Lost)] == []


def hear_each(socket: Socket, sizes: str, how: str = "recvfrom") -> None:
    """Just these datagrams are there."""
    assert [str(socket.hear(how).result) for _ in sizes.split()] == sizes.split()


def connected(family: int, here: tuple[str, int]) -> Traffic:
    def traffic(network: Network, _sees: bool) -> list[Told]:
        server = udp(network.actor("server"), family, bound=here)
        client = udp(network.actor("client"), family, to=server.address)
        client.send(100)
        client.send(200)
        hear_each(server, "100 200")
        server.tell(3000, client.address)
        hear_each(client, "3000", "recv")
        client.close()
        server.close()
        return [
            client.flow(server.address, sent="100 200", received="3000"),
            server.flow(client.address, sent="3000", received="100 200", direction="in"),
        ]

    traffic.__name__ = f"connected_{here[0]}"
    return traffic


def unconnected(network: Network, _sees: bool) -> list[Told]:
    """A socket for all families has peers of both."""
    server, client = udp(network.actor("server"), 6, bound=("::", 0)), udp(network.actor("client"), 6, bound=("::", 0))
    port, told = server.address[1], []
    for size, addr in ((10, "::1"), (20, "::ffff:127.0.0.1")):
        client.tell(size, (addr, port))
        sender = tuple(server.hear().extra["from"])
        server.tell(size + 1, sender)
        hear_each(client, str(size + 1))
        here, there = addr.removeprefix("::ffff:"), sender[0].removeprefix("::ffff:")
        told += [
            client.flow((addr, port), sent=f"{size}", received=f"{size + 1}", local=(there, client.address[1])),
            server.flow(sender, sent=f"{size + 1}", received=f"{size}", direction="in", local=(here, port)),
        ]
    for each in (server, client):
        each.close()
    return told


def to_no_address_in_particular(network: Network, _sees: bool) -> list[Told]:
    """The kernel sends it to this host: who answers is who was asked."""
    told = []
    for family, here, anywhere in ((4, V4, "0.0.0.0"), (6, V6, "::")):
        server, client = udp(network.actor("server"), family, bound=here), udp(network.actor("client"), family)
        client.tell(10, (anywhere, server.address[1]))
        sender = tuple(server.hear().extra["from"])
        server.tell(11, sender)
        hear_each(client, "11")
        told += [
            client.flow(server.address, sent="10", received="11", local=sender),
            server.flow(sender, sent="11", received="10", direction="in"),
        ]
        for each in (server, client):
            each.close()
    return told


def many_to_many(network: Network, _sees: bool) -> list[Told]:
    """Some sockets of a process to the same servers: as many conversations as there are pairs."""
    server, client = network.actor("server"), network.actor("client")
    servers = [udp(server, bound=V4) for _ in range(3)]
    clients = [udp(client, bound=V4) for _ in range(3)]
    told = []
    for at, near in enumerate(clients):
        for by, far in enumerate(servers):
            size = str(100 * at + by)
            near.tell(int(size), far.address)
            hear_each(far, size)
            told += [near.flow(far.address, sent=size), far.flow(near.address, received=size)]
    for each in clients + servers:
        each.close()
    return told


def a_server_for_all_addresses(network: Network, sees: bool) -> list[Told]:
    """Where datagrams are sent to is known of the packet, or when an answer leaves."""
    silent, polite = (udp(network.actor("server"), bound=("0.0.0.0", 0)) for _ in range(2))
    client = udp(network.actor("client"), bound=V4)
    for server in (silent, polite):
        client.tell(5, ("127.0.0.7", server.address[1]))
        hear_each(server, "5")
    polite.tell(6, client.address)
    for each in (silent, polite, client):
        each.close()
    return [
        client.flow(("127.0.0.7", silent.address[1]), sent="5"),
        client.flow(("127.0.0.7", polite.address[1]), sent="5"),
        silent.flow(client.address, received="5", local=("127.0.0.7" if sees else None, silent.address[1])),
        # It answers from another address than it was asked at: who told of that has one that it did not ask.
        polite.flow(
            client.address,
            sent="6",
            received="5",
            direction="in",
            local=("127.0.0.7" if sees else "127.0.0.1", polite.address[1]),
        ),
    ]


SENDS = ("send", "dontwait", "write", "writev", "sendmsg", "sendfile", "splice")


def every_way_to_send(network: Network, _sees: bool) -> list[Told]:
    server, client = udp(network.actor("server"), bound=V4), udp(network.actor("client"), bound=V4)
    to, sizes = server.address, []
    for size, how in enumerate(("sendto", "sendmsg"), 1):
        client.tell(size, to, how)
        sizes.append(size)
    client.tell(7, to, "sendmmsg")
    client.tell(0, to)
    client.connect(to)
    for size, how in enumerate(SENDS, 1000):
        client.send(size, how)
        sizes.append(size)
    client.send(5000, "sendmmsg")
    sent = " ".join(map(str, [*sizes[:2], 7, 7, 7, 0, *sizes[2:], 2500, 2500]))
    hear_each(server, sent)
    for each in (client, server):
        each.close()
    return [client.flow(to, sent=sent), server.flow(client.address, received=sent)]


def one_datagram_of_several_sends(network: Network, _sees: bool) -> list[Told]:
    server, client = udp(network.actor("server"), bound=V4), udp(network.actor("client"), bound=V4)
    for how in ("more", "more", "sendto"):
        client.tell(100, server.address, how)
    client.connect(server.address)
    client.set("UDP_CORK", 1)
    client.send(20)
    client.send(30)
    client.set("UDP_CORK", 0)
    hear_each(server, "300 50")
    for each in (client, server):
        each.close()
    return [client.flow(server.address, sent="300 50"), server.flow(client.address, received="300 50")]


def several_datagrams_of_one_send(network: Network, sees: bool) -> list[Told]:
    server, client = udp(network.actor("server"), bound=V4), udp(network.actor("client"), bound=V4)
    client.connect(server.address)
    client.set("UDP_SEGMENT", 100)
    client.send(450)
    hear_each(server, "100 100 100 100 50")
    server.set("UDP_GRO", 1)
    client.send(300)
    heard = [server.hear().result]
    while sum(heard) < 300:  # not every kernel's loopback leaves them in one piece
        heard.append(server.hear().result)
    for each in (client, server):
        each.close()
    parts = "100 100 100 100 50"
    return [
        client.flow(server.address, sent=f"{parts} 100 100 100"),
        server.flow(client.address, received=f"{parts} 100 100 100" if sees else " ".join(map(str, [parts, *heard]))),
    ]


def larger_than_a_frame(network: Network, _sees: bool) -> list[Told]:
    """Fragments are no datagrams."""
    network.ip("link set lo mtu 1500")
    told = []
    for family, here in ((4, V4), (6, V6)):
        server = udp(network.actor("server"), family, bound=here)
        client = udp(network.actor("client"), family, to=server.address)
        client.send(60_000)
        hear_each(server, "60000")
        told += [client.flow(server.address, sent="60000"), server.flow(client.address, received="60000")]
        client.close()
        server.close()
    return told


def every_way_to_receive(network: Network, sees: bool) -> list[Told]:
    """With MSG_TRUNC the kernel says how long a datagram was, not how much of it found room: that is what counts."""
    server, client = udp(network.actor("server"), bound=V4), udp(network.actor("client"), bound=V4)
    asking, silent = ("recvfrom", "recvmsg", "recvmmsg"), ("recv", "read")
    for size, how in enumerate(asking + silent, 100):
        client.tell(size, server.address)
        hear_each(server, str(size), how)
    client.tell(1000, server.address)
    assert [server.hear("peek").result for _ in range(3)] == [1000] * 3
    assert server.hear("recvfrom", 10).result == 10
    client.tell(0, server.address)
    assert [server.hear("peek").result for _ in range(2)] == [0, 0]
    assert server.hear("recvfrom").result == 0
    client.tell(2000, server.address)
    assert server.hear("trunc", 10).result == 2000
    for each in (client, server):
        each.close()
    told = [client.flow(server.address, sent="100 101 102 103 104 1000 0 2000")]
    if sees:
        return [*told, server.flow(client.address, received="100 101 102 103 104 10 0 2000")]
    return [*told, server.flow(client.address, received="100 101 102 10 0 2000"), server.flow(None, received="103 104")]


def connected_ways_to_receive(network: Network, _sees: bool) -> list[Told]:
    server, client = udp(network.actor("server"), bound=V4), udp(network.actor("client"), bound=V4)
    server.connect(client.address)
    client.connect(server.address)
    ways = ("recv", "dontwait", "read", "readv", "recvmsg", "recvmmsg", "splice")
    for size, how in enumerate(ways, 100):
        client.send(size)
        assert server.actor.do("recv", server.fd, size, how).result == size
    for each in (client, server):
        each.close()
    sizes = " ".join(map(str, range(100, 100 + len(ways))))
    return [client.flow(server.address, sent=sizes), server.flow(client.address, received=sizes)]


def io_uring(network: Network, _sees: bool) -> list[Told]:
    if not has_io_uring():
        pytest.skip("io_uring is off in this kernel")
    server, client = udp(network.actor("server"), bound=V4), udp(network.actor("client"), bound=V4)
    ways = ("uring", "uring-async")
    for size, how in enumerate(ways, 10):
        client.tell(size, server.address, how)
        hear_each(server, str(size), how)
    client.connect(server.address)
    for size, how in enumerate(ways, 20):
        client.send(size, how)
        hear_each(server, str(size), how)
    for each in (client, server):
        each.close()
    return [client.flow(server.address, sent="10 11 20 21"), server.flow(client.address, received="10 11 20 21")]


def what_fails(network: Network, _sees: bool) -> list[Told]:
    """Too large, refused, dropped on its way out, without a way: none of it was sent."""
    chain = "add table inet t; add chain inet t out { type filter hook output priority 0; }"
    network.run("nft", f"{chain}; add rule inet t out udp dport 77 drop")
    actor = network.actor("client")
    client, refused = udp(actor, bound=V4), udp(actor, to=NOBODY)
    for to, size, error in (
        (NOBODY, 65_508, "EMSGSIZE"),
        (("127.0.0.1", 77), 10, "EPERM"),
        (("10.6.0.1", 80), 10, "ENETUNREACH"),
        (("255.255.255.255", 80), 10, "EACCES"),
    ):
        unbound = udp(actor) if error == "ENETUNREACH" else client
        assert actor.attempt("tell", unbound.fd, size, *to, "sendto").errno == error
        assert actor.attempt("tell", unbound.fd, size, *to, "sendmsg").errno == error
    refused.set("IP_RECVERR", 1)
    refused.send(100)
    assert actor.attempt("send", refused.fd, 50, "send").errno == "ECONNREFUSED"
    assert refused.hear("errqueue").result == 100
    refused.close()
    client.close()
    return [refused.flow(NOBODY, sent="100")]


def what_finds_no_room(network: Network, _sees: bool) -> list[Told]:
    server, client = udp(network.actor("server"), bound=V4), udp(network.actor("client"), bound=V4)
    server.connect(client.address)
    server.set("SO_RCVBUF", 4096)
    for _ in range(20):
        client.tell(1000, server.address)
    heard = 0
    while not server.actor.attempt("recv", server.fd, 1000, "dontwait").errno:
        heard += 1
    client.close()
    server.close()
    assert 0 < heard < 20
    sent, received = " ".join(["1000"] * 20), " ".join(["1000"] * heard)
    return [client.flow(server.address, sent=sent), server.flow(client.address, received=received)]


def to_a_group(group: str, source: str, everywhere: str) -> Traffic:
    def traffic(network: Network, sees: bool) -> list[Told]:
        """The kernel gives a copy to each listener of this host, and sends one to the network all the same."""
        network.ip("link add group0 type veth peer name group1", "address add 10.9.0.1/24 dev group0")
        network.ip("address add fd00:9::1/64 dev group0 nodad", "link set group0 up", "link set group1 up")
        family = 6 if ":" in group else 4
        server = network.actor("server")
        receivers: list[Socket] = []
        for _ in range(2):
            receiver = udp(server, family)
            receiver.set("SO_REUSEADDR", 1)
            server.do("bind", receiver.fd, everywhere, 7777)
            receiver.address = (everywhere, 7777)
            if not group.endswith(".255"):
                server.do("join", receiver.fd, group, "group0")
            receivers.append(receiver)
        client = udp(network.actor("client"), family, bound=(source, 0))
        if group.endswith(".255"):
            client.set("SO_BROADCAST", 1)
        else:
            client.actor.do("join", client.fd, group, "group0")
        sizes = "100 200 300 400 500 600"
        for size in sizes.split():
            client.tell(int(size), (group, 7777))
            for receiver in receivers:
                hear_each(receiver, size)  # before the next: that one may lie where this one lay
        for each in (client, *receivers):
            each.close()
        local = (group if sees else None, 7777)
        return [
            client.flow((group, 7777), sent=sizes),
            *(each.flow(client.address, received=sizes, local=local) for each in receivers),
        ]

    traffic.__name__ = f"to_a_group_{group}"
    return traffic


def parent_and_child(network: Network, _sees: bool) -> list[Told]:
    """One socket, two owners; and threads of one."""
    server = udp(network.actor("server"), bound=V4)
    parent = udp(network.actor("parent"), bound=V4)
    child = parent.held_by(parent.actor.fork("child"))
    thread = parent.held_by(parent.actor.thread("thread"))
    for size, each in ((1, parent), (20, child), (300, thread)):
        each.tell(size, server.address)
    hear_each(server, "1 20 300")
    for size, each in ((4, child), (5, parent)):
        server.tell(size, parent.address)
        hear_each(each, str(size))
    for each in (parent, child, server):
        each.close()
    return [
        parent.flow(server.address, sent="1 300", received="5"),
        child.flow(server.address, sent="20", received="4"),
        server.flow(parent.address, received="1 20 300", sent="4 5", direction="in"),
    ]


def through_a_translation(network: Network, _sees: bool) -> list[Told]:
    """The remote is whom the client asked, and who answers it."""
    server = udp(network.actor("server"), bound=V4)
    network.ip("address add 10.99.0.9/32 dev lo", "route add 10.99.0.0/24 dev lo src 10.99.0.9")
    chain = "add table ip n; add chain ip n out { type nat hook output priority -100; }"
    rule = f"add rule ip n out ip daddr 10.99.0.1 udp dport 53 dnat to 127.0.0.1:{server.address[1]}"
    network.run("nft", f"{chain}; {rule}")
    actor, asked, told = network.actor("client"), ("10.99.0.1", 53), []
    told_server = []
    for at in range(2):
        client = udp(actor, bound=("10.99.0.9", 0))
        if at:
            client.connect(asked)
            client.send(100)
        else:
            client.tell(100, asked)
        hear_each(server, "100")
        server.tell(300, client.address)
        assert client.hear().extra["from"] == list(asked)
        client.close()
        told.append(client.flow(asked, sent="100", received="300", nat=Endpoint(*server.address)))
        told_server.append(server.flow(client.address, sent="300", received="100", direction="in"))
    server.close()
    return told + told_server


def initials_of_quic(network: Network, _sees: bool) -> list[Told]:
    """A long header of version 1 or 2 with a connection id; neither a short one, nor what is no QUIC."""
    server, actor, told = udp(network.actor("server"), bound=V4), network.actor("client"), []
    rest = "08" + "11" * 8 + "00" * 1180
    for start, app in (
        ("c000000001", "quic"),
        ("d06b3343cf", "quic"),
        ("ff1a2a3a4a", "quic"),
        ("4000000001", None),
        ("8000000001", None),
        ("c000000000", None),
        ("c012010000", None),
    ):
        client = udp(actor, to=server.address)
        actor.do("say", client.fd, f"hex:{start}{rest}")
        hear_each(server, "1194")
        client.close()
        told += [client.flow(server.address, sent="1194", app=app), server.flow(client.address, received="1194")]
    query = udp(actor, to=server.address)
    actor.do("say", query.fd, "hex:c0000100000100000000000003777777076578616d706c6503636f6d0000010001")
    hear_each(server, "33")
    query.close()
    server.close()
    return [*told, query.flow(server.address, sent="33"), server.flow(query.address, received="33")]


TOUR: list[Traffic] = [
    connected(4, V4),
    connected(6, V6),
    connected(6, MAPPED),
    unconnected,
    to_no_address_in_particular,
    many_to_many,
    a_server_for_all_addresses,
    every_way_to_send,
    one_datagram_of_several_sends,
    several_datagrams_of_one_send,
    larger_than_a_frame,
    every_way_to_receive,
    connected_ways_to_receive,
    io_uring,
    what_fails,
    what_finds_no_room,
    to_a_group("239.1.2.3", "10.9.0.1", "0.0.0.0"),
    to_a_group("ff05::77", "fd00:9::1", "::"),
    to_a_group("10.9.0.255", "10.9.0.1", "0.0.0.0"),
    parent_and_child,
    through_a_translation,
    initials_of_quic,
]


SHORT = (unconnected, a_server_for_all_addresses, several_datagrams_of_one_send, every_way_to_receive)
"""Where rungs differ."""


def cases() -> Iterator[Any]:
    """All of it on the best rung of each kernel, and on the one that sees least."""
    for rung in ("fentry", "kprobe", "tracepoint"):
        for traffic in SHORT if rung == "kprobe" else TOUR:
            late = rung == "tracepoint" and traffic not in SHORT
            marks = [pytest.mark.slow(reason="the hook is the same in all kernels that have it")] if late else []
            yield pytest.param(rung, traffic, marks=marks, id=f"{rung}-{traffic.__name__}")


@pytest.mark.parametrize(("rung", "traffic"), list(cases()), indirect=["rung"])
def test_each_datagram_counts_once(rung: Rung, network: Network, traffic: Traffic) -> None:
    rung.trace.restart()
    assert_told(rung.trace, network, traffic(network, rung.sees_packets))


@pytest.mark.parametrize("rung", ["fentry", "kprobe", "tracepoint"], indirect=True)
def test_of_older_sockets_the_one_with_a_port_of_its_choice_is_spoken_to(rung: Rung) -> None:
    """Though it speaks first: who did so before the tracer came is not known."""
    rung.trace.restart()
    server, client = rung.older
    client.connect(server.address)
    server.tell(10, client.address)
    client.hear()
    client.send(20)
    server.hear()
    for each in (client, server):
        each.close()
    older = {"pre_existing": True}
    assert_told(
        rung.trace,
        rung.network,
        [
            server.flow(client.address, sent="10", received="20", direction="in", **older),
            client.flow(server.address, sent="20", received="10", direction="out", **older),
        ],
    )


@pytest.mark.slow(reason="one kind of tunnel is like the other")
def test_what_goes_through_a_tunnel_counts_once(traced: Callable[..., Trace], networks: Callable[[], Network]) -> None:
    """Though it is carried by UDP, of a socket that no process has."""
    here, there = networks(), networks()
    here.wire(there, "10.9.0.1/24", "10.9.0.2/24")
    for network, other, inner in ((here, "10.9.0.2", "10.8.0.1"), (there, "10.9.0.1", "10.8.0.2")):
        network.ip(
            f"link add tunnel type vxlan id 5 remote {other} dstport 4789",
            f"address add {inner}/24 dev tunnel",
            "link set tunnel up",
        )
    trace = traced(events="flow", netns=[here.path, there.path])
    server = udp(there.actor("server"), bound=("10.8.0.2", 7000))
    client = udp(here.actor("client"), to=server.address)
    client.send(100)
    hear_each(server, "100")
    server.tell(200, client.address)
    hear_each(client, "200")
    client.close()
    server.close()
    trace.settle()
    assert [told_of(event) for event in trace.events if isinstance(event, Flow)] == [
        client.flow(server.address, sent="100", received="200"),
        server.flow(client.address, sent="200", received="100", direction="in"),
    ]
