"""Packets in, lookups out. Times are milliseconds of a clock that only the test moves; latencies are exact."""

from __future__ import annotations

import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rrset
import dns.update
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytracecon.names.dns.exchange import Answered, Exchanges
from pytracecon.names.records import Asker, MessagePart, ProcessKey

MS = 1_000_000
MAPPED = bytes(10) + b"\xff\xff"


def packed(*addresses: str) -> tuple[bytes, ...]:
    return tuple(IPv6Address(a).packed if ":" in a else MAPPED + IPv4Address(a).packed for a in addresses)


SERVER, OTHER_SERVER, LOOPBACK = packed("10.0.0.53", "10.0.0.54", "127.0.0.53")
CURL, DIG, RESOLVER = (
    Asker(ProcessKey(pid, pid * 1000), comm, 1000, None, None, netns=1, cgroup=7)
    for pid, comm in ((71, "curl"), (72, "dig"), (53, "resolved"))
)
WEB = "www.example.com. 60 A 192.0.2.1"


def asking(name: str = "www.example.com.", kind: str = "A", number: int = 4711) -> bytes:
    return dns.message.make_query(name, kind, use_edns=0, id=number).to_wire()


def answering(question: bytes, *records: str, rcode: str = "NOERROR", tc: bool = False) -> bytes:
    """Records are written as in a zone file: owner, TTL, type, data."""
    response = dns.message.make_response(dns.message.from_wire(question))
    for record in records:
        owner, ttl, of, data = record.split(maxsplit=3)
        response.answer.append(dns.rrset.from_text(owner, int(ttl), "IN", of, data))
    response.set_rcode(dns.rcode.from_text(rcode))
    if tc:
        response.flags |= dns.flags.TC
    return response.to_wire()


def numbered(wire: bytes, number: int) -> bytes:
    return struct.pack("!H", number) + wire[2:]


def framed(wire: bytes) -> bytes:
    return struct.pack("!H", len(wire)) + wire


QUERY = asking()
ANSWER = answering(QUERY, WEB)
DAMAGED = ANSWER[: ANSWER.index(b"\xc0\0\2\1") + 2]
CUT = answering(QUERY, "www.example.com. 9 A 192.0.2.9", tc=True)


class Host:
    """What a host's packets look like to the kernel side."""

    def __init__(self, **limits: int) -> None:
        self.exchanges = Exchanges(**limits)
        self.packets = 0

    def packet(self, at: float, data: bytes, **changed: Any) -> list[Answered]:
        self.packets += 1
        part = MessagePart(
            time=round(at * MS),
            packet=self.packets,
            sent=False,
            protocol="udp",
            netns=1,
            local_port=40_000,
            server=SERVER,
            server_port=53,
            size=len(data),
            at=0,
            seq=1,
            data=data,
            asker=None,
            ancestors=(),
            wanted=True,
            within=False,
            by_server=False,
        )
        return self.exchanges.take(replace(part, **changed))

    def sends(self, at: float, data: bytes = QUERY, asker: Asker = CURL, **changed: Any) -> list[Answered]:
        return self.packet(at, data, sent=True, asker=asker, **changed)

    def receives(self, at: float, data: bytes = ANSWER, **changed: Any) -> list[Answered]:
        return self.packet(at, data, **changed)

    def counted(self) -> dict[str, int]:
        """The counters that are not 0."""
        public = {name: value for name, value in vars(self.exchanges).items() if not name.startswith("_")}
        return {name: value for name, value in public.items() if isinstance(value, int) and value}

    def is_idle(self) -> bool:
        tables = [value for name, value in vars(self.exchanges).items() if hasattr(value, "clear")]
        assert len(tables) == 5
        return not any(tables) and self.exchanges.deadline is None and self.exchanges.waiting == 0


@pytest.fixture
def host() -> Host:
    return Host()


