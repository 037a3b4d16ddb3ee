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
from traffic.datagrams import udp
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
    "UNCONN": "UNCONN",
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
def listings(run: Callable[..., Command]) -> Callable[..., list[str]]:
    """What one listing of each of these commands has. It ends by itself, and says how many rows there were."""

    def tell(*lines: str) -> list[str]:
        commands = [run(*line.split()) for line in lines]
        wrote = [command.end() for command in commands]
        for line, (_, err) in zip(lines, wrote, strict=True):
            assert re.fullmatch(r"pytracecon: \d+ rows? in [\d.]+ s, none lost\n", err), (line, err)
        return [out for out, _ in wrote]

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


def test_both_ends_have_a_row_with_mirrored_bytes_that_refers_to_the_other(
    listings: Callable[..., list[str]], client: Actor, server: Actor
) -> None:
    pairs = [talk(client, listen(server, address), 512, 32_768) for address in ("127.0.0.1", "::1")]
    rows = objects(*listings("--format json"))
    assert len(rows) == 4
    for near, far in pairs:
        ours, theirs = told_of(rows, near), told_of(rows, far)
        assert (ours["peer"], theirs["peer"]) == (theirs["conn"], ours["conn"])
        for row, end in ((ours, near), (theirs, far)):
            assert (row["event"], row["proto"], row["outcome"]) == ("connection", "tcp", "open")
            assert (row["state"], row["netns"]) == ("ESTABLISHED", end.actor.netns)
            assert (row["pid"], row["comm"], row["fd"]) == (end.actor.pid, end.opened.comm, end.socket)
            assert (row["tx_bytes"], row["rx_bytes"]) == (end.sent, end.received)
            assert "age_ns" not in row, "it is older than the tracer"


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
    local, remote = (text((row[f"{end}_addr"], row[f"{end}_port"])) for end in ("local", "remote"))
    return row["state"], local, remote, row["pid"], row["fd"]


def of_ss(words: list[str]) -> tuple[str, str, str, int, int]:
    state, _, _, local, remote, users = words
    (holder,) = re.findall(r"pid=(\d+),fd=(\d+)", users)
    return STATES[state], local, remote, int(holder[0]), int(holder[1])


def test_the_rows_are_those_of_ss_and_of_the_traffic_in_every_format(
    listings: Callable[..., list[str]], network: Network, town: list[End]
) -> None:
    line = "{pid},{comm},{remote_port},{tx_bytes},{rx_bytes}"
    in_json, in_csv, in_lines, table = listings("--format json", "--format csv", f"--template {line}", "--bytes")
    by_ss = sorted(of_ss(words) for words in ss(network, "-t") if words[0] != "LISTEN")
    assert sorted(map(in_ss, objects(in_json))) == by_ss
    assert len(by_ss) == len(town)
    assert {state for state, *_ in by_ss} == {"ESTABLISHED", "FIN_WAIT2", "CLOSE_WAIT"}

    keys = line.replace("{", "").replace("}", "").split(",")
    by_csv = list(csv.DictReader(in_csv.splitlines()))
    assert {row["event"] for row in by_csv} == {"connection"}
    cells = [row.split() for row in table.splitlines()[1:]]
    found = {
        "table": [[row[2], row[3], row[5].rpartition(":")[2], row[6], row[7]] for row in cells],
        "template": [row.split(",") for row in in_lines.splitlines()],
        "csv": [[row[key] for key in keys] for row in by_csv],
        "json": [[str(row[key]) for key in keys] for row in objects(in_json)],
    }
    expected = sorted([end.actor.pid, end.opened.comm, end.remote[1], end.sent, end.received] for end in town)
    for form, rows in found.items():
        assert sorted([int(pid), comm, *map(int, rest)] for pid, comm, *rest in rows) == expected, form


def test_sorted_filtered_and_cut(
    run: Callable[..., Command], listings: Callable[..., list[str]], town: list[End], client: Actor
) -> None:
    sort = "--format json --sort"
    cut = run(*sort.split(), "tx", "--limit", 2)
    there, back, of_pid, of_port, of_comm, of_net = (
        objects(out)
        for out in listings(
            f"{sort} tx",
            f"{sort} -tx",
            f"{sort} pid --pid {client.pid}",
            f"{sort} pid --port 8080",
            f"{sort} pid -6 --comm other",
            f"{sort} pid --local 127.0.0.0/8",
        )
    )
    sent = sorted((end.sent for end in town), reverse=True)
    assert [row["tx_bytes"] for row in there] == sent
    assert [row["tx_bytes"] for row in back] == sent[::-1]
    out, err = cut.end()
    assert [row["tx_bytes"] for row in objects(out)] == sent[:2]
    assert f"pytracecon: {len(town) - 2} rows left out: there are more than --limit 2\n" in err
    assert "pytracecon: 2 rows in " in err

    def of(chosen: Callable[[End], bool]) -> list[int]:
        return sorted(end.local[1] for end in town if end.local and chosen(end))

    def ports(rows: list[dict[str, Any]]) -> list[int]:
        return sorted(row["local_port"] for row in rows)

    assert ports(of_pid) == of(lambda end: end.actor is client)
    assert ports(of_port) == of(lambda end: end.remote[1] == 8080)
    assert ports(of_comm) == of(lambda end: end.opened.comm == "other")
    assert ports(of_net) == of(lambda end: ":" not in end.remote[0])


