"""What was written as JSON Lines is read again as the same events; what was not is refused, by its line."""

from __future__ import annotations

import io
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytracecon.errors import InvalidValue
from pytracecon.events import (
    Accept,
    Close,
    Connect,
    Established,
    Event,
    Existing,
    Failed,
    Flow,
    Lookup,
    Lost,
    Process,
    Reset,
    Retransmit,
    State,
)
from pytracecon.outputs.json_lines import JsonLines
from pytracecon.reading import InputFailed, Lines, open_file
from unit.test_outputs import an_event

KINDS: tuple[type[Event], ...] = (
    Connect,
    Established,
    Failed,
    Accept,
    Close,
    Existing,
    State,
    Retransmit,
    Reset,
    Flow,
    Lookup,
    Lost,
)
TIME = '"time":"2026-11-20T07:50:09.123456789Z"'
LOST = f'{{"event":"lost",{TIME},"count":3,"where":"ring"}}\n'.encode()
OUT = f'"event":"connect",{TIME},"conn":"1","proto":"tcp","direction":"out"'


def read(data: bytes) -> tuple[list[Event], Lines]:
    lines = Lines(io.BytesIO(data), "events.jsonl")
    return list(lines), lines


def written(events: list[Event]) -> bytes:
    return b"".join(piece for piece, _ in JsonLines().render(events))


