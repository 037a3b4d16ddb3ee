"""`Initials`: the ClientHello in the first packets of a QUIC client, which anybody may read: RFC 9001, section 5.

They are protected with keys that follow from themselves. What is no such packet, what lies in its lengths, and what the
keys do not fit is passed over; nothing raises, and little is kept.
"""

from __future__ import annotations

import hmac
from typing import NamedTuple

__all__ = ["Initials"]

_LONGEST = 17 * 1024
"""Of a ClientHello, as over TCP."""
_DATAGRAMS = 16
_PACKETS = 4
"""In a datagram: one of each kind."""
_FRAMES = 256
"""In a packet: Chrome sends its hello in dozens of pieces, out of order."""
_PIECES = 256
_CLIENT_HELLO = 1
_PADDING, _PING, _ACK, _ACK_ECN, _CRYPTO = 0, 1, 2, 3, 6
_TAG = _SAMPLE = 16


class _Version(NamedTuple):
    salt: bytes
    prefix: bytes
    """Of the labels."""
    initial: int
    """The kind of an Initial packet."""


_VERSIONS = {
    0x00000001: _Version(bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"), b"quic ", 0),
    0x6B3343CF: _Version(bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9"), b"quicv2 ", 1),
}


class Initials:
    """What one connection's first datagrams bring."""

    __slots__ = ("_datagrams", "_keys", "_pieces", "_size")

    def __init__(self) -> None:
        self._datagrams = 0
        self._keys: _Keys | None = None
        self._pieces: dict[int, bytes] = {}
        self._size = 0

    @property
    def kept(self) -> int:
        """Bytes that wait for others."""
        return self._size

    def take(self, _: int, datagram: bytes) -> bytes | None:
        """The ClientHello if it is complete now; b"" if there will be none. The order of datagrams is of no matter."""
        self._datagrams += 1
        at = 0
        for _packet in range(_PACKETS):
            packet = _packet_of(datagram, at)
            if packet is None:
                break
            at = packet.end
            plain = self._opened(packet)
            if plain is not None and not self._read(plain):
                return b""
        found = self._whole()
        return b"" if found is None and self._datagrams >= _DATAGRAMS else found

    def _opened(self, packet: _Packet) -> bytes | None:
        if packet.version is None:
            return None
        if self._keys is not None and self._keys.version is packet.version:
            plain = self._keys.open(packet)
            if plain is not None or self._keys.connection == packet.destination:
                return plain
        # A server may have asked for another beginning (Retry), with keys of its own.
        keys = _Keys(packet.version, packet.destination)
        plain = keys.open(packet)
        if plain is not None:
            self._keys = keys
        return plain

    def _read(self, plain: bytes) -> bool:
        """Take what CRYPTO frames bring; False for more than any ClientHello has."""
        reader = _Reader(plain)
        for _ in range(_FRAMES):
            kind = reader.frame()
            if kind in (_ACK, _ACK_ECN):
                reader.pass_over_ack(kind)
            elif kind == _CRYPTO:
                begin, data = reader.number(), reader.vector()
                if begin is None or data is None:
                    break
                if begin + len(data) > _LONGEST:
                    return False
                if len(data) > len(self._pieces.get(begin, b"")):
                    self._size += len(data) - len(self._pieces.get(begin, b""))
                    self._pieces[begin] = data
            elif kind != _PING:
                break
        return len(self._pieces) <= _PIECES and self._size <= 2 * _LONGEST

    def _whole(self) -> bytes | None:
        message = bytearray()
        for begin in sorted(self._pieces):
            if begin > len(message):
                break
            message += self._pieces[begin][len(message) - begin :]
        if message and message[0] != _CLIENT_HELLO:
            return b""
        size = 4 + int.from_bytes(message[1:4])
        return bytes(message[:size]) if len(message) >= max(4, size) else None


class _Packet(NamedTuple):
    version: _Version | None
    """None: not an Initial one."""
    destination: bytes
    raw: bytes
    """From its first byte on."""
    number_at: int
    end: int
    """In the datagram."""


def _packet_of(datagram: bytes, at: int) -> _Packet | None:
    """The packet with a long header that begins here (RFC 9000, 17.2). Its length is known of usual versions only."""
    if len(datagram) < at + 7 or datagram[at] & 0xC0 != 0xC0:
        return None
    version = _VERSIONS.get(int.from_bytes(datagram[at + 1 : at + 5]))
    reader = _Reader(datagram, at + 5)
    destination, source = reader.bytes_of(reader.byte()), reader.bytes_of(reader.byte())
    if version is None or destination is None or source is None or max(len(destination), len(source)) > 20:
        return None
    kind = ((datagram[at] >> 4 & 3) - version.initial) % 4
    if kind == 3 or (kind == 0 and reader.vector() is None):
        return None  # Retry has no length, and nothing behind it
    length = reader.number()
    number_at = reader.at
    if length is None or length > len(datagram) - number_at:
        return None
    end = number_at + length
    return _Packet(None if kind else version, destination, datagram[at:end], number_at - at, end)


class _Keys:
    """Those of a client's first packets, which follow from the connection id that the client has made up."""

    __slots__ = ("_iv", "_key", "_mask", "connection", "version")

    def __init__(self, version: _Version, connection: bytes) -> None:
        self.version, self.connection = version, connection
        secret = _expand(hmac.digest(version.salt, connection, "sha256"), b"client in", 32)
        self._key = _expand(secret, version.prefix + b"key", 16)
        self._iv = _expand(secret, version.prefix + b"iv", 12)
        self._mask = _expand(secret, version.prefix + b"hp", 16)

    def open(self, packet: _Packet) -> bytes | None:
        """What is in it; None if it was protected with other keys, or changed."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - for those who meet QUIC
        from cryptography.hazmat.primitives.ciphers import Cipher  # noqa: PLC0415
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415
        from cryptography.hazmat.primitives.ciphers.algorithms import AES  # noqa: PLC0415
        from cryptography.hazmat.primitives.ciphers.modes import ECB  # noqa: PLC0415

        raw, at = packet.raw, packet.number_at
        sample = raw[at + 4 : at + 4 + _SAMPLE]
        if len(sample) < _SAMPLE:
            return None
        mask = Cipher(AES(self._mask), ECB()).encryptor().update(sample)  # noqa: S305 - one block, as RFC 9001 has it
        first = raw[0] ^ mask[0] & 0x0F
        size = 1 + (first & 3)
        number = bytes(byte ^ other for byte, other in zip(raw[at : at + size], mask[1:], strict=False))
        if len(raw) < at + size + _TAG:
            return None
        nonce = int.from_bytes(self._iv) ^ int.from_bytes(number)
        header = bytes([first]) + raw[1:at] + number
        try:
            return AESGCM(self._key).decrypt(nonce.to_bytes(12), raw[at + size :], header)
        except InvalidTag:
            return None


def _expand(secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand-Label of TLS 1.3, of one block."""
    label = b"tls13 " + label
    return hmac.digest(secret, size.to_bytes(2) + bytes([len(label)]) + label + b"\0\1", "sha256")[:size]


class _Reader:
    """QUIC's numbers and what they count; None where there is less than they say."""

    __slots__ = ("_bytes", "at")

    def __init__(self, raw: bytes, at: int = 0) -> None:
        self._bytes, self.at = raw, at

    def frame(self) -> int | None:
        """The next frame's kind. Padding, a frame a byte, is passed over."""
        while self.at < len(self._bytes) and self._bytes[self.at] == _PADDING:
            self.at += 1
        return self.byte()

    def byte(self) -> int | None:
        if self.at >= len(self._bytes):
            return None
        self.at += 1
        return self._bytes[self.at - 1]

    def number(self) -> int | None:
        first = self.byte()
        if first is None:
            return None
        rest = self.bytes_of((1 << (first >> 6)) - 1)
        return None if rest is None else int.from_bytes(bytes([first & 0x3F]) + rest)

    def bytes_of(self, size: int | None) -> bytes | None:
        if size is None or size > len(self._bytes) - self.at:
            return None
        self.at += size
        return self._bytes[self.at - size : self.at]

    def vector(self) -> bytes | None:
        return self.bytes_of(self.number())

    def pass_over_ack(self, kind: int) -> None:
        self.number()
        self.number()
        ranges = self.number() or 0
        for _ in range(1 + 2 * min(ranges, _FRAMES) + (3 if kind == _ACK_ECN else 0)):
            self.number()
