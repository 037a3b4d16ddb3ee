"""What is written: nothing made up, nothing lost, nothing that a reader would obey."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import pty
import socket
import stat
import struct
import termios
import unicodedata
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytracecon import text
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
    Flow,
    Lookup,
    Lost,
    Process,
    Reset,
    Retransmit,
    State,
)
from pytracecon.outputs import Output
from pytracecon.outputs.csv_rows import CsvRows
from pytracecon.outputs.json_lines import JsonLines
from pytracecon.outputs.keys import all_keys, keys
from pytracecon.outputs.sink import NotReopened, OutputFailed, ReaderGone, Sink, open_file, standard_output
from pytracecon.views import lookups, trace
from pytracecon.views.wording import duration, endpoint, host, several, size, time_of_day

NOW = 1_795_161_009_123_456_789  # 2026-11-20T07:50:09.123456789Z
V4: dict[str, Any] = {
    "conn": "00003fa2c18e0007",
    "proto": "tcp",
    "direction": "out",
    "local_addr": "10.0.0.5",
    "local_port": 41234,
    "remote_addr": "93.184.216.34",
    "remote_port": 443,
    "netns": 4026531840,
    "pid": 1234,
    "comm": "curl",
    "uid": 1000,
    "owner": "connect",
    "cgroup": 4711,
}
LONGEST = "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff"
V6 = V4 | {"local_addr": LONGEST, "remote_addr": LONGEST, "local_port": 65535, "remote_port": 65535}

LOOKUP: dict[str, Any] = {
    "netns": 4026531840,
    "pid": 1234,
    "comm": "curl",
    "name": "www.example.com",
    "addresses": ["93.184.216.34", "2606:2800:21f:cb07::1"],
    "latency_ns": 8_200_000,
    "result": "ok",
    "source": "getaddrinfo",
}
MISSING: dict[str, Any] = LOOKUP | {
    "name": "no-such.example.com",
    "type": "A",
    "addresses": None,
    "latency_ns": 3_100_000,
    "result": "NXDOMAIN",
    "source": "dns",
    "server": "127.0.0.53",
}

FOREIGN = ("comm", "thread", "host", "name", "host_candidates")
FOREIGN_OF_PROCESS = ("container", "container_name", "pod", "unit", "exe")
foreign_text = st.one_of(
    st.text(st.characters(exclude_categories=[])),
    st.text(max_size=15).map(lambda name: text.decode(name.encode())),
    st.binary(max_size=16).map(text.decode),
    st.sampled_from(
        ["=cmd|' /C calc'!A0", "\x1b]52;c;eA==\x07", '"', "a,b\r\n", "\u202e\u2028\x85\x7f", "\udc80", "'", " =1", ""]
    ),
)
number = st.integers(0, (1 << 64) - 1)


processes = st.builds(
    Process,
    **{key: st.none() | foreign_text for key in FOREIGN_OF_PROCESS},
    exe_source=st.sampled_from([None, "exec", "proc"]),
    args=st.none() | st.lists(foreign_text, min_size=1, max_size=4),
    args_cut=st.none() | st.just(True),
    parents=st.none() | st.lists(number, min_size=1, max_size=4),
)


def an_event(kind: type[Event]) -> st.SearchStrategy[Event]:
    """Numbers, flags and our own words as the kernel side makes them, and any text where others choose it."""
    values: dict[str, st.SearchStrategy[Any]] = {}
    for field in fields(kind):
        if field.name == "time_ns":
            values[field.name] = st.integers(0, 1 << 62)
            continue
        if field.name == "process":
            values[field.name] = st.none() | processes
            continue
        if field.name in ("service", "nat"):
            values[field.name] = st.none() | st.builds(
                Endpoint, st.sampled_from(["10.0.0.7", "::1"]), st.integers(1, 65535)
            )
            continue
        if field.name == "host_candidates":
            value: st.SearchStrategy[Any] = st.lists(foreign_text, max_size=4)
        elif field.name == "addresses":
            value = st.lists(st.sampled_from(["10.0.0.5", "::1", LONGEST]), max_size=12)
        elif field.name in FOREIGN:
            value = foreign_text
        elif "str" in str(field.type):
            value = st.sampled_from(["tcp", "out", "10.0.0.5", "::1", "ECONNREFUSED", "00003fa2c18e0007"])
        elif "bool" in str(field.type):
            value = st.just(True)
        elif field.name in ("from_ns", "to_ns"):
            value = st.integers(0, 1 << 62)
        else:
            value = number
        values[field.name] = st.none() | value if "None" in str(field.type) else value
    return st.builds(kind, **values)


KINDS: tuple[type[Event], ...] = (Connect, Established, Failed, Accept, Close, Existing, Lookup, Lost)
any_events = st.lists(st.one_of([an_event(kind) for kind in KINDS]), max_size=8)


def rendered(output: Output, events: list[Event]) -> str:
    pieces = output.render(events)
    assert sum(count for _, count in pieces) == len(events)
    return (output.header() + b"".join(data for data, _ in pieces)).decode()


def harmless(shown: str) -> bool:
    return all(unicodedata.category(each) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for each in shown)


# JSON Lines


def test_a_json_line_has_the_documented_keys_in_their_order() -> None:
    event = Established(NOW, **V4, host="www.example.com", host_source="dns", latency_ns=12_310_000, syn_retransmits=0)
    assert rendered(JsonLines(), [event]) == (
        '{"event":"established","time":"2026-11-20T07:50:09.123456789Z","conn":"00003fa2c18e0007","proto":"tcp",'
        '"direction":"out","local_addr":"10.0.0.5","local_port":41234,"remote_addr":"93.184.216.34",'
        '"remote_port":443,"netns":4026531840,"pid":1234,"comm":"curl","uid":1000,"owner":"connect","cgroup":4711,'
        '"host":"www.example.com","host_source":"dns","latency_ns":12310000,"syn_retransmits":0}\n'
    )


def test_a_lookup_in_json_lists_its_addresses() -> None:
    assert rendered(JsonLines(), [Lookup(NOW, **LOOKUP)]) == (
        '{"event":"lookup","time":"2026-11-20T07:50:09.123456789Z","netns":4026531840,"pid":1234,"comm":"curl",'
        '"name":"www.example.com","addresses":["93.184.216.34","2606:2800:21f:cb07::1"],"latency_ns":8200000,'
        '"result":"ok","source":"getaddrinfo"}\n'
    )


def test_all_names_that_fit_stand_behind_the_one_that_does_best() -> None:
    event = Connect(NOW, **V4, host="b", host_source="dns", host_candidates=["b", "\x1b", "\udc80"])
    assert '"host":"b","host_source":"dns","host_candidates":["b","\\u001b","\\\\udc80"]}' in rendered(
        JsonLines(), [event]
    )


def test_a_loss_in_json_tells_from_when_to_when() -> None:
    assert rendered(JsonLines(), [Lost(NOW, 3, "ring", NOW - 9, NOW), Lost(NOW, 1, "map")]) == (
        '{"event":"lost","time":"2026-11-20T07:50:09.123456789Z","count":3,"where":"ring",'
        '"from":"2026-11-20T07:50:09.123456780Z","to":"2026-11-20T07:50:09.123456789Z"}\n'
        '{"event":"lost","time":"2026-11-20T07:50:09.123456789Z","count":1,"where":"map"}\n'
    )


@given(any_events)
def test_json_lines_parse_back_to_the_events(events: list[Event]) -> None:
    lines = rendered(JsonLines(), events).split("\n")
    assert lines.pop() == ""
    assert all(harmless(line) for line in lines)
    for line, event in zip(lines, events, strict=True):
        found = json.loads(line)
        assert list(found)[:2] == ["event", "time"]
        assert found.pop("event") == event.event
        assert found.pop("time") == event.time
        order = [key for key in keys(type(event)) if key in found]
        assert list(found) == order
        for key in keys(type(event)):
            if key in ("from", "to"):
                known = getattr(event, f"{key}_ns")
                assert (found.get(key) is None) == (known is None)
                continue
            value = getattr(event, key)
            # A lone surrogate has no UTF-8, and becomes text.
            if isinstance(value, str):
                value = value.encode("utf-8", "backslashreplace").decode()
            elif isinstance(value, Endpoint):
                value = {"addr": value.addr, "port": value.port}
            elif isinstance(value, list):
                value = [
                    each.encode("utf-8", "backslashreplace").decode() if isinstance(each, str) else each
                    for each in value
                ]
            assert found.get(key) == value
            assert (key in found) == (value is not None)


@given(st.lists(st.integers(0, 1 << 62), min_size=1))
def test_json_times_are_right_in_any_order(moments: list[int]) -> None:
    events: list[Event] = [Lost(moment, 1, "ring") for moment in moments]
    lines = rendered(JsonLines(), events).splitlines()
    assert [json.loads(line)["time"] for line in lines] == [event.time for event in events]


# CSV


@given(any_events)
def test_csv_parses_back_to_the_events_and_holds_no_formula(events: list[Event]) -> None:
    written = rendered(CsvRows(), events)
    rows = list(csv.reader(io.StringIO(written, newline="")))
    assert rows[0] == ["time", "event", *all_keys()]
    assert written.count("\r\n") == len(events) + 1
    assert harmless(written.replace("\r\n", ""))
    for row, event in zip(rows[1:], events, strict=True):
        found = dict(zip(rows[0], row, strict=True))
        assert found.pop("time") == event.time
        assert found.pop("event") == event.event
        for key, shown in found.items():
            if key in ("from", "to"):
                continue
            value = getattr(event, key, None)
            foreign = key in FOREIGN or key in FOREIGN_OF_PROCESS or key == "args"
            if foreign or key == "addresses":
                assert not any(shown.lstrip(" ").startswith(sign) for sign in "=+-@\t\r")
            if key == "parents":
                assert shown == " ".join(map(str, value or ()))
            elif key in ("host_candidates", "addresses", "args"):
                assert ([text.restore_cell(each) for each in shown.split(" ")] if value else shown) == (value or "")
            elif foreign:
                assert text.restore_cell(shown) == (value or "")
            else:
                assert shown == ("" if value is None else "true" if value is True else str(value))


def test_yes_and_no_are_spelt_alike_in_every_cell() -> None:
    events = [Reset(NOW, **V4, sent=sent, v4_mapped=True) for sent in (True, False, None)]
    rows = b"".join(piece for piece, _ in CsvRows(["v4_mapped", "sent"]).render(events)).decode().splitlines()
    assert [row.split(",")[-2:] for row in rows] == [["true", "true"], ["true", "false"], ["true", ""]]


def test_the_columns_of_csv_are_those_of_all_events_whatever_is_asked_for() -> None:
    assert CsvRows().header().decode() == (
        "time,event,conn,proto,direction,local_addr,local_port,remote_addr,remote_port,v4_mapped,netns,pid,comm,uid,tid,"
        "thread,owner,cgroup,container,container_name,pod,unit,exe,exe_source,args,args_cut,parents,host,host_source,"
        "host_candidates,service,nat,pre_existing,subflow_of,partial,fastopen,latency_ns,syn_retransmits,error,reason,wait_ns,"
        "duration_ns,tx_bytes,tx_acked,rx_bytes,retransmits,rtt_ns,ended,state,old,new,in_old_ns,meaning,service_scheduler,"
        "service_weight,service_forwarding,segment,segments,sent,"
        "tx_packets,rx_packets,app,name,type,addresses,result,source,server,within,count,where,from,to\r\n"
    )


def test_commas_and_quotes_are_quoted() -> None:
    row = rendered(CsvRows(), [Accept(NOW, **V4 | {"comm": 'a,"b"'})]).split("\r\n")[1]
    assert ',"a,""b""",' in row


