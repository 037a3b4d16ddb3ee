"""`pytracecon flows` without a kernel: which rows there are, in which order, and how they are written."""

from __future__ import annotations

import csv
import io
import json
import os
import unicodedata
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytracecon import text
from pytracecon.cli import main
from pytracecon.commands import flows
from pytracecon.connections import Connection
from pytracecon.events import Endpoint, Event, Lost, Process
from pytracecon.ordering import arranged
from pytracecon.outputs import Output
from pytracecon.outputs.colour import style
from pytracecon.outputs.sink import Sink, open_file
from pytracecon.snapshots import Snapshot
from pytracecon.views import flows as view

SECOND = 1_000_000_000
NOW = 1_795_161_009 * SECOND  # 07:50:09 UTC
CURL: dict[str, Any] = {
    "time_ns": NOW - SECOND,
    "conn": "00000000000000a1",
    "proto": "tcp",
    "direction": "out",
    "outcome": "open",
    "state": "ESTABLISHED",
    "local_addr": "10.0.0.5",
    "local_port": 41234,
    "remote_addr": "10.0.0.7",
    "remote_port": 443,
    "pid": 1479,
    "comm": "curl",
    "age_ns": 7_096_000_000,
    "tx_bytes": 5120,
    "rx_bytes": 1_160_000,
    "rtt_ns": 172_000,
    "retransmits": 2,
    "fd": 5,
}


def row(**known: Any) -> Connection:
    return Connection(**(CURL | known))


def web(**known: Any) -> Connection:
    """A listener."""
    listening: dict[str, Any] = {
        "outcome": "listening",
        "state": "LISTEN",
        "pid": 7,
        "comm": "nginx",
        "local_addr": "::",
        "local_port": 443,
        "remote_addr": None,
        "remote_port": None,
        "backlog": 12,
        "backlog_limit": 511,
    }
    return row(**(listening | known))


def udp(**known: Any) -> Connection:
    unlike_tcp: dict[str, Any] = {"proto": "udp", "state": None, "rtt_ns": None, "retransmits": None}
    return row(**(unlike_tcp | {"conn": "00000000000000d1", "comm": "dig", "pid": 1600} | known))


def options(line: str) -> Any:
    return flows.parser().parse_args(line.split())


def listed(line: str, rows: Iterable[Connection], limit: int = 100) -> Any:
    asked = options(line)
    return flows.listed(asked, flows.order(asked), limit, Snapshot(list(rows), time_ns=NOW))


def comms(line: str, *rows: Connection) -> list[str | None]:
    return [each.comm for each in listed(line, rows).rows]


def output(line: str) -> Output:
    target = open_file(os.devnull, append=False)
    target.close()
    return flows.output(options(line))(target)


def written(line: str, *listings: Iterable[Connection]) -> str:
    made = output(line)
    told = made.header()
    for rows in listings:
        told += b"".join(data for data, _ in made.render(listed(line, rows).rows))
    return told.decode()


def lines(line: str, *rows: Connection) -> list[str]:
    return written(line, rows).splitlines()


# Which rows, and in which order


def test_who_listens_is_told_apart() -> None:
    assert comms("", row(), web(), udp()) == ["curl", "dig"]
    assert comms("--listen", row(), web(), udp(), udp(outcome="listening", comm="named")) == ["nginx", "named"]


def test_a_datagram_socket_without_another_end_waits_for_whoever_comes_if_it_was_bound() -> None:
    bound = udp(comm="named", direction="in", remote_addr=None, remote_port=None)
    asks = udp(comm="dig", direction="out", remote_addr=None, remote_port=None)
    assert comms("", bound, asks, udp(comm="talks", direction="in", pid=1700)) == ["dig", "talks"]
    assert comms("--listen", bound, asks) == ["named"]
    assert comms("--watch 1 --format json", bound, asks) == []
    assert lines("", asks)[1].split()[3:6] == ["10.0.0.5:41234", "5120", "B"]


