"""`pytracecon accept`: the options and columns of tcpaccept, from events to rows."""

from __future__ import annotations

import os
from typing import Any

import pytest

from pytracecon.commands import accept
from pytracecon.events import Accept, Event, Lost
from unit.written import keywords, rows

SECOND = 1_000_000_000
NOW = 1_795_161_009 * SECOND  # 07:50:09 UTC
SSHD: dict[str, Any] = {
    "conn": "1",
    "proto": "tcp",
    "direction": "in",
    "local_addr": "10.0.0.7",
    "local_port": 22,
    "remote_addr": "10.0.0.5",
    "remote_port": 41234,
    "pid": 907,
    "comm": "sshd",
}
SIX = SSHD | {"local_addr": "::1", "remote_addr": "::1"}
EVENTS: list[Event] = [Accept(NOW, **SSHD, wait_ns=3_240_000), Accept(NOW + 1_234_567_890, **SIX, wait_ns=9_000)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", {}),
        (f"-p {os.getpid()}", {"pid": [str(os.getpid())]}),
        ("-P 80,81", {"local_port": ["80,81"]}),
        ("--local-port 80", {"local_port": ["80"]}),
        ("--port 80", {"port": ["80"]}),
        ("-4", {"family": 4}),
        ("-6", {"family": 6}),
        ("--uid 0 --not-remote ::1", {"uid": ["0"], "not_remote": ["::1"]}),
        ("-t -T --wait", {}),
        ("--format json", {"processes": True}),
    ],
)
def test_filters_are_the_tracers(line: str, expected: dict[str, Any]) -> None:
    assert keywords(accept.VERB, line) == {"events": ["accept"], "names": False, "processes": False} | expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "",
            [
                "PID    COMM         IP RADDR            RPORT LADDR            LPORT",
                "907    sshd         4  10.0.0.5         41234 10.0.0.7         22",
                "907    sshd         6  ::1              41234 ::1              22",
            ],
        ),
        (
            "-t",
            [
                "TIME(s)  PID    COMM         IP RADDR            RPORT LADDR            LPORT",
                "0.000    907    sshd         4  10.0.0.5         41234 10.0.0.7         22",
                "1.235    907    sshd         6  ::1              41234 ::1              22",
            ],
        ),
        (
            "-T --utc",
            [
                "TIME     PID    COMM         IP RADDR            RPORT LADDR            LPORT",
                "07:50:09 907    sshd         4  10.0.0.5         41234 10.0.0.7         22",
                "07:50:10 907    sshd         6  ::1              41234 ::1              22",
            ],
        ),
        (
            "--wait",
            [
                "PID    COMM         IP RADDR            RPORT LADDR            LPORT WAIT(ms)",
                "907    sshd         4  10.0.0.5         41234 10.0.0.7         22    3.24",
                "907    sshd         6  ::1              41234 ::1              22    0.009",
            ],
        ),
    ],
)
def test_rows_are_those_of_tcpaccept(line: str, expected: list[str]) -> None:
    assert rows(accept.VERB, line, EVENTS) == expected


def test_what_was_lost_stands_in_its_place_and_what_is_not_known_is_a_question_mark() -> None:
    assert rows(accept.VERB, "--wait", [Lost(NOW, 3, "map"), Accept(NOW, "1", "tcp", "in")])[1:] == [
        "lost 3 records (map full)",
        "?      ?            ?  ?                ?     ?                ?     ?",
    ]
