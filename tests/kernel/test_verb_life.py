"""`pytracecon life` beside libbpf-tools' tcplife: the same traffic under both, and the same rows.

tcplife remembers who connected. Of an accepted connection it names whoever runs when a FIN is sent or TCP is done,
which on loopback may be the client. So its pids are compared for the clients' ends; ours are held against the
traffic's own log, all of them.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from traffic.actor import DEADLINE
from traffic.end import End, close, listen, pair
from traffic.network import Network

TOP = Path(__file__).parents[2]
FOUR, SIX = "127.83.0.1", "fd00:83::1"
"""Addresses of no other test: tcplife knows no namespaces, and sees all traffic of the machine."""

pytestmark = pytest.mark.slow(reason="starts a Python and tcplife for each option")

OPTIONS = ["", "-4", "-6", "-w", "-T", "-L 8083", "-D 8083", "-L 8083,8084", "-D 1,8084"]

Ports = tuple[str, str, str, str]


class Peer:
    """A tcplife that has attached. It needs tracefs, and gets one that nobody else sees."""

    def __init__(self, line: str) -> None:
        mount = 'mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing; exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", mount, "sh", "tcplife", *line.split()]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def await_ready(self) -> None:
        """What it polls is made after it has attached; nothing tells of it, so look again."""
        deadline = time.monotonic() + DEADLINE
        while "anon_inode:[eventpoll]" not in descriptors(self.process.pid):
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, "tcplife does not get ready"
            time.sleep(0.005)


class Ours:
    """`pytracecon life` with the same options."""

    def __init__(self, line: str) -> None:
        command = [sys.executable, "-m", "pytracecon", "life", *line.split()]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=TOP)

    def await_ready(self) -> None:
        assert self.process.stderr
        said = [self.process.stderr.readline()]
        while not said[-1].startswith("pytracecon: tracing"):
            assert said[-1], said
            said.append(self.process.stderr.readline())


def descriptors(pid: int) -> list[str]:
    found = []
    for descriptor in list(Path(f"/proc/{pid}/fd").iterdir()):
        with suppress(FileNotFoundError):  # it has just been closed
            found.append(str(descriptor.readlink()))
    return found


def lines_of(side: Peer | Ours) -> list[str]:
    side.process.send_signal(signal.SIGINT)
    out, err = side.process.communicate(timeout=DEADLINE)
    assert side.process.returncode == 0, err
    return out.splitlines()


def by_ports(lines: list[str]) -> dict[Ports, list[str]]:
    """The rows of this test's addresses, without a time of day, by address and port."""
    found = {}
    for line in lines[1:]:
        row = line.split()[-9:]
        if len(row) == 9 and {row[2], row[4]} <= {FOUR, SIX}:
            found[row[2], row[3], row[4], row[5]] = row
    return found


def ports(end: End) -> Ports:
    assert end.local
    return end.local[0], str(end.local[1]), end.remote[0], str(end.remote[1])


@pytest.fixture
def network(network: Network) -> Network:
    network.ip(f"address add {FOUR}/8 dev lo", f"address add {SIX}/128 dev lo nodad")
    return network


def meet(network: Network) -> list[tuple[End, End]]:
    """Both ends of each connection, the end first that closes first: the client's, then the server's."""
    client, server = network.actor("near"), network.actor("far")
    ends = []
    for addr, port in ((FOUR, 8083), (SIX, 8084)):
        listener = listen(server, addr, port)
        for client_first, sent, answered in ((True, 5000, 70_000), (False, 3, 12_345), (True, 0, 0)):
            near, far = pair(client, listener, source=(addr, 0))
            near.send(sent)
            far.receive_all()
            far.send(answered)
            near.receive_all()
            while time.monotonic_ns() < near.opened.mono[1] + 30_000_000:  # time itself is what is told of
                time.sleep(0.001)
            both = (near, far) if client_first else (far, near)
            close(*both)
            ends.append(both)
    return ends


def test_the_rows_are_those_of_tcplife(network: Network) -> None:
    with ExitStack() as stack:
        sides = {line: (Peer(line), Ours(line)) for line in OPTIONS}
        for side in (each for both in sides.values() for each in both):
            stack.callback(side.process.communicate)
            stack.callback(side.process.kill)
        for side in (each for both in sides.values() for each in both):
            side.await_ready()
        ends = meet(network)
        told = {line: tuple(lines_of(side) for side in both) for line, both in sides.items()}
    assert told[""][0][0] == told[""][1][0], "the headers are the same"
    assert told["-w"][0][0] == told["-w"][1][0]
    for line, (theirs, ours) in told.items():
        wanted = {ports(end): end for both in ends for end in both if chosen(line, end)}
        their_rows, our_rows = by_ports(theirs), by_ports(ours)
        assert their_rows.keys() == our_rows.keys() == wanted.keys(), line
        for key, end in wanted.items():
            assert our_rows[key][:2] == [str(end.actor.pid), end.opened.comm], line
            assert_agree(their_rows[key], our_rows[key])
            if end.direction == "out":
                assert their_rows[key][:2] == our_rows[key][:2], line


def chosen(line: str, end: End) -> bool:
    """Whether these options let this end through."""
    assert end.local
    option, _, numbers = line.partition(" ")
    match option:
        case "-4":
            return ":" not in end.remote[0]
        case "-6":
            return ":" in end.remote[0]
        case "-L":
            return str(end.local[1]) in numbers.split(",")
        case "-D":
            return str(end.remote[1]) in numbers.split(",")
    return True


def assert_agree(theirs: list[str], ours: list[str]) -> None:
    """KB to the last digit but one, as tcplife counts the SYN and the FIN among the bytes; and the lifetime."""
    for column in (6, 7):
        assert abs(float(theirs[column]) - float(ours[column])) < 0.011, (theirs, ours)
    assert abs(float(theirs[8]) - float(ours[8])) < 5, (theirs, ours)
    assert float(ours[8]) >= 30
