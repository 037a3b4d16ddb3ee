"""Whose connection it is: right in every event, whoever closes, and in whatever context the kernel notices."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pytracecon import Accept, Close, Connect, ConnectionEvent, Established
from traffic.actor import Actor
from traffic.end import End, close, connect, join, listen, pair
from traffic.network import Network
from traffic.story import Told
from traffic.trace import Trace

OUT, IN = "connect established close", "accept close"


def both(pairs: list[tuple[End, End]]) -> list[Told]:
    """What is told of connections that the client closed first."""
    ends = {"local_close": OUT, "remote_close": IN}
    return [
        Told(end, events, ended=ended)
        for pair_of_ends in pairs
        for end, (ended, events) in zip(pair_of_ends, ends.items(), strict=True)
    ]


@pytest.mark.parametrize("network_between", ["loopback", "veth"])
@pytest.mark.parametrize("first", ["client", "server"])
def test_200_of_200_have_their_owner_whoever_closes_first(
    trace: Trace, networks: Callable[[], Network], first: str, network_between: str
) -> None:
    here = there = networks()
    addr = "127.0.0.1"
    if network_between == "veth":
        there, addr = networks(), "10.9.0.2"
        here.wire(there, "10.9.0.1/24", "10.9.0.2/24")
    client, server = here.actor("client"), there.actor("server")
    listener = listen(server, addr)
    server.begin("serve", listener.socket, 200, 5, 3, "first" if first == "server" else "last")
    visit = client.do("visit", 200, *listener.address, 5, 3, "first" if first == "client" else "last")
    serve = server.finish()
    assert visit.result == serve.result == 200

    def of(event: object, kind: type[ConnectionEvent], actor: Actor) -> bool:
        return isinstance(event, kind) and event.pid == actor.pid

    closes = [(Close, client), (Close, server)]
    trace.until(lambda events: all(sum(of(event, *which) for event in events) >= 200 for which in closes), within=15)
    ours = [e for e in trace.settle() if isinstance(e, ConnectionEvent) and e.netns in (here.inode, there.inode)]
    for kind, actor, ports in [
        (Connect, client, "local_port"),
        (Established, client, "local_port"),
        (Close, client, "local_port"),
        (Accept, server, "remote_port"),
        (Close, server, "remote_port"),
    ]:
        told = [event for event in ours if of(event, kind, actor)]
        assert sorted(getattr(event, ports) for event in told) == sorted(visit.extra["ports"]), (kind, actor.pid)
        assert {event.comm for event in told} == {"client" if actor is client else "server"}
    assert len(ours) == 1000
    payload = {(e.pid, e.tx_bytes, e.tx_acked, e.rx_bytes) for e in ours if isinstance(e, Close)}
    assert payload == {(client.pid, 5, 5, 3), (server.pid, 3, 3, 5)}


def test_a_thread_connects_another_accepts(trace: Trace, client: Actor, server: Actor) -> None:
    near, far = pair(client.thread("dialler"), listen(server), by=server.thread("taker"))
    close(near, far)
    assert near.opened.thread == "dialler"
    assert far.opened.thread == "taker"
    trace.tells(*both([(near, far)]))


def test_a_thread_that_renamed_itself_does_not_rename_its_process(trace: Trace, client: Actor, server: Actor) -> None:
    thread = client.thread("before")
    thread.do("name", "after")
    client.do("name", "client2")
    near, far = pair(thread, listen(server))
    close(near, far)
    assert (near.opened.comm, near.opened.thread) == ("client2", "after")
    trace.tells(*both([(near, far)]))


def test_a_name_with_hostile_bytes_is_the_kernels_own(trace: Trace, client: Actor, server: Actor) -> None:
    client.do("name", "\x1b[31m,=é")
    near, far = pair(client, listen(server))
    close(near, far)
    trace.tells(*both([(near, far)]))


def test_a_child_uses_and_closes_what_its_parent_connected(trace: Trace, client: Actor, server: Actor) -> None:
    near, far = pair(client, listen(server))
    child = client.fork("child")
    near.close()
    near.send(10, by=child)
    far.receive_all()
    near.close(by=child)
    far.await_end()
    far.close()
    trace.tells(*both([(near, far)]))


def test_a_program_that_became_another(trace: Trace, client: Actor, server: Actor) -> None:
    """What was connected before an exec keeps the name of then; what comes after has the new one."""
    listener = listen(server)
    old, old_far = pair(client, listener)
    client.do("keep", old.socket)
    client.execute("renewed")
    new, new_far = pair(client, listener)
    close(old, old_far)
    close(new, new_far)
    assert (old.opened.comm, new.opened.comm) == ("client", "renewed")
    trace.tells(*both([(old, old_far), (new, new_far)]))


def test_an_unprivileged_user(trace: Trace, client: Actor, server: Actor) -> None:
    client.set_user(4711)
    server.set_user(4712)
    near, far = pair(client, listen(server, port=8000))
    close(near, far)
    assert (near.opened.uid, far.opened.uid) == (4711, 4712)
    trace.tells(*both([(near, far)]))


def test_processes_that_live_for_milliseconds(trace: Trace, client: Actor, server: Actor) -> None:
    listener = listen(server)
    hits = client.do("hit", 50, *listener.address, "mayfly").extra
    assert server.do("serve", listener.socket, 50, 1, 0, "last").result == 50
    owner = dict(zip(hits["ports"], hits["pids"], strict=True))

    def of_them(events: list[object]) -> list[ConnectionEvent]:
        return [
            e for e in events if isinstance(e, ConnectionEvent) and e.netns == client.netns and e.direction == "out"
        ]

    trace.until(lambda events: len(of_them(list(events))) >= 150, within=15)
    told = of_them(list(trace.settle()))
    assert [(e.event, e.pid, e.comm) for e in told if e.local_port == hits["ports"][0]] == [
        (kind, hits["pids"][0], "mayfly") for kind in OUT.split()
    ]
    assert {(e.local_port, e.pid) for e in told} == set(owner.items())
    assert {e.comm for e in told} == {"mayfly"}
    assert len(told) == 150


@pytest.mark.parametrize("kind", ["fork", "thread"])
def test_64_tasks_blocked_in_accept_before_the_tracer_started(
    traced: Callable[..., Trace], network: Network, client: Actor, kind: str
) -> None:
    """Probes on a function's return see nothing of those that were inside, or too few where many wait."""
    parent = network.actor("parent")
    listener = listen(parent, backlog=128)
    make_one = parent.fork if kind == "fork" else parent.thread
    workers = [make_one(f"worker-{at}") for at in range(64)]
    for worker in workers:
        worker.begin("accept", listener.socket)
    for worker in workers:
        worker.await_blocked()
    trace = traced()
    nears = [connect(client, listener.address) for _ in workers]
    pairs = join(nears, [listener.accepted(worker, worker.finish()) for worker in workers])
    for near, far in pairs:
        close(near, far)
    trace.tells(*both(pairs))


