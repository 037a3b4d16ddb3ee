"""The verbs with namesakes, as processes: every option of theirs at once, under the same traffic."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path

import pytest

from pytracecon.outputs.keys import all_keys
from pytracecon.wire import PARENTS
from traffic.actor import DEADLINE, Actor
from traffic.end import End, close, connect, listen, pair
from traffic.naming import visit
from traffic.network import Network
from traffic.resolver import Place

TOP = Path(__file__).parents[2]

pytestmark = pytest.mark.slow(reason="starts a Python for each option, that no kernel has a say in")

Rows = list[list[str]]


def told(path: str, lines: Iterable[str], traffic: Callable[[], object]) -> dict[str, list[str]]:
    """What each of these command lines writes about the traffic in a network namespace."""
    commands = {line: start(path, line) for line in lines}
    try:
        for line, command in commands.items():
            assert command.stderr
            said = [command.stderr.readline()]
            while not said[-1].startswith("pytracecon: tracing"):
                assert said[-1], f"{line}: ended before it traced anything: {said}"
                said.append(command.stderr.readline())
        traffic()
        for command in commands.values():
            command.send_signal(signal.SIGINT)
        wrote = {line: command.communicate(timeout=DEADLINE) for line, command in commands.items()}
        assert {line: command.returncode for line, command in commands.items()} == dict.fromkeys(commands, 0), wrote
        assert all("none lost" in err for _, err in wrote.values()), wrote
        return {line: out.splitlines() for line, (out, _) in wrote.items()}
    finally:
        for command in commands.values():
            command.kill()
            command.communicate()


def start(path: str, line: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pytracecon", *line.split(), "--netns", path]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=TOP)


def rows(lines: list[str]) -> Rows:
    """Behind the header."""
    return [line.split() for line in lines[1:]]


@dataclass
class Town:
    """Two servers, on 8080 of IPv4 and 9090 of IPv6; Alice, and Bob, an ordinary user."""

    network: Network
    web: Actor
    database: Actor
    alice: Actor
    bob: Actor

    def traffic(self) -> None:
        """Alice goes twice to the web and once to the database, where Bob goes too; then she is refused."""
        web, database = listen(self.web, port=8080), listen(self.database, "::1", 9090)
        self.pairs = []
        for client, listener in ((self.alice, web), (self.alice, web), (self.alice, database), (self.bob, database)):
            near, far = pair(client, listener)
            near.send(5000)
            far.receive_all()
            far.send(70_000 if client is self.bob else 3)
            near.receive_all()
            close(*((far, near) if client is self.bob else (near, far)))
            self.pairs.append((near, far))
        self.refused = connect(self.alice, ("127.0.0.1", 7), source=("127.0.0.1", 4000))
        assert self.refused.error == "ECONNREFUSED"

    @property
    def nears(self) -> list[End]:
        return [near for near, _ in self.pairs]

    @property
    def fars(self) -> list[End]:
        return [far for _, far in self.pairs]

    def tell(self, verb: str, lines: Iterable[str]) -> dict[str, list[str]]:
        wrote = told(self.network.path, (f"{verb} {line}" for line in lines), self.traffic)
        return {line.removeprefix(verb).strip(): out for line, out in wrote.items()}


@pytest.fixture
def town(network: Network) -> Town:
    actors = {name: network.actor(name) for name in ("web", "database", "alice", "bob")}
    actors["bob"].set_user(4711)
    return Town(network, **actors)


def ip(end: End) -> str:
    return "6" if ":" in end.remote[0] else "4"


def milliseconds(ns: int) -> float:
    return ns / 1e6


def assert_times(seen: Rows, ends: list[End]) -> None:
    """Seconds since the first, as the actors' own clocks have them."""
    first = ends[0]
    for row, end in zip(seen, ends, strict=True):
        least = 0 if end is first else (end.opened.mono[0] - first.opened.mono[1]) / 1e9
        most = 0 if end is first else (end.opened.mono[1] - first.opened.mono[0]) / 1e9
        assert least - 0.001 <= float(row[0]) <= most + 0.001


# connect


def attempt(end: End, *, uid: bool = False, lport: bool = False) -> list[str]:
    assert end.local
    cells = [str(end.actor.uid)] if uid else []
    cells += [str(end.actor.pid), end.opened.comm, ip(end), end.local[0]]
    return [*cells, *([str(end.local[1])] if lport else []), end.remote[0], str(end.remote[1])]