def test_a_blank_stands_between_the_values_of_a_list_and_in_none_of_them() -> None:
    event = Connect(NOW, **V4, host_candidates=["=b", "a c", "x\\y"])
    assert ",'=b a\\x20c x\\\\y," in rendered(CsvRows(), [event])
    assert ",93.184.216.34 2606:2800:21f:cb07::1," in rendered(CsvRows(), [Lookup(NOW, **LOOKUP)])


# The table


@pytest.fixture
def table_of() -> Any:
    return lambda width, names=True: trace.table(lambda: width, utc=True, names=names)


def test_the_table_reads_as_the_readme_shows(table_of: Any) -> None:
    events: list[Event] = [
        Lookup(NOW, **LOOKUP),
        Established(NOW, **V4, host="www.example.com", latency_ns=12_310_000, syn_retransmits=0),
        Lookup(NOW, **MISSING),
        Accept(NOW, **V4 | {"local_port": 443, "remote_addr": "10.0.0.9", "comm": "nginx", "pid": 998}, wait_ns=20_000),
        Failed(NOW, **V4, error="ECONNREFUSED", reason="refused", latency_ns=410_000),
        Close(NOW, **V4, duration_ns=1_100_000_000, tx_bytes=78, tx_acked=78, rx_bytes=1206, ended="remote_close"),
        Lost(NOW, 120, "ring"),
    ]
    assert (
        rendered(table_of(None), events)
        == """\
TIME             PID     COMM        EVENT        LOCAL                  REMOTE                 HOST              DETAIL
07:50:09.123456  1234    curl        lookup       www.example.com → 93.184.216.34, 2606:2800:21f:cb07::1          \
8.20 ms (getaddrinfo)
07:50:09.123456  1234    curl        established  10.0.0.5:41234         93.184.216.34:443      www.example.com   \
12.31 ms
07:50:09.123456  1234    curl        lookup       no-such.example.com                                             \
NXDOMAIN, 3.10 ms (dns, 127.0.0.53)
07:50:09.123456  998     nginx       accept       10.0.0.5:443           10.0.0.9:443                             \
waited 0.02 ms
07:50:09.123456  1234    curl        failed       10.0.0.5:41234         93.184.216.34:443                        \
refused, 0.41 ms
07:50:09.123456  1234    curl        close        10.0.0.5:41234         93.184.216.34:443                        \
1.10 s, 78 B out, 1206 B in, closed by remote
07:50:09.123456                      lost                                                                         \
lost 120 records (ring full)
"""
    )


