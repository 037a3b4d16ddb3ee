"""What is told of a lookup: what was asked, what came back and when, whatever came back."""

from __future__ import annotations

import time

import pytest

from traffic.actor import Actor
from traffic.answers import Answer, addresses
from traffic.cases import with_slow
from traffic.naming import EAI, H_ERRNO, UNNAMED, assert_asked, lookups, name_of, the_lookup, visit
from traffic.resolver import DNSMASQ, HUGE, MANY, SCRIPTED, Place, unique
from traffic.trace import Trace

A, AAAA = 1, 28


@pytest.fixture
def client(place: Place) -> Actor:
    return place.actor("client")


def resolve(client: Actor, name: str, kind: int = A, *, server: str = DNSMASQ, how: str = "connected") -> list[str]:
    found: list[str] = client.do("resolve", name, kind, server, 53, *how.split()).extra["addresses"]
    return found


@pytest.mark.parametrize("addr", ["127.0.0.13", "fd00:7::13"])
@pytest.mark.parametrize("way", ["library", "packets"])
def test_any_address_of_either_family_has_the_name(
    trace: Trace, place: Place, client: Actor, way: str, addr: str
) -> None:
    if way == "library":
        found = unique(client.do("lookup", "both.test", 0, 0).extra["addresses"])
    else:
        found = resolve(client, "both.test", AAAA) + resolve(client, "both.test", A)
    assert sorted(found) == ["127.0.0.13", "fd00:7::13"]
    end = visit(client, place.web, addr)
    assert name_of(trace.settle(), end) == ("both.test", "getaddrinfo" if way == "library" else "dns")


@pytest.mark.parametrize("at", with_slow([0, 1, 15, 29], 29))
def test_any_of_thirty_addresses_has_the_name(trace: Trace, place: Place, client: Actor, at: int) -> None:
    step = client.do("lookup", "many.test", 4, 1)
    found = unique(step.extra["addresses"])
    assert sorted(found) == sorted(MANY)
    end = visit(client, place.web, found[at])
    events = trace.settle()
    assert name_of(events, end) == ("many.test", "getaddrinfo")
    assert_asked(the_lookup(events, client, source="getaddrinfo"), step, name="many.test", result="ok")


def test_of_four_hundred_addresses_some_may_be_missing_but_then_it_says_so(
    trace: Trace, place: Place, client: Actor
) -> None:
    found = unique(client.do("lookup", "huge.test", 4, 1).extra["addresses"])
    assert len(found) == len(HUGE)
    first = visit(client, place.web, found[0])
    events = trace.settle()
    lookup = the_lookup(events, client, source="getaddrinfo", name="huge.test", result="ok")
    told = lookup.addresses or []
    assert len(told) >= 32
    assert told == found[: len(told)], "in their order"
    assert lookup.partial == (True if len(told) < len(found) else None)
    assert name_of(events, first) == ("huge.test", "getaddrinfo")


@pytest.mark.parametrize("family", with_slow([0, 4, 6], 0))
@pytest.mark.parametrize("kind", with_slow([0, 1], 0))
def test_each_address_is_told_once_in_the_order_of_the_library(
    trace: Trace, client: Actor, family: int, kind: int
) -> None:
    step = client.do("lookup", "both.test", family, kind)
    lookup = the_lookup(trace.settle(), client, source="getaddrinfo")
    assert_asked(lookup, step, name="both.test", result="ok", server=None, type=None, within=None)


@pytest.mark.parametrize("how", with_slow(["plain", "2", "r", "2r"], "plain", "2r"))
def test_the_old_functions_are_lookups_too(trace: Trace, place: Place, client: Actor, how: str) -> None:
    step = client.do("hostbyname", "one.test", 4, how)
    end = visit(client, place.web, "127.0.0.11")
    events = trace.settle()
    assert_asked(the_lookup(events, client, source="gethostbyname"), step, name="one.test", result="ok")
    assert name_of(events, end) == ("one.test", "gethostbyname")


@pytest.mark.parametrize("way", ["library", "packets"])
def test_of_a_chain_of_aliases_the_name_is_the_one_that_was_asked_for(
    trace: Trace, place: Place, client: Actor, way: str
) -> None:
    name = "www.chain.test"
    found = client.do("lookup", name, 4, 1).extra["addresses"] if way == "library" else resolve(client, name)
    end = visit(client, place.web, found[0])
    assert name_of(trace.settle(), end) == (name, "getaddrinfo" if way == "library" else "dns")


@pytest.mark.parametrize(
    ("asked", "host"), [("intra", "intra"), ("intra.corp.test", "intra.corp.test"), ("one.test.", "one.test")]
)
def test_the_library_names_it_as_it_was_asked(trace: Trace, place: Place, client: Actor, asked: str, host: str) -> None:
    """With a search list the question that leaves is another one; and a dot at the end is no part of a host's name."""
    found = client.do("lookup", asked, 4, 1).extra["addresses"]
    end = visit(client, place.web, found[0])
    events = trace.settle()
    assert name_of(events, end) == (host, "getaddrinfo")
    assert the_lookup(events, client, source="getaddrinfo").name in (asked, host)


