"""Columns hold what the events of the same records say."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytracecon._ring import ffi

from pytracecon import wire
from pytracecon.batches import WORDS, Batch, Columns, Table
from pytracecon.decode import decode
from pytracecon.events import Event, Lost
from unit.test_builder import records
from unit.test_decode import MAPPED, TAILS, record
from unit.test_ring import FakeRing

OFFSET = 1_795_166_000 * 10**9


class Walked:
    """A ring in memory, as `Columns` asks for it."""

    def __init__(self, *payloads: bytes) -> None:
        self.fake = FakeRing()
        for payload in payloads:
            assert self.fake.put(payload)

    def sort(self, heaps: Any, offset_ns: int) -> Any:
        return self.fake.sort(heaps, offset_ns)


def batches_of(columns: Columns, *payloads: bytes) -> list[Batch]:
    ring: Any = Walked(*payloads)
    taken = columns.walk(ring, OFFSET)
    made, _ = columns.records(taken.data, OFFSET)
    return made


def rows(table: Table, name: str) -> list[bytes]:
    column = table[name]
    flat = column.tobytes()
    return [flat[at : at + 16] for at in range(0, len(flat), 16)]


@given(st.lists(records(), min_size=1, max_size=12))
def test_each_column_holds_what_the_events_say(payloads: list[bytes]) -> None:
    (batch,) = batches_of(Columns(), *payloads)
    events: list[Any] = decode(b"".join(payloads), OFFSET)
    assert batch.count == len(events)
    for kind, table in batch.items():
        told = [event for event in events if event.event == kind]
        assert table.rows == len(told)
        assert list(table["time_ns"]) == [event.time_ns for event in told]
        assert [f"{number:016x}" for number in table["conn"]] == [event.conn for event in told]
        for name in ("local_port", "remote_port", "netns", "cgroup", "duration_ns", "latency_ns", "wait_ns", "rtt_ns"):
            if name in table and kind != "flow":
                assert [number or None for number in table[name]] == [getattr(event, name) for event in told]
        for name in ("tx_bytes", "rx_bytes", "tx_acked", "tx_packets", "rx_packets", "syn_retransmits", "segments"):
            if name in table:
                assert list(table[name]) == [getattr(event, name) for event in told]
        for name, words in WORDS.items():
            if name in table and all(hasattr(event, name) for event in told):
                assert [words[number] for number in table[name]] == [getattr(event, name) for event in told]


@pytest.mark.parametrize("kind", sorted(wire.KINDS))
def test_every_column_is_as_long_as_its_table(kind: str) -> None:
    table = Table(kind, record(kind) * 3)
    assert {len(table[name]) for name in table} == {3}
    assert all(table[name].readonly for name in table)
    assert Table(kind, b"")["time_ns"].tolist() == Table(kind, b"")["comm"].tolist() == []


def test_texts_and_addresses_are_rows_of_sixteen_bytes() -> None:
    table = Table("connect", record("connect") + record("connect", comm=b"wget"))
    assert table["remote_addr"].shape == (2, 16)
    assert rows(table, "remote_addr") == [MAPPED + bytes((93, 184, 216, 34))] * 2
    assert [row.rstrip(b"\0") for row in rows(table, "comm")] == [b"curl", b"wget"]


def test_a_kind_that_a_batch_has_none_of_is_an_empty_table() -> None:
    (batch,) = batches_of(Columns(), record("connect"))
    assert list(batch) == ["connect"]
    assert batch["close"].rows == 0
    assert sum(batch["close"]["tx_bytes"]) == 0
    with pytest.raises(KeyError):
        batch["lost"]


def test_a_loss_stands_in_a_batch_of_its_own() -> None:
    loss: list[Event] = [Lost(1, 2, "ring")]
    (batch,) = Columns().events(loss)
    assert (batch.events, list(batch), batch.count) == (loss, [], 1)
    assert Columns().events([]) == []


def test_what_is_kept_stays_as_it_was_while_more_is_read() -> None:
    columns = Columns()
    ring: Any = Walked()
    kept = []
    for at in range(1, 400):
        assert ring.fake.put(record("close", id=at))
        made, _ = columns.records(columns.walk(ring, OFFSET).data, OFFSET)
        kept += made
    assert [list(batch["close"]["conn"]) for batch in kept] == [[at] for at in range(1, 400)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four closes fill a heap, and any is much."""
    monkeypatch.setattr("pytracecon.batches._ROOM", 1 << 10)
    monkeypatch.setattr("pytracecon.batches._MUCH", 1 << 7)


