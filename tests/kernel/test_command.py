"""`python -m pytracecon` as a process among others: signals, pipes, limits, and what it leaves."""

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

from traffic.actor import DEADLINE
from traffic.end import close, connect, listen, pair
from traffic.leftovers import await_gone, bpf_ids_of
from traffic.network import Network

TOP = Path(__file__).parents[2]
READY = "pytracecon: tracing"


class Command:
    """A running `python -m pytracecon`, tracing."""

    def __init__(self, *options: object, **streams: Any) -> None:
        command = [sys.executable, "-m", "pytracecon", *map(str, options)]
        streams = {"stdout": subprocess.PIPE} | streams
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=TOP, **streams)
        assert self.process.stderr
        while not (line := self.process.stderr.readline()).startswith(READY):
            assert line, "it ended before it traced anything"

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, number: int | None = None) -> tuple[int, list[str], str]:
        """Exit status, lines of output with their ends, the rest of standard error."""
        if number is not None:
            self.signal(number)
        out, err = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, (out or "").splitlines(keepends=True), err

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream:
                stream.close()


@pytest.fixture
def run() -> Iterator[Callable[..., Command]]:
    with ExitStack() as stack:

        def start(*options: object, **streams: Any) -> Command:
            command = Command(*options, **streams)
            stack.callback(command.kill)
            return command

        yield start


def events(lines: list[str]) -> list[dict[str, Any]]:
    assert all(line.endswith("\n") for line in lines), "the last line is whole"
    return [json.loads(line) for line in lines]


def talk(network: Network) -> None:
    near, far = pair(network.actor("client"), listen(network.actor("server")))
    close(near, far)


elsewhere = pytest.mark.slow(reason="starts a Python that no kernel has a say in")


@elsewhere
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_ends_it_after_all_that_is_in_the_ring(
    run: Callable[..., Command], network: Network, number: signal.Signals
) -> None:
    """It is stopped while all happens, so nothing was read when the signal comes."""
    command = run("--format", "json", "--netns", network.path)
    command.signal(signal.SIGSTOP)
    assert network.actor("flood").do("flood", 400, 5).result == 400
    command.signal(number)
    status, lines, said = command.end(signal.SIGCONT)
    assert status == 0
    assert len(events(lines)) == 2000
    assert "2000 events" in said
    assert "none lost" in said


@elsewhere
def test_sigterm_under_load_ends_with_a_whole_line_and_balanced_books(
    run: Callable[..., Command], network: Network, tmp_path: Path
) -> None:
    output = tmp_path / "events.json"
    command = run("--format", "json", "--netns", network.path, "-v", "-o", output)
    flood = network.actor("flood")
    flood.begin("flood", 3000, 5)
    while not (output.exists() and output.stat().st_size > 100_000):
        assert command.process.poll() is None
    status, _, said = command.end(signal.SIGTERM)
    flood.finish()
    assert status == 0
    told = events(output.read_text().splitlines(keepends=True))
    losses = sum(event["count"] for event in told if event["event"] == "lost")
    wanted, delivered, lost = numbers_of(said, "events wanted = ")
    assert wanted == delivered + lost
    assert lost == losses
    assert delivered == sum(event["event"] != "lost" for event in told)


def numbers_of(said: str, words: str) -> list[int]:
    """The numbers in the sum that -v ends with."""
    line = next(line for line in said.splitlines() if words in line)
    return [int(word) for word in line.partition(";")[0].split() if word.isdigit()]


@elsewhere
def test_each_event_is_visible_at_once_in_a_pipe(run: Callable[..., Command], network: Network) -> None:
    command = run("--format", "json", "--netns", network.path, "--events", "established")
    assert command.process.stdout
    listener = listen(network.actor("server"))
    client = network.actor("client")
    for _ in range(3):
        end = connect(client, listener.address)
        assert json.loads(command.process.stdout.readline())["local_port"] == (end.local or ("", 0))[1]


@elsewhere
def test_a_closed_pipe_ends_it_quietly(run: Callable[..., Command], network: Network) -> None:
    command = run("--format", "json", "--netns", network.path)
    assert command.process.stdout
    talk(network)
    assert json.loads(command.process.stdout.readline())
    command.process.stdout.close()
    network.actor("flood").do("flood", 200, 5)
    assert command.process.wait(timeout=DEADLINE) == 0
    assert command.process.stderr
    assert "Traceback" not in command.process.stderr.read()


@elsewhere
def test_a_full_disk_is_said_and_nothing_is_left_attached(run: Callable[..., Command], network: Network) -> None:
    with open("/dev/full", "w") as full:
        command = run("--format", "json", "--netns", network.path, stdout=full)
    held = bpf_ids_of(command.process.pid)
    network.actor("flood").do("flood", 200, 5)
    status, _, said = command.end()
    assert status == 74
    assert "Traceback" not in said
    assert await_gone(held) == set()


@elsewhere
def test_duration_ends_it(run: Callable[..., Command], network: Network) -> None:
    command = run("--format", "json", "--netns", network.path, "--duration", "1.5")
    talk(network)
    status, lines, _ = command.end()
    assert status == 0
    assert len(events(lines)) == 5


@elsewhere
def test_count_ends_it(run: Callable[..., Command], network: Network) -> None:
    command = run("--format", "json", "--netns", network.path, "--count", 7)
    network.actor("flood").do("flood", 10, 5)
    status, lines, _ = command.end()
    assert status == 0
    assert len(events(lines)) == 7


@elsewhere
@pytest.mark.parametrize(("option", "status"), [("--fail-on-loss", 75), ("-v", 0)])
def test_a_loss_fails_the_run_if_asked(run: Callable[..., Command], network: Network, option: str, status: int) -> None:
    command = run("--format", "json", "--netns", network.path, "--ring-size", "4K", option)
    command.signal(signal.SIGSTOP)
    network.actor("flood").do("flood", 300, 5)
    command.signal(signal.SIGCONT)
    got, lines, said = command.end(signal.SIGTERM)
    assert got == status
    lost = sum(event["count"] for event in events(lines) if event["event"] == "lost" and event["where"] == "ring")
    assert lost > 0
    assert f" lost (ring {lost}" in said


@elsewhere
def test_two_commands_at_once_do_not_disturb_each_other(run: Callable[..., Command], network: Network) -> None:
    commands = [run("--format", "json", "--netns", network.path) for _ in range(2)]
    talk(network)
    told = []
    for command in commands:
        status, lines, _ = command.end(signal.SIGTERM)
        assert status == 0
        told.append([(event["event"], event["pid"], event["local_port"]) for event in events(lines)])
    assert len(told[0]) == 5
    assert told[0] == told[1]


@elsewhere
def test_without_privilege_one_line_says_which_is_missing() -> None:
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    command = [*powerless, sys.executable, "-m", "pytracecon"]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False, timeout=DEADLINE)
    assert done.returncode == 77, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "CAP_" in done.stderr
