"""`pytracecon explain`: one connection's life, from its events to words; live, and of a file."""

from __future__ import annotations

import io
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytracecon.cli import main
from pytracecon.commands import explain as verb
from pytracecon.errors import InvalidValue
from pytracecon.events import (
    Accept,
    Close,
    Connect,
    ConnectionEvent,
    Endpoint,
    Established,
    Event,
    Existing,
    Failed,
    Lookup,
    Lost,
    Process,
    Reset,
    Retransmit,
    State,
)
from pytracecon.lives import Life, Lives
from pytracecon.outputs.json_lines import JsonLines
from pytracecon.outputs.lives import LifeScreens
from pytracecon.text import width
from pytracecon.views.explain import choice, screen
from unit.test_outputs import an_event

Explain = Callable[..., tuple[int, str, str]]

MS = 1_000_000
NOW = 1_795_161_009_000_000_000  # 2026-11-20T07:50:09Z
CONN, OTHER = "00003fa2c18e0007", "00003fb000000001"
ENDS: dict[str, Any] = {
    "conn": CONN,
    "proto": "tcp",
    "direction": "out",
    "local_addr": "10.0.0.5",
    "local_port": 48968,
    "remote_addr": "10.0.0.7",
    "remote_port": 8080,
    "netns": 4026531840,
    "pid": 15588,
    "comm": "curl",
    "uid": 1000,
    "owner": "connect",
}
CURL = ENDS | {
    "host": "www.example.com",
    "host_source": "getaddrinfo",
    "process": Process(
        container="4f66ad9a0b2e" + "0" * 52,
        container_name="shop",
        unit="reports.service",
        exe="/usr/bin/curl",
        exe_source="exec",
        args=["curl", "-s", "http://www.example.com:8080/"],
    ),
}
ASKED: dict[str, Any] = {"pid": 15588, "addresses": ["2001:db8::7", "10.0.0.7"], "result": "ok"}
LOOKUP = Lookup(NOW, **ASKED, name="www.example.com.", latency_ns=8 * MS, source="getaddrinfo")
WHOLE: list[Event] = [
    LOOKUP,
    State(NOW + 2 * MS, **CURL, old="CLOSE", new="SYN_SENT", meaning="open"),
    Connect(NOW + 2 * MS, **CURL),
    State(NOW + 6 * MS, **CURL, old="SYN_SENT", new="ESTABLISHED", in_old_ns=4 * MS),
    Established(NOW + 6 * MS, **CURL, latency_ns=4 * MS, syn_retransmits=0),
    Retransmit(NOW + 10 * MS, **CURL, state="ESTABLISHED", segment="data", segments=2),
    State(
        NOW + 26 * MS, **CURL, old="ESTABLISHED", new="CLOSE_WAIT", in_old_ns=20 * MS, meaning="closed_by_server"
    ),
    State(NOW + 30 * MS, **CURL, old="CLOSE_WAIT", new="LAST_ACK", in_old_ns=4 * MS),
    State(NOW + 32 * MS, **CURL, old="LAST_ACK", new="CLOSE", in_old_ns=2 * MS),
    Close(
        NOW + 32 * MS, **CURL, duration_ns=26 * MS, tx_bytes=88, tx_acked=80, rx_bytes=48401, retransmits=2,
        rtt_ns=172_000, ended="remote_close",
    ),
]  # fmt: skip
REFUSED: list[Event] = [
    Connect(NOW, **ENDS),
    Reset(NOW + MS, **ENDS, sent=False, state="SYN_SENT"),
    Failed(NOW + MS, **ENDS, error="ECONNREFUSED", reason="refused", latency_ns=MS, syn_retransmits=0),
]
SERVED = ENDS | {"conn": OTHER, "direction": "in", "owner": "accept", "comm": "nginx", "pid": 998}


