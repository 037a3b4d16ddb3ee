"""The walk over a ring, in memory that looks as the kernel leaves it: no kernel is needed to be hostile."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pytracecon._ring import ffi, lib

from pytracecon import wire
from pytracecon.ring import Batch, batch_of

BUSY, DISCARDED = 1 << 31, 1 << 30
SIZE = 4096


@dataclass
class FakeRing:
    """The kernel's side: reserves, fills and submits as kernel/bpf/ringbuf.c does. The data lie there twice."""

    cpus: int = 2
    start: int = 0
    consumer: object = field(init=False)

    def __post_init__(self) -> None:
        self.positions = ffi.new("unsigned long[2]", [self.start, self.start])
        self.data = ffi.new("unsigned char[]", 2 * SIZE)
        self.lost = ffi.new("uint32_t[]", self.cpus)
        self.ring = ffi.new("ring *")
        self.ring.consumer = self.positions
        self.ring.producer = self.positions + 1
        self.ring.data = self.data
        self.ring.mask = SIZE - 1
        self.ring.lost = self.lost
        self.ring.cpus = self.cpus
        self.out = bytearray(1 << 16)
        self.batch = ffi.new("batch *")

    def put(self, payload: bytes, flags: int = 0) -> bool:
        room = (8 + len(payload) + 7) & ~7
        if self.positions[1] + room - self.positions[0] > SIZE - 1:
            return False
        at = self.positions[1]
        for offset, byte in enumerate(struct.pack("=II", len(payload) | flags, 0) + payload):
            self.data[(at + offset) % SIZE] = byte
            self.data[(at + offset) % SIZE + SIZE] = byte
        self.positions[1] = at + room
        return True

    def submit(self, at: int) -> None:
        """Clear the busy bit of the record there."""
        for copy in (at % SIZE, at % SIZE + SIZE):
            self.data[copy + 3] &= ~(BUSY >> 24) & 0xFF

    def sort(self, heaps: Any, offset_ns: int) -> Batch:
        """As `Ring` does."""
        batch = self.batch
        lib.ring_sort(self.ring, ffi.from_buffer(self.out), len(self.out), heaps, len(heaps), offset_ns, batch)
        return batch_of(memoryview(self.out), batch)

    def take(self, room: int = 1 << 16) -> tuple[bytes, int, int]:
        lib.ring_take(self.ring, ffi.from_buffer(self.out), room, self.batch)
        return bytes(self.out[: self.batch.bytes]), self.batch.records, self.batch.lost


def record(number: int = 0, size: int = 136, cpu: int = 0, lost: int = 0) -> bytes:
    return struct.pack("=QIHBB", number, lost, cpu, 1, size // 8) + bytes([number & 0xFF]) * (size - 16)


@given(st.lists(st.sampled_from([136, 144, 152, 176]), max_size=20), st.integers(0, 1 << 20))
def test_records_come_out_as_they_went_in(sizes: list[int], start: int) -> None:
    ring = FakeRing(start=start & ~7)
    written = [record(at, size) for at, size in enumerate(sizes)]
    assert all(ring.put(each) for each in written)
    assert ring.take() == (b"".join(written), len(written), 0)
    assert ring.take() == (b"", 0, 0)
    assert lib.ring_unread(ring.ring) == 0


@given(st.lists(st.integers(16, 330), min_size=1, max_size=12))
def test_every_byte_of_a_record_of_any_size_is_copied_and_none_behind_it(sizes: list[int]) -> None:
    ring = FakeRing()
    written = [bytes(record(at, size)[:16]) + bytes(range(1, 256)) * 2 for at, size in enumerate(sizes)]
    written = [each[:size] for each, size in zip(written, sizes, strict=True)]
    assert all(ring.put(each) for each in written)
    assert ring.take() == (b"".join(written), len(written), 0)
    assert not any(ring.out[sum(sizes) :])


@given(st.integers(min_value=1, max_value=400))
def test_a_ring_that_goes_round_loses_and_repeats_nothing(rounds: int) -> None:
    ring = FakeRing()
    seen = []
    for number in range(rounds):
        assert ring.put(record(number, 176))
        if number % 7 == 0:
            seen.append(ring.take())
    seen.append(ring.take())
    assert b"".join(data for data, _, _ in seen) == b"".join(record(number, 176) for number in range(rounds))
    assert sum(records for _, records, _ in seen) == rounds


def test_a_record_that_is_still_written_holds_back_what_is_behind_it() -> None:
    ring = FakeRing()
    assert ring.put(record(1))
    busy_at = ring.positions[1]
    assert ring.put(record(2), BUSY)
    assert ring.put(record(3))
    assert ring.take()[0] == record(1)
    assert (ring.batch.more, ring.batch.busy) == (0, 1)
    assert ring.take()[0] == b""
    assert (ring.batch.more, ring.batch.busy) == (0, 1)
    assert lib.ring_unread(ring.ring) > 0
    ring.submit(busy_at)
    assert ring.take()[0] == record(2) + record(3)
    assert (ring.batch.more, ring.batch.busy) == (0, 0)


def test_a_discarded_record_is_passed_over() -> None:
    ring = FakeRing()
    assert ring.put(record(1))
    assert ring.put(record(2), DISCARDED)
    assert ring.put(record(3))
    assert ring.take() == (record(1) + record(3), 2, 0)


def test_no_record_is_cut_when_the_batch_is_full() -> None:
    ring = FakeRing()
    assert all(ring.put(record(number)) for number in range(3))
    assert ring.take(room=136 * 2 + 100) == (record(0) + record(1), 2, 0)
    assert ring.batch.more
    assert ring.take() == (record(2), 1, 0)
    assert not ring.batch.more


def test_a_loss_stands_before_the_first_record_that_tells_of_it() -> None:
    ring = FakeRing()
    assert ring.put(record(1))
    assert ring.put(record(2, lost=5))
    assert ring.put(record(3, lost=5))
    assert ring.put(record(4, cpu=1, lost=2))
    assert ring.take() == (record(1), 1, 0)
    assert ring.batch.more
    assert ring.take() == (record(2, lost=5) + record(3, lost=5), 2, 5)
    assert ring.take() == (record(4, cpu=1, lost=2), 1, 2)


def test_a_count_of_losses_may_wrap() -> None:
    ring = FakeRing()
    ring.lost[0] = 0xFFFF_FFFE
    assert ring.put(record(1, lost=3))
    assert ring.take() == (record(1, lost=3), 1, 5)


def test_a_record_that_is_older_than_a_loss_already_told_tells_it_not_again() -> None:
    ring = FakeRing()
    ring.lost[0] = 7
    assert ring.put(record(1, lost=5))
    assert ring.put(record(2, lost=8))
    assert ring.take() == (record(1, lost=5), 1, 0)
    assert ring.take() == (record(2, lost=8), 1, 1)


def test_a_cpu_that_nobody_counted_is_no_index() -> None:
    ring = FakeRing(cpus=1)
    assert ring.put(record(1, cpu=9, lost=3))
    assert ring.take() == (record(1, cpu=9, lost=3), 1, 0)


def test_the_header_is_read_where_the_contract_has_it() -> None:
    names = [name for name, _ in wire.HEADER]
    assert names == ["time", "lost", "cpu", "kind", "words"]
