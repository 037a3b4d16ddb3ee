"""The name in a ClientHello is what the client was told to ask for, and no bytes do any harm.

The truth comes from OpenSSL, which makes the hellos.
"""

from __future__ import annotations

import ssl
import tracemalloc
import warnings
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytracecon.names.hello import _BYTES, _CONNECTIONS, _LONGEST, ServerNames, server_name
from pytracecon.names.records import HelloPart, ProcessKey

CLIENT = ProcessKey(101, 77)
HOST = "www.example.com"
VERSIONS = [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
SERVER_NAME, PRE_SHARED_KEY, ENCRYPTED_HELLO, GREASE = 0x0000, 0x0029, 0xFE0D, 0x1A1A


def first_flight(
    host: str | None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, protocols: list[str] | None = None
) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.set_alpn_protocols(protocols or ["h2", "http/1.1"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TLS 1.0 and 1.1 are; clients have them all the same
        context.minimum_version = context.maximum_version = version
    sent = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=host)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return sent.read()


def vector(size: int, content: bytes) -> bytes:
    return len(content).to_bytes(size) + content


def extension(kind: int, content: bytes) -> bytes:
    return kind.to_bytes(2) + vector(2, content)


def named(name: bytes, kind: int = 0) -> bytes:
    return extension(SERVER_NAME, vector(2, bytes([kind]) + vector(2, name)))


def hello(*extensions: bytes, version: int = 0x0303) -> bytes:
    body = version.to_bytes(2) + bytes(32) + vector(1, bytes(32)) + vector(2, b"\x13\x01\x1a\x1a") + vector(1, b"\0")
    return b"\1" + vector(3, body + vector(2, b"".join(extensions)))


def handshake(flight: bytes) -> bytes:
    return flight[5:]


def records(message: bytes, size: int) -> bytes:
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + vector(2, piece) for piece in pieces)


def part(conn: int, at: int, data: bytes) -> HelloPart:
    return HelloPart(0, conn, CLIENT, bytes(16), at, data)


def names_of(*parts: tuple[int, bytes]) -> list[str]:
    servers = ServerNames()
    return [name for at, data in parts if (name := servers.take(part(1, at, data)))]


FLIGHT = first_flight(HOST)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_name_is_the_one_the_client_was_given_in_every_version(version: ssl.TLSVersion) -> None:
    assert names_of((0, first_flight(HOST, version))) == [HOST]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_without_a_name_has_none(version: ssl.TLSVersion) -> None:
    flight = first_flight(None, version)
    assert flight[5] == 1
    assert names_of((0, flight)) == []


def test_a_name_in_unicode_is_told_as_it_goes_over_the_wire() -> None:
    assert names_of((0, first_flight("Bücher.Example"))) == ["xn--bcher-kva.example"]


def test_a_client_that_was_given_an_address_has_no_name() -> None:
    assert names_of((0, first_flight("192.0.2.1"))) == []
    assert names_of((0, first_flight("2001:db8::1"))) == []


def test_a_name_is_told_in_lower_case() -> None:
    flight = first_flight("WWW.Example.COM")
    assert b"WWW.Example.COM" in flight
    assert names_of((0, flight)) == [HOST]


@pytest.mark.parametrize(
    "name", ["localhost", "a_b.example", "r3---sn-1.example", "1.2.3.4.example", "a" * 63, "xn--p1ai"]
)
def test_a_usual_name_is_one(name: str) -> None:
    assert server_name(hello(named(name.encode()))) == name


@pytest.mark.parametrize(
    "name",
    [
        b"",
        b".",
        b"www.example.com.",
        b".example.com",
        b"www..example.com",
        b"a" * 64 + b".example",
        b".".join([b"a" * 49] * 6),
        b"192.0.2.1",
        b"127.1",
        b"0x7f000001",
        b"192.0.2.256",
        b"2001:db8::1",
        b"[2001:db8::1]",
        b"www.example.com\n",
        b"www.example.com\0",
        b"\x1b]52;c;cm0gLXJm\x07",
        b"www example.com",
        b"*.example.com",
        b"=cmd|'/c calc'!A0",
        "bücher.example".encode(),
        b"b\xfccher.example",
    ],
)
def test_what_is_no_host_name_is_none(name: bytes) -> None:
    assert server_name(hello(named(name))) is None


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64, 200, 16_384])
def test_a_hello_may_be_spread_over_records_of_any_size(size: int) -> None:
    assert names_of((0, records(handshake(FLIGHT), size))) == [HOST]


