"""Messages are built by dnspython, and by hand where it refuses to; dnspython also says what the truth is."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise
from typing import SupportsIndex

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytracecon.names.dns.message import MOST_RECORDS, Malformed, Message, parse

MAPPED = bytes(10) + b"\xff\xff"
WWW = b"\x03www\x07example\x03com\x00"
TO_QUESTION = b"\xc0\x0c"


def packed(*addresses: str) -> tuple[bytes, ...]:
    return tuple(IPv6Address(a).packed if ":" in a else MAPPED + IPv4Address(a).packed for a in addresses)


def query(name: str = "www.example.com", kind: str = "A") -> dns.message.QueryMessage:
    return dns.message.make_query(name, kind, use_edns=0, id=4711)


def answer(*records: str, name: str = "www.example.com", kind: str = "A", rcode: int = 0, flags: int = 0) -> bytes:
    """Records are written as in a zone file: owner, TTL, type, data."""
    response = dns.message.make_response(query(name, kind))
    for record in records:
        owner, ttl, of, data = record.split(maxsplit=3)
        response.answer.append(dns.rrset.from_text(owner, int(ttl), "IN", of, data))
    response.set_rcode(dns.rcode.Rcode.make(rcode))
    response.flags |= flags
    return response.to_wire()


def by_hand(question: bytes, *records: bytes, flags: int = 0x8180, counts: tuple[int, ...] = ()) -> bytes:
    header = struct.pack("!6H", 4711, flags, *(counts or (1, len(records), 0, 0)))
    return header + question + b"\0\1\0\1" + b"".join(records)


def record(owner: bytes, kind: int, data: bytes, *, ttl: int = 60, family: int = 1, size: int | None = None) -> bytes:
    return owner + struct.pack("!2HIH", kind, family, ttl, len(data) if size is None else size) + data


@pytest.mark.parametrize("kind", ["A", "AAAA", "HTTPS", "SVCB", "TXT", "ANY", "AXFR", "CAA", "TYPE65280"])
def test_a_query_tells_name_and_type(kind: str) -> None:
    assert parse(query("WwW.Example.COM.", kind).to_wire()) == Message(
        4711, answer=False, truncated=False, rcode="NOERROR", name="www.example.com", type=kind
    )


@pytest.mark.parametrize(
    ("labels", "shown"),
    [
        ([], "."),
        ([b"com"], "com"),
        ([b"_sip", b"_tcp", b"Example-1", b"ORG"], "_sip._tcp.example-1.org"),
        ([b"xn--bcher-kva", b"example"], "xn--bcher-kva.example"),
        ([b"a.b", b"com"], "a\\.b.com"),
        ([b"a\0b\n\x1b]52;c;cm0=\x07"], "a\\000b\\010\\027]52\\;c\\;cm0=\\007"),
        (["bücher".encode(), b"\x9b31m"], "b\\195\\188cher.\\15531m"),
        ([b'"(a) $b\\c@;'], '\\"\\(a\\)\\032\\$b\\\\c\\@\\;'),
        ([b"x" * 63] * 3 + [b"y" * 61], ".".join(["x" * 63] * 3 + ["y" * 61])),
    ],
)
def test_a_name_is_shown_lower_cased_and_escaped(labels: list[bytes], shown: str) -> None:
    wire = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    assert parse(by_hand(wire, flags=0x0100)).name == shown


@given(st.lists(st.binary(min_size=1, max_size=63), max_size=20).filter(lambda labels: sum(map(len, labels)) < 230))
def test_any_name_is_shown_as_dnspython_does(labels: list[bytes]) -> None:
    wire = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    shown = parse(by_hand(wire, flags=0x0100)).name
    assert shown == dns.name.Name([label.lower() for label in labels] + [b""]).to_text(omit_final_dot=True)
    assert shown.isascii() and shown.isprintable()


def test_a_name_of_256_bytes_is_none() -> None:
    with pytest.raises(Malformed, match="longer than 255"):
        parse(by_hand(b"\x3f".join([b"", *[b"x" * 63] * 3]) + b"\x3e" + b"y" * 62 + b"\0"))


@pytest.mark.parametrize(
    ("records", "addresses", "ttl"),
    [
        (["www.example.com. 300 A 192.0.2.1"], ["192.0.2.1"], 300),
        (["www.example.com. 9 A 192.0.2.3", "www.example.com. 7 A 192.0.2.1"], ["192.0.2.3", "192.0.2.1"], 7),
        (["WWW.eXample.com. 5 A 192.0.2.1"], ["192.0.2.1"], 5),
        (["www.example.com. 30 CNAME a.net.", "a.net. 60 A 192.0.2.1"], ["192.0.2.1"], 30),
        (["www.example.com. 90 CNAME A.net.", "a.NET. 60 A 192.0.2.1"], ["192.0.2.1"], 60),
        (["b.org. 3 A 192.0.2.1", "a.net. 2 CNAME b.org.", "www.example.com. 4 CNAME a.net."], ["192.0.2.1"], 2),
        (["www.example.com. 3 CNAME com.", "com. 3 A 192.0.2.1"], ["192.0.2.1"], 3),
        (["www.example.com. 3 CNAME .", ". 3 A 192.0.2.1"], ["192.0.2.1"], 3),
        (["example.com. 50 DNAME example.net.", "www.example.net. 60 A 192.0.2.1"], ["192.0.2.1"], 50),
        (
            [
                "example.com. 50 DNAME example.net.",
                "www.example.com. 40 CNAME www.example.net.",
                "www.example.net. 60 A 192.0.2.1",
            ],
            ["192.0.2.1"],
            40,
        ),
    ],
)
def test_addresses_are_those_that_the_name_leads_to(records: list[str], addresses: list[str], ttl: int) -> None:
    message = parse(answer(*records))
    assert (message.addresses, message.ttl, message.malformed) == (packed(*addresses), ttl, False)


@pytest.mark.parametrize(
    "records",
    [
        ["bank.example. 300 A 192.0.2.66"],
        ["www.example.com. 300 CNAME a.net.", "b.net. 300 A 192.0.2.66"],
        ["a.net. 300 CNAME www.example.com.", "a.net. 300 A 192.0.2.66"],
        ["www.example.com. 300 AAAA 2001:db8::66"],
        ["www.example.com. 3 CNAME a.net.", "a.net. 3 CNAME www.example.com.", "b.net. 3 A 192.0.2.66"],
        ["www.example.com. 3 DNAME a.net.", "a.net. 3 A 192.0.2.66"],
        ["ww.example.com. 3 DNAME a.net.", "a.net. 3 A 192.0.2.66"],
        ["www.example.com. 300 TXT 192.0.2.66"],
    ],
)
def test_no_other_record_gives_an_address(records: list[str]) -> None:
    message = parse(answer(*records))
    assert (message.addresses, message.ttl, message.malformed) == ((), None, False)


def test_an_address_of_another_class_is_none() -> None:
    message = parse(by_hand(WWW, record(TO_QUESTION, 1, b"\xc0\0\2\1", family=3)))
    assert (message.addresses, message.malformed) == ((), False)


def test_a_subtree_alias_that_makes_a_name_too_long_leads_nowhere() -> None:
    long_name = b"".join(b"\x3f" + bytes([letter]) * 63 for letter in b"abc") + b"\x3d" + b"d" * 61 + b"\0"
    message = parse(
        by_hand(WWW, record(b"\3com\0", 39, long_name), record(b"\3www\7example" + long_name[1:], 1, b"\xc0\0\2\1"))
    )
    assert message.addresses == ()


def test_addresses_of_both_kinds_answer_a_question_for_any() -> None:
    records = ["www.example.com. 3 AAAA 2001:db8::1", "www.example.com. 3 A 192.0.2.1"]
    assert parse(answer(*records, kind="ANY")).addresses == packed("2001:db8::1", "192.0.2.1")


def test_a_ttl_with_the_highest_bit_is_0() -> None:
    assert parse(by_hand(WWW, record(TO_QUESTION, 1, b"\xc0\0\2\1", ttl=1 << 31))).ttl == 0


letters = st.sampled_from(["a", "b", "C", "d.e", "long-label.with.more"])


@given(st.lists(letters, unique_by=str.lower, min_size=1), st.permutations(range(8)), st.integers(1, 1000))
def test_a_chain_in_any_order_is_followed_as_dnspython_follows_it(names: list[str], order: list[int], ttl: int) -> None:
    chain = [f"{name}.example.com." for name in names]
    links = [f"{a} {ttl + at} CNAME {b}" for at, (a, b) in enumerate(pairwise(chain))]
    records = [*links, f"{chain[-1]} {ttl + 3} A 192.0.2.1", f"{chain[-1]} {ttl + 3} A 192.0.2.2"]
    shuffled = [records[at] for at in order if at < len(records)]
    wire = answer(*shuffled, name=chain[0])
    truth = dns.message.from_wire(wire)
    assert isinstance(truth, dns.message.QueryMessage)
    resolved = truth.resolve_chaining()
    assert resolved.answer is not None
    message = parse(wire)
    assert message.addresses == packed(*(item.address for item in resolved.answer))
    assert message.ttl == resolved.minimum_ttl


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        (0, "NOERROR"), (1, "FORMERR"), (2, "SERVFAIL"), (3, "NXDOMAIN"), (4, "NOTIMP"), (5, "REFUSED"),
        (9, "NOTAUTH"), (12, "12"), (16, "BADVERS"), (23, "BADCOOKIE"), (3841, "3841"),
    ],
)  # fmt: skip
def test_result_codes_have_names_those_of_edns_too(code: int, shown: str) -> None:
    assert parse(answer(rcode=code)).rcode == shown


def test_the_extended_result_code_is_found_behind_other_records() -> None:
    response = dns.message.make_response(query())
    response.authority.append(dns.rrset.from_text("example.com.", 3, "IN", "NS", "a.example.net."))
    response.additional.append(dns.rrset.from_text("a.example.net.", 3, "IN", "A", "192.0.2.66"))
    response.set_rcode(dns.rcode.BADVERS)
    message = parse(response.to_wire())
    assert (message.rcode, message.addresses) == ("BADVERS", ())


def test_what_only_looks_like_edns_changes_no_result() -> None:
    fake = record(b"\0", 41, b"", ttl=1 << 24)
    assert parse(by_hand(WWW, fake, GOOD, counts=(1, 0, 1, 1))).rcode == "NOERROR"
    assert parse(by_hand(WWW, fake, counts=(1, 1, 0, 0))).rcode == "NOERROR"
    assert parse(by_hand(WWW, fake, counts=(1, 0, 0, 1))).rcode == "BADVERS"


def test_a_truncated_answer_gives_what_it_has() -> None:
    wire = answer("www.example.com. 300 A 192.0.2.1", "www.example.com. 300 A 192.0.2.2", flags=dns.flags.TC)
    assert parse(wire).truncated
    cut = wire[: wire.index(b"\xc0\0\2\2") + 2]
    assert parse(cut).addresses == packed("192.0.2.1")
    assert not parse(cut).malformed


def test_of_a_very_long_answer_the_beginning_counts() -> None:
    records = [record(TO_QUESTION, 1, struct.pack("!I", number)) for number in range(MOST_RECORDS + 1)]
    message = parse(by_hand(WWW, *records))
    assert message.partial
    assert message.addresses == tuple(MAPPED + struct.pack("!I", number) for number in range(MOST_RECORDS))
    assert not parse(by_hand(WWW, *records[1:])).partial


@pytest.mark.parametrize(
    ("wire", "what"),
    [
        (b"", "no header"),
        (bytes(11), "no header"),
        (by_hand(WWW)[:-1], "does not end"),
        (by_hand(WWW)[:20], "does not end"),
        (by_hand(b"\xc0\x0c"), "points to nothing before it"),
        (by_hand(b"\x01a\xc0\x0c"), "points to nothing before it"),
        (by_hand(b"\xc0\x00"), "points to nothing before it"),
        (by_hand(b"\xc0\x20"), "points to nothing before it"),
        (by_hand(b"\x01a\x40b\x00"), "unknown kind"),
        (by_hand(b"\x80\x00"), "unknown kind"),
        (by_hand(WWW, counts=(2, 0, 0, 0)), "2 questions"),
    ],
)
def test_a_message_without_a_readable_question_is_refused(wire: bytes, what: str) -> None:
    with pytest.raises(Malformed, match=what) as refused:
        parse(wire)
    assert isinstance(refused.value, ValueError)


GOOD = record(TO_QUESTION, 1, b"\xc0\0\2\1")


@pytest.mark.parametrize(
    "wire",
    [
        by_hand(WWW, GOOD, counts=(1, 2, 0, 0)),
        by_hand(WWW, GOOD, counts=(1, 65535, 65535, 65535)),
        by_hand(WWW, GOOD)[:-1],
        by_hand(WWW, record(TO_QUESTION, 1, b"\xc0\0\2\1", size=65535)),
        by_hand(WWW, record(TO_QUESTION, 1, b"\xc0\0\2")),
        by_hand(WWW, record(TO_QUESTION, 28, b"\xc0\0\2\1")),
        by_hand(WWW, record(TO_QUESTION, 5, b"\3net\0\0")),
        by_hand(WWW, record(TO_QUESTION, 5, b"\3net\0", size=4)),
        by_hand(WWW, record(TO_QUESTION, 5, b"\xc0\x2d"), GOOD),
        by_hand(WWW, record(b"\xc0\x21", 1, b"\xc0\0\2\1")),
        by_hand(WWW, record(b"\x01a\xc0\xff", 1, b"\xc0\0\2\1")),
    ],
)
def test_a_damaged_answer_still_tells_the_question(wire: bytes) -> None:
    message = parse(wire)
    assert message.malformed
    assert (message.name, message.type, message.addresses, message.ttl) == ("www.example.com", "A", (), None)


def test_damage_behind_the_answer_section_is_no_matter() -> None:
    message = parse(by_hand(WWW, GOOD, b"\xc0", counts=(1, 1, 1, 9)))
    assert (message.malformed, message.addresses) == (False, packed("192.0.2.1"))


@pytest.mark.parametrize(
    "wire",
    [
        by_hand(WWW, flags=0x2800),
        by_hand(b"", flags=0x8181, counts=(0, 0, 0, 0)),
        struct.pack("!6H", 4711, 0x0100, 1, 0, 0, 0) + b"\7version\4bind\0\0\x10\0\3",
    ],
    ids=["update", "no question", "class CH"],
)
def test_what_asks_for_no_name_has_none(wire: bytes) -> None:
    message = parse(wire)
    assert (message.id, message.name, message.type) == (4711, None, None)


def test_the_largest_name_is_compressed_label_by_label() -> None:
    wire, target = b"\x01a\0", 12
    records: list[bytes] = []
    for _ in range(126):
        owner = b"\x01a" + struct.pack("!H", 0xC000 | target)
        target = 12 + len(wire) + 4 + sum(map(len, records))
        records.append(record(owner, 16, b""))
    records.append(record(struct.pack("!H", 0xC000 | target), 1, b"\xc0\0\2\1"))
    message = parse(by_hand(wire, *records))
    assert (message.malformed, message.addresses) == (False, ())
    records.insert(-1, record(b"\x01a" + struct.pack("!H", 0xC000 | target), 16, b""))
    assert parse(by_hand(wire, *records)).malformed


def test_of_pointers_that_lead_to_pointers_127_are_followed() -> None:
    begin = 12 + len(WWW) + 4 + 11
    chain = TO_QUESTION + b"".join(struct.pack("!H", 0xC000 | begin + at * 2) for at in range(127))
    for at, malformed in ((126, False), (127, True)):
        owner = struct.pack("!H", 0xC000 | begin + at * 2)
        message = parse(by_hand(WWW, record(b"\0", 16, chain), record(owner, 1, b"\xc0\0\2\1")))
        assert message.malformed == malformed
        assert message.addresses == (() if malformed else packed("192.0.2.1"))


class Counted(bytes):
    """Knows how often it was looked at."""

    looks = 0

    def __getitem__(self, at: SupportsIndex | slice) -> int | bytes:  # type: ignore[override]
        type(self).looks += 1
        return super().__getitem__(at)


def chains() -> bytes:
    """Pointers to pointers, as far down as there is room."""
    chain = b"".join(struct.pack("!H", 0xC000 | max(at - 2, 12)) for at in range(44, 15000, 2))
    owners = [struct.pack("!H", 0xC000 | at) for at in range(14_900, 13_900, -2)]
    return by_hand(WWW, record(b"\0", 16, chain), *[record(owner, 5, owner) for owner in owners])


def ladders() -> bytes:
    """Names of 127 labels, each entered at each of its labels."""
    ladder = (b"\x01a" * 126 + b"\0") * 10
    owners = [struct.pack("!H", 0xC000 | 44 + block * 253 + label * 2) for block in range(10) for label in range(50)]
    return by_hand(WWW, record(b"\0", 16, ladder), *[record(owner, 5, owner) for owner in owners])


@pytest.mark.parametrize("build", [chains, ladders])
def test_a_message_made_to_cost_time_costs_no_more_than_its_length(build: Callable[[], bytes]) -> None:
    wire = Counted(build())
    Counted.looks = 0
    parse(wire)
    assert 100 < Counted.looks < 8 * len(wire)


def check(message: Message) -> None:
    """What holds of every message, whatever it was made of."""
    for shown in (message.name, message.type, message.rcode):
        assert shown is None or (shown.isascii() and shown.isprintable() and shown)
    assert (message.name is None) == (message.type is None)
    assert all(len(address) == 16 for address in message.addresses)
    assert len(message.addresses) <= MOST_RECORDS
    assert (message.ttl is None) == (not message.addresses)
    assert not (message.malformed and message.addresses)


def try_to_parse(wire: bytes) -> Message | None:
    try:
        message = parse(wire)
    except Malformed:
        return None
    check(message)
    return message


@given(st.binary(max_size=600))
def test_arbitrary_bytes_do_no_harm(wire: bytes) -> None:
    try_to_parse(wire)


@given(st.binary(max_size=300), st.integers(0, 9), st.integers(0, 9))
def test_arbitrary_records_do_no_harm(tail: bytes, answers: int, others: int) -> None:
    message = try_to_parse(by_hand(WWW, tail, counts=(1, answers, others, others)))
    assert message is not None and message.name == "www.example.com"


USUAL = [
    query().to_wire(),
    answer("www.example.com. 300 A 192.0.2.1", "www.example.com. 300 A 192.0.2.2"),
    answer("www.example.com. 30 CNAME web.example.net.", "web.example.net. 60 AAAA 2001:db8::1", kind="AAAA"),
    answer("example.com. 50 DNAME example.net.", "www.example.net. 60 A 192.0.2.1"),
    answer(rcode=3),
]


@given(st.sampled_from(USUAL), st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_message_with_bytes_changed_does_no_harm(wire: bytes, changes: list[tuple[int, int]]) -> None:
    changed = bytearray(wire)
    for at, value in changes:
        changed[at % len(wire)] = value
    try_to_parse(bytes(changed))


@pytest.mark.parametrize("wire", USUAL)
def test_a_message_cut_anywhere_is_told_as_far_as_the_question_goes(wire: bytes) -> None:
    whole = parse(wire)
    question_end = 12 + len(WWW) + 4
    for size in range(len(wire)):
        message = try_to_parse(wire[:size])
        assert (message is None) == (size < question_end)
        if message is not None:
            assert (message.name, message.type) == (whole.name, whole.type)
            assert message.malformed or message.addresses == whole.addresses


def test_usual_messages_need_no_dnspython() -> None:
    code = (
        "import sys; from pytracecon.names.dns import exchange, message\n"
        f"for wire in {USUAL!r}: message.parse(wire)\n"
        "sys.exit(sorted(name for name in sys.modules if name.partition('.')[0] == 'dns').__repr__() "
        "if 'dns' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
