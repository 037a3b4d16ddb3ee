"""Beside programs that know it too: `ss` says what is open, and iperf3 what it sent."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pytracecon import Connection, Tracer
from traffic.end import LOOPBACK, connect, listen, pair
from traffic.listed import facts
from traffic.network import Network

pytestmark = pytest.mark.slow(reason="hundreds of connections, and programs that run for seconds")

IPERF = Path(__file__).parents[2] / "build" / "iperf3" / "usr"
COOKIE = 37
"""Bytes by which iperf3 tells on each connection which test it belongs to. Its report does not count them."""
PAIRS = 20
WORDS = {
    None: "UNCONN",
    "ESTABLISHED": "ESTAB",
    "LISTEN": "LISTEN",
    "CLOSE_WAIT": "CLOSE-WAIT",
    "FIN_WAIT2": "FIN-WAIT-2",
}


class Socket(NamedTuple):
    """As `ss` prints it."""

    proto: str
    state: str
    rx_queue: int
    tx_queue: int
    local: str
    remote: str
    holders: frozenset[tuple[str, int, int]]
    received: int


def sockets_of(network: Network) -> list[Socket]:
    """`ss` knows no processes of other namespaces of processes, and there are none."""
    command = ["nsenter", f"--net={network.path}", "ss", "--tcp", "--udp", "--all", "-npHOi"]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return [parsed(line) for line in lines]


def parsed(line: str) -> Socket:
    proto, state, rx_queue, tx_queue, local, remote, *rest = line.split()
    said = " ".join(rest)
    holders = re.findall(r'\("([^"]*)",pid=(\d+),fd=(\d+)\)', said)
    received = re.search(r"bytes_received:(\d+)", said)
    return Socket(
        proto,
        state,
        int(rx_queue),
        int(tx_queue),
        local,
        remote,
        frozenset((comm, int(pid), int(fd)) for comm, pid, fd in holders),
        int(received[1]) if received else 0,
    )


def as_ss_says(row: Connection) -> Socket:
    """Its words, and its count of a FIN as a byte that waits and was received."""
    finished = row.state == "CLOSE_WAIT"
    queues = (row.backlog, row.backlog_limit) if row.outcome == "listening" else (row.rx_queue, row.tx_queue)
    assert queues[0] is not None and queues[1] is not None
    holders = frozenset({(row.comm or "", row.pid or 0, row.fd)} if row.fd is not None else ())
    return Socket(
        row.proto,
        WORDS[row.state],
        queues[0] + finished,
        queues[1],
        place(row.local_addr, row.local_port),
        place(row.remote_addr, row.remote_port, "::" if ":" in (row.local_addr or "") else "0.0.0.0"),
        holders,
        (row.rx_bytes or 0) + finished,
    )


def place(address: str | None, port: int | None, nowhere: str = "0.0.0.0") -> str:
    shown = address or nowhere
    return f"[{shown}]:{port or '*'}" if ":" in shown else f"{shown}:{port or '*'}"


def crowd(network: Network) -> None:
    """A hundred sockets: talking, waiting, half closed, and not connected at all."""
    client, server = network.actor("client"), network.actor("server")
    for family in (4, 6):
        listener = listen(server, LOOPBACK[family], backlog=16)
        for number in range(PAIRS):
            near, far = pair(client, listener)
            near.send(number)
            far.send(3 * number)
            if number % 2:
                near.receive_all()
            if number % 5 == 0:
                near.shutdown("wr")
                far.await_end()
        for _ in range(3):
            connect(client, listener.address)
        for port in range(5000, 5003):
            client.do("bind", client.do("datagram", family).fd, LOOPBACK[family], port)


def settled(networks: list[Network]) -> list[list[Socket]]:
    """When no acknowledgement is under way any more: the same twice."""
    before: list[list[Socket]] = []
    while (now := [sockets_of(each) for each in networks]) != before:
        before = now
    return now


def test_a_thousand_sockets_in_ten_namespaces(traced: Callable[..., Any], networks: Callable[[], Network]) -> None:
    places = [networks() for _ in range(10)]
    for each in places[:5]:
        crowd(each)
    tracer: Tracer = traced(netns=[each.path for each in places]).tracer
    for each in places[5:]:
        crowd(each)
    listed = settled(places)
    rows = tracer.snapshot(limit=None)
    assert rows.left_out == 0
    assert sum(map(len, listed)) >= 1000
    for network, sockets in zip(places, listed, strict=True):
        here = [row for row in rows if row.netns == network.inode]
        told = Counter(map(as_ss_says, here))
        older = network in places[:5]
        # Nobody holds what waits to be accepted: older than the tracer, it is not found.
        expected = Counter(each for each in sockets if not (older and not each.holders))
        assert told == expected, (told - expected, expected - told)


@pytest.fixture
def iperf(network: Network) -> Iterator[Callable[..., Any]]:
    """A client's report, of a server that serves it alone."""
    if not (IPERF / "bin" / "iperf3").exists():
        pytest.fail("iperf3 is not unpacked: run scripts/set_up --tests")
    environment = os.environ | {"LD_LIBRARY_PATH": ":".join(map(str, IPERF.glob("lib/*")))}
    enter = ["nsenter", f"--net={network.path}", str(IPERF / "bin" / "iperf3")]
    server = subprocess.Popen(
        [*enter, "--server", "--one-off", "--forceflush"], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout
    try:
        while "listening" not in server.stdout.readline():
            assert server.poll() is None

        def run(*arguments: str) -> Any:
            command = [*enter, "--json", "--client", *arguments]
            done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
            return json.loads(done.stdout)

        yield run
        server.communicate(timeout=60)
    finally:
        server.kill()
        server.communicate()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_iperf3_sent_what_it_says(
    traced: Callable[..., Any], network: Network, iperf: Callable[..., Any], address: str
) -> None:
    tracer: Tracer = traced(netns=network.path).tracer
    tracer.snapshot()
    report = iperf(address, "--parallel", "3", "--bytes", "64M")
    rows = tracer.snapshot(limit=None)
    streams = report["end"]["streams"]
    assert len(streams) == 3
    for ends_of, stream in zip(report["start"]["connected"], streams, strict=True):
        ends = ends_of["local_port"], ends_of["remote_port"]
        (near,) = [row for row in rows if (row.local_port, row.remote_port) == ends]
        (far,) = [row for row in rows if (row.remote_port, row.local_port) == ends]
        sent = stream["sender"]["bytes"] + COOKIE
        assert facts(near, "outcome", "comm", "direction", "tx_bytes") == ("closed", "iperf3", "out", sent)
        assert facts(far, "outcome", "comm", "direction", "peer") == ("closed", "iperf3", "in", None)
        # The server stops reading when it is told on another connection that the test is over.
        assert far.rx_bytes is not None
        assert stream["receiver"]["bytes"] + COOKIE <= far.rx_bytes <= sent
        assert near.tx_rate is not None and near.tx_rate > 0
