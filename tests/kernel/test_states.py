"""Each change of a socket's state is told once, with its true owner, its ports and its connection's identity."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from pytracecon import Accept, Close, ConnectionEvent, Established, Failed, Reset, Retransmit, State, Tracer
from traffic.actor import Actor
from traffic.end import End, Listener, begin_connect, close, connect, listen, pair
from traffic.network import Network
from traffic.trace import Beacon, Trace

EVERYTHING = "state,retransmit,reset,connect,established,failed,accept,close"
ADDRESSES = {"IPv4": "127.0.0.1", "IPv6": "::1", "IPv4-mapped": "::ffff:127.0.0.1"}

OPENING = ["CLOSE SYN_SENT", "SYN_SENT ESTABLISHED"]
TAKING = ["LISTEN SYN_RECV", "SYN_RECV ESTABLISHED"]
FIRST = ["ESTABLISHED FIN_WAIT1", "FIN_WAIT1 FIN_WAIT2", "FIN_WAIT2 CLOSE"]
SECOND = ["ESTABLISHED CLOSE_WAIT", "CLOSE_WAIT LAST_ACK", "LAST_ACK CLOSE"]


@pytest.fixture(scope="module")
def watching(beacon: Beacon) -> Iterator[Trace]:
    with Tracer(events=EVERYTHING, names=False, ring_size="64M") as tracer:
        yield Trace(tracer, beacon)


@pytest.fixture
def trace(watching: Trace) -> Trace:
    """What is told from now on, of one tracer for all tests that ask for no other."""
    watching.restart()
    return watching


@pytest.fixture
def listener(server: Actor) -> Listener:
    return listen(server, "::")


def of(trace: Trace, end: End) -> list[ConnectionEvent]:
    """All events of the connection that has this end, however many identities it was told under."""
    assert end.local is not None
    return [
        event
        for event in trace.events
        if isinstance(event, ConnectionEvent) and (event.local_port, event.remote_port) == (end.local[1], end.remote[1])
    ]


def within(trace: Trace, network: Network) -> list[ConnectionEvent]:
    return [event for event in trace.events if isinstance(event, ConnectionEvent) and event.netns == network.inode]


def changes(events: list[ConnectionEvent]) -> list[str]:
    return [f"{event.old} {event.new}" for event in events if isinstance(event, State)]


def assert_whole(events: list[ConnectionEvent], end: End) -> None:
    """One identity, known ports and the owner in each; and the times add up to the connection's own."""
    assert len({event.conn for event in events}) == 1
    states = [event for event in events if isinstance(event, State)]
    assert {(event.local_addr, event.remote_addr) for event in states} == {(end.remote[0], end.remote[0])}
    assert {event.pid for event in states} == {end.actor.pid}
    assert [event.in_old_ns is None for event in states] == [True] + [False] * (len(states) - 1)
    times = [event.time_ns for event in states]
    spent = [event.in_old_ns for event in states[1:]]
    assert spent == [after - before for before, after in pairwise(times)]
    (closed,) = [event for event in events if isinstance(event, Close)]
    lived = sum(event.in_old_ns or 0 for event in states[2:])
    assert closed.duration_ns is not None
    assert abs(lived - closed.duration_ns) < 5_000_000


@pytest.mark.parametrize("first", ["client", "server"])
@pytest.mark.parametrize("address", ADDRESSES)
def test_both_ends_go_through_their_states(
    trace: Trace, client: Actor, listener: Listener, address: str, first: str
) -> None:
    near, far = pair(client, listener, to=ADDRESSES[address])
    close(*((near, far) if first == "client" else (far, near)))
    trace.settle()
    ours, theirs = of(trace, near), of(trace, far)
    assert changes(ours) == OPENING + (FIRST if first == "client" else SECOND)
    assert changes(theirs) == TAKING + (FIRST if first == "server" else SECOND)
    for events, end in ((ours, near), (theirs, far)):
        assert_whole(events, end)
        meanings = [event.meaning for event in events if isinstance(event, State) and event.meaning]
        assert meanings == ["open", f"closed_by_{first}"]


