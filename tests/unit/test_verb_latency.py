"""`pytracecon latency`: the options and columns of tcpconnlat, from events to rows and histograms."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytracecon.commands import latency
from pytracecon.events import Established, Event, Failed, Lookup, Lost
from pytracecon.views.histogram import Histogram, Histograms, host
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
}
SIX = CURL | {"local_addr": "::1", "remote_addr": "::1"}
NAMED = CURL | {"host": "www.example.com", "host_source": "dns"}
EVENTS: list[Event] = [
    Established(NOW, **CURL, latency_ns=12_310_000),
    Established(NOW + 1_234_567_890, **SIX, latency_ns=9_000),
]
ANSWER = Lookup(
    NOW, pid=1479, name="www.example.com", addresses=["10.0.0.7"], result="ok", source="dns", latency_ns=2_500_000
)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", {}),
        (f"-p {os.getpid()}", {"pid": [str(os.getpid())]}),
        ("-4", {"family": 4}),
        ("-6", {"family": 6}),
        ("0.001", {"min_latency": "0.001"}),
        ("1.5 -4", {"min_latency": "1.5", "family": 4}),
        ("--min-latency 2", {"min_latency": "2"}),
        ("--port 443 --uid 0", {"port": ["443"], "uid": ["0"]}),
        ("-t -L --histogram", {}),
        ("--failed", {"events": ["failed"]}),
        ("--all", {"events": ["established", "failed"]}),
        ("--resolver", {"events": ["established", "lookup"], "names": True}),
        ("5 --all --resolver", {"min_latency": "5", "events": ["established", "failed", "lookup"], "names": True}),
        ("--histogram --by host", {"names": True}),
        ("--host a", {"host": ["a"], "names": True}),
        ("--format json", {"names": True, "processes": True}),
        ("--format json --resolver", {"names": True, "processes": True}),
        ("--format json --no-names", {"processes": True}),
    ],
)
def test_filters_are_the_tracers(line: str, expected: dict[str, Any]) -> None:
    assert keywords(latency.VERB, line) == {"events": ["established"], "names": False, "processes": False} | expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "",
            [
                "PID    COMM         IP SADDR            DADDR            DPORT LAT(ms)",
                "1479   curl         4  10.0.0.5         10.0.0.7         443   12.31",
                "1479   curl         6  ::1              ::1              443   0.009",
            ],
        ),
        (
            "-t",
            [
                "TIME(s)  PID    COMM         IP SADDR            DADDR            DPORT LAT(ms)",
                "0.000    1479   curl         4  10.0.0.5         10.0.0.7         443   12.31",
                "1.235    1479   curl         6  ::1              ::1              443   0.009",
            ],
        ),
        (
            "-L",
            [
                "PID    COMM         IP SADDR            LPORT  DADDR            DPORT LAT(ms)",
                "1479   curl         4  10.0.0.5         41234  10.0.0.7         443   12.31",
                "1479   curl         6  ::1              41234  ::1              443   0.009",
            ],
        ),
    ],
)
def test_rows_are_those_of_tcpconnlat(line: str, expected: list[str]) -> None:
    assert rows(latency.VERB, line, EVENTS) == expected


@pytest.mark.parametrize("line", ["--failed", "--all"])
def test_what_came_of_it_is_told_where_it_differs(line: str) -> None:
    events: list[Event] = [
        Established(NOW, **CURL, latency_ns=12_310_000),
        Failed(NOW, **CURL, error="ECONNREFUSED", reason="refused", latency_ns=100_000),
        Failed(NOW, **CURL, error="ETIMEDOUT", reason="timeout", latency_ns=131 * SECOND),
        Failed(NOW, **CURL, error="EACCES"),
    ]
    told = [row.split()[6:] for row in rows(latency.VERB, line, events)]
    assert told == [
        ["LAT(ms)", "OUTCOME"],
        ["12.31", "established"],
        ["0.10", "refused"],
        ["131000.00", "timeout"],
        ["?", "EACCES"],
    ]


def test_the_resolver_s_time_stands_beside_the_handshake_s() -> None:
    events: list[Event] = [
        Established(NOW, **NAMED, latency_ns=12_310_000),
        ANSWER,
        Established(NOW + SECOND, **NAMED, latency_ns=12_310_000),
        Established(NOW, **CURL, latency_ns=12_310_000),
    ]
    assert [row.split()[6:] for row in rows(latency.VERB, "--resolver", events)] == [
        ["LAT(ms)", "RESOLVER(ms)", "HOST"],
        ["12.31", "?", "www.example.com"],
        ["12.31", "2.50", "www.example.com"],
        ["12.31", "-"],
    ]


def test_what_was_lost_stands_in_its_place_and_what_is_not_known_is_a_question_mark() -> None:
    assert rows(latency.VERB, "-L", [Lost(NOW, 3, "probe"), Established(NOW, "1", "tcp", "out")])[1:] == [
        "lost 3 records (probe skipped)",
        "?      ?            ?  ?                ?      ?                ?     ?",
    ]


# Histograms


def test_a_histogram_has_the_look_of_bcc_s() -> None:
    histogram = Histogram()
    for value in (0, 1, 3, 5, 6, 7, 7, 64):
        histogram.add(value)
    assert histogram.text("usecs").splitlines() == [
        "     usecs               : count     distribution",
        "         0 -> 1          : 2        |********************                    |",
        "         2 -> 3          : 1        |**********                              |",
        "         4 -> 7          : 4        |****************************************|",
        "         8 -> 15         : 0        |                                        |",
        "        16 -> 31         : 0        |                                        |",
        "        32 -> 63         : 0        |                                        |",
        "        64 -> 127        : 1        |**********                              |",
    ]


def test_a_histogram_of_huge_numbers_is_wider_as_bcc_s_is() -> None:
    histogram = Histogram()
    histogram.add(1 << 32)
    lines = histogram.text("usecs").splitlines()
    assert lines[0] == "               usecs                         : count     distribution"
    assert lines[-1] == "          4294967296 -> 8589934591           : 1        |********************|"


@given(st.lists(st.integers(0, 1 << 40), max_size=50))
def test_every_number_is_in_the_row_of_its_bounds(values: list[int]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    found = []
    for line in histogram.text("usecs").splitlines()[1:]:
        low, _, high, _, count, *_ = line.replace("|", " |").split()
        assert sum(int(low) <= value <= int(high) for value in values) == int(count)
        found.append(int(count))
    assert sum(found) == len(values) == histogram.total


def test_a_histogram_of_all_at_the_end() -> None:
    events: list[Event] = [*EVENTS, Failed(NOW, **CURL, reason="unreachable"), Lost(NOW, 3, "ring")]
    assert [line.split() for line in rows(latency.VERB, "--histogram --all", events) if " 0 " not in line[14:]] == [
        ["usecs", ":", "count", "distribution"],
        ["8", "->", "15", ":", "1", "|****************************************|"],
        ["8192", "->", "16383", ":", "1", "|****************************************|"],
        ["1", "without", "a", "latency"],
        ["lost", "3", "records", "(ring", "full)"],
    ]


def test_a_histogram_for_each_host_most_first() -> None:
    events: list[Event] = [
        Established(NOW, **CURL, latency_ns=1000),
        *[Established(NOW, **NAMED, latency_ns=5000) for _ in range(2)],
        Established(NOW, **NAMED | {"host": "\x1b[31m"}, latency_ns=1000),
    ]
    told = rows(latency.VERB, "--histogram --by host", events)
    assert [line for line in told if line.startswith("host")] == [
        "host = www.example.com",
        "host = 10.0.0.7",
        r"host = \x1b[31m",
    ]
    assert "         4 -> 7          : 2        |****************************************|" in told


def test_nothing_is_told_before_the_end_and_every_event_is_accounted_for() -> None:
    output = Histograms(lambda: None, name="host", key=host)
    events = [*EVENTS, Failed(NOW, **CURL), Lost(NOW, 1, "ring")]
    assert (output.header(), output.render(events), output.untold) == (b"", [], 4)
    assert output.sum_up(last=False) == []
    assert sum(count for _, count in output.sum_up(last=True)) == 4
    assert output.untold == 0


def test_hosts_without_end_do_not_fill_the_memory() -> None:
    output = Histograms(lambda: None, name="host", key=host)
    output.render(Established(NOW, **CURL | {"remote_addr": str(at)}, latency_ns=0) for at in range(5000))
    told = b"".join(piece for piece, _ in output.sum_up(last=True)).decode()
    assert told.count("host = ") == 4097
    assert "host = *\n" in told
