"""What a QUIC client sends first is read as RFC 9001 and RFC 9369 say, and no bytes do any harm.

The truth comes from the worked examples of both (appendix A), and from aioquic, which protects packets.
"""

from __future__ import annotations

import pytest
from aioquic.quic.crypto import CryptoPair
from hypothesis import given, settings
from hypothesis import strategies as st

from pytracecon.names.hello import ServerNames
from pytracecon.names.quic import _LONGEST, Initials
from pytracecon.names.records import HelloPart, ProcessKey
from traffic.quic import QuicProtocolVersion, first_flight

CONNECTION = bytes.fromhex("8394c8f03e515708")
EXAMPLE = bytes.fromhex(
    "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e86804fe3a47f06a2b69484c0000041301130201"
    "0000c000000010000e00000b6578616d706c652e636f6dff01000100000a00080006001d00170018001000070005"
    "04616c706e000500050100000000003300260024001d00209370b2c9caa47fbabaf4559fedba753de171fa71f50f1ce1"
    "5d43e994ec74d748002b0003020304000d0010000e0403050306030203080408050806002d00020101001c0002400100"
    "3900320408ffffffffffffffff05048000ffff07048000ffff0801100104800075300901100f088394c8f03e51570806048000ffff"
)
V1, V2 = QuicProtocolVersion.VERSION_1, QuicProtocolVersion.VERSION_2
VERSIONS = pytest.mark.parametrize("version", [V1, V2])
LONG = [f"protocol-{at:0200}" for at in range(8)]


def protected(plain: bytes, version: QuicProtocolVersion = V1, number: int = 2) -> bytes:
    first = 0xC3 if version == V1 else 0xD3
    length = 0x4000 | 4 + len(plain) + 16
    header = bytes([first]) + version.to_bytes(4) + b"\x08" + CONNECTION + b"\0\0" + length.to_bytes(2)
    pair = CryptoPair()
    pair.setup_initial(cid=CONNECTION, is_client=True, version=version)
    return pair.encrypt_packet(header + number.to_bytes(4), plain, number)


def crypto(begin: int, data: bytes) -> bytes:
    return b"\6" + (0x80000000 | begin).to_bytes(4) + (0x4000 | len(data)).to_bytes(2) + data


def name_in(datagrams: list[bytes]) -> str | None:
    names = ServerNames()
    parts = [HelloPart(0, 7, ProcessKey(1, 2), bytes(16), *each, is_datagram=True) for each in enumerate(datagrams)]
    return next((name for part in parts if (name := names.take(part)) is not None), None)


@pytest.mark.parametrize(
    ("version", "begin", "end"),
    [
        (V1, "c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11", "e221af44860018ab0856972e194cd934"),
        (V2, "d76b3343cf088394c8f03e5157080000449ea0c95e82ffe67b6abcdb4298b485", "a18b2faa745b6fe189cf772a9f84cbfc"),
    ],
)
def test_the_worked_examples(version: QuicProtocolVersion, begin: str, end: str) -> None:
    """Its end is the tag over all of the packet: with that it is the published one."""
    packet = protected(EXAMPLE + bytes(1162 - len(EXAMPLE)), version)
    assert (len(packet), packet[:32].hex(), packet[-16:].hex()) == (1200, begin, end)
    assert Initials().take(0, packet) == EXAMPLE[4:]
    assert name_in([packet]) == "example.com"


@VERSIONS
def test_a_client_s_datagrams_in_any_order(version: QuicProtocolVersion) -> None:
    datagrams = first_flight("www.example.com", *LONG, version=version)
    assert len(datagrams) > 1
    assert name_in(datagrams) == name_in(datagrams[::-1]) == "www.example.com"
    assert name_in(datagrams[:1]) is None


def test_pieces_in_any_order_and_packets_in_one_datagram() -> None:
    hello = EXAMPLE[4:]
    middle = crypto(100, hello[100:150]) + b"\1" + bytes(3) + crypto(40, hello[40:110])
    acked = b"\2\0\0\0\0" + crypto(150, hello[150:])
    assert name_in([protected(middle) + protected(acked + crypto(0, hello[:40]), number=3)]) == "example.com"


@given(at=st.integers(0, 299), bit=st.integers(0, 7))
def test_what_was_changed_is_not_believed(at: int, bit: int) -> None:
    packet = bytearray(protected(EXAMPLE + bytes(20)))
    packet[at % len(packet)] ^= 1 << bit
    assert name_in([bytes(packet)]) is None


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=200), max_size=5), st.sampled_from([b"", protected(EXAMPLE)[:18]]))
def test_any_bytes_do_no_harm(datagrams: list[bytes], head: bytes) -> None:
    assert name_in([head + each for each in datagrams]) is None


@settings(max_examples=300)
@given(st.lists(st.binary(min_size=20, max_size=200), max_size=5))
def test_any_frames_do_no_harm(plain: list[bytes]) -> None:
    initials = Initials()
    for each in plain:
        initials.take(0, protected(b"\6" + each))
    assert initials.kept <= 2 * _LONGEST + 200


def test_thousands_of_frames_are_refused() -> None:
    initials = Initials()
    pieces = [b"".join(crypto(1 + 2 * at, b"x") for at in range(first, first + 150)) for first in range(0, 450, 150)]
    told = [initials.take(0, protected(each)) for each in pieces]
    assert told == [None, b"", b""]
    assert initials.take(0, protected(crypto(1 << 20, b"x"))) == b""