def test_a_child_is_its_listeners_until_it_is_taken(trace: Trace, client: Actor, server: Actor) -> None:
    """By another process, which has the listening socket by fork."""
    listener = listen(server)
    worker = server.fork("worker")
    attempt = connect(client, listener.address)
    far = listener.accept(by=worker)
    close(attempt, far)
    trace.settle()
    events = of(trace, far)
    owners = [(event.new, event.pid, event.owner) for event in events if isinstance(event, State)]
    assert owners[:2] == [("SYN_RECV", server.pid, "listen"), ("ESTABLISHED", server.pid, "listen")]
    assert {(pid, owner) for _, pid, owner in owners[2:]} == {(worker.pid, "accept")}
    assert len({event.conn for event in events}) == 1


def test_a_listener_has_states_of_its_own(trace: Trace, network: Network, server: Actor) -> None:
    listener = listen(server)
    listener.close()
    trace.settle()
    events = within(trace, network)
    assert changes(events) == ["CLOSE LISTEN", "LISTEN CLOSE"]
    assert {(event.pid, event.local_port, event.remote_port) for event in events} == {
        (server.pid, listener.address[1], None)
    }
    assert len({event.conn for event in events}) == 1


def test_a_refusal_has_its_port_from_the_first_state_on(trace: Trace, network: Network, client: Actor) -> None:
    client.do("refused", 1, "127.0.0.1", 9)
    trace.settle()
    events = within(trace, network)
    states = [event for event in events if isinstance(event, State)]
    assert changes(events) == ["CLOSE SYN_SENT", "SYN_SENT CLOSE"]
    assert [event.meaning for event in states] == ["open", "refused"]
    (failed,) = [event for event in events if isinstance(event, Failed)]
    assert failed.local_port is not None
    assert {event.local_port for event in events} == {failed.local_port}
    assert {event.conn for event in events} == {failed.conn}
    (reset,) = [event for event in events if isinstance(event, Reset)]
    assert (reset.sent, reset.state) == (False, "SYN_SENT")


def test_a_reset_is_told_by_both_ends(trace: Trace, client: Actor, listener: Listener) -> None:
    near, far = pair(client, listener)
    near.reset()
    far.await_end()
    far.close()
    trace.settle()
    ours, theirs = of(trace, near), of(trace, far)
    assert [(e.sent, e.state) for e in ours if isinstance(e, Reset)] == [(True, "ESTABLISHED")]
    assert [(e.sent, e.state) for e in theirs if isinstance(e, Reset)] == [(False, "ESTABLISHED")]
    for events, opened in ((ours, OPENING), (theirs, TAKING)):
        assert changes(events) == [*opened, "ESTABLISHED CLOSE"]
        assert [e.meaning for e in events if isinstance(e, State)][-1] == "closed_by_client"
        assert len({event.conn for event in events}) == 1


def test_data_that_nobody_read_is_answered_by_a_reset(trace: Trace, client: Actor, listener: Listener) -> None:
    near, far = pair(client, listener)
    near.send(100)
    far.actor.do("await", far.socket, "in")
    far.close()
    near.await_end()
    near.close()
    trace.settle()
    assert [(e.sent, e.state) for e in of(trace, far) if isinstance(e, Reset)] == [(True, "ESTABLISHED")]


def test_data_that_nobody_takes_any_more_are_answered_by_a_reset(
    trace: Trace, client: Actor, listener: Listener
) -> None:
    """The end that sends it goes through the kernel's own handling of one that is received, which none was."""
    near, far = pair(client, listener)
    near.shutdown("rdwr")
    far.await_end()
    far.send(100)
    near.close()
    far.close()
    trace.settle()
    assert [(e.sent, e.state) for e in of(trace, near) if isinstance(e, Reset)] == [(True, "FIN_WAIT2")]
    assert [(e.sent, e.state) for e in of(trace, far) if isinstance(e, Reset)] == [(False, "CLOSE_WAIT")]


def test_who_passes_the_filter_is_told_and_nobody_else(
    traced: Callable[..., Trace], network: Network, client: Actor, listener: Listener
) -> None:
    trace = traced(netns=network.path, pid=client.pid, events=EVERYTHING)
    near, far = pair(client, listener)
    close(near, far)
    trace.settle()
    assert changes(of(trace, near)) == OPENING + FIRST
    assert of(trace, far) == []


