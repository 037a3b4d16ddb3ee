"""What is open now: every socket once, with its owner and its totals as the ends know them themselves."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from pytracecon import Close
from pytracecon.decode import STATES
from traffic.actor import Actor
from traffic.end import LOOPBACK, begin_connect, close, connect, listen, pair
from traffic.listed import facts, listeners, row_of, rows_of
from traffic.network import Network
from traffic.story import event_of
from traffic.trace import Trace

TOTALS = ("tx_bytes", "tx_acked", "rx_bytes")
BUFFERS = 64 << 20
"""More than a socket of these may have."""


@pytest.mark.parametrize("family", [4, 6])
def test_both_ends_have_a_row_and_refer_to_each_other(trace: Trace, client: Actor, server: Actor, family: int) -> None:
    near, far = pair(client, listen(server, LOOPBACK[family]))
    near.send(512)
    far.receive_all()
    far.send(32_768)
    near.receive_all()
    asked = time.monotonic_ns()
    rows = trace.tracer.snapshot(limit=None)
    here, there = row_of(rows, near), row_of(rows, far)
    assert facts(here, *TOTALS) == (512, 512, 32_768)
    assert facts(there, *TOTALS) == (32_768, 32_768, 512)
    for row, end, other in ((here, near, there), (there, far, here)):
        assert facts(row, "pid", "comm", "uid", "fd") == (end.actor.pid, end.opened.comm, end.actor.uid, end.socket)
        assert facts(row, "proto", "direction", "owner") == ("tcp", end.direction, end.owner)
        assert facts(row, "outcome", "state", "peer") == ("open", "ESTABLISHED", other.conn)
        assert facts(row, "retransmits", "tx_queue", "rx_queue") == (0, 0, 0)
        assert row.rtt_ns is not None and row.rtt_ns > 0
        assert row.pre_existing is None
        assert row.age_ns is not None
        assert asked - end.opened.mono[1] <= row.age_ns <= time.monotonic_ns() - near.opened.mono[0]
    close(near, far)
    trace.settle()
    assert rows_of(trace.tracer.snapshot(limit=None), near)[0].outcome == "closed"


def test_one_that_lived_between_two_is_in_the_second_once(trace: Trace, client: Actor, server: Actor) -> None:
    tracer, listener = trace.tracer, listen(server)
    tracer.snapshot(limit=None)
    near, far = pair(client, listener)
    near.send(512)
    far.receive_all()
    far.send(32_768)
    near.receive_all()
    close(near, far)
    rows = tracer.snapshot(limit=None)
    for end, sent, received, how in ((near, 512, 32_768, "local_close"), (far, 32_768, 512, "remote_close")):
        row = row_of(rows, end)
        assert facts(row, "outcome", "state", "ended", "owner") == ("closed", "CLOSE", how, end.owner)
        assert facts(row, *TOTALS) == (sent, sent, received)
        assert facts(row, "pid", "fd") == (end.actor.pid, None)
        assert event_of(trace.settle(), end, Close).conn == row.conn
    assert not rows_of(tracer.snapshot(limit=None), near) + rows_of(tracer.snapshot(limit=None), far)


def test_an_attempt_that_failed_is_told_too(trace: Trace, client: Actor) -> None:
    trace.tracer.snapshot(limit=None)
    end = connect(client, ("127.0.0.1", 9), source=("127.0.0.1", 4000))
    row = row_of(trace.tracer.snapshot(limit=None), end)
    assert facts(row, "outcome", "error", "reason") == ("failed", "ECONNREFUSED", "refused")


def test_without_events_no_hook_is_attached_and_what_is_open_is_found(
    traced: Callable[..., Trace], network: Network, client: Actor, server: Actor
) -> None:
    near, far = pair(client, listen(server))
    near.send(512)
    tracer = traced(events=[], netns=network.path).tracer
    before = tracer.snapshot()
    near.send(1000)
    after = tracer.snapshot()
    attached = {probe.rung for probe in tracer.probes if probe.attached and probe.need != "services"}
    assert attached == {"iterator"}, "and of services the table is read, where there is one"
    assert [row_of(rows, near).tx_bytes for rows in (before, after)] == [512, 1512]
    assert [row_of(rows, end).owner for rows in (before, after) for end in (near, far)] == ["existing"] * 4
    assert row_of(before, near).conn == row_of(after, near).conn == row_of(after, far).peer
    assert tracer.read(timeout=0) == []


def test_the_first_one_tells_only_what_is_open(traced: Callable[..., Trace], network: Network) -> None:
    """However much was read before, or waits to be read."""
    trace = traced(netns=network.path)
    client, server = network.actor("client"), network.actor("server")
    listener = listen(server)
    close(*pair(client, listener))
    trace.events += trace.tracer.read(timeout=10)
    close(*pair(client, listener))
    assert [row.outcome for row in trace.tracer.snapshot()] == ["listening"]
    assert len(trace.settle()) == 10, "what was read on the way is not lost"


def test_older_than_the_tracer(traced: Callable[..., Trace], network: Network) -> None:
    near, far = pair(network.actor("client"), listen(network.actor("server")))
    near.send(100)
    far.receive_all()
    trace = traced(netns=network.path)
    rows = trace.tracer.snapshot()
    for end in (near, far):
        row = row_of(rows, end)
        assert facts(row, "pid", "comm", "fd", "owner") == (end.actor.pid, end.opened.comm, end.socket, "existing")
        assert facts(row, "pre_existing", "age_ns", "latency_ns") == (True, None, None)
    assert facts(row_of(rows, near), *TOTALS) == (100, 100, 0)
    far.send(7)
    near.receive_all()
    again = trace.tracer.snapshot()
    assert facts(row_of(again, near), "conn", *TOTALS) == (row_of(rows, near).conn, 100, 100, 7)


@pytest.mark.slow(reason="where all is emulated, so many take minutes")
def test_of_a_stream_at_full_speed(traced: Callable[..., Trace], network: Network) -> None:
    """What is read while both ends work: no total ever falls, or is more than was written by then."""
    near, far = pair(network.actor("client"), listen(network.actor("server")))
    near.actor.thread("sender").begin("send", near.socket, 1 << 50, "send")
    far.actor.thread("receiver").begin("recv", far.socket, 1 << 50, "recv")
    tracer = traced(events=[], netns=network.path).tracer
    before = [0, 0, 0]
    for _ in range(1000):
        rows = tracer.snapshot()
        here, there = row_of(rows, near), row_of(rows, far)
        kernel = near.info().extra
        written = kernel["bytes_sent"] - kernel["bytes_retrans"] + kernel["notsent"]
        totals = [here.tx_bytes or 0, here.tx_acked or 0, there.rx_bytes or 0]
        assert all(least <= total <= written for least, total in zip(before, totals, strict=True)), (before, totals)
        assert 0 <= (here.tx_queue or 0) <= BUFFERS and 0 <= (there.rx_queue or 0) <= BUFFERS
        before = totals
    assert min(before) > 1 << 28, "it did flow"


def test_a_socket_connected_to_itself_is_its_own_peer(trace: Trace, client: Actor) -> None:
    end = connect(client, ("127.0.0.1", 4000), source=("127.0.0.1", 4000))
    end.send(10)
    row = row_of(trace.tracer.snapshot(limit=None), end)
    assert facts(row, "peer", "state", "fd") == (row.conn, "ESTABLISHED", end.socket)
    assert facts(row, "tx_bytes", "rx_bytes", "rx_queue") == (10, 10, 10)


def test_an_attempt_under_way_is_pending(trace: Trace, networks: Callable[[], Network]) -> None:
    here, there = networks(), networks()
    here.wire(there, "10.9.0.1/24", "10.9.0.2/24")
    there.ip("route add blackhole 10.9.0.1/32")
    attempt = begin_connect(here.actor("client"), ("10.9.0.2", 80), source=("10.9.0.1", 4001))
    rows = [row for row in trace.tracer.snapshot(limit=None) if row.netns == here.inode and row.outcome != "closed"]
    assert [facts(row, "outcome", "state", "local_port", "fd") for row in rows] == [
        ("pending", "SYN_SENT", 4001, attempt.socket)
    ]
    assert facts(rows[0], "tx_bytes", "tx_queue", "rx_bytes", "peer") == (0, 0, 0, None)
    assert rows[0].pid == attempt.actor.pid


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::"])
def test_a_listener_and_how_full_its_backlog_is(trace: Trace, client: Actor, server: Actor, address: str) -> None:
    listener = listen(server, address, backlog=2)
    nears = [connect(client, ("::1" if ":" in address else address, listener.address[1])) for _ in range(2)]
    rows = trace.tracer.snapshot(limit=None)
    (row,) = listeners(rows, listener)
    assert facts(row, "state", "backlog", "backlog_limit") == ("LISTEN", 2, 2)
    assert facts(row, "pid", "comm", "fd", "owner") == (server.pid, listener.opened.comm, listener.socket, "listen")
    assert facts(row, "local_addr", "remote_addr") == (None if address == "::" else address, None)
    waiting = [row_of(rows, listener.pending(near)) for near in nears]
    assert {facts(row, "owner", "pid", "fd", "state") for row in waiting} == {
        ("listen", server.pid, None, "ESTABLISHED")
    }
    far = listener.accept()
    again = trace.tracer.snapshot(limit=None)
    (once_more,) = listeners(again, listener)
    assert facts(once_more, "conn", "backlog") == (row.conn, 1)
    assert facts(row_of(again, far), "owner", "fd") == ("accept", far.socket)


def test_one_that_no_process_holds_any_more(trace: Trace, networks: Callable[[], Network]) -> None:
    """Its process closed it, the other end is not reachable, and there are data yet to be sent."""
    here, there = networks(), networks()
    here.wire(there, "10.9.0.1/24", "10.9.0.2/24")
    near, _far = pair(here.actor("client"), listen(there.actor("server"), "10.9.0.2"))
    here.ip("route add blackhole 10.9.0.2/32")
    near.send(5000)
    near.close()
    row = row_of(trace.tracer.snapshot(limit=None), near)
    assert facts(row, "outcome", "state", "fd") == ("open", "FIN_WAIT1", None)
    assert facts(row, "pid", "owner", *TOTALS) == (near.actor.pid, "connect", 5000, 0, 0)
    assert row.tx_queue == 5000


def test_what_waits_to_be_read_and_to_be_acknowledged(trace: Trace, networks: Callable[[], Network]) -> None:
    here, there = networks(), networks()
    here.wire(there, "10.9.0.1/24", "10.9.0.2/24")
    near, far = pair(here.actor("client"), listen(there.actor("server"), "10.9.0.2"))
    near.send(300)
    near.shutdown("wr")
    far.await_end()
    there.ip("route add blackhole 10.9.0.1/32")
    far.send(40)
    rows = trace.tracer.snapshot(limit=None)
    state = STATES[near.info().extra["state"]]  # its FIN may be acknowledged already, or never will be
    assert facts(row_of(rows, near), "state", "tx_queue", "rx_queue") == (state, 0, 0)
    assert facts(row_of(rows, far), "state", "tx_queue", "rx_queue") == ("CLOSE_WAIT", 40, 300)
    assert facts(row_of(rows, near), "peer") == (row_of(rows, far).conn,), "across namespaces"


def test_one_that_two_processes_hold_is_listed_once(trace: Trace, client: Actor, server: Actor) -> None:
    near, _far = pair(client, listen(server))
    heir = client.fork("heir")
    row = row_of(trace.tracer.snapshot(limit=None), near)
    assert facts(row, "pid", "comm", "fd", "owner") == (client.pid, near.opened.comm, near.socket, "connect")
    near.close()
    row = row_of(trace.tracer.snapshot(limit=None), near)
    assert facts(row, "pid", "fd", "owner", "state") == (client.pid, None, "connect", "ESTABLISHED")
    near.close(by=heir)


def test_mptcp_is_one_row_with_its_paths_behind(trace: Trace, network: Network, client: Actor, server: Actor) -> None:
    if client.attempt("socket", 4, "mptcp").errno:
        pytest.skip("no MPTCP in this kernel")
    network.sysctl("net.mptcp.enabled", 1)
    listener = listen(server, mptcp=True)
    near, far = pair(client, listener)
    near.send(100_000)
    far.receive_all()
    rows = trace.tracer.snapshot(limit=None)
    here, there = row_of(rows, near), row_of(rows, far)
    for row, end, other in ((here, near, there), (there, far, here)):
        assert facts(row, "proto", "state", "fd", "peer") == ("mptcp", "ESTABLISHED", end.socket, other.conn)
        path = rows[rows.index(row) + 1]
        assert facts(path, "proto", "subflow_of", "pid", "fd") == ("tcp", row.conn, end.actor.pid, None)
    assert facts(here, "tx_bytes", "tx_acked", "rx_bytes") == (100_000, 100_000, 0)
    assert facts(there, "tx_bytes", "rx_bytes") == (0, 100_000)
    (row,) = listeners(rows, listener)
    assert facts(row, "proto", "backlog", "fd") == ("mptcp", 0, listener.socket)


@pytest.mark.parametrize("family", [4, 6])
def test_a_udp_socket_that_is_held_open(trace: Trace, client: Actor, family: int) -> None:
    socket = client.do("datagram", family).fd
    client.do("bind", socket, LOOPBACK[family], 5000)
    rows = [row for row in trace.tracer.snapshot(limit=None) if row.pid == client.pid]
    again = [row for row in trace.tracer.snapshot(limit=None) if row.pid == client.pid]
    assert [row.conn for row in rows] == [row.conn for row in again]
    (row,) = rows
    assert facts(row, "proto", "local_addr", "local_port", "fd") == ("udp", LOOPBACK[family], 5000, socket)
    assert facts(row, "remote_addr", "remote_port", "state", "outcome") == (None, None, None, "open")
    assert facts(row, "tx_queue", "rx_queue", "tx_bytes", "comm") == (0, 0, None, "client")


def test_filters_apply(traced: Callable[..., Trace], network: Network) -> None:
    server = network.actor("server")
    wanted, other = listen(server), listen(server)
    client = network.actor("client")
    ends = [pair(client, each) for each in (wanted, other)]
    trace = traced(netns=network.path, port=wanted.address[1])
    assert [row.conn for row in trace.tracer.snapshot()] == [row_of(trace.tracer.snapshot(), ends[0][0]).conn]
    later = pair(client, wanted), pair(client, other)
    assert len(trace.tracer.snapshot()) == 2
    assert row_of(trace.tracer.snapshot(), later[0][0]).owner == "connect"


def test_filters_on_owners_apply(traced: Callable[..., Trace], network: Network) -> None:
    client, server = network.actor("client"), network.actor("server")
    listener = listen(server)
    near, far = pair(client, listener)
    trace = traced(pid=server.pid)
    waiting = connect(client, listener.address)
    rows = trace.tracer.snapshot()
    assert {row.pid for row in rows} == {server.pid}
    assert sorted(row.outcome for row in rows) == ["listening", "open", "open"]
    assert facts(row_of(rows, far), "owner", "fd") == ("existing", far.socket)
    assert row_of(rows, listener.pending(waiting)).owner == "listen"
    assert not rows_of(rows, near) + rows_of(rows, waiting)
