"""Programs that do not ask glibc: another C library, none at all, a shell of one file, a cache in between."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytracecon import ConnectionEvent, Event
from traffic.actor import Actor
from traffic.answers import addresses
from traffic.cases import with_slow
from traffic.naming import UNNAMED, assert_asked, lookups, name_of, the_lookup, visit
from traffic.nscd import PROGRAM, Nscd
from traffic.resolver import DNSMASQ, Place, unique
from traffic.trace import Trace
from traffic.variants import build_variant


@pytest.fixture(scope="session")
def variant(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The generator built otherwise, each once."""
    folder = tmp_path_factory.mktemp("variants")
    return functools.cache(lambda name: build_variant(folder, name))


@pytest.fixture
def musl(trace: Trace, place: Place, variant: Callable[[str], Path]) -> Actor:
    """A program with musl that runs when the tracer has seen it start."""
    actor = place.stranger(variant("musl"), "musl")
    trace.settle()
    return actor


@pytest.fixture
def static(place: Place, variant: Callable[[str], Path]) -> Actor:
    return place.stranger(variant("musl-static"), "static")


@pytest.mark.parametrize(
    "name", with_slow(["one.test", "both.test", "www.chain.test", "many.test", "intra"], "many.test")
)
def test_musl_is_a_library_like_another(trace: Trace, place: Place, musl: Actor, name: str) -> None:
    step = musl.do("lookup", name, 4, 1)
    end = visit(musl, place.web, step.extra["addresses"][-1])
    events = trace.settle()
    assert_asked(the_lookup(events, musl, source="getaddrinfo"), step, name=name, result="ok")
    assert name_of(events, end) == (name, "getaddrinfo")


@pytest.mark.parametrize("how", with_slow(["plain", "2", "r", "2r"], "plain", "2r"))
def test_the_old_functions_of_musl(trace: Trace, place: Place, musl: Actor, how: str) -> None:
    """Some of them call the others: it is one lookup."""
    step = musl.do("hostbyname", "one.test", 4, how)
    end = visit(musl, place.web, "127.0.0.11")
    events = trace.settle()
    assert_asked(the_lookup(events, musl, source="gethostbyname"), step, name="one.test", result="ok")
    assert name_of(events, end) == ("one.test", "gethostbyname")


def test_a_failure_of_musl(trace: Trace, musl: Actor) -> None:
    step = musl.do("lookup", "nobody.test", 4, 1)
    assert step.result == -2
    assert_asked(the_lookup(trace.settle(), musl, source="getaddrinfo"), step, name="nobody.test", result="EAI_NONAME")


@pytest.mark.parametrize(("asked", "host"), [("one.test", "one.test"), ("www.chain.test", "www.chain.test")])
def test_a_static_program_with_a_library_inside_is_known_by_its_packets(
    trace: Trace, place: Place, static: Actor, asked: str, host: str
) -> None:
    step = static.do("lookup", asked, 0, 1)
    end = visit(static, place.web, step.extra["addresses"][0])
    events = trace.settle()
    assert {lookup.source for lookup in lookups(events, static)} == {"dns"}
    lookup = the_lookup(events, static, type="A")
    assert (lookup.name, lookup.addresses, lookup.result) == (host, unique(step.extra["addresses"]), "ok")
    assert name_of(events, end) == (host, "dns")


@pytest.mark.parametrize("way", with_slow(["connected", "unconnected", "tcp"], "unconnected"))
def test_a_static_program_with_a_resolver_of_its_own(trace: Trace, place: Place, static: Actor, way: str) -> None:
    """As Go's: it asks for both families."""
    for kind in (1, 28):
        static.do("resolve", "both.test", kind, DNSMASQ, 53, way)
    ends = [visit(static, place.web, addr) for addr in ("127.0.0.13", "fd00:7::13", "127.0.0.11")]
    events = trace.settle()
    assert [name_of(events, end) for end in ends] == [("both.test", "dns")] * 2 + [UNNAMED]
    assert len(lookups(events, static)) == 2


def test_busybox_looks_up(trace: Trace, place: Place) -> None:
    busybox = place.program("busybox", "nslookup", "one.test")
    said = busybox.communicate()[0]
    assert "127.0.0.11" in said
    told = the_lookup(trace.settle(), busybox.pid, type="A", name="one.test")
    assert (told.source, told.addresses, told.comm, told.result) == ("dns", ["127.0.0.11"], "busybox", "ok")


def of_program(events: list[Event], program: subprocess.Popen[str]) -> list[ConnectionEvent]:
    return [event for event in events if isinstance(event, ConnectionEvent) and event.pid == program.pid]


def test_busybox_fetches(trace: Trace, place: Place) -> None:
    """The address is the one it was told; nothing listens there, so it fails under its name."""
    busybox = place.program("busybox", "wget", "-q", "-O", "-", "http://www.chain.test:9/")
    busybox.communicate()
    told = of_program(trace.settle(), busybox)
    assert [(event.event, event.remote_addr) for event in told] == [("connect", "127.0.0.15"), ("failed", "127.0.0.15")]
    assert {event.host for event in told} == {"www.chain.test"}
    assert {event.host_source for event in told} <= {"dns", "getaddrinfo"}


def test_busybox_by_address_has_no_name(trace: Trace, place: Place) -> None:
    busybox = place.program("busybox", "wget", "-q", "-O", "-", "http://127.0.0.15:9/")
    busybox.communicate()
    assert {(event.event, event.host) for event in of_program(trace.settle(), busybox)} == {
        ("connect", None),
        ("failed", None),
    }


@pytest.fixture
def nscd(place: Place, tmp_path: Path) -> Iterator[tuple[Nscd, Actor, Actor]]:
    """It, and two who ask it."""
    if not PROGRAM.exists():
        pytest.fail(f"{PROGRAM} is missing: scripts/set_up --tests unpacks it")
    alice = place.actor("alice")
    nscd = Nscd(place, alice, tmp_path)
    yield nscd, alice, alice.fork("bob")
    nscd.close()


def test_what_nscd_answers_from_its_cache_has_a_name_too(
    trace: Trace, place: Place, nscd: tuple[Nscd, Actor, Actor]
) -> None:
    """Over a socket that is none of the network's; it asks once, and not for itself."""
    cache, *askers = nscd
    name = "nscd.scripted.test"
    place.scripted.says[name] = addresses("127.0.0.40")
    steps = [actor.do("lookup", name, 4, 1) for actor in askers]
    assert len(place.scripted.questions(name)) == 1
    ends = [visit(actor, place.web, "127.0.0.40") for actor in (*askers, place.actor("carol"))]
    events = trace.settle()
    for actor, step in zip(askers, steps, strict=True):
        assert_asked(the_lookup(events, actor), step, name=name, result="ok", source="getaddrinfo")
    assert [name_of(events, end) for end in ends] == [(name, "getaddrinfo")] * 2 + [UNNAMED]
    assert the_lookup(events, cache.pid, source="dns", name=name).addresses == ["127.0.0.40"]