def test_a_conversation_whose_other_end_is_not_known_is_one_all_the_same() -> None:
    heard = udp(direction="in", remote_addr=None, remote_port=None, tx_packets=0, rx_packets=3)
    assert comms("--watch 1", heard) == ["dig"]
    assert comms("--listen", heard) == []
    assert lines("", heard)[1].split()[4] == "?"


def test_one_protocol_and_mptcp_is_tcp() -> None:
    rows = row(comm="a", pid=1), row(comm="b", pid=2, proto="mptcp"), udp(comm="c", pid=3)
    assert comms("--proto tcp", *rows) == ["a", "b"]
    assert comms("--proto udp", *rows) == ["c"]
    assert comms("", *rows) == ["a", "b", "c"]


def test_by_process_and_port_if_nothing_else_is_asked_for() -> None:
    rows = [row(comm=comm, pid=pid, local_port=port) for comm, pid, port in (("d", 9, 2), ("b", 5, 8), ("a", 5, 7))]
    assert comms("", *rows, row(comm="?", pid=None)) == ["a", "b", "d", "?"]


SORTED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "proto": ({"proto": "tcp"}, {"proto": "udp"}),
    "state": ({"state": "CLOSE_WAIT"}, {"outcome": "closed"}),
    "pid": ({"pid": 9}, {"pid": 10}),
    "comm": ({"comm": "a"}, {"comm": "b"}),
    "local": ({"local_addr": "9.0.0.1"}, {"local_addr": "10.0.0.1"}),
    "remote": ({"remote_port": 80}, {"remote_port": 443}),
    "tx": ({"tx_bytes": 11}, {"tx_bytes": 10}),
    "rx": ({"rx_bytes": 11}, {"rx_bytes": 10}),
    "rtt(ms)": ({"rtt_ns": 11}, {"rtt_ns": 10}),
    "retr": ({"retransmits": 11}, {"retransmits": 10}),
    "txq": ({"tx_queue": 11}, {"tx_queue": 10}),
    "rxq": ({"rx_queue": 11}, {"rx_queue": 10}),
    "fd": ({"fd": 9}, {"fd": 10}),
    "app": ({"app": "dns"}, {"app": "quic"}),
    "conn": ({"conn": "a"}, {"conn": "b"}),
    "peer": ({"peer": "a"}, {"peer": "b"}),
}
OF_WATCH: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "age": ({"age_ns": 11}, {"outcome": "closed", "duration_ns": 10}),
    "tx/s": ({"tx_rate": 1.5}, {"tx_rate": 1.25}),
    "rx/s": ({"rx_rate": 1.5}, {"rx_rate": 1.25}),
    "host": ({"host": "a.test"}, {"host": "b.test"}),
}
OF_LISTENERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "backlog": ({"backlog": 11}, {"backlog": 10}),
    "limit": ({"backlog_limit": 11}, {"backlog_limit": 10}),
}


