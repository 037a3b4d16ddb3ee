"""`Named`: which addresses may have a name or be translated, as bits that the compiled parts look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytracecon._ring import lib

if TYPE_CHECKING:
    from pytracecon.names.joiner import Joiner
    from pytracecon.translations import Translations

__all__ = ["Named"]


class Named:
    """A bit for each address that may have a name, or for several that share it: events of those are Python's."""

    def __init__(self, names: Joiner | None, translations: Translations | None) -> None:
        self.bits = bytearray(1 << 13)
        self._translations = translations
        if names is not None:
            names.watch(self._note, self._reset)
        if translations is not None:
            translations.watch(self._note)
            self._note_translated()

    def _note(self, address: bytes) -> None:
        bit = lib.address_bit(address)
        self.bits[bit >> 3] |= 1 << (bit & 7)

    def _reset(self) -> None:
        self.bits[:] = bytes(len(self.bits))
        self._note_translated()

    def _note_translated(self) -> None:
        for address in () if self._translations is None else self._translations.addresses:
            self._note(address)
