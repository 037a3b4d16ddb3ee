"""What filters do to lookups and names, and what is left when names are off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pytracecon import ConnectionEvent, Event
from pytracecon.events import Lookup
from traffic.actor import Actor
from traffic.cases import with_slow
from traffic.naming import name_of, visit
from traffic.network import Network
from traffic.resolver import DNSMASQ, Place
from traffic.trace import Trace

Keywords = Callable[["Crowd"], dict[str, Any]]


class Crowd:
    """Three who look up and connect: two in the place, of two users, and one in a namespace elsewhere."""

    def __init__(self, place: Place, elsewhere: Network) -> None:
        self.place, self.elsewhere = place, elsewhere
        self.alice, self.bob = place.actor("alice"), place.actor("bob")
        self.bob.set_user(4711)
        self.eve = elsewhere.actor("eve")
        self.eve.do("mounts")
        self.eve.do("mount", place.etc, "/etc")

    def traffic(self) -> None:
        for actor, name in ((self.alice, "one.test"), (self.bob, "two.test"), (self.eve, "filed.example")):
            actor.do("lookup", name, 4, 1)
        self.alice.do("resolve", "both.test", 1, DNSMASQ, 53, "connected")
        for actor, addr in ((self.alice, "127.0.0.11"), (self.bob, "127.0.0.12"), (self.alice, "127.0.0.13")):
            visit(actor, self.place.web, addr)


@pytest.fixture
def crowd(place: Place, networks: Callable[[], Network]) -> Crowd:
    return Crowd(place, networks())


def told(events: list[Event], kind: type[Event]) -> set[tuple[str | None, str | None]]:
    """Whose lookups, and of what; or whose connections, and to whom."""
    if kind is Lookup:
        return {(event.comm, event.name) for event in events if isinstance(event, Lookup)}
    out = [event for event in events if isinstance(event, ConnectionEvent) and event.direction == "out"]
    return {(event.comm, event.host) for event in out}


LOOKUPS: dict[str, tuple[Keywords, set[tuple[str, str]]]] = {
    "a process": (lambda crowd: {"pid": crowd.alice.pid}, {("alice", "one.test"), ("alice", "both.test")}),
    "a user": (lambda _: {"uid": 4711}, {("bob", "two.test")}),
    "a command": (lambda _: {"comm": "bob"}, {("bob", "two.test")}),
    "a namespace": (lambda crowd: {"netns": crowd.elsewhere.path}, {("eve", "filed.example")}),
}


@pytest.mark.parametrize("case", with_slow(LOOKUPS, "a user"))
def test_lookups_are_those_of_whom_the_filter_means(traced: Callable[..., Trace], crowd: Crowd, case: str) -> None:
    keywords, expected = LOOKUPS[case]
    trace = traced(**keywords(crowd))
    crowd.traffic()
    assert told(trace.settle(), Lookup) == expected


@pytest.mark.slow
def test_lookups_that_are_not_wished_for_name_all_the_same(traced: Callable[..., Trace], crowd: Crowd) -> None:
    trace = traced(netns=crowd.place.path, events=["connect", "close"])
    crowd.traffic()
    events = trace.settle()
    assert told(events, Lookup) == set()
    assert told(events, ConnectionEvent) == {("alice", "one.test"), ("bob", "two.test"), ("alice", "both.test")}


def test_a_filter_of_connections_does_not_hide_their_names(traced: Callable[..., Trace], crowd: Crowd) -> None:
    """The questions go elsewhere than the connections."""
    trace = traced(remote="127.0.0.11", port=crowd.place.web.address[1], netns=crowd.place.path)
    crowd.traffic()
    assert told(trace.settle(), ConnectionEvent) == {("alice", "one.test")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("one.test", {("alice", "one.test")}),
        ("*.test", {("alice", "one.test"), ("alice", "both.test"), ("bob", "two.test")}),
    ],
)
def test_connections_to_a_host(
    traced: Callable[..., Trace], crowd: Crowd, pattern: str, expected: set[tuple[str, str]]
) -> None:
    trace = traced(host=pattern, netns=crowd.place.path)
    crowd.traffic()
    visit(crowd.bob, crowd.place.web, "127.0.0.99")
    assert told(trace.settle(), ConnectionEvent) == expected


def test_without_names_nothing_is_told_of_them(traced: Callable[..., Trace], trace: Trace, crowd: Crowd) -> None:
    plain = traced(names=False, netns=crowd.place.path)
    crowd.traffic()
    events = plain.settle()
    assert told(events, Lookup) == set()
    assert told(events, ConnectionEvent) == {("alice", None), ("bob", None)}
    assert {("alice", "one.test"), ("bob", "two.test")} <= told(trace.settle(), ConnectionEvent), "another one does"


@pytest.mark.slow
def test_two_tracers_each_know_the_names(traced: Callable[..., Trace], place: Place) -> None:
    client: Actor = place.actor("client")
    traces = [traced(netns=place.path) for _ in range(2)]
    client.do("lookup", "one.test", 4, 1)
    end = visit(client, place.web, "127.0.0.11")
    for each in traces:
        assert name_of(each.settle(), end) == ("one.test", "getaddrinfo")
