"""The verbs beside libbpf-tools' tools: the same traffic under tcpconnect, tcpconnlat and ours, and the same rows.

Both tools stand on kprobes. tcplife does not, and is compared with in test_verb_life.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from traffic.end import End, begin_connect, close, connect, listen, pair
from traffic.network import Network
from traffic.peers import CountingPeer, Ours, Peer, tracing

HERE, THERE, SIX = "10.83.0.1", "10.83.0.2", "fd00:84::1"
"""Addresses of no other test: the peers know no namespaces, and see all traffic of the machine."""

Rows = list[list[str]]

pytestmark = pytest.mark.once(reason="rows and columns; the events behind them are tested in every guest")


@pytest.fixture(autouse=True)
def kprobes() -> None:
    if not Path("/sys/bus/event_source/devices/kprobe").exists():
        pytest.skip("tcpconnect and tcpconnlat need kprobes")


def traffic(networks: Callable[[], Network]) -> list[End]:
    """Two quick connections and one of IPv6, a refused attempt, and a connection whose first SYN got lost."""
    here, there = networks(), networks()
    here.wire(there, f"{HERE}/24", f"{THERE}/24")
    here.ip(f"address add {SIX}/128 dev lo nodad")
    client, server = here.actor("client"), there.actor("server")
    listener, at_home = listen(server, THERE, 8080), listen(here.actor("server"), SIX, 8080)
    client.set_user(4711)
    ends = []
    for target in (listener, listener, at_home):
        near, far = pair(client, target)
        close(near, far)
        ends.append(near)
    refused = connect(client, (THERE, 7), source=(HERE, 4000))
    assert refused.error == "ECONNREFUSED"
    there.ip(f"route add blackhole {HERE}/32")
    attempt = begin_connect(client, listener.address)
    attempt.await_resent()
    there.ip(f"route delete blackhole {HERE}/32")
    slow, far = attempt.finish(), listener.accept()
    close(slow, far)
    return [*ends, refused, slow]


def rows(lines: list[str], *, width: int) -> Rows:
    """Those of this test's addresses, each to so many cells, of which `LAT(ms)` may be followed by more of ours."""
    cells = [line.split() for line in lines]
    return [row[:width] for row in cells if {HERE, SIX} & set(row)]


def test_the_rows_are_those_of_tcpconnect_and_tcpconnlat(networks: Callable[[], Network]) -> None:
    connects = Peer("tcpconnect", "-t -U"), Ours("connect", "-t -U")
    latencies = Peer("tcpconnlat", "-L"), Ours("latency", "-L --all")
    with tracing([*connects, *latencies]):
        ends = traffic(networks)
        their_connects, our_connects = [tool.lines() for tool in connects]
        their_latencies, our_latencies = [tool.lines() for tool in latencies]
    assert our_connects[0] == their_connects[0]
    assert_same_connects(rows(their_connects, width=8), rows(our_connects, width=8), ends)
    assert our_latencies[0] == f"{their_latencies[0].rstrip()}   OUTCOME"
    assert_same_latencies(rows(their_latencies, width=8), rows(our_latencies, width=8), ends)


def test_the_counts_are_those_of_tcpconnect(networks: Callable[[], Network]) -> None:
    tools = CountingPeer("tcpconnect", "-c"), Ours("connect", "-c")
    with tracing(tools):
        ends = traffic(networks)
        (blank, *theirs), ours = [tool.lines() for tool in tools]
    assert (blank, ours[0]) == ("", theirs[0].rstrip())
    told = rows(ours, width=4)
    assert sorted(told) == sorted(rows(theirs, width=4))
    made = Counter(((end.local or (HERE, 0))[0], end.remote[0], str(end.remote[1])) for end in ends)
    assert {tuple(pair): int(count) for *pair, count in told} == made
    assert [int(count) for *_, count in told] == sorted(made.values(), reverse=True), "the most first, as bcc's does"


def known(end: End) -> tuple[str, str, str]:
    """PID, COMM and IP."""
    return str(end.actor.pid), end.opened.comm, "6" if ":" in end.remote[0] else "4"


def assert_same_connects(theirs: Rows, ours: Rows, ends: list[End]) -> None:
    """All that both tell is the same, and the times are as far apart."""
    assert [row[1:] for row in ours] == [row[1:] for row in theirs]
    assert [tuple(row[1:5]) for row in ours] == [(str(end.actor.uid), *known(end)) for end in ends]
    assert [tuple(row[5:]) for row in ours] == [
        ((end.local or ("", 0))[0], end.remote[0], str(end.remote[1])) for end in ends
    ]
    since = [float(their[0]) - float(our[0]) for their, our in zip(theirs, ours, strict=True)]
    assert max(since) - min(since) < 0.2, (theirs, ours)


def assert_same_latencies(theirs: Rows, ours: Rows, ends: list[End]) -> None:
    """tcpconnlat's run from the call to the answer's arrival, ours from the SYN to the state that follows from it."""
    assert sorted(row[:7] for row in ours) == sorted(row[:7] for row in theirs)
    assert sorted(tuple(row[:3]) for row in ours) == sorted(known(end) for end in ends)
    by_theirs = {tuple(row[:7]): float(row[7]) for row in theirs}
    for row in ours:
        assert abs(float(row[7]) - by_theirs[tuple(row[:7])]) < 200, (theirs, ours)
    assert sum(float(row[7]) > 500 for row in ours) == sum(float(row[7]) > 500 for row in theirs) == 1
