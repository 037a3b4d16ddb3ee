"""Connections that were there before: their owner and totals are right, and no lifetime is invented.

One tracer comes after all of them. What an older one does until its `yield` is done before, the rest in its own test.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from pytracecon import Close, Established, Existing, Tracer
from traffic.actor import Actor
from traffic.cgroup import new_cgroup
from traffic.end import Listener, begin_connect, close, connect, listen, pair
from traffic.network import Network
from traffic.story import Told, event_of, story
from traffic.trace import Beacon, Trace

OLDER = {"owner": "existing", "pre_existing": True, "tid": None, "thread": None}

Life = Generator[None, Trace, None]


@dataclass
class World:
    network: Callable[[], Network]
    cgroup: Path


def assert_closed(trace: Trace, *closes: tuple[Told, dict[str, object]]) -> None:
    """Each of these ends is told to be closed, with these facts, and nothing else is told of it."""
    all_told = [told for told, _ in closes]
    trace.await_told(all_told)
    for told, facts in closes:
        told.end.direction = trace.older_direction(told.end)
        told.facts = OLDER | facts
    trace.tells(*all_told, alone=False)
    assert all(event_of(trace.events, told.end, Close).duration_ns is None for told in all_told)


def both_ends_are_closed_with_their_totals(world: World, address: str, first: str) -> Life:
    network = world.network()
    near, far = pair(network.actor("client"), listen(network.actor("server"), "::"), to=address)
    near.send(1234)
    far.receive_all()
    trace = yield
    far.send(77)
    near.receive_all()
    close(*((near, far) if first == "client" else (far, near)))
    ended = ("local_close", "remote_close") if first == "client" else ("remote_close", "local_close")
    assert_closed(trace, *((Told(end, "close", ended=how), {}) for end, how in zip((near, far), ended, strict=True)))
    assert len(story(trace.events, near) + story(trace.events, far)) == 2


def held_by_another_process_only(world: World) -> Life:
    """Whoever connected has closed its descriptor; a child holds the connection."""
    network = world.network()
    client = network.actor("client")
    near, far = pair(client, listen(network.actor("server")))
    child = client.fork("heir")
    near.close()
    trace = yield
    near.send(10, by=child)
    far.receive_all()
    near.close(by=child)
    far.await_end()
    far.close()
    assert_closed(
        trace,
        (Told(near, "close", ended="local_close"), {"pid": child.pid, "comm": "heir"}),
        (Told(far, "close", ended="remote_close"), {}),
    )


def in_another_namespace(world: World) -> Life:
    here, there = world.network(), world.network()
    here.wire(there, "10.9.0.1/24", "10.9.0.2/24")
    near, far = pair(here.actor("client"), listen(there.actor("server"), "10.9.0.2"))
    near.send(500)
    far.receive_all()
    trace = yield
    far.reset()
    near.await_end()
    near.close()
    assert_closed(trace, (Told(near, "close", ended="remote_reset"), {}), (Told(far, "close", ended="local_reset"), {}))


def of_an_ordinary_user_in_a_control_group(world: World) -> Life:
    network = world.network()
    client = network.actor("client")
    client.do("write", f"{world.cgroup}/cgroup.procs", client.pid)
    client.set_user(4711)
    near, far = pair(client, listen(network.actor("server")))
    trace = yield
    close(near, far)
    assert near.opened.uid == 4711
    assert_closed(trace, (Told(near, "close", ended="local_close"), {}), (Told(far, "close", ended="remote_close"), {}))


def made_by_a_thread(world: World) -> Life:
    network = world.network()
    near, far = pair(network.actor("client").thread("dialler"), listen(network.actor("server")))
    trace = yield
    close(near, far)
    assert_closed(trace, (Told(near, "close", ended="local_close"), {}), (Told(far, "close", ended="remote_close"), {}))


def one_that_waited_in_the_backlog_is_accepted(world: World) -> Life:
    network = world.network()
    listener = listen(network.actor("server"))
    near = connect(network.actor("client"), listener.address)
    near.send(9)
    trace = yield
    far = listener.accept()
    near.peer, far.peer = far, near
    far.receive_all()
    close(near, far)
    told = Told(far, "accept close", ended="remote_close", facts={"pre_existing": True})
    trace.await_told([told])
    assert_closed(trace, (Told(near, "close", ended="local_close"), {}))
    trace.tells(told, alone=False)


def a_listener_owns_what_nobody_accepts(world: World) -> Life:
    network = world.network()
    listener = listen(network.actor("server"))
    trace = yield
    near = connect(network.actor("client"), listener.address)
    far = listener.pending(near)
    listener.close()
    near.await_end()
    near.close()
    trace.tells(Told(near, "connect established close", ended="remote_reset"), Told(far, "close", ended="local_reset"))


def one_that_lives_on_is_not_listed_unasked(world: World) -> Life:
    network = world.network()
    near, far = pair(network.actor("client"), listen(network.actor("server")))
    trace = yield
    trace.settle()
    assert story(trace.events, near) == story(trace.events, far) == []


OLDER_ONES: dict[str, Callable[[World], Life]] = {
    **{
        f"both_ends_are_closed_with_their_totals-{address}-{first}": partial(
            both_ends_are_closed_with_their_totals, address=address, first=first
        )
        for address in ("127.0.0.1", "::1", "::ffff:127.0.0.1")
        for first in ("client", "server")
    },
    **{
        each.__name__: each
        for each in (
            held_by_another_process_only,
            in_another_namespace,
            of_an_ordinary_user_in_a_control_group,
            made_by_a_thread,
            one_that_waited_in_the_backlog_is_accepted,
            a_listener_owns_what_nobody_accepts,
            one_that_lives_on_is_not_listed_unasked,
        )
    },
}


@dataclass
class Begun:
    lives: dict[str, Life]
    trace: Trace


@pytest.fixture(scope="module")
def begun(program: Path, beacon: Beacon) -> Iterator[Begun]:
    """All of them as they stand, and the tracer that came then."""
    with ExitStack() as stack:
        world = World(partial(new_network, program, stack), stack.enter_context(new_cgroup()))
        lives = {name: begin(world) for name, begin in OLDER_ONES.items()}
        for life in lives.values():
            next(life)
        yield Begun(lives, Trace(stack.enter_context(Tracer(names=False)), beacon))


def new_network(program: Path, stack: ExitStack) -> Network:
    network = Network(program)
    stack.callback(network.close)
    return network


@pytest.mark.parametrize("older", OLDER_ONES)
def test_one_older_than_the_tracer_is_told_right(begun: Begun, older: str) -> None:
    with pytest.raises(StopIteration):
        begun.lives[older].send(begun.trace)


def test_attempts_that_were_on_their_way(traced: Callable[..., Trace], networks: Callable[[], Network]) -> None:
    """One succeeds, the other is refused."""
    here, there = networks(), networks()
    here.wire(there, "10.9.0.1/24", "10.9.0.2/24")
    there.ip("route add blackhole 10.9.0.1/32")
    listener = listen(there.actor("server"), "10.9.0.2")
    succeeds = begin_connect(here.actor("client"), listener.address, source=("10.9.0.1", 4000))
    fails = begin_connect(here.actor("client"), ("10.9.0.2", 80), source=("10.9.0.1", 4001))
    trace = traced()
    there.ip("route delete blackhole 10.9.0.1/32")
    near, far = succeeds.finish(), listener.accept()
    near.peer, far.peer = far, near
    refused = fails.finish()
    assert refused.error == "ECONNREFUSED"
    close(near, far)
    syns = here.syns_resent - near.resent
    trace.tells(
        Told(near, "established close", ended="local_close", syn_retransmits=near.resent, facts=OLDER),
        Told(far, "accept close", ended="remote_close"),
        Told(refused, "failed", reason="refused", error="ECONNREFUSED", syn_retransmits=syns, facts=OLDER),
    )
    assert event_of(trace.events, near, Established).latency_ns is None


def test_existing_lists_them_as_they_stand(traced: Callable[..., Trace], client: Actor, server: Actor) -> None:
    near, far = pair(client, listen(server, "::"), to="::1")
    near.send(1234)
    far.receive_all()
    trace = traced(existing=True)
    listed = [Told(end, "existing", facts=OLDER) for end in (near, far)]
    trace.await_told(listed)
    for end, facts in ((near, {"tx_bytes": 1234, "rx_bytes": 0}), (far, {"tx_bytes": 0, "rx_bytes": 1234})):
        end.direction = trace.older_direction(end)
        existing = event_of(trace.events, end, Existing)
        expected = facts | {"tx_acked": facts["tx_bytes"], "state": "ESTABLISHED", "retransmits": 0}
        assert {key: getattr(existing, key) for key in expected} == expected
    close(near, far)
    told = (Told(near, "existing close", ended="local_close"), Told(far, "existing close", ended="remote_close"))
    for each in told:
        each.facts = OLDER
    trace.tells(*told, alone=False)


def test_what_only_has_the_number_of_tcp_is_none(traced: Callable[..., Trace], network: Network) -> None:
    """As netlink's for IPsec does, and a raw socket that has a remote."""
    actor = network.actor("impostor")
    actor.do("raw", int(socket.AF_NETLINK), 6)
    for family, here in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        actor.do("connect", actor.do("raw", int(family), socket.IPPROTO_TCP).fd, here, 0)
    trace = traced(netns=network.path, existing=True)
    assert trace.tracer.snapshot() == []
    assert trace.settle() == []


