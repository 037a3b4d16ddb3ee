"""Rows of text under a header, for a terminal or a file.

A column widens when a cell needs it, in steps of eight, and keeps that width: below each header (it is repeated when
widths change) everything stands in line. On a terminal nothing runs over the edge: columns widen only as long as the
table fits, and what does not fit in a row goes on in the next line, below the column that `hang` names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pytracecon.events import Event
from pytracecon.outputs import Piece
from pytracecon.text import width

__all__ = ["Column", "Table"]

_STEP = 8
_READABLE = 32  # columns that a continued line should have at least
_INDENT = 4


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
        row: Callable[[Event], Sequence[str]],
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

    def header(self) -> bytes:
        return self._text([column.name for column in self._columns], self._terminal()).encode()

    def render(self, events: Iterable[Event]) -> list[Piece]:
        terminal = self._terminal()
        pieces: list[Piece] = []
        for event in events:
            cells = self._row(event)
            widened = False
            for at, cell in enumerate(cells[:-1]):
                if len(cell) > self._widths[at]:
                    widened |= self._widen(at, width(cell), terminal)
            text = self._text(cells, terminal)
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

    def _text(self, cells: Sequence[str], terminal: int | None) -> str:
        gap = " " * self._gap
        padded = [cell + " " * (wide - width(cell)) for cell, wide in zip(cells, self._widths, strict=True)]
        line = gap.join(padded).rstrip()
        if terminal is None or width(line) <= terminal:
            return line + "\n"
        return self._flowed(cells, terminal)

    def _flowed(self, cells: Sequence[str], terminal: int) -> str:
        """The row on as many lines as it needs."""
        hang = sum(self._widths[: self._hang]) + self._gap * self._hang
        if terminal - hang < _READABLE:
            hang = _INDENT
        *columns, last = cells
        while columns and not columns[-1]:
            columns.pop()
        parts = [(cell, wide + self._gap) for cell, wide in zip(columns, self._widths, strict=False)]
        if width(last) <= terminal - hang:
            parts.append((last, 0))
        else:
            *clauses, end = last.split(", ")
            parts += [(f"{clause},", 0) for clause in clauses] + [(end, 0)]
        lines: list[str] = []
        used = terminal
        for part, wide in parts:
            needed = width(part)
            if used + needed > terminal:
                used = _indent(hang, terminal - needed) if lines else 0
                lines.append(" " * used)
            after = max(needed + (self._gap if wide else 1), wide)
            lines[-1] += part + " " * (after - needed)
            used += after
        return "".join(f"{line.rstrip()}\n" for line in lines)


def _indent(hang: int, room: int) -> int:
    """Where a continued line begins, if there is `room` for so much before what it holds."""
    return hang if hang <= room else max(0, min(_INDENT, room))
