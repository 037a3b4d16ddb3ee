"""What is open right now: the list that `Tracer.snapshot()` gives, and what is known from one to the next."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from pytracecon.connections import Connection
from pytracecon.errors import InvalidValue
from pytracecon.events import Close, Event, Failed, Flow
from pytracecon.rows import Before, Listed, Rows

if TYPE_CHECKING:
    pass

__all__ = ["Snapshot", "Snapshots"]

MOST_ENDED: Final = 65_536

Over = Close | Failed | Flow


class Snapshot(list[Connection]):
    """Connections, listeners and UDP conversations as they stood at `time_ns`, and what ended since the one before.

    `left_out` more did not fit into the limit. `elapsed_ns` is the time since the snapshot before, over which the
    rates are taken; of the first there are none.
    """

    def __init__(
        self, rows: list[Connection], *, time_ns: int, elapsed_ns: int | None = None, left_out: int = 0
    ) -> None:
        super().__init__(rows)
        self.time_ns = time_ns
        self.elapsed_ns = elapsed_ns
        self.left_out = left_out


def check(limit: object) -> None:
    """InvalidValue if so many rows cannot be."""
    if limit is not None and (type(limit) is not int or limit < 1):
        raise InvalidValue(f"limit: {limit!r} is no number of connections; give 1 or more, or None for all")


class Snapshots:
    """One per tracer. `note` is given what is handed over; `take` makes a snapshot of an iterator's rows."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._ended: dict[int, Over] = {}
        self._too_many = 0
        self._before: Before | None = None

    def note(self, events: list[Event]) -> None:
        """What ends is in the next snapshot, once."""
        for event in events:
            if isinstance(event, (Close, Failed, Flow)):
                if len(self._ended) < MOST_ENDED:
                    self._ended[int(event.conn, 16)] = event
                else:
                    self._too_many += 1

    def take(self, data: bytes, now: int, offset_ns: int, limit: int | None) -> Snapshot:
        """`data` was listed from `now` on, by the kernel's clock; `offset_ns` leads to ours."""
        before = self._before
        with _uncollected():
            listed = self._rows.read(data, offset_ns, before, limit)
            ended = [] if before is None else self._over(listed, now, offset_ns, before)
        left_out = listed.left_out
        if before is not None:
            left_out, self._too_many = left_out + self._too_many, 0
        rows = ended + listed.connections
        if listed.has_paths or any(each.subflow_of for each in ended):
            rows = list(_with_their_paths(rows))
        if limit is not None and len(rows) > limit:
            left_out += len(rows) - limit
            del rows[limit:]
        self._before = Before(now, listed.counts)
        elapsed = None if before is None else now - before.time
        return Snapshot(rows, time_ns=now + offset_ns, elapsed_ns=elapsed, left_out=left_out)

    def _over(self, listed: Listed, now: int, offset_ns: int, before: Before) -> list[Connection]:
        """What has ended. Of those that are still listed as open, the next snapshot tells."""
        over = [event for number, event in self._ended.items() if number not in listed.places]
        self._ended = {number: event for number, event in self._ended.items() if number in listed.places}
        return [_ended_one(event, now, offset_ns, before) for event in over]


def _ended_one(event: Over, now: int, offset_ns: int, before: Before) -> Connection:
    known = _SHARED[type(event)]
    lived = event.latency_ns if isinstance(event, Failed) else event.duration_ns
    connection = Connection(
        **dict(zip(known.names, known.values(event), strict=True)),
        time_ns=event.time_ns - (lived or 0),
        outcome=_OUTCOMES[type(event)],
        state=None if isinstance(event, Flow) else "CLOSE",
    )
    sent, received = connection.tx_bytes, connection.rx_bytes
    if sent is not None and received is not None:
        began = 0 if lived is None else connection.time_ns - offset_ns
        connection.tx_rate, connection.rx_rate = before.rates(int(event.conn, 16), sent, received, now, began)
    return connection


@contextmanager
def _uncollected() -> Iterator[None]:
    """So many objects, of which none is garbage: to look for some again and again takes a fifth of it all."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


_OUTCOMES = {Close: "closed", Failed: "failed", Flow: "closed"}


class _Shared:
    """The fields that such an event and a connection have both."""

    def __init__(self, kind: type[Over]) -> None:
        mine = {field.name for field in fields(Connection)} - {"time_ns"}
        self.names = tuple(field.name for field in fields(kind) if field.name in mine)
        self.values = attrgetter(*self.names)


_SHARED = {kind: _Shared(kind) for kind in _OUTCOMES}


def _with_their_paths(rows: list[Connection]) -> Iterator[Connection]:
    """In the same order, save that the paths of an MPTCP connection that is among them stand behind it."""
    paths: dict[str, list[Connection]] = {each.conn: [] for each in rows if each.subflow_of is None}
    for each in rows:
        if each.subflow_of is not None and each.subflow_of in paths:
            paths[each.subflow_of].append(each)
    for each in rows:
        if each.subflow_of is None:
            yield each
            yield from paths[each.conn]
        elif each.subflow_of not in paths:
            yield each
