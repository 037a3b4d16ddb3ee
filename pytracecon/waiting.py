"""Events that were read on the way to something else, and wait for who iterates."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from pytracecon.events import Event, Lost

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MOST", "Waiting"]

MOST: Final = 65_536


class Waiting(deque[Event]):
    """What nobody takes is dropped when there are `MOST`, and a `lost` event stands in its place."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = 0
        """Events dropped. Losses that were told among them are told still."""
        self._losses: dict[str, Lost] = {}
        """At the end of the queue, by `where`: they grow while it is full."""

    def add(self, events: Sequence[Event]) -> None:
        if not events:
            return
        room = max(0, MOST - len(self))
        if room:
            self._losses.clear()
            self.extend(events[:room])
        for event in events[room:]:
            self._drop(event)

    def _drop(self, event: Event) -> None:
        if isinstance(event, Lost):
            count, where = event.count, event.where
            begin, end = event.from_ns, event.to_ns
        else:
            count, where = 1, "queue"
            begin = end = event.time_ns
            self.lost += 1
        known = self._losses.get(where)
        if known is None:
            known = self._losses[where] = Lost(event.time_ns, count, where, begin, end)
            self.append(known)
        else:
            known.time_ns, known.to_ns = event.time_ns, end
            known.count += count
