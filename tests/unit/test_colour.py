"""Colour: on a terminal only, unless asked otherwise, and never in the way of the text."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest

from pytracecon.commands import trace as verb
from pytracecon.commands.launch import coloured
from pytracecon.events import Accept, Close, Event, Failed, Lookup, Lost
from pytracecon.outputs import Output, colour
from pytracecon.outputs.json_lines import JsonLines
from pytracecon.outputs.sink import Sink
from pytracecon.views import trace

NOW = 1_795_161_009_123_456_789
ENDS: dict[str, Any] = {
    "conn": "00003fa2c18e0007",
    "proto": "tcp",
    "direction": "out",
    "local_addr": "10.0.0.5",
    "local_port": 41234,
    "remote_addr": "93.184.216.34",
    "remote_port": 443,
    "pid": 1234,
    "comm": "curl",
}
ACCEPTED = Accept(NOW, **ENDS)
FAILED = Failed(NOW, **ENDS, error="ECONNREFUSED", reason="refused", latency_ns=40_000)
RESET = Close(NOW, **ENDS, ended="remote_reset")
NOT_FOUND = Lookup(NOW, name="nobody.test", result="NXDOMAIN")
LOST = Lost(NOW, 3, "ring")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.mark.parametrize(
    ("choice", "terminal", "environment", "expected"),
    [
        ("auto", True, {}, True),
        ("auto", False, {}, False),
        ("auto", True, {"NO_COLOR": "1"}, False),
        ("auto", True, {"NO_COLOR": ""}, True),
        ("auto", True, {"TERM": "dumb"}, False),
        ("always", False, {}, True),
        ("always", False, {"NO_COLOR": "1"}, True),
        ("never", True, {}, False),
    ],
)
def test_when_there_is_colour(
    choice: str, terminal: bool, environment: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert colour.wanted(choice, terminal=terminal) == expected


@pytest.mark.parametrize(
    ("event", "style"), [(ACCEPTED, ""), (FAILED, "31"), (RESET, "33"), (NOT_FOUND, "31"), (LOST, "1;31")]
)
def test_what_went_wrong_stands_out(event: Event, style: str) -> None:
    assert colour.style(event) == style


@pytest.mark.parametrize(
    "event", [Close(NOW, **ENDS, ended="local_close"), Lookup(NOW, result="ok"), Lookup(NOW), Close(NOW, **ENDS)]
)
def test_what_went_as_usual_has_no_colour(event: Event) -> None:
    assert colour.style(event) == ""


EVENTS: list[Event] = [ACCEPTED, FAILED, RESET, NOT_FOUND, LOST]


def rendered(width: int | None, *, paint: bool) -> str:
    table = trace.table(lambda: width, utc=True)
    table.coloured = paint
    return (table.header() + b"".join(data for data, _ in table.render(EVENTS))).decode()


@pytest.mark.parametrize("width", [None, 200, 110, 80, 40, 20])
def test_colour_changes_nothing_but_the_colour(width: int | None) -> None:
    """Neither the layout nor the text; and each line that begins a colour ends it."""
    painted, plain = rendered(width, paint=True), rendered(width, paint=False)
    assert "\x1b" not in plain
    assert re.sub(r"\x1b\[[0-9;]*m", "", painted) == plain
    for line in painted.splitlines():
        assert re.fullmatch(r"[^\x1b]*|\x1b\[[0-9;]+m[^\x1b]*\x1b\[0m", line)


def test_a_line_has_the_colour_of_its_event() -> None:
    header, *lines = rendered(None, paint=True).splitlines()
    assert header.startswith("\x1b[1mTIME ")
    begun = [match[1] if (match := re.match(r"\x1b\[([0-9;]+)m", line)) else "" for line in lines]
    assert begun == [colour.style(event) for event in EVENTS]


@pytest.fixture
def terminal() -> Any:
    """Both ends of a terminal: what is read from it, and what is written to."""
    reading, writing = os.openpty()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def table_for(handle: int, *words: str) -> Output:
    """The table that `pytracecon WORDS` writes to this."""
    options = verb.parser().parse_args(list(words))
    sink = Sink(handle, "here")
    return coloured(trace.table(sink.terminal_width, utc=True), options.color, sink)


@pytest.mark.parametrize(
    ("words", "on_terminal", "in_pipe"),
    [([], True, False), (["--color", "always"], True, True), (["--color", "never"], False, False)],
)
def test_the_option_chooses(words: list[str], on_terminal: bool, in_pipe: bool, terminal: Any) -> None:
    assert (b"\x1b" in table_for(terminal[1], *words).header()) == on_terminal
    reading, writing = os.pipe()
    try:
        assert (b"\x1b" in table_for(writing, *words).header()) == in_pipe
    finally:
        os.close(reading)
        os.close(writing)


def test_a_terminal_is_as_wide_as_columns_says(terminal: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe has no width, whatever COLUMNS says."""
    monkeypatch.setenv("COLUMNS", "52")
    assert Sink(terminal[1], "here").terminal_width() == 52
    reading, writing = os.pipe()
    try:
        assert Sink(writing, "here").terminal_width() is None
    finally:
        os.close(reading)
        os.close(writing)


def test_what_is_no_table_has_no_colour(terminal: Any) -> None:
    output = coloured(JsonLines(), "always", Sink(terminal[1], "here"))
    assert b"\x1b" not in b"".join(data for data, _ in output.render(EVENTS))
