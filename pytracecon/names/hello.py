"""`ServerNames`: the name that a client of TLS, or of QUIC, asks for, from the first bytes of its connection.

They are whatever a program chose to send. No length is believed, little is kept, and nothing raises: what is no
ClientHello, or one without a usable name, gives None.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import TYPE_CHECKING

from pytracecon.names.libc_results import is_numeric
from pytracecon.names.records import HelloPart

if TYPE_CHECKING:
    from pytracecon.names.quic import Initials

__all__ = ["ServerNames", "server_name"]

_LONGEST = 17 * 1024
"""Of a stream: a ClientHello of 16 KiB with the headers of its records. With post-quantum keys some 2 KiB are usual."""
_CONNECTIONS = 4096
_BYTES = 8 << 20
_AHEAD = 64
_HANDSHAKE, _CLIENT_HELLO = 22, 1
_SERVER_NAME, _ENCRYPTED_HELLO = 0x0000, 0xFE0D
# Letters, digits and hyphens (RFC 6066 leaves the rest to RFC 5890), and the underscore that many names have.
_LABEL = rb"[A-Za-z0-9_-]{1,63}"
_HOST = re.compile(_LABEL + rb"(?:\." + _LABEL + rb")*")


class ServerNames:
    """Puts the parts of each connection together. Of too many unfinished ones the oldest are forgotten: `evicted`."""

    def __init__(self) -> None:
        self.evicted = 0
        self._streams: OrderedDict[int, _Stream | Initials | None] = OrderedDict()
        self._kept = 0

    def take(self, part: HelloPart) -> str | None:
        """The name, as soon as the ClientHello is complete, once for a connection."""
        if part.conn not in self._streams:
            self._streams[part.conn] = _new_initials() if part.is_datagram else _Stream()
        stream = self._streams[part.conn]
        self._streams.move_to_end(part.conn)
        if stream is None:
            return None
        self._kept -= stream.kept
        found = stream.take(part.at, part.data)
        if found is None:
            self._kept += stream.kept
        else:
            # It stays known that nothing is wanted any more, so that a part that comes again begins nothing.
            self._streams[part.conn] = None
        self._forget_some()
        return server_name(found) if found else None

    def _forget_some(self) -> None:
        while len(self._streams) > _CONNECTIONS or self._kept > _BYTES:
            _, oldest = self._streams.popitem(last=False)
            if oldest is not None:
                self._kept -= oldest.kept
                self.evicted += 1


def _new_initials() -> Initials:
    from pytracecon.names.quic import Initials  # noqa: PLC0415 - for those who meet QUIC

    return Initials()


class _Stream:
    """The beginning of one connection's bytes: TLS records whose payloads make up a handshake message."""

    __slots__ = ("ahead", "end", "handshake", "header", "left")

    def __init__(self) -> None:
        self.end = 0
        self.header = b""
        self.left = 0
        self.handshake = bytearray()
        self.ahead: dict[int, bytes] = {}

    @property
    def kept(self) -> int:
        """Bytes that wait for others."""
        return len(self.handshake) + sum(map(len, self.ahead.values()))

    def take(self, at: int, data: bytes) -> bytes | None:
        """The ClientHello if it is complete now; b"" if there will be none."""
        if at > self.end:
            self.ahead[at] = max(self.ahead.get(at, b""), data, key=len)
            # Parts ahead of a missing one are rare: a segment was lost on its way, or a record.
            return b"" if self.kept > _LONGEST or len(self.ahead) > _AHEAD else None
        found = self._read(data[self.end - at :])
        while found is None and (at := min(self.ahead, default=self.end + 1)) <= self.end:
            found = self._read(self.ahead.pop(at)[self.end - at :])
        return found

    def _read(self, data: bytes) -> bytes | None:
        data = data[: _LONGEST - self.end]
        self.end += len(data)
        at = 0
        while at < len(data):
            if self.left == 0 and (found := self._whole()) is not None:
                return found
            wanted = self.left or 5 - len(self.header)
            piece = data[at : at + wanted]
            at += len(piece)
            if self.left:
                self.handshake += piece
                self.left -= len(piece)
                continue
            self.header += piece
            if len(self.header) == 5:
                kind, major, self.left = self.header[0], self.header[1], int.from_bytes(self.header[3:])
                if kind != _HANDSHAKE or major != 3 or not 0 < self.left <= 1 << 14:
                    return b""
                self.header = b""
        found = self._whole()
        return b"" if found is None and self.end == _LONGEST else found

    def _whole(self) -> bytes | None:
        if self.handshake and self.handshake[0] != _CLIENT_HELLO:
            return b""
        size = 4 + int.from_bytes(self.handshake[1:4])
        return bytes(self.handshake[:size]) if len(self.handshake) >= max(4, size) else None


def server_name(handshake: bytes) -> str | None:
    """The host that a ClientHello, header included, is for; in lower case. None if it names none, or nothing usable."""
    try:
        return _server_name(_Vector(handshake))
    except _MalformedError:
        return None


class _MalformedError(ValueError):
    """A length says more than there is, or leaves something over."""


class _Vector:
    """Bytes with others in them, each behind its length."""

    __slots__ = ("_at", "_bytes")

    def __init__(self, raw: bytes) -> None:
        self._bytes = raw
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._bytes)

    def take(self, size: int) -> bytes:
        taken = self._bytes[self._at : self._at + size]
        if len(taken) < size:
            raise _MalformedError
        self._at += size
        return taken

    def rest(self) -> bytes:
        return self.take(len(self._bytes) - self._at)

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def vector(self, size: int) -> _Vector:
        return _Vector(self.take(self.number(size)))

    def last(self, size: int) -> _Vector:
        """The vector that fills all that is left."""
        inner = self.vector(size)
        if self:
            raise _MalformedError
        return inner


def _server_name(message: _Vector) -> str | None:
    if message.number(1) != _CLIENT_HELLO:
        return None
    hello = message.last(3)
    if hello.number(1) != 3:
        return None
    hello.take(1 + 32)  # minor version, random
    hello.vector(1)  # session
    hello.vector(2)  # cipher suites
    hello.vector(1)  # compression methods
    found: dict[int, _Vector] = {}
    extensions = hello.last(2) if hello else _Vector(b"")
    while extensions:
        kind = extensions.number(2)
        if kind in found:
            return None
        found[kind] = extensions.vector(2)
    # With an encrypted ClientHello inside, the name outside is that of whoever serves many hosts. Browsers also send an
    # extension without one inside (GREASE), on purpose such that nobody can tell: draft-ietf-tls-esni, 6.2.
    if _SERVER_NAME not in found or _ENCRYPTED_HELLO in found:
        return None
    only = found[_SERVER_NAME].last(2)
    return _host(only.last(2).rest()) if only.number(1) == 0 else None


def _host(name: bytes) -> str | None:
    """RFC 6066: a name in ASCII without a trailing dot, and no address."""
    if len(name) > 253 or not _HOST.fullmatch(name):
        return None
    host = name.decode("ascii").lower()
    return None if is_numeric(host) or host.rpartition(".")[2].isdigit() else host
