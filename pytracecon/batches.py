"""Events as columns, for who counts millions: what `Tracer.batches()` gives, and what makes it of the ring.

    for batch in tracer.batches():
        closed = batch["close"]                        # of each kind of event, those that the batch has
        total += sum(closed["rx_bytes"])               # a memoryview; numpy.asarray(closed["rx_bytes"]) copies nothing
        lost += sum(each.count for each in batch.events if isinstance(each, Lost))

A record is copied once, from the ring to those of its kind, and a column is a view of that copy. So what stands in it
are the kernel side's numbers: 0, ::, and an empty text where something is not known; `WORDS` has the words for codes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from struct import calcsize
from typing import TYPE_CHECKING, Final, Literal, cast

from pytracecon import decode as decoding
from pytracecon import wire
from pytracecon._ring import ffi, lib
from pytracecon.builder import Builder
from pytracecon.decode import decode
from pytracecon.events import Event
from pytracecon.reader import Counts, Shown, seen
from pytracecon.ring import Batch as Taken

if TYPE_CHECKING:
    from pytracecon.names.joiner import Joiner
    from pytracecon.owners.processes import Owners
    from pytracecon.ring import Ring
    from pytracecon.translations import Translations

__all__ = ["WORDS", "Batch", "Columns", "Table"]

_STATES = decoding.STATES
WORDS: Final[Mapping[str, tuple[str | None, ...]]] = {
    "proto": decoding.PROTOCOLS,
    "direction": decoding.DIRECTIONS,
    "owner": decoding.OWNERS,
    "ended": decoding.ENDED,
    "state": _STATES,
    "old": _STATES,
    "new": _STATES,
    "segment": decoding.SEGMENTS,
    "app": decoding.APPS,
}
"""Of the columns that are codes: the word for each number, as the events have it."""

_NAMES = {
    "time": "time_ns",
    "id": "conn",
    "protocol": "proto",
    "latency": "latency_ns",
    "wait": "wait_ns",
    "duration": "duration_ns",
    "handshake": "handshake_ns",
    "rtt": "rtt_ns",
    "in_old": "in_old_ns",
    "idle": "idle_ns",
    "from": "old",
    "to": "new",
}
"""Where the events say it otherwise than the kernel side."""
_HIDDEN = {"lost", "cpu", "kind", "words", "process", "born", "syn_left"}
_ROOM = 5 << 16
"""Bytes of each kind that one batch takes at most. Python takes as long for a batch as the walk for 800 events, and
what does not fit into a CPU's own cache costs the walk more: from 256 to 512 KB it comes to the same."""
_MUCH = _ROOM >> 3
"""More than that is given away with its buffer. Less is copied, or each small batch would keep a large one."""

Part = tuple[bytes | mmap, int]
"""Records of one kind: how many of these bytes. A table is made of them when it is asked for, as that takes as long as
fetching a dozen events."""


class _Member:
    """Of a record: where it is."""

    __slots__ = ("at", "form", "size")

    def __init__(self, at: int, form: str) -> None:
        self.at = at
        self.form = form
        self.size = calcsize(f"={form}")


def _members(kind: str) -> dict[str, _Member]:
    found: dict[str, _Member] = {}
    at = 0
    for name, form in (*wire.HEADER, *wire.CONN, *wire.RECORDS[f"{kind}_event"]):
        if name not in _HIDDEN and not form.endswith("x"):
            found[_NAMES.get(name, name)] = _Member(at, form)
        at += calcsize(f"={form}")
    return found


_MEMBERS = {kind: _members(kind) for kind in wire.KINDS}
_SIZES = {kind: wire.RECORD[number].size for kind, number in wire.KINDS.items()}


