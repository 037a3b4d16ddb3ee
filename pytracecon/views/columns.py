"""Columns that several verbs share, as bcc's tools have them, and the table that a verb puts together of them.

A pipe gets one header and the namesake's widths, as its readers expect; on a terminal columns widen for IPv6.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pytracecon.events import ConnectionEvent, Event, Failed
from pytracecon.outputs.table import Cells, Column, Table
from pytracecon.text import safe
from pytracecon.views import trace, wording
from pytracecon.views.wording import UNKNOWN, time_of_day

__all__ = [
    "COMM",
    "ERROR",
    "HOST",
    "IP",
    "PID",
    "REASON",
    "UID",
    "Cell",
    "address",
    "clock",
    "family",
    "is_whole",
    "milliseconds",
    "number",
    "port",
    "rows",
    "since_first",
    "table",
]

WIDEST_ADDRESS = 39
_LONGEST_HOST = 48


@dataclass(frozen=True, slots=True)
class Cell:
    """A column, and how its cell is made of an event. What is not known is `?`, what does not apply is empty."""

    column: Column
    of: Callable[[Any], str]


def table(cells: Sequence[Cell], terminal: Callable[[], int | None], *, hang: str) -> Table:
    """For a terminal of the width that it has now, or for none; a row goes on below the column `hang`."""
    columns = [cell.column for cell in cells]
    if terminal() is None:
        columns = [replace(column, widest=column.width) for column in columns]
    return Table(columns, rows(cells), terminal=terminal, hang=hang, gap=1)


def rows(cells: Sequence[Cell]) -> Callable[[Event], Cells]:
    """What makes the row of an event. What was lost stands across all columns."""

    def row(event: Event) -> Cells:
        if isinstance(event, ConnectionEvent):
            return [cell.of(event) for cell in cells]
        return [trace.detail(event), *[None] * (len(cells) - 1)]

    return row


def is_whole(event: Event) -> bool:
    """Not a path of a connection that has a row of its own."""
    return getattr(event, "subflow_of", None) is None


def number(value: int | None) -> str:
    return UNKNOWN if value is None else str(value)


def milliseconds(nanoseconds: int | None) -> str:
    """Two decimals, and three where that would be 0.00."""
    if nanoseconds is None:
        return UNKNOWN
    return f"{nanoseconds / 1e6:.{2 if nanoseconds >= 10_000 else 3}f}"


def family(event: ConnectionEvent) -> str:
    known = event.remote_addr or event.local_addr
    return UNKNOWN if known is None else "6" if ":" in known else "4"


PID = Cell(Column("PID", 6, 7), lambda event: number(event.pid))
UID = Cell(Column("UID", 5, 10), lambda event: number(event.uid))
COMM = Cell(Column("COMM", 12, 16), lambda event: UNKNOWN if event.comm is None else safe(event.comm))
IP = Cell(Column("IP", 2, 2), family)
HOST = Cell(
    Column("HOST", 16, _LONGEST_HOST),
    lambda event: "" if event.host is None else wording.host(event.host, _LONGEST_HOST),
)
ERROR = Cell(Column("ERROR", 12, 16), lambda event: (event.error or UNKNOWN) if isinstance(event, Failed) else "")
REASON = Cell(Column("REASON", 11, 11), lambda event: (event.reason or UNKNOWN) if isinstance(event, Failed) else "")


def address(name: str, end: str, width: int = 16) -> Cell:
    """Of the `end` `local` or `remote`."""
    return Cell(Column(name, width, WIDEST_ADDRESS), lambda event: getattr(event, f"{end}_addr") or UNKNOWN)


def port(name: str, end: str, width: int) -> Cell:
    return Cell(Column(name, width, width), lambda event: number(getattr(event, f"{end}_port")))


def clock(*, utc: bool) -> Cell:
    return Cell(Column("TIME", 8, 8), lambda event: time_of_day(event.time_ns, utc=utc, decimals=0))


def since_first(decimals: int) -> Cell:
    """Seconds since the first event that is shown. One that a CPU told late is not from before it."""
    first: list[int] = []

    def seconds(event: ConnectionEvent) -> str:
        if not first:
            first.append(event.time_ns)
        return f"{max(0, event.time_ns - first[0]) / 1e9:.{decimals}f}"

    return Cell(Column("TIME(s)", 8 if decimals == 3 else 9, 12), seconds)
