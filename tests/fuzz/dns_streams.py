"""DNS packets in pieces, by UDP and TCP: they become messages and lookups, and what is kept stays within bounds."""

from __future__ import annotations

import struct

from fuzz.source import Source
from pytracecon.names.dns.exchange import Exchanges
from pytracecon.names.dns.payloads import MOST_DATAGRAM_BYTES, MOST_STREAM_BYTES
from pytracecon.names.records import MessagePart
from unit.test_dns_exchange import CURL, LOOPBACK, SERVER, answering, asking, framed

_HEAD = struct.Struct("!BBHIHHH")
"""Flags, time, packet, sequence, size, at, length of one part."""
_SENT, _TCP, _OTHER, _OWNED = 1, 2, 4, 8


def _part(flags: int, data: bytes, *, seq: int = 0, at: int = 0, size: int | None = None) -> bytes:
    return _HEAD.pack(flags, 1, 7, seq, len(data) if size is None else size, at, len(data)) + data


def seeds() -> list[bytes]:
    question = asking()
    answer = answering(question, "www.example.com. 60 A 192.0.2.1")
    cut = answering(question, tc=True)
    both = framed(question) + framed(asking("a.example.", "AAAA", 2))
    ask, tell = _SENT | _OWNED, 0
    return [
        _part(ask, question) + _part(tell, answer),
        _part(ask, question) + _part(tell, cut) + _part(ask | _TCP, framed(question)) + _part(_TCP, framed(answer)),
        _part(ask, question) + _part(tell, answer[:20], size=len(answer)) + _part(tell, answer[20:], at=20, size=1),
        _part(ask | _TCP, both[20:], seq=120) + _part(ask | _TCP, both[:20], seq=100),
        _part(ask | _TCP, both[:30], seq=2**32 - 10) + _part(ask | _TCP, both[30:], seq=20) + _part(_OTHER, b""),
    ]


def run(data: bytes) -> None:
    source, exchanges, now = Source(data), Exchanges(most=32, most_each=16), 0
    while source:
        head = source.take(_HEAD.size)
        flags, later, packet, seq, size, at, length = _HEAD.unpack(head.ljust(_HEAD.size, b"\0"))
        now += later << 24
        part = MessagePart(
            time=now,
            packet=packet,
            sent=bool(flags & _SENT),
            protocol="tcp" if flags & _TCP else "udp",
            netns=1,
            local_port=4000,
            server=LOOPBACK if flags & _OTHER else SERVER,
            server_port=53,
            size=size,
            at=at,
            seq=seq,
            data=source.take(length),
            asker=CURL if flags & _OWNED else None,
            ancestors=(),
            wanted=True,
            within=bool(flags & 16),
            by_server=bool(flags & 32),
        )
        for answered in exchanges.take(part):
            assert answered.name.isprintable() and answered.result.isprintable()
            assert 0 <= answered.latency_ns <= now
        assert exchanges.waiting <= 32
        assert 0 <= exchanges.payloads.held <= MOST_STREAM_BYTES + MOST_DATAGRAM_BYTES
        assert exchanges.payloads.dropped_bytes >= 0
    exchanges.expired(now + (1 << 40))
    assert exchanges.waiting == 0
