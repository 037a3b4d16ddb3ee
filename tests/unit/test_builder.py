"""What C builds of records is what decode.py makes of them, bit for bit."""

from __future__ import annotations

import gc
import struct
import sys
import tracemalloc
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pytracecon._events import Maker

from fuzz.ring_records import batch_of
from fuzz.ring_records import seeds as seeds_of_records
from pytracecon import builder as building
from pytracecon import decode as decoding
from pytracecon import wire
from pytracecon.batches import Columns
from pytracecon.builder import Builder
from pytracecon.decode import address, decode
from pytracecon.events import Connect, ConnectionEvent, Event, Process
from pytracecon.filters import Filters
from pytracecon.json_lines import Json
from pytracecon.names.joiner import Joiner
from pytracecon.owners.processes import Owner, Owners
from pytracecon.owners.runtimes import Runtimes
from pytracecon.translations import Translations
from unit.test_decode import MAPPED, TAILS, record

FILTERS = Filters(events=frozenset({*wire.KINDS, "lookup"}))
OFFSET = 1_795_166_000 * 10**9


def values(event: Event) -> dict[str, Any]:
    return {field.name: getattr(event, field.name) for field in fields(event)}


def bit_for_bit(events: list[Event]) -> list[Any]:
    """`==` takes True for 1."""
    return [(type(event), [(name, type(each), each) for name, each in values(event).items()]) for event in events]


def same(batch: bytes, offset: int = OFFSET) -> None:
    assert bit_for_bit(Builder().events(batch, offset)) == bit_for_bit(decode(batch, offset))


def of_form(form: str) -> st.SearchStrategy[Any]:
    if form.endswith("s"):
        return st.binary(max_size=int(form[:-1]))
    size = struct.calcsize(form)
    return st.one_of(st.just(0), st.integers(0, (1 << 8 * size) - 1))


WORDS = {
    "protocol": st.integers(1, 3),
    "direction": st.integers(0, 2),
    "owner": st.integers(0, 6),
    "state": st.integers(0, 12),
    "from": st.integers(0, 12),
    "to": st.integers(0, 12),
    "ended": st.integers(0, 9),
    "segment": st.integers(0, 4),
    "app": st.integers(0, 1),
    "local_addr": st.one_of(st.binary(min_size=4, max_size=4).map(MAPPED.__add__), of_form("16s")),
    "remote_addr": st.one_of(st.binary(min_size=4, max_size=4).map(MAPPED.__add__), of_form("16s")),
}


@st.composite
def records(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from(sorted(wire.KINDS)))
    members = dict([*wire.CONN, *wire.RECORDS[f"{kind}_event"]])
    changed = {
        name: draw(WORDS[name] if name in WORDS else of_form(form))
        for name, form in members.items()
        if not form.endswith("x")
    }
    return record(kind, time=draw(st.integers(0, 1 << 60)), **changed)


@given(st.lists(records(), min_size=1, max_size=6).map(b"".join), st.integers(-(1 << 61), 1 << 61))
def test_every_kind_is_the_same_in_every_field(batch: bytes, offset: int) -> None:
    same(batch, offset)


@pytest.mark.parametrize("kind", sorted(wire.KINDS))
def test_the_records_of_a_quiet_day_are_all_built_in_c(kind: str) -> None:
    maker = Maker(building._FUNCTIONS, bytes(1 << 13), None)
    cls, _ = decoding.EVENTS[kind]
    maker.add(wire.KINDS[kind], cls, tuple(field.name for field in fields(cls)))
    events: list[Event] = []
    batch = record(kind) * 3
    assert maker.take(batch, 0, OFFSET, events) == len(batch)
    assert bit_for_bit(events) == bit_for_bit(decode(batch, OFFSET))


@pytest.mark.parametrize("seed", seeds_of_records())
def test_records_that_serve_names_and_owners_stand_between_them(seed: bytes) -> None:
    batch = batch_of(seed) * 2
    both = []
    for fast in (True, False):
        owners = Owners(lambda named: Runtimes(named, sockets=(), users="/nowhere"))
        names, translations = Joiner(FILTERS, address, lambda _: None, owners), Translations(address)
        if fast:
            both.append(Builder(names, owners, translations).events(batch, OFFSET))
        else:
            both.append(decode(batch, OFFSET, names, owners, translations))
        owners.close()
    assert bit_for_bit(both[0]) == bit_for_bit(both[1])


def of_kind(number: int) -> bytes:
    made = bytearray(record("connect"))
    made[wire.KIND_OFFSET] = number
    return bytes(made)


def outcome(make: Any, batch: bytes) -> Any:
    try:
        return bit_for_bit(make(batch, OFFSET))
    except (struct.error, LookupError) as error:
        return type(error)


@pytest.mark.parametrize("broken", [record("close", words=0), record("close", words=1), record("close")[:15]])
@pytest.mark.parametrize(
    "read",
    [decode, Builder().events, Json().records, Columns(by_event=True).records],
    ids=["decode", "c", "json", "columns"],
)
def test_a_record_that_has_no_end_is_refused_and_keeps_nobody(read: Any, broken: bytes) -> None:
    with pytest.raises(struct.error):
        read(memoryview(record("connect") + broken), OFFSET)