def test_connect_and_each_of_its_options(town: Town) -> None:
    by_pid = f"-p {town.alice.pid}"
    lines = ["", "-t", by_pid, "-P 80,9090", "-4", "-6", "-L", "-U", "-u 4711", "-c", "--failed", "--all"]
    wrote = town.tell("connect", [*lines, "--format json", "--format csv"])
    every = [*town.nears, town.refused]
    assert wrote[""][0] == "PID    COMM         IP SADDR            DADDR            DPORT"
    assert rows(wrote[""]) == [attempt(end) for end in every]
    assert [row[1:] for row in rows(wrote["-t"])] == [attempt(end) for end in every]
    assert_times(rows(wrote["-t"]), every)
    assert rows(wrote[by_pid]) == [attempt(end) for end in every if end.actor is town.alice]
    assert rows(wrote["-P 80,9090"]) == [attempt(end) for end in every if end.remote[1] == 9090]
    assert rows(wrote["-4"]) == [attempt(end) for end in every if ip(end) == "4"]
    assert rows(wrote["-6"]) == [attempt(end) for end in every if ip(end) == "6"]
    assert rows(wrote["-L"]) == [attempt(end, lport=True) for end in every]
    assert rows(wrote["-U"]) == [attempt(end, uid=True) for end in every]
    assert rows(wrote["-u 4711"]) == [attempt(end) for end in every if end.actor is town.bob]
    failed = [*attempt(town.refused), "ECONNREFUSED", "refused"]
    assert rows(wrote["--failed"]) == [failed]
    assert rows(wrote["--all"]) == [*(attempt(end) for end in every), failed]
    counts = rows(wrote["-c"])
    assert [row[3] for row in counts] == ["2", "2", "1"]
    assert {tuple(row) for row in counts} == {
        ("127.0.0.1", "127.0.0.1", "8080", "2"),
        ("::1", "::1", "9090", "2"),
        ("127.0.0.1", "127.0.0.1", "7", "1"),
    }
    assert_formats(wrote, "connect", len(every))


def assert_formats(wrote: dict[str, list[str]], event: str, count: int) -> None:
    """JSON and CSV have the events of the rows, with all that is known of them."""
    events = [json.loads(line) for line in wrote["--format json"]]
    assert [each["event"] for each in events] == [event] * count
    assert all({"conn", "netns", "pid", "comm", "uid", "remote_addr"} <= each.keys() for each in events)
    header, *cells = wrote["--format csv"]
    assert header.split(",") == ["time", "event", *all_keys()]
    assert len(cells) == count


def wait_after(step_end: int, ns: int) -> None:
    """Until so much of the clock is over: time itself is what is told of here."""
    while (left := step_end + ns - time.monotonic_ns()) > 0:
        time.sleep(left / 1e9)


def test_connect_tells_the_name_that_was_asked_for_and_how_long_ago(place: Place) -> None:
    client, bare = place.actor("client"), place.actor("bare")
    ends: list[End] = []

    def traffic() -> None:
        step = client.do("lookup", "one.test", 4, 1)
        ends.append(visit(client, place.web, "127.0.0.11"))
        wait_after(step.mono[1], 120_000_000)
        ends.append(visit(client, place.web, "127.0.0.11"))
        ends.append(visit(bare, place.web, "127.0.0.12"))
        ends.append(visit(bare, place.web, "fd00:7::2"))
        second = ends[1].opened
        bounds[:] = [milliseconds(second.mono[0] - step.mono[1]), milliseconds(second.mono[1] - step.mono[0])]

    bounds: list[float] = []
    wrote = told(place.path, ["connect -d"], traffic)["connect -d"]
    seen = [line.split(None, 6) for line in wrote[1:] if line.split()[0] in {str(client.pid), str(bare.pid)}]
    assert [row[:6] for row in seen] == [attempt(end) for end in ends]
    queries = [row[6] for row in seen]
    assert queries[0].split()[0] == "one.test"
    name, _, ago = queries[1].partition(" (")
    assert (name, ago[-3:]) == ("one.test", "ms)")
    assert bounds[0] <= float(ago[:-3]) <= bounds[1]
    assert queries[2:] == ["localhost", "No DNS Query"]


# accept


def accepted(end: End) -> list[str]:
    assert end.local
    near = [end.local[0], str(end.local[1])]
    return [str(end.actor.pid), end.opened.comm, ip(end), end.remote[0], str(end.remote[1]), *near]