def test_who_listens_and_how_full_the_backlog_is(
    listings: Callable[..., list[str]], network: Network, client: Actor, server: Actor
) -> None:
    """One more than its limit fits in; who comes then waits for an answer."""
    quiet, full = listen(server, "::1"), listen(server, backlog=2)
    attempts = [begin_connect(client, full.address) for _ in range(3)]
    assert not any(attempt.finish().error for attempt in attempts)
    begin_connect(client, full.address)
    in_json, table, others = listings("--listen --format json", "--listen", f"--format json --pid {client.pid}")
    rows = objects(in_json)
    told = {(row["local_addr"], row["local_port"]): (row["backlog"], row["backlog_limit"]) for row in rows}
    assert told == {quiet.address: (0, 64), full.address: (3, 2)}
    assert {(row["outcome"], row["state"], row["pid"]) for row in rows} == {("listening", "LISTEN", server.pid)}
    by_ss = {words[3]: (int(words[1]), int(words[2])) for words in ss(network, "-tl")}
    assert by_ss == {text(address): counts for address, counts in told.items()}
    header, *lines = table.splitlines()
    assert header.split() == ["PROTO", "PID", "COMM", "LOCAL", "BACKLOG", "LIMIT"]
    assert ["tcp", str(server.pid), "server", text(full.address), "3", "2"] in [line.split() for line in lines]
    states = [row["state"] for row in objects(others)]
    assert sorted(states) == ["ESTABLISHED", "ESTABLISHED", "ESTABLISHED", "SYN_SENT"]


def text(address: Address) -> str:
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


def test_a_datagram_socket_waits_for_others_or_has_another_end(
    listings: Callable[..., list[str]], network: Network, client: Actor, server: Actor
) -> None:
    there = udp(server, bound=("127.0.0.1", 5353))
    here = udp(client, to=there.address)
    connected, waiting, table = listings("--format json", "--listen --format json", "--listen")
    (talks,), (waits,) = objects(connected), objects(waiting)
    assert [(row["proto"], row["pid"], row["fd"]) for row in (talks, waits)] == [
        ("udp", client.pid, here.fd),
        ("udp", server.pid, there.fd),
    ]
    told = [("ESTABLISHED", text((talks["remote_addr"], talks["remote_port"])), talks), ("UNCONN", "0.0.0.0:*", waits)]
    assert sorted(of_ss(words) for words in ss(network, "-u")) == [
        (state, text((row["local_addr"], row["local_port"])), remote, row["pid"], row["fd"])
        for state, remote, row in told
    ]
    assert table.splitlines()[1].split() == ["udp", str(server.pid), "server", "127.0.0.1:5353"]


# --watch


