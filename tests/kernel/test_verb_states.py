"""`pytracecon states` as a process: each row held against what the ends did.

Beside libbpf-tools' tcpstates as well: the same traffic under both, and the same changes. tcpstates names whoever runs
when a state changes, and a client's first port is 0 to it: so these are held against the traffic's own log.
"""

from __future__ import annotations

import csv
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest

from traffic.actor import Actor, Step
from traffic.end import End, connect, listen, pair
from traffic.network import Network
from traffic.peers import Ours, Peer, as_wide_as_ours, tracing

FOUR, SIX = "127.85.0.1", "fd00:85::1"
"""Addresses of no other test: tcpstates knows no namespaces, and sees all traffic of the machine."""

OPTIONS = ["", "-4", "-6", "-w", "-T", "-L 8085", "-D 8085", "-L 8085,8086", "-D 7,8086"]

FIELDS = ["SKADDR", "C-PID", "C-COMM", "IP", "LADDR", "LPORT", "RADDR", "RPORT", "OLDSTATE", "NEWSTATE", "MS"]

Row = list[str]
Ends = tuple[str, str, str, str]

OPENING = ["CLOSE SYN_SENT", "SYN_SENT ESTABLISHED"]
TAKING = ["LISTEN SYN_RECV", "SYN_RECV ESTABLISHED"]
FIRST = ["ESTABLISHED FIN_WAIT1", "FIN_WAIT1 FIN_WAIT2", "FIN_WAIT2 CLOSE"]
SECOND = ["ESTABLISHED CLOSE_WAIT", "CLOSE_WAIT LAST_ACK", "LAST_ACK CLOSE"]


@dataclass
class Life:
    """An end, and the states that it went through."""

    end: End
    changes: list[str]
    closed: tuple[int, int] = 0, 0
    """When it was closed (monotonic), where that is the end of its ESTABLISHED."""

    @property
    def ends(self) -> Ends:
        assert self.end.local
        return self.end.local[0], str(self.end.local[1]), self.end.remote[0], str(self.end.remote[1])

    @property
    def owner(self) -> Row:
        return [str(self.end.actor.pid), self.end.opened.comm]


@dataclass
class Town:
    network: Network
    client: Actor
    server: Actor

    def __post_init__(self) -> None:
        self.lives: list[Life] = []

    def traffic(self) -> None:
        """Closed by either end, reset and refused, in both families; and a listener that comes and goes."""
        for addr, port in ((FOUR, 8085), (SIX, 8086)):
            listener = listen(self.server, addr, port)
            self.close(*pair(self.client, listener))
            self.close(*reversed(pair(self.client, listener)))
            self.reset(*pair(self.client, listener))
            listener.close()
            refused = connect(self.client, (addr, 7), source=(addr, 4085))
            assert refused.error == "ECONNREFUSED"
            self.lives.append(Life(refused, ["CLOSE SYN_SENT", "SYN_SENT CLOSE"]))

    def close(self, first: End, second: End) -> None:
        closed = first.close()
        second.await_end()
        second.close()
        self.add(first, FIRST, closed)
        self.add(second, SECOND, closed)

    def reset(self, first: End, second: End) -> None:
        closed = first.reset()
        second.await_end()
        second.close()
        for end in (first, second):
            self.add(end, ["ESTABLISHED CLOSE"], closed)

    def add(self, end: End, changes: list[str], closed: Step) -> None:
        self.lives.append(Life(end, (OPENING if end.direction == "out" else TAKING) + changes, closed.mono))

    def tell(self, lines: list[str]) -> dict[str, list[str]]:
        """What each of these command lines writes about the traffic."""
        tools = {line: Ours("states", f"{line} --netns {self.network.path}") for line in lines}
        with tracing(tools.values()):
            self.traffic()
            return {line: tool.lines() for line, tool in tools.items()}


@pytest.fixture
def town(network: Network) -> Town:
    network.ip(f"address add {FOUR}/8 dev lo", f"address add {SIX}/128 dev lo nodad")
    return Town(network, network.actor("client"), network.actor("server"))


def by_ends(rows: list[Row]) -> dict[Ends, list[Row]]:
    """The rows of each end, in order."""
    found: dict[Ends, list[Row]] = {}
    for row in rows:
        arrow = row.index("->")
        laddr, lport, raddr, rport = row[arrow - 5 : arrow - 1]
        found.setdefault((laddr, lport, raddr, rport), []).append(row)
    return found


def of_connections(lines: list[str]) -> dict[Ends, list[Row]]:
    """Without those of listeners."""
    found = by_ends([line.split() for line in lines[1:]])
    return {ends: rows for ends, rows in found.items() if ends[3] not in ("-", "0")}


def changes(rows: list[Row]) -> list[str]:
    return [f"{row[row.index('->') - 1]} {row[row.index('->') + 1]}" for row in rows]


