"""One direction of DNS over TCP (RFC 7766): segments in any order become messages, each behind its length.

Segments come as the wire brought them: split anywhere, sent again, overlapping, out of order, and some never. What
touches is kept as one run. A run whose beginning is seen to be a message's gives its messages at once, whatever is
missing before it; so a hole that is never filled costs what was in it, and nothing waits for it. Of bytes that come
twice the first ones count.
"""

from __future__ import annotations

import struct

__all__ = ["WINDOW", "Stream"]

WINDOW = 1 << 20
"""What is further away in the sequence is of another connection with the same ports."""
MOST_BYTES = 128 << 10
"""Two messages of the largest size, or a hole within one and all that may arrive behind it."""
MOST_RUNS = 64
RUN_BYTES = 256
"""What a run costs, whatever it holds."""

_START = struct.Struct("!7HB")
_SHORTEST = 12 + 1 + 4
"""A header, the root's name, type and class."""


def _begins(data: bytearray, *, sent: bool) -> bool | None:
    """Whether a message begins here: a length, and the header of a query or of an answer with one question; None while
    there are too few bytes to tell. By chance one place in sixteen million looks so.
    """
    if len(data) < _START.size:
        return None
    length, _, flags, questions, answers, authorities, additional, label = _START.unpack_from(data)
    if length < _SHORTEST or questions != 1 or flags & 0x7840 or label > 63:
        return False
    return not (flags >> 15 or answers or authorities or additional > 2) if sent else flags >> 15 == 1


class _Run:
    """Bytes without a hole: from `begin` to `end` in the sequence, of which `kept` is what has not been handed out."""

    __slots__ = ("begin", "end", "framed", "kept", "undecided")

    def __init__(self, begin: int, data: bytes) -> None:
        self.begin = begin
        self.end = begin + len(data)
        self.kept = bytearray(data)
        self.framed = False
        self.undecided = True

    def settle(self, *, sent: bool) -> None:
        """Find out whether it begins with a message, if that can be told by now."""
        if self.undecided:
            begins = _begins(self.kept, sent=sent)
            self.undecided = begins is None
            self.framed = begins is True

    def goes_on_with(self, other: _Run, *, sent: bool) -> bool:
        """`other` begins where this ends. A run that begins in the middle of a message waits for what precedes it."""
        if self.framed:
            return True
        other.settle(sent=sent)
        return self.undecided and not other.framed

    def append(self, other: _Run) -> int:
        """Returns how many bytes were kept for nothing."""
        self.end = other.end
        if other.end - other.begin == len(other.kept):
            self.kept += other.kept
            return 0
        # That one's messages are handed out already: what is left here was no message's beginning.
        dropped = len(self.kept)
        self.kept = other.kept
        return dropped

    def messages(self, *, sent: bool) -> list[bytes]:
        self.settle(sent=sent)
        if not self.framed:
            return []
        kept, at, found = self.kept, 0, []
        while len(kept) - at >= 2:
            end = at + 2 + (kept[at] << 8 | kept[at + 1])
            if end > len(kept):
                break
            found.append(bytes(kept[at + 2 : end]))
            at = end
        del kept[:at]
        return found


class Stream:
    """Takes segments, gives messages. Holds at most `MOST_BYTES`, and one segment more while it takes it."""

    __slots__ = ("connections", "dropped", "held", "latest", "runs", "sent")

    def __init__(self, *, sent: bool) -> None:
        self.sent = sent
        self.held = 0
        """Bytes of memory, roughly."""
        self.dropped = 0
        """Bytes given up: what should have preceded or followed them did not come in time."""
        self.connections = 0
        """How many have used these ports, one after the other."""
        self.latest = 0
        self.runs: list[_Run] = []

    def take(self, seq: int, data: bytes) -> list[bytes]:
        """The messages that are complete now. `seq` is the sequence number of the first byte, modulo 2**32."""
        begin = self.latest + ((seq - self.latest + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)
        if abs(begin - self.latest) > WINDOW or not self.runs:
            self._drop(len(self.runs))
            self.connections += 1
            begin = seq
        self.latest = begin + len(data)
        if len(self.runs) == 1 and self.runs[0].end == begin and self.runs[0].framed:
            run = self.runs[0]
            run.kept += data
            run.end = self.latest
            messages = run.messages(sent=self.sent)
        else:
            self._put(begin, data)
            messages = self._joined()
        self._count()
        while self.held > MOST_BYTES or len(self.runs) > MOST_RUNS:
            self._drop(1)
        return messages

    def _put(self, begin: int, data: bytes) -> None:
        """Make runs of those bytes that are new."""
        at, end = begin, begin + len(data)
        new = []
        for run in self.runs:
            if run.end > at:
                if run.begin > at and end > at:
                    new.append(_Run(at, data[at - begin : run.begin - begin]))
                at = run.end
        if end > at:
            new.append(_Run(at, data[at - begin :]))
        if new:
            self.runs = sorted([*self.runs, *new], key=lambda run: run.begin)

    def _joined(self) -> list[bytes]:
        """Make one run of those that touch, and hand out what is complete."""
        messages: list[bytes] = []
        joined: list[_Run] = []
        for run in self.runs:
            last = joined[-1] if joined else None
            if last is not None and last.end == run.begin and last.goes_on_with(run, sent=self.sent):
                self.dropped += last.append(run)
            else:
                joined.append(run)
            messages += joined[-1].messages(sent=self.sent)
        self.runs = joined
        return messages

    def _drop(self, count: int) -> None:
        """Forget the runs that come first in the sequence."""
        self.dropped += sum(len(run.kept) for run in self.runs[:count])
        del self.runs[:count]
        self._count()

    def _count(self) -> None:
        self.held = sum(len(run.kept) + RUN_BYTES for run in self.runs)
