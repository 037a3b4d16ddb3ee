"""Streams are real messages, cut at random and delivered in any order; the messages are what must come out."""

from __future__ import annotations

import struct
from collections import Counter

import dns.message
import dns.rrset
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytracecon.names.dns import payloads
from pytracecon.names.dns.payloads import IDLE_NS, MOST_DATAGRAMS, MOST_DIRECTIONS, MOST_STREAM_BYTES, Payloads
from pytracecon.names.dns.stream import MOST_BYTES, MOST_RUNS, WINDOW, Stream
from pytracecon.names.records import Asker, MessagePart, ProcessKey

SERVER = bytes(10) + b"\xff\xff\x7f\0\0\x35"
WRAP = 2**32
NAMES = ["a.", "www.example.com.", "x" * 63 + ".example.org.", "."]
DIG = Asker(ProcessKey(71, 1), "dig", 1000, None, None, netns=1, cgroup=7)


def asking(name: str, number: int = 1) -> bytes:
    return dns.message.make_query(name, "A", use_edns=0, id=number).to_wire()


def answering(name: str, number: int = 1, addresses: int = 1) -> bytes:
    response = dns.message.make_response(dns.message.make_query(name, "A", id=number))
    texts = [f"192.0.2.{at}" for at in range(1, addresses + 1)]
    response.answer.append(dns.rrset.from_text(name, 60, "IN", "A", *texts))
    return response.to_wire()


def framed(*messages: bytes) -> bytes:
    return b"".join(struct.pack("!H", len(message)) + message for message in messages)


ONE, TWO, THREE = (asking("www.example.com.", number) for number in (1, 2, 3))
ALL = framed(ONE, TWO, THREE)
END = len(ALL)
FIRST, SECOND = len(framed(ONE)), len(framed(ONE, TWO))


@pytest.mark.parametrize(
    ("cuts", "expected"),
    [
        ([(0, END)], [ONE, TWO, THREE]),
        ([(at, at + 1) for at in range(END)], [ONE, TWO, THREE]),
        ([(0, 2), (2, FIRST), (FIRST, FIRST + 2), (FIRST + 2, SECOND), (SECOND, END)], [ONE, TWO, THREE]),
        ([(0, FIRST + 1), (FIRST + 1, END)], [ONE, TWO, THREE]),
        ([(0, END), (0, END), (FIRST, SECOND)], [ONE, TWO, THREE]),
        ([(0, 30), (10, 50), (0, 90), (70, END)], [ONE, TWO, THREE]),
        ([(0, 20), (40, END), (20, 40)], [ONE, TWO, THREE]),
        ([(0, 20), (40, 60), (60, END), (10, 70)], [ONE, TWO, THREE]),
        ([(SECOND, END), (FIRST, SECOND), (0, FIRST)], [THREE, TWO, ONE]),
        ([(FIRST - 5, FIRST), (FIRST, SECOND), (0, FIRST - 5), (SECOND, END)], [TWO, ONE, THREE]),
        ([(30, FIRST), (0, 30), (FIRST, END)], [ONE, TWO, THREE]),
        ([(30, FIRST), (FIRST, END)], [TWO, THREE]),
        ([(0, 20), (FIRST, END)], [TWO, THREE]),
        ([(0, 20), (30, SECOND), (SECOND, END)], [THREE]),
        ([(0, FIRST), (FIRST, SECOND - 1)], [ONE]),
    ],
    ids=[
        "in one segment",
        "byte by byte",
        "lengths by themselves",
        "cut within a length",
        "sent again",
        "overlapping",
        "out of order",
        "a hole filled by what overlaps",
        "backwards",
        "the last bytes first",
        "the second half first",
        "joined in the middle",
        "a hole before a message's beginning",
        "a hole that swallows a beginning",
        "not yet whole",
    ],
)
@pytest.mark.parametrize("start", [0, 1, 4711, WRAP - 1, WRAP - 50, WRAP - END])
def test_segments_become_messages(cuts: list[tuple[int, int]], expected: list[bytes], start: int) -> None:
    stream = Stream(sent=True)
    found = [message for a, b in cuts for message in stream.take((start + a) % WRAP, ALL[a:b])]
    assert found == expected


QUERIES = [asking(name) for name in NAMES]
ANSWERS = [answering(name, 1, addresses) for name in NAMES for addresses in (1, 3, 40)]


def numbered(wire: bytes, number: int) -> bytes:
    return struct.pack("!H", number) + wire[2:]


queries = st.builds(numbered, st.sampled_from(QUERIES), st.integers(0, 65535))
answers = st.builds(numbered, st.sampled_from(ANSWERS), st.integers(0, 65535))


