"""What a tracer tells of a connection, held against what the actors did."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from pytracecon import Accept, Close, Connect, ConnectionEvent, Established, Event, Failed
from traffic.end import End

Kind = TypeVar("Kind", bound=ConnectionEvent)

SLACK = 5_000_000
"""Nanoseconds by which wall clocks read in different places may differ: the offset is measured, and slewed by NTP."""


class Known:
    """Equals whatever is known: a fact that the generator cannot see, and that must be there all the same."""

    def __eq__(self, other: object) -> bool:
        return other not in (None, 0, "")

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "<known>"


KNOWN = Known()


@dataclass(frozen=True)
class Between:
    """Equals any number from `least` to `most`: what happened between two looks at a counter is not known."""

    least: int
    most: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int) and self.least <= other <= self.most

    def __hash__(self) -> int:
        return 0


@dataclass(slots=True)
class Told:
    """What must be told of an end: its events in order, and the facts that are not the end's own."""

    end: End
    events: str
    ended: str | None = None
    reason: str | None = None
    error: str | None = None
    tx_acked: int | None = None
    """Where the connection was cut with bytes on the way; else all that was sent."""
    rx_bytes: int | None = None
    """Where the peer's bytes did not all arrive; else all that the peer sent."""
    syn_retransmits: int = 0
    syn_left: bool | None = None
    """Whether there was a SYN; else as the presence of `connect` says."""
    facts: Mapping[str, object] = field(default_factory=dict)
    """Common keys that differ from what the end knows."""

    @property
    def kinds(self) -> list[str]:
        return self.events.split()


def story(events: list[Event], end: End) -> list[ConnectionEvent]:
    """All events of the connection that has these ends; of an MPTCP connection, not those of its paths."""
    connections = [event for event in events if isinstance(event, ConnectionEvent)]
    names = {event.conn for event in connections if _is_of(event, end)}
    return [event for event in connections if event.conn in names]


def _is_of(event: ConnectionEvent, end: End) -> bool:
    if (event.netns, event.remote_addr, event.remote_port) != (end.opened.netns, *end.remote):
        return False
    if event.subflow_of or event.direction not in ("unknown", end.direction):
        return False
    return end.local is None or (event.local_addr, event.local_port) == end.local


def event_of(events: list[Event], end: End, kind: type[Kind]) -> Kind:
    """The one event of this kind that was told of the end."""
    found = [event for event in story(events, end) if isinstance(event, kind)]
    assert len(found) == 1, describe(events, end)
    return found[0]


def describe(events: list[Event], end: End) -> str:
    """For the eyes, when a story is not as it should be: the end, and all that was told of its namespace."""
    netns = end.opened.netns
    around = [event for event in events if not isinstance(event, ConnectionEvent) or event.netns == netns]
    return "\n".join([f"{end.direction} {end.local} → {end.remote}, in the namespace {netns}:", *map(str, around)])


def assert_story(events: list[Event], told: Told) -> None:
    """Every key of every event of this end is the truth, and nothing else is told of it."""
    seen = story(events, told.end)
    assert [event.event for event in seen] == told.kinds, describe(events, told.end)
    assert len({event.conn for event in seen}) == 1, seen
    times = [event.time_ns for event in seen]
    assert times == sorted(times), seen
    for event in seen:
        expected = common_facts(told) | _facts(event, told)
        assert {key: getattr(event, key) for key in expected} == expected, event
        _assert_times(event, told.end, sent="connect" in told.kinds if told.syn_left is None else told.syn_left)
    _assert_duration(seen)


def common_facts(told: Told) -> dict[str, object]:
    """The common keys of a record, from the truth."""
    end, step = told.end, told.end.opened
    in_thread = step.tid != step.pid
    facts: dict[str, object] = {
        "proto": end.proto,
        "direction": end.direction,
        "local_addr": end.local[0] if end.local else KNOWN,
        "local_port": end.local[1] if end.local else KNOWN,
        "remote_addr": end.remote[0],
        "remote_port": end.remote[1],
        "v4_mapped": end.v4_mapped or None,
        "netns": step.netns,
        "pid": step.pid,
        "comm": step.comm,
        "uid": step.uid,
        "tid": KNOWN if end.by_worker else step.tid if in_thread else None,
        "thread": f"iou-wrk-{step.tid}" if end.by_worker else step.thread if in_thread else None,
        "owner": end.owner,
        "host": None,
        "host_source": None,
        "pre_existing": None,
        "subflow_of": None,
        "partial": None,
    }
    if end.cgroup is not None:
        facts["cgroup"] = end.cgroup
    return facts | dict(told.facts)