def test_accept_and_each_of_its_options(town: Town) -> None:
    by_pid = f"-p {town.web.pid}"
    lines = ["", "-t", "-T", by_pid, "-P 80,9090", "-4", "-6", "--wait"]
    begun = datetime.now().astimezone().replace(microsecond=0)
    wrote = town.tell("accept", [*lines, "--format json", "--format csv"])
    every = town.fars
    assert wrote[""][0] == "PID    COMM         IP RADDR            RPORT LADDR            LPORT"
    assert rows(wrote[""]) == [accepted(end) for end in every]
    assert [row[1:] for row in rows(wrote["-t"])] == [accepted(end) for end in every]
    assert_times(rows(wrote["-t"]), every)
    assert [row[1:] for row in rows(wrote["-T"])] == [accepted(end) for end in every]
    for row in rows(wrote["-T"]):
        seconds = (datetime.strptime(row[0], "%H:%M:%S").astimezone() - begun.replace(1900, 1, 1)).total_seconds()
        assert 0 <= seconds % 86400 <= 120
    assert rows(wrote[by_pid]) == [accepted(end) for end in every if end.actor is town.web]
    assert rows(wrote["-P 80,9090"]) == [accepted(end) for end in every if end.actor is town.database]
    assert rows(wrote["-4"]) == [accepted(end) for end in every if ip(end) == "4"]
    assert rows(wrote["-6"]) == [accepted(end) for end in every if ip(end) == "6"]
    assert [row[:-1] for row in rows(wrote["--wait"])] == [accepted(end) for end in every]
    for row, (near, far) in zip(rows(wrote["--wait"]), town.pairs, strict=True):
        assert milliseconds(far.opened.mono[0] - near.opened.mono[1]) - 0.01 <= float(row[-1])
        assert float(row[-1]) <= milliseconds(far.opened.mono[1] - near.opened.mono[0]) + 0.01
    assert_formats(wrote, "accept", len(every))


# latency


def test_latency_and_each_of_its_options(town: Town) -> None:
    by_pid = f"-p {town.alice.pid}"
    lines = ["", "-t", by_pid, "-L", "-4", "-6", "0.001", "80000000", "--failed", "--all"]
    lines += ["--histogram", "--histogram --by host", "--format json", "--format csv"]
    wrote = town.tell("latency", lines)
    every = town.nears
    assert wrote[""][0] == "PID    COMM         IP SADDR            DADDR            DPORT LAT(ms)"
    for row, end in zip(rows(wrote[""]), every, strict=True):
        assert row[:-1] == attempt(end)
        assert 0 < float(row[-1]) <= milliseconds(end.opened.mono[1] - end.opened.mono[0]) + 0.01
    assert [row[1:-1] for row in rows(wrote["-t"])] == [attempt(end) for end in every]
    assert_times(rows(wrote["-t"]), every)
    assert [row[:-1] for row in rows(wrote[by_pid])] == [attempt(end) for end in every if end.actor is town.alice]
    assert [row[:-1] for row in rows(wrote["-L"])] == [attempt(end, lport=True) for end in every]
    assert [row[:-1] for row in rows(wrote["-4"])] == [attempt(end) for end in every if ip(end) == "4"]
    assert [row[:-1] for row in rows(wrote["-6"])] == [attempt(end) for end in every if ip(end) == "6"]
    assert [row[:-1] for row in rows(wrote["0.001"])] == [attempt(end) for end in every]
    assert rows(wrote["80000000"]) == []
    (refused,) = rows(wrote["--failed"])
    assert [*refused[:-2], refused[-1]] == [*attempt(town.refused), "refused"]
    assert [row[-1] for row in rows(wrote["--all"])] == ["established"] * len(every) + ["refused"]
    assert spread(wrote["--histogram"]) == {"": len(every)}
    assert spread(wrote["--histogram --by host"]) == {"127.0.0.1": 2, "::1": 2}
    assert_formats(wrote, "established", len(every))


def spread(lines: list[str]) -> dict[str, int]:
    """How many latencies each histogram tells of."""
    found: dict[str, int] = {}
    title = ""
    for line in lines:
        if line.startswith("host = "):
            title = line.removeprefix("host = ")
        elif "->" in line:
            found[title] = found.get(title, 0) + int(line.split(":")[1].split()[0])
    return found


def test_latency_tells_what_the_resolver_took(place: Place) -> None:
    client, bare = place.actor("client"), place.actor("bare")
    bounds: list[int] = []

    def traffic() -> None:
        step = client.do("lookup", "one.test", 4, 1)
        bounds.append(step.mono[1] - step.mono[0])
        visit(client, place.web, "127.0.0.11")
        visit(bare, place.web, "127.0.0.11")

    wrote = told(place.path, ["latency --resolver", "latency --histogram --by host"], traffic)
    named, nameless = (row for row in rows(wrote["latency --resolver"]) if row[0] in {str(client.pid), str(bare.pid)})
    assert named[-1] == "one.test"
    assert 0 < float(named[-2]) <= milliseconds(bounds[0])
    assert nameless[-1] == "-"
    assert spread(wrote["latency --histogram --by host"]) == {"one.test": 1, "127.0.0.11": 1}


# life


def lived(end: End) -> list[str]:
    assert end.local
    near = [end.local[0], str(end.local[1])]
    return [str(end.actor.pid), end.opened.comm, *near, end.remote[0], str(end.remote[1])]


def by_row(ends: Iterable[End]) -> Rows:
    return sorted(lived(end) for end in ends)