@pytest.mark.parametrize(
    ("mode", "column", "first", "second"),
    [
        *[("", column, *both) for column, both in SORTED.items()],
        *[("--watch 1", column, *both) for column, both in OF_WATCH.items()],
        *[("--listen", column, *both) for column, both in OF_LISTENERS.items()],
        ("--show uid", "uid", {"uid": 9}, {"uid": 10}),
        ("--show exe,rtt_ns", "exe", {"process": Process(exe="/a")}, {"process": Process(exe="/b")}),
        ("--show tx_packets", "tx_packets", {"tx_packets": 10}, {"tx_packets": 9}),
        ("--show service", "service", {"service": Endpoint("1.0.0.1", 8)}, {"service": Endpoint("2.0.0.1", 7)}),
    ],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_sorted_by_any_column_measures_from_the_most(
    mode: str, column: str, first: dict[str, Any], second: dict[str, Any], swapped: bool
) -> None:
    make = web if mode == "--listen" else row
    both = [make(**first), make(**second)]
    rows = [both[1], both[0]] if swapped else both
    assert listed(f"{mode} --sort {column}", rows).rows == both
    assert listed(f"{mode} --sort -{column}", rows).rows == both[::-1]
    assert listed(f"{mode} --sort=-{column}", rows).rows == both[::-1]


def test_every_column_of_the_widest_table_is_one_to_sort_by() -> None:
    assert {each.name for each in flows.shown(options("-w"), wide=True)} == set(SORTED)
    assert {each.name for each in flows.shown(options("-w --watch 1"), wide=True)} == {*SORTED, *OF_WATCH}
    assert {*OF_LISTENERS} < {each.name for each in flows.shown(options("--listen"), wide=False)}


@pytest.mark.parametrize("column", ["-rtt(ms)", "rtt(ms)"])
def test_what_is_not_known_comes_last_either_way(column: str) -> None:
    rows = row(comm="unknown", rtt_ns=None), row(comm="known")
    assert comms(f"--sort {column}", *rows) == ["known", "unknown"]


RANDOM = st.builds(
    row,
    conn=st.uuids().map(str),
    pid=st.none() | st.integers(1, 3),
    tx_bytes=st.none() | st.integers(0, 3),
    local_port=st.integers(1, 3),
)


@given(
    st.lists(RANDOM, max_size=20, unique_by=lambda each: each.conn), st.sampled_from(["", "--sort tx", "--sort -tx"])
)
def test_whatever_order_they_come_in_the_rows_are_the_same(rows: list[Connection], line: str) -> None:
    there, back = listed(line, rows).rows, listed(line, rows[::-1]).rows
    assert [each.conn for each in there] == [each.conn for each in back]
    assert sorted(each.conn for each in there) == sorted(each.conn for each in rows)


def test_the_limit_keeps_the_first_by_the_order_that_is_asked_for() -> None:
    rows = [row(comm=f"c{number}", tx_bytes=number) for number in range(10)]
    found = listed("--sort tx", rows, limit=3)
    assert [each.comm for each in found.rows] == ["c9", "c8", "c7"]
    assert (found.connections, found.left_out) == (3, 7)
    assert listed("", rows, limit=10).left_out == 0


def test_what_the_snapshot_left_out_is_left_out() -> None:
    asked = options("")
    found = flows.listed(asked, None, 1, Snapshot([row(), row()], time_ns=NOW, left_out=5))
    assert found.left_out == 6


def test_paths_of_an_mptcp_connection_stand_beneath_it() -> None:
    rows = [
        row(comm="path 1", conn="1", subflow_of="8", tx_bytes=10),
        row(comm="other", conn="3", tx_bytes=20),
        row(comm="path 2", conn="2", subflow_of="8", tx_bytes=90),
        row(comm="whole", conn="8", proto="mptcp", tx_bytes=100),
    ]
    assert comms("--sort tx", *rows) == ["whole", "path 2", "path 1", "other"]
    assert comms("--sort -tx", *rows) == ["other", "whole", "path 1", "path 2"]
    told = lines("--sort tx", *rows)
    assert [line[:6] for line in told[1:]] == ["mptcp ", "  tcp ", "  tcp ", "tcp   "]


def test_a_path_whose_connection_is_not_there_is_a_row_like_others() -> None:
    rows, left_out = arranged([row(comm="path", subflow_of="8"), row(comm="a", pid=1)], None, 10)
    assert ([each.comm for each in rows], left_out) == (["a", "path"], 0)


def test_each_row_has_the_time_of_its_listing() -> None:
    assert [each.time_ns for each in listed("", [row()]).rows] == [NOW]


# The table


def test_a_table() -> None:
    begun = row(pid=2000, state="SYN_SENT", remote_port=8443, tx_bytes=None, rtt_ns=None)
    header, *told = lines("", row(), udp(), begun)
    assert header.split() == ["PROTO", "STATE", "PID", "COMM", "LOCAL", "REMOTE", "TX", "RX", "RTT(ms)", "RETR"]
    assert [line[:76].rstrip() for line in (header, *told)] == [
        "PROTO STATE       PID    COMM       LOCAL                 REMOTE",
        "tcp   ESTABLISHED 1479   curl       10.0.0.5:41234        10.0.0.7:443",
        "udp               1600   dig        10.0.0.5:41234        10.0.0.7:443",
        "tcp   SYN_SENT    2000   curl       10.0.0.5:41234        10.0.0.7:8443",
    ]
    assert [line[79:] for line in (header, *told)] == [
        "       TX       RX  RTT(ms)  RETR",
        "   5120 B  1.16 MB     0.17     2",
        "   5120 B  1.16 MB",
        "        ?  1.16 MB        ?     2",
    ]


def test_what_ended_says_so_with_what_it_lasted_as_its_age() -> None:
    ended = row(outcome="closed", state=None, age_ns=None, duration_ns=2_000_000)
    counted = {"tx_bytes": None, "rx_bytes": None, "rtt_ns": None, "retransmits": None}
    failed = row(outcome="failed", state=None, age_ns=None, latency_ns=3_000_000, **counted)
    assert lines("--watch 1 --no-names", ended)[1].split()[1:3] == ["tcp", "closed"]
    assert "2.00 ms" in lines("--watch 1", ended)[1]
    assert lines("--watch 1 --no-names", failed)[1].split()[2:3] == ["failed"]
    assert lines("--watch 1", failed)[1].split()[-2:] == ["3.00", "ms"]


def test_bytes_to_the_last_one() -> None:
    header, told = lines("--bytes", row(tx_bytes=123_456_789_012))
    assert told.split()[6:8] == ["123456789012", "1160000"]
    assert header.index("TX") + 2 == told.index("123456789012") + 12


def test_wide_has_queues_identity_and_the_other_end() -> None:
    header, told = lines("-w", row(tx_queue=7, rx_queue=0, peer="00000000000000a2", app="tls"))
    assert header.split()[-6:] == ["TXQ", "RXQ", "FD", "APP", "CONN", "PEER"]
    assert told.split()[-6:] == ["7", "0", "5", "tls", "00000000000000a1", "00000000000000a2"]


def test_who_listens_and_how_full_the_backlog_is() -> None:
    assert lines("--listen", web(), udp(outcome="listening", local_addr="0.0.0.0", local_port=53)) == [
        "PROTO PID    COMM       LOCAL                 BACKLOG  LIMIT",
        "tcp   7      nginx      [::]:443                   12    511",
        "udp   1600   dig        0.0.0.0:53",
    ]
    assert lines("--listen", web(local_addr=None))[1].split()[3] == "*:443"
    assert lines("--listen -w", web())[1].split()[-2:] == ["00000000000000a1", "5"]


def test_columns_of_one_s_own() -> None:
    header, told = lines("--show uid,exe,fd,peer,subflow_of", row(uid=0, process=Process(exe="/usr/bin/curl")))
    assert header.split()[-5:] == ["UID", "EXE", "FD", "PEER", "SUBFLOW_OF"]
    assert told.split()[-3:] == ["0", "/usr/bin/curl", "5"]
    assert lines("--show uid,exe", row())[1].split()[-2:] == ["?", "?"]


def test_with_watch_each_row_has_a_time_a_name_and_rates() -> None:
    rows = [row(tx_rate=1234.5, rx_rate=0.0, host="www.example.com")]
    told = written("--watch 5 --utc", [row()], rows, []).splitlines()
    assert told[0].split()[0] == "TIME"
    assert told[0].split()[6:13] == ["REMOTE", "HOST", "AGE", "TX", "RX", "TX/s", "RX/s"]
    assert told[1].split()[0] == "07:50:09"
    assert told[1].split()[-4:] == ["1.16", "MB", "0.17", "2"], "of the first listing there are no rates"
    assert told[2].split()[-6:] == ["1234", "B", "0", "B", "0.17", "2"]
    assert "www.example.com" in told[2]
    assert told[3] == "07:50:09 no connections"
    assert len(told) == 4
    assert written("--watch 5 --listen --utc", []).splitlines()[1] == "07:50:09 no listeners"


def test_one_listing_without_rows_is_a_header() -> None:
    assert len(lines("")) == 1
    assert lines("--format json") == []


def test_no_names_takes_their_column_away() -> None:
    assert "HOST" in written("--watch 1", [row()])
    assert "HOST" not in written("--watch 1 --no-names", [row()])
    assert "HOST" not in written("", [row()])


def test_columns_are_as_wide_as_the_first_rows_need() -> None:
    """With one header above them, in a file too."""
    six = "2001:db8:aaaa:bbbb::5"
    told = lines("", row(local_addr=six, remote_addr=six), row(conn="2", pid=1500))
    assert len(told) == 3
    assert told[0].index("REMOTE") == told[1].index(f"[{six}]:443") == told[2].index("10.0.0.7:443")


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sink, "terminal_width", lambda _: 80)