def test_a_connection_older_than_the_tracer_has_states_from_then_on(
    traced: Callable[..., Trace], network: Network, client: Actor, listener: Listener
) -> None:
    near, far = pair(client, listener)
    trace = traced(netns=network.path, events=EVERYTHING)
    close(near, far)
    trace.settle()
    for end, left in ((near, FIRST), (far, SECOND)):
        events = of(trace, end)
        assert changes(events) == left
        states = [event for event in events if isinstance(event, State)]
        assert states[0].in_old_ns is None
        assert {(event.pid, event.owner, event.pre_existing) for event in states} == {(end.actor.pid, "existing", True)}
        assert len({event.conn for event in events}) == 1


def test_each_state_of_a_path_says_which_mptcp_connection_it_is_of(
    trace: Trace, network: Network, client: Actor, server: Actor
) -> None:
    if client.attempt("socket", 4, "mptcp").errno:
        pytest.skip("no MPTCP in this kernel")
    network.sysctl("net.mptcp.enabled", 1)
    near, far = pair(client, listen(server, mptcp=True))
    near.send(1000)
    far.receive_all()
    close(near, far)
    trace.settle()
    for end in (near, far):
        states = [event for event in of(trace, end) if isinstance(event, State)]
        (whole,) = {event.conn for event in states if event.proto == "mptcp"}
        path: list[ConnectionEvent] = [event for event in states if event.proto == "tcp"]
        assert {event.subflow_of for event in path} == {whole}
        assert changes(path)[:2] == (OPENING if end is near else TAKING)


# Segments that are sent again. The kernel's own counters are the truth.


@pytest.fixture
def drop(network: Network) -> Callable[[str], None]:
    """Packets that match are dropped as they come in: their sender notices nothing of it."""

    def rule(match: str) -> None:
        script = f"add table inet t; add chain inet t in {{ type filter hook input priority 0; }}; {match}"
        network.run("nft", f"flush ruleset; {script}")

    return rule


def retransmits(trace: Trace, network: Network) -> list[Retransmit]:
    return [event for event in within(trace, network) if isinstance(event, Retransmit)]


def test_each_syn_that_is_sent_again_is_told(
    trace: Trace, network: Network, client: Actor, listener: Listener, drop: Callable[[str], None]
) -> None:
    drop(
        "add rule inet t in tcp flags & (syn|ack) == syn limit rate over 1/hour burst 1 packets accept; "
        "add rule inet t in tcp flags & (syn|ack) == syn drop"
    )
    near = connect(client, ("127.0.0.1", listener.address[1]))
    far = listener.accept()
    close(near, far)
    trace.settle()
    told = retransmits(trace, network)
    assert sum(event.segments or 0 for event in told) == network.syns_resent == client.segments_resent > 0
    assert {(e.segment, e.state, e.meaning, e.pid) for e in told} == {
        ("syn", "SYN_SENT", "slow_establishing", client.pid)
    }
    (established,) = [event for event in within(trace, network) if isinstance(event, Established)]
    assert {event.conn for event in told} == {established.conn}
    assert established.syn_retransmits == len(told)


def test_each_answer_to_a_syn_that_is_sent_again_is_told(
    trace: Trace, network: Network, client: Actor, listener: Listener, drop: Callable[[str], None]
) -> None:
    """There is no socket for it yet; the connection that comes of it has the same identity."""
    drop(
        "add rule inet t in tcp flags & (syn|ack) == (syn|ack) limit rate over 1/hour burst 1 packets accept; "
        "add rule inet t in tcp flags & (syn|ack) == (syn|ack) drop"
    )
    near = connect(client, ("127.0.0.1", listener.address[1]))
    far = listener.accept()
    close(near, far)
    trace.settle()
    answers = [event for event in retransmits(trace, network) if event.segment == "synack"]
    assert answers
    assert sum(event.segments or 0 for event in retransmits(trace, network)) == client.segments_resent
    assert {(event.pid, event.owner, event.direction) for event in answers} == {(listener.actor.pid, "listen", "in")}
    (accept,) = [event for event in within(trace, network) if isinstance(event, Accept)]
    assert {event.conn for event in answers} == {accept.conn}


