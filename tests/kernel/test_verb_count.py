"""`pytracecon count`, and outputs that any verb has, as processes: held against what the traffic did."""

from __future__ import annotations

import csv
import json
import math
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from traffic.actor import DEADLINE, Actor
from traffic.end import End, close, connect, listen, pair
from traffic.network import Network

pytestmark = pytest.mark.slow(reason="what is counted is user space's business, whatever the kernel")

TOP = Path(__file__).parents[2]
SECOND = 1_000_000_000

elsewhere = pytest.mark.slow(reason="starts a Python that no kernel has a say in")


class Command:
    """A running `python -m pytracecon`, tracing a network namespace."""

    def __init__(self, network: Network, *words: str) -> None:
        command = [sys.executable, "-m", "pytracecon", *words, "--netns", network.path]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=TOP)

    def await_tracing(self) -> None:
        assert self.process.stderr
        while not (line := self.process.stderr.readline()).startswith("pytracecon: tracing"):
            assert line, "it ended before it traced anything"

    def line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline()

    def end(self) -> str:
        """What it wrote and was not read yet, when Ctrl-C has ended it."""
        self.process.send_signal(signal.SIGINT)
        return self.wrote()

    def wrote(self) -> str:
        out, err = self.process.communicate(timeout=DEADLINE)
        assert (self.process.returncode, "none lost" in err) == (0, True), err
        return out

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def run(network: Network) -> Iterator[Callable[..., Command]]:
    with ExitStack() as stack:

        def start(*words: str) -> Command:
            command = Command(network, *words)
            stack.callback(command.kill)
            return command

        yield start


@pytest.fixture
def told(run: Callable[..., Command]) -> Callable[..., list[str]]:
    """What each of these commands writes of the same traffic."""

    def tell(commands: list[list[str]], traffic: Callable[[], object]) -> list[str]:
        running = [run(*words) for words in commands]
        for command in running:
            command.await_tracing()
        traffic()
        return [command.end() for command in running]

    return tell


class Town:
    """Alice goes three times to the web and Bob once; then Bob is refused twice."""

    def __init__(self, network: Network) -> None:
        self.web, self.alice, self.bob = (network.actor(name) for name in ("web", "alice", "bob"))
        self.nears: list[End] = []
        self.fars: list[End] = []
        self.refused: list[End] = []

    def traffic(self) -> None:
        web = listen(self.web, port=8080)
        for client, size in ((self.alice, 100), (self.alice, 2000), (self.bob, 30_000), (self.alice, 5)):
            near, far = pair(client, web)
            near.send(size)
            far.receive_all()
            far.send(7 * size)
            near.receive_all()
            close(near, far)
            self.nears.append(near)
            self.fars.append(far)
        self.refused = [connect(self.bob, ("127.0.0.1", 7)) for _ in range(2)]
        assert {end.error for end in self.refused} == {"ECONNREFUSED"}

    def of(self, actor: Actor) -> list[End]:
        return [end for end in self.nears + self.fars if end.actor is actor]


@pytest.fixture
def town(network: Network) -> Town:
    return Town(network)