@pytest.mark.parametrize("width", [None, 200])
def test_without_names_there_is_no_column_for_them(table_of: Any, width: int | None) -> None:
    events: list[Event] = [Established(NOW, **V4, latency_ns=12_310_000), Lost(NOW, 120, "ring")]
    assert (
        rendered(table_of(width, names=False), events)
        == """\
TIME             PID     COMM        EVENT        LOCAL                  REMOTE                 DETAIL
07:50:09.123456  1234    curl        established  10.0.0.5:41234         93.184.216.34:443      12.31 ms
07:50:09.123456                      lost                                                       \
lost 120 records (ring full)
"""
    )


@pytest.mark.parametrize("width", [None, 200])
def test_after_a_long_address_everything_is_in_line_again_below_a_new_header(table_of: Any, width: int | None) -> None:
    events: list[Event] = [Accept(NOW, **V4), Accept(NOW, **V6, wait_ns=1), Accept(NOW, **V4, wait_ns=1)]
    lines = rendered(table_of(width), events).splitlines()
    assert [line.split()[0] for line in lines] == [
        "TIME",
        "07:50:09.123456",
        "TIME",
        "07:50:09.123456",
        "07:50:09.123456",
    ]
    _, _, header, long, short = lines
    for line, local in ((long, f"[{LONGEST}]:65535"), (short, "10.0.0.5:41234")):
        assert line.index(local) == header.index("LOCAL")
        assert line.rindex("waited") == header.index("DETAIL")
    assert short.index("93.184.216.34:443") == header.index("REMOTE")