def test_an_answer_tells_all_of_its_lookup(host: Host) -> None:
    parents = (ProcessKey(3, 4), ProcessKey(2, 3))
    assert host.sends(10, ancestors=parents, wanted=False, within=True) == []
    assert host.exchanges.deadline == 5010 * MS
    assert host.receives(18.25) == [
        Answered(
            asker=CURL,
            ancestors=parents,
            wanted=False,
            within=True,
            by_server=False,
            behalf=False,
            name="www.example.com",
            type="A",
            result="ok",
            addresses=packed("192.0.2.1"),
            partial=False,
            ttl=60,
            time=18_250_000,
            latency_ns=8_250_000,
            server=SERVER,
            server_port=53,
            protocol="udp",
        )
    ]
    assert host.is_idle()
    assert host.counted() == {"queries": 1, "answers": 1}


@pytest.mark.parametrize(
    ("kind", "records", "rcode", "result", "addresses", "ttl"),
    [
        ("A", [WEB, "www.example.com. 50 A 192.0.2.2"], "NOERROR", "ok", ["192.0.2.1", "192.0.2.2"], 50),
        ("AAAA", ["www.example.com. 7 AAAA 2001:db8::1"], "NOERROR", "ok", ["2001:db8::1"], 7),
        (
            "A",
            ["www.example.com. 9 CNAME a.net.", "a.net. 30 A 192.0.2.1", "b.net. 1 A 192.0.2.66"],
            "NOERROR",
            "ok",
            ["192.0.2.1"],
            9,
        ),
        ("A", [], "NOERROR", "NODATA", [], None),
        ("AAAA", ["www.example.com. 9 CNAME a.net."], "NOERROR", "NODATA", [], None),
        ("A", ["bank.example. 9 A 192.0.2.66"], "NOERROR", "NODATA", [], None),
        ("HTTPS", [], "NOERROR", "ok", [], None),
        ("MX", ["www.example.com. 9 MX 10 mail.example.com."], "NOERROR", "ok", [], None),
        ("A", [], "NXDOMAIN", "NXDOMAIN", [], None),
        ("A", [WEB], "NXDOMAIN", "NXDOMAIN", [], None),
        ("A", [], "SERVFAIL", "SERVFAIL", [], None),
        ("MX", [], "REFUSED", "REFUSED", [], None),
        ("A", [], "BADVERS", "BADVERS", [], None),
    ],
)
def test_results(
    host: Host, kind: str, records: list[str], rcode: str, result: str, addresses: list[str], ttl: int | None
) -> None:
    question = asking(kind=kind)
    host.sends(0, question)
    (answered,) = host.receives(1, answering(question, *records, rcode=rcode))
    told = answered.type, answered.result, answered.addresses, answered.ttl
    assert told == (kind, result, packed(*addresses), ttl)


def test_a_damaged_answer_ends_its_lookup(host: Host) -> None:
    host.sends(0)
    (answered,) = host.receives(1, DAMAGED)
    assert (answered.name, answered.result, answered.addresses) == ("www.example.com", "malformed", ())


def test_letters_may_differ_in_case(host: Host) -> None:
    question = asking("wWw.eXAMPLE.com.")
    host.sends(0, question)
    (answered,) = host.receives(
        1, answering(question[:12] + question[12:].swapcase(), "WWW.example.COM. 60 A 192.0.2.1")
    )
    assert (answered.name, answered.result) == ("www.example.com", "ok")


def test_two_questions_with_one_number_from_one_port_are_two_lookups(host: Host) -> None:
    six = asking(kind="AAAA")
    host.sends(0)
    host.sends(1, six)
    assert [(one.type, one.latency_ns) for one in host.receives(5, answering(six))] == [("AAAA", 4 * MS)]
    assert [(one.type, one.latency_ns) for one in host.receives(7)] == [("A", 7 * MS)]


def test_a_query_sent_again_is_one_lookup_since_its_first_sending(host: Host) -> None:
    host.sends(0)
    host.sends(2000)
    host.sends(4000)
    assert host.exchanges.deadline == 9000 * MS
    assert [(one.result, one.latency_ns) for one in host.receives(8000)] == [("ok", 8000 * MS)]
    assert host.counted() == {"queries": 1, "resent": 2, "answers": 1}


