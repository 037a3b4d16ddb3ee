"""`Builder`: from batches to events, most of them built in C (`events.c`), equal to what `decode` makes of the bytes.

`decode` says what an event is. Its functions are asked for each word, address and owner once, and the C side remembers
what they said; whatever is rare, and all that names are learnt from, is `decode`'s.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from pytracecon import decode as decoding
from pytracecon import wire
from pytracecon._events import Maker
from pytracecon.decode import decode
from pytracecon.meaning import of_retransmit, of_state
from pytracecon.named import Named

if TYPE_CHECKING:
    from pytracecon.events import Event
    from pytracecon.names.joiner import Joiner
    from pytracecon.owners.processes import Owners
    from pytracecon.translations import Translations

__all__ = ["Builder"]


class Builder:
    def __init__(
        self, names: Joiner | None = None, owners: Owners | None = None, translations: Translations | None = None
    ) -> None:
        self._names = names
        self._owners = owners
        self._translations = translations
        self._named = Named(names, translations)
        self._maker = Maker(_FUNCTIONS, self._named.bits, None if owners is None else owners.of)
        for name, (kind, _) in decoding.EVENTS.items():
            self._maker.add(wire.KINDS[name], kind, tuple(field.name for field in fields(kind)))
        if owners is not None:
            owners.watch(self._maker.forget)

    def events(self, batch: bytes | memoryview, offset_ns: int) -> list[Event]:
        """What `decode` would give."""
        if self._names is not None and self._names.asks_back:  # any event may get a name
            return decode(batch, offset_ns, self._names, self._owners, self._translations)
        events: list[Event] = []
        at, end = self._maker.take(batch, 0, offset_ns, events), len(batch)
        while at < end:
            behind = decoding.end_of(batch, at)
            events += decode(batch[at:behind], offset_ns, self._names, self._owners, self._translations)
            at = self._maker.take(batch, behind, offset_ns, events)
        return events


def _change(number: int) -> tuple[str | None, str | None, str | None]:
    """Old and new state, and what that means: of the direction, both states and the error in one number."""
    old, new = decoding.STATES[number >> 24 & 0xFF], decoding.STATES[number >> 16 & 0xFF]
    return old, new, of_state(decoding.DIRECTIONS[number >> 32], old, new, number & 0xFFFF)


def _resent(number: int) -> tuple[str | None, str | None]:
    segment = decoding.SEGMENTS[number]
    return segment, of_retransmit(segment)


_FUNCTIONS = (
    decoding.address,
    decoding.who,
    decoding.failure,
    _change,
    _resent,
    decoding.STATES.__getitem__,
    decoding.ENDED.__getitem__,
    decoding.APPS.__getitem__,
)
"""Of sixteen bytes, of the two parts of a connection that are its owner's, and of numbers: as `events.c` asks."""