@st.composite
def deliveries(draw: st.DrawFn, *, shuffled: bool) -> tuple[bool, list[bytes], int, list[tuple[int, bytes]]]:
    """Messages of one direction, where they begin in the sequence, and segments that bring each byte at least once."""
    sent = draw(st.booleans())
    messages = draw(st.lists(queries if sent else answers, min_size=1, max_size=5))
    data = framed(*messages)
    inner = sorted(draw(st.sets(st.integers(1, len(data) - 1), max_size=20)))
    pieces = list(zip([0, *inner], [*inner, len(data)], strict=True))
    again = draw(st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(1, 200)), max_size=8))
    for begin, size in again:
        pieces.insert(draw(st.integers(0, len(pieces))), (begin, min(begin + size, len(data))))
    if shuffled:
        pieces = draw(st.permutations(pieces))
    return sent, messages, draw(st.integers(0, WRAP - 1)), [(begin, data[begin:end]) for begin, end in pieces]


@given(deliveries(shuffled=True))
def test_however_a_stream_is_cut_and_shuffled_its_messages_come_once(
    delivery: tuple[bool, list[bytes], int, list[tuple[int, bytes]]],
) -> None:
    sent, messages, start, segments = delivery
    stream = Stream(sent=sent)
    found = [message for at, data in segments for message in stream.take((start + at) % WRAP, data)]
    assert sorted(found) == sorted(messages)
    assert (stream.dropped, len(stream.runs)) == (0, 1)


@given(deliveries(shuffled=False), st.data())
def test_a_segment_that_never_comes_takes_nothing_along_that_is_not_in_it(
    delivery: tuple[bool, list[bytes], int, list[tuple[int, bytes]]], data: st.DataObject
) -> None:
    sent, messages, start, segments = delivery
    missing = data.draw(st.integers(0, len(segments) - 1))
    stream = Stream(sent=sent)
    came = segments[:missing] + segments[missing + 1 :]
    found = [message for at, piece in came for message in stream.take((start + at) % WRAP, piece)]
    assert Counter(found) <= Counter(messages)  # nothing is invented and nothing comes twice
    present = {at + offset for at, piece in came for offset in range(len(piece))}
    whole = [
        message for at, message in enumerate(messages) if present.issuperset(range(len(framed(*messages[: at + 1]))))
    ]
    assert Counter(whole) <= Counter(found)


@given(
    st.booleans(),
    st.lists(st.tuples(st.integers(0, WRAP - 1) | st.integers(0, 5000), st.binary(min_size=1, max_size=300))),
)
@example(sent=True, segments=[(at * 2000, b"x" * 1000) for at in range(400)])
@example(sent=False, segments=[(at * 2, b"x") for at in range(400)])
@example(sent=False, segments=[(at * 1500, b"x" * 1500) for at in range(400)])
@example(sent=True, segments=[(0, b"\xff\xff" + ONE + b"x" * 65000), (70_000, b"x" * 65000), (140_000, b"x" * 65000)])
def test_whatever_comes_memory_is_bounded(sent: bool, segments: list[tuple[int, bytes]]) -> None:
    stream = Stream(sent=sent)
    given_out = 0
    for seq, data in segments:
        given_out += sum(2 + len(message) for message in stream.take(seq, data))
        assert sum(len(run.kept) for run in stream.runs) < stream.held <= MOST_BYTES
        assert len(stream.runs) <= MOST_RUNS
    came = sum(len(data) for _, data in segments)
    assert given_out + stream.dropped + sum(len(run.kept) for run in stream.runs) <= came


def test_many_holes_do_not_end_a_stream() -> None:
    stream = Stream(sent=True)
    for at in range(1000):
        assert stream.take(at * 500, framed(ONE)) == [ONE]
        assert stream.take(at * 500 + 300, b"\xff" * 100) == []
    assert stream.dropped >= 100 * (1000 - MOST_RUNS)


def test_the_same_ports_are_used_again_by_another_connection() -> None:
    stream = Stream(sent=True)
    assert stream.take(5, framed(ONE) + b"\0\x40half a message") == [ONE]
    assert stream.take(5 + 2 * WINDOW, framed(TWO)) == [TWO]
    assert stream.take(3_000_000_000, framed(THREE)) == [THREE]
    assert (stream.connections, stream.dropped) == (3, 16)


def test_a_length_that_lies_does_not_spoil_what_was_read_already() -> None:
    stream = Stream(sent=True)
    lie = b"\x01" + framed(ONE)[1:]
    assert stream.take(0, lie[:20]) == []
    assert stream.take(FIRST, framed(TWO)) == [TWO]
    assert stream.take(20, lie[20:]) == []
    assert (stream.take(SECOND, framed(THREE)), stream.dropped) == ([THREE], FIRST)


def test_the_end_of_a_query_does_not_look_like_a_beginning() -> None:
    stream = Stream(sent=True)
    assert stream.take(0, bytes.fromhex("0029 1000 0000 0000 0000 0000 0000 0000 00")) == []
    assert stream.take(17, framed(ONE)) == [ONE]


def test_an_empty_message_does_not_lose_the_next() -> None:
    assert Stream(sent=True).take(9, framed(ONE, b"", TWO)) == [ONE, b"", TWO]


