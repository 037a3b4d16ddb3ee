"""`Translations`: which connections really go elsewhere, from what the kernel side told as they began.

A *service* is the real server that IPVS chose behind a virtual address; *nat* is where a packet filter's rule sent the
first packet. Either is of one connection, or of one conversation by datagrams: its transport, its network namespace
and both of its ends.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import TYPE_CHECKING

from pytracecon import wire
from pytracecon.events import Endpoint

if TYPE_CHECKING:
    from pytracecon.connections import Connection
    from pytracecon.events import ConnectionEvent
    from pytracecon.ipvs_table import Decided

__all__ = ["Translations", "raw"]

_MOST = 65_536
_SERVICE = 1
_TRANSPORTS = {"tcp": 6, "mptcp": 6, "udp": 17}
_MAPPED = bytes(10) + b"\xff\xff"

_RECORD = wire.layout((("time to words", "16x"),), wire.TRANSLATION)

Ends = tuple[int, bytes, int, bytes, int]
"""Network namespace, local address and port, remote address and port."""

_Key = tuple[int, Ends]
"""With the transport."""


class Translations:
    """One per tracer. Of 65,536 connections at most; those that began first go first."""

    def __init__(self, address: Callable[[bytes], str | None]) -> None:
        self._address = address
        self._services: OrderedDict[_Key, Endpoint] = OrderedDict()
        self._nats: OrderedDict[_Key, Endpoint] = OrderedDict()
        self._on_address: list[Callable[[bytes], None]] = []
        self.addresses: set[bytes] = set()
        """Remotes behind which somebody else was: of other connections nobody has to ask."""

    def watch(self, on_address: Callable[[bytes], None]) -> None:
        """`on_address` is called with each of `addresses` that there will be."""
        self._on_address.append(on_address)

    def take(self, batch: bytes | memoryview, at: int) -> None:
        """The record that begins there; its kind is `wire.TRANSLATION_KIND`."""
        client, asked, real, netns, client_port, asked_port, real_port, kind, transport = _RECORD.unpack_from(batch, at)
        self._add(kind, transport, (netns, client, client_port, asked, asked_port), real, real_port)

    def take_table(self, decided: Iterable[Decided]) -> None:
        """What IPVS had decided before."""
        for each in decided:
            self._add(_SERVICE, each.transport, (each.netns, *each.client, *each.asked), *each.real)

    def _add(self, kind: int, transport: int, ends: Ends, real: bytes, real_port: int) -> None:
        text = self._address(real)
        _, _, client_port, asked, _ = ends
        # Without a client's port it is what IPVS keeps for all connections of a client to come.
        if transport not in _TRANSPORTS.values() or text is None or not client_port:
            return
        table = self._services if kind == _SERVICE else self._nats
        key = transport, ends
        table[key] = Endpoint(text, real_port)
        table.move_to_end(key)
        if len(table) > _MOST:
            table.popitem(last=False)
        if asked not in self.addresses:
            if len(self.addresses) >= _MOST:
                self.addresses.clear()
            self.addresses.add(asked)
            for note in self._on_address:
                note(asked)

    def label(self, event: ConnectionEvent | Connection, ends: Ends) -> None:
        """What IPVS did is no rule of a packet filter, though both look alike in the packet."""
        key = _TRANSPORTS[event.proto], ends
        event.service = self._services.get(key)
        nat = self._nats.get(key)
        event.nat = None if nat == event.service else nat

    def complete(self, event: ConnectionEvent) -> None:
        """The same of an event that was made before: perhaps it is known by now."""
        if event.netns is None or event.local_addr is None or event.remote_addr is None:
            return
        local, remote = raw(event.local_addr), raw(event.remote_addr)
        if remote in self.addresses:
            self.label(event, (event.netns, local, event.local_port or 0, remote, event.remote_port or 0))

    def over(self, ends: Ends, proto: str = "tcp") -> None:
        """The connection, or the conversation, has ended; or another one begins between the same ends."""
        key = _TRANSPORTS[proto], ends
        self._services.pop(key, None)
        self._nats.pop(key, None)


def raw(text: str) -> bytes:
    packed = ip_address(text).packed
    return packed if len(packed) == len(_MAPPED) + 4 else _MAPPED + packed
