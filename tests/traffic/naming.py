"""What a tracer tells of names, held against what the actors asked and were told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pytracecon import Event
from pytracecon.events import Lookup
from traffic.actor import Actor, Step
from traffic.end import End, Listener, close, pair
from traffic.resolver import unique
from traffic.story import SLACK, story

Name = tuple[str | None, str | None]
"""A host and its source."""

UNNAMED: Name = (None, None)

EAI = {
    0: "ok",
    -1: "EAI_BADFLAGS",
    -2: "EAI_NONAME",
    -3: "EAI_AGAIN",
    -4: "EAI_FAIL",
    -5: "EAI_NODATA",
    -10: "EAI_MEMORY",
    -11: "EAI_SYSTEM",
    -12: "EAI_OVERFLOW",
}
H_ERRNO = {0: "ok", 1: "HOST_NOT_FOUND", 2: "TRY_AGAIN", 3: "NO_RECOVERY", 4: "NO_DATA"}


def visit(actor: Actor, listener: Listener, addr: str) -> End:
    """A connection of the actor to that address, opened, accepted and closed."""
    near, far = pair(actor, listener, to=addr)
    close(near, far)
    return near


def name_of(events: list[Event], end: End) -> Name:
    """The host that every event of this outbound connection tells, and its source. The other end has none."""
    told = story(events, end)
    assert [event.event for event in told] == ["connect", "established", "close"], told
    names = {(event.host, event.host_source) for event in told}
    assert len(names) == 1, told
    if end.peer:
        assert {(event.host, event.host_source) for event in story(events, end.peer)} == {UNNAMED}
    return names.pop()


def candidates_of(events: list[Event], end: End) -> list[str] | None:
    """The names that fit equally, as every event of this connection lists them."""
    (candidates,) = {tuple(event.host_candidates or ()) for event in story(events, end)}
    return list(candidates) or None


def lookups(events: Iterable[Event], asker: Actor | int, **facts: object) -> list[Lookup]:
    """The lookups of a process that have these facts."""
    pid = asker if isinstance(asker, int) else asker.pid
    return [
        event
        for event in events
        if isinstance(event, Lookup)
        and event.pid == pid
        and all(getattr(event, key) == value for key, value in facts.items())
    ]


def the_lookup(events: Iterable[Event], asker: Actor | int, **facts: object) -> Lookup:
    """The only one."""
    found = lookups(events, asker, **facts)
    assert len(found) == 1, found
    return found[0]


def assert_asked(lookup: Lookup, step: Step, **facts: Any) -> None:
    """The lookup is that of this step: who, when, how long, and these facts; and the addresses that the step got."""
    in_thread = step.tid != step.pid
    expected = {
        "pid": step.pid,
        "comm": step.comm,
        "uid": step.uid,
        "tid": step.tid if in_thread else None,
        "thread": step.thread if in_thread else None,
        "netns": step.netns,
        "partial": None,
        **facts,
    }
    assert {key: getattr(lookup, key) for key in expected} == expected, lookup
    assert (lookup.addresses or []) == unique(step.extra["addresses"]), lookup
    assert step.wall[0] - SLACK <= lookup.time_ns <= step.wall[1] + SLACK, lookup
    assert lookup.latency_ns is not None and 0 < lookup.latency_ns <= step.mono[1] - step.mono[0], lookup
