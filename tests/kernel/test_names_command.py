"""`pytracecon lookups`, and names in the other verbs, as a process among others."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from traffic.actor import DEADLINE, Actor
from traffic.answers import addresses
from traffic.naming import visit
from traffic.resolver import DNSMASQ, Place

TOP = Path(__file__).parents[2]


@pytest.fixture
def client(place: Place) -> Actor:
    return place.actor("client")


class Command:
    """A running `python -m pytracecon`, tracing this namespace."""

    def __init__(self, place: Place, *words: str) -> None:
        command = [sys.executable, "-m", "pytracecon", *words, "--netns", place.path]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=TOP)
        assert self.process.stderr
        while not (line := self.process.stderr.readline()).startswith("pytracecon: tracing"):
            assert line, "it ended before it traced anything"

    def lines(self) -> list[str]:
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=DEADLINE)
        assert self.process.returncode == 0, err
        return out.splitlines()

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines()]

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


def look_around(place: Place, client: Actor) -> None:
    """Two names that are found, one of them slowly, and one that is not; by the library and by packets."""
    place.scripted.says["slow.scripted.test"] = addresses("127.0.0.35", ttl=0, after=0.3)
    client.do("lookup", "both.test", 0, 1)
    client.do("lookup", "nobody.test", 4, 1)
    client.do("lookup", "slow.scripted.test", 4, 1)
    client.do("resolve", "www.chain.test", 1, DNSMASQ, 53, "connected")


@pytest.mark.slow(reason="starts a Python for the outputs of lookups, in which no kernel has a say")
def test_a_line_for_each_lookup(run: Callable[..., Command], place: Place, client: Actor) -> None:
    command = run("lookups")
    look_around(place, client)
    lines = [line for line in command.lines() if str(client.pid) in line.split()]
    expected = [
        ("getaddrinfo", "both.test", "127.0.0.13"),
        ("getaddrinfo", "nobody.test", "EAI_NONAME"),
        ("getaddrinfo", "slow.scripted.test", "127.0.0.35"),
        ("dns", "www.chain.test", "127.0.0.15"),
    ]
    assert len(lines) == len(expected)
    for line, words in zip(lines, expected, strict=True):
        assert all(word in line for word in ("client", *words)), line
    assert "fd00:7::13" in lines[0]


FILTERS = {
    "--name *.TEST": {"both.test", "nobody.test", "slow.scripted.test", "www.chain.test"},
    "--name both.*": {"both.test"},
    "--name both.test --name *.chain.test": {"both.test", "www.chain.test"},
    "--slower 250": {"slow.scripted.test"},
    "--failed": {"nobody.test"},
    "--comm nobody": set(),
}


@pytest.mark.slow
@pytest.mark.parametrize("words", FILTERS)
def test_lookups_by_name_time_and_outcome(run: Callable[..., Command], place: Place, client: Actor, words: str) -> None:
    command = run("lookups", "--format", "json", *words.split())
    look_around(place, client)
    told = {event["name"] for event in command.events() if event.get("pid") == client.pid}
    assert told == FILTERS[words]


@pytest.mark.slow
def test_connections_to_a_host(run: Callable[..., Command], place: Place, client: Actor) -> None:
    command = run("--format", "json", "--host", "one.*", "--events", "connect,close")
    for name in ("one.test", "two.test"):
        visit(client, place.web, client.do("lookup", name, 4, 1).extra["addresses"][0])
    visit(place.actor("bare"), place.web, "127.0.0.11")
    assert [(event["event"], event["host"], event["host_source"]) for event in command.events()] == [
        ("connect", "one.test", "getaddrinfo"),
        ("close", "one.test", "getaddrinfo"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("words", ["", "--no-names"])
def test_the_view_has_a_column_of_hosts(run: Callable[..., Command], place: Place, client: Actor, words: str) -> None:
    command = run(*words.split())
    client.do("lookup", "one.test", 4, 1)
    visit(client, place.web, "127.0.0.11")
    out = command.lines()
    assert any("one.test" in line and " established " in line for line in out) == (not words)
    assert any("lookup" in line for line in out) == (not words)
    assert sum(" established " in line for line in out) == 1