@pytest.mark.parametrize("line", ["", "--watch 1", "--watch 1 --no-names", "--listen"])
@pytest.mark.parametrize("columns", range(80, 180, 10))
def test_a_row_of_usual_width_is_a_line_on_any_terminal(
    monkeypatch: pytest.MonkeyPatch, line: str, columns: int
) -> None:
    monkeypatch.setattr(Sink, "terminal_width", lambda _: columns)
    there = [row(comm="0123456789", tx_rate=1e6, rx_rate=2e9, host="a.test", remote_addr="10.0.0.10"), web()]
    header, *told = lines(line, *there)
    assert len(told) == 1
    assert len(header) <= columns


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize(
    ("line", "columns"),
    [
        ("", ["PROTO", "STATE", "PID", "COMM", "LOCAL", "REMOTE", "TX", "RX"]),
        ("--watch 1", ["TIME", "PROTO", "STATE", "PID", "COMM", "REMOTE", "TX/s", "RX/s"]),
        ("--listen", ["PROTO", "PID", "COMM", "LOCAL", "BACKLOG", "LIMIT"]),
    ],
)
def test_eighty_columns_are_enough(line: str, columns: list[str]) -> None:
    header, *told = lines(line, row(host="a.test"), udp(), web())
    assert header.split() == columns
    assert len(told) == (1 if line == "--listen" else 2)
    assert all(len(line) <= 80 for line in [header, *told])


