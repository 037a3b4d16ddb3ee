"""Names and commands that others chose, through every output: no control character gets out.

Every line that a program reads parses back to what went in.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from dataclasses import fields, replace
from itertools import islice
from typing import Any, NamedTuple
from unicodedata import category

import pytest

from pytracecon import text
from pytracecon.commands import count
from pytracecon.commands.accept import VERB as ACCEPT
from pytracecon.commands.connect import VERB as CONNECT
from pytracecon.commands.latency import VERB as LATENCY
from pytracecon.commands.life import VERB as LIFE
from pytracecon.commands.retrans import VERB as RETRANS
from pytracecon.commands.states import VERB as STATES
from pytracecon.commands.tool import Tool
from pytracecon.connections import Connection
from pytracecon.doctor.machine import Cgroup2, Library
from pytracecon.doctor.needs import CandidateReport
from pytracecon.doctor.report import lines as doctor_lines
from pytracecon.errors import InvalidValue
from pytracecon.events import (
    Accept,
    Close,
    Connect,
    ConnectionEvent,
    Established,
    Event,
    Existing,
    Failed,
    Flow,
    Lookup,
    Process,
    Reset,
    Retransmit,
    State,
)
from pytracecon.filters import Filters
from pytracecon.guard import Guard
from pytracecon.json_lines import Json, joined
from pytracecon.lives import Lives
from pytracecon.outputs import Output
from pytracecon.outputs import Summary as Totals
from pytracecon.outputs.csv_rows import CsvRows
from pytracecon.outputs.journal import Journal
from pytracecon.outputs.json_lines import JsonLines
from pytracecon.outputs.keys import all_keys
from pytracecon.outputs.sink import Sink
from pytracecon.outputs.template import Template, TemplateLines
from pytracecon.owners.processes import Owners
from pytracecon.summary import Summary
from pytracecon.top.columns import Glyphs
from pytracecon.top.frame import draw, text_of
from pytracecon.top.pages import page_of
from pytracecon.top.rows import Board
from pytracecon.top.view import View
from pytracecon.views import explain, lookups, shown, trace
from pytracecon.views import run as run_view
from pytracecon.views.answers import Answers
from unit.hostile import raw_texts, texts
from unit.snapshots import snapshot
from unit.test_doctor import HEALTHY, need
from unit.test_journal import parsed
from unit.test_owner_processes import image, process
from unit.test_render import plain
from unit.test_verb_flows import CURL, written

NOW = 1_795_161_009_123_456_789
EACH = 12
"""Texts of one connection and its lookup."""
AT_ONCE = 40
SHOW = "--show host,host_candidates,container_name,pod,unit,exe,args"
BY = "comm,thread,host,container,pod,unit,exe,args"
KEYS = (
    "comm",
    "thread",
    "host",
    "container",
    "container_name",
    "pod",
    "unit",
    "exe",
    "args",
    "host_candidates",
    "name",
)
_CODES = (chr(code) for code in range(0x110000))
_BAD = re.compile(
    f"[{''.join(re.escape(each) for each in _CODES if category(each) in {'Cc', 'Cf', 'Cs', 'Zl', 'Zp'})}]"
)


class Chosen(NamedTuple):
    """Where others say what stands there."""

    comm: str
    thread: str
    host: str
    candidate: str
    container: str
    container_name: str
    pod: str
    unit: str
    exe: str
    word: str
    another: str
    name: str

    def event(self, kind: type[Any], number: int, **more: Any) -> Any:
        process = Process(
            container=self.container,
            container_name=self.container_name,
            pod=self.pod,
            unit=self.unit,
            exe=self.exe,
            exe_source="exec",
            args=[self.word, self.another],
        )
        known: dict[str, Any] = {key: CURL[key] for key in ("proto", "direction", "remote_addr", "remote_port", "pid")}
        known |= {"conn": f"{number:016x}", "comm": self.comm, "tid": 7, "thread": self.thread, "process": process}
        known |= {"host": self.host, "host_source": "dns", "host_candidates": [self.host, self.candidate]}
        return kind(NOW, **known | more)

    def listed(self, number: int) -> Connection:
        """What is of every event and of a connection too."""
        event, own = self.event(Connect, number), {field.name for field in fields(Connection)}
        known = {field.name: getattr(event, field.name) for field in fields(event) if field.name in own}
        return Connection(**CURL | known)

    def lookup(self) -> Lookup:
        return Lookup(NOW, pid=1479, comm=self.comm, thread=self.thread, name=self.name, result="EAI_NONAME")


KINDS: list[tuple[type[ConnectionEvent], dict[str, Any]]] = [
    (Connect, {}),
    (Established, {"latency_ns": 1000}),
    (Accept, {"direction": "in"}),
    (Failed, {"error": "ECONNREFUSED", "reason": "refused"}),
    (Close, {"duration_ns": 5, "tx_bytes": 1, "rx_bytes": 2, "ended": "local_close"}),
    (Existing, {"state": "ESTABLISHED"}),
    (State, {"old": "CLOSE", "new": "SYN_SENT"}),
    (Retransmit, {"state": "ESTABLISHED", "segment": "data", "segments": 1}),
    (Reset, {"sent": True, "state": "ESTABLISHED"}),
    (Flow, {"proto": "udp", "tx_bytes": 1, "tx_packets": 1}),
]


def harmless(said: str) -> bool:
    return _BAD.search(said) is None


def lines_of(said: str) -> list[str]:
    """Of text for a terminal, each without anything that it would obey."""
    assert said.endswith("\n")
    found = said[:-1].split("\n")
    assert all(map(harmless, found)), [line for line in found if not harmless(line)]
    return found


def as_utf8(value: str) -> str:
    return value.encode("utf-8", "backslashreplace").decode()


def expected(event: Event, key: str) -> Any:
    """What a program finds of the texts."""
    value = getattr(event, key, None)
    return [as_utf8(each) for each in value] if isinstance(value, list) else None if value is None else as_utf8(value)


def of_kinds(chosen: list[Chosen]) -> list[Event]:
    """An event of each in turn, and a lookup of each."""
    events: list[Event] = []
    for number, each in enumerate(chosen):
        kind, more = KINDS[number % len(KINDS)]
        events += [each.event(kind, number, **more), each.lookup()]
    return events


def json_and_its_lines(events: list[Event]) -> None:
    data = b"".join(piece for piece, _ in JsonLines().render(events)).decode()
    for line, event in zip(lines_of(data), events, strict=True):
        found = json.loads(line)
        assert {key: found.get(key) for key in KEYS} == {key: expected(event, key) for key in KEYS}


def csv_and_its_rows(events: list[Event]) -> None:
    output = CsvRows()
    data = (output.header() + b"".join(piece for piece, _ in output.render(events))).decode()
    assert data.count("\r\n") == len(events) + 1
    assert harmless(data.replace("\r\n", ""))
    found = list(csv.DictReader(io.StringIO(data, newline="")))
    assert list(found[0]) == ["time", "event", *all_keys()]
    for cells, event in zip(found, events, strict=True):
        for key in KEYS:
            value = getattr(event, key, None)
            assert not cells[key].lstrip(" ").startswith(tuple("=+-@\t\r\uff1d\uff0b\uff0d\uff20"))
            if isinstance(value, list):
                assert [text.restore_cell(each) for each in cells[key].split(" ")] == value
            else:
                assert text.restore_cell(cells[key]) == (value or "")


def journal_and_its_entries(events: list[Event]) -> None:
    for (data, _), event in zip(Journal().render(events), events, strict=True):
        fields = parsed(data)
        assert fields[0][0] == "MESSAGE" and harmless(fields[0][1])
        for key in KEYS:
            told = [value for name, value in fields if name == f"PYTRACECON_{key.upper()}"]
            value = expected(event, key)
            assert told == ([] if value is None else value if isinstance(value, list) else [value])


def template_and_its_lines(events: list[Event]) -> None:
    output = TemplateLines(Template.parse("--template", "{comm}\t{host}\t{exe}\t{name}"))
    data = b"".join(piece for piece, _ in output.render(events)).decode()
    assert data.endswith("\n")
    for line, event in zip(data[:-1].split("\n"), events, strict=True):
        cells = line.split("\t")
        assert all(map(harmless, cells))
        for cell, key in zip(cells, ("comm", "host", "exe", "name"), strict=True):
            value = getattr(event, key, None)
            assert cell == "?" if value is None else text.restore(cell) == value


def table(verb: Tool, line: str, events: list[Event]) -> str:
    options = verb.parser().parse_args(line.split())
    with open(os.devnull, "wb") as nowhere:
        output = verb.table(options, Answers(), Sink(nowhere.fileno(), "nowhere"))
        told = rendered(output, events)
        if isinstance(output, Totals):
            told += b"".join(piece for piece, _ in output.sum_up(last=True)).decode()
    return told


def rendered(output: Output, events: list[Event]) -> str:
    return (output.header() + b"".join(piece for piece, _ in output.render(events))).decode()


def tables(chosen: list[Chosen]) -> None:
    """Of each verb, with columns of everything."""
    events = of_kinds(chosen)
    for verb, kind in ((CONNECT, Connect), (ACCEPT, Accept), (LATENCY, Established), (STATES, State), (LIFE, Close)):
        of = next(more for each, more in KINDS if each is kind)
        told = table(verb, SHOW, [each.event(kind, number, **of) for number, each in enumerate(chosen)])
        assert len(lines_of(told)) > len(chosen), verb.name
    retransmits = [each.event(Retransmit, number, **KINDS[7][1]) for number, each in enumerate(chosen)]
    lines_of(table(RETRANS, SHOW, retransmits))
    cells = shown.cells([*shown.KEYS])
    asked: list[Event] = [each.lookup() for each in chosen]
    lines_of(rendered(trace.table(lambda: None, utc=True, shown=cells), events))
    lines_of(rendered(lookups.table(lambda: 100, utc=True, shown=cells), asked))


def listings(chosen: list[Chosen]) -> None:
    """`flows` in each form, and `top` with its pages."""
    there = [each.listed(number) for number, each in enumerate(chosen)]
    lines_of(written(f"--watch 1 {SHOW}", there))
    for line in lines_of(written("--watch 1 --format json", there)):
        json.loads(line)
    assert harmless(written("--watch 1 --format csv", there).replace("\r\n", ""))
    events = [each.event(Established, number, latency_ns=5) for number, each in enumerate(chosen)]
    board, glyphs = Board(), Glyphs()
    board.take(snapshot(at=0, elapsed=None), ())
    picture = board.take(snapshot(*there), events)
    for by in ("process", "connection", "host"):
        view = View(by=by)
        view.take(picture)
        for each in (None, *view.rows[:5]):
            view.page = None if each is None else page_of(each, view, board, glyphs)
            assert all(harmless(text_of(line)) for line in draw(view, 120, 50, glyphs))


def screens(chosen: list[Chosen]) -> None:
    """`explain` of each connection, and which there are."""
    lives = Lives(the_one=True)
    for number, each in enumerate(chosen):
        for event in (
            each.lookup(),
            *(each.event(kind, number, **more) for kind, more in KINDS[:8] if kind is not Accept),
        ):
            lives.take(event)
    for life in lives.all.values():
        lines_of(explain.screen(life, lambda: 80, utc=True))
    lines_of(explain.choice(lives.all.values(), lambda: None, utc=True))


def sums(chosen: list[Chosen]) -> None:
    """`count` in each form, and the report of `run`."""
    events = [each.event(Established, number, latency_ns=5) for number, each in enumerate(chosen)]
    with open(os.devnull, "wb") as nowhere:
        for form in ("table", "json", "csv", "journal"):
            options = count.parser().parse_args(["--by", BY, "--format", form])
            output = count.output(options, {"established"}, lambda: NOW)(Sink(nowhere.fileno(), "nowhere"))
            told = output.header() + b"".join(piece for piece, _ in output.render(events))
            told += b"".join(piece for piece, _ in output.sum_up(last=True))
            if form == "journal":
                continue
            told_lines = lines_of(told.decode().replace("\r\n", "\n"))
            if form == "json":
                groups = [json.loads(line)["by"] for line in told_lines if '"by"' in line]
                assert {group["comm"] for group in groups if group} >= {as_utf8(each.comm) for each in chosen}
    summary = Summary(Guard())
    for number, each in enumerate(chosen):
        summary.take(each.lookup())
        for kind, more in (KINDS[0], KINDS[1], KINDS[4]):
            summary.take(each.event(kind, number, **more))
    summary.finish()
    left = {number: each.comm for number, each in enumerate(chosen)}
    lines_of(run_view.text(0, 1, summary, left))
    lines_of(run_view.notice(0, 1, summary, left))
    document = run_view.document([each.word for each in chosen], 0, 1, summary, left)
    assert [as_utf8(word) for word in json.loads(document)["command"]] == [as_utf8(each.word) for each in chosen]
    lines_of(document)


def messages(chosen: list[Chosen]) -> None:
    """What is said of values that cannot be, of files that are refused, and by `doctor`."""
    for each in chosen:
        wrong: tuple[dict[str, Any], ...] = (
            {"comm": each.comm},
            {"host": each.host},
            {"exe": each.exe},
            {"port": each.name},
            {"cgroup": each.unit},
        )
        for given in wrong:
            refusal = ""
            try:
                Filters.parse(**given)
            except InvalidValue as error:
                refusal = str(error)
            assert harmless(refusal)
        for value in each:
            assert harmless(text.one_line(value))
        machine = replace(
            HEALTHY, cgroup2=Cgroup2([each.unit], hybrid=False, problem=None), libbpf=Library("1.1", each.exe, None)
        )
        refused = CandidateReport("fentry", ["a"], works=False, reason=each.name)
        said = "\n".join(doctor_lines(machine, [need(refused)], traceable=True)).split("\n")
        assert all(map(harmless, said)), said


def by_c(raw: list[bytes]) -> None:
    """The C path, with what it copies of owners."""
    owners = Owners()
    try:
        writer = Json(None, None, owners)
        for number, (comm, exe, word) in enumerate(zip(raw[::3], raw[1::3], raw[2::3], strict=True), 1):
            path, said = exe.replace(b"\0", b"").replace(b"/", b"")[:255], word.partition(b"\0")[0][:255]
            known: dict[str, Any] = {"process": number, "pid": 4_194_305, "tid": 4_194_305, "comm": comm[:16]}
            batch = image(number, b"/" + path, said + b"\0") + process(number, number) + 3 * plain("accept", **known)
            told = joined(writer.records(memoryview(batch), NOW)[0]).data.decode()
            for found in map(json.loads, lines_of(told)):
                assert found.get("comm", "") == text.decode(comm[:16])
                assert found["exe"] == "/" + text.decode(path)
                assert found.get("args", [""]) == [text.decode(said)]
    finally:
        owners.close()


@pytest.mark.parametrize("texts_in_all", [4 * EACH * AT_ONCE, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_every_output_keeps_every_text_in_its_place(texts_in_all: int) -> None:
    source, raw, done = texts(1), raw_texts(2), 0
    while done < texts_in_all:
        chosen = [Chosen(*islice(source, EACH)) for _ in range(AT_ONCE)]
        events = of_kinds(chosen)
        for output in (json_and_its_lines, csv_and_its_rows, journal_and_its_entries, template_and_its_lines):
            output(events)
        for verb in (tables, listings, screens, sums, messages):
            verb(chosen)
        by_c(list(islice(raw, 3 * AT_ONCE)))
        done += EACH * AT_ONCE