def test_a_name_in_the_hosts_file_is_a_lookup_without_packets(trace: Trace, place: Place, client: Actor) -> None:
    step = client.do("lookup", "filed.example", 4, 1)
    end = visit(client, place.web, "127.0.0.20")
    events = trace.settle()
    assert name_of(events, end) == ("filed.example", "getaddrinfo")
    assert_asked(the_lookup(events, client), step, name="filed.example", result="ok")


def test_what_the_library_asks_by_packets_is_told_as_its_own(trace: Trace, client: Actor) -> None:
    client.do("lookup", "both.test", 0, 1)
    events = trace.settle()
    the_lookup(events, client, source="getaddrinfo")
    for kind, addr in {"A": "127.0.0.13", "AAAA": "fd00:7::13"}.items():
        packet = the_lookup(events, client, source="dns", type=kind)
        assert (packet.within, packet.result, packet.addresses) == ("libc", "ok", [addr])
        assert (packet.name, packet.server) == ("both.test", DNSMASQ)
    assert len(lookups(events, client)) == 3


@pytest.mark.parametrize("verb", with_slow(["lookup", "plain", "2r"], "lookup", "2r"))
@pytest.mark.parametrize("case", with_slow(["nobody.test", "broken.scripted.test", "six.test"], "nobody.test"))
def test_a_failure_of_the_library_is_told_by_its_name(
    trace: Trace, place: Place, client: Actor, verb: str, case: str
) -> None:
    """That nobody has it, that the server failed, and that it has no address of that family."""
    place.scripted.says["broken.scripted.test"] = Answer(rcode="SERVFAIL")
    words = ("lookup", case, 4, 1) if verb == "lookup" else ("hostbyname", case, 4, verb)
    step = client.do(*words)
    source, names = ("getaddrinfo", EAI) if verb == "lookup" else ("gethostbyname", H_ERRNO)
    assert step.result != 0
    lookup = the_lookup(trace.settle(), client, source=source)
    assert_asked(lookup, step, name=case, result=names[step.result])


def test_a_lookup_that_failed_names_nothing(trace: Trace, place: Place, client: Actor) -> None:
    assert client.do("lookup", "nobody.test", 4, 1).result != 0
    resolve(client, "nobody.test")
    end = visit(client, place.web, "127.0.0.11")
    assert name_of(trace.settle(), end) == UNNAMED


def with_a_loop(wire: bytes) -> bytes:
    """The answer's name, two bytes that point to the question, points to itself."""
    at = wire.index(b"\xc0\x0c")
    return wire[:at] + (0xC000 + at).to_bytes(2) + wire[at + 2 :]


RCODES = {
    "nobody.test": (Answer(), DNSMASQ, "NXDOMAIN"),
    "servfail.scripted.test": (Answer(rcode="SERVFAIL"), SCRIPTED, "SERVFAIL"),
    "refused.scripted.test": (Answer(rcode="REFUSED"), SCRIPTED, "REFUSED"),
    "formerr.scripted.test": (Answer(rcode="FORMERR"), SCRIPTED, "FORMERR"),
    "nodata.scripted.test": (addresses("fd00:7::1"), SCRIPTED, "NODATA"),
    "alias-only.scripted.test": (Answer((("CNAME", "nothing.test."),)), SCRIPTED, "NODATA"),
    "loop.scripted.test": (addresses("127.0.0.25", rubbish=with_a_loop), SCRIPTED, "malformed"),
    "ends.scripted.test": (addresses("127.0.0.25", rubbish=lambda wire: wire[:-3]), SCRIPTED, "malformed"),
    "counts.scripted.test": (
        addresses("127.0.0.25", rubbish=lambda wire: wire[:6] + b"\xff\xff" + wire[8:]),
        SCRIPTED,
        "malformed",
    ),
}


@pytest.mark.parametrize("name", with_slow(RCODES, "nobody.test", "loop.scripted.test"))
def test_a_server_that_says_no_is_quoted(trace: Trace, place: Place, client: Actor, name: str) -> None:
    says, server, result = RCODES[name]
    place.scripted.says[name] = says
    step = client.do("resolve", name, A, server, 53, "connected")
    lookup = the_lookup(trace.settle(), client)
    facts: dict[str, object] = {"name": name, "type": "A", "server": server, "result": result, "source": "dns"}
    if result == "malformed":
        # How much of it still counts is not said.
        step.extra["addresses"] = lookup.addresses or []
        facts["partial"] = lookup.partial
    assert_asked(lookup, step, **facts)


