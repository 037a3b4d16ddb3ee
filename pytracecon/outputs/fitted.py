"""A table of which the first rows are known together: its columns are as wide as these need from the start."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pytracecon.events import Event
from pytracecon.outputs import Piece
from pytracecon.outputs.table import Table
from pytracecon.text import width

__all__ = ["FittedTable"]

_LOOKED_AT = 1000


class FittedTable(Table):
    """The header comes with the first rows, however many these are."""

    _begun = False

    def header(self) -> bytes:
        return super().header() if self._begun else b""

    def render(self, events: Iterable[Event]) -> list[Piece]:
        if self._begun:
            return super().render(events)
        first = list(events)
        self._fit(first[:_LOOKED_AT])
        self._begun = True
        return [(self.header(), 0), *super().render(first)]

    def _fit(self, events: Sequence[Event]) -> None:
        terminal = self._terminal()
        for event in events:
            cells = self._row(event)
            for at, cell in enumerate(cells[:-1]):
                if cell is not None and len(cell) > self._widths[at] and cells[at + 1] is not None:
                    self._widen(at, width(cell), terminal)
