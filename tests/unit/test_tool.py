"""What the verbs that are like a tool of bcc have in common, whichever it is."""

from __future__ import annotations

from typing import Any

import pytest

from pytracecon.cli import main
from pytracecon.commands import accept, connect, latency, life, retrans, states
from pytracecon.commands.tool import Tool
from pytracecon.events import Accept, Close, Connect, ConnectionEvent, Established, Lost, Process, Retransmit, State
from pytracecon.views.answers import Answers
from unit.written import keywords, rows

NOW = 1_795_161_009_123_456_789
ENDS: dict[str, Any] = {
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
TOLD: dict[Tool, type[ConnectionEvent]] = {
    connect.VERB: Connect,
    accept.VERB: Accept,
    latency.VERB: Established,
    life.VERB: Close,
    states.VERB: State,
    retrans.VERB: Retransmit,
}

every_verb = pytest.mark.parametrize("verb", TOLD, ids=lambda verb: verb.name)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("connect -4 -6", "-6"),
        ("connect -c -d", "-d"),
        ("connect -c --all", "--all"),
        ("connect -c --format json", "-c"),
        ("connect -c --template {pid}", "-c"),
        ("connect -d --no-names", "--no-names"),
        ("connect --failed --all", "--failed"),
        ("connect -P 0", "--port"),
        ("connect -P 65536", "--port"),
        ("connect -p 0", "--pid"),
        ("connect -u nobody-of-that-name", "--uid"),
        ("connect --direction in", "--direction"),
        ("connect --min-latency 1", "--min-latency"),
        ("connect extra", "extra"),
        ("accept -4 -6", "-6"),
        ("accept -P 0", "--local-port"),
        ("accept -P ssh", "--local-port"),
        ("accept -p 0", "--pid"),
        ("accept --failed", "--failed"),
        ("accept --direction out", "--direction"),
        ("accept --host a", "--host"),
        ("accept -L 22", "-L"),
        ("latency -4 -6", "-6"),
        ("latency 0.0001", "MIN_MS"),
        ("latency 0", "MIN_MS"),
        ("latency fast", "MIN_MS"),
        ("latency nan", "MIN_MS"),
        ("latency 1 --min-latency 1", "MIN_MS"),
        ("latency 1 2", "2"),
        ("latency -p 0", "--pid"),
        ("latency --by host", "--histogram"),
        ("latency --histogram --by port", "--by"),
        ("latency --histogram --resolver", "--resolver"),
        ("latency --histogram --format json", "--histogram"),
        ("latency --histogram --template {pid}", "--histogram"),
        ("latency --resolver --no-names", "--no-names"),
        ("latency --histogram --by host --no-names", "--no-names"),
        ("latency --failed --all", "--failed"),
        ("latency -P 80", "-P"),
        ("connect -c --show exe", "--show"),
        ("latency --histogram --show exe", "--show"),
        ("connect --show exee", "--show: exee is no key; near it are exe, exe_source"),
        ("accept --show host,exe,host", "--show: host is named twice"),
        ("life --show ,", "--show: an empty value is no key; there are event, time, conn,"),
        ("life --show count", "--show: count is no key"),
        ("latency --show host --no-names", "--no-names leaves every connection without host"),
        ("life --show rtt_ns,exe --no-processes", "--no-processes leaves every owner without exe"),
        ("accept --show exe --format json", "--show: it adds columns to the table, and json has every key"),
        ("connect --show exe --format csv", "csv has every key"),
        ("life --show exe --format journal", "journal has every key"),
        ("latency --show exe --template {exe}", "a template names its own"),
        ("life -4 -6", "-6"),
        ("life -L 0", "--local-port"),
        ("life -D 65536", "--port"),
        ("life -p 0", "--pid"),
        ("life --failed", "--failed"),
        ("life -P 80", "-P"),
    ],
)
def test_wrong_usage_is_one_line(line: str, named: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert named in err


@every_verb
@pytest.mark.parametrize(("line", "shown"), [("", False), ("-v", True)])
def test_a_path_of_a_connection_has_a_row_only_for_those_who_want_more(verb: Tool, line: str, shown: bool) -> None:
    shown = shown or verb is retrans.VERB  # where the whole has none
    assert len(rows(verb, line, [TOLD[verb](NOW, **ENDS, subflow_of="2")])) == 1 + shown
    assert len(rows(verb, line, [TOLD[verb](NOW, **ENDS)])) == 2


@every_verb
@pytest.mark.parametrize("line", ["--format json", "--format csv", "--format journal", "--template {pid}"])
def test_other_formats_have_every_event(verb: Tool, line: str) -> None:
    assert verb.shows(verb.parser().parse_args(line.split()), Answers()) is None


@every_verb
def test_columns_of_one_s_own_stand_at_the_right_of_the_verb_s(verb: Tool) -> None:
    process = Process(container="4f66ad9a0b2e" + "0" * 52, exe="/usr/bin/curl", args=["curl", "a b"])
    events = [TOLD[verb](NOW, **ENDS, process=process), TOLD[verb](NOW, **ENDS)]
    alone = rows(verb, "", events)
    told = rows(verb, "--show container,exe --show args,pid,name", [*events, Lost(NOW, 2, "ring")])
    header, known, unknown, lost = told
    assert header.split() == [*alone[0].split(), "CONTAINER", "EXE", "ARGS", "PID", "NAME"]
    assert known.split() == [*alone[1].split(), "4f66ad9a0b2e", "/usr/bin/curl", "curl", "'a", "b'", "1479"]
    assert unknown.split() == [*alone[2].split(), "?", "?", "?", "1479"]
    for what, shown in (("CONTAINER", "4f66ad9a0b2e"), ("EXE", "/usr/bin/curl"), ("ARGS", "curl '")):
        assert header.index(what) == known.index(shown)
    assert lost == "lost 2 records (ring full)"


@every_verb
def test_names_are_attached_for_a_column_that_shows_them(verb: Tool) -> None:
    assert keywords(verb, "--show container,rtt_ns").get("names") is False
    assert keywords(verb, "--show container,host").get("names", True) is verb.named


@every_verb
@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("", False),
        ("--show pid,cgroup", False),
        ("--show exe", True),
        ("--show parents,pid", True),
        ("--container shop-*", True),
        ("--unit a.service", True),
        ("--exe curl", True),
        ("--format json", True),
        ("--format csv --no-processes", False),
        ("--template {exe}", True),
    ],
)
def test_what_an_owner_is_is_asked_where_somebody_sees_it(verb: Tool, line: str, asked: bool) -> None:
    assert keywords(verb, line)["processes"] is asked