def share(actor: Actor) -> Listener:
    """A listener of a port that others listen on, too."""
    return listen(actor, port=8000, options={"SO_REUSEPORT": 1})


def owners_of_what_nobody_accepts(
    trace: Trace, client: Actor, listeners: list[Listener], closes: Iterable[Callable[[], None]]
) -> set[tuple[int | None, str | None]]:
    """Of connections that wait in any of these until all are closed."""
    nears = [connect(client, listeners[0].address) for _ in range(6)]
    fars = [listeners[0].pending(near) for near in nears]
    for close_one in closes:
        close_one()
    for near in nears:
        near.await_end()
        near.close()
    trace.await_told(Told(far, "close") for far in fars)
    closed = [event_of(trace.events, far, Close) for far in fars]
    return {(event.pid, event.owner) for event in closed}


def test_of_processes_that_share_a_port_none_is_named_for_all(
    traced: Callable[..., Trace], network: Network, client: Actor
) -> None:
    listeners = [share(network.actor(f"server-{at}")) for at in range(3)]
    trace = traced(netns=network.path)
    closes = [each.close for each in listeners]
    assert owners_of_what_nobody_accepts(trace, client, listeners, closes) == {(None, None)}
    later = share(network.actor("later"))
    assert owners_of_what_nobody_accepts(trace, client, [later], [later.close]) == {(later.actor.pid, "listen")}


def test_listeners_that_a_worker_inherited_are_its_parent_s(
    traced: Callable[..., Trace], network: Network, client: Actor
) -> None:
    """Each is met in both processes, and is one all the same."""
    parent = network.actor("parent")
    listeners = [share(parent) for _ in range(2)]
    worker = parent.fork("worker")
    trace = traced(netns=network.path)
    closes = [partial(each.close, by=holder) for each in listeners for holder in (parent, worker)]
    assert owners_of_what_nobody_accepts(trace, client, listeners, closes) == {(parent.pid, "listen")}
    later = share(network.actor("later"))
    assert owners_of_what_nobody_accepts(trace, client, [later], [later.close]) == {(later.actor.pid, "listen")}
