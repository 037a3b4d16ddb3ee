"""The name in the first bytes of a TLS connection: where no lookup tells whose it is, it does."""

from __future__ import annotations

import ssl

import pytest

from pytracecon import Close, Connect, Established
from traffic.actor import Actor
from traffic.cases import with_slow
from traffic.end import End, close, pair
from traffic.naming import UNNAMED, name_of
from traffic.resolver import Place, in_hex
from traffic.story import event_of, story
from traffic.trace import Trace

ADDR = "127.0.0.14"
"""It has two names, of which nobody here asks unless said."""


@pytest.fixture
def client(place: Place) -> Actor:
    return place.actor("client")


def client_hello(name: str | None, *protocols: str) -> bytes:
    """What OpenSSL sends first."""
    context = ssl.create_default_context()
    context.check_hostname = False
    if protocols:
        context.set_alpn_protocols(list(protocols))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def put(end: End, data: bytes) -> None:
    """Hand exactly these bytes over in one call, and wait until the peer has them."""
    assert end.actor.do("put", end.socket, in_hex(data)).result == len(data)
    end.sent += len(data)
    assert end.peer
    while end.peer.received < end.sent:
        end.peer.receive(end.sent - end.peer.received)


def say(client: Actor, place: Place, *writes: bytes) -> End:
    """A connection whose client says this, and is closed."""
    near, far = pair(client, place.web, to=ADDR)
    near.set("TCP_NODELAY", 1)
    for data in writes:
        put(near, data)
    close(near, far)
    return near


def assert_named_by_hello(trace: Trace, end: End, name: str) -> None:
    """The close tells it; what came before the first bytes could not."""
    events = trace.settle()
    closed = event_of(events, end, Close)
    assert (closed.host, closed.host_source) == (name, "sni")
    for kind in (Connect, Established):
        event = event_of(events, end, kind)
        assert (event.host, event.host_source) == UNNAMED
    assert end.peer
    assert {event.host for event in story(events, end.peer)} == {None}


def test_a_connection_by_address_has_the_name_of_its_client_hello(trace: Trace, place: Place, client: Actor) -> None:
    assert_named_by_hello(trace, say(client, place, client_hello("shop.example")), "shop.example")


@pytest.mark.parametrize("at", with_slow([1, 5, 6, 43, 100, 140, -1], 1, 100))
def test_a_client_hello_in_two_writes(trace: Trace, place: Place, client: Actor, at: int) -> None:
    hello = client_hello("shop.example")
    assert_named_by_hello(trace, say(client, place, hello[:at], hello[at:]), "shop.example")


@pytest.mark.slow
def test_a_client_hello_byte_by_byte(trace: Trace, place: Place, client: Actor) -> None:
    hello = client_hello("shop.example")
    assert_named_by_hello(trace, say(client, place, *(bytes([byte]) for byte in hello)), "shop.example")


def test_a_long_client_hello(trace: Trace, place: Place, client: Actor) -> None:
    """Several kilobytes, as with keys of many kinds."""
    hello = client_hello("shop.example", *(f"protocol-{at:0200}" for at in range(20)))
    assert len(hello) > 4096
    assert_named_by_hello(trace, say(client, place, hello[:1400], hello[1400:2800], hello[2800:]), "shop.example")


def test_data_in_the_same_write_as_a_client_hello(trace: Trace, place: Place, client: Actor) -> None:
    end = say(client, place, client_hello("shop.example") + bytes(3000), bytes(2000))
    assert_named_by_hello(trace, end, "shop.example")


NOT_HELLOS = {
    "nothing": b"",
    "HTTP": b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "zeros": bytes(600),
    "the beginning of one": client_hello("shop.example")[:60],
    "without a name": client_hello(None),
    "a record of alerts": b"\x15" + client_hello("shop.example")[1:],
    "a server's": client_hello("shop.example")[:5] + b"\x02" + client_hello("shop.example")[6:],
    "lengths that lie": client_hello("shop.example")[:43] + b"\xff" * 400,
}


@pytest.mark.parametrize("kind", with_slow(NOT_HELLOS, "zeros", "the beginning of one", "lengths that lie"))
def test_what_is_no_client_hello_names_nothing(trace: Trace, place: Place, client: Actor, kind: str) -> None:
    data = NOT_HELLOS[kind]
    end = say(client, place, *([data] if data else []))
    assert name_of(trace.settle(), end) == UNNAMED


def test_a_client_hello_after_other_bytes_is_not_looked_for(trace: Trace, place: Place, client: Actor) -> None:
    end = say(client, place, b"STARTTLS\r\n", client_hello("shop.example"))
    assert name_of(trace.settle(), end) == UNNAMED


def test_a_server_has_no_name_for_its_client(trace: Trace, place: Place, client: Actor) -> None:
    """Not even when it is the one who says hello."""
    near, far = pair(client, place.web, to=ADDR)
    put(far, client_hello("shop.example"))
    close(near, far)
    assert name_of(trace.settle(), near) == UNNAMED


def test_a_name_that_was_looked_up_stays(trace: Trace, place: Place, client: Actor) -> None:
    client.do("lookup", "shared-a.test", 4, 1)
    end = say(client, place, client_hello("shop.example"))
    assert name_of(trace.settle(), end) == ("shared-a.test", "getaddrinfo")


def test_of_several_names_that_were_looked_up_it_tells_the_one(trace: Trace, place: Place, client: Actor) -> None:
    for name in ("shared-a.test", "shared-b.test"):
        client.do("lookup", name, 4, 1)
    end = say(client, place, client_hello("shared-a.test"))
    closed = event_of(trace.settle(), end, Close)
    assert closed.host == "shared-a.test"


def test_the_client_of_openssl(trace: Trace, place: Place) -> None:
    web = place.web
    web.actor.begin("accept", web.socket)
    where = f"{ADDR}:{web.address[1]}"
    client = place.program("openssl", "s_client", "-connect", where, "-servername", "shop.example")
    far = web.accepted(web.actor, web.actor.finish())
    far.receive(200)
    far.reset()
    client.communicate()
    told = [event for event in trace.settle() if isinstance(event, Close) and event.pid == client.pid]
    assert [(event.host, event.host_source, event.remote_addr) for event in told] == [("shop.example", "sni", ADDR)]
