"""`pytracecon life`: the options and columns of tcplife, from events to rows."""

from __future__ import annotations

import os
from typing import Any

import pytest

from pytracecon.commands import life
from pytracecon.events import Close, Event, Lost
from pytracecon.views.life import cells, is_narrow, table
from unit.written import keywords, rows

SECOND = 1_000_000_000
NOW = 1_795_161_009 * SECOND  # 07:50:09 UTC
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
    "duration_ns": 7_096_000,
    "tx_bytes": 5120,
    "tx_acked": 5000,
    "rx_bytes": 1000,
    "retransmits": 2,
    "rtt_ns": 172_000,
    "ended": "local_close",
}
SIX = CURL | {"local_addr": "2001:db8:aaaa::5", "remote_addr": "2001:db8:aaaa::7", "ended": "remote_reset"}
EVENTS: list[Event] = [Close(NOW, **CURL), Close(NOW + 1_234_567_890, **SIX)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", {}),
        (f"-p {os.getpid()}", {"pid": [str(os.getpid())]}),
        ("-L 22,80", {"local_port": ["22,80"]}),
        ("--localport 22 --local-port 80", {"local_port": ["22", "80"]}),
        ("-D 443", {"port": ["443"]}),
        ("--remoteport 443 --port 80", {"port": ["443", "80"]}),
        ("-4", {"family": 4}),
        ("-6", {"family": 6}),
        ("--direction in", {"direction": "in"}),
        ("--min-latency 5", {"min_latency": "5"}),
        ("--host *.a", {"host": ["*.a"], "names": True}),
        ("-t -T -w --bytes --how", {}),
        ("--format json", {"names": True, "processes": True}),
        ("--format json --no-names", {"processes": True}),
    ],
)
def test_filters_are_the_tracers(line: str, expected: dict[str, Any]) -> None:
    assert keywords(life.VERB, line) == {"events": ["close"], "names": False, "processes": False} | expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "",
            [
                "PID     COMM             LADDR           LPORT RADDR           RPORT TX_KB  RX_KB  MS",
                "1479    curl             10.0.0.5        41234 10.0.0.7        443   4.88   0.98   7.10",
                "1479    curl             2001:db8:aaaa::5 41234 2001:db8:aaaa::7 443   4.88   0.98   7.10",
            ],
        ),
        (
            "-t",
            [
                "TIME(s)   PID     COMM             LADDR           LPORT RADDR           RPORT TX_KB  RX_KB  MS",
                "0.000000  1479    curl             10.0.0.5        41234 10.0.0.7        443   4.88   0.98   7.10",
                "1.234568  1479    curl             2001:db8:aaaa::5 41234 2001:db8:aaaa::7 443   4.88   0.98   7.10",
            ],
        ),
        (
            "-T --utc",
            [
                "TIME     PID     COMM             LADDR           LPORT RADDR           RPORT TX_KB  RX_KB  MS",
                "07:50:09 1479    curl             10.0.0.5        41234 10.0.0.7        443   4.88   0.98   7.10",
                "07:50:10 1479    curl             2001:db8:aaaa::5 41234 2001:db8:aaaa::7 443   4.88   0.98   7.10",
            ],
        ),
    ],
)
def test_rows_are_those_of_tcplife(line: str, expected: list[str]) -> None:
    assert rows(life.VERB, line, EVENTS) == expected


def test_wide_columns_hold_ipv6_addresses() -> None:
    assert rows(life.VERB, "-w", EVENTS) == [
        "PID     COMM             LADDR                      LPORT RADDR                      RPORT TX_KB  RX_KB  MS",
        "1479    curl             10.0.0.5                   41234 10.0.0.7                   443   4.88   0.98   7.10",
        "1479    curl             2001:db8:aaaa::5           41234 2001:db8:aaaa::7           443   4.88   0.98   7.10",
    ]


def test_bytes_are_exact_and_taken_is_not_arrived() -> None:
    header, first, _ = (line.split()[6:] for line in rows(life.VERB, "--bytes", EVENTS))
    assert header == ["TX_BYTES", "TX_ACKED", "RX_BYTES", "MS"]
    assert first == ["5120", "5000", "1000", "7.10"]


def test_how_it_ended_is_told_on_request() -> None:
    header, first, second = (line.split()[8:] for line in rows(life.VERB, "--how", EVENTS))
    assert header == ["MS", "ENDED", "RETRANS", "RTT(ms)"]
    assert first == ["7.10", "local_close", "2", "0.17"]
    assert second == ["7.10", "remote_reset", "2", "0.17"]


def test_a_connection_older_than_the_tracer_has_no_invented_lifetime() -> None:
    old = CURL | {"duration_ns": None, "pre_existing": True}
    assert rows(life.VERB, "", [Close(NOW, **old)])[1].split()[-3:] == ["4.88", "0.98", "?"]


def test_what_was_lost_stands_in_its_place_and_what_is_not_known_is_a_question_mark() -> None:
    told = rows(life.VERB, "--bytes --how", [Lost(NOW, 1, "ring"), Close(NOW, "1", "tcp", "in")])
    assert told[1] == "lost 1 record (ring full)"
    assert set(told[2].split()) == {"?"}
    assert len(told[2].split()) == len(told[0].split())
    assert rows(life.VERB, "", [Close(NOW, **CURL | {"tx_acked": None})])[1].split()[6] == "5.00"


@pytest.mark.parametrize(("columns", "narrow"), [(80, True), (99, True), (100, False), (None, False)])
def test_a_terminal_of_80_columns_has_the_narrow_widths_of_bcc(columns: int | None, narrow: bool) -> None:
    assert is_narrow(lambda: columns) == narrow
    shown = table(cells(narrow=narrow), lambda: columns)
    text = (shown.header() + b"".join(piece for piece, _ in shown.render(EVENTS[:1]))).decode()
    assert text.count("\n") == 2
    assert max(map(len, text.splitlines())) <= (columns or 1000)
