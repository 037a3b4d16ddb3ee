"""What the kernel side tells: of the right size and kind each, and with anything where others choose what stands there.

The C path to JSON lines must write the very bytes of the Python path, and what C builds must be what Python makes;
names, owners and translations take all of it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence

from fuzz.source import Source
from pytracecon import decode as decoding
from pytracecon import wire
from pytracecon.builder import Builder
from pytracecon.clock import SECOND
from pytracecon.decode import address, decode
from pytracecon.filters import Filters
from pytracecon.json_lines import Json, joined
from pytracecon.names.joiner import Joiner
from pytracecon.outputs.json_lines import JsonLines
from pytracecon.owners.processes import Owners
from pytracecon.owners.runtimes import Runtimes
from pytracecon.translations import Translations
from unit.test_dns_exchange import answering, asking
from unit.test_hello import FLIGHT
from unit.test_quic import EXAMPLE, protected
from unit.test_render import plain

NOW = 1_795_166_000 * SECOND
_MOST = 8
_LATEST = 1 << 60
_HEAD = wire.layout(wire.HEADER)
_WORDS = {
    "direction": len(decoding.DIRECTIONS),
    "owner": len(decoding.OWNERS),
    "state": len(decoding.STATES),
    "from": len(decoding.STATES),
    "to": len(decoding.STATES),
    "ended": len(decoding.ENDED),
    "segment": len(decoding.SEGMENTS),
    "app": len(decoding.APPS),
    "resolver": len(wire.RESOLVERS),
    "count": wire.ADDRESSES + 1,
}
"""How many words there are for a number: the kernel side knows no others."""
_LENGTHS = {"message": ("length",), "hello": ("length",), "image": ("path", "args"), "group": ("length",)}
"""Numbers of bytes behind what is fixed."""


class Shape:
    """Of one kind of record, without its header."""

    def __init__(self, name: str, number: int, members: tuple[wire.Field, ...]) -> None:
        self.number = number
        self.size = wire.layout(members).size
        self.words: list[tuple[int, Sequence[int]]] = []
        self.lengths: list[tuple[int, str]] = []
        at = 0
        for field, form in members:
            if field in _WORDS and form == "B":
                self.words.append((at, range(_WORDS[field])))
            elif name == "lookup" and field == "pid":
                self.words.append((at, range(1, 256)))  # a libc is called by a process
            elif field == "protocol":
                self.words.append((at, range(1, len(decoding.PROTOCOLS))))
            elif field in _LENGTHS.get(name, ()):
                self.lengths.append((at, form))
            elif field == "transport":
                self.words.append((at, (6, 17)))
            at += struct.calcsize(f"={form}")

    def record(self, source: Source, time: int) -> bytes:
        body = bytearray(source.take(self.size).ljust(self.size, b"\0"))
        for at, known in self.words:
            body[at] = known[body[at] % len(known)]
        behind, room = b"", wire.LARGEST_RECORD - _HEAD.size - self.size
        for at, form in self.lengths:
            (length,) = struct.unpack_from(f"={form}", body, at)
            piece = source.take(min(length, room // len(self.lengths)))
            struct.pack_into(f"={form}", body, at, len(piece))
            behind += piece
        body += behind + bytes(-(len(body) + len(behind)) % 8)
        return _HEAD.pack(time, 0, 0, self.number, (_HEAD.size + len(body)) // 8) + body


def _shapes() -> list[Shape]:
    shapes = [Shape(name, at, (*wire.CONN, *wire.RECORDS[f"{name}_event"])) for name, at in wire.KINDS.items()]
    shapes += [Shape(name, at, wire.NAME_RECORDS[f"{name}_event"]) for name, at in wire.NAME_KINDS.items()]
    shapes += [Shape(name, at, wire.OWNER_RECORDS[f"{name}_event"]) for name, at in wire.OWNER_KINDS.items()]
    shapes.append(Shape("translation", wire.TRANSLATION_KIND, wire.TRANSLATION))
    return [*shapes, Shape("beginning", wire.BEGINNING_KIND, wire.CONN)]


SHAPES = _shapes()


def batch_of(data: bytes) -> bytes:
    """Whole records, as the bytes say."""
    source, records, time = Source(data), list[bytes](), 0
    while source and len(records) < _MOST:
        shape = SHAPES[source.number(1) % len(SHAPES)]
        time = min(time + (source.number(2) << 20), _LATEST)
        records.append(shape.record(source, time))
    return b"".join(records)


def _seed(*records: tuple[str, bytes]) -> bytes:
    names = [*wire.KINDS, *wire.NAME_KINDS, *wire.OWNER_KINDS, "translation", "beginning"]
    return b"".join(bytes((names.index(name), 0, 1)) + body for name, body in records)


def _name_record(name: str, behind: bytes = b"", /, **values: int | bytes) -> tuple[str, bytes]:
    table = {**wire.NAME_RECORDS, **wire.OWNER_RECORDS, "translation_event": wire.TRANSLATION}
    members = [(field, form) for field, form in table[f"{name}_event"] if not form.endswith("x")]
    values = {field: b"" if form.endswith("s") else 1 for field, form in members} | values
    shape = wire.layout(table[f"{name}_event"])
    return name, shape.pack(*(values[field] for field, _ in members)) + behind


def seeds() -> list[bytes]:
    edge = bytes(10) + b"\xff\xff\xc0\x00\x02\x01"
    own: dict[str, int | bytes] = {"pid": 1, "tid": 1, "born": 1, "cgroup": 1, "comm": b"curl", "uid": 0}
    lookup = _name_record("lookup", name=b"www.example.com", addresses=edge, flags=1, code=0, **own)
    question = asking()
    answer = answering(question, "www.example.com. 60 A 192.0.2.1")

    def message(data: bytes, flags: int) -> tuple[str, bytes]:
        values: dict[str, int | bytes] = {"length": len(data), "size": len(data), "at": 0, "transport": 1}
        return _name_record("message", data, flags=flags, **values, **own)

    def hello(data: bytes, protocol: int) -> tuple[str, bytes]:
        return _name_record("hello", data, at=0, length=len(data), remote_addr=edge, protocol=protocol, **own)

    def event(kind: str) -> tuple[str, bytes]:
        return kind, plain(kind, remote_addr=edge, comm=b"curl", direction=1, **{"from": 7, "to": 2})[_HEAD.size :]

    group = b"/docker/" + b"a" * 64
    image = _name_record("image", b"curl\0bin\0usr\0curl\0-s\0", path=13, args=8, args_cut=0)
    return [
        *(_seed(event(kind)) for kind in wire.KINDS),
        _seed(lookup, event("connect"), event("established"), event("close")),
        _seed(message(question, 33), message(answer, 1), event("connect"), event("retransmit")),
        _seed(hello(FLIGHT[:700], 1), event("connect")),
        _seed(hello(protected(EXAMPLE), 3), event("flow")),
        _seed(image, _name_record("process"), _name_record("group", group, length=len(group)), event("accept")),
        _seed(_name_record("translation", asked=edge, real=edge), event("connect"), event("close")),
        _seed(("beginning", event("connect")[1]), event("flow"), _name_record("program")),
    ]


JSON, LINES, BUILDER = Json(), JsonLines(), Builder()
FILTERS = Filters(events=frozenset({*wire.KINDS, "lookup"}))


def run(data: bytes) -> None:
    batch = batch_of(data)
    made, _ = JSON.records(memoryview(batch), NOW)
    reference = decode(batch, NOW)
    assert joined(made).data == b"".join(piece for piece, _ in LINES.render(reference))
    assert BUILDER.events(batch, NOW) == reference
    owners = Owners(lambda named: Runtimes(named, sockets=(), users="/nowhere"))
    try:
        names = Joiner(FILTERS, address, lambda _: None, owners)
        events = decode(batch, NOW, names, owners, Translations(address))
        for piece, _ in LINES.render(events):
            for line in piece.splitlines():
                json.loads(line)
    finally:
        owners.close()