def test_life_and_each_of_its_options(town: Town) -> None:
    by_pid = f"-p {town.bob.pid}"
    lines = ["", "-t", "-T", by_pid, "-L 80,9090", "-D 80,9090", "-4", "-6", "-w", "--bytes", "--how"]
    wrote = town.tell("life", [*lines, "--format json", "--format csv"])
    every = [end for both in town.pairs for end in both]
    assert wrote[""][0] == "PID     COMM             LADDR           LPORT RADDR           RPORT TX_KB  RX_KB  MS"
    assert sorted(row[:6] for row in rows(wrote[""])) == by_row(every)
    assert sorted(row[1:7] for row in rows(wrote["-t"])) == by_row(every)
    assert sorted(row[1:7] for row in rows(wrote["-T"])) == by_row(every)
    assert rows(wrote["-t"])[0][0] == "0.000000"
    assert all(0 <= float(row[0]) < DEADLINE for row in rows(wrote["-t"]))
    assert all(datetime.strptime(row[0], "%H:%M:%S").astimezone() for row in rows(wrote["-T"]))
    assert sorted(row[:6] for row in rows(wrote[by_pid])) == by_row(end for end in every if end.actor is town.bob)
    at_database = by_row(end for end in every if end.local and end.local[1] == 9090)
    assert sorted(row[:6] for row in rows(wrote["-L 80,9090"])) == at_database
    to_database = by_row(end for end in every if end.remote[1] == 9090)
    assert sorted(row[:6] for row in rows(wrote["-D 80,9090"])) == to_database
    assert sorted(row[:6] for row in rows(wrote["-4"])) == by_row(end for end in every if ip(end) == "4")
    assert sorted(row[:6] for row in rows(wrote["-6"])) == by_row(end for end in every if ip(end) == "6")
    assert wrote["-w"][0].index("LPORT") == wrote[""][0].index("LPORT") + 11
    assert sorted(row[:8] for row in rows(wrote["-w"])) == sorted(row[:8] for row in rows(wrote[""]))
    ends = {tuple(lived(end)): end for end in every}
    for row in rows(wrote[""]):
        end = ends[tuple(row[:6])]
        assert row[6:8] == [f"{end.sent / 1024:.2f}", f"{end.received / 1024:.2f}"]
        assert 0 < float(row[8]) <= milliseconds(time.monotonic_ns() - end.opened.mono[0])
    for row in rows(wrote["--bytes"]):
        end = ends[tuple(row[:6])]
        assert row[6:9] == [str(end.sent), str(end.sent), str(end.received)]
    for row in rows(wrote["--how"]):
        end = ends[tuple(row[:6])]
        first = (end.direction == "out") != (
            end.actor is town.bob or end.remote in [near.local for near in by_bob(town)]
        )
        assert row[9:11] == ["local_close" if first else "remote_close", str(end.resent)]
        assert float(row[11]) > 0
    assert_formats(wrote, "close", len(every))


def by_bob(town: Town) -> list[End]:
    return [near for near in town.nears if near.actor is town.bob]


# --show


def test_every_verb_shows_any_keys_of_an_owner(place: Place) -> None:
    """What these processes are is the same all the time, so /proc tells it as well."""
    client = place.actor("client")

    def traffic() -> None:
        client.do("lookup", "one.test", 4, 1)
        visit(client, place.web, "127.0.0.11")

    shown = "--show exe,exe_source,parents,args"
    verbs = {"trace": 5, "connect": 1, "accept": 1, "latency": 1, "life": 2, "lookups": 1}
    wrote = told(place.path, [f"{verb} {shown}" for verb in verbs], traffic)
    owners = {str(actor.pid): shown_of(actor.pid) for actor in (client, place.web.actor)}
    for verb, count in verbs.items():
        header, *found = wrote[f"{verb} {shown}"]
        assert {"EXE", "EXE_SOURCE", "PARENTS", "ARGS"} < set(header.split())
        own = [(row, owners[pid]) for row in found for pid in owners.keys() & set(row.split()[:2])]
        assert len(own) == count, (verb, found)
        assert all(cells in " ".join(row.split()) for row, cells in own), (verb, found, owners)


def shown_of(pid: int) -> str:
    """The four cells, of a process that is older than the tracer."""
    proc = Path(f"/proc/{pid}")
    arguments = shlex.join(proc.joinpath("cmdline").read_text().split("\0")[:-1])
    parents = ",".join(map(str, islice(parents_of(pid), PARENTS)))
    return f"{proc.joinpath('exe').readlink()} proc {parents} {arguments}"


def parents_of(pid: int) -> Iterator[int]:
    """Nearest first."""
    while pid > 1:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        pid = next(int(line.split()[1]) for line in lines if line.startswith("PPid:"))
        yield pid
