"""What a snapshot lists, held against what the ends know of themselves."""

from __future__ import annotations

from pytracecon.connections import Connection
from traffic.end import End, Listener, unmapped


def rows_of(rows: list[Connection], end: End) -> list[Connection]:
    """Those of the connection that `end` is an end of, seen from there; not the paths of an MPTCP connection."""
    assert end.local
    ends = (end.opened.netns, *end.local, *end.remote)
    return [
        row
        for row in rows
        if (row.netns, row.local_addr, row.local_port, row.remote_addr, row.remote_port) == ends
        and row.subflow_of is None
    ]


def row_of(rows: list[Connection], end: End) -> Connection:
    """The one row."""
    found = rows_of(rows, end)
    assert len(found) == 1, (found, end)
    return found[0]


def listeners(rows: list[Connection], listener: Listener) -> list[Connection]:
    """The rows of this one; that it takes connections for any address is known by its port."""
    port = unmapped(listener.address)[1]
    return [
        row
        for row in rows
        if row.outcome == "listening" and row.local_port == port and row.netns == listener.opened.netns
    ]


def facts(row: Connection, *names: str) -> tuple[object, ...]:
    return tuple(getattr(row, name) for name in names)