def objects(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def test_groups_have_the_events_and_the_bytes_of_the_traffic(told: Callable[..., list[str]], town: Town) -> None:
    keys = ["count", "--format", "json", "--by"]
    by_event, by_owner, by_port = told(
        [
            [*keys, "event"],
            [*keys, "comm,pid,direction", "--events", "close", "--sort", "tx_bytes"],
            [*keys, "remote_port", "--events", "established,failed", "--top", "1"],
        ],
        town.traffic,
    )
    counts = {row["by"]["event"]: row for row in objects(by_event)}
    told_of = {event: row["events"] for event, row in counts.items()}
    assert told_of == {"established": 4, "accept": 4, "close": 8, "failed": 2}
    assert counts["close"]["tx_bytes"] == sum(end.sent for end in town.nears + town.fars)
    assert counts["close"]["rx_bytes"] == sum(end.received for end in town.nears + town.fars)
    longest = max(end.opened.mono[1] - end.opened.mono[0] for end in town.nears)
    row = counts["established"]
    assert row["latencies"] == 4
    assert (
        0 < row["latency_p50_ns"] <= row["latency_p90_ns"] <= row["latency_p99_ns"] <= row["latency_max_ns"] <= longest
    )

    owners = [
        (actor.pid, sum(end.sent for end in town.of(actor)), sum(end.received for end in town.of(actor)))
        for actor in (town.web, town.bob, town.alice)
    ]
    rows = objects(by_owner)
    assert [(row["by"]["pid"], row["tx_bytes"], row["rx_bytes"]) for row in rows] == owners
    assert [(row["by"]["comm"], row["by"]["direction"], row["events"]) for row in rows] == [
        ("web", "in", 4),
        ("bob", "out", 1),
        ("alice", "out", 3),
    ]
    first, others = objects(by_port)
    assert (first["by"], first["events"]) == ({"remote_port": 8080}, 4)
    assert (others["others"], others["groups"], others["events"]) == (True, 1, 2)


@elsewhere
def test_every_format_tells_the_same_groups(told: Callable[..., list[str]], town: Town) -> None:
    words = ["count", "--by", "event,comm", "--events", "close,failed", "--sort", "tx_bytes"]
    table, rows, lines = told(
        [
            words,
            [*words, "--format", "csv"],
            [*words, "--template", "{event},{comm},{events}"],
        ],
        town.traffic,
    )
    expected = [["close", "web", "4"], ["close", "bob", "1"], ["close", "alice", "3"], ["failed", "bob", "2"]]
    assert [line.split()[:3] for line in table.splitlines()[1:]] == expected
    assert [line.split(",") for line in lines.splitlines()] == expected
    assert [[row["event"], row["comm"], row["events"]] for row in csv.DictReader(rows.splitlines())] == expected


@pytest.mark.parametrize("cumulative", [False, pytest.param(True, marks=elsewhere)])
def test_intervals_come_by_the_clock_whether_anything_happens_or_not(
    run: Callable[..., Command], town: Town, cumulative: bool
) -> None:
    words = ["--cumulative"] if cumulative else []
    command = run("count", "--interval", "0.4", "--by", "proto", "--events", "close", "--format", "json", *words)
    command.await_tracing()
    quiet = objects("".join(command.line() for _ in range(3)))
    assert [row["events"] for row in quiet] == [0, 0, 0]
    town.traffic()
    rows = [*quiet, *objects(command.line())]
    while sum_of(rows, cumulative) != 8:
        rows += objects(command.line())
    rows += objects(command.line())
    rows += objects(command.end())
    assert sum_of(rows, cumulative) == 8
    assert rows[-1]["events"] == (8 if cumulative else 0)
    if cumulative:
        assert len({row["from"] for row in rows}) == 1
    else:
        assert [row["from"] for row in rows[1:]] == [row["time"] for row in rows[:-1]]
    begun, *moments = [instant(key) for key in (rows[0]["from"], *(row["time"] for row in rows))]
    # Never early, and however late one comes the next is due when it always was. The last is that of the end.
    assert all(moment - begun >= 0.4 * at - 0.001 for at, moment in enumerate(moments[:-1], 1))


def instant(time: str) -> float:
    return datetime.fromisoformat(time[:26]).timestamp()


def sum_of(rows: list[dict[str, Any]], cumulative: bool) -> int:
    return max(row["events"] for row in rows) if cumulative else sum(row["events"] for row in rows)


@elsewhere
def test_duration_and_count_end_it_with_what_there_is(run: Callable[..., Command], town: Town) -> None:
    timed = run("count", "--duration", "2", "--by", "event", "--format", "json", "--events", "accept")
    counted = run("count", "--count", "3", "--by", "event", "--format", "json", "--events", "accept")
    for command in (timed, counted):
        command.await_tracing()
    town.traffic()
    assert [row["events"] for row in objects(counted.wrote())] == [3]
    assert [row["events"] for row in objects(timed.wrote())] == [4]


@elsewhere
def test_more_groups_than_are_kept_are_others(run: Callable[..., Command], network: Network) -> None:
    words = ["--max-groups", "20", "--by", "local_port", "--events", "established", "--format", "json"]
    command = run("count", *words, "-v")
    command.await_tracing()
    network.actor("flood").do("flood", 300, 5)
    *groups, others = objects(command.end())
    assert len(groups) == 20
    assert others["others"] is True
    assert "groups" not in others
    assert sum(row["events"] for row in groups) + others["events"] == 300


@elsewhere
def test_when_its_reader_leaves_every_event_is_accounted_for(run: Callable[..., Command], network: Network) -> None:
    """Those in groups that nobody was told of, too."""
    command = run("count", "--interval", "1", "--by", "proto", "-v")
    command.await_tracing()
    assert command.process.stdout
    command.line()
    command.process.stdout.close()
    network.actor("flood").do("flood", 200, 5)
    assert command.process.stderr
    said = command.process.stderr.read()
    assert command.process.wait(timeout=DEADLINE) == 0
    assert_accounted(said, "after the reader left")


@elsewhere
def test_a_full_disk_is_said_with_all_that_is_not_told_of(run: Callable[..., Command], town: Town) -> None:
    command = run("count", "--by", "proto", "-v", "-o", "/dev/full")
    command.await_tracing()
    town.traffic()
    command.process.send_signal(signal.SIGINT)
    _, said = command.process.communicate(timeout=DEADLINE)
    assert command.process.returncode == 74
    assert "18 events lost; make room" in said
    assert_accounted(said, "lost by the output")


def assert_accounted(said: str, where: str) -> None:
    """What -v ends with: the events that were handed over are written, or are somewhere else, which is named."""
    (sums,) = [line.partition("; ")[2] for line in said.splitlines() if " events handed over = " in line]
    handed, parts = sums.split(" events handed over = ")
    assert int(handed) == sum(int(word) for word in parts.split() if word.isdigit())
    assert where in parts


# Outputs of every verb


VERBS = ["trace", "connect", "accept", "latency", "life"]


@elsewhere
def test_a_line_of_ones_own_in_every_verb(told: Callable[..., list[str]], town: Town) -> None:
    line = "{comm}[{pid}]\t{event} {remote_addr}:{remote_port} {{{host}}}"
    wrote = dict(zip(VERBS, told([[verb, "--template", line] for verb in VERBS], town.traffic), strict=True))
    expected = {
        "connect": Counter(lines_of(town, "connect", town.nears + town.refused)),
        "accept": Counter(lines_of(town, "accept", town.fars)),
        "life": Counter(lines_of(town, "close", town.nears + town.fars)),
        "latency": Counter(lines_of(town, "established", town.nears)),
    }
    for verb, lines in expected.items():
        found = Counter(line for line in wrote[verb].splitlines() if "\tfailed " not in line)
        assert found == lines, verb
    every = expected["connect"] + expected["accept"] + expected["life"] + expected["latency"]
    assert Counter(line for line in wrote["trace"].splitlines() if "\tfailed " not in line) == every


def lines_of(town: Town, event: str, ends: list[End]) -> list[str]:
    assert town.nears
    return [f"{end.opened.comm}[{end.actor.pid}]\t{event} {end.remote[0]}:{end.remote[1]} {{?}}" for end in ends]


@elsewhere
def test_a_table_in_a_pipe_has_colour_when_that_is_asked_for(told: Callable[..., list[str]], town: Town) -> None:
    verbs = [*VERBS, "count"]
    for table in told([[verb, "--color", "always"] for verb in verbs], town.traffic):
        header, *lines = table.splitlines()
        assert header.startswith("\x1b[1m")
        assert header.endswith("\x1b[0m")
        assert any("\x1b" not in line for line in lines)


@elsewhere
@pytest.mark.parametrize(
    ("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_on_a_terminal_a_table_has_colour_and_its_width(
    network: Network, town: Town, environment: dict[str, str], coloured: bool
) -> None:
    reading, writing = pty.openpty()
    usual = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    command = [sys.executable, "-m", "pytracecon", "--netns", network.path, "--events", "failed,close"]
    process = subprocess.Popen(
        command,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        cwd=TOP,
        env=usual | {"TERM": "xterm", "COLUMNS": "60"} | environment,
    )
    os.close(writing)
    try:
        assert process.stderr
        while not (said := process.stderr.readline()).startswith("pytracecon: tracing"):
            assert said
        town.traffic()
        process.send_signal(signal.SIGINT)
        shown = everything(reading)
        assert process.wait(timeout=DEADLINE) == 0
    finally:
        process.kill()
        process.communicate()
        os.close(reading)
    assert ("\x1b[31m" in shown) == ("\x1b[1m" in shown) == coloured
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    assert 40 < max(map(len, lines)) <= 60


def everything(terminal: int) -> str:
    """What is shown until nobody has the terminal open any more."""
    shown = b""
    with suppress(OSError):  # EIO: that is how its end is told
        while data := os.read(terminal, 1 << 16):
            shown += data
    return shown.decode()


class Receiver:
    """A journal of the test's own, which keeps what it is sent: a socket holds ten datagrams at most."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.entries: list[list[str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._thread = threading.Thread(target=self._receive)
        self._thread.start()

    def _receive(self) -> None:
        while data := self._socket.recv(1 << 16):
            self.entries.append(data.decode().splitlines())

    def close(self) -> None:
        """When all that was sent is here."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self.path)
        self._thread.join()
        self._socket.close()


@elsewhere
def test_every_verb_writes_to_the_journal(told: Callable[..., list[str]], town: Town, tmp_path: Path) -> None:
    """To sockets of the test's own; the real journal is asked below."""
    receivers = {verb: Receiver(tmp_path / verb) for verb in [*VERBS, "count"]}
    try:
        written = [[verb, "--format", "journal", "--journal-socket", each.path] for verb, each in receivers.items()]
        assert told(written, town.traffic) == [""] * len(receivers)
    finally:
        for receiver in receivers.values():
            receiver.close()
    events = {verb: Counter(map(event_of, receiver.entries)) for verb, receiver in receivers.items()}
    assert events["accept"] == {"accept": 4}
    assert events["life"] == {"close": 8}
    assert (events["connect"]["connect"], events["latency"]["established"]) == (6, 4)
    assert events["trace"] == {"connect": 6, "established": 4, "accept": 4, "close": 8, "failed": 2}
    assert set(events["count"]) == {"count"}


def event_of(entry: list[str]) -> str:
    (event,) = [field.partition("=")[2] for field in entry if field.startswith("PYTRACECON_EVENT=")]
    return event


class Journal:
    """A real systemd-journald, alone in a mount namespace with a /run of its own."""

    CONFIGURATION = "[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\nForwardToSyslog=no\nForwardToWall=no\n"

    def __init__(self, program: str) -> None:
        script = (
            "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journald.conf.d && "
            'printf "$2" > /run/systemd/journald.conf.d/test.conf && exec "$1"'
        )
        command = ["unshare", "--mount", "sh", "-c", script, "sh", program, self.CONFIGURATION.replace("\n", "\\n")]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.socket = Path(f"/proc/{self.process.pid}/root/run/systemd/journal/socket")
        while not self._listens():
            assert self.process.poll() is None, "systemd-journald ended"
            time.sleep(0.01)

    def _listens(self) -> bool:
        # Until it has a /run of its own, one sees that of the machine.
        own = Path(f"/proc/{self.process.pid}/root/run/systemd/journald.conf.d/test.conf")
        if not own.exists() or not self.socket.is_socket():
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking:
            return asking.connect_ex(str(self.socket)) == 0

    def entries(self, identifier: str) -> list[dict[str, Any]]:
        command = ["nsenter", "-m", "-t", str(self.process.pid), "journalctl", "-D", "/run/log/journal"]
        done = subprocess.run(
            [*command, "-o", "json", "-t", identifier], capture_output=True, text=True, check=True, timeout=DEADLINE
        )
        return objects(done.stdout)

    def await_entries(self, identifier: str, count: int) -> list[dict[str, Any]]:
        """It takes datagrams when it gets to it."""
        until = time.monotonic() + DEADLINE
        while len(found := self.entries(identifier)) < count:
            assert time.monotonic() < until, found
            time.sleep(0.05)
        return found

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=DEADLINE)


@pytest.fixture
def journal() -> Iterator[Journal]:
    program = shutil.which("systemd-journald", path="/usr/lib/systemd:/lib/systemd")
    if program is None:
        pytest.skip("systemd-journald is not installed")
    journal = Journal(program)
    yield journal
    journal.close()


@elsewhere
def test_the_real_journal_stores_what_happened(run: Callable[..., Command], journal: Journal, network: Network) -> None:
    """Also a name with a newline, which would be a field of its own to whoever is careless."""
    command = run("--format", "journal", "--journal-socket", str(journal.socket), "--events", "established,failed")
    command.await_tracing()
    hostile = network.actor("a\nPRIORITY=0\nB=")
    near, _ = pair(hostile, listen(network.actor("web"), port=8080))
    connect(network.actor("psql"), ("127.0.0.1", 5432))
    assert command.end() == ""
    established, failed = journal.await_entries("pytracecon", 2)
    assert near.local
    assert established["PYTRACECON_COMM"] == "a\nPRIORITY=0\nB="
    assert "a\nPRIORITY=0\nB=" in established["OBJECT_COMM"], "and what journald reads in /proc, if that differs"
    assert "B" not in established
    assert (established["PRIORITY"], established["OBJECT_PID"]) == ("5", str(hostile.pid))
    assert established["MESSAGE"].startswith(
        rf"a\x0aPRIORITY=0\x0aB= 127.0.0.1:{near.local[1]} → 127.0.0.1:8080 established: "
    )
    assert established["OBJECT_IPV4_SOURCE_ADDRESS"] == established["OBJECT_IPV4_DESTINATION_ADDRESS"] == "127.0.0.1"
    assert established["OBJECT_TCP_SOURCE_PORT"] == str(near.local[1])
    assert established["OBJECT_TCP_DESTINATION_PORT"] == "8080"
    assert established["PYTRACECON_LATENCY_NS"].isdigit()
    assert established["OBJECT_UID"] == "0", "journald itself says more of a process that still runs"
    assert failed["MESSAGE"].startswith("psql ")
    assert failed["PYTRACECON_ERROR"] == "ECONNREFUSED"
    assert int(failed["__REALTIME_TIMESTAMP"]) * 1000 >= near.opened.wall[0]


@elsewhere
def test_the_real_journal_takes_an_entry_of_a_megabyte(journal: Journal) -> None:
    """As a sealed memfd."""
    from pytracecon.events import Lookup  # noqa: PLC0415 - of the library, beside the commands
    from pytracecon.outputs.journal import Journal as Entries  # noqa: PLC0415
    from pytracecon.outputs.journal import JournalSink  # noqa: PLC0415

    name = "a.test\n" * 150_000
    sink = JournalSink(str(journal.socket))
    sink.write(Entries().render([Lookup(time.time_ns(), comm="big", name=name, result="ok")]))
    sink.flush()
    sink.close()
    (entry,) = journal.await_entries("pytracecon", 1)
    # Of a field as large journalctl tells that it is there, and not what it is.
    assert entry["PYTRACECON_COMM"] == "big"
    assert entry["PYTRACECON_NAME"] in (None, name)
    assert sink.written == 1
    assert math.isfinite(int(entry["__REALTIME_TIMESTAMP"]))
