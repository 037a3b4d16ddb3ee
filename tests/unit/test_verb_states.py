"""`pytracecon states`: the options and columns of tcpstates, from events to rows, and its CSV."""

from __future__ import annotations

import os
from typing import Any

import pytest

from pytracecon.cli import main
from pytracecon.commands import states
from pytracecon.events import Endpoint, Event, Lost, State
from pytracecon.probes import has_kprobes
from pytracecon.views.states import cells, table
from unit.written import keywords, rows

SECOND = 1_000_000_000
NOW = 1_795_161_009 * SECOND  # 07:50:09 UTC
CURL: dict[str, Any] = {
    "conn": "00003fa2c18e0007",
    "proto": "tcp",
    "direction": "out",
    "local_addr": "10.0.0.5",
    "local_port": 41234,
    "remote_addr": "10.0.0.7",
    "remote_port": 443,
    "pid": 1479,
    "comm": "curl",
}
SIX = CURL | {"local_addr": "2001:db8:aaaa::5", "remote_addr": "2001:db8:aaaa::7"}
EVENTS: list[Event] = [
    State(NOW, **CURL, old="CLOSE", new="SYN_SENT", meaning="open"),
    State(NOW + 412_000, **CURL, old="SYN_SENT", new="ESTABLISHED", in_old_ns=412_000),
    State(NOW + 1_234_567_890, **SIX, old="ESTABLISHED", new="FIN_WAIT1", in_old_ns=803_100_400),
]

OURS = "00003fa2c18e0007", "1479", "curl"


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
        ("--host *.a", {"host": ["*.a"], "names": True}),
        ("-t -T -w --meaning", {}),
        ("--service", {"names": True}),
        ("-stT", {}),
        ("-Y", {"names": True, "processes": True}),
        ("--format journal", {"names": True, "processes": True}),
        ("--format csv --no-names", {"processes": True}),
    ],
)
def test_filters_are_the_tracers(line: str, expected: dict[str, Any]) -> None:
    assert keywords(states.VERB, line) == {"events": ["state"], "names": False, "processes": False} | expected


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("-4 -6", "-6"),
        ("-L 0", "--local-port"),
        ("-D http", "--port"),
        ("-s -Y", "-Y"),
        ("-s --format json", "--format"),
        ("-Y --format json", "--format"),
        ("-Y --template {pid}", "--template"),
        ("-s --show exe", "--show"),
        ("-Y --show exe", "--show"),
        ("-Y -o file", "-o"),
        ("--failed", "--failed"),
        ("--min-latency 1", "--min-latency"),
        ("-P 80", "-P"),
    ],
)
def test_wrong_usage_is_one_line(line: str, named: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["states", *line.split()]) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert named in err


HEADER = ("SKADDR", "C-PID", "C-COMM", "IP", "LADDR", "LPORT", "RADDR", "RPORT", "OLDSTATE", "NEWSTATE", "MS")
CELLS = [
    (*OURS, "4", "10.0.0.5", "41234", "10.0.0.7", "443", "CLOSE", "SYN_SENT", "0.000"),
    (*OURS, "4", "10.0.0.5", "41234", "10.0.0.7", "443", "SYN_SENT", "ESTABLISHED", "0.412"),
    (*OURS, "6", "2001:db8:aaaa::5", "41234", "2001:db8:aaaa::7", "443", "ESTABLISHED", "FIN_WAIT1", "803.100"),
]


@pytest.mark.parametrize(
    ("line", "form"),
    [
        ("", "{:<16} {:<7} {:<10} {:.0}{:<15} {:<5} {:<15} {:<5} {:<11} -> {:<11} {}"),
        ("-w", "{:<16} {:<7} {:<16} {:<2} {:<26} {:<5} {:<26} {:<5} {:<11} -> {:<11} {}"),
    ],
)
def test_rows_are_those_of_tcpstates(line: str, form: str) -> None:
    assert rows(states.VERB, line, EVENTS) == [form.format(*row) for row in (HEADER, *CELLS)]


def test_times_stand_in_front() -> None:
    header, first, second, third = rows(states.VERB, "-t -T --utc", EVENTS)
    assert header.startswith("TIME     TIME(s)   SKADDR  ")
    assert first.startswith("07:50:09 0.000000  00003fa2c18e0007 ")
    assert second.startswith("07:50:09 0.000412  00003fa2c18e0007 ")
    assert third.startswith("07:50:10 1.234568  00003fa2c18e0007 ")


def test_what_it_means_is_told_on_request() -> None:
    header, first, second, _ = rows(states.VERB, "--meaning", EVENTS)
    assert header.endswith(" MS        MEANING")
    assert first.endswith(" CLOSE       -> SYN_SENT    0.000     open")
    assert second.endswith(" SYN_SENT    -> ESTABLISHED 0.412")


def test_the_csv_has_the_fields_of_tcpstates() -> None:
    assert rows(states.VERB, "-s", EVENTS) == [",".join(row) for row in (HEADER, *CELLS)]