def test_an_answer_that_comes_twice_counts_once(host: Host) -> None:
    host.sends(0)
    assert len(host.receives(1)) == 1
    assert host.receives(2) == []
    assert host.counted() == {"queries": 1, "answers": 1, "unknown": 1}


@pytest.mark.parametrize(
    "changed",
    [
        {"server": OTHER_SERVER},
        {"server_port": 5353},
        {"local_port": 40_001},
        {"netns": 2},
        {"data": numbered(ANSWER, 4712)},
        {"data": answering(asking("www.example.org."))},
        {"data": answering(asking(kind="AAAA"))},
        {"data": numbered(answering(asking("bank.example."), "bank.example. 9 A 192.0.2.66"), 4711)},
        {"data": framed(ANSWER), "protocol": "tcp"},
    ],
    ids=["server", "server's port", "port", "namespace", "number", "name", "type", "another name", "protocol"],
)
def test_what_answers_another_question_is_ignored(host: Host, changed: dict[str, Any]) -> None:
    host.sends(0)
    data = changed.pop("data", ANSWER)
    assert host.receives(1, data, size=len(data), **changed) == []
    assert host.counted() == {"queries": 1, "unknown": 1}
    assert len(host.receives(2)) == 1


def test_an_error_without_a_question_answers_the_only_one_that_waits(host: Host) -> None:
    bare = struct.pack("!6H", 4711, 0x8181, 0, 0, 0, 0)
    host.sends(0)
    assert [(one.name, one.result) for one in host.receives(1, bare)] == [("www.example.com", "FORMERR")]
    host.sends(2)
    host.sends(2, asking(kind="AAAA"))
    assert host.receives(3, bare) == []
    assert host.receives(3, struct.pack("!6H", 4711, 0x8180, 0, 0, 0, 0)) == []


@pytest.mark.parametrize(
    ("data", "counter"),
    [
        (dns.update.UpdateMessage("example.com.").to_wire(), "no_lookups"),
        (dns.message.make_query("version.bind.", "TXT", "CH").to_wire(), "no_lookups"),
        (struct.pack("!6H", 1, 0x0100, 0, 0, 0, 0), "no_lookups"),
        (struct.pack("!6H", 1, 0x0100, 2, 0, 0, 0) + QUERY[12:] * 2, "malformed"),
        (b"GET / HTTP/1.1\r\n", "no_lookups"),
        (b"\0", "malformed"),
        (ANSWER, "misdirected"),
    ],
    ids=["update", "class CH", "no question", "two questions", "not DNS", "a byte", "an answer"],
)
def test_what_is_sent_and_asks_for_no_name_is_counted_and_ignored(host: Host, data: bytes, counter: str) -> None:
    assert host.sends(0, data) == []
    assert host.counted() == {counter: 1}
    assert host.is_idle()


def test_a_query_that_comes_from_a_server_is_ignored(host: Host) -> None:
    host.sends(0)
    assert host.receives(1, QUERY) == []
    assert host.counted() == {"queries": 1, "misdirected": 1}


def test_a_query_of_nobody_is_ignored(host: Host) -> None:
    assert host.packet(0, QUERY, sent=True) == []
    assert host.counted() == {"unowned": 1}
    assert host.is_idle()


def test_a_query_that_nobody_answers_ends_by_the_clock(host: Host) -> None:
    host.sends(100)
    host.sends(600, asking(kind="AAAA"))
    assert host.exchanges.expired(5100 * MS - 1) == []
    (answered,) = host.exchanges.expired(5100 * MS)
    told = answered.type, answered.result, answered.addresses, answered.ttl, answered.time, answered.latency_ns
    assert told == ("A", "timeout", (), None, 5100 * MS, 5000 * MS)
    assert host.exchanges.deadline == 5600 * MS
    assert [one.type for one in host.exchanges.expired(9999 * MS)] == ["AAAA"]
    assert host.is_idle()
    assert host.counted() == {"queries": 2, "timeouts": 2}