@pytest.mark.parametrize("width", [None, 160])
def test_a_lookup_runs_over_the_columns_of_the_ends_and_widens_none(table_of: Any, width: int | None) -> None:
    addresses = [f"10.0.0.{last}" for last in range(20)]
    events: list[Event] = [
        Lookup(NOW, **LOOKUP),
        Lookup(NOW, **LOOKUP | {"name": "x" * 99, "addresses": addresses}),
        Established(NOW, **V4, host="www.example.com", latency_ns=12_310_000),
    ]
    header, lookup, *_, established = rendered(table_of(width), events).splitlines()
    assert lookup.index("www.example.com →") == established.index("10.0.0.5:41234") == header.index("LOCAL")
    assert lookup.index("8.20 ms") == established.index("12.31 ms") == header.index("DETAIL")


def test_columns_widen_a_few_times_at_most(table_of: Any) -> None:
    parts = [f"{1 << bits:x}" for bits in range(16)]
    events: list[Event] = [
        Accept(
            NOW, **V4 | {"local_addr": f"2001:db8:{':'.join(parts[i : i + 6])}", "comm": "x" * (i + 1), "pid": 10**i}
        )
        for i in range(7)
    ]
    assert rendered(table_of(None), events).count("TIME") <= 8


@given(any_events, st.integers(60, 250))
def test_no_row_runs_over_the_edge_of_the_terminal_or_hides_what_it_says(events: list[Event], width: int) -> None:
    for event in events:
        if isinstance(event, ConnectionEvent | Lookup) and event.comm is not None:
            event.comm = event.comm[:4]
    lines = rendered(trace.table(lambda: width, utc=True), events).splitlines()
    assert max(map(text.width, lines)) <= width
    shown = " ".join(" ".join(lines).split())
    for event in events:
        for clause in trace.detail(event, narrow=width < 104).split(", "):
            assert " ".join(clause.split()) in shown


@given(any_events, st.integers(2, 250))
def test_no_text_is_too_long_for_a_terminal(events: list[Event], width: int) -> None:
    for table in (trace.table(lambda: width, utc=True), lookups.table(lambda: width, utc=True)):
        assert max(map(text.width, rendered(table, events).splitlines())) <= width


@given(any_events, st.sampled_from([None, 80, 110, 160]))
def test_the_table_lets_no_control_character_through(events: list[Event], width: int | None) -> None:
    for table in (trace.table(lambda: width, utc=True), lookups.table(lambda: width, utc=True)):
        assert all(harmless(line) for line in rendered(table, events).split("\n"))


def test_a_narrow_terminal_gets_shorter_columns_and_whole_rows(table_of: Any) -> None:
    events: list[Event] = [
        Lookup(NOW, **LOOKUP | {"addresses": ["93.184.216.34"]}),
        Lookup(NOW, **LOOKUP),
        Established(NOW, **V4, host="www.example.com", latency_ns=12_310_000),
        Established(NOW, **V4, latency_ns=12_310_000),
        Failed(NOW, **V4, error="ECONNREFUSED", reason="refused", latency_ns=410_000),
        Lookup(NOW, **MISSING),
        Close(NOW, **V4, duration_ns=1_100_000_000, tx_bytes=78, tx_acked=78, rx_bytes=1206, ended="remote_close"),
    ]
    expected = """\
TIME     PID     COMM      EVENT       LOCAL  REMOTE            DETAIL
07:50:09 1234    curl      lookup      www.example.com → 93.184.216.34 8.20 ms
07:50:09 1234    curl      lookup      www.example.com → 93.184.216.34,
                                       2606:2800:21f:cb07::1 8.20 ms
07:50:09 1234    curl      established :41234 www.example.com:443 12.31 ms
07:50:09 1234    curl      established :41234 93.184.216.34:443 12.31 ms
07:50:09 1234    curl      failed      :41234 93.184.216.34:443 refused, 0.41 ms
07:50:09 1234    curl      lookup      no-such.example.com NXDOMAIN, 3.10 ms
07:50:09 1234    curl      close       :41234 93.184.216.34:443 1.10 s,
                                       78 B out, 1206 B in, closed by remote
"""
    assert rendered(table_of(80), events) == expected


@pytest.mark.parametrize("width", [104, 121])
def test_where_there_is_no_room_for_both_a_name_stands_for_the_address(table_of: Any, width: int) -> None:
    events: list[Event] = [
        Established(NOW, **V4, host="www.example.com", latency_ns=12_310_000),
        Established(NOW, **V4, latency_ns=12_310_000),
    ]
    expected = """\
TIME             PID     COMM        EVENT        LOCAL                  REMOTE                 DETAIL
07:50:09.123456  1234    curl        established  10.0.0.5:41234         www.example.com:443    12.31 ms
07:50:09.123456  1234    curl        established  10.0.0.5:41234         93.184.216.34:443      12.31 ms
"""
    assert rendered(table_of(width), events) == expected