@pytest.fixture(autouse=True)
def python_handles_sigint() -> Iterator[None]:
    """`main` gives SIGINT back to the kernel, for a process of its own."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def life_of(events: Iterable[Event]) -> Life:
    """The only one."""
    lives = Lives()
    for event in events:
        lives.take(event)
    (life,) = lives.all.values()
    return life


def told(events: Iterable[Event], terminal: int | None = None, **how: Any) -> str:
    return screen(life_of(events), lambda: terminal, utc=True, **how)


def fact(label: str, events: Iterable[Event]) -> str | None:
    lines = [line for line in told(events).splitlines() if line.startswith(f"{label} ")]
    assert len(lines) <= 1, lines
    return lines[0][13:] if lines else None


def took(events: Iterable[Event]) -> dict[str, int]:
    return {phase.name: phase.took_ns for phase in life_of(events).phases()}


def test_a_whole_life_on_one_screen() -> None:
    assert (
        told(WHOLE, 80)
        == """\
curl (15588) → www.example.com:8080: closed by the server after 26.00 ms
connection   00003fa2c18e0007: 10.0.0.5:48968 → 10.0.0.7:8080, TCP
began        2026-11-20 07:50:08.992000 UTC
process      curl (15588), user 1000, connected, network namespace 4026531840
program      /usr/bin/curl: curl -s http://www.example.com:8080/
part of      container shop (4f66ad9a0b2e), unit reports.service
name         www.example.com, it asked its libc (getaddrinfo)
payload      88 B out (8 B of them not acknowledged), 48401 B in
sent again   2 segments: 2 data
round trip   0.17 ms
end          the server closed it first; this side (the client) followed after
             4.00 ms

PHASE                  TOOK
resolver            8.00 ms  |########                                |
until the SYN       2.00 ms  |        ##                              |
handshake           4.00 ms  |          ####                          |
open               20.00 ms  |              ####################      |
closing             6.00 ms  |                                  ######|

TIME                  SINCE EVENT       WHAT
07:50:09.000000     8.00 ms lookup      www.example.com. → 2001:db8::7,
                                        10.0.0.7, 8.00 ms (getaddrinfo)
07:50:09.002000    10.00 ms state       CLOSE → SYN_SENT, open
07:50:09.002000    10.00 ms connect     the first SYN left
07:50:09.006000    14.00 ms state       SYN_SENT → ESTABLISHED after 4.00 ms
07:50:09.006000    14.00 ms established 4.00 ms
07:50:09.010000    18.00 ms retransmit  2 segments of data in ESTABLISHED
07:50:09.026000    34.00 ms state       ESTABLISHED → CLOSE_WAIT after 20.00 ms,
                                        closed by server
07:50:09.030000    38.00 ms state       CLOSE_WAIT → LAST_ACK after 4.00 ms
07:50:09.032000    40.00 ms state       LAST_ACK → CLOSE after 2.00 ms
07:50:09.032000    40.00 ms close       26.00 ms, 88 B out (8 B unacknowledged),
                                        48401 B in, 2 retransmits,
                                        closed by remote