def test_a_timeout_counts_from_the_last_sending_and_was_waited_for_since_the_first(host: Host) -> None:
    host.sends(0)
    host.sends(1, asking(kind="AAAA"))
    host.sends(3000)
    assert [(one.type, one.latency_ns) for one in host.exchanges.expired(60_000 * MS)] == [
        ("AAAA", 5000 * MS),
        ("A", 8000 * MS),
    ]


def test_an_answer_after_the_deadline_is_too_late_also_when_nobody_looked_at_the_clock(host: Host) -> None:
    host.sends(0)
    assert [(one.result, one.time) for one in host.receives(5000.1)] == [("timeout", 5000 * MS)]
    assert host.counted() == {"queries": 1, "timeouts": 1, "unknown": 1}


def test_patience_can_be_set() -> None:
    host = Host(patience_ns=20 * MS)
    host.sends(0)
    assert host.exchanges.deadline == 20 * MS
    assert [one.result for one in host.exchanges.expired(20 * MS)] == ["timeout"]


def test_a_truncated_answer_and_the_one_over_tcp_are_one_lookup(host: Host) -> None:
    host.sends(0)
    assert host.receives(10, CUT) == []
    over_tcp: dict[str, Any] = {"protocol": "tcp", "local_port": 50_000}
    assert host.sends(30, framed(numbered(QUERY, 815)), **over_tcp) == []
    (answered,) = host.receives(42, framed(numbered(ANSWER, 815)), **over_tcp)
    assert answered.result == "ok"
    assert (answered.protocol, answered.addresses, answered.ttl) == ("tcp", packed("192.0.2.1"), 60)
    assert (answered.time, answered.latency_ns) == (42 * MS, 42 * MS)
    assert host.is_idle()
    assert host.counted() == {"queries": 1, "answers": 2}


def test_a_truncated_answer_that_nobody_follows_up_is_told_as_it_is(host: Host) -> None:
    host.sends(0)
    host.receives(10, CUT)
    assert host.receives(11, CUT) == []
    assert host.exchanges.deadline == 5010 * MS
    (answered,) = host.exchanges.expired(5010 * MS)
    assert (answered.result, answered.addresses, answered.ttl) == ("truncated", packed("192.0.2.9"), 9)
    assert (answered.time, answered.latency_ns, answered.protocol) == (10 * MS, 10 * MS, "udp")
    assert host.is_idle()
    assert "timeouts" not in host.counted()


def test_a_truncated_answer_stands_if_nothing_comes_over_tcp(host: Host) -> None:
    host.sends(0)
    host.receives(10, CUT)
    host.sends(20, framed(QUERY), protocol="tcp")
    assert [(one.result, one.latency_ns) for one in host.exchanges.expired(5020 * MS)] == [("truncated", 10 * MS)]
    assert host.is_idle()


@pytest.mark.parametrize(
    "changed",
    [{"asker": DIG}, {"data": framed(asking(kind="AAAA"))}, {"data": framed(asking("b.example."))}],
    ids=["asker", "type", "name"],
)
def test_another_question_over_tcp_is_another_lookup(host: Host, changed: dict[str, Any]) -> None:
    host.sends(0)
    host.receives(10, CUT)
    data = changed.pop("data", framed(QUERY))
    host.sends(20, data, protocol="tcp", **changed)
    assert [(one.result, one.latency_ns) for one in host.exchanges.expired(5020 * MS)] == [
        ("truncated", 10 * MS),
        ("timeout", 5000 * MS),
    ]


def test_two_threads_that_both_turn_to_tcp_have_a_lookup_each(host: Host) -> None:
    for at, port in ((0, 1), (1, 2)):
        host.sends(at, local_port=port)
        host.receives(at + 5, CUT, local_port=port)
    for at, port in ((10, 3), (11, 4)):
        host.sends(at, framed(QUERY), protocol="tcp", local_port=port)
    ended = [one for port in (3, 4) for one in host.receives(20, framed(ANSWER), protocol="tcp", local_port=port)]
    assert [(one.result, one.latency_ns) for one in ended] == [("ok", 20 * MS), ("ok", 19 * MS)]
    assert host.is_idle()


