"""Snapshots among events: what is read on the way, what ended, how fast it goes, and what is said where none can be."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from itertools import islice

import msgspec
import pytest

from pytracecon import Endpoint, Lost, Tracer, listing, waiting
from pytracecon.errors import InvalidValue, TracerClosed, UnsupportedKernel
from traffic.actor import Actor
from traffic.end import End, close, connect, listen, pair
from traffic.listed import facts, row_of, rows_of
from traffic.network import Network
from traffic.resolver import Place
from traffic.trace import Trace

pytestmark = pytest.mark.slow(reason="what it tells of is user space's, whatever the kernel")

KINDS = ["connect", "established", "accept", "close", "close"]


@pytest.fixture
def tracer(traced: Callable[..., Trace], network: Network) -> Tracer:
    return traced(netns=network.path).tracer


@pytest.fixture
def talk(client: Actor, server: Actor) -> Callable[[], tuple[End, End]]:
    """A connection from its beginning to its end: five events."""
    listener = listen(server)

    def once() -> tuple[End, End]:
        near, far = pair(client, listener)
        near.send(512)
        far.receive_all()
        close(near, far)
        return near, far

    return once


def test_events_that_a_snapshot_reads_are_kept_for_who_iterates(
    tracer: Tracer, talk: Callable[[], tuple[End, End]]
) -> None:
    told = []
    talk()
    for event in tracer:
        told.append(event)
        if len(told) == 1:
            talk()
            tracer.snapshot()
            talk()
        elif len(told) == 15:
            tracer.stop()
    assert sorted(event.event for event in told) == sorted(KINDS * 3)
    times = [event.time_ns for event in told]
    assert times == sorted(times)
    stats = tracer.stats
    assert (stats.wanted, stats.delivered, stats.handed, stats.lost) == (15, 15, 15, 0)


def test_whoever_waits_for_events_gets_those_that_a_snapshot_reads(
    tracer: Tracer, talk: Callable[[], tuple[End, End]]
) -> None:
    """In another thread: neither waits for the other."""
    told: list[str] = []
    reading = threading.Thread(target=lambda: told.extend(event.event for event in islice(tracer, 100)))
    reading.start()
    try:
        for _ in range(20):
            talk()
            begun = time.monotonic()
            tracer.snapshot()
            assert time.monotonic() - begun < 10
    finally:
        reading.join(timeout=60)
        tracer.stop()
    assert not reading.is_alive()
    assert sorted(told) == sorted(KINDS * 20)


def test_a_loop_that_awaits_events_gets_them_too(tracer: Tracer, talk: Callable[[], tuple[End, End]]) -> None:
    async def both() -> list[str]:
        told = []

        async def read() -> None:
            async for event in tracer:
                told.append(event.event)
                if len(told) == 25:
                    tracer.stop()

        reading = asyncio.create_task(read())
        for _ in range(5):
            await asyncio.sleep(0.05)
            await asyncio.to_thread(talk)
            tracer.snapshot()
        await asyncio.wait_for(reading, 60)
        return told

    assert sorted(asyncio.run(both())) == sorted(KINDS * 5)


@pytest.mark.parametrize("how", ["read", "read_json", "nothing"])
def test_what_ended_is_told_whoever_read_of_it(tracer: Tracer, talk: Callable[[], tuple[End, End]], how: str) -> None:
    tracer.snapshot()
    ends = [end for _ in range(3) for end in talk()]
    if how == "read":
        assert len(tracer.read(timeout=10)) == 15
    elif how == "read_json":
        lines = [msgspec.json.decode(line) for line in tracer.read_json(timeout=10).data.splitlines()]
        assert sorted(line["event"] for line in lines) == sorted(KINDS * 3)
    rows = tracer.snapshot()
    for end in ends:
        assert facts(row_of(rows, end), "outcome", "pid", "tx_bytes") == ("closed", end.actor.pid, end.sent)
    assert [row.outcome for row in tracer.snapshot()] == ["listening"]


def test_nobody_who_takes_snapshots_alone_fills_the_memory(
    tracer: Tracer, talk: Callable[[], tuple[End, End]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "MOST", 12)
    tracer.snapshot()
    for _ in range(4):
        talk()
        assert sum(row.outcome == "closed" for row in tracer.snapshot()) == 2
    tracer.stop()
    events = list(tracer)
    (lost,) = [event for event in events if isinstance(event, Lost)]
    assert (lost.where, lost.count) == ("queue", 8)
    assert events[-1] is lost
    stats = tracer.stats
    assert (stats.wanted, stats.delivered, stats.lost_queue, stats.lost) == (20, 20, 8, 8)
    assert stats.delivered == (stats.handed - 1) + stats.left_out + stats.lost_queue


def test_rates_are_bytes_over_the_time_between(tracer: Tracer, client: Actor, server: Actor) -> None:
    near, far = pair(client, listen(server))
    near.send(1000)
    far.receive_all()
    before = tracer.snapshot()
    near.send(50_000)
    far.receive_all()
    far.send(700)
    near.receive_all()
    after = tracer.snapshot()
    assert after.elapsed_ns == after.time_ns - before.time_ns
    for end, sent, received in ((near, 50_000, 700), (far, 700, 50_000)):
        then, now = row_of(before, end), row_of(after, end)
        assert (then.tx_rate, then.rx_rate) == (None, None)
        assert then.age_ns is not None and now.age_ns is not None
        seconds = (now.age_ns - then.age_ns) / 1e9
        assert now.tx_rate == pytest.approx(sent / seconds)
        assert now.rx_rate == pytest.approx(received / seconds)


def test_one_row_is_one_row(tracer: Tracer, client: Actor, server: Actor) -> None:
    listener = listen(server)
    ends = [pair(client, listener) for _ in range(3)]
    rows = tracer.snapshot(limit=1)
    assert (len(rows), rows.left_out) == (1, 6)
    assert tracer.snapshot(limit=1)[0].conn == rows[0].conn, "the same ones, as long as they are open"
    close(*ends[0])
    rows = tracer.snapshot(limit=1)
    assert ([row.outcome for row in rows], rows.left_out) == (["closed"], 6)
    assert not rows_of(tracer.snapshot(), ends[0][0])


def test_filters_of_user_space_apply(traced: Callable[..., Trace], network: Network) -> None:
    client, server = network.actor("client"), network.actor("server")
    near, _far = pair(client, listen(server))
    exe = str(client.do("hello").extra.get("exe", "traffic"))
    assert row_of(traced(netns=network.path, exe="*traffic*").tracer.snapshot(), near).exe, exe
    assert traced(netns=network.path, exe="/nowhere").tracer.snapshot() == []
    nothing = traced(netns=network.path, host="*.example.com", names=True).tracer.snapshot()
    assert (nothing, nothing.left_out) == ([], 0)


def test_what_an_owner_is(traced: Callable[..., Trace], network: Network) -> None:
    near, _far = pair(network.actor("client"), listen(network.actor("server")))
    row = row_of(traced(netns=network.path).tracer.snapshot(), near)
    assert row.process is not None
    assert (row.exe or "").endswith("/traffic")
    assert row.parents


def test_the_name_that_an_open_connection_has(traced: Callable[..., Trace], place: Place) -> None:
    """Also of one that was never told of since it has it."""
    tracer = traced(netns=place.path, names=True).tracer
    alice = place.actor("alice")
    addr = alice.do("lookup", "one.test", 4, 1).extra["addresses"][0]
    near, far = pair(alice, place.web, to=addr)
    rows = tracer.snapshot()
    assert facts(row_of(rows, near), "host", "host_source") == ("one.test", "getaddrinfo")
    assert row_of(rows, far).host is None
    close(near, far)
    assert facts(row_of(tracer.snapshot(), near), "host", "outcome") == ("one.test", "closed")


def test_the_other_end_behind_a_rule_of_a_packet_filter(
    traced: Callable[..., Trace], network: Network, client: Actor, server: Actor
) -> None:
    tracer = traced(netns=network.path, names=True).tracer
    listener = listen(server, "0.0.0.0")
    network.ip("address add 10.99.0.1/24 dev lo")
    network.run(
        "nft",
        "add table ip t; add chain ip t out { type nat hook output priority -100; }; "
        f"add rule ip t out ip daddr 10.99.0.9 tcp dport 80 dnat to 10.99.0.1:{listener.address[1]}",
    )
    near = connect(client, ("10.99.0.9", 80))
    far = listener.accept()
    rows = tracer.snapshot()
    here, there = row_of(rows, near), row_of(rows, far)
    assert here.nat == Endpoint("10.99.0.1", listener.address[1])
    assert (here.peer, there.peer) == (there.conn, here.conn)


def test_a_table_that_is_full_costs_no_row(traced: Callable[..., Trace], network: Network) -> None:
    client, server = network.actor("client"), network.actor("server")
    listener = listen(server)
    ends = [end for _ in range(8) for end in pair(client, listener)]
    tracer = traced(netns=network.path, max_connections=4).tracer
    rows = tracer.snapshot()
    again = tracer.snapshot()
    for end in ends:
        row = row_of(rows, end)
        assert facts(row, "pid", "fd", "tx_bytes") == (end.actor.pid, end.socket, 0)
        assert row.conn == row_of(again, end).conn
    assert len({row.conn for row in rows}) == 17


def test_it_says_why_there_can_be_none(tracer: Tracer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidValue, match="limit: 0 is no number of connections"):
        tracer.snapshot(limit=0)
    with monkeypatch.context() as broken:
        broken.setattr(listing, "PROGRAMS", ("state_btf", "snapshot_socks"))  # no iterator: the kernel refuses
        with pytest.raises(UnsupportedKernel, match="state_btf"):
            tracer.snapshot()
    assert not any(probe.attached for probe in tracer.probes if probe.need == "snapshot")
    tracer.stop()
    with pytest.raises(TracerClosed, match="this tracer is stopped"):
        tracer.snapshot()
    tracer.close()
    with pytest.raises(TracerClosed, match="this tracer is closed"):
        tracer.snapshot()


def test_descriptors_are_given_back(network: Network) -> None:
    def own() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = own()
    with Tracer(netns=network.path, names=False) as tracer:
        tracer.snapshot()
        loaded = own()
        for _ in range(20):
            tracer.snapshot()
        assert own() == loaded
    assert own() == before


def test_nothing_is_loaded_before_the_first_one(tracer: Tracer) -> None:
    assert "snapshot" not in {probe.need for probe in tracer.probes}
    tracer.snapshot()
    assert [probe.name for probe in tracer.probes if probe.need == "snapshot"] == list(listing.PROGRAMS)
    assert all(probe.attached for probe in tracer.probes if probe.need == "snapshot")
