"""Connections' lives: all that was told of each, from the lookup of its name to its end.

lives = Lives()
for event in tracer:
    life = lives.take(event)      # the same object for all events of a connection
    if life and life.over:
        for phase in life.phases():
            print(phase.name, phase.took_ns)
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, NamedTuple, TypeGuard, TypeVar

from pytracecon.events import (
    Accept,
    Close,
    Connect,
    ConnectionEvent,
    Established,
    Event,
    Existing,
    Failed,
    Lookup,
    Lost,
    Reset,
    Retransmit,
    State,
)

__all__ = ["Life", "Lives", "Phase"]

_MOST_LIVES = 65_536
_MOST_EVENTS = 1000
_MOST_NAMES = 8192
_MOST_ANSWERS = 8
_MOST_LOSSES = 1024

_ONCE = (Connect, Established, Accept, Existing, Close, Failed)
_TOLD_OFTEN = (Retransmit, Reset)
_AFTER_OPEN = frozenset({"FIN_WAIT1", "FIN_WAIT2", "CLOSE_WAIT", "CLOSING", "LAST_ACK", "TIME_WAIT"})

Kind = TypeVar("Kind", bound=ConnectionEvent)


class Phase(NamedTuple):
    """A part of a life. What it took is what the events say, not a difference of their times, where they say it."""

    name: str
    began_ns: int
    took_ns: int


@dataclass(slots=True, eq=False)
class Life:
    """Of one connection. Beyond 1,000 events only those are kept that tell of a change; `left_out` counts the others.

    `of_two_runs`: two connections of a file have this identity.
    """

    conn: str
    events: list[ConnectionEvent] = field(default_factory=list)
    lookup: Lookup | None = None
    end: Close | Failed | State | None = None
    left_out: int = 0
    of_two_runs: bool = False
    _named: str | None = None

    def add(self, event: ConnectionEvent, asked: _Asked) -> None:
        self.of_two_runs |= isinstance(event, _ONCE) and any(type(each) is type(event) for each in self.events)
        if len(self.events) >= _MOST_EVENTS and isinstance(event, _TOLD_OFTEN):
            self.left_out += 1
            return
        self.events.append(event)
        if isinstance(event, (Close, Failed)) or _never_opened(event):
            self.end = event
        if event.host is not None and event.host != self._named:
            self._named = event.host
            self.lookup = asked.answer(event, self.first_syn_ns or self.began_ns)

    def shorten(self) -> None:
        """Keep what tells who, to whom and how it ended."""
        told = self.events[0], self.end, self.events[-1]
        self.events = [event for event in self.events if any(event is each for each in told)]

    @property
    def over(self) -> bool:
        """It ended; and where its own process reset it, the reset was told as well, which comes behind."""
        if isinstance(self.end, Close) and self.end.ended == "local_reset":
            return any(event.sent for event in self.all(Reset))
        return self.end is not None

    def all(self, kind: type[Kind]) -> Iterator[Kind]:
        return (event for event in self.events if isinstance(event, kind))

    def the(self, kind: type[Kind]) -> Kind | None:
        return next(self.all(kind), None)

    def last(self, key: str) -> Any:
        """What the latest event that knows it says."""
        get = attrgetter(key)
        return next((value for event in reversed(self.events) if (value := get(event)) is not None), None)

    @property
    def has_beginning(self) -> bool:
        """An event tells how it began."""
        begun = any(each.old in ("CLOSE", "LISTEN") or each.new in ("SYN_SENT", "SYN_RECV") for each in self.all(State))
        begun |= any(each.segment in ("syn", "synack") for each in self.all(Retransmit))
        return begun or any(isinstance(event, (Connect, Established, Accept, Failed)) for event in self.events)

    @property
    def first_syn_ns(self) -> int | None:
        """When the first SYN of an outbound connection left, or as near to that as the events tell."""
        connect = self.the(Connect)
        if connect is not None:
            return connect.time_ns
        answered = self.the(Established) or self.the(Failed)
        if answered is not None and answered.latency_ns is not None:
            return answered.time_ns - answered.latency_ns
        return next((each.time_ns for each in self.all(State) if each.new == "SYN_SENT"), None)

    @property
    def began_ns(self) -> int:
        """The beginning of all that is told: that of the lookup, or else of the connection."""
        return min([each.began_ns for each in self.phases()] + [min(event.time_ns for event in self.events)])

    @property
    def ended_ns(self) -> int:
        return max(event.time_ns for event in self.events)

    def phases(self) -> list[Phase]:
        """In the order of their beginnings. One that is not known, or not over, is absent."""
        return sorted([*self._before(), *self._during()], key=lambda phase: phase.began_ns)

    def _before(self) -> Iterator[Phase]:
        """Until there is a connection, or none."""
        syn = self.first_syn_ns
        if self.lookup is not None:
            if self.lookup.latency_ns is not None:
                yield Phase("resolver", self.lookup.time_ns - self.lookup.latency_ns, self.lookup.latency_ns)
            if syn is not None:
                yield Phase("until the SYN", self.lookup.time_ns, syn - self.lookup.time_ns)
        answered = self.the(Established) or self.the(Failed)
        if answered is not None and answered.latency_ns is not None:
            name = "handshake" if isinstance(answered, Established) else "attempt"
            yield Phase(name, answered.time_ns - answered.latency_ns, answered.latency_ns)
        for state in self.all(State):
            if (state.old, state.new) == ("SYN_RECV", "ESTABLISHED") and state.in_old_ns is not None:
                yield Phase("handshake", state.time_ns - state.in_old_ns, state.in_old_ns)
        accept = self.the(Accept)
        if accept is not None and accept.wait_ns is not None:
            yield Phase("until accepted", accept.time_ns - accept.wait_ns, accept.wait_ns)

    def _during(self) -> Iterator[Phase]:
        left = next((state for state in self.all(State) if state.old == "ESTABLISHED"), None)
        if left is None:
            close = self.the(Close)
            if close is not None and close.duration_ns is not None:
                yield Phase("open to over", close.time_ns - close.duration_ns, close.duration_ns)
            return
        if left.in_old_ns is not None:
            yield Phase("open", left.time_ns - left.in_old_ns, left.in_old_ns)
        closing = [state for state in self.all(State) if state.old in _AFTER_OPEN]
        if closing and closing[-1].new == "CLOSE" and all(state.in_old_ns is not None for state in closing):
            yield Phase("closing", left.time_ns, sum(state.in_old_ns or 0 for state in closing))


class _Asked:
    """The answers of late, by who asked for which name."""

    def __init__(self) -> None:
        self._answers: OrderedDict[tuple[int | None, str], deque[Lookup]] = OrderedDict()

    def take(self, lookup: Lookup) -> None:
        if lookup.name is None or not lookup.addresses:
            return
        key = lookup.pid, _plain(lookup.name)
        self._answers.setdefault(key, deque(maxlen=_MOST_ANSWERS)).append(lookup)
        self._answers.move_to_end(key)
        if len(self._answers) > _MOST_NAMES:
            self._answers.popitem(last=False)

    def answer(self, event: ConnectionEvent, until_ns: int) -> Lookup | None:
        """The latest one before that moment that gave this process the remote's address for the remote's name."""
        if event.host is None:
            return None
        fitting = [
            lookup
            for lookup in self._answers.get((event.pid, _plain(event.host)), ())
            if event.remote_addr in (lookup.addresses or ()) and lookup.time_ns <= until_ns
        ]
        return max(fitting, key=lambda lookup: lookup.time_ns, default=None)


class Lives:
    """All of them, or those whose identity begins with `prefix`, be it without the zeros in front.

    Beyond `most` the oldest is forgotten. With `the_one` it is one that is looked for: as soon as there are two, none
    is kept whole, and the first `most` are kept.
    """

    def __init__(self, prefix: str = "", *, the_one: bool = False, most: int = _MOST_LIVES) -> None:
        self.all: dict[str, Life] = {}
        self.there_are_more = False
        """Than are kept."""
        self._losses: deque[Lost] = deque(maxlen=_MOST_LOSSES)
        self._prefix = prefix
        self._the_one = the_one
        self._most = most
        self._asked = _Asked()

    def take(self, event: Event) -> Life | None:
        """The life that this is an event of, with it; None for other events."""
        if isinstance(event, Lookup):
            self._asked.take(event)
        elif isinstance(event, Lost):
            self._losses.append(event)
        elif isinstance(event, ConnectionEvent) and self._is_meant(event.conn) and not _listens(event):
            return self._add(event)
        return None

    def forget(self, life: Life) -> None:
        self.all.pop(life.conn, None)

    def lost_in(self, life: Life) -> int:
        """Records that are missing from its time, whosever they were."""
        began, ended = life.began_ns, life.ended_ns
        return sum(
            loss.count
            for loss in self._losses
            if (loss.from_ns or loss.time_ns) <= ended and (loss.to_ns or loss.time_ns) >= began
        )

    def _is_meant(self, conn: str) -> bool:
        return conn.startswith(self._prefix) or conn.lstrip("0").startswith(self._prefix)

    def _add(self, event: ConnectionEvent) -> Life | None:
        life = self.all.get(event.conn)
        if life is None:
            if len(self.all) >= self._most:
                self.there_are_more = True
                if self._the_one:
                    return None
                self.forget(next(iter(self.all.values())))
            life = self.all[event.conn] = Life(event.conn)
            if self._the_one and len(self.all) == 2:
                next(iter(self.all.values())).shorten()
        life.add(event, self._asked)
        if self._the_one and len(self.all) > 1:
            life.shorten()
        return life


def _listens(event: ConnectionEvent) -> bool:
    """It tells of a socket that waits for connections, and is none."""
    return isinstance(event, State) and event.new != "SYN_RECV" and "LISTEN" in (event.old, event.new)


def _never_opened(event: ConnectionEvent) -> TypeGuard[State]:
    """An inbound one that ends in its handshake has no other end than this."""
    return isinstance(event, State) and (event.old, event.new) == ("SYN_RECV", "CLOSE")


def _plain(name: str) -> str:
    return name.lower().removesuffix(".")
