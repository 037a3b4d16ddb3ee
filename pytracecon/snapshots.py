"""What is open right now: the list that `Tracer.snapshot()` gives, and what is known from one to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from pytracecon.connections import Connection
from pytracecon.errors import InvalidValue
from pytracecon.events import Close, Event, Failed
from pytracecon.rows import NUMBER, SUBFLOW_OF, Before, Row, Rows

if TYPE_CHECKING:
    from pytracecon.names.joiner import Joiner
    from pytracecon.owners.processes import Owners
    from pytracecon.translations import Translations

__all__ = ["Snapshot", "Snapshots"]

MOST_ENDED: Final = 65_536

Over = Close | Failed


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

    def __init__(
        self,
        names: Joiner | None,
        owners: Owners | None,
        translations: Translations | None,
        fits: Callable[[Connection], bool] | None,
    ) -> None:
        self._serve = names, owners, translations
        self._fits = fits
        self._ended: dict[int, Over] = {}
        self._too_many = 0
        self._before: Before | None = None

    def note(self, events: list[Event]) -> None:
        """What ends is in the next snapshot, once."""
        for event in events:
            if type(event) is Close or type(event) is Failed:
                if len(self._ended) < MOST_ENDED:
                    self._ended[int(event.conn, 16)] = event
                else:
                    self._too_many += 1

    def take(self, data: bytes, now: int, offset_ns: int, limit: int | None) -> Snapshot:
        """`data` was listed from `now` on, by the kernel's clock; `offset_ns` leads to ours."""
        rows, before = Rows(data, *self._serve), self._before
        ended: list[Over] = []
        left_out = 0
        if before is not None:
            ended = self._over(rows)
            left_out, self._too_many = self._too_many, 0
        make = rows.maker(offset_ns, before)
        items: list[Over | Row] = [*ended, *rows.all()]
        if rows.has_paths or any(event.subflow_of for event in ended):
            items = list(_with_their_paths(items))
        made: list[Connection] = []
        fits = self._fits
        for at, item in enumerate(items):
            full = limit is not None and len(made) >= limit
            if full and fits is None:
                left_out += len(items) - at
                break
            if not isinstance(item, tuple):
                connection = self._ended_one(item, now, offset_ns, before)
            else:
                connection = make(item)
                if fits is not None and not fits(connection):
                    continue
            if full:
                left_out += 1
            else:
                made.append(connection)
        self._before = Before(now, rows.counts)
        elapsed = None if before is None else now - before.time
        return Snapshot(made, time_ns=now + offset_ns, elapsed_ns=elapsed, left_out=left_out)

    def _over(self, rows: Rows) -> list[Over]:
        """What has ended. Of those that are still listed as open, the next snapshot tells."""
        over = [event for number, event in self._ended.items() if number not in rows]
        self._ended = {number: event for number, event in self._ended.items() if number in rows}
        return over

    def _ended_one(self, event: Over, now: int, offset_ns: int, before: Before | None) -> Connection:
        known = _SHARED[type(event)]
        lived = event.duration_ns if isinstance(event, Close) else event.latency_ns
        connection = Connection(
            **dict(zip(known.names, known.values(event), strict=True)),
            time_ns=event.time_ns - (lived or 0),
            outcome=_OUTCOMES[type(event)],
            state="CLOSE",
        )
        sent, received = connection.tx_bytes, connection.rx_bytes
        if before is not None and sent is not None and received is not None:
            began = 0 if lived is None else connection.time_ns - offset_ns
            connection.tx_rate, connection.rx_rate = before.rates(int(event.conn, 16), sent, received, now, began)
        return connection


_OUTCOMES = {Close: "closed", Failed: "failed"}


class _Shared:
    """The fields that such an event and a connection have both."""

    def __init__(self, kind: type[Over]) -> None:
        mine = {field.name for field in fields(Connection)} - {"time_ns"}
        self.names = tuple(field.name for field in fields(kind) if field.name in mine)
        self.values = attrgetter(*self.names)


_SHARED = {kind: _Shared(kind) for kind in _OUTCOMES}


def _with_their_paths(items: list[Over | Row]) -> Iterator[Over | Row]:
    """In the same order, save that the paths of an MPTCP connection that is among them stand behind it."""
    paths: dict[int, list[Over | Row]] = {}
    whole = {_number(item) for item in items if not _whole(item)}
    for item in items:
        if (parent := _whole(item)) in whole:
            paths.setdefault(parent, []).append(item)
    for item in items:
        parent = _whole(item)
        if parent in paths:
            continue
        yield item
        if not parent:
            yield from paths.get(_number(item), ())


def _number(item: Over | Row) -> int:
    return int(item[NUMBER]) if isinstance(item, tuple) else int(item.conn, 16)


def _whole(item: Over | Row) -> int:
    """The MPTCP connection that it is a path of, or 0."""
    if isinstance(item, tuple):
        return int(item[SUBFLOW_OF])
    return 0 if item.subflow_of is None else int(item.subflow_of, 16)
