"""`pytracecon life` beside libbpf-tools' tcplife: the same traffic under both, and the same rows.

tcplife remembers who connected. Of an accepted connection it names whoever runs when a FIN is sent or TCP is done,
which on loopback may be the client. So its pids are compared for the clients' ends; ours are held against the
traffic's own log, all of them.
"""

from __future__ import annotations

import time

import pytest

from traffic.end import End, close, listen, pair
from traffic.network import Network
from traffic.peers import Ours, Peer, as_wide_as_ours, tracing

FOUR, SIX = "127.83.0.1", "fd00:83::1"
"""Addresses of no other test: tcplife knows no namespaces, and sees all traffic of the machine."""

OPTIONS = ["", "-4", "-6", "-w", "-T", "-L 8083", "-D 8083", "-L 8083,8084", "-D 1,8084"]

Ports = tuple[str, str, str, str]


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


def meet(network: Network) -> list[End]:
    """Both ends of each connection."""
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
            close(*((near, far) if client_first else (far, near)))
            ends += [near, far]
    return ends


def test_the_rows_are_those_of_tcplife(network: Network) -> None:
    assert_same_rows(network, [""])


@pytest.mark.slow(reason="starts a Python and tcplife for each option")
def test_so_they_are_with_every_option(network: Network) -> None:
    assert_same_rows(network, OPTIONS)


def assert_same_rows(network: Network, lines: list[str]) -> None:
    sides = {line: (Peer("tcplife", line), Ours("life", line)) for line in lines}
    with tracing(tool for both in sides.values() for tool in both):
        ends = meet(network)
        told = {line: (theirs.lines(), ours.lines()) for line, (theirs, ours) in sides.items()}
    for line, (theirs, ours) in told.items():
        if line in ("", "-w"):
            assert theirs[0].split() == ours[0].split(), "the headers are the same"
        if line == "" or (line == "-w" and as_wide_as_ours("tcplife")):
            assert theirs[0] == ours[0], "and as wide"
        wanted = {ports(end): end for end in ends if chosen(line, end)}
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
