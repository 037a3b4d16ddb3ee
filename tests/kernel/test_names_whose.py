"""Whose name it is: a connection has the name that its own process asked for, and no other one's."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from pytracecon import ConnectionEvent, Event, State
from traffic.actor import Actor
from traffic.answers import Answer, addresses
from traffic.cases import with_slow
from traffic.end import close, pair
from traffic.naming import UNNAMED, candidates_of, lookups, name_of, the_lookup, visit
from traffic.resolver import DNSMASQ, SCRIPTED, Place
from traffic.story import Told
from traffic.trace import Trace

ORDERS = list(itertools.permutations(["alice", "bob", "carol"]))
OUT, IN = "connect established close", "accept close"


@pytest.fixture
def alice(place: Place) -> Actor:
    return place.actor("alice")


@pytest.fixture
def bob(place: Place) -> Actor:
    return place.actor("bob")


@pytest.fixture
def carol(place: Place) -> Actor:
    return place.actor("carol")


def ask(actor: Actor, name: str, server: str = DNSMASQ) -> str:
    """By a packet, as a program with a resolver of its own does; the first address."""
    found: str = actor.do("resolve", name, 1, server, 53, "connected").extra["addresses"][0]
    return found


def look_up(actor: Actor, name: str) -> str:
    """By the C library; the first address."""
    found: str = actor.do("lookup", name, 4, 1).extra["addresses"][0]
    return found


def test_whoever_looked_it_up_has_the_name_and_whoever_went_by_address_has_none(
    trace: Trace, place: Place, alice: Actor, bob: Actor
) -> None:
    addr = look_up(alice, "one.test")
    named, named_far = pair(alice, place.web, to=addr)
    close(named, named_far)
    bare, bare_far = pair(bob, place.web, to=addr)
    close(bare, bare_far)
    again, again_far = pair(alice, place.web, to=addr)
    close(again, again_far)
    facts = {"host": "one.test", "host_source": "getaddrinfo", "host_candidates": None}
    trace.tells(
        Told(named, OUT, ended="local_close", facts=facts),
        Told(again, OUT, ended="local_close", facts=facts),
        Told(bare, OUT, ended="local_close"),
        *(Told(far, IN, ended="remote_close") for far in (named_far, again_far, bare_far)),
    )


@pytest.mark.parametrize("connected", with_slow(ORDERS, ORDERS[-1]), ids="-".join)
@pytest.mark.parametrize("asked", [("alice", "bob"), ("bob", "alice")], ids="-".join)
def test_two_names_for_one_address_in_any_order(
    trace: Trace, place: Place, asked: tuple[str, str], connected: tuple[str, ...]
) -> None:
    actors = {name: place.actor(name) for name in connected}
    names = {"alice": "shared-a.test", "bob": "shared-b.test"}
    for name in asked:
        assert look_up(actors[name], names[name]) == "127.0.0.14"
    ends = {name: visit(actors[name], place.web, "127.0.0.14") for name in connected}
    events = trace.settle()
    assert {name: name_of(events, end) for name, end in ends.items()} == {
        "alice": ("shared-a.test", "getaddrinfo"),
        "bob": ("shared-b.test", "getaddrinfo"),
        "carol": UNNAMED,
    }


@pytest.mark.parametrize("times", [50, pytest.param(1000, marks=pytest.mark.slow)])
def test_two_names_for_one_address_at_the_same_time_again_and_again(
    trace: Trace, place: Place, alice: Actor, bob: Actor, carol: Actor, times: int
) -> None:
    web, lost_before = place.web, trace.tracer.stats.lost
    web.actor.begin("serve", web.socket, 3 * times, 0, 0, "first")
    alice.begin("calls", times, "shared-a.test", web.address[1])
    bob.begin("calls", times, "shared-b.test", web.address[1])
    carol.begin("visit", times, "127.0.0.14", web.address[1], 0, 0, "last")
    assert [actor.finish().result for actor in (alice, bob, carol)] == [times] * 3
    assert web.actor.finish().result == 3 * times

    def told(events: list[Event]) -> Counter[tuple[int | None, str | None, str | None]]:
        ours = [event for event in events if isinstance(event, ConnectionEvent) and event.direction == "out"]
        return Counter((event.pid, event.host, event.host_source) for event in ours if event.netns == place.inode)

    each = len(OUT.split()) * times
    expected = {
        (alice.pid, "shared-a.test", "getaddrinfo"): each,
        (bob.pid, "shared-b.test", "getaddrinfo"): each,
        (carol.pid, None, None): each,
    }

    def lost() -> int:
        return trace.tracer.stats.lost - lost_before

    # Where tasks are preempted inside a hook the kernel passes others by, and says so.
    trace.until(lambda events: sum(told(events).values()) >= 3 * each or lost() > 0, within=30)
    seen = told(trace.settle())
    assert {key for key in seen if key[1] is not None} <= expected.keys(), "what is told is told right"
    assert seen == expected or lost() > 0


def test_a_name_asked_of_the_library_serves_no_other_process(trace: Trace, place: Place, alice: Actor) -> None:
    """Its memory is the process's own to write: what it claims is believed of itself alone."""
    alice.set_user(4711)
    sibling = place.actor("sibling")
    sibling.set_user(4711)
    addr = look_up(alice, "one.test")
    child = alice.fork("child")
    others = [visit(actor, place.web, addr) for actor in (child, sibling)]
    look_up(child, "two.test")
    others.append(visit(alice, place.web, "127.0.0.12"))
    events = trace.settle()
    assert [name_of(events, end) for end in others] == [UNNAMED] * 3
    assert the_lookup(events, alice, source="getaddrinfo").uid == 4711


