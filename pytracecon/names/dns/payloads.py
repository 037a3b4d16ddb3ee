"""Parts of packets become whole DNS messages, of datagrams and of streams."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from pytracecon.names.dns.stream import Stream
from pytracecon.names.records import MessagePart

__all__ = ["Payloads"]

IDLE_NS = 300_000_000_000
"""TCP sends again after at most two minutes; whatever comes later is another connection of the same ports."""
MOST_DIRECTIONS = 1024
MOST_STREAM_BYTES = 8 << 20
MOST_DATAGRAMS = 256
MOST_DATAGRAM_BYTES = 4 << 20

_Way = tuple[int, int, bytes, int, bool]


class _Datagram:
    __slots__ = ("held", "parts")

    def __init__(self) -> None:
        self.parts: dict[int, bytes] = {}
        self.held = 0

    def whole(self, size: int) -> bytes | None:
        """All of it, if no part is missing."""
        if self.held != size:
            return None
        data = b"".join([self.parts[at] for at in sorted(self.parts)])
        at = 0
        for begin in sorted(self.parts):
            if begin != at:
                return None
            at += len(self.parts[begin])
        return data


class _Direction:
    """Of a TCP connection: what goes one way."""

    __slots__ = ("sender", "stream", "time")

    def __init__(self, part: MessagePart) -> None:
        self.stream = Stream(sent=part.sent)
        self.sender: MessagePart | None = None
        self.time = part.time


class Payloads:
    """Takes parts, gives messages. What is in pieces is held within bounds; the pieces that came first go first."""

    def __init__(self) -> None:
        self.incomplete = 0
        """Datagrams of which a part never came."""
        self.evicted_directions = 0
        """Directions of TCP connections that were forgotten to make room for others."""
        self._dropped = 0
        self._datagrams: OrderedDict[int, _Datagram] = OrderedDict()
        self._datagram_bytes = 0
        self._directions: OrderedDict[_Way, _Direction] = OrderedDict()
        self._stream_bytes = 0

    def take(self, part: MessagePart) -> tuple[MessagePart, list[bytes]]:
        """Who sends, as far as is known, and the messages that are complete with this part."""
        if part.protocol == "tcp":
            return self._take_segment(part)
        if part.at == 0 and len(part.data) == part.size:
            return part, [part.data]
        return part, self._take_piece(part) if part.data else []

    @property
    def dropped_bytes(self) -> int:
        """What TCP carried and no message was made of, because bytes before or after it are missing."""
        return self._dropped + sum(direction.stream.dropped for direction in self._directions.values())

    @property
    def held(self) -> int:
        """Bytes of memory, roughly."""
        return self._stream_bytes + self._datagram_bytes

    def _take_segment(self, part: MessagePart) -> tuple[MessagePart, list[bytes]]:
        way = (part.netns, part.local_port, part.server, part.server_port, part.sent)
        direction = self._directions.pop(way, None)
        if direction is not None and part.time - direction.time > IDLE_NS:
            self._forget(direction)
            direction = None
        if direction is None:
            direction = _Direction(part)
        stream = direction.stream
        before, connections = stream.held, stream.connections
        messages = stream.take(part.seq + part.at & 0xFFFFFFFF, part.data) if part.data else []
        self._stream_bytes += stream.held - before
        direction.time = part.time
        # A segment that leaves when the peer made room for it leaves in nobody's time: its sender is known from before.
        if part.asker is not None:
            direction.sender = replace(part, data=b"")
        elif stream.connections != connections:
            direction.sender = None
        self._directions[way] = direction
        while len(self._directions) > MOST_DIRECTIONS or self._stream_bytes > MOST_STREAM_BYTES:
            self.evicted_directions += 1
            self._forget(self._directions.popitem(last=False)[1])
        return direction.sender or part, messages

    def _forget(self, direction: _Direction) -> None:
        stream = direction.stream
        self._stream_bytes -= stream.held
        self._dropped += stream.dropped + sum(len(run.kept) for run in stream.runs)

    def _take_piece(self, part: MessagePart) -> list[bytes]:
        datagram = self._datagrams.setdefault(part.packet, _Datagram())
        before = datagram.held
        datagram.held += len(part.data) - len(datagram.parts.get(part.at, b""))
        datagram.parts[part.at] = part.data
        self._datagram_bytes += datagram.held - before
        whole = datagram.whole(part.size)
        if whole is not None:
            del self._datagrams[part.packet]
            self._datagram_bytes -= datagram.held
            return [whole]
        while len(self._datagrams) > MOST_DATAGRAMS or self._datagram_bytes > MOST_DATAGRAM_BYTES:
            _, oldest = self._datagrams.popitem(last=False)
            self._datagram_bytes -= oldest.held
            self.incomplete += 1
        return []