def spent(row: Row) -> float:
    return float(row[row.index("->") + 2])


def assert_told(lines: list[str], lives: list[Life], *, before: int = 0) -> None:
    """Each change of each of these ends, with its owner and its ports; `before`: so many cells stand in front."""
    told = of_connections(lines)
    assert {ends: changes(rows) for ends, rows in told.items()} == {life.ends: life.changes for life in lives}
    for life in lives:
        rows = told[life.ends]
        assert [row[before + 1 : before + 3] for row in rows] == [life.owner] * len(rows)
        assert len({row[before] for row in rows}) == 1, "the connection is the same in all its rows"


@pytest.mark.slow(reason="what the kernel tells, test_states.py holds against the ends and its counts")
def test_a_row_for_each_change_of_each_end(town: Town) -> None:
    lines = town.tell([""])[""]
    assert lines[0].split() == [
        "SKADDR",
        "C-PID",
        "C-COMM",
        "LADDR",
        "LPORT",
        "RADDR",
        "RPORT",
        "OLDSTATE",
        "->",
        "NEWSTATE",
        "MS",
    ]
    assert_told(lines, town.lives)
    told = of_connections(lines)
    assert len({row[0] for rows in told.values() for row in rows}) == len(town.lives), "and each has its own"
    for life in town.lives:
        first, outcome, *rest = told[life.ends]
        opened = life.end.opened.mono
        assert spent(first) == 0
        if life.end.direction == "out":
            assert 0 < spent(outcome) <= (opened[1] - opened[0]) / 1e6
        if rest and life.end.direction == "out":
            assert (life.closed[0] - opened[1]) / 1e6 - 0.001 <= spent(rest[0])
            assert spent(rest[0]) <= (life.closed[1] - opened[0]) / 1e6 + 0.001


@pytest.mark.slow(reason="what the kernel tells, test_states.py holds against the ends")
def test_listeners_have_rows_of_their_own(town: Town) -> None:
    lines = town.tell([""])[""]
    rows = [line.split() for line in lines[1:]]
    told = {ends: rows for ends, rows in by_ends(rows).items() if ends[3] == "-"}
    assert {ends: changes(rows) for ends, rows in told.items()} == {
        (FOUR, "8085", "-", "-"): ["CLOSE LISTEN", "LISTEN CLOSE"],
        (SIX, "8086", "-", "-"): ["CLOSE LISTEN", "LISTEN CLOSE"],
    }
    assert {tuple(row[1:3]) for rows in told.values() for row in rows} == {(str(town.server.pid), "server")}


@pytest.mark.slow(reason="starts a Python for each option, that no kernel has a say in")
def test_each_of_its_options(town: Town) -> None:
    by_pid = f"-p {town.client.pid}"
    lines = ["-t", "-T", "-w", "-4", "-6", by_pid, "-L 8085", "-D 8085,7", "-s", "-stT", "--meaning", "--show uid"]
    wrote = town.tell(lines)
    every = town.lives
    assert_told(wrote["-t"], every, before=1)
    assert_told(wrote["-T"], every, before=1)
    assert_told(wrote["-w"], every)
    assert_told(wrote["-4"], [life for life in every if ":" not in life.ends[0]])
    assert_told(wrote["-6"], [life for life in every if ":" in life.ends[0]])
    assert_told(wrote[by_pid], [life for life in every if life.end.actor is town.client])
    assert_told(wrote["-L 8085"], [life for life in every if life.ends[1] == "8085"])
    assert_told(wrote["-D 8085,7"], [life for life in every if life.ends[3] in ("8085", "7")])
    assert_told(wrote["--show uid"], every)
    assert {line.split()[-1] for line in wrote["--show uid"][1:]} == {str(town.client.uid)}
    assert all(datetime.strptime(line.split()[0], "%H:%M:%S").astimezone() for line in wrote["-T"][1:])
    for rows in of_connections(wrote["-t"]).values():
        for before, after in pairwise(rows):
            assert abs((float(after[0]) - float(before[0])) * 1000 - spent(after)) < 0.05, "the steps of its clock"
    assert_csv(wrote["-s"], every, in_front=[])
    assert_csv(wrote["-stT"], every, in_front=["TIME", "TIME(s)"])
    assert_meanings(wrote["--meaning"], every)


def assert_csv(lines: list[str], lives: list[Life], *, in_front: list[str]) -> None:
    header, *rows = csv.reader(lines)
    assert header == in_front + FIELDS
    told: dict[Ends, list[dict[str, str]]] = {}
    for row in rows:
        cells = dict(zip(header, row, strict=True))
        if cells["RPORT"]:
            ends = cells["LADDR"], cells["LPORT"], cells["RADDR"], cells["RPORT"]
            told.setdefault(ends, []).append(cells)
    assert told.keys() == {life.ends for life in lives}
    for life in lives:
        own = told[life.ends]
        assert [f"{cells['OLDSTATE']} {cells['NEWSTATE']}" for cells in own] == life.changes
        assert {(cells["C-PID"], cells["C-COMM"]) for cells in own} == {tuple(life.owner)}
        assert {cells["IP"] for cells in own} == {"6" if ":" in life.ends[0] else "4"}


