"""Lines of the user's own: which keys there are, and that neither a template nor an event can do more than fill it."""

from __future__ import annotations

import shlex
import unicodedata
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytracecon import text
from pytracecon.cli import main
from pytracecon.errors import InvalidValue
from pytracecon.events import Accept, Close, Connect, Event, Lookup, Lost, Process
from pytracecon.outputs.template import KEYS, Template, TemplateLines

NOW = 1_795_161_009_123_456_789
ENDS: dict[str, Any] = {
    "conn": "00003fa2c18e0007",
    "proto": "tcp",
    "direction": "out",
    "remote_addr": "2606:2800:21f:cb07::1",
    "remote_port": 443,
    "pid": 1234,
    "comm": "curl",
}


def lines(template: str, *events: Event) -> str:
    output = TemplateLines(Template.parse("--template", template))
    assert output.header() == b""
    pieces = output.render(events)
    assert [count for _, count in pieces] == [1] * len(events)
    return b"".join(data for data, _ in pieces).decode()


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("{comm} {remote_addr}:{remote_port}", "curl 2606:2800:21f:cb07::1:443"),
        ("{event}\t{time}", "close\t2026-11-20T07:50:09.123456789Z"),
        ("{comm}{comm}", "curlcurl"),
        ("{{{comm}}} }}{{", "{curl} }{"),
        ("{{comm}} {pid}", "{comm} 1234"),
        ("ü→{tx_bytes}", "ü→0"),
        ("{host}|{local_port}|{uid}", "?|?|?"),
        ("{pre_existing} {v4_mapped}", "true ?"),
        ("{name} {fastopen} {count}", "? ? ?"),
        ("{host_candidates}", "a.test,b.test"),
        ("%s \\t $comm {comm}", "%s \\t $comm curl"),
    ],
)
def test_a_line_has_the_values_of_its_keys(template: str, line: str) -> None:
    event = Close(NOW, **ENDS, pre_existing=True, tx_bytes=0, host_candidates=["a.test", "b.test"])
    assert lines(template, event) == f"{line}\n"


def test_every_event_is_a_line_whatever_keys_it_has() -> None:
    events = (Connect(NOW, **ENDS), Lookup(NOW, comm="dig", addresses=["::1", "::2"]), Lost(NOW, 3, "ring", NOW, NOW))
    assert lines("{event} {comm} {addresses} {count} {from}", *events) == (
        "connect curl ? ? ?\nlookup dig ::1,::2 ? ?\nlost ? ? 3 2026-11-20T07:50:09.123456789Z\n"
    )


def test_arguments_can_be_given_to_a_shell_again() -> None:
    args = ["grep", "-e", "a,b c", "it's", "\x1b[2J"]
    line = lines("{args}", Connect(NOW, **ENDS, process=Process(args=args)))
    assert text.restore(line.removesuffix("\n")) == shlex.join(args)
    assert shlex.split(text.restore(line)) == args


def test_every_key_of_every_event_can_be_named() -> None:
    template = "|".join(f"{{{key}}}" for key in KEYS)
    for event in (Close(NOW, **ENDS), Lookup(NOW), Lost(NOW, 1, "map")):
        values = lines(template, event).rstrip("\n").split("|")
        assert len(values) == len(KEYS)
        assert values[:2] == [event.event, event.time]


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{nothing}", "{nothing} is no key; there are event, time, conn,"),
        ("{}", "{} is no key"),
        ("{0}", "{0} is no key"),
        ("{comm.__class__}", "{comm.__class__} is no key"),
        ("{comm[0]}", "{comm[0]} is no key"),
        ("{comm!r}", "{comm!r} is no key"),
        ("{comm:>9}", "{comm:>9} is no key"),
        ("{ comm }", "{ comm } is no key"),
        ("{__class__}", "{__class__} is no key"),
        ("{time_ns}", "{time_ns} is no key"),
        ("{comm", "has a lone {"),
        ("{comm}}", "has a lone }"),
        ("{{comm}", "has a lone }"),
        ("{a{comm}}", "has a lone {"),
        ("comm", "names no key"),
        ("", "names no key"),
        ("{{}}", "names no key"),
        ("{comm}\n", "holds a control character"),
        ("\x1b[31m{comm}", "holds a control character"),
    ],
)
def test_what_is_no_template_is_refused_with_the_reason(template: str, why: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        Template.parse("--template", template)
    assert str(refused.value).startswith("--template: ")
    assert why in str(refused.value)
    assert str(refused.value).isprintable()


@given(st.text())
def test_any_text_is_a_template_that_names_keys_or_is_refused(template: str) -> None:
    """Nothing but keys is ever reached, and nothing but `InvalidValue` is ever raised."""
    with suppress(InvalidValue):
        assert set(Template.parse("--template", template).keys) <= set(KEYS)


@given(st.lists(st.one_of(st.sampled_from([f"{{{key}}}" for key in KEYS]), st.sampled_from(["{{", "}}", " ", "x"]))))
def test_braces_and_keys_combine_in_any_order(parts: list[str]) -> None:
    expected = "".join({"{{": "{", "}}": "}"}.get(part, "?" if len(part) > 1 else part) for part in parts)
    if any(len(part) > 2 for part in parts):
        assert Template.parse("--template", "".join(parts)).line(lambda _: None) == expected


hostile = st.text(st.one_of(st.sampled_from("\n\r\x1b\\{}\u2028\u202e\x85\0"), st.characters()), max_size=16)


@given(hostile, hostile, st.lists(hostile, max_size=3))
def test_no_value_makes_a_second_line_or_reaches_the_terminal(comm: str, host: str, others: list[str]) -> None:
    event = Accept(NOW, **ENDS | {"comm": comm}, host=host, host_candidates=others)
    line = lines("{comm}\t{host}\t{host_candidates}\t{pid}", event)
    assert line.count("\n") == 1
    assert line.endswith("\n")
    cells = line[:-1].split("\t")
    assert [text.restore(cell) for cell in cells[:2]] == [comm, host]
    assert cells[3] == "1234"
    assert all(unicodedata.category(each) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for each in "".join(cells))


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("--template {nothing}", "--template: {nothing}"),
        ("--template {comm} --format json", "--format"),
        ("--template", "--template"),
    ],
)
def test_a_wrong_template_is_one_line_and_opens_no_file(
    line: str, named: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["-o", str(tmp_path / "new"), *line.split()]) == 2
    err = capfd.readouterr().err
    assert named in err
    assert err.count("\n") == 1
    assert not (tmp_path / "new").exists()