@example(record("connect")[:-1])
@example(record("close")[:15])
@example(record("close", words=0))
@example(record("close", words=2) + record("connect"))
@example(of_kind(0))
@example(of_kind(200))
@example(record("connect", protocol=200))
@example(record("flow", app=9))
@example(record("flow", ended=200))
@example(record("retransmit", state=200))
@given(
    st.one_of(
        st.binary(max_size=400),
        st.tuples(records(), st.integers(0, 200), st.binary(max_size=3)).map(
            lambda drawn: drawn[0][: drawn[1]] + drawn[2] + drawn[0][drawn[1] :]
        ),
    )
)
def test_bytes_that_are_no_records_are_refused_by_the_same_error(batch: bytes) -> None:
    assert outcome(Builder().events, batch) == outcome(decode, batch)


def test_a_time_beyond_all_clocks_is_told_as_it_is() -> None:
    same(record("connect", time=(1 << 64) - 1), 5)
    same(record("connect", time=1), -(1 << 63))


class OneByOne:
    """Owners that say how often they were asked."""

    def __init__(self) -> None:
        self.asked: list[Owner] = []
        self.forget: list[Any] = []

    def of(self, owner: Owner) -> Process:
        self.asked.append(owner)
        return Process(exe=f"/bin/{len(self.asked)}")

    def watch(self, called: Any) -> None:
        self.forget.append(called)


def test_an_owner_is_asked_for_once_and_again_when_more_is_known_of_it() -> None:
    owners: Any = OneByOne()
    builder = Builder(owners=owners)
    batch = record("connect", process=7) + record("close", process=7)
    told: list[Any] = []
    for _ in range(2):
        told += builder.events(batch, OFFSET)
    owners.forget[0]()
    told += builder.events(batch, OFFSET)
    assert [event.exe for event in told] == ["/bin/1"] * 4 + ["/bin/2"] * 2
    assert owners.asked == [(7, 4711, 1234, 77)] * 2


def test_more_owners_and_connections_than_are_remembered_are_told_apart() -> None:
    batch = b"".join(
        record(
            "close", id=at * 65_537, pid=at, tid=at, comm=str(at).encode(), remote_addr=MAPPED + struct.pack(">I", at)
        )
        for at in range(1, 6_000)
    )
    same(batch)
    same(batch)


def test_an_event_is_one_of_a_dataclass_in_every_respect() -> None:
    (event,) = Builder().events(record("connect"), OFFSET)
    assert isinstance(event, Connect)
    event.host, event.host_source = "example.com", "dns"
    assert event.host == "example.com"
    assert repr(event) == repr(Connect(**values(event)))
    with pytest.raises(AttributeError):
        event.other = 1  # type: ignore[attr-defined]


def test_a_class_without_slots_is_refused() -> None:
    class Open:
        pass

    maker = Maker(building._FUNCTIONS, bytes(1 << 13), None)
    with pytest.raises(TypeError, match="has no slot for 'time_ns'"):
        maker.add(1, Open, tuple(field.name for field in fields(ConnectionEvent)))
    with pytest.raises(ValueError, match="no such kind"):
        maker.add(99, Connect, tuple(field.name for field in fields(Connect)))
    with pytest.raises(ValueError, match="65,536 bits"):
        Maker(building._FUNCTIONS, b"", None)


def test_what_a_function_raises_comes_out_and_nothing_is_held() -> None:
    def refuse(_: bytes) -> str:
        raise OSError("no address today")

    functions = (refuse, *building._FUNCTIONS[1:])
    maker = Maker(functions, bytes(1 << 13), None)
    maker.add(1, Connect, tuple(field.name for field in fields(Connect)))
    events: list[Event] = []
    for _ in range(3):
        with pytest.raises(OSError, match="no address today"):
            maker.take(record("connect"), 0, 0, events)
    assert events == []


@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_many_events_leave_no_reference_behind(count: int) -> None:
    batch = b"".join(record(kind, id=at, local_port=at) for at in range(1, 101) for kind in TAILS)
    builder = Builder()
    builder.events(batch, OFFSET)
    shared = ["tcp", "out", "connect", "ESTABLISHED", "CLOSE_WAIT", None, True, Connect]
    gc.collect()
    counts = [sys.getrefcount(each) for each in shared]
    tracemalloc.start()
    try:
        builder.events(batch, OFFSET)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(count // (100 * len(TAILS))):
            builder.events(batch, OFFSET)
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert after - before < 100_000
    assert all(
        abs(now - then) < 2000 for now, then in zip([sys.getrefcount(each) for each in shared], counts, strict=True)
    )


def test_a_builder_that_nobody_needs_goes_though_its_owners_know_it() -> None:
    owners = Owners(lambda named: Runtimes(named, sockets=(), users="/nowhere"))
    builder = Builder(owners=owners)
    builder.events(record("connect", process=7), OFFSET)
    gc.collect()
    kind = type(builder._maker)
    made = sum(isinstance(each, kind) for each in gc.get_objects())
    owners.close()
    del builder, owners
    gc.collect()
    assert sum(isinstance(each, kind) for each in gc.get_objects()) == made - 1
