"""Inbound connections, one a row, in the columns of tcpaccept."""

from __future__ import annotations

from collections.abc import Callable

from pytracecon.outputs.table import Column, Table
from pytracecon.views import columns
from pytracecon.views.columns import COMM, IP, PID, Cell, address, clock, milliseconds, port, since_first

__all__ = ["cells", "table"]


def cells(*, time: bool = False, timestamp: bool = False, utc: bool = False, wait: bool = False) -> list[Cell]:
    """`wait`: with the time between the handshake and the accept."""
    shown = [clock(utc=utc)] if time else []
    shown += [since_first(3)] if timestamp else []
    shown += [PID, COMM, IP, address("RADDR", "remote"), port("RPORT", "remote", 5)]
    shown += [address("LADDR", "local"), port("LPORT", "local", 5)]
    shown += [Cell(Column("WAIT(ms)", 8, 8), lambda event: milliseconds(event.wait_ns))] if wait else []
    return shown


def table(shown: list[Cell], terminal: Callable[[], int | None]) -> Table:
    return columns.table(shown, terminal, hang="RADDR")
