"""The name in the first packets of a QUIC client: where no lookup tells whose a UDP conversation is, they do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from traffic.actor import Actor
from traffic.datagrams import Socket, flows, udp
from traffic.quic import QuicProtocolVersion, first_flight
from traffic.resolver import Place, in_hex
from traffic.trace import Trace

ADDR = "127.0.0.14"
LONG = [f"protocol-{at:0200}" for at in range(8)]
"""Two kilobytes, as with post-quantum keys: more than fits into one datagram."""


@pytest.fixture
def client(place: Place) -> Actor:
    return place.actor("client")


def say(client: Actor, server: Socket, datagrams: list[bytes]) -> None:
    near = udp(client, to=server.address)
    for data in datagrams:
        assert client.do("put", near.fd, in_hex(data)).result == len(data)
        assert server.hear().result == len(data)
    near.close()


def test_a_quic_client_tells_whom_it_asks_for(traced: Callable[..., Trace], place: Place, client: Actor) -> None:
    trace = traced(events="flow", netns=place.path)
    server = udp(place.actor("server"), bound=(ADDR, 0))
    usual, long = first_flight("shop.example"), first_flight("long.example", *LONG)
    second = first_flight("second.example", version=QuicProtocolVersion.VERSION_2)
    assert len(long) > len(usual)
    late = [b"something else"] * 3 + first_flight("late.example")[:1]
    too_late = [b"something else"] * 4 + first_flight("later.example")[:1]
    for datagrams in (usual, long, second, late, too_late, first_flight(None)):
        say(client, server, datagrams)
    server.close()
    told = [(each.host, each.host_source, each.app) for each in flows(trace.settle(), place) if each.direction == "out"]
    assert told == [
        ("shop.example", "sni", "quic"),
        ("long.example", "sni", "quic"),
        ("second.example", "sni", "quic"),
        ("late.example", "sni", "quic"),
        (None, None, None),
        (None, None, "quic"),
    ]
