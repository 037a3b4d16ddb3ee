"""Segments sent again and resets, one a row or counted, in the columns of tcpretrans."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from pytracecon.events import ConnectionEvent, Event, Reset, Retransmit
from pytracecon.outputs import Piece
from pytracecon.outputs.table import Column, Table
from pytracecon.views import columns, trace
from pytracecon.views.columns import IP, PID, Cell, clock, number
from pytracecon.views.wording import UNKNOWN, endpoint

__all__ = ["Counts", "cells", "table"]

_WIDEST_ENDPOINT = 47
_MOST_COUNTED = 65_536
_OTHERS = ("*", "*")


def cells(*, utc: bool = False, segment: bool = False) -> list[Cell]:
    """`segment`: with what was sent, and how many of it. Without, a reset looks like anything that is sent again."""
    shown = [clock(utc=utc), replace(PID, column=Column("PID", 7, 7)), IP, *_ENDS, _STATE]
    return [*shown, *_SEGMENT] if segment else shown


def table(shown: list[Cell], terminal: Callable[[], int | None]) -> Table:
    return columns.table(shown, terminal, hang="LADDR:LPORT")


class Counts:
    """How many segments each connection sent again: told at the end, most first.

    A connection beyond the first 65,536 is one of the others, `*`.
    """

    def __init__(self, terminal: Callable[[], int | None]) -> None:
        self._terminal = terminal
        self._counts: dict[tuple[str, str], _Count] = {}
        self._lost: list[str] = []

    @property
    def untold(self) -> int:
        return sum(count.events for count in self._counts.values()) + len(self._lost)

    def header(self) -> bytes:
        return b""

    def render(self, events: Iterable[Event]) -> list[Piece]:
        for event in events:
            if not isinstance(event, Retransmit):
                self._lost.append(trace.detail(event))
                continue
            flow = _end(event, "local"), _end(event, "remote")
            if flow not in self._counts and len(self._counts) >= _MOST_COUNTED:
                flow = _OTHERS
            count = self._counts.setdefault(flow, _Count())
            count.events += 1
            count.segments += event.segments or 1
        return []

    def sum_up(self, *, last: bool) -> list[Piece]:
        """Behind the ^C of a terminal, on a line of its own."""
        if not last:
            return []
        start = "" if self._terminal() is None else "\n"
        told = [(start + _line("LADDR:LPORT", "RADDR:RPORT", "RETRANSMITS"), 0)]
        most_first = sorted(self._counts.items(), key=lambda item: -item[1].segments)
        told += [(_line(*flow, str(count.segments)), count.events) for flow, count in most_first]
        told += [(f"{lost}\n", 1) for lost in self._lost]
        self._counts.clear()
        self._lost.clear()
        return [(line.encode(), count) for line, count in told]


class _Count:
    """A packet that is sent again may be several segments, and is one event."""

    __slots__ = ("events", "segments")

    def __init__(self) -> None:
        self.events = self.segments = 0


def _line(local: str, remote: str, count: str) -> str:
    return f"{local:<25} {remote:<25} {count}\n"


def _end(event: ConnectionEvent, end: str) -> str:
    return endpoint(getattr(event, f"{end}_addr"), getattr(event, f"{end}_port"))


def _type(event: Retransmit | Reset) -> str:
    """Which way it went, as tcpretrans has it."""
    if isinstance(event, Retransmit):
        return "R>"
    return UNKNOWN if event.sent is None else "R>" if event.sent else "<R"


def _segment(event: Retransmit | Reset) -> str:
    return "RST" if isinstance(event, Reset) else (event.segment or UNKNOWN).upper()


def _segments(event: Retransmit | Reset) -> str:
    return "1" if isinstance(event, Reset) else number(event.segments)


_ENDS = [
    Cell(Column("LADDR:LPORT", 20, _WIDEST_ENDPOINT), lambda event: _end(event, "local")),
    Cell(Column("T>", 2, 2), _type),
    Cell(Column("RADDR:RPORT", 20, _WIDEST_ENDPOINT), lambda event: _end(event, "remote")),
]
_STATE = Cell(Column("STATE", 12, 12), lambda event: event.state or UNKNOWN)
_SEGMENT = [
    Cell(Column("SEGMENT", 7, 7), _segment),
    Cell(Column("SEGMENTS", 8, 8), _segments),
]
