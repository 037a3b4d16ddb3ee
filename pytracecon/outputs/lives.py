"""Whole lives of connections, each told when it is over."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Self

from pytracecon.events import ConnectionEvent, Event
from pytracecon.lives import Life, Lives
from pytracecon.outputs import Piece
from pytracecon.outputs.colour import painted, style
from pytracecon.views import explain, trace

__all__ = ["LifeScreens"]

_MOST_UNFINISHED = 10
_MOST_TOLD = 4096


class LifeScreens:
    """`passes` takes all events in, and lets a life's last one through: so the run counts lives.

    `wanted` chooses among lives, None: all. `paths`: those of MPTCP connections too. `unfinished`: at the end those
    that are not over are told as well; if they are many, which they are.
    """

    def __init__(
        self,
        *,
        wanted: Callable[[Life], bool] | None = None,
        paths: bool = False,
        unfinished: bool = True,
        utc: bool = False,
    ) -> None:
        self.untold = 0
        self._wanted = wanted
        self._paths = paths
        self._unfinished = unfinished
        self._utc = utc
        self._lives = Lives()
        self._due: dict[str, Life] = {}
        self._awaits_reset: dict[str, Life] = {}
        self._waited: set[str] = set()
        self._told: OrderedDict[str, None] = OrderedDict()
        self._terminal: Callable[[], int | None] = lambda: None
        self._coloured = False
        self._begun = False

    def onto(self, terminal: Callable[[], int | None], *, coloured: bool) -> Self:
        self._terminal, self._coloured = terminal, coloured
        return self

    def passes(self, event: Event) -> bool:
        """For `shows` of a run."""
        if not isinstance(event, ConnectionEvent):
            self._lives.take(event)
            return event.event == "lost"
        if event.conn in self._told or (event.subflow_of is not None and not self._paths):
            return False
        life = self._lives.take(event)
        if life is None or event.conn in self._due or life.end is None:
            return False
        if not life.over:
            self._awaits_reset[event.conn] = life
            return False
        self._awaits_reset.pop(event.conn, None)
        if not self._is_wanted(life):
            self._forget(life)
            return False
        self._due[event.conn] = life  # what the same batch still tells of it is told with it
        return True

    def header(self) -> bytes:
        return b""

    def render(self, events: Iterable[Event]) -> list[Piece]:
        return [(self._piece(event), 1) for event in events]

    def sum_up(self, *, last: bool) -> list[Piece]:
        """Those that their own process reset, if that is not told after all; and at the end those that are not over."""
        self._begun |= last and self._terminal() is not None  # behind the ^C of a terminal
        late = [life for life in self._awaits_reset.values() if last or life.conn in self._waited]
        self._waited = set(self._awaits_reset)
        told = [self._screen(life) for life in late if self._is_wanted(life)]
        for life in late:
            self._forget(life)
        if last and self._unfinished:
            told += self._not_over()
        return [(text.encode(errors="backslashreplace"), 0) for text in told]

    def _piece(self, event: Event) -> bytes:
        if isinstance(event, ConnectionEvent):
            life = self._due[event.conn]
            self._forget(life)
            return self._screen(life).encode(errors="backslashreplace")
        line = f"{trace.detail(event)}\n"
        return self._apart(painted(line, style(event)) if self._coloured else line).encode()

    def _screen(self, life: Life) -> str:
        lost = self._lives.lost_in(life)
        return self._apart(explain.screen(life, self._terminal, utc=self._utc, coloured=self._coloured, lost=lost))

    def _not_over(self) -> list[str]:
        left = [life for life in self._lives.all.values() if life.end is None and self._is_wanted(life)]
        if len(left) <= _MOST_UNFINISHED:
            return [self._screen(life) for life in left]
        return [self._apart(explain.choice(left, self._terminal, utc=self._utc, coloured=self._coloured))]

    def _apart(self, text: str) -> str:
        """Behind an empty line, if something stands before it."""
        begun, self._begun = self._begun, True
        return f"\n{text}" if begun else text

    def _is_wanted(self, life: Life) -> bool:
        return self._wanted is None or self._wanted(life)

    def _forget(self, life: Life) -> None:
        for kept in (self._due, self._awaits_reset):
            kept.pop(life.conn, None)
        self._lives.forget(life)
        self._told[life.conn] = None
        if len(self._told) > _MOST_TOLD:
            self._told.popitem(last=False)