@pytest.mark.parametrize(
    ("known", "column", "with_port"),
    [
        ({"host": "a.example"}, "a.example", "a.example:443"),
        ({"host": "a.example", "host_candidates": ["a.example", "b", "c"]}, "a.example (+2)", "a.example:443 (+2)"),
        ({"host": "a.example", "host_candidates": ["a.example"]}, "a.example", "a.example:443"),
        ({"host": "a.example", "host_source": "ptr"}, "a.example (ptr)", "a.example:443 (ptr)"),
        ({"host": "a.example", "remote_port": None}, "a.example", "a.example:?"),
        ({"host": "\x1b[31m\u202e"}, "\\x1b[31m\\u202e", "\\x1b[31m\\u202e:443"),
        ({"host": "a" + "b" * 48}, "…" + "b" * 47, "…" + "b" * 47 + ":443"),
        ({}, "", "93.184.216.34:443"),
    ],
)
def test_a_host_says_what_is_to_be_said_of_it(known: dict[str, Any], column: str, with_port: str) -> None:
    event = Established(NOW, **V4 | known)
    assert trace.row(event, host_column=True)[6] == column
    assert trace.row(event)[5] == with_port


def test_a_narrow_terminal_gets_shorter_names_and_two_addresses() -> None:
    known = V4 | {"remote_port": 65535, "host": "a" * 20 + "b" * 20}
    assert trace.row(Established(NOW, **known), narrow=True)[5] == "…" + "a" * 13 + "b" * 20 + ":65535"
    many = LOOKUP | {"name": "a.b", "addresses": ["::1", "::2", "::3"]}
    assert trace.row(Lookup(NOW, **many), narrow=True)[4] == "a.b → ::1, ::2, +1"
    assert trace.row(Lookup(NOW, **many))[4] == "a.b → ::1, ::2, ::3"


def test_wide_characters_keep_the_columns_in_line(table_of: Any) -> None:
    header, wide, plain = rendered(
        table_of(None), [Accept(NOW, **V4 | {"comm": "日本"}), Accept(NOW, **V4)]
    ).splitlines()
    assert text.width(wide[: wide.index("accept")]) == plain.index("accept") == header.index("EVENT")


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (Connect(NOW, **V4), ""),
        (Connect(NOW, **V4, fastopen=True), "fast open"),
        (Established(NOW, **V4), ""),
        (Established(NOW, **V4, latency_ns=1_003_000_000, syn_retransmits=1), "1.00 s, 1 SYN retransmit"),
        (Established(NOW, **V4, latency_ns=8_000, fastopen=True), "0.008 ms, fast open"),
        (Failed(NOW, **V4, error="ETIMEDOUT", reason="timeout", syn_retransmits=6), "timed out, 6 SYN retransmits"),
        (Failed(NOW, **V4, error="ENETUNREACH", reason="unreachable"), "unreachable (ENETUNREACH)"),
        (Failed(NOW, **V4, reason="cancelled"), "cancelled"),
        (Failed(NOW, **V4, error="EINVAL"), "EINVAL"),
        (Failed(NOW, **V4), "failed"),
        (Accept(NOW, **V4), ""),
        (Accept(NOW, **V4, pre_existing=True), "pre-existing"),
        (Close(NOW, **V4), ""),
        (Close(NOW, **V4, pre_existing=True, tx_bytes=0, rx_bytes=0), "0 B out, 0 B in, pre-existing"),
        (Close(NOW, **V4, tx_bytes=9, tx_acked=4), "9 B out (5 B unacknowledged)"),
        (Close(NOW, **V4, retransmits=2, ended="remote_reset"), "2 retransmits, reset by remote"),
        (Close(NOW, **V4, ended="timeout", partial=True), "timed out, partial"),
        (Close(NOW, **V4 | {"proto": "mptcp"}, ended="local_close"), "closed by local, MPTCP"),
        (Close(NOW, **V4, subflow_of="0000000000000001"), "subflow of 0000000000000001"),
        (Existing(NOW, **V4, pre_existing=True, state="ESTABLISHED", rx_bytes=1), "ESTABLISHED, 1 B in"),
        (State(NOW, **V4, old="CLOSE", new="SYN_SENT", meaning="open"), "CLOSE → SYN_SENT, open"),
        (
            State(NOW, **V4, old="ESTABLISHED", new="FIN_WAIT1", in_old_ns=803_100_000, meaning="closed_by_client"),
            "ESTABLISHED → FIN_WAIT1 after 803.10 ms, closed by client",
        ),
        (
            Retransmit(NOW, **V4, state="SYN_SENT", segment="syn", segments=1, meaning="slow_establishing"),
            "SYN in SYN_SENT, slow establishing",
        ),
        (Retransmit(NOW, **V4, state="SYN_RECV", segment="synack"), "SYN-ACK in SYN_RECV"),
        (Retransmit(NOW, **V4, state="ESTABLISHED", segment="data", segments=3), "3 segments of data in ESTABLISHED"),
        (Retransmit(NOW, **V4), ""),
        (Reset(NOW, **V4, sent=True, state="ESTABLISHED"), "sent in ESTABLISHED"),
        (Reset(NOW, **V4, sent=False, state="SYN_SENT"), "received in SYN_SENT"),
        (Reset(NOW, **V4), ""),
        (
            Flow(
                NOW,
                **V4 | {"proto": "udp"},
                tx_bytes=512,
                rx_bytes=32_768,
                tx_packets=1,
                rx_packets=8,
                duration_ns=1_100_000,
                ended="owner_gone",
                app="quic",
            ),
            "1.10 ms, 512 B out (1 datagram), 32768 B in (8 datagrams), owner gone, QUIC, UDP",
        ),
        (Flow(NOW, **V4 | {"proto": "udp"}, ended="idle"), "idle, UDP"),
        (Lookup(NOW, **LOOKUP), "8.20 ms (getaddrinfo)"),
        (Lookup(NOW, **LOOKUP | {"partial": True, "latency_ns": None}), "(getaddrinfo), partial"),
        (Lookup(NOW, **MISSING), "NXDOMAIN, 3.10 ms (dns, 127.0.0.53)"),
        (Lookup(NOW, **MISSING | {"type": "AAAA"}), "NXDOMAIN, 3.10 ms (dns AAAA, 127.0.0.53)"),
        (
            Lookup(NOW, **MISSING | {"within": "getaddrinfo"}),
            "NXDOMAIN, 3.10 ms (dns, 127.0.0.53, within getaddrinfo)",
        ),
        (Lookup(NOW), ""),
        (Lost(NOW, 1, "map"), "lost 1 record (map full)"),
    ],
)
def test_the_detail_says_what_is_particular(event: Event, expected: str) -> None:
    assert trace.detail(event) == expected


