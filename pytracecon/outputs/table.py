"""Rows of text under a header, for a terminal or a file.

A column widens when a cell needs it, in steps of eight, and keeps that width: below each header (it is repeated when
widths change) everything stands in line. On a terminal nothing runs over the edge: columns widen only as long as the
table fits, and what does not fit in a row goes on in the next line, below the column that `hang` names. A cell may
span the columns behind its own: these are None. It widens none of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from pytracecon.events import Event
from pytracecon.outputs import Piece, colour
from pytracecon.text import width

__all__ = ["Column", "Table"]

_STEP = 8
_READABLE = 32  # columns that a continued line should have at least
_INDENT = 4
_BETWEEN_CLAUSES = re.compile("(?:(?<=,)|(?<= →)) ")


Cells = Sequence[str | None]


@dataclass(frozen=True, slots=True)
class Column:
    """`widest` is where widening ends; a cell that needs more stands out of line. The last column never widens."""

    name: str
    width: int
    widest: int


class Table:
    """`row` makes an event's cells, of printable text; `terminal` says how wide the lines may be (None: any)."""

    def __init__(
        self,
        columns: Sequence[Column],
        row: Callable[[Event], Cells],
        *,
        terminal: Callable[[], int | None],
        hang: str,
        gap: int = 2,
    ) -> None:
        self._columns = columns
        self._row = row
        self._terminal = terminal
        self._hang = [column.name for column in columns].index(hang)
        self._gap = gap
        self._widths = [column.width for column in columns]
        self.coloured = False
        """Lines have the colours of `outputs.colour`."""

    def header(self) -> bytes:
        text = self._text([column.name for column in self._columns], self._terminal())
        return (colour.painted(text, colour.HEADER) if self.coloured else text).encode()

    def render(self, events: Iterable[Event]) -> list[Piece]:
        terminal = self._terminal()
        pieces: list[Piece] = []
        for event in events:
            cells = self._row(event)
            widened = False
            for at, cell in enumerate(cells[:-1]):
                if cell is not None and len(cell) > self._widths[at] and cells[at + 1] is not None:
                    widened |= self._widen(at, width(cell), terminal)
            text = self._text(cells, terminal)
            if self.coloured:
                text = colour.painted(text, colour.style(event))
            pieces.append(((self.header() if widened else b"") + text.encode(), 1))
        return pieces

    def _widen(self, at: int, needed: int, terminal: int | None) -> bool:
        column = self._columns[at]
        steps = -(-(needed - column.width) // _STEP)
        wanted = min(column.width + steps * _STEP, column.widest)
        room = wanted if terminal is None else self._widths[at] + terminal - self._taken()
        if wanted > room >= needed:
            wanted = needed
        if wanted <= self._widths[at] or wanted > room:
            return False
        self._widths[at] = wanted
        return True

    def _taken(self) -> int:
        """Columns of the terminal that a row takes, with a last cell of its column's width."""
        return sum(self._widths) + self._gap * (len(self._widths) - 1)

    def _text(self, cells: Cells, terminal: int | None) -> str:
        gap = " " * self._gap
        placed = self._placed(cells)
        line = gap.join([cell + " " * (wide - width(cell)) for cell, wide in placed]).rstrip()
        if terminal is None or width(line) <= terminal:
            return line + "\n"
        return self._flowed(self._placed(cells, spanning=False), terminal)

    def _placed(self, cells: Cells, *, spanning: bool = True) -> list[tuple[str, int]]:
        """The cells, each with the columns that it has. One that spans has none where there is not enough room."""
        placed: list[tuple[str, int]] = []
        for cell, wide in zip(cells, self._widths, strict=True):
            if cell is not None:
                placed.append((cell, wide))
            else:
                whole, so_far = placed.pop()
                placed.append((whole, so_far + self._gap + wide if spanning else 0))
        return placed

    def _flowed(self, placed: list[tuple[str, int]], terminal: int) -> str:
        """The row on as many lines as it needs."""
        hang = sum(self._widths[: self._hang]) + self._gap * self._hang
        if terminal - hang < _READABLE:
            hang = _INDENT
        lines: list[str] = []
        used = terminal
        for part, wide, gap in self._parts(placed, terminal - hang):
            for piece in _pieces(part, terminal):
                needed = width(piece)
                if used + needed > terminal:
                    used = _indent(hang, terminal - needed) if lines else 0
                    lines.append(" " * used)
                after = max(needed, wide) + gap
                lines[-1] += piece + " " * (after - needed)
                used += after
        return "".join(f"{line.rstrip()}\n" for line in lines)

    def _parts(self, placed: list[tuple[str, int]], room: int) -> Iterator[tuple[str, int, int]]:
        """What stays together, its columns, and the gap behind it. Text for which a line has no `room` comes apart."""
        *columns, (last, _) = placed
        while columns and not columns[-1][0]:
            columns.pop()
        for cell, wide in [*columns, (last, 0)]:
            *clauses, end = [cell] if width(cell) <= room else _BETWEEN_CLAUSES.split(cell)
            yield from ((clause, 0, 1) for clause in clauses)
            yield end, wide, self._gap


def _indent(hang: int, room: int) -> int:
    """Where a continued line begins, if there is `room` for so much before what it holds."""
    return hang if hang <= room else max(0, min(_INDENT, room))


def _pieces(part: str, terminal: int) -> Iterator[str]:
    """`part`, which mostly is narrower than the terminal."""
    while width(part) > terminal:
        most = terminal
        while width(part[:most]) > terminal:
            most -= 1
        yield part[:most]
        part = part[most:]
    yield part