def as_text(value: Any) -> Any:
    """A lone surrogate is in no UTF-8, and is written as text."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return [as_text(each) for each in value] if isinstance(value, list) else value


def as_written(event: Event) -> Event:
    """A process of which nothing is known has no keys."""
    plain: Any = replace(event, **{field.name: as_text(getattr(event, field.name)) for field in fields(event)})
    process = getattr(plain, "process", None)
    if process is not None:
        known = {field.name: as_text(getattr(process, field.name)) for field in fields(process)}
        plain.process = None if process == Process() else Process(**known)
    assert isinstance(plain, Event)
    return plain


@given(st.lists(st.one_of([an_event(kind) for kind in KINDS]), max_size=8))
def test_what_is_written_is_read_as_the_same_events(events: list[Event]) -> None:
    data = written(events)
    again, lines = read(data)
    assert again == [as_written(event) for event in events]
    assert (lines.read, lines.cut_off) == (len(events), None)
    assert written(again) == data


@given(st.lists(st.one_of([an_event(kind) for kind in KINDS]), min_size=1, max_size=3), st.data())
def test_wherever_a_file_is_cut_what_is_whole_is_read(events: list[Event], data: st.DataObject) -> None:
    whole = written(events)
    cut = data.draw(st.integers(0, len(whole)))
    again, lines = read(whole[:cut])
    at_end = whole[cut - 1 : cut] == b"\n" or whole[cut : cut + 1] == b"\n" or not cut
    assert lines.read == whole[: cut + at_end].count(b"\n")
    assert again == [as_written(event) for event in events[: lines.read]]
    assert lines.cut_off == (None if at_end else lines.read + 1)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("hello", "it is no JSON"),
        ("hello\n", "it is no JSON"),
        ("\n", "it is no JSON"),
        (f'{{"event":"lost",{TIME},"count":3,"where":"ring"}} and more\n', "it is no JSON"),
        (f'{{"event":"lost",{TIME},\n', "it is no JSON"),
        ("[" * 100_000 + "\n", "it is nested too deeply"),
        ("[]\n", "expected object, got array"),
        ("1", "expected object, got int"),
        ("{}\n", "object missing required field event"),
        ('{"event":5}\n', "event: expected str"),
        ('{"event":"flown"}\n', "event: invalid value 'flown'"),
        (f'{{"event":"connect",{TIME}}}\n', "object missing required field conn"),
        ('{"event":"lost","count":3,"where":"ring"}\n', "object missing required field time"),
        (f'{{"event":"lost",{TIME},"count":"3","where":"ring"}}\n', "count: expected int, got str"),
        (f'{{"event":"lost",{TIME},"count":3.0,"where":"ring"}}\n', "count: expected int, got float"),
        (f'{{"event":"lost",{TIME},"count":-1,"where":"ring"}}\n', "count: expected int >= 0"),
        (f'{{"event":"lost",{TIME},"count":{1 << 64},"where":"ring"}}\n', "count: there is no such number"),
        (f'{{"event":"lost",{TIME},"count":1,"where":"ring","from":"yesterday"}}\n', "from: 'yesterday' is no time"),
        ('{"event":"lost","time":"2026-13-20T07:50:09.123456789Z","count":1,"where":"a"}\n', "time: '2026-13-20"),
        ('{"event":"lost","time":"1969-12-31T23:59:59.999999999Z","count":1,"where":"a"}\n', "time: '1969-12-31"),
        ('{"event":"lost","time":"2026-11-20T07:50:09Z","count":1,"where":"a"}\n', "time: '2026-11-20T07:50:09Z' is"),
        (f'{{"event":"lost",{TIME},"count":1,"where":"\\ud800"}}\n', "it is no JSON"),
        (f'{{{OUT},"pid":"7"}}\n', "pid: expected int | null, got str"),
        (f'{{{OUT},"args":["a",1]}}\n', "args[1]: expected str, got int"),
        (f'{{{OUT},"parents":[-1]}}\n', "parents[0]: expected int >= 0"),
        (f'{{{OUT},"parents":[{1 << 64}]}}\n', "parents: there is no such number"),
        (f'{{{OUT},"nat":{{"addr":"::1","port":65536}}}}\n', "nat: there is no such number"),
        (f'{{{OUT},"service":{{"addr":1,"port":1}}}}\n', "service.addr: expected str, got int"),
        (f'{{{OUT},"fastopen":1}}\n', "fastopen: expected bool | null, got int"),
        (f'{{{OUT},"comm":"' + "a" * (1 << 20) + '"}\n', "it is longer than 1 MiB"),
    ],
)
def test_a_line_that_is_none_of_ours_is_refused_with_its_number(line: str, why: str) -> None:
    with pytest.raises(InvalidValue) as raised:
        read(LOST + line.encode())
    said = str(raised.value)
    assert said.startswith(f"--file: events.jsonl, line 2: {why}")
    assert said.endswith("; give a file that --format json wrote")
    assert said.isprintable()


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(InvalidValue, match="line 1: it is no JSON"):
        read(b'{"event":"lost","where":"\xff"}\n')


def test_keys_and_events_of_a_newer_version_are_left_alone() -> None:
    newer = f'{{"event":"flown",{TIME},"conn":5}}\n{{{OUT},"newer":{{"addr":"10.0.0.1"}},"pid":7}}\n'
    events, lines = read(newer.encode())
    assert events == [Connect(1_795_161_009_123_456_789, "1", "tcp", "out", pid=7)]
    assert lines.read == 2


def test_a_last_line_that_is_whole_needs_no_end() -> None:
    events, lines = read(LOST + LOST.rstrip())
    assert (len(events), lines.read, lines.cut_off) == (2, 2, None)


def test_an_empty_file_has_no_events() -> None:
    events, lines = read(b"")
    assert (events, lines.read, lines.cut_off) == ([], 0, None)


@pytest.mark.parametrize("name", ["", "nothing", "a\0b", "file/below"])
def test_a_file_that_is_not_there_is_wrong_usage(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidValue, match=r"--file: .* cannot be read: .*; give a file that --format json wrote"):
        open_file(str(tmp_path / name) if name else "")


def test_so_is_a_directory(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="Is a directory"):
        open_file(str(tmp_path))


def test_what_cannot_be_read_is_another_error() -> None:
    """The memory of a process has no first page."""
    with open_file("/proc/self/mem") as stream, pytest.raises(InputFailed, match="/proc/self/mem cannot be read: "):
        list(Lines(stream, "/proc/self/mem"))
    assert InputFailed.exit_status == 74


def test_a_pipe_is_read_as_it_is() -> None:
    reader, writer = os.pipe()
    os.write(writer, LOST)
    os.close(writer)
    with open_file(f"/proc/self/fd/{reader}") as stream:
        os.close(reader)
        assert len(list(Lines(stream, "pipe"))) == 1
