"""Which lookup gave a connection its name: what the verbs tell of it is how long it took, and how long ago it was."""

from __future__ import annotations

from collections import OrderedDict

from pytracecon.events import ConnectionEvent, Event, Lookup

__all__ = ["Answers"]

_Key = tuple[int | None, str | None, str, str]


class Answers:
    """The lookups of late. One that a helper or a resolver asked for another process's sake belongs to nobody here."""

    def __init__(self, most: int = 65_536) -> None:
        self._latest: OrderedDict[_Key, Lookup] = OrderedDict()
        self._most = most

    def passes(self, event: Event) -> bool:
        """For `shows` of a run: lookups are kept, and everything else is let through."""
        if not isinstance(event, Lookup):
            return True
        if event.result == "ok" and event.name is not None:
            for address in event.addresses or ():
                key = event.pid, event.source, _known_as(event.name), address
                self._latest[key] = event
                self._latest.move_to_end(key)
                if len(self._latest) > self._most:
                    self._latest.popitem(last=False)
        return False

    def of(self, event: ConnectionEvent) -> Lookup | None:
        """The lookup that the connection's name is from; None if it is not known."""
        if event.host is None or event.remote_addr is None:
            return None
        return self._latest.get((event.pid, event.host_source, _known_as(event.host), event.remote_addr))


def _known_as(name: str) -> str:
    return name.removesuffix(".").lower()
