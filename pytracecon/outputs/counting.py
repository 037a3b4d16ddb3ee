"""Events that are taken into groups, and the rows that these become, whatever the format."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pytracecon.events import Event, Lost
from pytracecon.grouping import Count
from pytracecon.outputs import Output, Piece, Summary

__all__ = ["Counting"]


class Counting(Summary):
    """Takes events into groups and writes these as `output` does.

    `counts` makes the groups' rows of two instants; `clear` begins anew behind them. What is `late` has its header
    above the first rows only, behind the ^C of a terminal.
    """

    def __init__(
        self,
        output: Output,
        add: Callable[[Event], None],
        counts: Callable[[int, int], list[Count]],
        *,
        clear: Callable[[], None] | None,
        every: bool,
        clock: Callable[[], int],
        late: bytes | None = None,
    ) -> None:
        self.untold = 0
        self._output = output
        self._add = add
        self._counts = counts
        self._clear = clear
        self._every = every
        self._clock = clock
        self._late = late
        self._from = 0
        self._lost: list[Lost] = []

    def header(self) -> bytes:
        self._from = self._from or self._clock()  # of another file too, and there time goes on
        return self._output.header() if self._late is None else b""

    def render(self, events: Iterable[Event]) -> list[Piece]:
        for event in events:
            self.untold += 1
            if isinstance(event, Lost):
                self._lost.append(event)
            else:
                self._add(event)
        return []

    def sum_up(self, *, last: bool) -> list[Piece]:
        """An interval without events is told too, but not what is left of one at the end."""
        if last and self._every and not self.untold:
            return []
        now = self._clock()
        rows: list[Event] = [*self._counts(self._from, now), *self._lost]
        pieces = [] if self._late is None else [(self._late + self._output.header(), 0)]
        pieces += [(data, 0) for data, _ in self._output.render(rows)]
        # All of it is written, or none of the events is.
        pieces.append((b"", self.untold))
        self.untold = 0
        self._lost.clear()
        self._late = None
        if self._clear is not None:
            self._clear()
            self._from = now
        return pieces
