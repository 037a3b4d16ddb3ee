"""`pytracecon retrans`: the options and columns of tcpretrans, from events to rows, and its counts."""

from __future__ import annotations

import os
from typing import Any

import pytest

from pytracecon.cli import main
from pytracecon.commands import retrans
from pytracecon.events import Event, Lost, Reset, Retransmit
from pytracecon.views.retrans import Counts, cells, table
from unit.written import keywords, rows

NOW = 1_795_161_009_123_456_789  # 07:50:09 UTC
CURL: dict[str, Any] = {
    "conn": "1",
    "proto": "tcp",
    "direction": "out",
    "local_addr": "10.0.0.5",
    "local_port": 41234,
    "remote_addr": "10.0.0.7",
    "remote_port": 443,
    "pid": 1479,
    "comm": "curl",
}
SIX = CURL | {"local_addr": "2001:db8::5", "remote_addr": "2001:db8::7"}
EVENTS: list[Event] = [
    Retransmit(NOW, **CURL, state="SYN_SENT", segment="syn", segments=1, meaning="slow_establishing"),
    Retransmit(NOW, **SIX, state="ESTABLISHED", segment="data", segments=3),
    Reset(NOW, **CURL, sent=True, state="ESTABLISHED"),
    Reset(NOW, **CURL, sent=False, state="SYN_SENT"),
]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", {}),
        (f"-p {os.getpid()}", {"pid": [str(os.getpid())]}),
        ("-4", {"family": 4}),
        ("-6", {"family": 6}),
        ("--port 443 --local-port 80", {"port": ["443"], "local_port": ["80"]}),
        ("-c", {}),
        ("--segment", {}),
        ("--reset", {"events": ["retransmit", "reset"]}),
        ("--host *.a", {"host": ["*.a"], "names": True}),
        ("--format json", {"names": True, "processes": True}),
    ],
)
def test_filters_are_the_tracers(line: str, expected: dict[str, Any]) -> None:
    assert keywords(retrans.VERB, line) == {"events": ["retransmit"], "names": False, "processes": False} | expected


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("-4 -6", "-6"),
        ("-c --reset", "--reset"),
        ("-c --segment", "--segment"),
        ("-c --format json", "-c"),
        ("-c --template {pid}", "-c"),
        ("-c --show exe", "--show"),
        ("--show count", "--show"),
        ("--failed", "--failed"),
        ("--min-latency 1", "--min-latency"),
        ("-l", "-l"),
    ],
)
def test_wrong_usage_is_one_line(line: str, named: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["retrans", *line.split()]) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert named in err


def test_rows_are_those_of_tcpretrans() -> None:
    assert rows(retrans.VERB, "--utc", EVENTS[:2]) == [
        "TIME     PID     IP LADDR:LPORT          T> RADDR:RPORT          STATE",
        "07:50:09 1479    4  10.0.0.5:41234       R> 10.0.0.7:443         SYN_SENT",
        "07:50:09 1479    6  [2001:db8::5]:41234  R> [2001:db8::7]:443    ESTABLISHED",
    ]


def test_resets_are_told_on_request_and_what_each_segment_is() -> None:
    header, *told = (row.split() for row in rows(retrans.VERB, "--reset", EVENTS))
    assert header[4:] == ["T>", "RADDR:RPORT", "STATE", "SEGMENT", "SEGMENTS"]
    assert [[row[4], *row[6:]] for row in told] == [
        ["R>", "SYN_SENT", "SYN", "1"],
        ["R>", "ESTABLISHED", "DATA", "3"],
        ["R>", "ESTABLISHED", "RST", "1"],
        ["<R", "SYN_SENT", "RST", "1"],
    ]
    assert rows(retrans.VERB, "--segment", EVENTS[:1]) == rows(retrans.VERB, "--reset", EVENTS[:1])


def test_counts_are_of_segments_the_most_first() -> None:
    assert rows(retrans.VERB, "-c", [*EVENTS[:2], Lost(NOW, 2, "ring"), EVENTS[0]]) == [
        "LADDR:LPORT               RADDR:RPORT               RETRANSMITS",
        "[2001:db8::5]:41234       [2001:db8::7]:443         3",
        "10.0.0.5:41234            10.0.0.7:443              2",
        "lost 2 records (ring full)",
    ]


def test_counts_carry_the_events_that_they_tell_of() -> None:
    counts = Counts(lambda: None)
    assert counts.render([EVENTS[1], EVENTS[1], EVENTS[0], Lost(NOW, 2, "ring")]) == []
    assert counts.untold == 4
    assert counts.sum_up(last=False) == []
    assert [events for _, events in counts.sum_up(last=True)] == [0, 2, 1, 1]
    assert counts.untold == 0


def test_counts_are_bounded() -> None:
    counts = Counts(lambda: None)
    addresses = (f"10.{at >> 16}.{at >> 8 & 255}.{at & 255}" for at in range(65_538))
    counts.render([Retransmit(NOW, **CURL | {"remote_addr": address}, segments=1) for address in addresses])
    told = counts.sum_up(last=True)
    assert (len(told), sum(events for _, events in told)) == (65_538, 65_538)
    assert told[1] == (f"{'*':<25} {'*':<25} 2\n".encode(), 2)


def test_what_was_lost_stands_in_its_place_and_what_is_not_known_is_a_question_mark() -> None:
    told = [Lost(NOW, 1, "ring"), Retransmit(NOW, "1", "tcp", "in"), Reset(NOW, "1", "tcp", "in")]
    _, lost, *unknown = rows(retrans.VERB, "--reset --utc", told)
    assert lost == "lost 1 record (ring full)"
    assert [row.split() for row in unknown] == [
        ["07:50:09", "?", "?", "?", "R>", "?", "?", "?", "?"],
        ["07:50:09", "?", "?", "?", "?", "?", "?", "RST", "1"],
    ]


def test_on_a_terminal_of_80_columns_a_row_is_a_line() -> None:
    shown = table(cells(), lambda: 80)
    text = (shown.header() + b"".join(piece for piece, _ in shown.render(EVENTS[:2]))).decode()
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("\n") == 3