@given(st.lists(st.integers(0, len(FLIGHT)), max_size=20), st.integers(1, 400))
def test_a_hello_may_be_cut_anywhere(cuts: list[int], size: int) -> None:
    stream = records(handshake(FLIGHT), size)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    assert names_of(*((start, stream[start:end]) for start, end in pairwise(edges))) == [HOST]


@given(
    st.lists(st.tuples(st.integers(0, len(FLIGHT)), st.integers(0, len(FLIGHT))), max_size=20),
    st.randoms(use_true_random=False),
)
def test_parts_may_overlap_come_again_and_come_in_any_order(spans: list[tuple[int, int]], random: object) -> None:
    edges = sorted({0, len(FLIGHT), *(start for start, _ in spans)})
    parts = [*pairwise(edges), *((start, start + size) for start, size in spans)]
    random.shuffle(parts)  # type: ignore[attr-defined]
    assert names_of(*((start, FLIGHT[start:end]) for start, end in parts)) == [HOST]


def test_a_name_is_told_once_though_its_parts_come_again() -> None:
    half = len(FLIGHT) // 2
    parts = [(0, FLIGHT[:half]), (half, FLIGHT[half:])]
    assert names_of(*parts, *parts, (0, FLIGHT)) == [HOST]


def test_connections_at_the_same_time_do_not_mix() -> None:
    servers = ServerNames()
    flights = [first_flight(f"{number}.example") for number in range(20)]
    for conn, flight in enumerate(flights):
        assert servers.take(part(conn, 0, flight[:100])) is None
    told = [servers.take(part(conn, 100, flight[100:])) for conn, flight in enumerate(flights)]
    assert told == [f"{number}.example" for number in range(20)]


def test_a_hello_as_large_as_those_with_post_quantum_keys_is_read() -> None:
    protocols = [f"{number:0200d}" for number in range(40)]
    flight = first_flight(HOST, protocols=protocols)
    assert len(flight) > 8_000
    assert names_of(*((at, flight[at : at + 1_400]) for at in range(0, len(flight), 1_400))) == [HOST]


def test_a_hello_larger_than_any_client_sends_is_not_read() -> None:
    padding = extension(21, bytes(20_000))
    assert server_name(hello(named(HOST.encode()), padding)) == HOST
    assert names_of((0, records(hello(named(HOST.encode()), padding), 1 << 14))) == []


def test_what_follows_the_hello_does_not_matter() -> None:
    assert names_of((0, FLIGHT + b"\x17\x03\x03\x00\x05early")) == [HOST]


@pytest.mark.parametrize("kind", [GREASE, PRE_SHARED_KEY, 0xFFFF])
def test_extensions_that_mean_nothing_here_are_passed_over(kind: int) -> None:
    around = extension(kind, bytes(300))
    assert server_name(hello(around, named(HOST.encode()))) == HOST
    assert server_name(hello(named(HOST.encode()), around)) == HOST
    assert server_name(hello(around)) is None


def test_the_name_outside_of_an_encrypted_hello_is_not_the_hosts() -> None:
    assert server_name(hello(named(b"public.example"), extension(ENCRYPTED_HELLO, b"\0" * 40))) is None
    assert server_name(hello(extension(ENCRYPTED_HELLO, b""), named(b"public.example"))) is None


@pytest.mark.parametrize(
    "message",
    [
        hello(named(HOST.encode()), named(b"other.example")),
        hello(named(HOST.encode(), kind=1)),
        hello(extension(SERVER_NAME, vector(2, 2 * (b"\0" + vector(2, HOST.encode()))))),
        hello(extension(SERVER_NAME, b"")),
        hello(extension(SERVER_NAME, vector(2, b""))),
        hello(extension(SERVER_NAME, vector(2, b"\0" + vector(2, HOST.encode())) + b"\0")),
        hello(named(HOST.encode()), b"\0"),
        hello(named(HOST.encode())) + b"\0",
        hello(named(HOST.encode()))[:-1],
        hello(named(HOST.encode()), version=0x0203),
        b"\2" + hello(named(HOST.encode()))[1:],
        b"",
        b"\1",
        b"\1\0\0\0",
    ],
)
def test_a_hello_that_contradicts_itself_has_no_name(message: bytes) -> None:
    assert server_name(message) is None


