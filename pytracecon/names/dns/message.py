"""One DNS message, from its bytes to what a lookup is told by: RFC 1035, with the result codes of EDNS (RFC 6891).

Of an answer only the path counts that leads from the question's name through CNAME and DNAME records to addresses:
any other record may be there to poison somebody. What follows the answer section is looked at for EDNS alone, and
damage there is no matter, as it is none to those who asked. Work is bounded by the message's size.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

from pytracecon.names.dns.name import Malformed, behind, read, text

__all__ = ["Malformed", "Message", "parse"]

MOST_RECORDS = 512
"""Looked at in one message; a larger set of addresses is `partial`."""
MOST_ALIASES = 64
"""Followed from the question's name. Resolvers give up after 8 to 16."""

_HEADER = struct.Struct("!6H")
_QUESTION = struct.Struct("!2H")
_RECORD = struct.Struct("!2HIH")
_IS_ANSWER, _OPCODE, _TRUNCATED = 0x8000, 0x7800, 0x0200
_IN = 1
_A, _CNAME, _AAAA, _DNAME, _OPT, _ANY = 1, 5, 28, 39, 41, 255
_ALIASES = frozenset((_CNAME, _DNAME))
_SIZES = {_A: 4, _AAAA: 16}
_ADDRESSES_FOR = {_A: (_A,), _AAAA: (_AAAA,), _ANY: (_A, _AAAA)}
_MAPPED = bytes(10) + b"\xff\xff"
# What most messages have; dnspython has all the others.
_TYPES = {
    1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV", 35: "NAPTR",
    43: "DS", 48: "DNSKEY", 64: "SVCB", 65: "HTTPS", 252: "AXFR", 255: "ANY",
}  # fmt: skip
_RCODES = ("NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED")


@dataclass(slots=True)
class Message:
    """A query, or an answer to one."""

    id: int
    answer: bool
    truncated: bool
    """TC: the whole answer is to be had over TCP."""
    rcode: str
    """Its name, or its number where it has none."""
    name: str | None = None
    """What is asked for, lower-cased, escaped, without the dot at the end. None where nothing is: no question, one of
    another class than IN, or no query at all but an update, a notification…"""
    type: str | None = None
    addresses: tuple[bytes, ...] = ()
    """Those that the name leads to, sixteen bytes each, in the answer's order."""
    ttl: int | None = None
    """The smallest on the way to the addresses."""
    partial: bool = False
    """It has more records than are looked at."""
    malformed: bool = False
    """The question can be read, the answer cannot."""


def parse(wire: bytes) -> Message:
    """The message; of a query what precedes its first record. Raises Malformed where not even a question is read."""
    try:
        identity, flags, questions, *counts = _HEADER.unpack_from(wire)
    except struct.error:
        raise Malformed(f"a message of {len(wire)} bytes has no header: it needs 12") from None
    message = Message(identity, flags >= _IS_ANSWER, flags & _TRUNCATED != 0, _rcode(flags & 15))
    if flags & _OPCODE or not questions:
        return message
    if questions > 1:
        raise Malformed(f"{questions} questions in a message: one is allowed")
    known: dict[int, bytes] = {}
    try:
        name, at = read(wire, 12, known)
        kind, family = _QUESTION.unpack_from(wire, at)
    except (IndexError, struct.error):
        raise Malformed(f"the question does not end within the message's {len(wire)} bytes") from None
    if family != _IN:
        return message
    message.name = text(name)
    message.type = _TYPES.get(kind) or _rare_type(kind)
    if message.answer:
        _Reader(wire, at + 4, known).tell(message, name, kind, *counts)
    return message