class Table(Mapping[str, memoryview]):
    """The events of one kind in a batch, in their order: a column for each name, all of length `rows`.

    A column is a memoryview of unsigned numbers (`B` `H` `I` `Q`); texts and addresses are rows of sixteen bytes, in
    two dimensions.
    """

    def __init__(self, kind: str, records: bytes | memoryview) -> None:
        self.kind = kind
        self.records = memoryview(records).toreadonly()
        """The records as they are: `bpf/events.h` says how, but that `time` is the wall clock's."""
        self.rows = len(self.records) // _SIZES[kind]

    def __getitem__(self, name: str) -> memoryview:
        member, stride = _MEMBERS[self.kind][name], _SIZES[self.kind]
        if member.form.endswith("s"):
            return self._gathered(member, stride)
        column: memoryview = self.records.cast(cast("Literal['B']", member.form))
        return column[member.at // member.size :: stride // member.size]

    def __iter__(self) -> Iterator[str]:
        return iter(_MEMBERS[self.kind])

    def __len__(self) -> int:
        return len(_MEMBERS[self.kind])

    def __repr__(self) -> str:
        return f"<{self.rows} of {self.kind}: {', '.join(self)}>"

    def _gathered(self, member: _Member, stride: int) -> memoryview:
        """Views of bytes know no steps in two dimensions."""
        if not self.rows:
            return memoryview(b"")
        out = bytearray(self.rows * member.size)
        with ffi.from_buffer(self.records) as start, ffi.from_buffer(out, require_writable=True) as to:
            lib.gather(start + member.at, stride, member.size, self.rows, to)
        return memoryview(out).toreadonly().cast("B", shape=[self.rows, member.size])


class Batch(Mapping[str, Table]):
    """What was read at once: a table for each kind of event, empty where there were none, and what is no column.

    `events` are lookups and losses. Where a batch has losses, it has nothing else: it stands in their place.
    """

    def __init__(self, tables: Mapping[str, Table | Part] | None = None, events: list[Event] | None = None) -> None:
        self._tables = dict(tables or {})
        self.events = events or []
        self.count = len(self.events)
        """How many events that is."""
        for kind, found in self._tables.items():
            self.count += found[1] // _SIZES[kind] if isinstance(found, tuple) else found.rows

    def __getitem__(self, kind: str) -> Table:
        found = self._tables.get(kind)
        if isinstance(found, tuple):
            data, size = found
            found = self._tables[kind] = Table(kind, memoryview(data)[:size])
        if found is None:
            if kind not in _SIZES:
                raise KeyError(kind)
            return Table(kind, b"")
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)


