"""`pytracecon connect`: the options and columns of tcpconnect, from events to rows."""

from __future__ import annotations

import os
from typing import Any

import pytest

from pytracecon.commands import connect
from pytracecon.events import Connect, Event, Failed, Lookup, Lost
from pytracecon.outputs import Output
from pytracecon.views import columns
from pytracecon.views.answers import Answers
from pytracecon.views.connect import Counts, cells, query, table
from unit.written import keywords, rows

SECOND = 1_000_000_000
NOW = 1_795_161_009 * SECOND
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
    "uid": 1000,
}
SIX = CURL | {"local_addr": "2001:db8::5", "remote_addr": "2001:db8::7", "comm": "a\nb", "uid": 0, "local_port": 9}
EVENTS: list[Event] = [Connect(NOW, **CURL), Connect(NOW + 1_234_567_890, **SIX)]
NAMED = CURL | {"host": "www.example.com", "host_source": "dns"}


def lines(output: Output, events: list[Event]) -> list[str]:
    data = output.header() + b"".join(piece for piece, _ in output.render(events))
    return data.decode().splitlines()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", {}),
        (f"-p {os.getpid()}", {"pid": [str(os.getpid())]}),
        ("-P 80,81", {"port": ["80,81"]}),
        ("--port 80", {"port": ["80"]}),
        ("-4", {"family": 4}),
        ("-6", {"family": 6}),
        ("--ipv6", {"family": 6}),
        ("-u 1000", {"uid": ["1000"]}),
        ("--uid 1000", {"uid": ["1000"]}),
        ("--local-port 9 --remote ::1 --comm curl", {"local_port": ["9"], "remote": ["::1"], "comm": ["curl"]}),
        ("-t -U -L -c", {}),
        ("-d", {"events": ["connect", "lookup"], "names": True}),
        ("--host a", {"host": ["a"], "names": True}),
        ("--failed", {"events": ["failed"]}),
        ("--failed -d", {"events": ["failed", "lookup"], "names": True}),
        ("--all", {"events": ["connect", "failed"]}),
        ("--format json", {"names": True, "processes": True}),
        ("--format csv -d", {"names": True, "processes": True}),
        ("--template {host}", {"names": True, "processes": True}),
        ("--template {host} --no-names", {"names": False, "processes": True}),
    ],
)
def test_filters_are_the_tracers(line: str, expected: dict[str, Any]) -> None:
    usual = {"events": ["connect"], "names": False, "processes": False}
    assert keywords(connect.VERB, line) == usual | expected


def test_rows_are_those_of_tcpconnect() -> None:
    assert rows(connect.VERB, "", EVENTS) == [
        "PID    COMM         IP SADDR            DADDR            DPORT",
        "1479   curl         4  10.0.0.5         10.0.0.7         443",
        r"1479   a\x0ab       6  2001:db8::5      2001:db8::7      443",
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "-t",
            [
                "TIME(s)  PID    COMM         IP SADDR            DADDR            DPORT",
                "0.000    1479   curl         4  10.0.0.5         10.0.0.7         443",
                r"1.235    1479   a\x0ab       6  2001:db8::5      2001:db8::7      443",
            ],
        ),
        (
            "-U",
            [
                "UID   PID    COMM         IP SADDR            DADDR            DPORT",
                "1000  1479   curl         4  10.0.0.5         10.0.0.7         443",
                r"0     1479   a\x0ab       6  2001:db8::5      2001:db8::7      443",
            ],
        ),
        (
            "-L",
            [
                "PID    COMM         IP SADDR            LPORT  DADDR            DPORT",
                "1479   curl         4  10.0.0.5         41234  10.0.0.7         443",
                r"1479   a\x0ab       6  2001:db8::5      9      2001:db8::7      443",
            ],
        ),
        (
            "-d",
            [
                "PID    COMM         IP SADDR            DADDR            DPORT  QUERY",
                "1479   curl         4  10.0.0.5         10.0.0.7         443    No DNS Query",
                r"1479   a\x0ab       6  2001:db8::5      2001:db8::7      443    No DNS Query",
            ],
        ),
        (
            "-t -U -L",
            [
                "TIME(s)  UID   PID    COMM         IP SADDR            LPORT  DADDR            DPORT",
                "0.000    1000  1479   curl         4  10.0.0.5         41234  10.0.0.7         443",
                r"1.235    0     1479   a\x0ab       6  2001:db8::5      9      2001:db8::7      443",
            ],
        ),
    ],
)
def test_options_add_columns_where_tcpconnect_has_them(line: str, expected: list[str]) -> None:
    assert rows(connect.VERB, line, EVENTS) == expected


