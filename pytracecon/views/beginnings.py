"""`Beginnings`: the first state of a connection waits until it is known where its SYN went: that is decided just after.

Rows stay in their order: what comes behind one that waits waits too, a tenth of a second at most.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable

from pytracecon.events import ConnectionEvent, Event, State

__all__ = ["Beginnings"]

_PATIENCE = 0.1
_MOST = 65_536


class Beginnings:
    """What is taken comes out again, all of it: from `take` when it is its turn, at the end from `rest`.

    `complete` fills into an event what became known of it (`Tracer.complete`). With `alone` a first state of which
    nothing is known in time does not come by itself: it stands aside, until its connection's next event comes.
    `finish` adds to what comes out what can be added then only.
    """

    def __init__(
        self,
        complete: Callable[[ConnectionEvent], None],
        *,
        alone: bool = False,
        finish: Callable[[Event], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._complete = complete
        self._alone = alone
        self._finish = finish
        self._clock = clock
        self._queue: deque[Event] = deque()
        self._open: OrderedDict[str, tuple[State, float]] = OrderedDict()
        """Those in the queue that wait, by connection, with the time until which they do."""
        self._aside: OrderedDict[str, State] = OrderedDict()

    def __len__(self) -> int:
        return len(self._queue) + len(self._aside)

    @property
    def deadline(self) -> float | None:
        """When `take` should be called though nothing happened."""
        return next((until for _, until in self._open.values()), None)

    def take(self, events: list[Event]) -> list[Event]:
        until = self._clock() + _PATIENCE
        for event in events:
            if isinstance(event, ConnectionEvent):
                self._go_on(event)
                if isinstance(event, State) and _is_first(event):
                    self._open[event.conn] = event, until
            self._queue.append(event)
        return self._finished(self._ready())

    def rest(self) -> list[Event]:
        """At the end of a run: what waits for nothing any more."""
        for event, _ in self._open.values():
            self._complete(event)
        left = [*self._aside.values(), *self._queue]
        for waiting in (self._open, self._aside, self._queue):
            waiting.clear()
        return self._finished(left)

    def _finished(self, events: list[Event]) -> list[Event]:
        if self._finish is not None:
            for event in events:
                self._finish(event)
        return events

    def _go_on(self, event: ConnectionEvent) -> None:
        """The next event of a connection whose first one waits."""
        waiting, _ = self._open.pop(event.conn, (None, 0))
        aside = self._aside.pop(event.conn, None)
        first = waiting or aside
        if first is None:
            return
        if first.service is None and first.nat is None:
            first.service, first.nat = event.service, event.nat
        if aside is not None:
            self._queue.append(aside)

    def _ready(self) -> list[Event]:
        now = self._clock()
        for conn, (first, _) in list(self._open.items()):
            self._complete(first)
            if first.service is not None or first.nat is not None:
                del self._open[conn]
        ready: list[Event] = []
        while self._queue:
            event = self._queue[0]
            waiting, until = self._open.get(getattr(event, "conn", ""), (None, 0))
            if waiting is event:
                if now < until:
                    break
                del self._open[waiting.conn]
                if self._alone:
                    self._queue.popleft()
                    ready += self._stand_aside(waiting)
                    continue
            ready.append(self._queue.popleft())
        return ready

    def _stand_aside(self, event: State) -> list[Event]:
        self._aside[event.conn] = event
        return [self._aside.popitem(last=False)[1]] if len(self._aside) > _MOST else []


def _is_first(event: State) -> bool:
    return event.old == "CLOSE" and event.new == "SYN_SENT" and event.service is None and event.nat is None
