"""The command is killed, asked to end, and asked twice, at any moment of its life."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import struct
import termios
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from traffic.actor import DEADLINE
from traffic.end import listen
from traffic.interrupts import pin, steer
from traffic.leftovers import BpfId, await_gone, await_nothing_but, bpf_ids, bpf_ids_of, probes_of_tracefs
from traffic.network import Network
from traffic.nursery import Nursery, Run
from traffic.waiting import writable

EVENTS_EACH = 5
GONE_WITHIN = 1.0
elsewhere = pytest.mark.slow(reason="what it tells of is user space's, whatever the kernel")
long = pytest.mark.long


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as nursery:
        yield nursery


def options(network: Network, *more: object, names: bool = False) -> list[object]:
    return ["--format", "json", "--netns", network.path, *([] if names else ["--no-names"]), *more]


@pytest.mark.parametrize(
    "times",
    [pytest.param(3, marks=elsewhere), pytest.param(50, marks=long), pytest.param(200, marks=[long, elsewhere])],
)
def test_killed_at_any_moment_it_leaves_nothing(nursery: Nursery, network: Network, times: int) -> None:
    """While it starts, while it traces, while it ends; every fifth with names, which have probes of another kind."""
    chance = random.Random(times)  # noqa: S311 - the same moments each time
    flood = network.actor("flood")
    probes = probes_of_tracefs()
    started = time.monotonic()
    whole = nursery.start(*options(network, names=True))
    whole.await_ready()
    life = time.monotonic() - started
    assert {kind for kind, _ in bpf_ids_of(whole.pid)} == {"prog", "map", "link"}
    whole.signal(signal.SIGKILL)
    whole.status()
    before = bpf_ids()
    for number in range(times):
        flood.begin("flood", 100, 5)
        run = nursery.start(*options(network, names=number % 5 == 4))
        if number % 3:
            run.await_ready()
        if number % 3 == 2:
            run.signal(signal.SIGTERM)
        run.ended(chance.uniform(0, life if number % 3 == 0 else life / 5))
        held = holdings(run)
        run.signal(signal.SIGKILL)
        assert run.status() in (-signal.SIGKILL, 0)
        left = await_gone(held, within=GONE_WITHIN)
        assert not left, f"run {number} left {sorted(left)}"
        flood.finish()
    # What came between the look and the kill, and what others of this machine had and gave up meanwhile.
    assert await_nothing_but(before, within=DEADLINE) == set()
    assert probes_of_tracefs() == probes


def holdings(run: Run) -> set[BpfId]:
    """What it holds just now; nothing if it has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return bpf_ids_of(run.pid)
    return set()


def told(output: Path) -> tuple[int, int]:
    """How many events are in the file, and how many it says are lost. Its last line is whole."""
    text = output.read_text()
    assert not text or text.endswith("\n")
    events: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    lost = [event["count"] for event in events if event["event"] == "lost" and event["where"] == "ring"]
    return sum(event["event"] != "lost" for event in events), sum(lost)


def books(said: str) -> list[int]:
    """Wanted, delivered and lost in the ring, by the sum that -v ends with."""
    line = next(line for line in said.splitlines() if "events wanted = " in line)
    return [int(word) for word in line.partition(";")[0].split() if word.isdigit()]


@elsewhere
@pytest.mark.parametrize("times", [2, pytest.param(200, marks=long)])
def test_asked_to_end_under_load_it_writes_all_that_happened(
    nursery: Nursery, network: Network, tmp_path: Path, times: int
) -> None:
    """In every other run nothing was read before: then it is known what was in the ring."""
    chance = random.Random(times)  # noqa: S311 - the same moments each time
    flood = network.actor("flood")
    for number in range(times):
        output = tmp_path / "events.json"
        run = nursery.start(*options(network, "-v", "-o", output))
        run.await_ready()
        made = None
        if number % 2:
            run.signal(signal.SIGSTOP)
            made = flood.do("flood", chance.randrange(1, 300), 5).result
        else:
            flood.begin("flood", 400, 5)
            enough = chance.randrange(1, 200_000)
            await_size(run, output, enough)
        run.signal(signal.SIGTERM)
        run.signal(signal.SIGCONT)
        status = run.status()
        if made is None:
            flood.finish()
        assert status == 0, run.said
        events, lost = told(output)
        assert books(run.said) == [events + lost, events, lost]
        assert f"{events} events" in run.said
        assert made is None or events + lost == made * EVENTS_EACH
        output.unlink()