def test_what_is_not_known_is_a_question_mark_and_what_does_not_apply_is_empty() -> None:
    assert trace.row(Failed(NOW, "1", "tcp", "out"), utc=True)[1:6] == ("?", "?", "failed", "?", "?")
    assert trace.row(Lost(NOW, 1, "ring"), utc=True)[1:6] == ("", "", "lost", "", "")
    assert trace.row(Lookup(NOW), utc=True)[1:] == ("?", "?", "lookup", "?", None, "")
    assert lookups.row(Lookup(NOW), utc=True)[1:] == ("?", "?", "?", "?", "? → ?")


# The table of lookups


@pytest.fixture
def asked() -> list[Event]:
    return [
        Lookup(NOW, **LOOKUP),
        Lookup(NOW, **MISSING | {"pid": 998, "comm": "nginx", "type": "AAAA"}),
        Lookup(NOW, **MISSING | {"latency_ns": 5_000_000_000, "result": "timeout"}),
        Lost(NOW, 120, "ring"),
    ]


def test_the_table_of_lookups_reads_as_the_readme_shows(asked: list[Event]) -> None:
    assert (
        rendered(lookups.table(lambda: None, utc=True), asked)
        == """\
TIME             PID     COMM        LATENCY     SOURCE                NAME → RESULT
07:50:09.123456  1234    curl        8.20 ms     getaddrinfo           \
www.example.com → 93.184.216.34, 2606:2800:21f:cb07::1
07:50:09.123456  998     nginx       3.10 ms     dns AAAA @127.0.0.53  no-such.example.com → NXDOMAIN
07:50:09.123456  1234    curl        5.00 s      dns @127.0.0.53       no-such.example.com → timeout
07:50:09.123456                                                        lost 120 records (ring full)
"""
    )


def test_the_table_of_lookups_in_a_narrow_terminal(asked: list[Event]) -> None:
    assert (
        rendered(lookups.table(lambda: 80, utc=True), asked)
        == """\
TIME     PID    COMM      LATENCY   SOURCE      NAME → RESULT
07:50:09 1234   curl      8.20 ms   getaddrinfo www.example.com → 93.184.216.34,
                                                2606:2800:21f:cb07::1
07:50:09 998    nginx     3.10 ms   dns AAAA    no-such.example.com → NXDOMAIN
07:50:09 1234   curl      5.00 s    dns         no-such.example.com → timeout
07:50:09                                        lost 120 records (ring full)
"""
    )


@pytest.mark.parametrize(
    ("changed", "source", "said"),
    [
        ({"addresses": ["::1"]}, "getaddrinfo", "www.example.com → ::1"),
        ({"addresses": []}, "getaddrinfo", "www.example.com → ok"),
        ({"addresses": ["::1"], "partial": True}, "getaddrinfo", "www.example.com → ::1, partial"),
        ({"addresses": ["::1"], "result": "truncated"}, "getaddrinfo", "www.example.com → ::1, truncated"),
        (
            {"addresses": [f"::{last}" for last in range(1, 19)]},
            "getaddrinfo",
            "www.example.com → ::1, ::2, ::3, ::4, ::5, ::6, +12",
        ),
        (
            {"addresses": ["::1"], "source": "dns", "type": "A", "within": "gethostbyname"},
            "dns",
            "www.example.com → ::1, within gethostbyname",
        ),
        ({"name": "\x1b]0;x\x07", "addresses": ["::1"]}, "getaddrinfo", "\\x1b]0;x\\x07 → ::1"),
    ],
)
def test_a_lookup_ends_with_what_came_of_it(changed: dict[str, Any], source: str, said: str) -> None:
    assert lookups.row(Lookup(NOW, **LOOKUP | changed))[4:] == (source, said)


def test_of_a_long_name_the_end_is_shown_and_of_many_values_the_first() -> None:
    assert host("bank.example." + "x" * 40, 20) == "…" + "x" * 19
    assert host("www.example.com", 15) == "www.example.com"
    assert several(["a", "b", "c"], 3) == "a, b, c"
    assert several(["a", "b", "c"], 1) == "a, +2"
    assert several([], 1) == ""


