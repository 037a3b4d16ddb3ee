"""Payload, to the byte: through every door the kernel has for it, whatever was asked, peeked or lost."""

from __future__ import annotations

import pytest

from pytracecon import Close
from traffic.actor import Actor
from traffic.end import End, close, listen, pair
from traffic.story import Told, event_of
from traffic.trace import Trace

OUT, IN = "connect established close", "accept close"

URING = [pytest.param(how, marks=pytest.mark.io_uring) for how in ("uring", "uring-async")]
SENDS = ["send", "write", "writev", "sendmsg", "sendmmsg", "sendfile", "splice", *URING]
RECEIVES = ["recv", "read", "readv", "recvmsg", "recvmmsg", "splice", "trunc", *URING]


@pytest.fixture
def ends(client: Actor, server: Actor) -> tuple[End, End]:
    return pair(client, listen(server))


def assert_told(trace: Trace, near: End, far: End) -> None:
    """The client closed first."""
    trace.tells(Told(near, OUT, ended="local_close"), Told(far, IN, ended="remote_close"))


@pytest.mark.parametrize("first", ["client", "server"])
@pytest.mark.parametrize(("there", "back"), [(0, 0), (1, 0), (0, 1), (100, 100), (1_000_003, 77_777)])
def test_both_ways(trace: Trace, ends: tuple[End, End], there: int, back: int, first: str) -> None:
    """A SYN and a FIN count as a byte each in the kernel's own counters: not here, at either end."""
    near, far = ends
    near.actor.begin("send", near.socket, there, "send")
    assert far.receive(there).result == there
    near.sent += near.actor.finish().result
    far.actor.begin("send", far.socket, back, "send")
    assert near.receive(back).result == back
    far.sent += far.actor.finish().result
    assert (near.sent, far.sent) == (there, back)
    close(*((near, far) if first == "client" else (far, near)))
    ended = ("local_close", "remote_close") if first == "client" else ("remote_close", "local_close")
    trace.tells(Told(near, OUT, ended=ended[0]), Told(far, IN, ended=ended[1]))


@pytest.mark.parametrize("how", SENDS)
def test_sent_by(trace: Trace, ends: tuple[End, End], how: str) -> None:
    near, far = ends
    assert near.send(100_001, how).result == 100_001
    far.receive_all()
    close(near, far)
    assert_told(trace, near, far)


@pytest.mark.parametrize("how", RECEIVES)
def test_received_by(trace: Trace, ends: tuple[End, End], how: str) -> None:
    near, far = ends
    far.send(50_001)
    near.receive_all(how)
    close(near, far)
    assert_told(trace, near, far)


def test_peeked_is_not_received_twice(trace: Trace, ends: tuple[End, End]) -> None:
    near, far = ends
    near.send(1000)
    for _ in range(3):
        assert far.actor.do("peek", far.socket, 1000).result == 1000
    far.receive_all()
    close(near, far)
    assert_told(trace, near, far)


def test_received_counts_though_nobody_read_it(trace: Trace, ends: tuple[End, End]) -> None:
    near, far = ends
    near.send(1000)
    near.shutdown("wr")
    far.await_end()
    far.close()
    near.await_end()
    near.close()
    trace.tells(Told(near, OUT, ended="remote_reset"), Told(far, IN, ended="local_reset"))


def test_taken_sent_and_acknowledged_are_three_numbers(trace: Trace, ends: tuple[End, End]) -> None:
    """A full socket, cut by a reset: what the peer's kernel never got was taken, yet not acknowledged."""
    near, far = ends
    taken = near.send(1 << 40, "dontwait")
    assert taken.errno == "EAGAIN"
    while near.info().extra["bytes_acked"] - 1 != far.info().extra["bytes_received"]:  # the last ACK may be late
        pass
    near.reset()
    far.await_end()
    arrived = far.info().extra["bytes_received"]
    far.close()
    assert 0 < arrived < near.sent
    told = Told(near, OUT, ended="local_reset", tx_acked=arrived)
    trace.tells(told, Told(far, IN, ended="remote_reset", rx_bytes=arrived))


def test_asked_is_not_taken(trace: Trace, ends: tuple[End, End]) -> None:
    near, far = ends
    near.set("SO_SNDBUF", 4096)
    while not near.send(1 << 20, "dontwait").errno:
        pass
    far.receive_all()
    far.close()
    near.await_end()
    near.close()
    trace.tells(Told(near, OUT, ended="remote_close"), Told(far, IN, ended="local_close"))


def test_a_round_trip_time_is_known(trace: Trace, ends: tuple[End, End]) -> None:
    near, far = ends
    near.send(1000)
    far.receive_all()
    close(near, far)
    assert_told(trace, near, far)
    rtt = event_of(trace.events, near, Close).rtt_ns
    assert rtt is not None and 0 < rtt < 1_000_000_000


@pytest.mark.slow
def test_more_than_32_bits_hold(trace: Trace, ends: tuple[End, End]) -> None:
    near, far = ends
    amount = (5 << 30) + 1
    near.actor.begin("send", near.socket, amount, "sendfile")
    far.actor.begin("recv", far.socket, amount, "trunc")
    near.sent += near.actor.finish().result
    assert far.actor.finish().result == near.sent == amount
    close(near, far)
    trace.tells(Told(near, OUT, ended="local_close"), Told(far, IN, ended="remote_close"))