@pytest.mark.usefixtures("narrow")
def test_sorted_by_a_column_that_there_is_no_room_for() -> None:
    rows = [row(comm="b", pid=1, rtt_ns=1), row(comm="a", pid=2, rtt_ns=2)]
    assert [line.split()[3] for line in lines("--sort rtt(ms)", *rows)[1:]] == ["a", "b"]


@pytest.mark.usefixtures("narrow")
def test_wide_goes_on_below_where_there_is_no_room() -> None:
    told = lines("-w", row())
    assert told[2].split() == ["CONN", "PEER"]
    assert all(len(line) <= 80 for line in told)


def test_what_was_lost_is_told_in_its_place() -> None:
    for line in ("", "--watch 1"):
        made = output(line)
        made.header()
        made.render(listed(line, [row()]).rows)
        ((data, count),) = made.render([Lost(NOW, 3, "ring")])
        assert count == 1
        assert data.decode().endswith("lost 3 records (ring full)\n")


@pytest.mark.parametrize(
    ("event", "colour"),
    [
        (row(), ""),
        (row(outcome="closed"), ""),
        (row(outcome="failed"), "31"),
        (web(backlog=511), ""),
        (web(backlog=512), "33"),
        (web(backlog=None), ""),
    ],
)
def test_failures_and_full_backlogs_stand_out(event: Event, colour: str) -> None:
    assert style(event) == colour


# Other formats

