"""Records as JSON lines without a Python object for each: `json_lines.c`, given the words that are written in Python.

What a line looks like is said by `decode` and `outputs.json_lines`. The words are theirs, and whatever event the C side
has no words for is theirs as well; that all other bytes are the same is tested.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from pytracecon import decode as decoding
from pytracecon import wire
from pytracecon._ring import ffi, lib
from pytracecon.decode import decode
from pytracecon.events import ConnectionEvent, Event, Lost, Process
from pytracecon.named import Named
from pytracecon.reader import Counts, Shown, seen

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytracecon.names.joiner import Joiner
    from pytracecon.owners.processes import Owners
    from pytracecon.ring import Batch, Ring
    from pytracecon.translations import Translations

__all__ = ["Json", "JsonBatch", "joined"]

_ROOM = 1 << 18
_ERRORS = max(errno.errorcode) + 1


@dataclass(frozen=True, slots=True)
class JsonBatch:
    """Whole lines, how many events they tell, and how many of those are `lost` events."""

    data: bytes
    events: int
    losses: int = 0


def joined(batches: list[JsonBatch]) -> JsonBatch:
    if len(batches) == 1:
        return batches[0]
    return JsonBatch(
        b"".join([batch.data for batch in batches]),
        sum(batch.events for batch in batches),
        sum(batch.losses for batch in batches),
    )


class Json:
    """The form (see `reader`) of `--format json`."""

    def __init__(
        self,
        names: Joiner | None = None,
        shown: Shown | None = None,
        owners: Owners | None = None,
        translations: Translations | None = None,
    ) -> None:
        # msgspec takes as long to import as all the rest, and whoever reads dataclasses has no use for it.
        from pytracecon.outputs.json_lines import JsonLines, line  # noqa: PLC0415

        self._line = line
        self._lines = JsonLines()
        self._out = ffi.new("char[]", _ROOM)
        self._json = ffi.new("json *")
        self._words = [self._hand_over(name, words) for name, words in _vocabulary().items()]
        self._names = names
        self._shown = shown
        self._named = Named(names, translations)
        self._pinned = ffi.from_buffer("uint8_t[]", self._named.bits)
        self._json.named = self._pinned
        self._translations = translations
        self._note_ends: Callable[[list[Event]], None] | None = None
        self._owners = owners
        if owners is not None:
            self._pieces = ffi.new("pieces *")
            self._json.of_owners = self._pieces
            owners.watch(lambda: lib.pieces_forget(self._pieces))

    @property
    def note(self) -> Callable[[list[Event]], None] | None:
        """Called with the events that end a connection, by whoever wants to know; the others' lines cost no more."""
        return self._note_ends

    @note.setter
    def note(self, called: Callable[[list[Event]], None] | None) -> None:
        self._note_ends = called
        self._json.left = 0 if called is None else sum(1 << wire.KINDS[name] for name in ("close", "failed"))

    def walk(self, ring: Ring, _offset_ns: int) -> Batch:
        return ring.take()

    def records(self, batch: memoryview, offset_ns: int) -> tuple[list[JsonBatch], Counts]:
        if self._owners is not None:
            self._owners.refresh()
        if self._shown is None and (self._names is None or not self._names.asks_back):
            made = self._lines_of(batch, offset_ns)
            return made, Counts(0 if self._names is None else self._names.counted(), 0)
        events, counts = seen(
            decode(batch, offset_ns, self._names, self._owners, self._translations), self._names, self._shown
        )
        if self._note_ends is not None:
            self._note_ends(events)
        return self.events(events), counts

    def _lines_of(self, batch: memoryview, offset_ns: int) -> list[JsonBatch]:
        made: list[JsonBatch] = []
        json, out, end = self._json, self._out, len(batch)
        at = 0
        with ffi.from_buffer(batch) as start:
            while at < end:
                lib.json_lines(json, start + at, end - at, offset_ns, out, _ROOM)
                if json.records:
                    made.append(JsonBatch(ffi.buffer(out, json.written)[:], json.records))
                    at += json.read
                if json.strange:
                    behind = decoding.end_of(batch, at)
                    events = decode(batch[at:behind], offset_ns, self._names, self._owners, self._translations)
                    if self._note_ends is not None:
                        self._note_ends(events)
                    made += self.events(events)
                    if self._owners is not None and batch[at + wire.KIND_OFFSET] in _OF_CONNECTIONS:
                        self._remember(events, *_OWNER.unpack_from(batch, at))
                    at = behind
        return made

    def _remember(self, events: list[Event], cgroup: int, process: int) -> None:
        """What the events' owner is, as the piece of a line that the C side copies from now on."""
        for event in events:
            if isinstance(event, ConnectionEvent) and event.process is not None:
                piece = self._piece_of(event.process)
                lib.piece_add(self._pieces, process, cgroup, piece, len(piece))

    def _piece_of(self, process: Process) -> bytes:
        known = {field.name: value for field in fields(Process) if (value := getattr(process, field.name)) is not None}
        return b"," + self._line(known)[1:-2] if known else b""

    def events(self, events: list[Event]) -> list[JsonBatch]:
        losses = sum(isinstance(event, Lost) for event in events)
        return [JsonBatch(data, count, losses) for data, count in self._lines.render(events) if count]

    def _hand_over(self, name: str, words: list[str]) -> Any:
        """The C side keeps no reference: what is returned must live as long."""
        there = ffi.new("word[]", [{"size": len(word), "text": word.encode()} for word in words])
        setattr(self._json, name, {"words": there, "count": len(words)})
        return there


def _vocabulary() -> dict[str, list[str]]:
    """The pieces of a line whose text is chosen by a number: `json` of json_lines.c."""
    kinds = dict.fromkeys(range(max(wire.KINDS.values()) + 1), "")
    kinds |= {number: f'{{"event":"{name}","time":"' for name, number in wire.KINDS.items()}
    return {
        "kinds": list(kinds.values()),
        "protocols": [_piece(proto=word) for word in decoding.PROTOCOLS],
        "directions": [_piece(direction=word) for word in decoding.DIRECTIONS],
        "owners": [_piece(owner=word) for word in decoding.OWNERS],
        "ends": [_piece(ended=word) for word in decoding.ENDED],
        "states": [_piece(state=word) for word in decoding.STATES],
        "errors": [_piece(error=error, reason=reason) for error, reason in map(decoding.failure, range(_ERRORS))],
    }


_OF_CONNECTIONS = frozenset(wire.KINDS.values())
_OWNER = wire.layout(
    (("header", "16x"),),
    tuple((name, form if name in ("cgroup", "process") else f"{struct.calcsize(form)}x") for name, form in wire.CONN),
)
"""Of a connection's record: `cgroup` and `process`, in that order."""


def _piece(**words: str | None) -> str:
    return "".join(f',"{key}":"{word}"' for key, word in words.items() if word is not None)