@pytest.mark.parametrize(
    ("nanoseconds", "expected"),
    [
        (0, "0.000 ms"),
        (999, "0.001 ms"),
        (9_999, "0.010 ms"),
        (10_000, "0.01 ms"),
        (12_310_000, "12.31 ms"),
        (999_994_999, "999.99 ms"),
        (999_995_000, "1.00 s"),
        (59_994_999_999, "59.99 s"),
        (59_995_000_000, "1 min 0 s"),
        (3_599_500_000_000, "1 h 0 min"),
        (86_400_000_000_000, "1 d 0 h"),
    ],
)
def test_durations_read_well(nanoseconds: int, expected: str) -> None:
    assert duration(nanoseconds) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0 B"),
        (99_999, "99999 B"),
        (100_000, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (12_345_678, "12.3 MB"),
        (1 << 63, "9.22 EB"),
    ],
)
def test_sizes_read_well(count: int, expected: str) -> None:
    assert size(count) == expected


def test_endpoints_are_written_as_they_are_typed() -> None:
    assert endpoint("10.0.0.5", 443) == "10.0.0.5:443"
    assert endpoint("::1", 443) == "[::1]:443"
    assert endpoint("10.0.0.5", None) == "10.0.0.5:?"
    assert endpoint(None, 443) == "?:443"
    assert endpoint(None, None) == "?"


def test_the_time_of_day_is_local_unless_utc_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import time  # noqa: PLC0415

    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    try:
        assert time_of_day(NOW + 10**9) == "13:35:10.123456"
        assert time_of_day(NOW + 10**9, utc=True) == "07:50:10.123456"
    finally:
        monkeypatch.undo()
        time.tzset()


# Where it goes


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        try:
            os.close(descriptor)
        except OSError:
            continue  # the test closed it


def test_a_new_file_is_its_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with closing(open_file(str(tmp_path / "new"), append=False)):
            assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


def test_what_a_file_held_goes_only_when_output_begins(tmp_path: Path) -> None:
    file = tmp_path / "old"
    file.write_text("old content")
    with closing(open_file(str(file), append=False)) as sink:
        assert file.read_text() == "old content"
        sink.begin(b"header\n")
        sink.write([(b"row\n", 1)])
        sink.flush()
    assert file.read_text() == "header\nrow\n"
    assert sink.written == 1


def test_append_keeps_what_a_file_held(tmp_path: Path) -> None:
    file = tmp_path / "old"
    file.write_text("old\n")
    with closing(open_file(str(file), append=True)) as sink:
        sink.begin(b"")
        sink.write([(b"new\n", 1)])
        sink.flush()
    assert file.read_text() == "old\nnew\n"


@pytest.mark.parametrize("append", [False, True])
@pytest.mark.parametrize("target", ["there", "missing"])
def test_a_link_is_never_followed(tmp_path: Path, target: str, append: bool) -> None:
    (tmp_path / "there").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / target)
    with pytest.raises(OutputFailed, match="symbolic link"):
        open_file(str(tmp_path / "link"), append=append)
    assert (tmp_path / "there").read_text() == "precious"
    assert not (tmp_path / "missing").exists()


def test_a_file_with_another_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "name").hardlink_to(tmp_path / "precious")
    with pytest.raises(OutputFailed, match="hard links"):
        open_file(str(tmp_path / "name"), append=False)
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_pipe_by_name_is_refused_with_and_without_a_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OutputFailed, match="is a pipe"):
        open_file(str(tmp_path / "fifo"), append=False)
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(OutputFailed, match="is a pipe"):
        open_file(str(tmp_path / "fifo"), append=False)
    os.close(reader)


@pytest.mark.parametrize("path", ["/", "/no/such/folder/file", "bad\nname/file", ""])
def test_what_cannot_be_opened_is_said_in_one_line(path: str) -> None:
    with pytest.raises(OutputFailed) as failed:
        open_file(path, append=False)
    assert str(failed.value).isprintable()
    assert failed.value.exit_status == 74


@pytest.mark.parametrize(("held", "then"), [("", ""), ("old\n", "old\n"), ("old\nto", "old\nto\n")])
def test_who_appends_to_a_file_that_ends_amid_a_line_begins_a_new_one(tmp_path: Path, held: str, then: str) -> None:
    file = tmp_path / "events"
    file.write_text(held)
    with closing(open_file(str(file), append=True)) as sink:
        sink.begin(b"")
        sink.write([(b"new\n", 1)])
        sink.flush()
    assert file.read_text() == f"{then}new\n"


@pytest.mark.parametrize("append", [False, True])
def test_a_file_that_was_moved_away_is_whole_and_the_next_one_has_its_own_header(tmp_path: Path, append: bool) -> None:
    file, moved = tmp_path / "events", tmp_path / "events.1"
    with closing(open_file(str(file), append=append)) as sink:
        assert sink.can_reopen
        sink.begin(b"header\n")
        sink.write([(b"row 1\n", 1)])
        file.rename(moved)
        sink.write([(b"row 2\n", 1)])
        sink.reopen(lambda: b"header\n")
        sink.write([(b"row 3\n", 1)])
        sink.flush()
    assert moved.read_text() == "header\nrow 1\nrow 2\n"
    assert file.read_text() == "header\nrow 3\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (sink.written, sink.unwritten) == (3, 0)


@pytest.mark.parametrize("append", [False, True])
def test_a_file_that_is_still_there_is_written_on_without_another_header(tmp_path: Path, append: bool) -> None:
    file = tmp_path / "events"
    with closing(open_file(str(file), append=append)) as sink:
        sink.begin(b"header\n")
        sink.write([(b"row 1\n", 1)])
        sink.reopen(lambda: b"header\n")
        sink.write([(b"row 2\n", 1)])
        sink.flush()
    assert file.read_text() == "header\nrow 1\nrow 2\n"


