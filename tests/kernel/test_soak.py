"""A tracer that runs for long stays as large as it was, and tells all."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from pytracecon import uprobes
from traffic.actor import DEADLINE, Actor
from traffic.end import Listener, listen
from traffic.resolver import Place
from traffic.usage import Usage

TOP = Path(__file__).parents[2]
RATE = 520
"""Connections a second of the flood, so that with the pauses to look around they are 500."""
EVENTS_EACH = 5
CHURN = 20
"""A second, of processes that are gone at once and of names that were never asked for."""
PROCESSES, AT_A_TIME = 33_280, 512
PROGRAMS = 16_000
"""More than are remembered, so that an hour begins with full tables."""
EVENT = re.compile(rb'^\{"event":"(\w+)"', re.MULTILINE)
LOST = re.compile(rb'^\{"event":"lost".*"count":(\d+),"where":"(ring|probe)"', re.MULTILINE)


class Growing:
    """A file that somebody writes: what was read of it takes no more room on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kinds: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        """Events by where they were lost. Those of probes may have been somebody else's."""
        self._read = 0

    def read(self) -> None:
        """Count the whole lines that are new, by their kind."""
        with self.path.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        kinds = Counter(EVENT.findall(whole))
        assert sum(kinds.values()) == whole.count(b"\n"), "no line is torn"
        self.kinds.update({kind.decode(): count for kind, count in kinds.items()})
        for count, where in LOST.findall(whole):
            self.lost[where.decode()] += int(count)
        self._read += len(whole)
        if room := self._read & ~0xFFFF:
            subprocess.run(["fallocate", "--punch-hole", "-l", str(room), self.path], check=True)

    @property
    def rest(self) -> int:
        """Bytes that are no whole line."""
        return self.path.stat().st_size - self._read


def growth(samples: list[tuple[float, float]]) -> float:
    """How much more there is at the end than at the start, by the line that fits best."""
    middle = sum(at for at, _ in samples) / len(samples)
    mean = sum(value for _, value in samples) / len(samples)
    spread = sum((at - middle) ** 2 for at, _ in samples)
    slope = sum((at - middle) * (value - mean) for at, value in samples) / spread
    return slope * (samples[-1][0] - samples[0][0])


@pytest.mark.slow(reason="what it tells of is user space's, whatever the kernel")
@pytest.mark.parametrize(
    ("rounds", "seconds"), [(2, 1), pytest.param(360, 10, marks=pytest.mark.long)], ids=["seconds", "an hour"]
)
def test_an_hour_leaves_memory_descriptors_and_maps_as_they_were(
    place: Place, tmp_path: Path, rounds: int, seconds: int
) -> None:
    """All default events, names and owners of 500 connections a second, JSON to a file."""
    output = Growing(tmp_path / "events.json")
    notes = open(os.environ.get("PYTRACECON_SOAK", os.devnull), "w")  # noqa: SIM115 - to watch it by
    command = [sys.executable, "-m", "pytracecon", "--format", "json", "-v", "--netns", place.path]
    process = subprocess.Popen([*command, "-o", output.path], stderr=subprocess.PIPE, text=True, cwd=TOP)
    try:
        assert process.stderr
        while not (line := process.stderr.readline()).startswith("pytracecon: tracing"):
            assert line, "it ended before it traced anything"
        server = place.actor("server")
        listener = listen(server, backlog=128)
        churn = CHURN * seconds
        made = asked = 0
        if rounds * seconds > DEADLINE:
            made += fill(place, server, listener)
        samples: list[tuple[float, Usage]] = []
        started = time.monotonic()
        for number in range(rounds):
            flood, visitor = place.actor("flood"), place.actor("visitor")
            flood.begin("flood", RATE * seconds, 5, RATE)
            server.begin("serve", listener.socket, churn, 1, 0, "last")
            visitor.do("lookups", churn, f"host#-{number}.test", 4)
            made += visitor.do("hit", churn, *listener.address, "brief").result
            assert server.finish().result == churn
            made += flood.finish().result
            asked += churn
            flood.kill()
            visitor.kill()
            await_all_read(output, made)
            samples.append((time.monotonic() - started, Usage.of(process.pid)))
            state = {
                "at": samples[-1][0],
                "made": made,
                "events": output.kinds.total(),
                "lost": output.lost.total(),
                **samples[-1][1].as_json(),
            }
            print(json.dumps(state), file=notes, flush=True)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
        process.wait()
        notes.close()
    output.read()
    assert output.rest == 0
    assert_all_told(output, said, made, asked)
    assert_flat(samples, long=rounds * seconds > DEADLINE)


