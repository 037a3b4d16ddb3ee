"""A snapshot of a tracer that counts datagrams: UDP conversations with their totals, each once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pytracecon import Connection, Tracer
from traffic.actor import Actor
from traffic.datagrams import Socket, udp
from traffic.listed import facts
from traffic.network import Network


@pytest.fixture(scope="module")
def tracer() -> Iterator[Tracer]:
    with Tracer(events="flow", names=False, probes="auto") as tracer:
        yield tracer


def rows_of(rows: list[Connection], network: Network, socket: Socket) -> list[Connection]:
    """Of this process and this socket, those in which somebody is spoken to first."""
    found = [row for row in rows if (row.netns, row.pid) == (network.inode, socket.actor.pid)]
    return sorted((row for row in found if row.local_port == socket.address[1]), key=lambda row: row.remote_port or 0)[
        ::-1
    ]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_what_goes_one_way_comes_back_the_other(
    tracer: Tracer, network: Network, client: Actor, server: Actor, address: str
) -> None:
    family = 6 if ":" in address else 4
    there = udp(server, family, bound=(address, 0))
    here = udp(client, family, bound=(address, 0)).connect(there.address)
    here.send(512)
    there.hear()
    for _ in range(8):
        there.tell(4096, here.address)
        here.hear()
    rows = tracer.snapshot(limit=None)
    (near,), (far, waits) = rows_of(rows, network, here), rows_of(rows, network, there)
    counts = ("proto", "tx_bytes", "rx_bytes", "tx_packets", "rx_packets", "direction", "fd")
    assert facts(near, *counts) == ("udp", 512, 32_768, 1, 8, "out", here.fd)
    assert facts(far, *counts) == ("udp", 32_768, 512, 8, 1, "in", there.fd)
    assert (near.peer, far.peer) == (far.conn, near.conn)
    assert near.age_ns is not None and near.age_ns > 0
    assert waits.remote_port is None


def test_each_of_several_has_a_row_of_its_own_and_the_socket_too(
    tracer: Tracer, network: Network, client: Actor, server: Actor
) -> None:
    there = udp(server, bound=("127.0.0.1", 0))
    callers = [udp(client, bound=("127.0.0.1", 0)) for _ in range(3)]
    for count, caller in enumerate(callers, 1):
        caller.tell(count, there.address)
        there.hear()
    *rows, socket = rows_of(tracer.snapshot(limit=None), network, there)
    assert sorted((row.remote_port, row.rx_bytes) for row in rows) == sorted(
        (caller.address[1], count) for count, caller in enumerate(callers, 1)
    )
    assert facts(socket, "remote_addr", "tx_bytes", "fd") == (None, None, there.fd)


def test_one_that_lived_and_ended_in_between_is_told_once(
    tracer: Tracer, network: Network, client: Actor, server: Actor
) -> None:
    there = udp(server, bound=("127.0.0.1", 0))
    tracer.snapshot()
    here = udp(client, to=there.address)
    here.send(100)
    here.close()
    (row,) = rows_of(tracer.snapshot(limit=None), network, here)
    assert facts(row, "outcome", "ended", "tx_bytes", "rx_bytes") == ("closed", "closed", 100, 0)
    assert rows_of(tracer.snapshot(limit=None), network, here) == []


def test_rates_are_those_since_the_snapshot_before(
    tracer: Tracer, network: Network, client: Actor, server: Actor
) -> None:
    there = udp(server, bound=("127.0.0.1", 0))
    here = udp(client, to=there.address)
    here.send(1)
    (before,) = rows_of(tracer.snapshot(limit=None), network, here)
    here.send(5000)
    (after,) = rows_of(tracer.snapshot(limit=None), network, here)
    assert before.age_ns is not None and after.age_ns is not None
    assert after.tx_rate == pytest.approx(5000 / ((after.age_ns - before.age_ns) / 1e9))
