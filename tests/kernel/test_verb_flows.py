"""`pytracecon flows` as a process: what it lists is held against the traffic's own log, and against `ss`."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from traffic.actor import DEADLINE, Actor, Address
from traffic.end import End, Listener, begin_connect, close, listen, pair
from traffic.network import Network

pytestmark = pytest.mark.slow(reason="what a listing looks like is user space's business, whatever the kernel")

TOP = Path(__file__).parents[2]
STATES = {
    "ESTAB": "ESTABLISHED",
    "SYN-SENT": "SYN_SENT",
    "CLOSE-WAIT": "CLOSE_WAIT",
    "FIN-WAIT-2": "FIN_WAIT2",
    "LISTEN": "LISTEN",
}


class Command:
    """A running `python -m pytracecon flows` of a network namespace."""

    def __init__(self, network: Network, *words: object, **streams: Any) -> None:
        command = [sys.executable, "-m", "pytracecon", "flows", *map(str, words), "--netns", network.path]
        streams = {"stdout": subprocess.PIPE} | streams
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=TOP, **streams)

    def await_tracing(self) -> None:
        assert self.process.stderr
        while not (line := self.process.stderr.readline()).startswith("pytracecon: tracing"):
            assert line, "it ended before it traced anything"

    def lines(self, count: int) -> list[str]:
        """The next ones, when they come."""
        assert self.process.stdout
        return [self.process.stdout.readline() for _ in range(count)]

    def end(self, number: int | None = None, *, status: int = 0) -> tuple[str, str]:
        """What it wrote and was not read yet, and what it said."""
        if number is not None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=DEADLINE)
        assert (self.process.returncode, "Traceback" in err) == (status, False), err
        return out or "", err

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream:
                stream.close()


@pytest.fixture
def run(network: Network) -> Iterator[Callable[..., Command]]:
    with ExitStack() as stack:

        def start(*words: object, **streams: Any) -> Command:
            command = Command(network, *words, **streams)
            stack.callback(command.kill)
            return command

        yield start


@pytest.fixture
def listing(run: Callable[..., Command]) -> Callable[..., str]:
    """What one listing has. It ends by itself, and says in a line how many rows there were."""

    def tell(*words: object) -> str:
        out, err = run(*words).end()
        assert re.fullmatch(r"pytracecon: \d+ rows? in [\d.]+ s, none lost\n", err), err
        return out

    return tell


def objects(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def told_of(rows: list[dict[str, Any]], end: End) -> dict[str, Any]:
    """The one row of this end."""
    (found,) = [row for row in rows if is_of(row, end)]
    return found


def is_of(row: dict[str, Any], end: End) -> bool:
    ours = row["local_addr"], row["local_port"], row.get("remote_addr"), row.get("remote_port")
    return end.local is not None and ours == (*end.local, *end.remote)


def talk(client: Actor, listener: Listener, out: int, back: int) -> tuple[End, End]:
    near, far = pair(client, listener)
    near.send(out)
    far.receive_all()
    far.send(back)
    near.receive_all()
    return near, far


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_both_ends_have_a_row_with_mirrored_bytes_that_refers_to_the_other(
    listing: Callable[..., str], client: Actor, server: Actor, address: str
) -> None:
    near, far = talk(client, listen(server, address), 512, 32_768)
    rows = objects(listing("--format", "json"))
    ours, theirs = told_of(rows, near), told_of(rows, far)
    assert len(rows) == 2
    for row, end in ((ours, near), (theirs, far)):
        assert (row["event"], row["proto"], row["outcome"], row["state"]) == (
            "connection",
            "tcp",
            "open",
            "ESTABLISHED",
        )
        assert (row["pid"], row["comm"], row["fd"]) == (end.actor.pid, end.opened.comm, end.socket)
        assert (row["tx_bytes"], row["rx_bytes"]) == (end.sent, end.received)
        assert row["netns"] == end.actor.netns
        assert "age_ns" not in row, "it is older than the tracer"
    assert (ours["peer"], theirs["peer"]) == (theirs["conn"], ours["conn"])


@pytest.fixture
def town(network: Network, client: Actor, server: Actor) -> list[End]:
    """Connections of two processes in several states, over both families."""
    four, six = listen(server, port=8080), listen(server, "::1", 9090)
    ends: list[End] = []
    for number, listener in enumerate([four, four, six, six, four]):
        ends += talk(client, listener, 100 * number, 7)
    ends[0].shutdown("wr")
    ends[1].await_end()
    other = network.actor("other")
    ends += talk(other, six, 100_000, 1)
    return ends


def ss(network: Network, *options: str) -> list[list[str]]:
    """What it has of sockets that somebody holds."""
    if shutil.which("ss") is None:
        pytest.skip("ss is not installed")
    command = ["nsenter", f"--net={network.path}", "ss", "-Hanp", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=DEADLINE)
    return [line.split() for line in done.stdout.splitlines() if "pid=" in line]


def in_ss(row: dict[str, Any]) -> tuple[str, str, str, int, int]:
    local, remote = (
        f"[{row[f'{end}_addr']}]:{row[f'{end}_port']}"
        if ":" in row[f"{end}_addr"]
        else f"{row[f'{end}_addr']}:{row[f'{end}_port']}"
        for end in ("local", "remote")
    )
    return row["state"], local, remote, row["pid"], row["fd"]


def of_ss(words: list[str]) -> tuple[str, str, str, int, int]:
    state, _, _, local, remote, users = words
    (holder,) = re.findall(r"pid=(\d+),fd=(\d+)", users)
    return STATES[state], local, remote, int(holder[0]), int(holder[1])


def test_the_rows_are_those_of_ss(listing: Callable[..., str], network: Network, town: list[End]) -> None:
    rows = objects(listing("--format", "json", "--proto", "tcp"))
    expected = sorted(of_ss(words) for words in ss(network, "-t") if words[0] != "LISTEN")
    assert sorted(map(in_ss, rows)) == expected
    assert len(expected) == len(town)
    assert {state for state, *_ in expected} == {"ESTABLISHED", "FIN_WAIT2", "CLOSE_WAIT"}


def test_every_format_tells_the_same_rows(listing: Callable[..., str], town: list[End]) -> None:
    expected = sorted(
        [end.actor.pid, end.opened.comm, end.remote[1], end.sent, end.received] for end in town if end.local is not None
    )
    line = "{pid},{comm},{remote_port},{tx_bytes},{rx_bytes}"
    table = [row.split() for row in listing("--bytes").splitlines()[1:]]
    by_line = [row.split(",") for row in listing("--template", line).splitlines()]
    by_csv = list(csv.DictReader(listing("--format", "csv").splitlines()))
    keys = line.replace("{", "").replace("}", "").split(",")
    found = {
        "table": [[row[2], row[3], row[5].rpartition(":")[2], row[7], row[8]] for row in table],
        "template": by_line,
        "csv": [[row[key] for key in keys] for row in by_csv],
        "json": [[str(row[key]) for key in keys] for row in objects(listing("--format", "json"))],
    }
    for form, rows in found.items():
        assert sorted([int(pid), comm, *map(int, rest)] for pid, comm, *rest in rows) == expected, form
    assert {row["event"] for row in by_csv} == {"connection"}


def test_sorted_and_cut_by_what_went_over_them(
    run: Callable[..., Command], listing: Callable[..., str], town: list[End]
) -> None:
    words = ["--format", "json", "--sort"]
    by_sent = [row["tx_bytes"] for row in objects(listing(*words, "tx"))]
    assert by_sent == sorted((end.sent for end in town), reverse=True)
    assert [row["tx_bytes"] for row in objects(listing(*words, "-tx"))] == by_sent[::-1]
    out, err = run(*words, "tx", "--limit", 2).end()
    assert [row["tx_bytes"] for row in objects(out)] == by_sent[:2]
    assert f"pytracecon: {len(town) - 2} rows left out: there are more than --limit 2\n" in err
    assert "pytracecon: 2 rows in " in err


def test_filters_choose_rows(listing: Callable[..., str], town: list[End], client: Actor) -> None:
    def ports(*words: object) -> list[int]:
        return sorted(row["local_port"] for row in objects(listing("--format", "json", *words)))

    def of(chosen: Callable[[End], bool]) -> list[int]:
        return sorted(end.local[1] for end in town if end.local and chosen(end))

    assert ports("--pid", client.pid) == of(lambda end: end.actor is client)
    assert ports("--port", "8080") == of(lambda end: end.remote[1] == 8080)
    assert ports("-6", "--comm", "other") == of(lambda end: end.opened.comm == "other")
    assert ports("--local", "127.0.0.0/8") == of(lambda end: ":" not in end.remote[0])


def test_who_listens_and_how_full_the_backlog_is(
    listing: Callable[..., str], network: Network, client: Actor, server: Actor
) -> None:
    """One more than its limit fits in; who comes then waits for an answer."""
    quiet, full = listen(server, "::1"), listen(server, backlog=2)
    attempts = [begin_connect(client, full.address) for _ in range(3)]
    assert not any(attempt.finish().error for attempt in attempts)
    begin_connect(client, full.address)
    rows = objects(listing("--listen", "--format", "json"))
    told = {(row["local_addr"], row["local_port"]): (row["backlog"], row["backlog_limit"]) for row in rows}
    assert told == {quiet.address: (0, 64), full.address: (3, 2)}
    assert {(row["outcome"], row["state"], row["pid"]) for row in rows} == {("listening", "LISTEN", server.pid)}
    by_ss = {words[3]: (int(words[1]), int(words[2])) for words in ss(network, "-tl")}
    assert by_ss == {text(address): counts for address, counts in told.items()}
    header, *table = listing("--listen").splitlines()
    assert header.split() == ["PROTO", "PID", "COMM", "LOCAL", "BACKLOG", "LIMIT"]
    assert ["tcp", str(server.pid), "server", text(full.address), "3", "2"] in [line.split() for line in table]
    states = [row["state"] for row in objects(listing("--format", "json", "--pid", client.pid))]
    assert sorted(states) == ["ESTABLISHED", "ESTABLISHED", "ESTABLISHED", "SYN_SENT"]


def text(address: Address) -> str:
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


# --watch


def listings(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["time"], []).append(row)
    return found


def until(command: Command, enough: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    while not enough(rows):
        (line,) = command.lines(1)
        assert line, "it ended"
        rows.append(json.loads(line))
    return rows


def test_what_opened_and_ended_between_two_listings_is_in_the_next_once(
    run: Callable[..., Command], client: Actor, server: Actor
) -> None:
    listener = listen(server)
    lasting = talk(client, listener, 10, 20)
    command = run("--watch", 0.5, "--format", "json")
    rows = until(command, lambda rows: len(rows) == 2)
    brief = talk(client, listener, 512, 32_768)
    close(*brief)
    rows += until(command, lambda rows: sum(row["outcome"] == "closed" for row in rows) == 2)
    ended = rows[-1]["time"]
    rows += until(command, lambda rows: len(listings(rows)) > 3)
    for end in brief:
        told = told_of([row for row in rows if row["outcome"] == "closed"], end)
        assert (told["tx_bytes"], told["rx_bytes"], told["time"]) == (end.sent, end.received, ended)
        assert (told["pid"], told["comm"]) == (end.actor.pid, end.opened.comm)
        assert told["duration_ns"] > 0
    assert not any(is_of(row, end) for row in rows for end in brief if row["time"] > ended)
    every = list(listings(rows).values())[:-1]  # the last one may not be whole
    assert all(sum(is_of(row, end) for row in each) == 1 for each in every for end in lasting)


def test_an_mptcp_connection_is_a_row_with_its_paths_beneath(
    run: Callable[..., Command], network: Network, client: Actor, server: Actor
) -> None:
    if client.attempt("socket", 4, "mptcp").errno:
        pytest.skip("no MPTCP in this kernel")
    network.sysctl("net.mptcp.enabled", 1)
    commands = [run("--watch", 0.5, "--pid", client.pid, *words) for words in (["--format", "json"], [])]
    for command in commands:
        command.await_tracing()
    near, far = talk(client, listen(server, mptcp=True), 1000, 5000)
    whole, path = until(commands[0], lambda rows: len(rows) == 2)
    assert (whole["proto"], whole["tx_bytes"], whole["rx_bytes"]) == ("mptcp", near.sent, near.received)
    assert (path["proto"], path["subflow_of"], path["pid"]) == ("tcp", whole["conn"], client.pid)
    beneath = [line[9:15] for line in commands[1].lines(20) if "connections" not in line][1:]
    assert set(zip(beneath[::2], beneath[1::2], strict=False)) == {("mptcp ", "  tcp ")}
    close(near, far)


def test_rates_are_what_went_since_the_listing_before(
    run: Callable[..., Command], client: Actor, server: Actor
) -> None:
    near, far = talk(client, listen(server), 10, 20)
    command = run("--watch", 0.4, "--format", "json", "--pid", client.pid)
    rows = until(command, lambda rows: len(rows) == 1)
    near.send(50_000)
    far.receive_all()
    far.send(3000)
    near.receive_all()
    rows += until(command, lambda more: more != [] and more[-1]["rx_bytes"] == 3020)
    sent = received = 0.0
    for before, after in pairwise(rows):
        seconds = instant(after["time"]) - instant(before["time"])
        sent += after["tx_rate"] * seconds
        received += after["rx_rate"] * seconds
    assert "tx_rate" not in rows[0]
    assert sent == pytest.approx(50_000, rel=0.05)
    assert received == pytest.approx(3000, rel=0.05)


def instant(time: str) -> float:
    return datetime.fromisoformat(time[:26]).timestamp()


def test_listings_come_by_the_clock_whether_there_is_anything_or_not(run: Callable[..., Command]) -> None:
    command = run("--watch", 0.3, "--count", 4)
    out, err = command.end()
    header, *lines = out.splitlines()
    assert header.split()[:3] == ["TIME", "PROTO", "STATE"]
    assert [line.split()[1:] for line in lines] == [["no", "connections"]] * 4
    assert re.search(r"^pytracecon: tracing TCP connections and UDP conversations \(\d+ probes", err)
    seconds = float(re.findall(r"0 rows in ([\d.]+) s, none lost", err)[0])
    assert seconds >= 0.9 - 0.05


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_ends_it(run: Callable[..., Command], town: list[End], number: signal.Signals) -> None:
    command = run("--watch", 100, "--format", "json", "-v")
    assert len(objects("".join(command.lines(len(town))))) == len(town)
    out, err = command.end(number)
    assert out == ""
    assert f"{len(town)} rows in " in err
    assert_accounted(err)


def assert_accounted(said: str) -> None:
    (sums,) = [line.partition("; ")[2] for line in said.splitlines() if " events handed over = " in line]
    handed, parts = sums.split(" events handed over = ")
    assert int(handed) == sum(int(word) for word in parts.split() if word.isdigit())


def test_duration_ends_it(run: Callable[..., Command], town: list[End]) -> None:
    out, _ = run("--watch", 100, "--format", "json", "--duration", "0.5").end()
    assert len(objects(out)) == len(town)


def test_a_closed_pipe_ends_it_quietly(run: Callable[..., Command], town: list[End]) -> None:
    command = run("--watch", 0.2, "--format", "json")
    command.lines(len(town))
    assert command.process.stdout
    command.process.stdout.close()
    command.process.stdout = None
    command.end()


def test_a_full_disk_is_said(run: Callable[..., Command], town: list[End]) -> None:
    with open("/dev/full", "w") as full:
        command = run("--format", "json", stdout=full)
    _, err = command.end(status=74)
    assert "standard output cannot be written: No space left on device" in err
    assert f"0 rows in 0.0 s, {len(town)} lost (output {len(town)})" in re.sub(r"in [\d.]+ s", "in 0.0 s", err)


def test_a_file_holds_the_last_run_or_all_with_a(listing: Callable[..., str], town: list[End], tmp_path: Path) -> None:
    file = tmp_path / "flows.json"
    for words, times in ((["-o", file], 1), (["-o", file], 1), (["-o", file, "-a"], 2)):
        assert listing("--format", "json", *words) == ""
        assert len(objects(file.read_text())) == times * len(town)