@pytest.mark.parametrize(("rcode", "ends"), [("SERVFAIL", ["SERVFAIL"]), ("NXDOMAIN", [])])
def test_truncation_matters_where_it_would_be_asked_again(host: Host, rcode: str, ends: list[str]) -> None:
    host.sends(0)
    assert [one.result for one in host.receives(1, answering(QUERY, rcode=rcode, tc=True))] == ends


def test_a_truncated_answer_over_tcp_is_final(host: Host) -> None:
    host.sends(0, framed(QUERY), protocol="tcp")
    assert [one.result for one in host.receives(1, framed(CUT), protocol="tcp")] == ["truncated"]


def test_many_questions_on_one_connection_may_be_answered_in_any_order(host: Host) -> None:
    names = [f"host-{at}.example.com." for at in range(5)]
    questions = [asking(name, number=at) for at, name in enumerate(names)]
    host.sends(0, b"".join(map(framed, questions)), protocol="tcp")
    answers = [answering(questions[at], f"{names[at]} 60 A 192.0.2.{at}") for at in (3, 0, 4, 1, 2)]
    stream = b"".join(map(framed, answers))
    ended = host.receives(5, stream[:100], protocol="tcp")
    ended += host.receives(9, stream[100:], protocol="tcp", seq=101)
    assert [(one.name, one.addresses) for one in ended] == [
        (f"host-{at}.example.com", packed(f"192.0.2.{at}")) for at in (3, 0, 4, 1, 2)
    ]
    assert {one.latency_ns for one in ended} == {5 * MS, 9 * MS}


def test_a_zone_transfer_is_one_lookup(host: Host) -> None:
    question = asking("example.com.", "AXFR")
    soa = "example.com. 9 SOA a.example.com. b.example.com. 1 2 3 4 5"
    answer = answering(question, soa, "a.example.com. 9 A 192.0.2.1")
    host.sends(0, framed(question), protocol="tcp")
    ended = host.receives(5, framed(answer) * 3, protocol="tcp")
    assert [(one.type, one.result, one.addresses) for one in ended] == [("AXFR", "ok", ())]
    assert host.counted() == {"queries": 1, "answers": 1, "unknown": 2}


def test_a_segment_sent_again_is_no_query_sent_again(host: Host) -> None:
    host.sends(0, framed(QUERY), protocol="tcp")
    host.sends(200, framed(QUERY), protocol="tcp")
    assert [one.latency_ns for one in host.receives(300, framed(ANSWER), protocol="tcp")] == [300 * MS]
    assert host.counted() == {"queries": 1, "answers": 1}


def from_resolver(host: Host, at: float, data: bytes = QUERY, **changed: Any) -> bool:
    """Whether what a resolver asks upstream is on behalf of somebody."""
    host.sends(at, data, asker=RESOLVER, by_server=True, local_port=1, **changed)
    (answered,) = host.receives(at + 1, answering(data), local_port=1)
    assert answered.by_server
    return answered.behalf


def test_a_resolver_asks_on_behalf_of_who_asked_it_for_that_name(host: Host) -> None:
    host.sends(0, server=LOOPBACK)
    assert from_resolver(host, 1)
    assert from_resolver(host, 3, asking("WWW.example.com.", "AAAA"))
    (answered,) = host.receives(5, server=LOOPBACK)
    assert (answered.asker, answered.behalf) == (CURL, False)


def test_a_resolver_asks_on_its_own_behalf_where_nobody_asked_it_by_packet(host: Host) -> None:
    assert not from_resolver(host, 0)
    host.sends(10, server=LOOPBACK)
    assert not from_resolver(host, 11, asking("www.example.org."))
    host.receives(20, server=LOOPBACK)
    assert not from_resolver(host, 21)
    host.sends(30, server=LOOPBACK)
    assert not from_resolver(host, 5031)
    host.sends(6000, asker=RESOLVER, local_port=2)
    assert not from_resolver(host, 6001)