def fill(place: Place, server: Actor, listener: Listener) -> int:
    """What the tracer remembers. How many connections it took."""
    subprocess.run(["sh", "-c", f"for _ in $(seq {PROGRAMS}); do /bin/true {'x' * 1000}; done"], check=True)
    made = 0
    for _ in range(PROCESSES // AT_A_TIME):
        crowd = place.actor("crowd")
        server.begin("serve", listener.socket, AT_A_TIME, 1, 0, "last")
        made += crowd.do("hit", AT_A_TIME, *listener.address, "brief").result
        assert server.finish().result == AT_A_TIME
        crowd.kill()
    return made


def await_all_read(output: Growing, made: int) -> None:
    deadline = time.monotonic() + DEADLINE
    while told(output.kinds) + output.lost.total() < made * EVENTS_EACH and time.monotonic() < deadline:
        time.sleep(0.05)
        output.read()


def told(kinds: Counter[str]) -> int:
    return sum(kinds[kind] for kind in ("connect", "established", "accept", "close", "failed"))


def assert_all_told(output: Growing, said: str, made: int, asked: int) -> None:
    """To one. On a machine that has other things to do the ring may get full, and the kernel skip hooks, of anybody's
    connections: then it is told how many are missing, and of the latter at most.
    """
    kinds, lost = output.kinds, output.lost
    missing = made * EVENTS_EACH - told(kinds)
    assert lost["ring"] <= missing <= lost.total(), said
    events = kinds.total() - kinds["lost"]
    assert kinds["lookup"] >= asked - lost.total()
    assert f"{events} events in " in said
    assert lost or f"{events} events wanted = {events} delivered + 0 lost in the ring" in said


MEGABYTE = 1 << 20
AT_ONCE = 8
"""Entries that the kernel may not have let go of yet, as somebody else used the table at that moment."""
OF_OTHERS = 16
"""Elements that the rest of the machine may add meanwhile: listeners of every namespace are in the map."""


def assert_flat(samples: list[tuple[float, Usage]], *, long: bool) -> None:
    """`long` enough that a slope says something: the first half fills what has a limit of its own."""
    first = samples[0][1]
    assert {usage.descriptors for _, usage in samples} == {first.descriptors}
    # Where a library of somebody else's goes, a few threads let go of it, and end.
    assert max(usage.threads for _, usage in samples) <= first.threads + uprobes._AT_ONCE
    assert min(usage.threads for _, usage in samples[-max(1, len(samples) // 20) :]) == first.threads
    assert {usage.memlock for _, usage in samples} == {first.memlock}
    assert all(usage.elements.get("socks", 0) <= AT_ONCE for _, usage in samples), "all connections are over"
    assert all(usage.pss < 200 * MEGABYTE for _, usage in samples)
    if not long:
        return
    settled = samples[len(samples) // 2 :]
    # Not the share (PSS): that grows as well when others end who had the same pages.
    assert growth([(at, float(usage.rss)) for at, usage in settled]) < 2 * MEGABYTE
    for name in ("listeners", "syscall_attempt", "uring_attempts", "calls"):
        values = [(at, float(usage.elements[name])) for at, usage in settled if name in usage.elements]
        assert not values or growth(values) < OF_OTHERS, name