"""
    )


def test_phases_last_as_the_events_say() -> None:
    """What happened between two events is nearly that, and not it."""
    assert took(WHOLE) == {
        "resolver": 8 * MS,
        "until the SYN": 2 * MS,
        "handshake": 4 * MS,
        "open": 20 * MS,
        "closing": 6 * MS,
    }
    without_states = [event for event in WHOLE if not isinstance(event, State)]
    assert took(without_states) == {
        "resolver": 8 * MS,
        "until the SYN": 2 * MS,
        "handshake": 4 * MS,
        "open to over": 26 * MS,
    }
    assert took(REFUSED) == {"attempt": MS}


def test_an_accepted_connection_waits_for_its_process() -> None:
    events: list[Event] = [
        State(NOW, **SERVED, old="LISTEN", new="SYN_RECV", meaning="open"),
        State(NOW + MS, **SERVED, old="SYN_RECV", new="ESTABLISHED", in_old_ns=MS),
        Accept(NOW + 4 * MS, **SERVED, wait_ns=3 * MS),
    ]
    assert took(events) == {"handshake": MS, "until accepted": 3 * MS}
    lines = told(events).splitlines()
    assert lines[0] == "nginx (998) ← 10.0.0.7:8080: not over, ESTABLISHED"
    assert fact("end", events) == "not among these events; the last state is ESTABLISHED"


LATER: dict[str, Any] = {
    "pid": 15588,
    "addresses": ["10.0.0.7"],
    "name": "www.example.com",
    "result": "ok",
    "latency_ns": 5,
}


@pytest.mark.parametrize(
    ("lookups", "belongs"),
    [
        ([LOOKUP], 0),
        ([LOOKUP, Lookup(NOW + MS, **LATER)], 1),
        ([Lookup(NOW + 2 * MS, **LATER)], 0),
        ([Lookup(NOW + 2 * MS + 1, **LATER)], None),
        ([LOOKUP, Lookup(NOW + 3 * MS, **LATER)], 0),
        ([Lookup(NOW, **LATER | {"pid": 15589})], None),
        ([Lookup(NOW, **LATER | {"addresses": ["10.0.0.8"]})], None),
        ([Lookup(NOW, **LATER | {"addresses": None})], None),
        ([Lookup(NOW, **LATER | {"name": "WWW.Example.COM"})], 0),
        ([Lookup(NOW, **LATER | {"name": "example.com"})], None),
        ([Lookup(NOW, **LATER | {"name": None})], None),
    ],
)
def test_the_lookup_is_the_latest_that_gave_its_process_this_name(lookups: list[Lookup], belongs: int | None) -> None:
    assert life_of([*lookups, *WHOLE[1:]]).lookup is (None if belongs is None else lookups[belongs])


def test_a_name_that_comes_later_finds_its_lookup_too() -> None:
    """As that of a TLS ClientHello."""
    bare: list[Event] = [LOOKUP, Connect(NOW + MS, **ENDS), Established(NOW + 2 * MS, **ENDS, latency_ns=MS)]
    assert life_of(bare).lookup is None
    assert life_of([*bare, Close(NOW + 9 * MS, **CURL | {"host_source": "sni"})]).lookup is LOOKUP


CLOSED: dict[str, Any] = {"tx_bytes": 10, "tx_acked": 4, "rx_bytes": 0, "retransmits": 3}


@pytest.mark.parametrize(
    ("events", "why"),
    [
        (REFUSED, "refused (ECONNREFUSED): a reset came in answer to the SYN, as where nothing listens on port 8080"),
        (
            [REFUSED[0], REFUSED[2]],
            "refused (ECONNREFUSED): the answer was a refusal, as where nothing listens on port 8080",
        ),
        (
            [Failed(NOW, **ENDS, error="ETIMEDOUT", reason="timeout", syn_retransmits=6)],
            "timed out (ETIMEDOUT): no answer came to the SYN; the SYN was sent again 6 times",
        ),
        (
            [Failed(NOW, **ENDS, error="EHOSTUNREACH", reason="unreachable")],
            "unreachable (EHOSTUNREACH): no route leads there, or a router or neighbour said so",
        ),
        (
            [Failed(NOW, **ENDS, error="EPERM", reason="denied")],
            "not allowed (EPERM): this host did not let it: a firewall or another rule of its own",
        ),
        (
            [Failed(NOW, **ENDS, reason="cancelled", syn_retransmits=1)],
            "cancelled: its process gave up before there was an answer; the SYN was sent again once",
        ),
        ([Failed(NOW, **ENDS, error="EIO")], "failed (EIO): there was no connection"),
        ([Failed(NOW, **ENDS)], "failed: there was no connection"),
        ([Close(NOW, **ENDS, ended="local_close")], "this side (the client) closed it first"),
        ([Close(NOW, **SERVED, ended="local_close")], "this side (the server) closed it first"),
        ([Close(NOW, **ENDS | {"direction": "unknown"}, ended="remote_close")], "the other side closed it first"),
        (
            [Reset(NOW, **ENDS, sent=False, state="ESTABLISHED"), Close(NOW, **ENDS, **CLOSED, ended="remote_reset")],
            "the server cut it with a reset in ESTABLISHED; 6 B sent were not acknowledged",
        ),
        (
            [Close(NOW, **ENDS, ended="local_reset"), Reset(NOW, **ENDS, sent=True, state="CLOSE_WAIT")],
            "this side (the client) cut it with a reset in CLOSE_WAIT",
        ),
        (
            [Close(NOW, **ENDS, **CLOSED, ended="timeout")],
            "the server did not answer any more; 3 segments were sent again; 6 B sent were not acknowledged",
        ),
        ([Close(NOW, **ENDS)], "how is not known"),
        ([Connect(NOW, **ENDS)], "not among these events; the last state is SYN_SENT"),
        ([Existing(NOW, **ENDS, state="CLOSE_WAIT")], "not among these events; the last state is CLOSE_WAIT"),
        (
            [Retransmit(NOW, **SERVED, segment="synack", state="SYN_RECV")],
            "not among these events; the last state is SYN_RECV",
        ),
        ([Reset(NOW, **ENDS, sent=True)], "not among these events; the last state is ?"),
    ],
)
def test_how_it_ended_and_why_in_words(events: list[Event], why: str) -> None:
    assert fact("end", events) == why


@pytest.mark.parametrize(
    ("events", "missing"),
    [
        (WHOLE, None),
        ([Retransmit(NOW, **SERVED, segment="synack")], None),
        ([Retransmit(NOW, **SERVED, segment="data")], "how it began is not among these events"),
        ([Close(NOW, **ENDS)], "how it began is not among these events"),
        ([Close(NOW, **ENDS, pre_existing=True)], "it is older than the tracer: how it began was not seen"),
        (
            [Connect(NOW, **ENDS, partial=True)],
            "the tracer's table was full, and it forgot something of this connection",
        ),
    ],
)
def test_what_is_missing_is_said(events: list[Event], missing: str | None) -> None:
    assert fact("missing", events) == missing


def test_records_that_were_lost_meanwhile_are_said() -> None:
    lives = Lives()
    lost = [Lost(NOW - 99, 1, "ring", NOW - 2, NOW - 1), Lost(NOW, 2, "ring", NOW - 1, NOW), Lost(NOW + 1, 4, "map")]
    for event in [*lost, *REFUSED, Lost(NOW + 2 * MS, 8, "map")]:
        lives.take(event)
    life = lives.all[CONN]
    assert lives.lost_in(life) == 6
    assert "missing      6 records lost in this time, perhaps of this connection\n" in told(REFUSED, lost=6)


def test_of_nothing_known_nothing_is_said() -> None:
    bare: dict[str, Any] = {"conn": "7", "proto": "tcp", "direction": "unknown"}
    lines = told([Close(NOW, **bare)]).splitlines()
    assert lines[0] == "? (?) → ?: over"
    labels = [line.split()[0] for line in lines if line]
    assert labels[:6] == ["?", "connection", "began", "process", "end", "missing"]
    assert "PHASE" not in "".join(lines)


def test_where_it_really_goes_is_said() -> None:
    there = ENDS | {"service": Endpoint("10.9.0.1", 80), "nat": Endpoint("::9", 81)}
    assert fact("real server", [Connect(NOW, **there)]) == "10.9.0.1:80 (behind the virtual service of IPVS)"
    assert fact("goes to", [Connect(NOW, **there)]) == "[::9]:81 (as a rule for packets translates it)"


def test_names_that_fit_as_well_are_named() -> None:
    events: list[Event] = [Connect(NOW, **CURL, host_candidates=["www.example.com", "b.example.com"])]
    assert fact("name", events) == ("www.example.com, it asked its libc (getaddrinfo); b.example.com would fit as well")


def test_segments_like_each_other_are_told_together() -> None:
    syns: list[Event] = [
        Retransmit(NOW + at * MS, **ENDS, state="SYN_SENT", segment="syn", segments=1) for at in range(1, 7)
    ]
    events = [Connect(NOW, **ENDS), *syns, Retransmit(NOW + 9 * MS, **ENDS, state="ESTABLISHED", segment="data")]
    rows = [line for line in told(events).splitlines() if "retransmit" in line]
    assert [row.split("retransmit")[1].strip() for row in rows] == [
        "SYN in SYN_SENT, 6 times until 6.00 ms",
        "data in ESTABLISHED",
    ]
    assert fact("sent again", events) == "7 segments: 6 SYN, 1 data"
    assert told([*events[:3]]).count("retransmit ") == 2


def test_a_long_life_is_bounded_and_says_so() -> None:
    again: list[Event] = [Retransmit(NOW, **ENDS, segment="data", state="ESTABLISHED") for _ in range(1500)]
    life = life_of([Connect(NOW, **ENDS), *again, Close(NOW + MS, **ENDS, ended="timeout")])
    assert len(life.events) == 1001
    assert life.left_out == 501
    assert life.end is not None
    assert "501 more segments sent again or resets, not listed" in screen(life, lambda: None)


ALL: tuple[type[Event], ...] = (
    Connect,
    Established,
    Failed,
    Accept,
    Close,
    Existing,
    State,
    Retransmit,
    Reset,
    Lookup,
    Lost,
)
FOREIGN = "\x1b]52;c;eA==\x07\u202e\n"


def test_nothing_foreign_is_obeyed_whichever_key_it_is_in() -> None:
    """A file is somebody else's, all of it."""
    values: dict[str, Any] = {
        key: FOREIGN if isinstance(value, str) and key not in ("conn", "direction") else value
        for key, value in CURL.items()
    }
    values["process"] = Process(container=FOREIGN, pod=FOREIGN, unit=FOREIGN, exe=FOREIGN, args=[FOREIGN])
    values |= {"host_candidates": [FOREIGN], "nat": Endpoint(FOREIGN, 1), "thread": FOREIGN, "tid": 1}
    events: list[Event] = [
        Lookup(NOW, pid=15588, name=FOREIGN, addresses=[FOREIGN], result=FOREIGN, source=FOREIGN, server=FOREIGN),
        State(NOW, **values, old=FOREIGN, new=FOREIGN, meaning=FOREIGN),
        Retransmit(NOW, **values, segment=FOREIGN, state=FOREIGN, meaning=FOREIGN),
        Reset(NOW, **values, sent=True, state=FOREIGN),
        Failed(NOW, **values, error=FOREIGN, reason=FOREIGN),
        Close(NOW, **values, ended=FOREIGN),
    ]
    for terminal in (None, 80, 10):
        shown = told(events, terminal)
        assert all(line.isprintable() for line in shown.splitlines()), shown
        listed = choice([life_of(events)], lambda terminal=terminal: terminal, utc=True)  # type: ignore[misc]
        assert all(line.isprintable() for line in listed.splitlines()), listed