class Columns:
    """The form (see `reader`) of `Tracer.batches`. `untold` kinds are left out; `shown` decides of what is decoded.

    `by_event`: it must decide of all, so that all are decoded, and columns made of those that stay.
    """

    def __init__(
        self,
        names: Joiner | None = None,
        shown: Shown | None = None,
        owners: Owners | None = None,
        translations: Translations | None = None,
        *,
        untold: frozenset[str] = frozenset(),
        by_event: bool = False,
    ) -> None:
        self._names = names
        self._shown = shown
        self._owners = owners
        self._translations = translations
        self._untold = untold
        self._by_event = by_event
        self._builder = Builder()
        self.note: Callable[[list[Event]], None] | None = None
        """Called with the events that end a connection, by whoever wants to know."""
        self._heaps = ffi.new("heap[]", len(wire.KINDS) + 1)
        self._words = memoryview(ffi.buffer(self._heaps)).cast("B").cast("L")
        """The same in numbers: to ask cffi for each takes longer than to read a hundred events."""
        self._kinds = [_Kind(name, self._words[number * _HEAP : (number + 1) * _HEAP]) for name, number in _NUMBERS]
        self._given: list[_Kind] = []
        """Of which the last batch has the buffer."""

    def walk(self, ring: Ring, offset_ns: int) -> Taken:
        if self._by_event:
            return ring.take()
        for kind in self._given:
            kind.renew()
        self._given.clear()
        return ring.sort(self._heaps, offset_ns)

    def records(self, batch: memoryview, offset_ns: int) -> tuple[list[Batch], Counts]:
        if self._owners is not None:
            self._owners.refresh()
        if self._by_event:
            parts, events, counts = self._decided(batch, offset_ns)
        else:
            parts = self._sorted()
            others = decode(batch, offset_ns, self._names, self._owners, self._translations) if len(batch) else []
            events, counts = seen(others, self._names, self._shown)
            if self._untold:
                for kind in self._untold & parts.keys():
                    counts = counts._replace(left_out=counts.left_out + parts.pop(kind)[1] // _SIZES[kind])
        made = Batch(parts, events)
        if self.note is not None:
            for kind in parts.keys() & {"close", "failed"}:
                self.note(self._builder.events(made[kind].records, 0))
        return [made] if made.count else [], counts

    def events(self, events: list[Event]) -> list[Batch]:
        return [Batch(events=events)] if events else []

    def _sorted(self) -> dict[str, Part]:
        """What the walk left on the heaps."""
        parts: dict[str, Part] = {}
        for kind, size in zip(self._kinds, self._words[_HEAP + _BYTES :: _HEAP].tolist(), strict=True):
            if size > _MUCH:
                parts[kind.name] = kind.buffer.data, size
                self._given.append(kind)
            elif size:
                parts[kind.name] = kind.buffer.data[:size], size
        return parts

    def _decided(self, batch: memoryview, offset_ns: int) -> tuple[dict[str, Part], list[Event], Counts]:
        """The slow way: each event is made, to be asked for its host and owner."""
        kept: dict[str, list[bytes]] = {}
        others: list[Event] = []
        lookups = left_out = at = 0
        while at < len(batch):
            behind = decoding.end_of(batch, at)
            made = decode(batch[at:behind], offset_ns, self._names, self._owners, self._translations)
            events, counts = seen(made, self._names, self._shown)
            lookups, left_out = lookups + counts.lookups, left_out + counts.left_out
            for event in events:
                if event.event in _SIZES:
                    head = event.time_ns.to_bytes(8, sys.byteorder)
                    kept.setdefault(event.event, []).append(head + bytes(batch[at + len(head) : behind]))
                else:
                    others.append(event)
            at = behind
        parts: dict[str, Part] = {kind: (b"".join(each), len(each) * _SIZES[kind]) for kind, each in kept.items()}
        return parts, others, Counts(lookups, left_out)


class _Kind:
    """Where the records of one kind go: into one of two buffers, as one is the user's while the other is filled."""

    __slots__ = ("_heap", "_other", "buffer", "name")

    def __init__(self, name: str, heap: memoryview) -> None:
        self.name = name
        self._heap = heap
        self._other: _Buffer | None = None
        heap[_SIZE], heap[_SPACE] = _SIZES[name], _ROOM
        self._use(_Buffer())

    def _use(self, buffer: _Buffer) -> None:
        self.buffer = buffer
        self._heap[_DATA] = buffer.address

    def renew(self) -> None:
        """The buffer was given away: go on in it if nobody looks at it any longer, since it is in the CPU's cache."""
        if self.buffer.is_free():
            return
        given, other = self.buffer, self._other
        self._use(other if other is not None and other.is_free() else _Buffer())
        self._other = given


class _Buffer:
    """Memory for a heap. None is taken before it is written to: of a bytearray all is, as the C library fills it with
    zeros where it was another's before. Private: what a child has of a batch after fork() stays as it was.
    """

    __slots__ = ("_pinned", "address", "data")

    def __init__(self) -> None:
        self.data = mmap(-1, _ROOM, flags=MAP_PRIVATE | MAP_ANONYMOUS)
        self._pinned = ffi.from_buffer(self.data, require_writable=True)
        self.address = int(ffi.cast("uintptr_t", self._pinned))

    def is_free(self) -> bool:
        return sys.getrefcount(self.data) == _UNUSED


_NUMBERS = sorted(wire.KINDS.items(), key=lambda kind: kind[1])
_WORD = ffi.sizeof("unsigned long")
_HEAP = ffi.sizeof("heap") // _WORD
_DATA, _SPACE, _SIZE, _BYTES = (ffi.offsetof("heap", name) // _WORD for name in ("data", "room", "size", "bytes"))
_UNUSED = 3
"""References to the data that nobody looks at: their owner's, that of the pin, and the one that counts them."""