def test_a_process_that_lies_to_itself_misleads_nobody_else(
    trace: Trace, place: Place, alice: Actor, bob: Actor
) -> None:
    place.configure(alice, "hosts", "127.0.0.12 bank.example\n")
    assert look_up(alice, "bank.example") == look_up(bob, "two.test") == "127.0.0.12"
    lie, truth = (visit(actor, place.web, "127.0.0.12") for actor in (alice, bob))
    events = trace.settle()
    assert name_of(events, lie) == ("bank.example", "getaddrinfo")
    assert name_of(events, truth) == ("two.test", "getaddrinfo")


def test_one_thread_asks_and_another_connects(trace: Trace, place: Place, alice: Actor) -> None:
    asking, connecting = alice.thread("asking"), alice.thread("connecting")
    addr = look_up(asking, "one.test")
    end = visit(connecting, place.web, addr)
    events = trace.settle()
    assert name_of(events, end) == ("one.test", "getaddrinfo")
    lookup = the_lookup(events, alice, source="getaddrinfo")
    assert (lookup.tid, lookup.thread, lookup.comm) == (asking.tid, "asking", "alice")


def test_the_latest_name_wins_and_all_that_fit_are_listed(trace: Trace, place: Place, alice: Actor) -> None:
    web = place.web
    look_up(alice, "shared-a.test")
    first = visit(alice, web, "127.0.0.14")
    open_near, open_far = pair(alice, web, to="127.0.0.14")
    look_up(alice, "shared-b.test")
    second = visit(alice, web, "127.0.0.14")
    close(open_near, open_far)
    look_up(alice, "shared-a.test")
    third = visit(alice, web, "127.0.0.14")
    events = trace.settle()
    a, b = "shared-a.test", "shared-b.test"
    assert [name_of(events, end)[0] for end in (first, open_near, second, third)] == [a, a, b, a]
    assert [candidates_of(events, end) for end in (first, open_near, second, third)] == [None, None, [b, a], [a, b]]


def test_a_name_that_comes_after_the_connection_began_is_not_its_name(trace: Trace, place: Place, alice: Actor) -> None:
    near, far = pair(alice, place.web, to="127.0.0.11")
    look_up(alice, "one.test")
    close(near, far)
    assert name_of(trace.settle(), near) == UNNAMED


def test_a_helper_that_asks_by_packets_serves_its_parents(trace: Trace, place: Place, alice: Actor, bob: Actor) -> None:
    """A shell asks dig, and connects then; who is not an ancestor has asked nobody."""
    middle = alice.fork("middle")
    helper, other_child = middle.fork("dig"), alice.fork("other")
    addr = ask(helper, "one.test")
    ends = [visit(actor, place.web, addr) for actor in (helper, middle, alice, other_child, bob)]
    events = trace.settle()
    assert [name_of(events, end) for end in ends] == [("one.test", "dns")] * 3 + [UNNAMED] * 2


def test_a_helper_in_another_cgroup_serves_only_itself(trace: Trace, place: Place, alice: Actor, cgroup: Path) -> None:
    helper = alice.fork("dig")
    helper.do("write", cgroup / "cgroup.procs", helper.pid)
    addr = ask(helper, "one.test")
    own, parents = visit(helper, place.web, addr), visit(alice, place.web, addr)
    events = trace.settle()
    assert (name_of(events, own), name_of(events, parents)) == (("one.test", "dns"), UNNAMED)


@pytest.mark.parametrize("kind", ["packets", "library"])
def test_a_caching_resolver_serves_whoever_asked_it(
    trace: Trace, place: Place, alice: Actor, bob: Actor, carol: Actor, kind: str
) -> None:
    """The second answer comes from its cache; dnsmasq asked once, and for no process of its own."""
    name = f"cached-by-{kind}.scripted.test"
    place.scripted.says[name] = addresses("127.0.0.21", ttl=300)
    for actor in (alice, bob):
        assert (ask if kind == "packets" else look_up)(actor, name) == "127.0.0.21"
    assert len(place.scripted.questions(name)) == 1
    ends = [visit(actor, place.web, "127.0.0.21") for actor in (alice, bob, carol)]
    source = "dns" if kind == "packets" else "getaddrinfo"
    events = trace.settle()
    assert [name_of(events, end) for end in ends] == [(name, source)] * 2 + [UNNAMED]
    assert len(lookups(events, place.dnsmasq.pid, name=name)) == 1, "its own question is a lookup too"