class _Reader:
    """Goes through the records of one answer once and keeps those that may matter."""

    __slots__ = ("addresses", "aliases", "at", "known", "subtrees", "wire")

    def __init__(self, wire: bytes, at: int, known: dict[int, bytes]) -> None:
        self.wire = wire
        self.at = at
        self.known = known
        self.addresses: list[tuple[bytes, bytes, int]] = []
        self.aliases: dict[bytes, tuple[bytes, int]] = {}
        self.subtrees: dict[bytes, tuple[bytes, int]] = {}

    def tell(self, message: Message, name: bytes, kind: int, answers: int, authorities: int, additional: int) -> None:
        """Fill in what the answer to a question for `name` says."""
        message.partial = answers > MOST_RECORDS
        try:
            self.read_answers(min(answers, MOST_RECORDS), _ADDRESSES_FOR.get(kind, ()))
        except (Malformed, IndexError, struct.error):
            message.malformed = not message.truncated  # a truncated one may end anywhere
            whole = False
        else:
            whole = not message.partial
        if not message.malformed:
            self.follow(message, name)
        if whole and additional and authorities + additional <= MOST_RECORDS:
            high = self.extended_rcode(authorities, additional)
            if high:
                message.rcode = _rcode(high << 4 | self.wire[3] & 15)

    def read_answers(self, count: int, wanted: tuple[int, ...]) -> None:
        wire, known, at = self.wire, self.known, self.at
        size = len(wire)
        for _ in range(count):
            owner, at = read(wire, at, known)
            kind, family, ttl, length = _RECORD.unpack_from(wire, at)
            data = at + 10
            at = data + length
            if at > size:
                raise Malformed(f"a record ends {at - size} bytes behind the message")
            if family != _IN:
                continue
            if ttl > 0x7FFFFFFF:
                ttl = 0  # RFC 2181, 8
            if kind in _ALIASES:
                target, end = read(wire, data, known)
                if end != at:
                    raise Malformed(f"the name at {data} does not fill its record")
                (self.aliases if kind == _CNAME else self.subtrees).setdefault(owner, (target, ttl))
            elif kind in _SIZES:
                if length != _SIZES[kind]:
                    raise Malformed(f"an address of {length} bytes")
                if kind in wanted:
                    address = wire[data:at]
                    self.addresses.append((owner, _MAPPED + address if kind == _A else address, ttl))
        self.at = at

    def follow(self, message: Message, name: bytes) -> None:
        """From alias to alias; an address counts wherever on this path it stands."""
        if not self.addresses:
            return
        path = {name}
        ttls = []
        for _ in range(MOST_ALIASES):
            alias = self.aliases.get(name) or (self.alias_of_subtree(name) if self.subtrees else None)
            if alias is None:
                break
            name, ttl = alias
            path.add(name)
            ttls.append(ttl)
        found = [record for record in self.addresses if record[0] in path]
        if found:
            message.addresses = tuple([address for _, address, _ in found])
            message.ttl = min([ttl for _, _, ttl in found] + ttls)

    def alias_of_subtree(self, name: bytes) -> tuple[bytes, int] | None:
        """What a DNAME makes of a name below its owner (RFC 6672). Servers mostly add the CNAME; they need not."""
        at = 0
        while at < len(name):
            at += name[at] + 1
            found = self.subtrees.get(name[at:])
            if found is not None:
                target, ttl = found
                return (name[:at] + target, ttl) if at + len(target) < 255 else None
        return None

    def extended_rcode(self, authorities: int, additional: int) -> int:
        """The upper eight bits of the result code: in the TTL of EDNS's record, if there is one."""
        wire, at = self.wire, self.at
        try:
            for index in range(authorities + additional):
                at = behind(wire, at)
                kind, _, ttl, length = _RECORD.unpack_from(wire, at)
                if kind == _OPT and index >= authorities:
                    return int(ttl >> 24)
                at += 10 + length
        except (Malformed, IndexError, struct.error):
            return 0
        return 0


def _rcode(number: int) -> str:
    return _RCODES[number] if number < len(_RCODES) else _rare_rcode(number)


@lru_cache(maxsize=256)
def _rare_rcode(number: int) -> str:
    from dns import rcode  # noqa: PLC0415 - 14 ms

    return str(rcode.to_text(rcode.Rcode.make(number)))


@lru_cache(maxsize=256)
def _rare_type(number: int) -> str:
    from dns import rdatatype  # noqa: PLC0415 - 10 ms

    return str(rdatatype.to_text(rdatatype.RdataType.make(number)))