def assert_meanings(lines: list[str], lives: list[Life]) -> None:
    told = of_connections(lines)
    for life in lives:
        words = [row[-1] for row in told[life.ends] if len(row) > row.index("->") + 3]
        if life.end.error:
            assert words == ["open", "refused"]
        else:
            assert words == ["open", f"closed_by_{'client' if closes_first(life) else 'server'}"]


def closes_first(life: Life) -> bool:
    """The client, who alone resets."""
    if life.changes[2] == "ESTABLISHED CLOSE":
        return True
    return (life.changes[2:] == FIRST) == (life.end.direction == "out")


@pytest.mark.slow(reason="what the kernel tells, test_states.py holds against the ends")
def test_the_journal_has_an_entry_for_each_change(town: Town, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "socket"))
        journal.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        journal.setblocking(False)
        with tracing([tool := Ours("states", f"-Y --journal-socket {tmp_path}/socket --netns {town.network.path}")]):
            listener = listen(town.server, FOUR, 8085)
            town.close(*pair(town.client, listener))
            assert tool.lines() == []
        entries = list(received(journal))
    for life in town.lives:
        own = [entry for entry in entries if entry.get("OBJECT_TCP_DESTINATION_PORT") == life.ends[3]]
        told = [f"{entry['OBJECT_TCP_OLD_STATE']} {entry['OBJECT_TCP_NEW_STATE']}" for entry in own]
        assert told == life.changes
        assert {entry["OBJECT_PID"] for entry in own} == {life.owner[0]}
        assert {entry["OBJECT_TCP_SOURCE_PORT"] for entry in own} == {life.ends[1]}


def received(journal: socket.socket) -> Iterator[dict[str, str]]:
    """All that has come."""
    while True:
        try:
            data = journal.recv(1 << 16)
        except BlockingIOError:
            return
        yield dict(line.split("=", 1) for line in data.decode().splitlines())


# Beside tcpstates


@pytest.mark.slow(reason="in older kernels the peer knows no remote end of a child's first state")
def test_the_changes_are_those_of_tcpstates(town: Town) -> None:
    assert_same_changes(town, [""])


@pytest.mark.slow(reason="starts a Python and tcpstates for each option")
def test_so_they_are_with_every_option(town: Town) -> None:
    assert_same_changes(town, OPTIONS)


def assert_same_changes(town: Town, lines: list[str]) -> None:
    sides = {line: (Peer("tcpstates", line), Ours("states", line)) for line in lines}
    with tracing(tool for both in sides.values() for tool in both):
        town.traffic()
        told = {line: (theirs.lines(), ours.lines()) for line, (theirs, ours) in sides.items()}
    for line, (theirs, ours) in told.items():
        assert ours[0].replace("C-PID  ", "PID    ").replace("C-COMM", "COMM  ").split() == [
            "TIME" if name == "TIME(s)" else name for name in theirs[0].split()
        ]
        if line != "-w" or as_wide_as_ours("tcpstates"):
            assert ours[0].index("LADDR") == theirs[0].index("LADDR"), "the columns are as wide"
            assert ours[0].index("MS") == theirs[0].index("MS")
        their_rows, our_rows = by_ends(comparable(theirs)), by_ends(comparable(ours))
        assert our_rows.keys() == their_rows.keys(), line
        assert their_rows, line
        for ends, rows in their_rows.items():
            assert changes(our_rows[ends]) == changes(rows), line
            for our, their in zip(our_rows[ends], rows, strict=True):
                # Two programs, one after the other: in a guest, the processor may be away in between.
                assert abs(spent(our) - spent(their)) < 5 + spent(their) / 10, (our, their)


def comparable(lines: list[str]) -> list[Row]:
    """The rows of these addresses. The port that tcpstates does not know yet is that of the same socket's next row."""
    rows = [row for row in (line.split() for line in lines[1:]) if {FOUR, SIX} & set(row)]
    for at, row in enumerate(rows):
        arrow = row.index("->")
        nothing = {"-", "0.0.0.0", "::", "0"}
        row[arrow - 3 : arrow - 1] = ["-" if cell in nothing else cell for cell in row[arrow - 3 : arrow - 1]]
        if row[arrow - 4] == "0":
            socket = next(cell for cell in row if len(cell) == 16)
            later = next(each for each in rows[at + 1 :] if socket in each)
            row[arrow - 5 : arrow - 3] = later[later.index("->") - 5 : later.index("->") - 3]
    return rows