def _facts(event: ConnectionEvent, told: Told) -> dict[str, object]:
    """The keys of one kind of event."""
    end = told.end
    if isinstance(event, Established):
        return {"syn_retransmits": told.syn_retransmits}
    if isinstance(event, Failed):
        return {"reason": told.reason, "error": told.error, "syn_retransmits": told.syn_retransmits}
    if isinstance(event, Close):
        received = told.rx_bytes if told.rx_bytes is not None else end.peer.sent if end.peer else 0
        return {
            "tx_bytes": end.sent,
            "tx_acked": end.sent if told.tx_acked is None else told.tx_acked,
            "rx_bytes": received,
            "ended": told.ended,
            # An MPTCP connection has none of its own; its paths have.
            "retransmits": Between(end.resent, end.actor.segments_resent) if end.proto == "tcp" else None,
        }
    return {}


def _assert_times(event: ConnectionEvent, end: End, *, sent: bool) -> None:
    """The moment lies in the step that made it happen, and no duration is longer than what it was part of."""
    if event.pre_existing:
        return
    begin, until = end.syn.wall[0] - SLACK, end.settled.wall[1] + SLACK
    longest = end.settled.mono[1] - end.syn.mono[0]
    if isinstance(event, Connect):
        assert begin <= event.time_ns <= end.syn.wall[1] + SLACK, event
    elif isinstance(event, Established):
        assert begin <= event.time_ns <= until, event
        assert event.latency_ns and 0 < event.latency_ns <= longest, event
    elif isinstance(event, Failed):
        assert begin <= event.time_ns <= until, event
        if sent:
            assert event.latency_ns and 0 < event.latency_ns <= longest, event
        else:
            assert event.latency_ns is None, "it runs from the first SYN"
    elif isinstance(event, Accept):
        assert begin <= event.time_ns <= until, event
        handshake = end.peer.syn.mono[0] if end.peer else end.opened.mono[0]
        assert event.wait_ns is not None and 0 <= event.wait_ns <= end.settled.mono[1] - handshake, event
    elif isinstance(event, Close):
        assert begin <= event.time_ns <= time.time_ns() + SLACK, event
        slowest = max(end.rtt_ns, time.monotonic_ns() - end.syn.mono[0])
        assert event.rtt_ns is None or 0 < event.rtt_ns <= slowest, event


def _assert_duration(seen: list[ConnectionEvent]) -> None:
    """A lifetime is the time between the two events that begin and end it."""
    by_kind: dict[str, Any] = {event.event: event for event in seen}
    if "close" not in by_kind:
        return
    close = cast("Close", by_kind["close"])
    if close.pre_existing:
        assert close.duration_ns is None, close
        return
    assert close.duration_ns is not None, close
    assert close.duration_ns > 0, close
    begun = None
    if "established" in by_kind:
        begun = by_kind["established"].time_ns
    elif "accept" in by_kind and seen.index(by_kind["accept"]) < seen.index(close):
        begun = by_kind["accept"].time_ns - by_kind["accept"].wait_ns
    if begun is not None:
        assert abs(close.time_ns - begun - close.duration_ns) < SLACK, seen


def strangers(events: list[Event], ends: list[End]) -> list[ConnectionEvent]:
    """Events in the ends' namespaces that belong to none of them."""
    known = {event.conn for end in ends for event in story(events, end)}
    namespaces = {end.opened.netns for end in ends}
    return [
        event
        for event in events
        if isinstance(event, ConnectionEvent)
        and event.netns in namespaces
        and event.conn not in known
        and event.subflow_of not in known
    ]