@given(st.lists(st.one_of([an_event(kind) for kind in ALL]), min_size=1, max_size=8), st.sampled_from([None, 80]))
def test_whatever_a_file_says_there_is_a_screen(events: list[Event], terminal: int | None) -> None:
    lives = Lives(the_one=True)
    for event in events:
        lives.take(replace(event, conn=CONN) if isinstance(event, ConnectionEvent) else event)
    for life in lives.all.values():
        shown = screen(life, lambda: terminal, lost=lives.lost_in(life))
        assert all(line.isprintable() for line in shown.splitlines())
        assert shown.endswith("\n")


@pytest.mark.parametrize("terminal", [1, 20, 40, 60, 80, 200])
def test_nothing_runs_over_the_edge(terminal: int) -> None:
    wide = CURL | {"comm": "名前" * 3, "process": Process(exe="/" + "x" * 300, args=["名" * 100, "b c"])}
    for events in (WHOLE, REFUSED, [Connect(NOW, **wide)]):
        lines = told(events, terminal).splitlines()
        if terminal >= 40:
            assert max(map(width, lines)) <= terminal
        assert lines


def test_colour_marks_what_went_wrong_and_changes_no_text() -> None:
    for events, style in ((REFUSED, "31"), (WHOLE, "1")):
        plain, coloured = told(events, 80), told(events, 80, coloured=True)
        assert coloured.startswith(f"\x1b[{style}m")
        assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain
        assert "\x1b" not in plain


