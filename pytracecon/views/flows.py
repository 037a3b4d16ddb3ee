"""Connections, listeners and UDP conversations as they stand at a moment, one a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Any

from pytracecon.connections import Connection
from pytracecon.events import Event
from pytracecon.ordering import Nothing, Order, measures
from pytracecon.outputs.fitted import FittedTable
from pytracecon.outputs.table import Cells, Column, Table
from pytracecon.outputs.template import value_of
from pytracecon.views import shown, trace, wording
from pytracecon.views.columns import COMM, HOST, PID, Cell, clock, milliseconds, number
from pytracecon.views.sentence import sentence
from pytracecon.views.wording import UNKNOWN, duration, endpoint, size

__all__ = ["Shown", "columns", "is_alone", "listeners", "message", "names", "of_keys", "order", "table", "waits"]

_GAP = 1
_WIDEST_ENDPOINT = 47  # an IPv6 address without a zero, in brackets, with its port
_NARROW_ENDPOINT = 17
_ENDPOINT = 21


@dataclass(frozen=True, slots=True)
class Shown:
    """A column, and what rows are sorted by that are sorted by it."""

    cell: Cell
    order: Order

    @property
    def name(self) -> str:
        """As `--sort` takes it."""
        return self.cell.column.name.strip().lower()


def columns(
    *, watched: bool = False, host: bool = False, wide: bool = False, exact: bool = False, room: int | None = None
) -> list[Shown]:
    """`watched`: with what one listing cannot know, ages and bytes a second. `exact`: bytes in full.

    Where a terminal has no `room` for all, there are fewer; not if it shall be `wide`.
    """
    sums = [_bytes("TX", "tx_bytes", exact=exact), _bytes("RX", "rx_bytes", exact=exact)]
    rates = [_bytes("TX/s", "tx_rate", exact=exact), _bytes("RX/s", "rx_rate", exact=exact)]
    who, name = [_PROTO, _STATE, _PID, _COMM], [_HOST] if host else []
    local, remote = _endpoint("LOCAL", "local", _ENDPOINT), _endpoint("REMOTE", "remote", _ENDPOINT)
    narrow = _endpoint("REMOTE", "remote", _NARROW_ENDPOINT)
    if watched:
        room = None if room is None else room - _TIME.width - _GAP
        most_first = [
            [*who, local, remote, *name, _AGE, *sums, *rates, _RTT, _RETR],
            [*who, remote, *name, _AGE, *sums, *rates],
            [*who, remote, *name, *rates],
            [*who, narrow, *rates],
        ]
    else:
        most_first = [[*who, local, remote, *sums, _RTT, _RETR], [*who, _LOCAL_PORT, narrow, *sums]]
    if wide:
        return [*most_first[0], *_MORE]
    return next((each for each in most_first if room is None or _width(each) <= room), most_first[-1])


def listeners(*, wide: bool = False) -> list[Shown]:
    made = [_PROTO, _PID, _COMM, _endpoint("LOCAL", "local", _ENDPOINT), _BACKLOG, _LIMIT]
    return [*made, _CONN, _FD] if wide else made


def of_keys(keys: Sequence[str]) -> list[Shown]:
    """Columns for any keys of connections."""
    return [
        Shown(cell, Order(partial(_comparable, key=key), most=measures(key)))
        for key, cell in zip(keys, shown.cells(keys), strict=True)
    ]


def order(known: Sequence[Shown], name: str) -> Order | None:
    """By the column of this name, or with `-` before it the other way round. None if there is no such column."""
    wanted = name.removeprefix("-").lower()
    found = next((each.order for each in known if each.name == wanted), None)
    return Order(found.of, most=not found.most) if found is not None and name.startswith("-") else found


def names(known: Sequence[Shown]) -> list[str]:
    """What rows can be sorted by, each once."""
    return list(dict.fromkeys(each.name for each in known))


def table(made: Sequence[Shown], terminal: Callable[[], int | None], *, times: bool, utc: bool) -> Table:
    """With `times`, where there are several listings, a row begins with that of its own."""
    cells = [*([clock(utc=utc)] if times else []), *(each.cell for each in made)]

    def row(event: Event) -> Cells:
        if isinstance(event, Connection):
            return [cell.of(event) for cell in cells]
        said = f"no {event.what}" if isinstance(event, Nothing) else trace.detail(event)
        time = [cells[0].of(event)] if times else []
        return [*time, said, *[None] * (len(cells) - 1 - len(time))]

    return FittedTable([cell.column for cell in cells], row, terminal=terminal, hang="PID", gap=_GAP)


def message(row: Event) -> str:
    """A row in words: `curl (1479) 10.0.0.5:41234 → 10.0.0.7:443 tcp ESTABLISHED: 88 B out, 48401 B in`."""
    if not isinstance(row, Connection):
        return sentence(row)
    said = f"{COMM.of(row)} ({number(row.pid)}) {endpoint(row.local_addr, row.local_port)}"
    if row.outcome == "listening":
        waiting = "" if row.backlog is None else f": {row.backlog} of {number(row.backlog_limit)} wait"
        return f"{said} {row.proto} listening{waiting}"
    said += f" → {endpoint(row.remote_addr, row.remote_port)}"
    totals = [
        f"{size(count)} {way}" for count, way in ((row.tx_bytes, "out"), (row.rx_bytes, "in")) if count is not None
    ]
    return " ".join(filter(None, [said, row.proto, _state(row)])) + (f": {', '.join(totals)}" if totals else "")


def _width(made: Sequence[Shown]) -> int:
    return sum(each.cell.column.width for each in made) + _GAP * (len(made) - 1)


def waits(row: Connection) -> bool:
    """It listens, or is a datagram socket that was bound to a port and to nobody: whoever comes is its peer."""
    return row.outcome == "listening" or (is_alone(row) and row.direction == "in")


def is_alone(row: Connection) -> bool:
    """A datagram socket without another end, and no conversation: those have rows of their own."""
    return row.proto == "udp" and row.remote_addr is None and row.tx_packets is None


def _state(row: Connection) -> str:
    """What ended says so; UDP has no states."""
    if row.over:
        return row.outcome
    return "" if row.proto == "udp" else row.state or UNKNOWN


def _age(row: Connection) -> int | None:
    """How long it lasted, or the attempt took, if it is over."""
    return row.age_ns if not row.over else row.latency_ns if row.outcome == "failed" else row.duration_ns


def _of_tcp(say: Callable[[int | None], str], row: Connection, key: str) -> str:
    """Nothing where UDP has none, nor an attempt that failed."""
    value = getattr(row, key)
    return "" if value is None and (row.proto == "udp" or row.outcome == "failed") else say(value)


def _comparable(row: Connection, key: str) -> Any:
    value = value_of(row, key)
    return value if isinstance(value, (int, float)) or value is None else wording.value(key, value)


def _by_key(column: Column, of: Callable[[Connection], str], key: str) -> Shown:
    return Shown(Cell(column, of), Order(partial(_comparable, key=key), most=measures(key)))


def _bytes(name: str, key: str, *, exact: bool) -> Shown:
    """A rate that is not known is that of a first listing, where none can be."""
    width = 14 if exact else 8

    def said(row: Connection) -> str:
        value = getattr(row, key)
        if value is None:
            text = "" if key.endswith("_rate") or row.outcome == "failed" else UNKNOWN
        else:
            text = str(round(value)) if exact else size(round(value))
        return text.rjust(width)

    return _by_key(Column(name.rjust(width), width, width), said, key)


def _endpoint(name: str, end: str, width: int) -> Shown:
    def said(row: Connection) -> str:
        address, port = getattr(row, f"{end}_addr"), getattr(row, f"{end}_port")
        if end == "remote" and is_alone(row):
            return ""
        if address is None and end == "local" and waits(row):
            return f"*:{number(port)}"
        return endpoint(address, port)

    def place(row: Connection) -> tuple[int, int, int] | None:
        address = getattr(row, f"{end}_addr")
        if address is None:
            return None
        known = ip_address(address)
        return known.version, int(known), getattr(row, f"{end}_port") or 0

    return Shown(Cell(Column(name, width, _WIDEST_ENDPOINT), said), Order(place))


def _right(name: str, width: int, say: Callable[[int | None], str], key: str) -> Shown:
    return _by_key(Column(name.rjust(width), width, width), lambda row: _of_tcp(say, row, key).rjust(width), key)


def _text(name: str, width: int, widest: int, key: str) -> Shown:
    """What is not known of this row is empty: it is for some alone."""
    return _by_key(
        Column(name, width, widest), lambda row: "" if getattr(row, key) is None else str(getattr(row, key)), key
    )


_TIME = clock(utc=False).column
_PROTO = _by_key(Column("PROTO", 5, 5), lambda row: row.proto if row.subflow_of is None else f"  {row.proto}", "proto")
_STATE = Shown(Cell(Column("STATE", 11, 11), _state), Order(lambda row: _state(row) or None))
_PID = Shown(PID, Order(lambda row: row.pid))
_COMM = Shown(Cell(Column("COMM", 10, 16), COMM.of), Order(lambda row: row.comm))
_LOCAL_PORT = Shown(
    Cell(Column("LOCAL", 6, 6), lambda row: f":{number(row.local_port)}"), Order(lambda row: row.local_port)
)
_HOST = Shown(HOST, Order(lambda row: row.host))
_AGE = Shown(
    Cell(
        Column("AGE".rjust(11), 11, 11),
        lambda row: (UNKNOWN if (age := _age(row)) is None else duration(age)).rjust(11),
    ),
    Order(_age, most=True),
)
_RTT = _right("RTT(ms)", 8, milliseconds, "rtt_ns")
_RETR = _right("RETR", 5, number, "retransmits")
_BACKLOG = _right("BACKLOG", 7, number, "backlog")
_LIMIT = _right("LIMIT", 6, number, "backlog_limit")
_CONN = _text("CONN", 16, 16, "conn")
_FD = _text("FD", 4, 8, "fd")
_MORE = [
    _right("TXQ", 8, number, "tx_queue"),
    _right("RXQ", 8, number, "rx_queue"),
    _FD,
    _text("APP", 5, 8, "app"),
    _CONN,
    _text("PEER", 16, 16, "peer"),
]