def fours(columns: Columns) -> Iterator[Batch]:
    """A hundred batches of four."""
    ring: Any = Walked()
    for at in range(0, 400, 4):
        for each in range(4):
            assert ring.fake.put(record("close", id=at + each))
        made, _ = columns.records(columns.walk(ring, OFFSET).data, OFFSET)
        yield from made
        del made


def place(view: memoryview) -> int:
    return int(ffi.cast("uintptr_t", ffi.from_buffer(view)))


@pytest.mark.usefixtures("small")
def test_a_full_heap_is_given_away_and_not_written_again() -> None:
    kept = list(fours(Columns()))
    assert [number for batch in kept for number in batch["close"]["conn"]] == list(range(400))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "look", [lambda batch: batch, lambda batch: batch["close"], lambda batch: batch["close"]["conn"]]
)
def test_whatever_is_kept_of_a_batch_keeps_its_memory(look: Callable[[Batch], object]) -> None:
    """Not every one, so that what is free is filled again beside what is not."""
    kept = {at: look(batch) for at, batch in enumerate(fours(Columns())) if at % 3}
    for at, found in kept.items():
        table = found["close"] if isinstance(found, Batch) else found
        column = table["conn"] if isinstance(table, Table) else table
        assert isinstance(column, memoryview)
        assert column.tolist() == [at * 4 + each for each in range(4)]


@pytest.mark.usefixtures("small")
def test_what_nobody_keeps_is_filled_again() -> None:
    """Of two, as one is the user's while the other is filled: so they stay in the CPU's own cache."""
    places = set()
    for batch in fours(Columns()):
        places.add(place(batch["close"].records))
    assert len(places) == 2


@pytest.mark.usefixtures("small")
def test_what_a_child_has_of_a_batch_stays_while_the_parent_goes_on() -> None:
    batches = fours(Columns())
    kept = next(batches)
    written, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(written, 1)
        os._exit(kept["close"]["conn"].tolist() != [0, 1, 2, 3])
    del kept
    assert sum(batch.count for batch in batches) == 396  # all memory was written to again
    os.write(told, b".")
    _, status = os.waitpid(child, 0)
    os.close(written)
    os.close(told)
    assert os.waitstatus_to_exitcode(status) == 0


def test_kinds_that_nobody_asked_for_are_left_out_and_counted() -> None:
    columns = Columns(shown=lambda event: event.event != "accept", untold=frozenset({"accept"}))
    ring: Any = Walked(record("accept"), record("accept"), record("close"))
    made, counts = columns.records(columns.walk(ring, OFFSET).data, OFFSET)
    assert [(list(batch), batch.count) for batch in made] == [(["close"], 1)]
    assert counts.left_out == 2


def test_where_each_event_must_be_asked_the_columns_are_of_those_that_stay() -> None:
    columns = Columns(shown=lambda event: getattr(event, "local_port", 0) > 1, by_event=True)
    batch = b"".join(record(kind, local_port=port) for kind in TAILS for port in (1, 2, 3))
    (made,), counts = columns.records(memoryview(batch), OFFSET)
    assert {kind: list(table["local_port"]) for kind, table in made.items()} == {kind: [2, 3] for kind in TAILS}
    assert {*made["close"]["time_ns"]} == {OFFSET + 1_000}
    assert counts.left_out == len(TAILS)


def test_who_takes_note_of_ends_is_told_them() -> None:
    columns = Columns()
    noted: list[Event] = []
    columns.note = noted.extend
    batches_of(columns, record("connect"), record("close"), record("failed"))
    assert sorted(noted, key=lambda event: event.event) == decode(record("close") + record("failed"), OFFSET)


def test_a_record_of_another_size_is_no_column() -> None:
    with pytest.raises(struct.error):
        batches_of(Columns(), record("close")[:-8])