@pytest.mark.parametrize(
    "flight",
    [
        b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x16\x02\x01" + FLIGHT[3:],
        b"\x17" + FLIGHT[1:],
        b"\x16\x03\x01\0\0" + FLIGHT,
        b"\x16\x03\x01\x40\x01" + FLIGHT[5:],
        b"\x80\x2e\x01\x00\x02",
        records(handshake(FLIGHT)[:50], 50) + b"\x14\x03\x01\x00\x01\x01" + records(handshake(FLIGHT)[50:], 500),
        records(b"\2" + handshake(FLIGHT)[1:], 500)[:50],
    ],
)
def test_what_is_no_hello_is_given_up_at_once(flight: bytes) -> None:
    servers = ServerNames()
    assert servers.take(part(1, 0, flight)) is None
    assert servers._streams == {1: None}
    assert servers._kept == 0


@given(st.data())
def test_any_change_to_a_hello_leaves_a_host_name_or_none(data: st.DataObject) -> None:
    broken = bytearray(FLIGHT)
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(broken) - 1))
        how = data.draw(st.sampled_from(["set", "cut", "insert"]))
        if how == "set":
            broken[at] = data.draw(st.integers(0, 255))
        elif how == "cut" and len(broken) > 20:
            del broken[at : at + data.draw(st.integers(1, 9))]
        else:
            broken[at:at] = data.draw(st.binary(max_size=9))
    told = [*names_of((0, bytes(broken))), server_name(bytes(broken[5:]))]
    assert all(name is None or (name.isascii() and name.isprintable() and name == name.lower()) for name in told)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40), st.binary(max_size=40)), max_size=60))
@example([(0, 0, b"\x16\x03\x01\xff\xff"), (0, 1, b"")])
def test_any_parts_leave_the_tables_sound(parts: list[tuple[int, int, bytes]]) -> None:
    servers = ServerNames()
    for conn, at, data in parts:
        assert servers.take(part(conn, at, data)) is None
        assert servers._kept == sum(stream.kept for stream in servers._streams.values() if stream)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_hello_or_none(message: bytes) -> None:
    assert server_name(message) is None
    assert server_name(b"\1" + message) is None


def test_a_hello_without_end_is_given_up() -> None:
    servers = ServerNames()
    endless = records(b"\1\0\x3f\xff" + bytes(1 << 16), 1)
    for at in range(0, len(endless), 4_096):
        assert servers.take(part(1, at, endless[at : at + 4_096])) is None
        assert servers._kept <= _LONGEST
    assert servers._streams == {1: None}
    assert servers.take(part(2, 0, endless)) is None
    assert servers._streams[2] is None


@pytest.mark.parametrize("size", [0, 1, 1_000])
def test_parts_of_a_stream_whose_beginning_never_comes_are_given_up(size: int) -> None:
    servers = ServerNames()
    for at in range(1, 100_000, max(1, size)):
        assert servers.take(part(1, at, bytes(size))) is None
        assert servers._kept <= _LONGEST
    assert servers._streams == {1: None}


def test_unfinished_hellos_are_bounded_and_those_that_had_to_go_are_counted() -> None:
    servers = ServerNames()
    for conn in range(_CONNECTIONS):
        servers.take(part(conn, 0, FLIGHT[:100]))
    servers.take(part(0, 100, FLIGHT[100:200]))
    for conn in range(_CONNECTIONS, _CONNECTIONS + 10):
        servers.take(part(conn, 0, FLIGHT[:100]))
    assert servers.evicted == 10
    assert servers.take(part(0, 200, FLIGHT[200:])) == HOST
    assert servers.take(part(20, 100, FLIGHT[100:])) == HOST
    assert servers.take(part(10, 100, FLIGHT[100:])) is None


def test_unfinished_hellos_are_bounded_in_bytes() -> None:
    servers = ServerNames()
    large = records(b"\1\0\x3f\xff" + bytes(1 << 16), 1 << 14)[:16_000]
    tracemalloc.start()
    try:
        for conn in range(_CONNECTIONS):
            servers.take(part(conn, 0, large))
        assert tracemalloc.get_traced_memory()[0] < _BYTES * 5 // 4
    finally:
        tracemalloc.stop()
    assert servers.evicted > 3_000
    assert servers.take(part(_CONNECTIONS, 0, FLIGHT)) == HOST