def test_only_a_resolver_asks_on_behalf(host: Host) -> None:
    host.sends(0, local_port=2)
    host.sends(1, asker=DIG)
    assert [(one.asker, one.behalf) for one in host.receives(2)] == [(DIG, False)]


def test_a_lookup_that_turns_to_tcp_stays_on_behalf(host: Host) -> None:
    host.sends(0, server=LOOPBACK, local_port=2)
    host.sends(1, asker=RESOLVER, by_server=True)
    host.receives(2, CUT)
    host.receives(3, server=LOOPBACK, local_port=2)
    host.sends(4, framed(QUERY), asker=RESOLVER, by_server=True, protocol="tcp")
    assert [(one.behalf, one.latency_ns) for one in host.receives(9, framed(ANSWER), protocol="tcp")] == [
        (True, 8 * MS)
    ]


def test_a_process_that_asks_much_forgets_its_own(host: Host) -> None:
    host.sends(0, asker=DIG, local_port=2)
    for number in range(1025):
        host.sends(1, numbered(QUERY, number))
    assert host.counted() == {"queries": 1026, "evicted": 1}
    assert host.exchanges.waiting == 1025
    assert host.receives(2, numbered(ANSWER, 0)) == []
    assert len(host.receives(2, numbered(ANSWER, 1))) == 1
    assert len(host.receives(2, local_port=2)) == 1


def test_where_all_is_full_who_has_some_makes_room_for_its_own() -> None:
    host = Host(most=10)
    host.sends(0, asker=DIG, local_port=2)
    for number in range(100):
        host.sends(1, numbered(QUERY, number))
    assert host.exchanges.waiting == 10
    assert [one.asker for one in host.receives(2, local_port=2)] == [DIG]
    host.sends(2, numbered(QUERY, 100))
    host.sends(3, asker=RESOLVER, local_port=3)
    assert host.counted()["evicted"] == 92
    assert [one.asker for one in host.receives(4, local_port=3)] == [RESOLVER]


def test_limits_hold_with_the_defaults(host: Host) -> None:
    for pid in range(20):
        asker = CURL._replace(process=ProcessKey(pid, 1))
        for number in range(1000):
            host.sends(0, numbered(QUERY, number), asker=asker, local_port=pid)
    assert host.exchanges.waiting == 16_384
    assert host.counted() == {"queries": 20_000, "evicted": 20_000 - 16_384}
    assert len(host.exchanges.expired(5000 * MS)) == 16_384
    assert host.is_idle()


MESSAGES = [QUERY, ANSWER, CUT, asking(kind="AAAA"), answering(QUERY, rcode="NXDOMAIN"), DAMAGED]
packets = st.tuples(
    st.integers(0, 3000),
    st.sampled_from(MESSAGES) | st.binary(max_size=80),
    st.fixed_dictionaries(
        {
            "sent": st.booleans(),
            "asker": st.sampled_from([CURL, DIG, None]),
            "protocol": st.sampled_from(["udp", "tcp"]),
            "local_port": st.integers(1, 2),
            "by_server": st.booleans(),
        }
    ),
)


@given(st.lists(packets, max_size=40))
def test_whatever_comes_every_lookup_ends_once_and_nothing_stays(sequence: list[tuple[int, bytes, Any]]) -> None:
    host = Host(most=8, most_each=6)
    exchanges = host.exchanges
    now, seq, ended = 0, 0, []
    for later, data, changed in sequence:
        now += later
        seq += 1000
        ended += host.packet(now, framed(data) if changed["protocol"] == "tcp" else data, **changed, seq=seq)
        assert exchanges.waiting <= 8
        assert exchanges.deadline is None or now * MS < exchanges.deadline <= (now + 5000) * MS
    ended += exchanges.expired((now + 5000) * MS)
    assert host.is_idle()
    assert len(ended) == exchanges.queries - exchanges.evicted
    for one in ended:
        assert one.latency_ns >= 0
        assert (one.result == "timeout") <= (one.latency_ns >= 5000 * MS)
        assert bool(one.addresses) <= (one.result in ("ok", "truncated"))