def test_the_service_is_what_ipvs_chose_or_else_what_a_rule_made_of_it() -> None:
    service, nat = Endpoint("192.168.2.1", 22), Endpoint("fd99::1", 33)
    told: list[Event] = [
        State(NOW, **CURL, old="CLOSE", new="SYN_SENT", meaning="open"),
        State(NOW, **CURL, old="SYN_SENT", new="ESTABLISHED", in_old_ns=412_000, service=service),
        State(NOW, **CURL, old="ESTABLISHED", new="FIN_WAIT1", in_old_ns=1, nat=nat, meaning="closed_by_client"),
    ]
    header, *lines = rows(states.VERB, "--service", told)
    assert header.split()[-3:] == ["MS", "SERVICE", "MEANING"]
    assert [line.split()[11:] for line in lines] == [
        ["open"],
        ["192.168.2.1:22"],
        ["[fd99::1]:33", "closed_by_client"],
    ]
    names, *cells = rows(states.VERB, "-s --service", told)
    assert names.split(",")[-3:] == ["MS", "SERVICE", "MEANING"]
    assert [line.split(",")[-2:] for line in cells] == [
        ["", "open"],
        ["192.168.2.1:22", ""],
        ["[fd99::1]:33", "closed_by_client"],
    ]


def test_how_ipvs_is_set_up_has_columns_of_its_own() -> None:
    real = Endpoint("192.168.2.1", 22)
    more: dict[str, Any] = {"service_scheduler": "rr", "service_weight": 0, "service_forwarding": "tunnel"}
    told = [
        State(NOW, **CURL, old="CLOSE", new="SYN_SENT", meaning="open", service=real),
        State(NOW, **CURL, old="SYN_SENT", new="ESTABLISHED", in_old_ns=412_000, service=real, **more),
    ]
    header, first, second = rows(states.VERB, "--service-details", told)
    assert header.split()[-5:] == ["SERVICE", "SCHEDULER", "WEIGHT", "FORWARDING", "MEANING"]
    assert first.split()[-2:] == [str(real), "open"]
    assert second.split()[-4:] == [str(real), "rr", "0", "tunnel"]
    names, *cells = rows(states.VERB, "-s --service-details", told)
    assert names.split(",")[-5:] == header.split()[-5:]
    assert [line.split(",")[-5:] for line in cells] == [
        [str(real), "", "", "", "open"],
        [str(real), "rr", "0", "tunnel", ""],
    ]


@pytest.mark.skipif(has_kprobes(), reason="this kernel has kprobes")
def test_services_alone_are_refused_where_nobody_can_see_them(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["states", "--service-only"]) == 2
    assert "no kprobes (CONFIG_KPROBES)" in capfd.readouterr().err


def test_the_csv_has_times_in_front_and_the_meaning_behind() -> None:
    in_front = ["TIME,TIME(s)", "07:50:09,0.000000", "07:50:09,0.000412", "07:50:10,1.234568"]
    behind = ["MEANING", "open", "", ""]
    told = zip(in_front, rows(states.VERB, "-s", EVENTS), behind, strict=True)
    assert rows(states.VERB, "-stT --utc --meaning", EVENTS) == [",".join(row) for row in told]


def test_the_csv_holds_what_others_chose_as_text() -> None:
    odd = CURL | {"comm": '=cmd|"x",\x1b\n'}
    told = rows(states.VERB, "-s", [State(NOW, **odd, old="CLOSE", new="SYN_SENT")])
    assert told[1:] == [
        '00003fa2c18e0007,1479,"\'=cmd|""x"",\\x1b\\x0a",4,10.0.0.5,41234,10.0.0.7,443,CLOSE,SYN_SENT,0.000'
    ]


def test_only_a_socket_s_first_state_took_no_time() -> None:
    old = CURL | {"pre_existing": True}
    told = [
        State(NOW, **CURL, old="CLOSE", new="SYN_SENT"),
        State(NOW, **CURL, old="LISTEN", new="SYN_RECV"),
        State(NOW, **old, old="ESTABLISHED", new="CLOSE_WAIT"),
        State(NOW, **old, old="LISTEN", new="CLOSE"),
    ]
    assert [row.split()[-1] for row in rows(states.VERB, "", told)[1:]] == ["0.000", "0.000", "?", "?"]
    assert [row.split(",")[-1] for row in rows(states.VERB, "-s", told)[1:]] == ["0.000", "0.000", "", ""]


def test_who_listens_has_no_other_side() -> None:
    listener = CURL | {"direction": "in", "remote_addr": None, "remote_port": None}
    told = [State(NOW, **listener, old="CLOSE", new="LISTEN"), State(NOW, **listener, old="LISTEN", new="SYN_RECV")]
    assert [row.split()[5:7] for row in rows(states.VERB, "", told)[1:]] == [["-", "-"], ["?", "?"]]


def test_what_was_lost_stands_in_its_place_and_what_is_not_known_is_a_question_mark() -> None:
    told = [Lost(NOW, 2, "ring"), State(NOW, "1", "tcp", "in")]
    _, lost, unknown = rows(states.VERB, "-w --meaning", told)
    assert lost == "lost 2 records (ring full)"
    assert unknown.split() == ["1", *"????????", "->", "?", "?"]
    assert rows(states.VERB, "-s", told)[1:] == [f"lost 2 records (ring full){',' * 10}", f"1{',' * 10}"]


def test_on_a_terminal_columns_widen_for_ipv6() -> None:
    shown = table(cells(), lambda: 200)
    told = b"".join(piece for piece, _ in shown.render(EVENTS[2:])).decode().splitlines()
    assert told[0].index("LPORT") == told[1].index("41234")
