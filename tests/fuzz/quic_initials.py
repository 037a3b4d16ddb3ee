"""What a QUIC client sends first: datagrams as they come, and frames as whoever has the keys may put into them."""

from __future__ import annotations

from fuzz.source import Source, pieces
from pytracecon.names.hello import server_name
from pytracecon.names.quic import _LONGEST, Initials
from traffic.quic import first_flight
from unit.test_quic import EXAMPLE, LONG, V2, crypto, protected


def seeds() -> list[bytes]:
    hello = EXAMPLE[4:]
    return [
        b"\0" + pieces(protected(EXAMPLE + bytes(20))),
        b"\0" + pieces(protected(EXAMPLE + bytes(20), V2)),
        b"\0" + pieces(*first_flight("www.example.com", *LONG)),
        b"\1" + pieces(crypto(0, hello)),
        b"\1" + pieces(crypto(100, hello[100:]) + b"\1\0\0", b"\2\0\0\0\0" + crypto(0, hello[:120])),
        b"\1" + pieces(b"\3\1\2\1\1\1\4\5\6" + crypto(0, hello)),
    ]


def run(data: bytes) -> None:
    source, initials = Source(data), Initials()
    opened = source.number(1) & 1
    for at in range(32):
        if not source:
            break
        piece = source.piece()
        if opened:
            initials._read(piece)
            found = initials._whole()
        else:
            found = initials.take(at, piece)
        if found:
            server_name(found)
        if found is not None:
            break
        assert initials.kept <= 2 * _LONGEST + len(piece)