# Live


def live(events: Iterable[Event], line: str = "", *, batch: int = 1 << 30, last: bool = True) -> list[str]:
    """What is written of events that are told in batches of that size, a screen each."""
    options = verb.parser().parse_args(line.split())
    _, chosen = verb.keywords(options)
    screens = LifeScreens(wanted=chosen, paths=bool(options.verbose), unfinished=options.count is None, utc=True)
    pending, pieces = list(events), []
    while pending:
        now, pending = pending[:batch], pending[batch:]
        pieces += screens.render(list(filter(screens.passes, now)))
    pieces += screens.sum_up(last=True) if last else []
    return [piece.decode().removeprefix("\n") for piece, _ in pieces]


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_each_life_is_told_once_when_it_is_over(batch: int) -> None:
    assert live([*WHOLE, Lost(NOW + 99 * MS, 2, "ring")], batch=batch, last=False) == [
        told(WHOLE),
        "lost 2 records (ring full)\n",
    ]


def test_one_that_ends_in_its_handshake_has_an_end() -> None:
    events: list[Event] = [
        State(NOW, **SERVED, old="LISTEN", new="SYN_RECV"),
        State(NOW + MS, **SERVED, old="SYN_RECV", new="CLOSE", in_old_ns=MS),
    ]
    (told_of_it,) = live(events, last=False)
    assert told_of_it.startswith("nginx (998) ← 10.0.0.7:8080: ended in the handshake\n")


