"""Names that wish us ill: they are told as what they are, and nothing of them reaches a terminal as it is."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import dns.name
import pytest

from traffic.actor import DEADLINE, Actor
from traffic.answers import addresses
from traffic.cases import with_slow
from traffic.naming import name_of, the_lookup, visit
from traffic.resolver import SCRIPTED, Place, in_hex
from traffic.trace import Trace

TOP = Path(__file__).parents[2]

ESCAPE = b"\x1b]52;c;aGFja2Vk\x07\x1b[2Jscreen"
NAMES = {
    "escape sequences": ESCAPE,
    "line ends": b"one\r\ntwo\nthree",
    "a tab and a delete": b"tab\there\x7f",
    "commas and quotes": b"a,\"b\",'c'",
    "a formula": b"=cmd|'/c calc'!A1",
    "C1 controls": "\x9b31mred\x85".encode(),
    "other directions": "\u202egnp.exe\u2066".encode(),
    "half a character": b"caf\xc3",
    "no UTF-8": b"\xff\xfe\x80\xc0\xaf",
    "lone surrogates": b"\xed\xa0\x80",
}


@pytest.fixture
def client(place: Place) -> Actor:
    return place.actor("client")


@pytest.mark.parametrize("size", with_slow([0, 1, 63, 255, 256, 4096], 0, 255, 4096))
@pytest.mark.parametrize("verb", ["lookup", "lookup-edge"])
def test_a_name_of_any_length_wherever_it_lies(trace: Trace, place: Place, client: Actor, size: int, verb: str) -> None:
    """What is not told of a longer one is said to be missing."""
    name = (b"x" * 49 + b".") * (size // 50) + b"y" * (size % 50)
    client.do(verb, in_hex(name), 4, 1)
    client.do("lookup", "one.test", 4, 1)
    end = visit(client, place.web, "127.0.0.11")
    events = trace.settle()
    assert name_of(events, end) == ("one.test", "getaddrinfo"), "nothing was upset"
    (lookup,) = [
        event
        for event in events
        if getattr(event, "pid", None) == client.pid
        and getattr(event, "source", None) == "getaddrinfo"
        and getattr(event, "name", None) != "one.test"
    ]
    told = getattr(lookup, "name", None) or ""
    assert name.decode().startswith(told)
    assert told == name.decode() or (len(told) >= 255 and getattr(lookup, "partial", None) is True)


@pytest.mark.parametrize("kind", with_slow(NAMES, "escape sequences", "no UTF-8"))
def test_a_hostile_name_is_a_lookup_that_failed(trace: Trace, client: Actor, kind: str) -> None:
    step = client.do("lookup", in_hex(NAMES[kind] + b".test"), 4, 1)
    lookup = the_lookup(trace.settle(), client, source="getaddrinfo")
    assert (lookup.result == "ok") == (step.result == 0)
    assert lookup.name


class Command:
    """`python -m pytracecon VERB`, tracing one namespace."""

    def __init__(self, place: Place, *words: str) -> None:
        command = [sys.executable, "-m", "pytracecon", *words, "--netns", place.path]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=TOP)
        assert self.process.stderr
        while not (line := self.process.stderr.readline()).startswith(b"pytracecon: tracing"):
            assert line, "it ended before it traced anything"

    def end(self) -> bytes:
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=DEADLINE)
        assert self.process.returncode == 0, err
        return out

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def run(place: Place) -> Iterator[Callable[..., Command]]:
    with ExitStack() as stack:

        def start(*words: str) -> Command:
            command = Command(place, *words)
            stack.callback(command.kill)
            return command

        yield start


def clean_lines(out: bytes) -> list[str]:
    """The lines, if a terminal may see them: text, with no control but the line ends, no direction, nothing private."""
    text = out.decode().replace("\r\n", "\n")  # as lines of CSV end
    bad = {char for char in text if unicodedata.category(char) in ("Cc", "Cf", "Cs") and char != "\n"}
    assert not bad, sorted(bad)
    return text.splitlines()


def make_trouble(place: Place, client: Actor) -> int:
    """Every hostile name by each way there is, and connections under one; the result is how many lookups that was."""
    place.configure(client, "hosts", f"127.0.0.20 {ESCAPE.decode()}.example\n")
    for name in NAMES.values():
        client.do("lookup", in_hex(name + b".test"), 4, 1)
        client.do("hostbyname", in_hex(name + b".test"), 4, "plain")
        label = dns.name.Name([name[:63], b"scripted", b"test", b""])
        place.scripted.says[label.to_text(omit_final_dot=True).lower()] = addresses("127.0.0.34")
        client.do("resolve", in_hex(name.replace(b".", b"") + b".scripted.test"), 1, SCRIPTED, 53, "connected")
    client.do("lookup", in_hex(ESCAPE + b".example"), 4, 1)
    visit(client, place.web, "127.0.0.20")
    visit(client, place.web, "127.0.0.34")
    return len(NAMES) * 3 + 1


@pytest.mark.slow(reason="starts a Python for its outputs, in which no kernel has a say")
@pytest.mark.parametrize("verb", ["lookups", "trace"])
@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_no_output_lets_a_control_through(
    run: Callable[..., Command], place: Place, client: Actor, verb: str, form: str
) -> None:
    command = run(verb, "--format", form)
    count = make_trouble(place, client)
    lines = clean_lines(command.end())
    assert len(lines) >= (count if verb == "lookups" else 6)
    if form == "json":
        events = [json.loads(line) for line in lines]
        assert len([event for event in events if event["event"] == "lookup"]) >= (count if verb == "lookups" else 0)
        hosts = {event.get("host" if verb == "trace" else "name", "") for event in events}
        assert any("aGFja2Vk" in host for host in hosts), "the name itself is told"
    if form == "csv":
        rows = list(csv.reader(lines))
        assert {len(row) for row in rows} == {len(rows[0])}