@pytest.mark.parametrize("line", ["--failed", "--all"])
def test_failures_have_their_error_and_reason(line: str) -> None:
    nowhere = CURL | {"local_addr": None, "local_port": None}
    events: list[Event] = [
        Connect(NOW, **CURL),
        Failed(NOW, **CURL, error="ECONNREFUSED", reason="refused"),
        Failed(NOW, **nowhere, error="ENETUNREACH", reason="unreachable"),
        Failed(NOW, **CURL),
    ]
    assert rows(connect.VERB, line, events) == [
        "PID    COMM         IP SADDR            DADDR            DPORT  ERROR        REASON",
        "1479   curl         4  10.0.0.5         10.0.0.7         443",
        "1479   curl         4  10.0.0.5         10.0.0.7         443    ECONNREFUSED refused",
        "1479   curl         4  ?                10.0.0.7         443    ENETUNREACH  unreachable",
        "1479   curl         4  10.0.0.5         10.0.0.7         443    ?            ?",
    ]


def test_what_was_lost_stands_in_its_place_and_what_is_not_known_is_a_question_mark() -> None:
    nobody = Connect(NOW, "1", "tcp", "out")
    assert rows(connect.VERB, "", [Lost(NOW, 3, "ring"), nobody])[1:] == [
        "lost 3 records (ring full)",
        "?      ?            ?  ?                ?                ?",
    ]


def test_on_a_terminal_columns_widen_and_in_a_pipe_they_stay() -> None:
    long = CURL | {"remote_addr": "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff", "local_addr": "2001:db8::5"}
    events: list[Event] = [Connect(NOW, **long), Connect(NOW, **CURL)]
    piped = lines(table(cells(), lambda: None), events)
    assert len(piped) == 3
    assert piped[0].index("DPORT") == piped[2].index("443")
    seen = lines(table(cells(), lambda: 120), events)
    assert [line.split()[0] for line in seen] == ["PID", "PID", "1479", "1479"]
    assert len({line.index(what) for line, what in zip(seen[1:], ("DPORT", "443", "443"), strict=True)}) == 1


# QUERY


def lookup(at: int, **changed: Any) -> Lookup:
    usual: dict[str, Any] = {"pid": 1479, "name": "www.example.com", "addresses": ["10.0.0.6", "10.0.0.7"]}
    return Lookup(at, **usual | {"result": "ok", "source": "dns", "latency_ns": 2_000_000} | changed)


@pytest.mark.parametrize(
    ("event", "told", "expected"),
    [
        (Connect(NOW, **NAMED), lookup(NOW - 123_342_000), "www.example.com (123.342ms)"),
        (Connect(NOW, **NAMED), lookup(NOW - 100_000_001), "www.example.com (100.000ms)"),
        (Connect(NOW, **NAMED), lookup(NOW - 100_000_000), "www.example.com"),
        (Connect(NOW, **NAMED), lookup(NOW - SECOND, pid=2), "www.example.com"),
        (Connect(NOW, **NAMED), lookup(NOW - SECOND, name="WWW.Example.com."), "www.example.com (1000.000ms)"),
        (Connect(NOW, **NAMED), lookup(NOW - SECOND, source="getaddrinfo"), "www.example.com"),
        (Connect(NOW, **NAMED), lookup(NOW - SECOND, addresses=["10.0.0.6"]), "www.example.com"),
        (Connect(NOW, **NAMED), lookup(NOW - SECOND, result="NXDOMAIN"), "www.example.com"),
        (Failed(NOW, **NAMED, latency_ns=SECOND), lookup(NOW - SECOND - 50_000_000), "www.example.com"),
        (Failed(NOW, **NAMED, latency_ns=SECOND), lookup(NOW - 3 * SECOND), "www.example.com (2000.000ms)"),
        (Connect(NOW, **CURL), lookup(NOW - SECOND), "No DNS Query"),
        (Connect(NOW, **CURL | {"remote_addr": "127.0.0.1"}), lookup(NOW), "localhost"),
        (Connect(NOW, **CURL | {"remote_addr": "127.8.0.1"}), lookup(NOW), "localhost"),
        (Connect(NOW, **CURL | {"remote_addr": "::1"}), lookup(NOW), "localhost"),
        (Connect(NOW, **NAMED | {"remote_addr": "127.0.0.1"}), lookup(NOW), "www.example.com"),
        (Connect(NOW, **NAMED | {"host": "\x1b]52;c;eA==\x07"}), lookup(NOW), r"\x1b]52;c;eA==\x07"),
    ],
)
def test_the_query_is_the_connections_name(event: Connect | Failed, told: Lookup, expected: str) -> None:
    answers = Answers()
    assert not answers.passes(told)
    assert query(event, answers) == expected