def test_another_attempt_from_the_same_port_is_another_connection(
    trace: Trace, network: Network, client: Actor, listener: Listener, drop: Callable[[str], None]
) -> None:
    """The first one ended in its handshake, of which nothing but answers that were sent again was told."""
    to, source = ("127.0.0.1", listener.address[1]), ("127.0.0.1", 45_000)
    drop("add rule inet t in tcp flags & (syn|ack) == (syn|ack) drop")
    first = begin_connect(client, to, source=source)
    assert trace.until(lambda _: any(event.segment == "synack" for event in retransmits(trace, network)))
    before = {event.conn for event in retransmits(trace, network) if event.segment == "synack"}
    client.do("close", first.socket)
    network.run("nft", "flush ruleset")
    near = connect(client, to, source=source)
    close(near, listener.accept())
    trace.settle()
    (accept,) = [event for event in within(trace, network) if isinstance(event, Accept)]
    assert accept.remote_port == source[1]
    assert accept.conn not in before


def test_each_segment_of_data_that_is_sent_again_is_told(
    trace: Trace, network: Network, client: Actor, listener: Listener, drop: Callable[[str], None]
) -> None:
    near, far = pair(client, listener)
    large = f"add rule inet t in tcp dport {listener.address[1]} meta length > 200"
    drop(f"{large} limit rate over 1/hour burst 2 packets accept; {large} drop")
    near.send(50_000)
    far.receive_all()
    close(near, far)
    trace.settle()
    told = retransmits(trace, network)
    assert sum(event.segments or 0 for event in told) == client.segments_resent > 0
    assert {(event.segment, event.pid) for event in told} == {("data", client.pid)}


def test_what_could_not_be_sent_again_is_not_told(trace: Trace, networks: Callable[[], Network]) -> None:
    """The way to the peer is gone for some time: whatever the kernel tries meanwhile leaves nothing on the wire."""
    here, there = networks(), networks()
    here.wire(there, "10.9.0.1/24", "10.9.0.2/24")
    there.ip("link set lo up", "address add 10.8.0.1/32 dev lo")
    here.ip("route add 10.8.0.1 via 10.9.0.2")
    near, far = pair(here.actor("client"), listen(there.actor("server"), "10.8.0.1"))
    there.ip("route add blackhole 10.9.0.1/32")  # it hears, and answers no more
    near.send(300)
    here.ip("route delete 10.8.0.1")
    near.await_info(lambda info: info["timeouts"] >= 3)
    here.ip("route add 10.8.0.1 via 10.9.0.2")
    there.ip("route delete blackhole 10.9.0.1/32")
    near.await_info(lambda info: not info["unacked"])
    far.receive_all()
    close(near, far)
    trace.settle()
    told = retransmits(trace, here)
    assert sum(event.segments or 0 for event in told) == near.resent == near.actor.segments_resent > 0
    assert {(event.segment, event.pid) for event in told} == {("data", near.actor.pid)}


def test_what_a_bad_line_loses_is_told_as_often_as_the_kernel_counts_it(
    trace: Trace, network: Network, client: Actor, listener: Listener
) -> None:
    """Both ends send and lose: the counts are of the whole namespace. What was lost last is sent again afterwards."""
    tc = f"PATH=$PATH:/usr/sbin:/sbin exec nsenter --net={network.path} tc qdisc"
    if subprocess.run(
        ["sh", "-c", f"{tc} add dev lo root netem loss 25%"], check=False, capture_output=True
    ).returncode:
        pytest.skip("no netem in this kernel")
    while client.segments_resent < 2:
        near, far = pair(client, listener)
        near.send(20_000)
        far.receive_all()
        close(near, far)
    subprocess.run(["sh", "-c", f"{tc} del dev lo root"], check=True)

    def counted(*kinds: str) -> int:
        return sum(each.segments or 0 for each in retransmits(trace, network) if each.segment in kinds)

    assert trace.until(lambda _: counted("syn", "synack", "data", "fin") == client.segments_resent, within=20)
    assert counted("syn", "synack") == network.syns_resent
    assert {event.pid for event in retransmits(trace, network)} <= {client.pid, listener.actor.pid}
