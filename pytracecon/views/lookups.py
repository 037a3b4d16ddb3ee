"""Lookups as they happen, one a row. Columns of the user's own stand behind the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from pytracecon.events import Event, Lookup
from pytracecon.outputs.table import Cells, Column, Table
from pytracecon.text import safe
from pytracecon.views import trace, wording
from pytracecon.views.columns import Cell
from pytracecon.views.wording import UNKNOWN, duration, several, time_of_day

__all__ = ["row", "table"]

_LONGEST_NAME = 255
_MOST_ADDRESSES = 6

_COLUMNS = (
    Column("TIME", 15, 15),
    Column("PID", 6, 7),
    Column("COMM", 10, 16),
    Column("LATENCY", 10, 12),
    Column("SOURCE", 20, 54),
    Column("NAME → RESULT", 30, 78),
)
# For 80 columns: the time to the second, and no server.
_NARROW_COLUMNS = (
    Column("TIME", 8, 8),
    Column("PID", 6, 7),
    Column("COMM", 9, 16),
    Column("LATENCY", 9, 12),
    Column("SOURCE", 11, 13),
    Column("NAME → RESULT", 30, 78),
)
_WIDE_ENOUGH = 104


def table(terminal: Callable[[], int | None], *, utc: bool, shown: Sequence[Cell] = ()) -> Table:
    """For a terminal of the width that it has now, or for none."""
    wide = terminal()
    narrow = wide is not None and wide < _WIDE_ENOUGH
    return Table(
        [*(_NARROW_COLUMNS if narrow else _COLUMNS), *(cell.column for cell in shown)],
        partial(row, utc=utc, narrow=narrow, shown=shown),
        terminal=terminal,
        hang="NAME → RESULT",
        gap=1 if narrow else 2,
    )


def row(event: Event, *, utc: bool = False, narrow: bool = False, shown: Sequence[Cell] = ()) -> Cells:
    """The cells of a row. What is not known is `?`."""
    time = time_of_day(event.time_ns, utc=utc, decimals=0 if narrow else 6)
    if not isinstance(event, Lookup):
        return time, "", "", "", "", trace.detail(event), *[None for _ in shown]
    return (
        time,
        UNKNOWN if event.pid is None else str(event.pid),
        UNKNOWN if event.comm is None else safe(event.comm),
        UNKNOWN if event.latency_ns is None else duration(event.latency_ns),
        _source(event, narrow=narrow),
        f"{UNKNOWN if event.name is None else wording.host(event.name, _LONGEST_NAME)} → {_outcome(event)}",
        *[cell.of(event) for cell in shown],
    )


def _source(event: Lookup, *, narrow: bool) -> str:
    """As it is asked of dig: `dns AAAA @127.0.0.53`. That a packet asks for IPv4 addresses is as usual."""
    said = [event.source or UNKNOWN]
    said += [event.type] if event.type not in ("A", None) else []
    said += [f"@{event.server}"] if event.server is not None and not narrow else []
    return " ".join(said)


def _outcome(event: Lookup) -> str:
    said = []
    if event.addresses:
        said.append(several(event.addresses, _MOST_ADDRESSES))
    if not event.addresses or event.result not in ("ok", None):
        said.append(event.result or UNKNOWN)
    if event.within is not None:
        said.append(f"within {event.within}")
    if event.partial:
        said.append("partial")
    return ", ".join(said)
