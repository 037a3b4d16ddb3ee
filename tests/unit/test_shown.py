"""Columns of one's own: what they show of an event, whatever it is and whatever is known of it."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytracecon.events import Accept, Close, Connect, Event, Lookup, Lost, Process
from pytracecon.grouping import Groups
from pytracecon.outputs.counts import KEYS as COUNTED
from pytracecon.outputs.counts import CountCsv
from pytracecon.outputs.template import KEYS as EVERY_KEY
from pytracecon.outputs.template import value_of
from pytracecon.text import restore
from pytracecon.views import columns, count, shown, trace

NOW = 1_795_161_009_123_456_789
ID = "4f66ad9a0b2e" + "0" * 52
SHOP = Process(
    container=ID,
    container_name="shop-1",
    pod="6f5d4c3b-0000-4000-8000-000000000001",
    unit=f"docker-{ID}.scope",
    exe="/usr/bin/curl",
    exe_source="exec",
    args=["curl", "-s", "http://a/?b=c d", ""],
    parents=[1200, 907, 1],
)
CURL: dict[str, Any] = {
    "conn": "00000000060000a1",
    "proto": "tcp",
    "direction": "out",
    "local_addr": "10.0.0.5",
    "local_port": 41234,
    "remote_addr": "10.0.0.7",
    "remote_port": 443,
    "pid": 1479,
    "comm": "curl",
}


def of(process: Process | None, **known: Any) -> Close:
    return Close(NOW, **CURL | known, process=process)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("event", "close"),
        ("time", "2026-11-20T07:50:09.123456789Z"),
        ("conn", "00000000060000a1"),
        ("remote_port", "443"),
        ("container", "shop-1"),
        ("container_name", "shop-1"),
        ("pod", "6f5d4c3b-0000-4000-8000-000000000001"),
        ("unit", f"docker-{ID}.scope"),
        ("exe", "/usr/bin/curl"),
        ("exe_source", "exec"),
        ("args", "curl -s 'http://a/?b=c d' ''"),
        ("args_cut", ""),
        ("parents", "1200,907,1"),
        ("rtt_ns", "0.17 ms"),
        ("host_candidates", "a,b"),
        ("pre_existing", "true"),
        ("tx_bytes", "0"),
        ("rx_bytes", "?"),
        ("host", "?"),
        ("v4_mapped", ""),
        ("thread", ""),
        ("wait_ns", ""),
        ("name", ""),
    ],
)
def test_a_key_is_shown_as_people_read_it(key: str, expected: str) -> None:
    event = of(SHOP, rtt_ns=170_000, host_candidates=["a", "b"], pre_existing=True, tx_bytes=0)
    assert shown.text(event, key) == expected


@pytest.mark.parametrize(
    ("process", "expected"),
    [
        (None, ["?", "?", "?", "?"]),
        (Process(), ["?", "?", "?", "?"]),
        (Process(exe="/bin/true"), ["?", "?", "?", "?"]),
        (Process(unit="ssh.service"), ["", "", "", "ssh.service"]),
        (Process(container=ID), ["4f66ad9a0b2e", "?", "", ""]),
        (Process(container=ID.upper()), [ID.upper(), "?", "", ""]),
        (Process(container="web\x1b", container_name="\n"), [r"\x0a", r"\x0a", "", ""]),
        (Process(container="web", unit="lxc.service"), ["web", "?", "", "lxc.service"]),
    ],
)
def test_a_cgroup_that_is_known_tells_what_there_is_and_what_there_is_not(
    process: Process | None, expected: list[str]
) -> None:
    assert [shown.text(of(process), key) for key in ("container", "container_name", "pod", "unit")] == expected


def test_arguments_that_were_too_many_are_marked() -> None:
    assert shown.text(of(Process(args=["a", "b"], args_cut=True)), "args") == "a b …"


@given(st.lists(st.text(), max_size=5))
def test_shown_arguments_are_harmless_and_can_be_run_again(arguments: list[str]) -> None:
    text = shown.text(of(Process(args=arguments)), "args")
    assert text.isprintable()
    assert shlex.split(restore(text)) == arguments


def test_every_key_has_a_column_and_a_text_for_every_event() -> None:
    assert set(shown.KEYS) <= set(EVERY_KEY)
    assert set(shown.KEYS) > shown.OF_NAMES | shown.OF_PROCESSES
    events: list[Event] = [Connect(NOW, **CURL), of(SHOP), Accept(NOW, **CURL), Lookup(NOW), Lost(NOW, 1, "ring")]
    for cell, key in zip(shown.cells(shown.KEYS), shown.KEYS, strict=True):
        assert cell.column.name == key.upper()
        assert len(cell.column.name) <= cell.column.width <= cell.column.widest
        for event in events:
            assert cell.of(event).isprintable()
            assert value_of(event, key) is None or cell.of(event) != ""


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("containr", "container"),
        ("Exe", "exe"),
        ("rtt", "rtt_ns"),
        ("parent", "parents"),
        ("remote_adr", "remote_addr"),
    ],
)
def test_a_slip_of_the_pen_has_the_key_that_was_meant_near_it(key: str, expected: str) -> None:
    near = shown.nearest(key)
    assert expected in near
    assert len(near) <= 4


def test_what_is_like_no_key_has_them_all_near_it() -> None:
    assert shown.nearest("zzzz") == shown.KEYS


@pytest.mark.parametrize("width", [None, 200, 80, 20])
def test_columns_stand_before_the_words_of_the_table_of_all(width: int | None) -> None:
    table = trace.table(lambda: width, utc=True, shown=shown.cells(["container", "args"]))
    events: list[Event] = [of(SHOP, ended="local_close"), Lookup(NOW, pid=1, comm="dig", name="a", process=SHOP)]
    header = table.header().decode()
    lines = [piece.decode() for piece, _ in table.render(events)]
    assert header.split()[-3:] == ["CONTAINER", "ARGS", "DETAIL"]
    for line in lines:
        assert " shop-1 " in f" {' '.join(line.split())} "
        assert "curl-s'http://a/?b=cd'''" in "".join(line.split())
    if width is not None:
        assert max(map(len, "".join([header, *lines]).splitlines())) <= width


def test_in_a_pipe_the_columns_of_one_s_own_stand_below_their_heads() -> None:
    cells = [columns.PID, *shown.cells(["unit", "exe"])]
    table = columns.table(cells, lambda: None, hang="PID")
    told = table.header() + b"".join(piece for piece, _ in table.render([of(Process(unit="a.service", exe="/b"))]))
    assert told.decode() == "PID    UNIT                 EXE\n1479   a.service            /b\n"


@pytest.mark.parametrize(
    ("key", "row", "csv"),
    [
        ("container", ID, ID),
        ("container_name", "shop-1", "shop-1"),
        ("pod", SHOP.pod, SHOP.pod),
        ("unit", f"docker-{ID}.scope", f"docker-{ID}.scope"),
        ("exe", "/usr/bin/curl", "/usr/bin/curl"),
        ("exe_source", "exec", "exec"),
        ("args", "curl -s 'http://a/?b=c d' ''", r"curl '-s http://a/?b=c\x20d "),
        ("parents", "1200,907,1", "1200 907 1"),
    ],
)
def test_what_an_owner_is_can_be_counted_by(key: str, row: str, csv: str) -> None:
    assert key in COUNTED
    groups = Groups([key], value_of)
    for process in (SHOP, SHOP, None):
        groups.add(of(process))
    counts = groups.counts(0, NOW, sort="events", top=None)
    table = count.table([key], ["close"], lambda: None, every=False, utc=True)
    known, unknown = [piece.decode().splitlines()[-1] for piece, _ in table.render(counts)]
    assert known.rpartition("  2")[0].rstrip() == row
    assert unknown.split() == ["?", "1"]
    known, unknown = [piece.decode() for piece, _ in CountCsv([key]).render(counts)]
    assert f",group,{csv},2," in known
    assert ",group,,1," in unknown