FULL = row(
    service=Endpoint("10.1.0.1", 8080),
    process=Process(exe="/usr/bin/curl", args=["curl", "a b"], parents=[2, 1]),
    v4_mapped=True,
    tx_rate=1.5,
    peer="00000000000000a2",
)


def test_json_has_every_key_that_is_known() -> None:
    (told,) = [json.loads(line) for line in lines("--format json", FULL)]
    assert told == {
        "event": "connection",
        "time": "2026-11-20T07:50:09.000000000Z",
        "conn": "00000000000000a1",
        "proto": "tcp",
        "direction": "out",
        "outcome": "open",
        "local_addr": "10.0.0.5",
        "local_port": 41234,
        "remote_addr": "10.0.0.7",
        "remote_port": 443,
        "pid": 1479,
        "comm": "curl",
        "exe": "/usr/bin/curl",
        "args": ["curl", "a b"],
        "parents": [2, 1],
        "v4_mapped": True,
        "service": {"addr": "10.1.0.1", "port": 8080},
        "tx_bytes": 5120,
        "rx_bytes": 1_160_000,
        "retransmits": 2,
        "rtt_ns": 172_000,
        "state": "ESTABLISHED",
        "fd": 5,
        "age_ns": 7_096_000_000,
        "tx_rate": 1.5,
        "peer": "00000000000000a2",
    }
    assert list(told)[:5] == ["event", "time", "conn", "proto", "direction"]


def test_csv_has_a_column_for_each_key() -> None:
    told = written("--format csv", [FULL, row(comm="=1,2", conn="2", pid=2000)])
    first, second = csv.DictReader(io.StringIO(told, newline=""))
    assert list(first)[:5] == ["time", "event", "conn", "proto", "direction"]
    assert {"backlog", "tx_rate", "age_ns", "exe", "count", "where"} <= set(first)
    assert (first["event"], first["service"], first["v4_mapped"]) == ("connection", "10.1.0.1:8080", "true")
    assert (first["parents"], first["args"], first["tx_rate"]) == ("2 1", r"curl a\x20b", "1.5")
    assert (second["comm"], second["exe"], second["v4_mapped"]) == ("'=1,2", "", "")


def test_a_template_is_filled_from_the_rows() -> None:
    line = "--template {comm}|{state}|{age_ns}|{service}|{exe}|{backlog}|{event}|{time}"
    assert lines(line, FULL) == [
        "curl|ESTABLISHED|7096000000|10.1.0.1:8080|/usr/bin/curl|?|connection|2026-11-20T07:50:09.000000000Z"
    ]


def test_an_entry_of_the_journal_for_each_row() -> None:
    told = written("--format journal", [row()]).splitlines()
    assert told[0] == "MESSAGE=curl (1479) 10.0.0.5:41234 → 10.0.0.7:443 tcp ESTABLISHED: 5120 B out, 1.16 MB in"
    assert {"PYTRACECON_EVENT=connection", "PYTRACECON_FD=5", "OBJECT_PID=1479"} <= set(told)
    assert view.message(web()) == "nginx (7) [::]:443 tcp listening: 12 of 511 wait"
    assert view.message(udp(tx_bytes=None, rx_bytes=3)) == "dig (1600) 10.0.0.5:41234 → 10.0.0.7:443 udp: 3 B in"
    assert view.message(Lost(NOW, 3, "ring")) == "lost 3 records (ring full)"


hostile = st.text(st.one_of(st.sampled_from('\n\r\x1b\\",=\u2028\u202e\x85\0'), st.characters()), max_size=16)


@given(hostile, hostile)
def test_no_text_breaks_out_of_its_row(comm: str, host: str) -> None:
    there = row(comm=comm, host=host)
    for form, count in (("table --watch 1", 2), ("json --watch 1", 1), ("csv --watch 1", 2)):
        told = written(f"--format {form}", [there])
        assert all(unicodedata.category(each) not in ("Cf", "Cs", "Zl", "Zp") for each in told)
        shown = told.replace("\r\n", "\n").removesuffix("\n").split("\n")
        assert len(shown) == count
        assert all(unicodedata.category(each) != "Cc" for line in shown for each in line)
        if form.startswith("csv"):
            assert text.restore_cell(next(csv.DictReader(io.StringIO(told, newline="")))["comm"]) == comm