@pytest.mark.parametrize("instead", ["link", "pipe", "folder", "nothing"])
def test_where_no_file_can_be_opened_again_the_old_one_is_kept(tmp_path: Path, instead: str) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    file, moved = folder / "events", tmp_path / "moved"
    with closing(open_file(str(file), append=False)) as sink:
        sink.begin(b"")
        file.rename(moved)
        {
            "link": lambda: file.symlink_to(tmp_path / "elsewhere"),
            "pipe": lambda: os.mkfifo(file),
            "folder": file.mkdir,
            "nothing": folder.rmdir,
        }[instead]()
        sink.write([(b"row 1\n", 1)])
        with pytest.raises(NotReopened, match=r"it goes on in the file that it had$") as refused:
            sink.reopen(lambda: b"")
        assert "\n" not in str(refused.value)
        sink.write([(b"row 2\n", 1)])
        sink.flush()
    assert moved.read_text() == "row 1\nrow 2\n"
    assert not (tmp_path / "elsewhere").exists()


def test_a_full_device_is_reported_at_the_first_write_and_what_it_cost_is_counted() -> None:
    with closing(open_file("/dev/full", append=False)) as sink:
        sink.begin(b"")
        sink.write([(b"1\n2\n", 2), (b"3\n", 1)])
        with pytest.raises(OutputFailed, match="No space left on device; 3 events lost"):
            sink.flush()
        assert (sink.written, sink.unwritten) == (0, 3)
        assert not sink.pending


@pytest.mark.parametrize("append", [False, True])
def test_a_file_that_fills_up_keeps_whole_lines_only(tmp_path: Path, append: bool) -> None:
    import resource  # noqa: PLC0415
    import signal  # noqa: PLC0415

    file = tmp_path / "small"
    old = "row 0\n" * append
    file.write_text(old)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(old) + 25, limits[1]))
    try:
        with closing(open_file(str(file), append=append)) as sink:
            sink.begin(b"")
            sink.write([(b"row 1\nrow 2\n", 2), (b"row 3\nrow 4\nrow 5\n", 3)])
            with pytest.raises(OutputFailed, match="File too large; 1 event lost"):
                sink.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert file.read_text() == old + "row 1\nrow 2\nrow 3\nrow 4\n"
    assert (sink.written, sink.unwritten) == (4, 1)


def test_a_closed_pipe_is_the_end_and_no_failure(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    sink = Sink(writer, "pipe")
    assert sink.has_reader
    assert not sink.reader_is_gone()
    os.close(reader)
    assert sink.reader_is_gone()
    sink.write([(b"row\n", 1)])
    with pytest.raises(ReaderGone):
        sink.flush()
    assert (sink.written, sink.unwritten) == (0, 1)


def test_a_socket_that_nobody_reads_any_more_is_noticed() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        sink = Sink(ours.fileno(), "socket")
        assert sink.has_reader
        theirs.close()
        assert sink.reader_is_gone()


def test_a_pipe_that_somebody_made_non_blocking_gets_everything(pipe: tuple[int, int]) -> None:
    import threading  # noqa: PLC0415

    reader, writer = pipe
    os.set_blocking(writer, False)
    received = bytearray()

    def read() -> None:
        while data := os.read(reader, 1 << 16):
            received.extend(data)

    thread = threading.Thread(target=read)
    sink = Sink(writer, "pipe")
    rows = [(f"{row:099d}\n".encode(), 1) for row in range(20_000)]
    thread.start()
    sink.write(rows)
    sink.flush()
    os.close(writer)
    thread.join()
    assert received == b"".join(row for row, _ in rows)
    assert sink.written == len(rows)


def test_rows_wait_for_flush_unless_there_are_many(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.set_blocking(reader, False)
    sink = Sink(writer, "pipe")
    sink.write([(b"row\n", 1)])
    assert sink.pending
    with pytest.raises(BlockingIOError):
        os.read(reader, 1)
    sink.flush()
    assert not sink.pending
    assert os.read(reader, 10) == b"row\n"
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 1 << 20)
    sink.write([(b"x" * 1000, 1)] * 100)
    assert not sink.pending


def test_a_terminals_width_is_asked_for_and_columns_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 91, 0, 0))
    sink = Sink(follower, "terminal")
    assert sink.terminal_width() == 91
    monkeypatch.setenv("COLUMNS", "132")
    assert sink.terminal_width() == 132
    monkeypatch.setenv("COLUMNS", "wide")
    assert sink.terminal_width() == 91
    for descriptor in (leader, follower):
        os.close(descriptor)


def test_a_terminal_that_was_closed_is_the_end_and_no_failure() -> None:
    leader, follower = pty.openpty()
    sink = Sink(follower, "terminal")
    os.close(leader)
    sink.write([(b"row\n", 1)])
    with pytest.raises(ReaderGone):
        sink.flush()
    os.close(follower)


def test_a_file_has_no_width(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with closing(open_file(str(tmp_path / "file"), append=False)) as sink:
        assert sink.terminal_width() is None


def test_standard_output_is_not_closed_with_the_sink() -> None:
    standard_output().close()
    os.fstat(1)
