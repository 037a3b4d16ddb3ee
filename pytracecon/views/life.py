"""Connections that ended, one a row, in the columns of tcplife."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pytracecon.events import Close
from pytracecon.outputs.table import Column, Table
from pytracecon.views import columns
from pytracecon.views.columns import COMM, PID, Cell, address, clock, milliseconds, number, port, since_first
from pytracecon.views.wording import UNKNOWN

__all__ = ["cells", "is_narrow", "table"]

_WIDE_ENOUGH = 100
_ADDRESS, _WIDE_ADDRESS = 15, 26


def cells(
    *,
    time: bool = False,
    timestamp: bool = False,
    utc: bool = False,
    wide: bool = False,
    narrow: bool = False,
    exact: bool = False,
    how: bool = False,
) -> list[Cell]:
    """In the widths of libbpf's tcplife, or `narrow`, those of bcc's, for 80 columns.

    `exact`: bytes in place of KB; `how`: with who ended it, the segments sent again and the round trip time.
    """
    width = _WIDE_ADDRESS if wide else _ADDRESS
    shown = [clock(utc=utc)] if time else []
    shown += [since_first(6)] if timestamp else []
    shown += [PID, replace(COMM, column=Column("COMM", 10, 16))] if narrow else _PROCESS
    shown += [address("LADDR", "local", width), port("LPORT", "local", 5)]
    shown += [address("RADDR", "remote", width), port("RPORT", "remote", 5)]
    shown += _EXACT if exact else _KB
    shown.append(Cell(Column("MS", 9, 12), lambda event: milliseconds(event.duration_ns)))
    return shown + _HOW if how else shown


def table(shown: list[Cell], terminal: Callable[[], int | None]) -> Table:
    return columns.table(shown, terminal, hang="LADDR")


def is_narrow(terminal: Callable[[], int | None]) -> bool:
    wide = terminal()
    return wide is not None and wide < _WIDE_ENOUGH


def _kb(count: int | None) -> str:
    return UNKNOWN if count is None else f"{count / 1024:.2f}"


def _sent(event: Close) -> int | None:
    """tcplife's TX_KB is what the other side acknowledged; of an end that could not tell, what TCP took."""
    return event.tx_bytes if event.tx_acked is None else event.tx_acked


_PROCESS = [replace(PID, column=Column("PID", 7, 7)), replace(COMM, column=Column("COMM", 16, 16))]
_KB = [
    Cell(Column("TX_KB", 6, 12), lambda event: _kb(_sent(event))),
    Cell(Column("RX_KB", 6, 12), lambda event: _kb(event.rx_bytes)),
]
_EXACT = [
    Cell(Column("TX_BYTES", 10, 15), lambda event: number(event.tx_bytes)),
    Cell(Column("TX_ACKED", 10, 15), lambda event: number(event.tx_acked)),
    Cell(Column("RX_BYTES", 10, 15), lambda event: number(event.rx_bytes)),
]
_HOW = [
    Cell(Column("ENDED", 12, 12), lambda event: event.ended or UNKNOWN),
    Cell(Column("RETRANS", 7, 7), lambda event: number(event.retransmits)),
    Cell(Column("RTT(ms)", 7, 9), lambda event: milliseconds(event.rtt_ns)),
]