def test_lookups_are_for_the_query_and_no_rows() -> None:
    events: list[Event] = [lookup(NOW - SECOND), Connect(NOW, **NAMED)]
    assert [line.split("443")[1].strip() for line in rows(connect.VERB, "-d", events)[1:]] == [
        "www.example.com (1000.000ms)"
    ]


def test_of_the_names_only_so_many_are_kept() -> None:
    answers = Answers(most=2)
    for at, name in ((1, "a"), (2, "b"), (3, "a"), (4, "c")):
        answers.passes(lookup(at, name=name, addresses=["10.0.0.7"]))
    known = {name: answers.of(Connect(9, **NAMED | {"host": name})) for name in "abc"}
    assert {name: found and found.time_ns for name, found in known.items()} == {"a": 3, "b": None, "c": 4}


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (Connect(0, **NAMED), None),
        (Connect(1, **NAMED), 1),
        (Connect(25, **NAMED), 20),
        (Connect(99, **NAMED), 30),
        (Failed(39, **NAMED, latency_ns=10), 20),
    ],
)
def test_the_answer_is_the_last_one_before_the_connection_began(event: Connect | Failed, expected: int | None) -> None:
    answers = Answers()
    for at in (1, 20, 30):
        assert not answers.passes(lookup(at))
    found = answers.of(event)
    assert (found and found.time_ns) == expected


def test_where_there_were_too_many_answers_since_none_is_invented() -> None:
    answers = Answers()
    for at in range(100):
        answers.passes(lookup(at))
    assert answers.of(Connect(50, **NAMED)) is None
    assert answers.of(Connect(99, **NAMED)) == (99, 2_000_000)


def test_everything_but_a_lookup_passes() -> None:
    assert all(Answers().passes(event) for event in (*EVENTS, Lost(NOW, 1, "ring")))


# -c


def test_counts_come_at_the_end_most_first() -> None:
    events: list[Event] = [Connect(NOW, **SIX), *[Connect(NOW + at, **CURL) for at in range(3)]]
    assert rows(connect.VERB, "-c", [*events, Lost(NOW, 3, "ring")]) == [
        "LADDR                     RADDR                     RPORT                CONNECTS",
        "10.0.0.5                  10.0.0.7                  443                  3",
        "2001:db8::5               2001:db8::7               443                  1",
        "lost 3 records (ring full)",
    ]


def test_nothing_is_counted_before_the_end_and_every_event_is_accounted_for() -> None:
    counts = Counts(lambda: None)
    assert (counts.header(), counts.render(EVENTS * 2), counts.untold) == (b"", [], 4)
    assert counts.sum_up(last=False) == []
    assert counts.untold == 4
    assert sum(count for _, count in counts.sum_up(last=True)) == 4
    assert counts.untold == 0


def test_on_a_terminal_the_counts_begin_below_the_ctrl_c() -> None:
    counts = Counts(lambda: 80)
    assert b"".join(piece for piece, _ in counts.sum_up(last=True)).startswith(b"\nLADDR")


def test_a_scan_of_everything_does_not_fill_the_memory() -> None:
    counts = Counts(lambda: None)
    counts.render(Connect(NOW, **CURL | {"remote_port": None, "remote_addr": str(at)}) for at in range(70_000))
    told = [piece.split() for piece, _ in counts.sum_up(last=True)]
    assert len(told) == 65_536 + 2
    assert told[1] == [b"*", b"*", b"*", b"4464"]


# What is shown


def test_the_family_is_that_of_the_address_that_is_known() -> None:
    assert columns.family(Connect(NOW, **CURL | {"remote_addr": None})) == "4"
    assert columns.family(Connect(NOW, **SIX)) == "6"