@elsewhere
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one CPU has nobody to be interrupted by")
def test_without_its_privileges_it_still_finds_the_ends_that_it_missed(
    nursery: Nursery, network: Network, tmp_path: Path
) -> None:
    """The last look at what is left in the table takes none."""
    client, server = pin(network.actor("client"), 0), pin(network.actor("server"), 1)
    listener = listen(server)
    steer(network, 1)
    output = tmp_path / "events.json"
    run = nursery.start(*options(network, "-v", "-o", output))
    run.await_ready()
    server.begin("serve", listener.socket, 1000, 0, 0, "last")
    client.do("visit", 1000, *listener.address, 0, 0, "first")
    server.finish()
    run.signal(signal.SIGTERM)
    assert run.status() == 0, run.said
    events: list[dict[str, Any]] = [json.loads(line) for line in output.read_text().splitlines()]
    lost = sum(event["count"] for event in events if event["event"] == "lost" and event["where"] in ("ring", "probe"))
    assert sum(event["event"] != "lost" for event in events) + lost == 1000 * EVENTS_EACH


def await_size(run: Run, output: Path, size: int) -> None:
    deadline = time.monotonic() + DEADLINE
    while output.stat().st_size < size:
        assert not run.ended(0.001), run.said
        assert time.monotonic() < deadline


class Stuck:
    """A pipe that nobody reads."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, 4096)

    def await_full(self, run: Run) -> None:
        """Until nothing goes in any more, and the run waits for that."""
        deadline = time.monotonic() + DEADLINE
        while writable(self.writer) or not self._waited_for(run):
            assert time.monotonic() < deadline
            assert not run.ended(0.01), run.said

    def _waited_for(self, run: Run) -> bool:
        return Path(f"/proc/{run.pid}/wchan").read_text() in ("pipe_write", "anon_pipe_write")

    def read(self) -> bytes:
        """What is in it now."""
        waiting = bytearray(4)
        fcntl.ioctl(self.reader, termios.FIONREAD, waiting)
        (size,) = struct.unpack("i", waiting)
        return os.read(self.reader, size) if size else b""

    def close(self) -> None:
        os.close(self.reader)
        os.close(self.writer)


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    pipe = Stuck()
    yield pipe
    pipe.close()


def catches(run: Run, number: signal.Signals) -> bool:
    (caught,) = (
        int(line.split()[1], 16)
        for line in Path(f"/proc/{run.pid}/status").read_text().splitlines()
        if line.startswith("SigCgt:")
    )
    return bool(caught >> (number - 1) & 1)


@elsewhere
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_second_ctrl_c_ends_it_at_once_though_its_output_is_stuck(
    nursery: Nursery, network: Network, stuck: Stuck, first: signal.Signals
) -> None:
    before = bpf_ids()
    run = nursery.start(*options(network), output=stuck.writer)
    run.await_ready()
    network.actor("flood").do("flood", 100, 5)
    stuck.await_full(run)
    run.signal(first)
    deadline = time.monotonic() + DEADLINE
    while catches(run, signal.SIGINT):
        assert not run.ended(0.005), "it is not done: its output is stuck"
        assert time.monotonic() < deadline
    assert not run.ended(0.1), "what it has is not written yet"
    run.signal(signal.SIGINT)
    assert run.ended(GONE_WITHIN)
    assert run.status() == -signal.SIGINT
    assert await_nothing_but(before, within=GONE_WITHIN) == set()


@elsewhere
def test_what_is_lost_while_the_output_is_stuck_is_told_when_it_is_read_again(
    nursery: Nursery, network: Network, stuck: Stuck
) -> None:
    """The output itself loses nothing: it waits, so that the ring gets full."""
    run = nursery.start(*options(network, "-v", "--ring-size", "64K"), output=stuck.writer)
    run.await_ready()
    made = network.actor("flood").do("flood", 600, 5).result
    stuck.await_full(run)
    made += network.actor("flood").do("flood", 600, 5).result
    run.signal(signal.SIGTERM)
    text = b""
    while not run.ended(0):
        text += stuck.read()
    text += stuck.read()
    assert run.status() == 0
    events: list[dict[str, Any]] = [json.loads(line) for line in text.decode().splitlines()]
    lost = sum(event["count"] for event in events if event["event"] == "lost" and event["where"] == "ring")
    there = sum(event["event"] != "lost" for event in events)
    assert lost > 0
    assert there + lost == made * EVENTS_EACH
    assert books(run.said) == [there + lost, there, lost]
    assert f"(ring {lost}" in run.said
