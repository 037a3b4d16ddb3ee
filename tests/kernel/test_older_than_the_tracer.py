"""Connections that were there before: their owner and totals are right, and no lifetime is invented."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytracecon import Close, Established, Existing
from traffic.actor import Actor
from traffic.end import End, begin_connect, close, connect, listen, pair
from traffic.network import Network
from traffic.story import Told, event_of, story
from traffic.trace import Trace

OLDER = {"owner": "existing", "pre_existing": True, "tid": None, "thread": None}


def direction_may_be_unknown(trace: Trace, end: End) -> None:
    """Which side asked cannot be seen any more, save by a listener: a guess is worse than `unknown`."""
    (direction,) = trace.directions(end)
    assert direction in (end.direction, "unknown")
    end.direction = direction


def assert_closed(trace: Trace, end: End, ended: str, **facts: object) -> None:
    told = Told(end, "close", ended=ended, facts=OLDER | facts)
    trace.await_told([told])
    direction_may_be_unknown(trace, end)
    trace.tells(told, alone=False)
    assert event_of(trace.events, end, Close).duration_ns is None


@pytest.mark.parametrize("first", ["client", "server"])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_both_ends_are_closed_with_their_totals(
    traced: Callable[..., Trace], client: Actor, server: Actor, address: str, first: str
) -> None:
    near, far = pair(client, listen(server, "::"), to=address)
    near.send(1234)
    far.receive_all()
    trace = traced()
    far.send(77)
    near.receive_all()
    close(*((near, far) if first == "client" else (far, near)))
    ended = ("local_close", "remote_close") if first == "client" else ("remote_close", "local_close")
    assert_closed(trace, near, ended[0])
    assert_closed(trace, far, ended[1])
    assert len(story(trace.events, near) + story(trace.events, far)) == 2


def test_held_by_another_process_only(traced: Callable[..., Trace], client: Actor, server: Actor) -> None:
    """Whoever connected has closed its descriptor; a child holds the connection."""
    near, far = pair(client, listen(server))
    child = client.fork("heir")
    near.close()
    trace = traced()
    near.send(10, by=child)
    far.receive_all()
    near.close(by=child)
    far.await_end()
    far.close()
    assert_closed(trace, near, "local_close", pid=child.pid, comm="heir")
    assert_closed(trace, far, "remote_close")


def test_in_another_namespace(traced: Callable[..., Trace], networks: Callable[[], Network]) -> None:
    here, there = networks(), networks()
    here.wire(there, "10.9.0.1/24", "10.9.0.2/24")
    near, far = pair(here.actor("client"), listen(there.actor("server"), "10.9.0.2"))
    near.send(500)
    far.receive_all()
    trace = traced()
    far.reset()
    near.await_end()
    near.close()
    assert_closed(trace, near, "remote_reset")
    assert_closed(trace, far, "local_reset")


def test_of_an_ordinary_user_in_a_control_group(
    traced: Callable[..., Trace], client: Actor, server: Actor, cgroup: object
) -> None:
    client.do("write", f"{cgroup}/cgroup.procs", client.pid)
    client.set_user(4711)
    near, far = pair(client, listen(server))
    trace = traced()
    close(near, far)
    assert near.opened.uid == 4711
    assert_closed(trace, near, "local_close")
    assert_closed(trace, far, "remote_close")


def test_by_a_thread(traced: Callable[..., Trace], client: Actor, server: Actor) -> None:
    near, far = pair(client.thread("dialler"), listen(server))
    trace = traced()
    close(near, far)
    assert_closed(trace, near, "local_close")
    assert_closed(trace, far, "remote_close")


def test_an_attempt_that_was_on_its_way(traced: Callable[..., Trace], networks: Callable[[], Network]) -> None:
    here, there = networks(), networks()
    here.wire(there, "10.9.0.1/24", "10.9.0.2/24")
    there.ip("route add blackhole 10.9.0.1/32")
    listener = listen(there.actor("server"), "10.9.0.2")
    succeeds = begin_connect(here.actor("client"), listener.address, source=("10.9.0.1", 4000))
    trace = traced()
    there.ip("route delete blackhole 10.9.0.1/32")
    near, far = succeeds.finish(), listener.accept()
    near.peer, far.peer = far, near
    close(near, far)
    trace.tells(
        Told(near, "established close", ended="local_close", syn_retransmits=near.resent, facts=OLDER),
        Told(far, "accept close", ended="remote_close"),
    )
    assert event_of(trace.events, near, Established).latency_ns is None


def test_an_attempt_that_was_on_its_way_and_fails(
    traced: Callable[..., Trace], networks: Callable[[], Network]
) -> None:
    here, there = networks(), networks()
    here.wire(there, "10.9.0.1/24", "10.9.0.2/24")
    there.ip("route add blackhole 10.9.0.1/32")
    attempt = begin_connect(here.actor("client"), ("10.9.0.2", 80), source=("10.9.0.1", 4000))
    trace = traced()
    there.ip("route delete blackhole 10.9.0.1/32")
    end = attempt.finish()
    assert end.error == "ECONNREFUSED"
    told = Told(end, "failed", reason="refused", error="ECONNREFUSED", syn_retransmits=here.syns_resent, facts=OLDER)
    trace.tells(told, alone=False)


def test_one_that_waited_in_the_backlog_is_accepted(traced: Callable[..., Trace], client: Actor, server: Actor) -> None:
    listener = listen(server)
    near = connect(client, listener.address)
    near.send(9)
    trace = traced()
    far = listener.accept()
    near.peer, far.peer = far, near
    far.receive_all()
    close(near, far)
    assert_closed(trace, near, "local_close")
    trace.tells(Told(far, "accept close", ended="remote_close", facts={"pre_existing": True}), alone=False)


def test_a_listener_that_was_there_owns_what_nobody_accepts(
    traced: Callable[..., Trace], client: Actor, server: Actor
) -> None:
    listener = listen(server)
    trace = traced()
    near = connect(client, listener.address)
    far = listener.pending(near)
    listener.close()
    near.await_end()
    near.close()
    trace.tells(Told(near, "connect established close", ended="remote_reset"), Told(far, "close", ended="local_reset"))


def test_existing_lists_them_as_they_stand(traced: Callable[..., Trace], client: Actor, server: Actor) -> None:
    near, far = pair(client, listen(server, "::"), to="::1")
    near.send(1234)
    far.receive_all()
    trace = traced(existing=True)
    for end, facts in ((near, {"tx_bytes": 1234, "rx_bytes": 0}), (far, {"tx_bytes": 0, "rx_bytes": 1234})):
        told = Told(end, "existing", facts=OLDER)
        trace.await_told([told])
        direction_may_be_unknown(trace, end)
        existing = event_of(trace.events, end, Existing)
        expected = facts | {"tx_acked": facts["tx_bytes"], "state": "ESTABLISHED", "retransmits": 0}
        assert {key: getattr(existing, key) for key in expected} == expected
    close(near, far)
    for end, ended in ((near, "local_close"), (far, "remote_close")):
        trace.tells(Told(end, "existing close", ended=ended, facts=OLDER), alone=False)


def test_the_older_ones_are_not_listed_unasked(traced: Callable[..., Trace], client: Actor, server: Actor) -> None:
    near, _ = pair(client, listen(server))
    trace = traced()
    trace.settle()
    assert story(trace.events, near) == []