def test_processes_that_share_a_port(trace: Trace, network: Network, client: Actor) -> None:
    """SO_REUSEPORT: each connection belongs to whoever took it."""
    listeners = [
        listen(network.actor(f"server-{at}"), port=8000, how="nonblock", options={"SO_REUSEPORT": 1}) for at in range(3)
    ]
    nears = [connect(client, ("127.0.0.1", 8000)) for _ in range(12)]
    pairs = join(nears, [end for listener in listeners for end in listener.accept_waiting()])
    assert len(pairs) == 12
    for near, far in pairs:
        close(near, far)
    trace.tells(*both(pairs))


@pytest.mark.parametrize("death", ["close", "kill"])
def test_whoever_listens_owns_what_was_never_accepted(
    trace: Trace, network: Network, client: Actor, death: str
) -> None:
    """A parent listens, its child inherits the socket and holds it last: the connection is the listener's."""
    parent = network.actor("parent")
    listener = listen(parent)
    child = parent.fork("child")
    near = connect(client, listener.address)
    far = listener.pending(near)
    listener.close()
    if death == "kill":
        child.kill()
    else:
        listener.close(by=child)
    near.await_end()
    near.close()
    trace.tells(Told(near, OUT, ended="remote_reset"), Told(far, "close", ended="local_reset"))


def test_a_control_group_of_its_own(trace: Trace, cgroup: Path, client: Actor, server: Actor) -> None:
    client.do("write", cgroup / "cgroup.procs", client.pid)
    server.do("write", cgroup / "child" / "cgroup.procs", server.pid)
    near, far = pair(client, listen(server))
    close(near, far)
    assert near.cgroup == os.stat(cgroup).st_ino
    assert far.cgroup == os.stat(cgroup / "child").st_ino
    trace.tells(*both([(near, far)]))