def test_a_socket_that_listens_is_no_connection(explain: Explain) -> None:
    listener = SERVED | {"remote_addr": None, "remote_port": None}
    events: list[Event] = [
        State(NOW, **listener, old="CLOSE", new="LISTEN"),
        State(NOW + MS, **listener, old="LISTEN", new="CLOSE", in_old_ns=MS),
    ]
    assert live(events) == []
    assert explain([*events, *WHOLE]) == (0, told(WHOLE), "")


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_the_reset_of_its_own_process_which_comes_behind_is_told_with_it(batch: int) -> None:
    """The socket leaves its state first, and then sends."""
    events: list[Event] = [
        Established(NOW, **ENDS),
        Close(NOW, **ENDS, ended="local_reset"),
        Reset(NOW, **ENDS, sent=True, state="ESTABLISHED"),
    ]
    assert live(events, batch=batch, last=False) == [told(events)]
    assert live(events[:2], batch=batch, last=False) == []
    assert live(events[:2], batch=batch, last=True) == [told(events[:2])]


def test_one_that_waits_for_a_reset_in_vain_is_told_all_the_same() -> None:
    screens = LifeScreens(utc=True)
    for event in (Established(NOW, **ENDS), Close(NOW, **ENDS, ended="local_reset")):
        assert not screens.passes(event)
    assert screens.sum_up(last=False) == []
    assert len(screens.sum_up(last=False)) == 1
    assert screens.sum_up(last=False) == []
    assert not screens.passes(Reset(NOW, **ENDS, sent=True)), "too late: it was told"
    assert screens.sum_up(last=True) == []


def test_those_that_are_not_over_are_told_at_the_end() -> None:
    opened: list[Event] = [Connect(NOW, **ENDS), Established(NOW, **ENDS)]
    assert live(opened) == [told(opened)]
    assert live(opened, "--count 1") == []
    many = [Connect(NOW, **ENDS | {"conn": f"{number:016x}"}) for number in range(11)]
    (listed,) = live(many)
    assert listed.count("not over, SYN_SENT\n") == 11


def test_on_a_terminal_they_stand_behind_the_ctrl_c() -> None:
    opened = Connect(NOW, **ENDS)
    screens = LifeScreens(utc=True).onto(lambda: 80, coloured=False)
    assert not screens.passes(opened)
    assert [piece.decode() for piece, _ in screens.sum_up(last=True)] == ["\n" + told([opened], 80)]


