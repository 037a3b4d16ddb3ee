"""JSON lines that C writes from records: the very bytes that Python writes from the events of those records."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytracecon import decode as decoding
from pytracecon import wire
from pytracecon.decode import decode
from pytracecon.events import Lost
from pytracecon.json_lines import Json, joined
from pytracecon.outputs.json_lines import JsonLines

NOW = 1_795_166_000_000_000_000
JSON = Json()
PYTHON = JsonLines()

MAPPED = bytes(10) + b"\xff\xff"
WORDS = {
    "protocol": decoding.PROTOCOLS,
    "direction": decoding.DIRECTIONS,
    "owner": decoding.OWNERS,
    "ended": decoding.ENDED,
    "state": decoding.STATES,
}
OF_PYTHON = {
    "from": decoding.STATES,
    "to": decoding.STATES,
    "segment": decoding.SEGMENTS,
    "app": decoding.APPS,
}
"""Of kinds of events that are left to Python, as is whatever else is not of every connection."""
LEFT_TO_PYTHON = ("state", "retransmit", "reset", "flow")
BY_C = [kind for kind in wire.KINDS if kind not in LEFT_TO_PYTHON]
IPV6_GROUP = st.one_of(st.just(0), st.just(0), st.sampled_from([1, 0xFFFF, 0xF, 0x100]), st.integers(0, 0xFFFF))
ADDRESS = st.one_of(
    st.binary(min_size=4, max_size=4).map(MAPPED.__add__),
    st.binary(min_size=4, max_size=4).map(bytes(12).__add__),
    st.lists(IPV6_GROUP, min_size=8, max_size=8).map(lambda groups: b"".join(g.to_bytes(2, "big") for g in groups)),
    st.sampled_from([bytes(16), MAPPED + bytes(4), bytes(15) + b"\1"]),
    st.binary(min_size=16, max_size=16),
)
PLAIN = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters='"\\'), max_size=16)
NAME = st.one_of(PLAIN.map(str.encode), PLAIN.map(str.encode), st.binary(max_size=16), st.just(b""))
ERROR = st.one_of(st.sampled_from([0, 0xFFFF, 133, 134, 41, 530]), st.sampled_from(list(errno.errorcode)))
TIME = st.one_of(st.integers(0, 10**15), st.just(2**63 - 1 - NOW))


def number(form: str) -> st.SearchStrategy[int]:
    largest = {"B": 0xFF, "H": 0xFFFF, "I": 0xFFFF_FFFF, "Q": 2**64 - 1}[form]
    digits = st.integers(0, len(str(largest)) - 1).flatmap(lambda count: st.integers(0, 10**count))
    return st.one_of(st.just(0), digits, st.just(largest), st.integers(0, largest)).map(lambda n: min(n, largest))


def value(name: str, form: str) -> st.SearchStrategy[Any]:
    if name in WORDS | OF_PYTHON:
        return st.integers(0, len((WORDS | OF_PYTHON)[name]) - 1)
    if form == "16s":
        return ADDRESS if name.endswith("_addr") else NAME
    if name in ("time", "error"):
        return TIME if name == "time" else ERROR
    return number(form)


def packed(kind: str, values: dict[str, Any]) -> bytes:
    shape = wire.RECORD[wire.KINDS[kind]]
    values = values | {"kind": wire.KINDS[kind], "words": shape.size // 8}
    return shape.pack(*(values[name] for name, form in members(kind) if not form.endswith("x")))


def members(kind: str) -> tuple[wire.Field, ...]:
    return (*wire.HEADER, *wire.CONN, *wire.RECORDS[f"{kind}_event"])


def records_of(kind: str) -> st.SearchStrategy[bytes]:
    values = {name: value(name, form) for name, form in members(kind) if not form.endswith("x")}
    any_task = st.fixed_dictionaries(values)
    one_thread = any_task.map(lambda values: values | {"tid": values["pid"]})
    return st.one_of(any_task, one_thread).map(lambda values: packed(kind, values))


RECORD = st.one_of([records_of(kind) for kind in wire.KINDS])


def plain(kind: str, **changed: Any) -> bytes:
    """One that C has words for."""
    values: dict[str, Any] = {name: b"" if form == "16s" else 1 for name, form in members(kind)}
    return packed(kind, values | changed)


def by_python(batch: bytes, offset: int) -> bytes:
    return b"".join(data for data, _ in PYTHON.render(decode(batch, offset)))


@settings(max_examples=300)
@given(st.lists(RECORD, min_size=1, max_size=4), st.sampled_from([NOW, NOW + 999_999_999, 0, -1000]))
def test_both_write_the_same_bytes(batch: list[bytes], offset: int) -> None:
    data = b"".join(batch)
    made, counts = JSON.records(memoryview(data), offset)
    both = joined(made)
    assert both.data == by_python(data, offset)
    assert (both.events, both.losses) == (len(batch), 0)
    assert counts == (0, 0)


@given(st.lists(st.sampled_from([b"curl", b'"', b"\\", b"\x1b[", b"\xff", b"\x7f", "ü".encode(), b""]), max_size=12))
def test_what_python_writes_stands_where_it_happened(names: list[bytes]) -> None:
    data = b"".join(plain("accept", time=at, comm=name) for at, name in enumerate(names))
    made, _ = JSON.records(memoryview(data), NOW)
    assert joined(made).data == by_python(data, NOW)
    assert joined(made).events == len(names)


@pytest.mark.parametrize("kind", BY_C)
def test_what_is_usual_is_not_left_to_python(kind: str) -> None:
    batch = plain(kind, comm=b"curl", thread=b"resolver: ~ [1]", tid=2, local_addr=MAPPED + b"\x7f\0\0\1") * 3
    made, _ = JSON.records(memoryview(batch), NOW)
    assert [batch.events for batch in made] == [3]
    assert made[0].data == by_python(batch, NOW)


@pytest.mark.parametrize(("name", "words"), WORDS.items())
def test_every_word_is_the_same(name: str, words: tuple[str | None, ...]) -> None:
    kind = "existing" if name == "state" else "close"
    batch = b"".join(plain(kind, **{name: at}) for at in range(len(words)))
    made, _ = JSON.records(memoryview(batch), NOW)
    assert [batch.events for batch in made] == [len(words)]
    assert made[0].data == by_python(batch, NOW)


@pytest.mark.parametrize(("name", "words"), WORDS.items())
def test_a_number_without_a_word_is_refused_as_python_refuses_it(name: str, words: tuple[str | None, ...]) -> None:
    batch = plain("existing" if name == "state" else "close", **{name: len(words)})
    for write in (by_python, lambda batch, offset: JSON.records(memoryview(batch), offset)):
        with pytest.raises(IndexError):
            write(batch, NOW)


def test_every_error_is_the_same() -> None:
    batch = b"".join(plain("failed", error=code) for code in range(1 << 16))
    made, _ = JSON.records(memoryview(batch), NOW)
    assert joined(made).data == by_python(batch, NOW)


def test_a_time_that_c_cannot_count_is_python_s() -> None:
    batch = b"".join(plain("connect", time=time) for time in (2**63, 1, 2**64 - 1))
    made, _ = JSON.records(memoryview(batch), NOW)
    assert joined(made).data == by_python(batch, NOW)


@pytest.mark.parametrize("kind", BY_C)
def test_the_longest_line_fits_any_number_of_times(kind: str) -> None:
    longest = {name: 2 ** (8 * struct.calcsize(form)) - 1 for name, form in members(kind) if form in "QIHB"}
    longest |= {"comm": b"c" * 16, "thread": b"t" * 16, "local_addr": b"\xff" * 16, "remote_addr": b"\xff" * 16}
    longest |= {"time": 1, "protocol": 1, "direction": 0, "owner": 4, "tid": 0xFFFF_FFFE}
    longest |= {"error": errno.ESOCKTNOSUPPORT, "ended": 4, "state": 1}
    batch = packed(kind, longest) * 1000
    made, _ = JSON.records(memoryview(batch), NOW)
    assert len(made) > 1
    assert len(made[0].data) // made[0].events <= 1024 - 64
    assert joined(made).data == by_python(batch, NOW)


def test_lines_of_losses_are_counted() -> None:
    (batch,) = JSON.events([Lost(NOW, 5, "ring", NOW - 1, NOW)])
    assert (batch.events, batch.losses) == (1, 1)
    assert batch.data == PYTHON.render([Lost(NOW, 5, "ring", NOW - 1, NOW)])[0][0]
    assert JSON.events([]) == []
