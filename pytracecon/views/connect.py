"""Outbound attempts, one a row or counted, in the columns of tcpconnect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from ipaddress import ip_address

from pytracecon.clock import SECOND
from pytracecon.events import ConnectionEvent, Event
from pytracecon.outputs import Piece
from pytracecon.outputs.table import Column, Table
from pytracecon.views import columns, trace, wording
from pytracecon.views.answers import Answers, began
from pytracecon.views.columns import COMM, ERROR, IP, PID, REASON, UID, Cell, address, number, port, since_first
from pytracecon.views.wording import UNKNOWN

__all__ = ["Counts", "cells", "query", "table"]

_LONGEST_NAME = 255
_SLOW = SECOND // 10
_MOST_COUNTED = 65_536
_OTHERS = ("*", "*", "*")


def cells(
    *,
    timestamp: bool = False,
    print_uid: bool = False,
    lport: bool = False,
    failures: bool = False,
    answers: Answers | None = None,
) -> list[Cell]:
    """`failures`: with the columns of why; `answers`: with the name that was asked for."""
    shown = [since_first(3)] if timestamp else []
    shown += [UID] if print_uid else []
    shown += [PID, COMM, IP, address("SADDR", "local")]
    shown += [port("LPORT", "local", 6)] if lport else []
    shown += [address("DADDR", "remote"), port("DPORT", "remote", 6)]
    shown += [ERROR, REASON] if failures else []
    if answers is not None:
        shown.append(Cell(Column("QUERY", 20, 60), lambda event: query(event, answers)))
    return shown


def table(shown: list[Cell], terminal: Callable[[], int | None]) -> Table:
    return columns.table(shown, terminal, hang="SADDR")


def query(event: ConnectionEvent, answers: Answers) -> str:
    """The name, and the time since its answer where that is more than 100 ms; it must be known for that."""
    if event.host is None:
        own = event.remote_addr is not None and ip_address(event.remote_addr).is_loopback
        return "localhost" if own else "No DNS Query"
    shown = wording.host(event.host, _LONGEST_NAME)
    answer = answers.of(event)
    if answer is not None:
        since = began(event) - answer.time_ns
        if since > _SLOW:
            shown += f" ({since / 1e6:.3f}ms)"
    return shown


class Counts:
    """How often each local address connected to each remote one and its port: told at the end, most first.

    A pair beyond the first 65,536 is one of the others, `*`.
    """

    def __init__(self, terminal: Callable[[], int | None]) -> None:
        self._terminal = terminal
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._lost: list[str] = []

    @property
    def untold(self) -> int:
        return self._counts.total() + len(self._lost)

    def header(self) -> bytes:
        return b""

    def render(self, events: Iterable[Event]) -> list[Piece]:
        for event in events:
            if not isinstance(event, ConnectionEvent):
                self._lost.append(trace.detail(event))
                continue
            pair = event.local_addr or UNKNOWN, event.remote_addr or UNKNOWN, number(event.remote_port)
            known = pair in self._counts or len(self._counts) < _MOST_COUNTED
            self._counts[pair if known else _OTHERS] += 1
        return []

    def sum_up(self, *, last: bool) -> list[Piece]:
        """Behind the ^C of a terminal, on a line of its own."""
        if not last:
            return []
        start = "" if self._terminal() is None else "\n"
        told = [(start + _line("LADDR", "RADDR", "RPORT", "CONNECTS"), 0)]
        told += [(_line(*pair, str(count)), count) for pair, count in self._counts.most_common()]
        told += [(f"{lost}\n", 1) for lost in self._lost]
        self._counts.clear()
        self._lost.clear()
        return [(line.encode(), count) for line, count in told]


def _line(local: str, remote: str, remote_port: str, count: str) -> str:
    return f"{local:<25} {remote:<25} {remote_port:<20} {count}\n"