@pytest.mark.parametrize(
    ("line", "chosen"),
    [
        ("", True),
        ("--failed", False),
        ("--host *.EXAMPLE.com", True),
        ("--host a.example.com", False),
        ("--min-latency 4", True),
        ("--min-latency 4.1", False),
        ("--unit reports*", True),
        ("--container shop --exe curl", True),
        ("--container other", False),
    ],
)
def test_filters_look_at_the_whole_life(line: str, chosen: bool) -> None:
    assert live(WHOLE, line) == ([told(WHOLE)] if chosen else [])


def test_of_failures_only_failures_are_told() -> None:
    assert live([*WHOLE, *(of_another(event) for event in REFUSED)], "--failed") == [
        told([of_another(event) for event in REFUSED])
    ]


def of_another(event: Event, conn: str = OTHER) -> ConnectionEvent:
    assert isinstance(event, ConnectionEvent)
    return replace(event, conn=conn)


@pytest.mark.parametrize(("line", "shown"), [("", 0), ("-v", 1)])
def test_a_path_of_a_connection_is_told_to_those_who_want_more(line: str, shown: int) -> None:
    assert len(live([Failed(NOW, **ENDS, subflow_of=OTHER)], line)) == shown


EVERY = ["connect", "established", "failed", "accept", "close", "state", "retransmit", "reset"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", {"events": [*EVERY, "lookup"]}),
        ("--no-names", {"events": EVERY, "names": False}),
        ("--pid 1 --failed --host a --exe b --min-latency 5", {"events": [*EVERY, "lookup"], "pid": ["1"]}),
        ("--format json --host a", {"events": [*EVERY, "lookup"], "host": ["a"]}),
    ],
)
def test_everything_is_traced_of_what_the_filters_leave(line: str, expected: dict[str, Any]) -> None:
    given, _ = verb.keywords(verb.parser().parse_args(line.split()))
    assert given == expected


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("3fa2", "CONN: of which events?"),
        ("--port 0", "--port"),
        ("--show pid", "--show"),
        ("--host a --no-names", "--no-names"),
        ("--count 0", "--count"),
        ("--file a 1 2", "2"),
        ("--file a xyz", "CONN: xyz is no identity"),
        (f"--file a {'0' * 17}", "is no identity"),
        ("--file a --pid 1", "--pid"),
        ("--file a -4", "-4 and -6"),
        ("--file a --no-names", "--no-names"),
        ("--file a --count 1", "--count"),
        ("--file a --duration 1", "--duration"),
        ("--file a --fail-on-loss", "--fail-on-loss"),
        ("--file a --format json", "--format"),
        ("--file a --template {pid}", "--template"),
        ("--file a -a", "-a"),
        ("--file /nowhere/at/all", "--file: /nowhere/at/all cannot be read: No such file or directory"),
        ("--file /", "--file: / cannot be read: Is a directory"),
    ],
)
def test_wrong_usage_is_one_line(line: str, named: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", *line.split()]) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert named in err


# Of a file


@pytest.fixture
def explain(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Explain:
    """Of these events, as they were written; or of these bytes."""

    def run(events: list[Event] | bytes, *words: str) -> tuple[int, str, str]:
        data = events if isinstance(events, bytes) else written(events)
        (tmp_path / "events.jsonl").write_bytes(data)
        status = main(["explain", "--utc", "--file", str(tmp_path / "events.jsonl"), *words])
        out, err = capfd.readouterr()
        return status, out, err.replace(f"{tmp_path}/", "")

    return run


def written(events: list[Event]) -> bytes:
    return b"".join(piece for piece, _ in JsonLines().render(events))


TWO = [*WHOLE, *(of_another(event) for event in REFUSED)]


def test_a_file_says_what_was_said_live(explain: Explain) -> None:
    for events in (WHOLE, REFUSED):
        assert explain(events) == (0, *live(events), "")


@pytest.mark.parametrize("conn", [CONN, CONN.upper(), "00003fa", CONN[:12], "3fa2"])
def test_one_of_several_is_named_by_how_its_identity_begins(explain: Explain, conn: str) -> None:
    assert explain(TWO, conn) == (0, told(WHOLE), "")


def test_of_several_it_says_which_there_are(explain: Explain) -> None:
    assert explain(TWO) == (
        0,
        """\
TIME     CONN             PROCESS        TO                   END
07:50:08 00003fa2c18e0007 curl (15588)   www.example.com:8080 closed by the server after 26.00 ms
07:50:09 00003fb000000001 curl (15588)   10.0.0.7:8080        refused after 1.00 ms
""",
        "pytracecon: 2 connections; for one of them: pytracecon explain --file events.jsonl CONN\n",
    )


@pytest.mark.parametrize(
    ("events", "words", "said"),
    [
        (b"", [], "--file: events.jsonl is empty; give a file that --format json wrote"),
        (b"GIF89a", [], "--file: events.jsonl, line 1: it is no JSON; give a file that --format json wrote"),
        (b'{"a":1}\n', [], "--file: events.jsonl, line 1: object missing required field event; give"),
        ([LOOKUP], [], "--file: events.jsonl tells of no connection; give one with --events that are"),
        (TWO, ["9"], "CONN: no connection in events.jsonl begins with 9; leave it out to see which"),
        (TWO, ["00"], f"CONN: 00 begins {CONN}, {OTHER}; give more digits"),
        ([*WHOLE, *WHOLE], [], f"CONN: {CONN} is in two runs that this file holds; give a file with one of them"),
        (written(WHOLE)[:9], [], "--file: events.jsonl has one line, which is cut off; give a file"),
    ],
)
def test_bad_input_is_one_line(explain: Explain, events: list[Event] | bytes, words: list[str], said: str) -> None:
    status, out, err = explain(events, *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"pytracecon: {said}")


def test_of_a_file_that_is_cut_off_what_is_whole_is_told(explain: Explain) -> None:
    status, out, err = explain(written(WHOLE)[:-9])
    assert (status, out) == (2, told(WHOLE[:-1]))
    assert err == (
        "pytracecon: --file: events.jsonl, line 10: it is cut off, and left out; what stands before it is told\n"
    )


def test_standard_input_and_an_output_file(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytracecon", "explain", "--utc", "--file", "-", "-o", str(tmp_path / "told")]
    ended = subprocess.run(command, input=written(WHOLE), capture_output=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
    assert (tmp_path / "told").read_text() == told(WHOLE)


def test_a_terminal_has_colour_and_its_own_width(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(written(REFUSED))
    leader, terminal = pty.openpty()
    command = [sys.executable, "-m", "pytracecon", "explain", "--utc", "--file", str(tmp_path / "events.jsonl")]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80"}
    ended = subprocess.run(command, stdout=terminal, stderr=subprocess.PIPE, check=False, env=environment)
    os.close(terminal)
    shown = b""
    with io.FileIO(leader) as reader:
        while b"failed " not in shown:
            shown += reader.read(4096) or b""
    assert ended.returncode == 0, ended.stderr
    assert shown.replace(b"\r\n", b"\n").decode().startswith(told(REFUSED, 80, coloured=True)[:400])


def test_of_a_large_file_only_what_is_asked_for_is_kept() -> None:
    lives = Lives(OTHER, the_one=True)
    for number in range(2000):
        lives.take(Connect(NOW, **ENDS | {"conn": f"{number:016x}"}))
    assert lives.all == {}
    several = Lives(the_one=True, most=100)
    for number in range(2000):
        for event in WHOLE[1:]:
            several.take(of_another(event, f"{number:016x}"))
    assert len(several.all) == 100
    assert several.there_are_more
    assert max(len(life.events) for life in several.all.values()) <= 3


def test_live_the_oldest_is_forgotten_where_there_are_too_many() -> None:
    lives = Lives(most=2)
    for number in range(3):
        lives.take(Connect(NOW, **ENDS | {"conn": f"{number:016x}"}))
    assert [life.conn[-1] for life in lives.all.values()] == ["1", "2"]


def test_an_identity_is_hex_digits() -> None:
    with pytest.raises(InvalidValue, match="up to 16 hex digits"):
        verb._prefix("0x3fa2")
