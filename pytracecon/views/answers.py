"""Which lookup gave a connection its name: what the verbs tell of it is how long it took, and how long ago it was."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import NamedTuple

from pytracecon.events import ConnectionEvent, Event, Lookup

__all__ = ["Answer", "Answers", "began"]

_LATE_ONES = 16


class Answer(NamedTuple):
    time_ns: int
    latency_ns: int | None


_Key = tuple[int | None, str | None, str, str]


class Answers:
    """The lookups of late. One that a helper or a resolver asked for another process's sake belongs to nobody here.

    A whole batch is looked through before its first row is made: so of each name some are kept, for the connections
    between them.
    """

    def __init__(self, most: int = 16_384) -> None:
        self._answers: OrderedDict[_Key, deque[Answer]] = OrderedDict()
        self._most = most

    def passes(self, event: Event) -> bool:
        """For `shows` of a run: lookups are kept, and everything else is let through."""
        if not isinstance(event, Lookup):
            return True
        if event.result == "ok" and event.name is not None:
            answer = Answer(event.time_ns, event.latency_ns)
            for address in event.addresses or ():
                key = event.pid, event.source, _known_as(event.name), address
                self._answers.setdefault(key, deque(maxlen=_LATE_ONES)).append(answer)
                self._answers.move_to_end(key)
                if len(self._answers) > self._most:
                    self._answers.popitem(last=False)
        return False

    def of(self, event: ConnectionEvent) -> Answer | None:
        """The last one before the connection began that gave it its name; None if that is not known."""
        if event.host is None or event.remote_addr is None:
            return None
        answers = self._answers.get((event.pid, event.host_source, _known_as(event.host), event.remote_addr), ())
        return next((each for each in reversed(answers) if each.time_ns <= began(event)), None)


def began(event: ConnectionEvent) -> int:
    """When its first SYN left, as far as the event tells: its outcome comes later."""
    return event.time_ns - (getattr(event, "latency_ns", None) or 0)


def _known_as(name: str) -> str:
    return name.removesuffix(".").lower()
