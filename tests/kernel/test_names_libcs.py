"""C libraries that come and go while tracing: of containers, replaced on disk, and what only has their name."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pytracecon import Event
from traffic.actor import DEADLINE, Actor
from traffic.cases import with_slow
from traffic.jail import Jail
from traffic.naming import assert_asked, lookups, name_of, the_lookup, visit
from traffic.resolver import DNSMASQ, Place
from traffic.trace import Trace
from traffic.variants import build_variant


@pytest.fixture
def jail(place: Place, tmp_path: Path, program: Path) -> Jail:
    return Jail(place, tmp_path / "root", program)


def await_known(trace: Trace, actor: Actor) -> None:
    """A new program is noticed when the tracer reads of its start, and on a host with many the search for those that
    run already goes on while it reads. How long that takes nobody tells, so ask again.
    """

    def known(events: list[Event]) -> bool:
        actor.do("lookup", "two.test", 4, 1)
        return bool(lookups(events, actor, source="getaddrinfo"))

    assert trace.until(known, within=10), "it was never noticed"


def assert_known(trace: Trace, place: Place, *actors: Actor) -> None:
    """Their library's lookups are told, and name their connections."""
    steps = {actor: actor.do("lookup", "one.test", 4, 1) for actor in actors}
    ends = {actor: visit(actor, place.web, "127.0.0.11") for actor in actors}
    events = trace.settle()
    for actor in actors:
        latest = lookups(events, actor, source="getaddrinfo")[-1]
        assert_asked(latest, steps[actor], name="one.test", result="ok")
        assert name_of(events, ends[actor]) == ("one.test", "getaddrinfo")


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_library_of_its_own_whether_it_ran_before_the_tracer_or_not(
    traced: Callable[..., Trace], place: Place, jail: Jail, when: str
) -> None:
    prisoner = place.actor("prisoner")
    if when == "before":
        jail.hold(prisoner, "prisoner")
    trace = traced(netns=place.path)
    if when == "after":
        jail.hold(prisoner, "prisoner")
    await_known(trace, prisoner)
    assert Path(f"/proc/{prisoner.pid}/root").readlink() == jail.root
    assert str(jail.libc) in Path(f"/proc/{prisoner.pid}/maps").read_text()
    assert_known(trace, place, prisoner)


def test_a_library_that_is_replaced_on_disk(trace: Trace, place: Place, jail: Jail) -> None:
    """New programs use the new file, old ones still the old one."""
    old, new = place.actor("old"), place.actor("new")
    jail.hold(old, "old")
    trace.settle()
    assert_known(trace, place, old)
    jail.replace_libc()
    jail.hold(new, "new")
    trace.settle()
    assert f"{jail.libc} (deleted)" in Path(f"/proc/{old.pid}/maps").read_text()
    assert "(deleted)" not in Path(f"/proc/{new.pid}/maps").read_text()
    assert_known(trace, place, new, old)


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def a_gigabyte_of_nothing(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)


def a_link_loop(path: Path) -> None:
    path.symlink_to(path.name)


def a_folder(path: Path) -> None:
    path.mkdir()


def a_link_out(path: Path) -> None:
    path.symlink_to("/../../../../../../../../proc/self/mem")


@pytest.mark.parametrize("bad", with_slow([a_fifo, a_gigabyte_of_nothing, a_link_loop, a_folder, a_link_out], a_fifo))
def test_what_is_only_named_like_a_library_harms_nothing(
    traced: Callable[..., Trace],
    place: Place,
    jail: Jail,
    tmp_path: Path,
    bad: Callable[[Path], None],
) -> None:
    """Found at the start, and again when another program starts there: nothing hangs, and others are traced."""
    program = build_variant(tmp_path, "musl-static")
    for path in jail.files.values():
        path.unlink()
        bad(path)
    early, late = place.stranger(program, "early"), place.stranger(program, "late")
    jail.hold(early, "early")
    begun = time.monotonic()
    trace = traced(netns=place.path)
    assert time.monotonic() - begun < DEADLINE
    jail.hold(late, "late")
    for actor in (early, late):
        actor.do("resolve", "one.test", 1, DNSMASQ, 53, "connected")
    ends = [visit(actor, place.web, "127.0.0.11") for actor in (early, late)]
    assert_known(trace, place, place.actor("other"))
    for actor, end in zip((early, late), ends, strict=True):
        assert name_of(trace.events, end) == ("one.test", "dns")
        assert the_lookup(trace.events, actor).result == "ok"
