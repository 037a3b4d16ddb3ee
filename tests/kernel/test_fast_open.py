"""TCP fast open: connections without a connect(), or whose connect() sends nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytracecon import Connect, Established
from traffic.actor import Actor
from traffic.end import End, Listener, close, connect, fast_open, listen
from traffic.network import Network
from traffic.story import Told, event_of
from traffic.trace import Trace

OUT, IN = "connect established close", "accept close"


@pytest.fixture
def listener(network: Network, server: Actor) -> Listener:
    network.sysctl("net.ipv4.tcp_fastopen", 3)
    return listen(server, options={"TCP_FASTOPEN": 16})


def accept(listener: Listener, near: End) -> End:
    far = listener.accept()
    near.peer, far.peer = far, near
    far.receive_all()
    return far


def get_cookie(client: Actor, listener: Listener, trace: Trace) -> None:
    """A first connection, which the server answers with a cookie for the next."""
    near = fast_open(client, listener, 10)
    close(near, accept(listener, near))
    trace.restart()


def assert_fast_opened(trace: Trace, end: End, *, asked: bool, taken: bool) -> None:
    assert bool(event_of(trace.events, end, Connect).fastopen) is asked
    assert bool(event_of(trace.events, end, Established).fastopen) is taken


def test_without_a_cookie_the_data_come_after_the_handshake(trace: Trace, client: Actor, listener: Listener) -> None:
    near = fast_open(client, listener, 100)
    far = accept(listener, near)
    close(near, far)
    trace.tells(Told(near, OUT, ended="local_close"), Told(far, IN, ended="remote_close"))
    assert_fast_opened(trace, near, asked=True, taken=False)


def test_with_a_cookie_the_syn_carries_data(trace: Trace, client: Actor, listener: Listener) -> None:
    get_cookie(client, listener, trace)
    near = fast_open(client, listener, 100)
    far = accept(listener, near)
    close(near, far)
    trace.tells(Told(near, OUT, ended="local_close"), Told(far, IN, ended="remote_close"))
    assert_fast_opened(trace, near, asked=True, taken=True)


@pytest.mark.parametrize("first", ["client", "server"])
def test_a_deferred_connect_begins_with_the_first_send(
    trace: Trace, client: Actor, listener: Listener, first: str
) -> None:
    """With TCP_FASTOPEN_CONNECT and a cookie, connect() sends nothing: latency runs from the first send."""
    get_cookie(client, listener, trace)
    near = connect(client, listener.address, options={"TCP_FASTOPEN_CONNECT": 1})
    assert near.info().extra["state"] == 2, "SYN_SENT, and no SYN was sent"
    client.do("pause", 300)
    near.syn = near.send(100)
    far = accept(listener, near)
    near.settled = replace(near.syn, mono=(0, far.opened.mono[1]), wall=(0, far.opened.wall[1]))
    far.send(5)
    near.receive_all()
    close(*((near, far) if first == "client" else (far, near)))
    ended = ("local_close", "remote_close") if first == "client" else ("remote_close", "local_close")
    trace.tells(Told(near, OUT, ended=ended[0]), Told(far, IN, ended=ended[1]))
    assert_fast_opened(trace, near, asked=True, taken=True)


def test_a_deferred_connect_without_a_cookie_begins_at_once(trace: Trace, client: Actor, listener: Listener) -> None:
    near = connect(client, listener.address, options={"TCP_FASTOPEN_CONNECT": 1})
    far = accept(listener, near)
    near.send(100)
    far.receive_all()
    close(near, far)
    trace.tells(Told(near, OUT, ended="local_close"), Told(far, IN, ended="remote_close"))
    assert_fast_opened(trace, near, asked=True, taken=False)


def test_a_deferred_connect_that_never_sends_is_cancelled(trace: Trace, client: Actor, listener: Listener) -> None:
    get_cookie(client, listener, trace)
    near = connect(client, listener.address, options={"TCP_FASTOPEN_CONNECT": 1})
    near.settled = near.close()
    trace.tells(Told(near, "failed", reason="cancelled"))


def test_a_refused_fast_open(trace: Trace, client: Actor, listener: Listener) -> None:
    get_cookie(client, listener, trace)
    listener.close()
    near = fast_open(client, listener, 100)
    near.local = None
    assert near.error == "ECONNREFUSED"
    trace.tells(Told(near, "connect failed", reason="refused", error="ECONNREFUSED"))
