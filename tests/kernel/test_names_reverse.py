"""`--reverse`: remotes that nobody asked for by name are asked for the name that their address has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from traffic.actor import DEADLINE, Actor
from traffic.naming import visit
from traffic.resolver import Place

TOP = Path(__file__).parents[2]


@pytest.fixture
def client(place: Place) -> Actor:
    return place.actor("client")


@pytest.fixture
def reversing(place: Place) -> Iterator[subprocess.Popen[str]]:
    """The command, in the place's namespaces: its own questions go to the resolver there."""
    command = [sys.executable, "-m", "pytracecon", "--reverse", "--format", "json", "--netns", place.path]
    process = place.program(*command, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(TOP)})
    try:
        assert process.stderr
        said = [process.stderr.readline()]
        while not said[-1].startswith("pytracecon: tracing"):
            assert said[-1], said
            said.append(process.stderr.readline())
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE)


def told_of(process: subprocess.Popen[str], port: int) -> list[dict[str, Any]]:
    """What is told of both ends of the connection from this port, up to the two that tell of its end."""
    assert process.stdout
    events: list[dict[str, Any]] = []
    while sum(event["event"] == "close" for event in events) < 2:
        event = json.loads(process.stdout.readline())
        assert event["event"] != "lookup", "its own questions are not told"
        if port in (event.get("local_port"), event.get("remote_port")):
            events.append(event)
    return events


@pytest.mark.slow(reason="no kernel has a say in it")
def test_an_address_is_asked_for_its_name_without_waiting_for_it(
    reversing: subprocess.Popen[str], place: Place, client: Actor
) -> None:
    deadline = time.monotonic() + DEADLINE
    names: set[tuple[str, str | None, str | None]] = set()
    wanted = {("out", "one.test", "ptr"), ("in", "localhost", "ptr")}
    while not wanted <= names:
        assert time.monotonic() < deadline, names
        end = visit(client, place.web, "127.0.0.11")
        assert end.local
        told = told_of(reversing, end.local[1])
        names |= {(event["direction"], event.get("host"), event.get("host_source")) for event in told}
    assert names <= wanted | {("out", None, None), ("in", None, None)}