def test_a_question_that_is_never_answered_ends_by_itself(trace: Trace, place: Place) -> None:
    """However it was asked; no packet comes that could end it."""
    clients = {how: place.actor(how) for how in ("connected", "unconnected", "tcp")}
    asked = 0
    for how, client in clients.items():
        place.scripted.says[f"silent-{how}.scripted.test"] = Answer(silent=True)
        asked = client.do("resolve", f"silent-{how}.scripted.test", A, SCRIPTED, 53, how, "unheard").mono[1]
    assert trace.until(lambda events: all(lookups(events, client) for client in clients.values()), within=30)
    assert time.monotonic_ns() - asked > 1_000_000_000, "so early nothing is given up"
    for how, client in clients.items():
        name = f"silent-{how}.scripted.test"
        lookup = the_lookup(trace.events, client)
        assert (lookup.result, lookup.name, lookup.type, lookup.server) == ("timeout", name, "A", SCRIPTED)
        assert not lookup.addresses
        assert len(place.scripted.questions(name)) == 1


@pytest.mark.slow
def test_half_an_answer_and_one_to_nothing(trace: Trace, place: Place) -> None:
    """The other half is waited for; what does not repeat the question does not answer it."""
    half, other = "half.scripted.test", "nonsense.scripted.test"
    halved, misled = place.actor("halved"), place.actor("misled")
    place.scripted.says[half] = addresses("127.0.0.25", short=True)
    place.scripted.says[other] = addresses("127.0.0.25", rubbish=lambda wire: wire[:12] + b"\xc0\x0c" * 40)
    assert halved.do("resolve", half, A, SCRIPTED, 53, "connected").extra["truncated"]
    misled.do("resolve", other, A, SCRIPTED, 53, "connected")
    end = visit(misled, place.web, "127.0.0.25")
    assert trace.until(lambda events: bool(lookups(events, halved) and lookups(events, misled)), within=30)
    events = trace.settle()
    told = [the_lookup(events, halved, name=half), the_lookup(events, misled, name=other)]
    assert [lookup.result for lookup in told] == ["truncated", "timeout"]
    assert not any(lookup.addresses for lookup in told)
    assert name_of(events, end) == UNNAMED


@pytest.mark.parametrize("way", ["library", "packets"])
def test_the_time_that_a_slow_server_takes_is_in_the_latency(
    trace: Trace, place: Place, client: Actor, way: str
) -> None:
    name = f"slow-{way}.scripted.test"
    place.scripted.says[name] = addresses("127.0.0.26", after=0.2)
    if way == "library":
        step = client.do("lookup", name, 4, 1)
    else:
        step = client.do("resolve", name, A, SCRIPTED, 53, "connected")
    (asked,) = place.scripted.questions(name)
    assert asked.left
    source = "getaddrinfo" if way == "library" else "dns"
    lookup = the_lookup(trace.settle(), client, source=source)
    assert_asked(lookup, step, name=name, result="ok")
    assert 200_000_000 <= asked.left - asked.arrived <= (lookup.latency_ns or 0)


def test_an_answer_that_is_cut_short_is_asked_for_again_by_tcp(trace: Trace, place: Place, client: Actor) -> None:
    name = "again.scripted.test"
    place.scripted.says[name] = addresses("127.0.0.27", short=True)
    place.configure(client, "resolv.conf", f"nameserver {SCRIPTED}\n")
    step = client.do("lookup", name, 4, 1)
    assert [asked.transport for asked in place.scripted.questions(name)] == ["udp", "tcp"]
    end = visit(client, place.web, "127.0.0.27")
    events = trace.settle()
    assert_asked(the_lookup(events, client, source="getaddrinfo"), step, name=name, result="ok")
    assert [lookup.result for lookup in lookups(events, client, source="dns", name=name)] == ["ok"], (
        "it is one question"
    )
    assert name_of(events, end) == (name, "getaddrinfo")


def test_no_address_is_a_name(trace: Trace, place: Place, client: Actor) -> None:
    for written in ("127.0.0.11", "127.11", "0x7f00000b", "::1", "::1%lo"):
        client.do("lookup", written, 0, 1)
    client.do("hostbyname", "127.0.0.11", 4, "plain")
    client.do("lookup-null", 80, 0, 1)
    client.do("lookup-null", 80, 0, 1, "passive")
    ends = [visit(client, place.web, addr) for addr in ("127.0.0.11", "127.0.0.1", "::1")]
    events = trace.settle()
    assert [name_of(events, end) for end in ends] == [UNNAMED] * 3
    assert lookups(events, client, result="ok", name=None) == []


def test_the_loopback_has_a_name_only_if_it_was_asked_for(trace: Trace, place: Place, client: Actor) -> None:
    bare = visit(client, place.web, "127.0.0.1")
    client.do("lookup", "localhost", 4, 1)
    asked = visit(client, place.web, "127.0.0.1")
    events = trace.settle()
    assert [name_of(events, end) for end in (bare, asked)] == [UNNAMED, ("localhost", "getaddrinfo")]
