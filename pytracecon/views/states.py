"""Changes of state, one a row: in the columns of tcpstates, or as its CSV.

SKADDR is the connection's identity: what it is to the kernel is nobody's business, and used again after it.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from pytracecon.events import ConnectionEvent, Event, State
from pytracecon.outputs import Piece
from pytracecon.outputs.table import Column, Table
from pytracecon.text import cell
from pytracecon.views import columns, trace
from pytracecon.views.columns import COMM, IP, PID, Cell, address, clock, family, port, since_first
from pytracecon.views.wording import UNKNOWN

__all__ = ["Csv", "Field", "cells", "fields", "table"]

_ADDRESS, _WIDE_ADDRESS = 15, 26


def cells(
    *,
    time: bool = False,
    timestamp: bool = False,
    utc: bool = False,
    wide: bool = False,
    meaning: bool = False,
    service: bool = False,
    details: bool = False,
) -> list[Cell]:
    """In the widths of libbpf's tcpstates. `wide`: with room for IPv6, and the family.

    `service`: with the real server, behind IPVS or else behind a packet filter's rule; `details`: and with its own.
    """
    width = _WIDE_ADDRESS if wide else _ADDRESS
    shown = [clock(utc=utc)] if time else []
    shown += [since_first(6)] if timestamp else []
    shown += [_SKADDR, replace(PID, column=Column("C-PID", 7, 7))]
    shown += [replace(COMM, column=Column("C-COMM", 16 if wide else 10, 16))]
    shown += [IP] if wide else []
    shown += [address("LADDR", "local", width), port("LPORT", "local", 5)]
    shown += [_unless_it_listens(address("RADDR", "remote", width)), _unless_it_listens(port("RPORT", "remote", 5))]
    shown += _CHANGE
    shown += [_SERVICE] if service else []
    shown += _DETAILS if details else []
    return [*shown, _MEANING] if meaning else shown


def table(shown: list[Cell], terminal: Callable[[], int | None]) -> Table:
    return columns.table(shown, terminal, hang="LADDR")


class Field(NamedTuple):
    """Of a line of CSV. What is not known is None."""

    name: str
    of: Callable[[Any], str | int | None]


def fields(
    *,
    time: bool = False,
    timestamp: bool = False,
    utc: bool = False,
    meaning: bool = False,
    service: bool = False,
    details: bool = False,
) -> list[Field]:
    """The eleven of bcc's tcpstates, behind the times that are asked for."""
    shown = [Field("TIME", clock(utc=utc).of)] if time else []
    shown += [Field("TIME(s)", since_first(6).of)] if timestamp else []
    shown += _FIELDS
    shown += [Field("SERVICE", lambda event: str(event.service or event.nat or ""))] if service else []
    shown += [Field(cell.column.name, cell.of) for cell in _DETAILS] if details else []
    return [*shown, Field("MEANING", lambda event: event.meaning)] if meaning else shown


class Csv:
    """As tcpstates writes it, with its ends of lines. Foreign text is as in our own CSV, and so is what is not known.

    What was lost stands in the first field, and the others are empty.
    """

    def __init__(self, shown: Sequence[Field]) -> None:
        self._fields = shown
        self._lines: list[str] = []
        self._write = csv.writer(_Lines(self._lines), lineterminator="\n").writerow

    def header(self) -> bytes:
        self._write([field.name for field in self._fields])
        return self._taken()

    def render(self, events: Iterable[Event]) -> list[Piece]:
        for event in events:
            if isinstance(event, ConnectionEvent):
                self._write([field.of(event) for field in self._fields])
            else:
                self._write([trace.detail(event), *[None] * (len(self._fields) - 1)])
        count = len(self._lines)
        return [(self._taken(), count)]

    def _taken(self) -> bytes:
        taken = "".join(self._lines).encode()
        self._lines.clear()
        return taken


class _Lines:
    """What csv.writer writes to: a list of lines."""

    def __init__(self, lines: list[str]) -> None:
        self.write = lines.append


def _unless_it_listens(shown: Cell) -> Cell:
    """`-` where there is no other side."""
    return replace(shown, of=lambda event: "-" if {event.old, event.new} == {"CLOSE", "LISTEN"} else shown.of(event))


def _milliseconds(event: State) -> str | None:
    """In the old state. A socket's first one takes no time, as tcpstates has it."""
    if event.in_old_ns is not None:
        return f"{event.in_old_ns / 1e6:.3f}"
    is_first = event.old == "CLOSE" or (event.old == "LISTEN" and event.new != "CLOSE")
    return "0.000" if is_first else None


def _family(event: State) -> str | None:
    known = family(event)
    return None if known == UNKNOWN else known


_SKADDR = Cell(Column("SKADDR", 16, 16), lambda event: event.conn)
_CHANGE = [
    Cell(Column("OLDSTATE", 11, 11), lambda event: event.old or UNKNOWN),
    Cell(Column("->", 2, 2), lambda _: "->"),
    Cell(Column("NEWSTATE", 11, 11), lambda event: event.new or UNKNOWN),
    Cell(Column("MS", 9, 12), lambda event: _milliseconds(event) or UNKNOWN),
]
_SERVICE = Cell(Column("SERVICE", 21, 47), lambda event: str(event.service or event.nat or ""))
_DETAILS = [
    Cell(Column("SCHEDULER", 9, 16), lambda event: cell(event.service_scheduler or "")),
    Cell(Column("WEIGHT", 6, 10), lambda event: "" if event.service_weight is None else str(event.service_weight)),
    Cell(Column("FORWARDING", 14, 14), lambda event: event.service_forwarding or ""),
]
_MEANING = Cell(Column("MEANING", 16, 16), lambda event: event.meaning or "")
_FIELDS = [
    Field("SKADDR", lambda event: event.conn),
    Field("C-PID", lambda event: event.pid),
    Field("C-COMM", lambda event: None if event.comm is None else cell(event.comm)),
    Field("IP", _family),
    Field("LADDR", lambda event: event.local_addr),
    Field("LPORT", lambda event: event.local_port),
    Field("RADDR", lambda event: event.remote_addr),
    Field("RPORT", lambda event: event.remote_port),
    Field("OLDSTATE", lambda event: event.old),
    Field("NEWSTATE", lambda event: event.new),
    Field("MS", _milliseconds),
]
