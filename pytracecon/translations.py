"""`Translations`: which connections really go elsewhere, from what the kernel side told as they began.

A *service* is the real server that IPVS chose behind a virtual address; *nat* is where a packet filter's rule sent the
first packet. Either is of one connection: its network namespace and both of its ends.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from pytracecon import wire
from pytracecon.events import Endpoint

if TYPE_CHECKING:
    from pytracecon.connections import Connection
    from pytracecon.events import ConnectionEvent

__all__ = ["Translations"]

_MOST = 65_536
_SERVICE = 1
_TCP = 6

_RECORD = wire.layout((("time to words", "16x"),), wire.TRANSLATION)

Ends = tuple[int, bytes, int, bytes, int]
"""Network namespace, local address and port, remote address and port."""


class Translations:
    """One per tracer. Of 65,536 connections at most; those that began first go first."""

    def __init__(self, address: Callable[[bytes], str | None]) -> None:
        self._address = address
        self._services: OrderedDict[Ends, Endpoint] = OrderedDict()
        self._nats: OrderedDict[Ends, Endpoint] = OrderedDict()
        self._on_address: Callable[[bytes], None] | None = None
        self.addresses: set[bytes] = set()
        """Remotes behind which somebody else was: of other connections nobody has to ask."""

    def watch(self, on_address: Callable[[bytes], None]) -> None:
        """`on_address` is called with each of `addresses` that there will be."""
        self._on_address = on_address

    def take(self, batch: bytes | memoryview, at: int) -> None:
        """The record that begins there; its kind is `wire.TRANSLATION_KIND`."""
        client, asked, real, netns, client_port, asked_port, real_port, kind, transport = _RECORD.unpack_from(batch, at)
        text = self._address(real)
        if transport != _TCP or text is None:
            return
        table = self._services if kind == _SERVICE else self._nats
        table[netns, client, client_port, asked, asked_port] = Endpoint(text, real_port)
        if len(table) > _MOST:
            table.popitem(last=False)
        if asked not in self.addresses:
            if len(self.addresses) >= _MOST:
                self.addresses.clear()
            self.addresses.add(asked)
            if self._on_address is not None:
                self._on_address(asked)

    def label(self, event: ConnectionEvent | Connection, ends: Ends) -> None:
        """What IPVS did is no rule of a packet filter, though both look alike in the packet."""
        event.service = self._services.get(ends)
        nat = self._nats.get(ends)
        event.nat = None if nat == event.service else nat

    def over(self, ends: Ends) -> None:
        """The connection has ended."""
        self._services.pop(ends, None)
        self._nats.pop(ends, None)
