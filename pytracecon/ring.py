"""The BPF ring and the pages beside it, mapped: what the reader and the kernel side share."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Any, NamedTuple

from pytracecon import wire
from pytracecon._ring import ffi, lib
from pytracecon.errors import TracerClosed

if TYPE_CHECKING:
    from pytracecon._libbpf import Map

_PAGE = mmap.PAGESIZE
_COUNTER_WORDS = len(wire.COUNTERS)
ROOM = 1 << 18
"""Bytes of records that one call takes at most."""


class Batch(NamedTuple):
    """Whole records in a row. `lost` records are missing before the first of them."""

    data: memoryview
    records: int
    names: int
    """Of these, the records that serve names."""
    lost: int
    first: int
    """When the first of them was made, by the kernel's clock."""
    last: int
    """The same of the last."""
    more: bool
    """There is more to take at once: there was no room for it, or a loss lies before it."""
    busy: bool
    """A record that is still being written stands before what follows."""


def batch_of(data: memoryview, found: Any) -> Batch:
    """Of the C side's `batch`, whose records begin at `data`."""
    return Batch(
        data[: found.bytes],
        found.records,
        found.names,
        found.lost,
        found.first,
        found.last,
        bool(found.more),
        bool(found.busy),
    )


class Ring:
    """The consumer's side of a BPF ring buffer. One reader only; `data` of a batch lives until the next `take()`.

    Used after close() it raises TracerClosed, in a signal handler that came in between too. Another thread must not
    close it meanwhile: the C side runs without the interpreter's lock.
    """

    def __init__(self, ring: Map, cpus: int) -> None:
        size = ring.max_entries
        self._consumer = mmap.mmap(ring.fd, _PAGE)
        # The data lie there twice in a row, so that a record that wraps around is in one piece.
        self._producer = mmap.mmap(ring.fd, _PAGE + 2 * size, prot=mmap.PROT_READ, offset=_PAGE)
        self._out = bytearray(ROOM)
        self._view = memoryview(self._out)
        self.lost = ffi.new("uint32_t[]", cpus)
        """What each CPU's records said last of its losses (32 bits of a count that never resets)."""
        self._place = ffi.from_buffer(self._out, require_writable=True)
        self._pinned = [ffi.from_buffer(self._consumer, require_writable=True), ffi.from_buffer(self._producer)]
        self._ring = ffi.new("ring *")
        self._ring.consumer = ffi.cast("unsigned long *", self._pinned[0])
        self._ring.producer = ffi.cast("unsigned long *", self._pinned[1])
        self._ring.data = ffi.cast("unsigned char *", self._pinned[1]) + _PAGE
        self._ring.mask = size - 1
        self._ring.lost = self.lost
        self._ring.cpus = cpus
        self._batch = ffi.new("batch *")

    def take(self) -> Batch:
        """Move what is ready out of the ring, up to `ROOM` bytes or the next loss."""
        batch = self._batch
        if not lib.ring_take(self._ring, self._place, ROOM, batch):
            raise TracerClosed
        return batch_of(self._view, batch)

    def sort(self, heaps: Any, offset_ns: int) -> Batch:
        """The same, but each kind of record onto its heap (an array of `heap`, see ring.c), with wall time in it.

        `data` are those that have none, and are as they were. `heaps` has a place before the first one for these.
        """
        batch = self._batch
        if not lib.ring_sort(self._ring, self._place, ROOM, heaps, len(heaps), offset_ns, batch):
            raise TracerClosed
        return batch_of(self._view, batch)

    def unread(self) -> int:
        """Bytes in the ring, reserved ones too."""
        unread = int(lib.ring_unread(self._ring))
        if unread == -1:
            raise TracerClosed
        return unread

    def close(self) -> None:
        self._ring.consumer = self._ring.producer = self._ring.data = ffi.NULL
        for pinned in self._pinned:
            ffi.release(pinned)
        self._pinned.clear()
        self._consumer.close()
        self._producer.close()


class SharedPages:
    """The counters of the kernel side, and the word in which the reader says whether it rests.

    Used after close() they raise TracerClosed, whoever closed them: no call lies between the question whether somebody
    did and the use, so that no signal handler and no other thread comes in between.
    """

    def __init__(self, counters: Map, shared: Map, cpus: int) -> None:
        size = -(-cpus * _COUNTER_WORDS * 8 // _PAGE) * _PAGE
        self._counters = mmap.mmap(counters.fd, size, prot=mmap.PROT_READ)
        self._shared = mmap.mmap(shared.fd, _PAGE)
        self._words = memoryview(self._counters).cast("Q")[: cpus * _COUNTER_WORDS]
        self._resting = memoryview(self._shared).cast("I")
        self._closed = False

    def rest(self, how: int) -> None:
        """`wire.AWAKE`, `NAPS` or `ASLEEP`: when shall the kernel side wake the reader?"""
        if self._closed:
            raise TracerClosed
        self._resting[0] = how

    def get(self, name: str) -> int:
        """What a field of the page that both sides write has now."""
        form, at = _FIELDS[name]
        if self._closed:
            raise TracerClosed
        (value,) = form.unpack_from(self._shared, at)
        return int(value)

    def set(self, name: str, value: int) -> None:
        form, at = _FIELDS[name]
        if self._closed:
            raise TracerClosed
        form.pack_into(self._shared, at, value)

    def column(self, name: str) -> list[int]:
        """One counter, a value a CPU."""
        first = _COLUMNS[name]
        if self._closed:
            raise TracerClosed
        return self._words[first::_COUNTER_WORDS].tolist()

    def close(self) -> None:
        self._closed = True
        self._words.release()
        self._resting.release()
        self._counters.close()
        self._shared.close()


_FIELDS = {
    name: (wire.layout((field,)), wire.layout(wire.SHARED[:position]).size)
    for position, field in enumerate(wire.SHARED)
    for name in field[:1]
}
_COLUMNS = {name: position for position, (name, _) in enumerate(wire.COUNTERS)}
