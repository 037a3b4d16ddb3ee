"""A run that lists what is open, once or again and again. What the tracer tells meanwhile is not written."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from pytracecon.commands.console import say
from pytracecon.commands.session import Session, identity, totals
from pytracecon.errors import TracerClosed

if TYPE_CHECKING:
    from pytracecon.events import Event
    from pytracecon.tracer import Stats, Tracer

__all__ = ["Listed", "Listings"]


class Listed(NamedTuple):
    rows: list[Event]
    """What is written, in order."""
    connections: int
    """How many of the rows are one."""
    left_out: int


class Listings(Session):
    """`lists` takes a listing every `interval` seconds, the first at once; without an interval it is the only one.

    `count` are listings. A loss is told in its place between them.
    """

    def __init__(self, *given: Any, lists: Callable[[Tracer], Listed], limit: int, **more: Any) -> None:
        super().__init__(*given, **more)
        self.lists = lists
        self.limit = limit
        self._rows = 0
        self._most_left_out = 0

    def _pump(self, tracer: Tracer, deadline: float | None) -> None:
        due = time.monotonic()
        while not tracer.stopped:
            if time.monotonic() >= due:
                self._list(tracer)
                if self.interval is None or self.count == 0:
                    break
                # As the clock goes, however long this took; one that is over already is not told.
                due += self.interval * ((time.monotonic() - due) // self.interval + 1)
            if not self._transfer(tracer, self._patience(deadline, due)):
                self._be_idle()
            self._turned(tracer)
            if deadline is not None and time.monotonic() >= deadline:
                tracer.stop()
                deadline = None
        self.sink.flush()

    def _list(self, tracer: Tracer) -> None:
        try:
            listed = self.lists(tracer)
        except TracerClosed:  # a signal came just before
            return
        self._rows += listed.connections
        self._most_left_out = max(self._most_left_out, listed.left_out)
        self.sink.write(self.output.render(listed.rows))
        self.sink.flush()
        if self.count is not None:
            self.count -= 1

    def _write(self, events: list[Event]) -> None:
        from pytracecon.events import Lost  # noqa: PLC0415 - by now it is there, and no start waited for it

        if lost := [event for event in events if isinstance(event, Lost)]:
            self.sink.write(self.output.render(lost))

    def _say_begin(self, tracer: Tracer) -> None:
        if self.interval is not None:
            super()._say_begin(tracer)

    def _say_end(self, stats: Stats, seconds: float, *, failed: int, unread: int) -> None:  # noqa: ARG002 - of events
        if self._most_left_out:
            each = "" if self.interval is None else " of a listing"
            rows = f"{self._most_left_out} row{'' if self._most_left_out == 1 else 's'}"
            say(f"{rows}{each} left out: there are more than --limit {self.limit}")
        say(totals(self._rows - self.sink.unwritten, seconds, stats, output=self.sink.unwritten, what="row"))
        if self.verbose:
            say(identity(stats, 0, output=0, unread=0, left_out=stats.handed))
