"""A UDP conversation has the name that its owner had asked for when it began."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytracecon import Flow
from traffic.actor import Actor
from traffic.datagrams import flows, udp
from traffic.resolver import Place
from traffic.trace import Trace


@pytest.fixture
def client(place: Place) -> Actor:
    return place.actor("client")


@pytest.mark.slow(reason="names are user space's, whatever the kernel")
def test_the_name_is_the_one_that_was_asked_for_before(
    traced: Callable[..., Trace], place: Place, client: Actor
) -> None:
    """A younger name of the same address is another conversation's. Who is spoken to has asked for none."""
    trace = traced(events="flow", netns=place.path, local_port="7000-7009")
    server = udp(place.actor("server"), bound=("127.0.0.14", 7000))
    first, second, nameless = (udp(client, bound=("127.0.0.1", 7000 + at)) for at in range(1, 4))
    nameless.tell(1, ("127.0.0.11", 7000))
    client.do("lookup", "shared-a.test", 4, 1)
    first.tell(10, server.address)
    client.do("lookup", "shared-b.test", 4, 1)
    first.tell(10, server.address)
    second.tell(30, server.address)
    for each in (first, second, nameless):
        each.close()
    for _ in range(3):
        server.hear()
    server.close()
    trace.settle()
    told = {(each.direction, each.tx_bytes): (each.host, each.host_source) for each in flows(trace.events, place)}
    assert told == {
        ("out", 1): (None, None),
        ("out", 20): ("shared-a.test", "getaddrinfo"),
        ("out", 30): ("shared-b.test", "getaddrinfo"),
        ("in", 0): (None, None),
    }


@pytest.mark.slow(reason="names are user space's, whatever the kernel")
def test_a_name_chooses(traced: Callable[..., Trace], place: Place, client: Actor) -> None:
    trace = traced(events="flow", netns=place.path, host="*e.test")
    for name, addr in (("one.test", "127.0.0.11"), ("two.test", "127.0.0.12")):
        client.do("lookup", name, 4, 1)
        near = udp(client, bound=("127.0.0.1", 0))
        near.tell(10, (addr, 9))
        near.close()
    (told,) = [event for event in trace.settle() if isinstance(event, Flow)]
    assert (told.host, told.remote_addr) == ("one.test", "127.0.0.11")
    stats = trace.tracer.stats
    assert stats.wanted == stats.delivered > stats.left_out > 0
    assert stats.handed == 1
