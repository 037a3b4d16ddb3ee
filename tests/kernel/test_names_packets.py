"""Names that are asked for by packets: whatever socket asks, however the answer comes, whoever the server is."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from pytracecon import Event
from traffic.actor import Actor
from traffic.answers import NameServer, addresses
from traffic.cases import with_slow
from traffic.end import close, listen, pair
from traffic.naming import assert_asked, lookups, name_of, the_lookup, visit
from traffic.network import Network
from traffic.resolver import DNSMASQ, HUGE, MANY, SCRIPTED, Place
from traffic.trace import Trace

A, AAAA = 1, 28
WAYS = ["connected", "unconnected", "sendmmsg", "unconnected-sendmmsg", "tcp", "tcp-bytes"]
TO_EITHER = [(way, server) for way in WAYS for server in (DNSMASQ, "::1")]
QUICK = [(way, DNSMASQ) for way in WAYS] + [("unconnected", "::1"), ("tcp", "::1")]
BIG = tuple(f"10.3.{third}.{last}" for third in range(2) for last in range(1, 101))


@pytest.fixture
def client(place: Place) -> Actor:
    return place.actor("client")


@pytest.mark.parametrize("way_and_server", with_slow(TO_EITHER, *QUICK), ids=" to ".join)
def test_any_socket_may_ask(trace: Trace, place: Place, client: Actor, way_and_server: tuple[str, str]) -> None:
    way, server = way_and_server
    step = client.do("resolve", "one.test", A, server, 53, way)
    end = visit(client, place.web, "127.0.0.11")
    events = trace.settle()
    facts = {"name": "one.test", "type": "A", "server": server, "result": "ok", "source": "dns", "within": None}
    assert_asked(the_lookup(events, client), step, **facts)
    assert name_of(events, end) == ("one.test", "dns")


@pytest.mark.parametrize("server", with_slow([DNSMASQ, "::1"], "::1"))
def test_a_thread_asks(trace: Trace, client: Actor, server: str) -> None:
    step = client.thread("asking").do("resolve", "both.test", AAAA, server, 53, "unconnected")
    lookup = the_lookup(trace.settle(), client)
    assert_asked(lookup, step, name="both.test", type="AAAA", server=server, result="ok")


@pytest.mark.parametrize("pieces", with_slow(["", "pieces"], "pieces"))
@pytest.mark.parametrize(
    ("name", "how", "least", "all_addresses"),
    [
        ("many.test", "connected", 500, MANY),
        ("big.scripted.test", "connected edns-4096", 3200, BIG),
        ("huge.test", "unconnected edns-8192", 6400, HUGE),
        ("huge.test", "tcp", 6400, HUGE),
    ],
    ids=["500", "3200", "6400", "6400 by tcp"],
)
def test_an_answer_of_any_size(
    trace: Trace,
    place: Place,
    client: Actor,
    name: str,
    how: str,
    least: int,
    all_addresses: tuple[str, ...],
    pieces: str,
) -> None:
    """Also where it is read into many small buffers: the packet is what counts."""
    place.scripted.says["big.scripted.test"] = addresses(*BIG)
    server = SCRIPTED if "scripted" in name else DNSMASQ
    step = client.do("resolve", name, A, server, 53, *how.split(), pieces)
    assert step.extra["size"] >= least and not step.extra["truncated"]
    assert sorted(step.extra["addresses"]) == sorted(all_addresses)
    events = trace.settle()
    assert_asked(the_lookup(events, client), step, name=name, type="A", result="ok", server=server)


def test_an_answer_over_tcp_that_comes_byte_by_byte(trace: Trace, place: Place, client: Actor) -> None:
    name = "bytes.scripted.test"
    place.scripted.says[name] = addresses("127.0.0.31", "127.0.0.32", in_pieces=True)
    step = client.do("resolve", name, A, SCRIPTED, 53, "tcp-bytes")
    end = visit(client, place.web, "127.0.0.32")
    events = trace.settle()
    assert_asked(the_lookup(events, client), step, name=name, type="A", result="ok", server=SCRIPTED)
    assert name_of(events, end) == (name, "dns")


def test_names_are_told_in_lower_case(trace: Trace, place: Place, client: Actor) -> None:
    """Resolvers mix the case of their questions, to know the answers again."""
    client.do("resolve", "oNe.TeSt", A, DNSMASQ, 53, "connected")
    end = visit(client, place.web, "127.0.0.11")
    events = trace.settle()
    assert the_lookup(events, client).name == "one.test"
    assert name_of(events, end) == ("one.test", "dns")


@pytest.mark.parametrize("count", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_many_questions_over_one_socket_are_each_a_lookup(
    trace: Trace, place: Place, client: Actor, count: int
) -> None:
    server = place.actor("server")
    socket = server.do("datagram", 4).fd
    server.do("bind", socket, "127.0.0.5", 53)
    server.begin("answers", socket, count, "10.4.0.0", -60)
    assert client.do("questions", count, "n#.flood.test", "127.0.0.5", 53, 0).result == count
    assert server.finish().result == count
    server.do("close", socket)

    def told(events: list[Event]) -> int:
        return len(lookups(events, client))

    trace.until(lambda events: told(events) >= count, within=20)
    found = lookups(trace.settle(), client)
    expected = {(f"n{at}.flood.test", f"10.4.{at >> 8}.{at & 255}") for at in range(count)}
    assert {(lookup.name, (lookup.addresses or [""])[0]) for lookup in found} == expected
    assert len(found) == count
    assert {lookup.result for lookup in found} == {"ok"}
    assert lookups(trace.events, server) == [], "who answers has asked nothing"


@pytest.mark.parametrize("how", with_slow(["connected", "unconnected edns-8192", "tcp"], "unconnected edns-8192"))
@pytest.mark.parametrize(("here_addr", "there_addr"), [("10.9.0.1", "10.9.0.2"), ("fd00:9::1", "fd00:9::2")])
def test_a_server_across_a_wire(
    trace: Trace, networks: Callable[[], Network], how: str, here_addr: str, there_addr: str
) -> None:
    """Answers arrive in softirq, large ones in fragments; it is told once, at the socket that asked."""
    here, there = networks(), networks()
    bits = 24 if "." in here_addr else 64
    here.wire(there, f"{here_addr}/{bits}", f"{there_addr}/{bits}")
    server = NameServer(there.path, there_addr)
    try:
        client, web = here.actor("client"), listen(there.actor("web"), there_addr)
        server.says["far.test"] = addresses(there_addr, *(HUGE if "edns" in how and "." in there_addr else ()))
        kind = A if "." in there_addr else AAAA
        step = client.do("resolve", "far.test", kind, there_addr, 53, *how.split())
        near, far = pair(client, web)
        close(near, far)
    finally:
        server.close()
    events = trace.settle()
    assert_asked(the_lookup(events, client), step, name="far.test", server=there_addr, result="ok")
    assert name_of(events, near) == ("far.test", "dns")
    assert [event for event in lookups(events, os.getpid()) if event.netns == there.inode] == []