def by_time(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
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
    command = run("--watch", 0.5, "--no-names", "--format", "json")
    rows = until(command, lambda rows: len(rows) == 2)
    brief = talk(client, listener, 512, 32_768)
    close(*brief)
    rows += until(command, lambda rows: sum(row["outcome"] == "closed" for row in rows) == 2)
    ended = rows[-1]["time"]
    rows += until(command, lambda rows: len(by_time(rows)) > 3)
    for end in brief:
        told = told_of([row for row in rows if row["outcome"] == "closed"], end)
        assert (told["tx_bytes"], told["rx_bytes"], told["time"]) == (end.sent, end.received, ended)
        assert (told["pid"], told["comm"]) == (end.actor.pid, end.opened.comm)
        assert told["duration_ns"] > 0
    assert not any(is_of(row, end) for row in rows for end in brief if row["time"] > ended)
    every = list(by_time(rows).values())[:-1]  # the last one may not be whole
    assert all(sum(is_of(row, end) for row in each) == 1 for each in every for end in lasting)


def test_a_conversation_of_datagrams_is_a_row_with_its_bytes_and_once_when_it_ends(
    run: Callable[..., Command], client: Actor, server: Actor
) -> None:
    there = udp(server, bound=("127.0.0.1", 5353))
    here = udp(client, bound=("127.0.0.1", 0), to=there.address)
    command = run("--watch", 0.3, "--no-names", "--proto", "udp", "--format", "json", "--pid", client.pid)
    command.await_tracing()
    here.send(512)
    there.hear()
    for _ in range(8):
        there.tell(4096, here.address)
        here.hear()
    counts = [512, 1, 32_768, 8]
    keys = ("tx_bytes", "tx_packets", "rx_bytes", "rx_packets")
    row = until(command, lambda rows: rows != [] and [rows[-1].get(key) for key in keys] == counts)[-1]
    assert (row["proto"], row["outcome"], row["local_port"], row["fd"]) == ("udp", "open", here.address[1], here.fd)
    here.close()
    ended = until(command, lambda rows: rows != [] and rows[-1]["outcome"] == "closed")[-1]
    assert [ended[key] for key in ("conn", *keys)] == [row["conn"], *counts]
    assert command.end(signal.SIGINT)[0] == ""


def test_an_mptcp_connection_is_a_row_with_its_paths_beneath(
    run: Callable[..., Command], network: Network, client: Actor, server: Actor
) -> None:
    if client.attempt("socket", 4, "mptcp").errno:
        pytest.skip("no MPTCP in this kernel")
    network.sysctl("net.mptcp.enabled", 1)
    commands = [run("--watch", 0.2, "--no-names", "--pid", client.pid, *words) for words in (["--format", "json"], [])]
    for command in commands:
        command.await_tracing()
    near, far = talk(client, listen(server, mptcp=True), 1000, 5000)
    *_, whole, path = until(
        commands[0], lambda rows: len(rows) > 1 and [row["rx_bytes"] for row in rows[-2:]] == [near.received] * 2
    )
    assert (whole["proto"], whole["tx_bytes"], whole["rx_bytes"]) == ("mptcp", near.sent, near.received)
    assert (path["proto"], path["subflow_of"], path["pid"]) == ("tcp", whole["conn"], client.pid)
    table = [""]
    while ("mptcp ", "  tcp ") not in pairwise(table) and len(table) < 100:
        table += [line[9:15] for line in commands[1].lines(1)]
    assert table[-2:] == ["mptcp ", "  tcp "]
    close(near, far)


def test_rates_are_what_went_since_the_listing_before(
    run: Callable[..., Command], client: Actor, server: Actor
) -> None:
    near, far = talk(client, listen(server), 10, 20)
    command = run("--watch", 0.4, "--no-names", "--format", "json", "--pid", client.pid)
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
    # A row is counted a little after its listing began.
    assert sent == pytest.approx(50_000, rel=0.25)
    assert received == pytest.approx(3000, rel=0.25)


def instant(time: str) -> float:
    return datetime.fromisoformat(time[:26]).timestamp()


def test_listings_come_by_the_clock_whether_there_is_anything_or_not(run: Callable[..., Command]) -> None:
    out, err = run("--watch", 0.2, "--count", 4).end()
    header, *lines = out.splitlines()
    assert header.split()[:3] == ["TIME", "PROTO", "STATE"]
    assert [line.split()[1:] for line in lines] == [["no", "connections"]] * 4
    assert re.search(r"^pytracecon: tracing TCP connections and UDP conversations \(\d+ probes", err)
    assert float(re.findall(r"0 rows in ([\d.]+) s, none lost", err)[0]) >= 0.6


def test_signals_duration_and_a_closed_pipe_end_it(run: Callable[..., Command], town: list[End]) -> None:
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    signalled = [run("--watch", 100, "--no-names", "--format", "json", "-v") for _ in numbers]
    timed = run("--watch", 100, "--no-names", "--format", "json", "--duration", "0.1")
    left = run("--watch", 0.2, "--no-names", "--format", "json")
    for command, number in zip(signalled, numbers, strict=True):
        assert len(objects("".join(command.lines(len(town))))) == len(town)
        out, err = command.end(number)
        assert out == ""
        assert f"{len(town)} rows in " in err
        assert_accounted(err)
    assert len(objects(timed.end()[0])) == len(town)
    left.lines(len(town))
    assert left.process.stdout
    left.process.stdout.close()
    left.process.stdout = None
    left.end()


def assert_accounted(said: str) -> None:
    (sums,) = [line.partition("; ")[2] for line in said.splitlines() if " events handed over = " in line]
    handed, parts = sums.split(" events handed over = ")
    assert int(handed) == sum(int(word) for word in parts.split() if word.isdigit())


def test_a_full_disk_is_said_and_a_file_holds_the_last_run_or_all(
    run: Callable[..., Command], listings: Callable[..., list[str]], town: list[End], tmp_path: Path
) -> None:
    with open("/dev/full", "w") as full:
        command = run("--format", "json", stdout=full)
    file = tmp_path / "flows.json"
    for words, times in (("", 1), ("", 1), ("-a", 2)):
        assert listings(f"--format json -o {file} {words}") == [""]
        assert len(objects(file.read_text())) == times * len(town)
    _, err = command.end(status=74)
    assert "standard output cannot be written: No space left on device" in err
    assert re.search(rf"0 rows in [\d.]+ s, {len(town)} lost \(output {len(town)}\)", err)
