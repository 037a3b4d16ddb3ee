"""One DNS message, as a packet brings it: any bytes are one, or `Malformed`."""

from __future__ import annotations

from pytracecon.names.dns.message import MOST_RECORDS, Malformed, parse
from unit.test_dns_message import answer, by_hand, query, record


def seeds() -> list[bytes]:
    www = b"\x03www\x07example\x03com\x00"
    return [
        query().to_wire(),
        query("_sip._tcp.example.org", "SRV").to_wire(),
        answer("www.example.com. 60 A 192.0.2.1", "www.example.com. 60 A 192.0.2.2"),
        answer("www.example.com. 60 CNAME edge.example.net.", "edge.example.net. 5 AAAA 2001:db8::1", kind="AAAA"),
        answer("example.com. 60 DNAME example.net.", "www.example.net. 60 A 192.0.2.1"),
        answer(rcode=3),
        answer(rcode=16),
        by_hand(www, record(b"\xc0\x0c", 5, b"\x04edge\xc0\x10"), record(b"\xc0\x2d", 1, b"\x7f\0\0\1")),
    ]


def run(data: bytes) -> None:
    try:
        message = parse(data)
    except Malformed as error:
        assert str(error).isprintable()
        return
    assert message.rcode.isprintable()
    assert message.name is None or (message.name.isascii() and message.name.isprintable())
    assert message.type is None or message.type.isalnum() or message.type.isprintable()
    assert len(message.addresses) <= MOST_RECORDS
    assert {len(address) for address in message.addresses} <= {16}
    assert (message.ttl is None) == (not message.addresses)