# Options


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", {"names": False, "processes": False}),
        ("-4 --comm curl", {"family": 4, "comm": ["curl"], "names": False, "processes": False}),
        ("--listen --local-port 80", {"local_port": ["80"], "names": False, "processes": False}),
        ("--watch 1 --listen", {"names": False, "processes": False}),
        ("--watch 1", {"processes": False}),
        ("--watch 1 --no-names", {"names": False, "processes": False}),
        ("--watch 1 --host *.a --reverse", {"host": ["*.a"], "reverse": True, "processes": False}),
        ("--show fd", {"names": False, "processes": False}),
        ("--show exe", {"names": False}),
        ("--format json", {"names": False}),
        ("--watch 1 --format json", {}),
        ("--exe curl", {"exe": ["curl"], "names": False}),
    ],
)
def test_the_tracer_is_asked_for_no_more_than_is_shown(line: str, expected: dict[str, Any]) -> None:
    found = flows.keywords(options(line))
    found.pop("events")
    assert found == expected


@pytest.mark.parametrize(
    ("line", "events"),
    [
        ("", []),
        ("--proto udp", []),
        ("--watch 1 --listen", []),
        ("--watch 1", ["close", "failed", "flow"]),
        ("--watch 1 --proto tcp", ["close", "failed"]),
        ("--watch 1 --proto udp", ["flow"]),
    ],
)
def test_the_tracer_is_asked_for_the_events_that_end_what_is_listed(line: str, events: list[str]) -> None:
    assert flows.keywords(options(line))["events"] == events


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("--sort speed", "--sort: speed is no column; there are proto, state, pid, comm, local, remote, tx, rx"),
        ("--sort -speed", "--sort: -speed is no column; there are proto,"),
        ("--sort tx/s", "--sort: tx/s is no column"),
        ("--sort age", "--sort: age is no column"),
        ("--sort backlog", "--sort: backlog is no column"),
        ("--listen --sort tx", "--sort: tx is no column; there are proto, pid, comm, local, backlog, limit"),
        ("--sort", "--sort"),
        ("--limit 0", "--limit: 0 is not a number from 1"),
        ("--limit -1", "--limit"),
        ("--limit many", "--limit: many is not a number"),
        ("--watch 0", "--watch: 0 is not a number of seconds"),
        ("--watch often", "--watch: often"),
        ("--proto sctp", "--proto: sctp is not one of tcp, udp"),
        ("--duration 1", "--duration: there is one listing, and then it ends; add --watch"),
        ("--count 1", "--count: there is one listing"),
        ("--watch 1 --count 0", "--count: 0"),
        ("--host a", "--host: names are learnt while it watches"),
        ("--reverse", "--reverse: names are learnt while it watches"),
        ("--listen --port 80", "--port: who listens has no other end"),
        ("--listen --not-remote 10.0.0.0/8", "--not-remote: who listens has no other end"),
        ("--listen --direction in", "--direction: who listens has no other end"),
        ("--watch 1 --listen --host a", "--host: who listens has no other end"),
        ("--failed", "--failed"),
        ("--min-latency 1", "--min-latency"),
        ("--show fdd", "--show: fdd is no key; near it are fd"),
        ("--show fd --format json", "--show"),
        ("--template {fdd}", "{fdd} is no key; there are event, time, conn"),
        ("--template {old}", "{old} is no key"),
        ("--port 0", "--port"),
        ("-4 -6", "-6"),
        ("extra", "extra"),
    ],
)
def test_wrong_usage_is_one_line(line: str, named: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["flows", *line.split()]) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert named in err


def test_help_fits_a_terminal_of_80_columns(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["flows", "--help"]) == 0
    assert max(map(len, capfd.readouterr().out.splitlines())) <= 80
