"""What a client sends first over TCP: a server's name, or none."""

from __future__ import annotations

import re

from fuzz.source import Source
from pytracecon.names.hello import ServerNames, server_name
from pytracecon.names.records import HelloPart, ProcessKey
from unit.test_hello import ENCRYPTED_HELLO, FLIGHT, extension, first_flight, handshake, hello, named, records

_HOST = re.compile(r"[a-z0-9._-]{1,253}")


def _parts(*parts: tuple[int, bytes]) -> bytes:
    return b"".join(at.to_bytes(2, "big") + len(data).to_bytes(2, "big") + data for at, data in parts)


def seeds() -> list[bytes]:
    small = records(hello(named(b"www.example.com")), 50)
    return [
        b"\1" + handshake(FLIGHT),
        b"\1" + hello(named(b"a.example"), extension(ENCRYPTED_HELLO, b"\0")),
        b"\1" + hello(named(b"127.0.0.1")),
        b"\0" + _parts((0, FLIGHT)),
        b"\0" + _parts((0, first_flight(None))),
        b"\0" + _parts((40, small[40:]), (0, small[:20]), (10, small[10:60])),
        b"\0" + _parts((0, b"GET / HTTP/1.1\r\n\r\n")),
    ]


def run(data: bytes) -> None:
    source = Source(data)
    if source.number(1) & 1:
        names = [server_name(source.rest())]
    else:
        servers, names = ServerNames(), []
        while source:
            at = source.number(2)
            names.append(servers.take(HelloPart(0, 1, ProcessKey(1, 2), bytes(16), at, source.piece())))
        assert sum(name is not None for name in names) <= 1
    assert all(name is None or _HOST.fullmatch(name) for name in names)