def part(  # what a packet of a connection or a datagram is, as the kernel side tells it
    data: bytes,
    *,
    time: int = 0,
    packet: int = 1,
    sent: bool = True,
    protocol: str = "tcp",
    port: int = 40_000,
    size: int | None = None,
    at: int = 0,
    seq: int = 0,
    asker: Asker | None = None,
) -> MessagePart:
    return MessagePart(
        time=time,
        packet=packet,
        sent=sent,
        protocol=protocol,
        netns=1,
        local_port=port,
        server=SERVER,
        server_port=53,
        size=len(data) if size is None else size,
        at=at,
        seq=seq,
        data=data,
        asker=asker,
        ancestors=(),
        wanted=True,
        within=False,
        by_server=False,
    )


def test_a_segment_that_comes_in_parts_is_put_together() -> None:
    found = Payloads()
    size = len(ALL)
    assert found.take(part(ALL[:50], seq=WRAP - 60, size=size))[1] == [ONE]
    assert found.take(part(ALL[50:], seq=WRAP - 60, size=size, at=50))[1] == [TWO, THREE]


def test_connections_and_their_directions_are_kept_apart() -> None:
    found = Payloads()
    half = 30
    for port, sent, wire in ((1, True, ONE), (1, False, answering("a.")), (2, True, TWO)):
        assert found.take(part(framed(wire)[:half], port=port, sent=sent))[1] == []
    for port, sent, wire in ((1, True, ONE), (1, False, answering("a.")), (2, True, TWO)):
        assert found.take(part(framed(wire)[half:], port=port, sent=sent, seq=half))[1] == [wire]


def test_a_segment_that_leaves_in_nobodys_time_is_its_connections() -> None:
    found = Payloads()
    assert found.take(part(framed(ONE)[:30], asker=DIG))[0].asker == DIG
    sender, messages = found.take(part(framed(ONE)[30:], seq=30))
    assert (sender.asker, messages) == (DIG, [ONE])
    sender, messages = found.take(part(framed(TWO), seq=2_000_000_000))
    assert (sender.asker, messages) == (None, [TWO])


def test_after_a_long_silence_the_same_ports_are_another_connections() -> None:
    found = Payloads()
    found.take(part(framed(ONE) + b"\0", asker=DIG))
    sender, messages = found.take(part(framed(TWO), seq=len(framed(ONE)) - 5, time=IDLE_NS + 1))
    assert (sender.asker, messages) == (None, [TWO])
    assert found.dropped_bytes == 1


def test_directions_are_bounded_and_the_idlest_goes_first() -> None:
    found = Payloads()
    for port in range(MOST_DIRECTIONS):
        found.take(part(framed(ONE)[:30], port=port))
    found.take(part(framed(ONE)[30:31], port=0, seq=30))
    found.take(part(framed(ONE)[:30], port=MOST_DIRECTIONS))
    assert found.evicted_directions == 1
    assert found.take(part(framed(ONE)[31:], port=0, seq=31))[1] == [ONE]
    assert found.take(part(framed(ONE)[30:], port=1, seq=30))[1] == []


def test_bytes_of_all_directions_are_bounded() -> None:
    found = Payloads()
    for port in range(300):
        found.take(part(framed(ONE) + b"\xff\xff" + b"x" * 60_000, port=port))
        assert found.held <= MOST_STREAM_BYTES
    assert found.evicted_directions > 100


def test_a_datagram_in_parts_is_put_together_in_any_order() -> None:
    found = Payloads()
    wire = answering("www.example.com.", addresses=200)
    cuts = [(0, 1536), (1536, 3072), (3072, len(wire))]
    assert len(wire) > cuts[2][0]
    for order in ([0, 1, 2], [2, 0, 1], [1, 1, 2, 0]):
        parts = [part(wire[a:b], protocol="udp", size=len(wire), at=a) for a, b in (cuts[at] for at in order)]
        assert [found.take(one)[1] for one in parts] == [[]] * (len(parts) - 1) + [[wire]]
    assert found.held == 0


def test_datagrams_are_told_apart_by_their_packet() -> None:
    found = Payloads()
    for packet, wire in enumerate((ONE, TWO)):
        assert found.take(part(wire[:20], protocol="udp", packet=packet, size=len(wire)))[1] == []
    for packet, wire in enumerate((ONE, TWO)):
        assert found.take(part(wire[20:], protocol="udp", packet=packet, size=len(wire), at=20))[1] == [wire]


def test_datagrams_of_which_a_part_is_missing_are_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Payloads()
    for packet in range(MOST_DATAGRAMS + 9):
        assert found.take(part(ONE[:20], protocol="udp", packet=packet, size=len(ONE)))[1] == []
        assert found.take(part(b"", protocol="udp", packet=packet, size=len(ONE), at=20))[1] == []
    assert (found.incomplete, found.held) == (9, MOST_DATAGRAMS * 20)
    monkeypatch.setattr(payloads, "MOST_DATAGRAM_BYTES", 1000)
    found.take(part(ONE[:20], protocol="udp", packet=4711, size=len(ONE)))
    assert found.held == 1000


def test_parts_that_overlap_or_lie_about_the_size_make_no_message() -> None:
    found = Payloads()
    assert found.take(part(ONE[:20], protocol="udp", size=30))[1] == []
    assert found.take(part(ONE[5:15], protocol="udp", size=30, at=5))[1] == []
    assert found.take(part(ONE, protocol="udp", packet=2, size=20))[1] == []