def test_a_resolver_that_is_asked_without_packets_serves_its_cgroup(
    trace: Trace, place: Place, alice: Actor, bob: Actor, cgroup: Path
) -> None:
    """It answers others on port 53, so it is one; alice may have asked it over a socket of another kind."""
    name = "unasked.scripted.test"
    place.scripted.says[name] = addresses("127.0.0.22", ttl=300)
    resolver = place.actor("resolver")
    for actor in (resolver, alice):
        actor.do("write", cgroup / "cgroup.procs", actor.pid)
    port = resolver.do("datagram", 4).fd
    resolver.do("bind", port, "127.0.0.4", 53)
    resolver.begin("answers", port, 1, "127.0.0.23", 300)
    ask(bob, "other.test", "127.0.0.4")
    assert resolver.finish().result == 1
    ask(resolver, name, SCRIPTED)
    inside, outside = (visit(actor, place.web, "127.0.0.22") for actor in (alice, bob))
    events = trace.settle()
    assert (name_of(events, inside), name_of(events, outside)) == ((name, "dns"), UNNAMED)


def test_a_name_lives_as_long_as_its_ttl_or_its_connection(
    trace: Trace, place: Place, alice: Actor, bob: Actor
) -> None:
    """The C library tells no TTL: what it said lives for ten minutes."""
    name = "fleeting.scripted.test"
    place.scripted.says[name] = Answer((("CNAME", "target.test."), ("A", "127.0.0.24")), ttl=1)
    look_up(bob, name)
    ask(alice, name, SCRIPTED)
    early = visit(alice, place.web, "127.0.0.24")
    lasting, lasting_far = pair(alice, place.web, to="127.0.0.24")
    answered = place.scripted.questions(name)[-1].left
    assert answered
    assert early.settled.mono[1] < answered + 1_000_000_000, "it took too long to tell"
    while time.monotonic_ns() < answered + 1_200_000_000:
        time.sleep(0.05)
    late, library = visit(alice, place.web, "127.0.0.24"), visit(bob, place.web, "127.0.0.24")
    close(lasting, lasting_far)
    events = trace.settle()
    assert [name_of(events, end) for end in (early, lasting, late, library)] == [
        (name, "dns"),
        (name, "dns"),
        UNNAMED,
        (name, "getaddrinfo"),
    ]


def test_a_program_that_became_another_is_the_same_process(trace: Trace, place: Place, alice: Actor) -> None:
    addr = look_up(alice, "one.test")
    alice.execute("renewed")
    end = visit(alice, place.web, addr)
    assert name_of(trace.settle(), end) == ("one.test", "getaddrinfo")


LAST_PID = Path("/proc/sys/kernel/ns_last_pid")


def test_a_process_that_has_the_number_of_a_dead_one_has_none_of_its_names(
    trace: Trace, place: Place, alice: Actor
) -> None:
    look_up(alice, "one.test")
    ask(alice, "two.test")
    alice.kill()
    heir = place.actor("heir")
    tries = itertools.count()
    while heir.pid != alice.pid:
        assert next(tries) < 200, "others took the number each time"
        LAST_PID.write_text(str(alice.pid - 1))
        heir = place.actor("heir")
    ends = [visit(heir, place.web, addr) for addr in ("127.0.0.11", "127.0.0.12")]
    assert [name_of(trace.settle(), end) for end in ends] == [UNNAMED] * 2


def test_a_name_that_is_younger_than_the_connection_is_not_its_name_in_any_later_event(
    traced: Callable[..., Trace], place: Place, alice: Actor
) -> None:
    """Its changes of state come long after its beginning, and the process has asked for the address by then."""
    trace = traced(netns=place.path, events="state")
    addr = "127.0.0.11"
    bare, bare_far = pair(alice, place.web, to=addr)
    assert look_up(alice, "one.test") == addr
    named, named_far = pair(alice, place.web, to=addr)
    close(bare, bare_far)
    close(named, named_far)
    trace.settle()
    assert bare.local is not None and named.local is not None
    hosts: dict[int | None, set[str | None]] = {bare.local[1]: set(), named.local[1]: set()}
    changes = [event for event in trace.events if isinstance(event, State) and event.local_port in hosts]
    for event in changes:
        hosts[event.local_port].add(event.host)
    assert len(changes) == 10
    assert hosts == {bare.local[1]: {None}, named.local[1]: {"one.test"}}
