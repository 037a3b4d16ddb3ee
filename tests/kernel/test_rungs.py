"""Every rung tells the same of the same traffic, and it is the truth: fentry, kprobe, tracepoint.

A rung's tracer is there for all its tests, as starting one takes longest of all where the machine is emulated.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest

from pytracecon import ConnectionEvent, Tracer
from pytracecon.errors import UnsupportedKernel
from traffic.actor import Actor
from traffic.end import End, Listener, begin_connect, close, connect, fast_open, join, listen, pair
from traffic.network import Network
from traffic.story import Told
from traffic.trace import Beacon, Trace

OUT, IN = "connect established close", "accept close"

MEASURED = {"time_ns", "latency_ns", "wait_ns", "duration_ns", "rtt_ns"}
"""Keys that differ from one tracer to the other by a few instructions."""


@dataclass
class Waiting:
    """Tasks that are blocked in accept, on a listener of theirs."""

    network: Network
    listener: Listener
    workers: list[Actor]


@dataclass
class Rung:
    """A tracer that stands on one rung alone, and what was there before it."""

    trace: Trace
    waiting: dict[str, Waiting]
    opened: tuple[End, End]


@pytest.fixture(scope="module", params=["fentry", "kprobe", "tracepoint"])
def rung(request: pytest.FixtureRequest, program: Path, beacon: Beacon) -> Iterator[Rung]:
    with ExitStack() as stack:

        def network() -> Network:
            network = Network(program)
            stack.callback(network.close)
            return network

        waiting = {kind: blocked_in_accept(network(), kind) for kind in ("fork", "thread")}
        here = network()
        opened = pair(here.actor("client"), listen(here.actor("server")))
        try:
            tracer = stack.enter_context(Tracer(probes=request.param, names=False, ring_size="64M"))
        except UnsupportedKernel:
            pytest.skip(f"{request.param} programs do not attach in this kernel")
        # Services have one rung only, and attach where another test has loaded IPVS.
        rungs = {probe.rung for probe in tracer.probes if probe.attached and probe.need != "services"}
        assert request.param in rungs <= {request.param, "tracepoint", "iterator"}
        yield Rung(Trace(tracer, beacon), waiting, opened)


def blocked_in_accept(network: Network, kind: str) -> Waiting:
    parent = network.actor("parent")
    listener = listen(parent)
    make_one = parent.fork if kind == "fork" else parent.thread
    workers = [make_one(f"worker-{at}") for at in range(4)]
    for worker in workers:
        worker.begin("accept", listener.socket)
    for worker in workers:
        worker.await_blocked()
    return Waiting(network, listener, workers)


def every_way_to_connect(network: Network) -> list[Told]:
    client, server = network.actor("client"), network.actor("server")
    listener = listen(server, "::")
    told = []
    for address in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
        for how in ("", "nonblock", "uring"):
            near, far = pair(client, listener, to=address, how=how, accept=how.replace("nonblock", "null"))
            near.send(100)
            far.receive_all()
            close(far, near)
            told += [Told(near, OUT, ended="remote_close"), Told(far, IN, ended="local_close")]
    return told


def threads_and_forks(network: Network) -> list[Told]:
    client, server = network.actor("client"), network.actor("server")
    listener = listen(server)
    near, far = pair(client.thread("dialler"), listener, by=server.thread("taker"))
    heir = client.fork("heir")
    near.close()
    near.close(by=heir)
    far.await_end()
    far.close()
    again, again_far = pair(client.fork("child"), listener, by=server.fork("worker"))
    again.reset()
    again_far.await_end()
    again_far.close()
    return [
        Told(near, OUT, ended="local_close"),
        Told(far, IN, ended="remote_close"),
        Told(again, OUT, ended="local_reset"),
        Told(again_far, IN, ended="remote_reset"),
    ]


def refused(network: Network) -> list[Told]:
    client = network.actor("client")
    ways = itertools.product(("127.0.0.1", "::1", "::ffff:127.0.0.1"), ("", "nonblock", "uring"))
    ends = [
        connect(client, (address, 9), how=how, source=(address, port)) for port, (address, how) in enumerate(ways, 4000)
    ]
    assert {end.error for end in ends} == {"ECONNREFUSED"}
    return [Told(end, "connect failed", reason="refused", error="ECONNREFUSED") for end in ends]


def no_way_there(network: Network) -> list[Told]:
    client = network.actor("client")
    network.ip("route add prohibit 10.8.0.0/16", "route add unreachable 10.7.0.0/16")
    network.sysctl("net.ipv4.ip_local_port_range", 40000, 40000)
    client.do("bind", client.do("socket", 4).fd, "127.0.0.1", 40000)
    told = []
    for to, error, reason in (
        (("10.6.0.1", 80), "ENETUNREACH", "unreachable"),
        (("2001:db8::1", 80), "ENETUNREACH", "unreachable"),
        (("::ffff:10.7.0.1", 80), "EHOSTUNREACH", "unreachable"),
        (("10.8.0.1", 80), "EACCES", "denied"),
        (("127.0.0.1", 80), "EADDRNOTAVAIL", "no_address"),
    ):
        end = connect(client, to)
        assert end.error == error
        unknown = ("local_port",) if reason == "no_address" else ("local_addr", "local_port")
        told.append(Told(end, "failed", reason=reason, error=error, facts=dict.fromkeys(unknown)))
    return told


def cancelled(network: Network) -> list[Told]:
    network.ip("link add here type veth peer name there", "address add 10.9.0.1/24 dev here")
    network.ip("link set here up", "link set there up", "neighbour add 10.9.0.2 lladdr 02:00:00:00:00:99 dev here")
    attempt = begin_connect(network.actor("client"), ("10.9.0.2", 80), source=("10.9.0.1", 4000))
    assert attempt.opened.errno == "EINPROGRESS"
    return [Told(attempt.give_up(lambda end: end.close()), "connect failed", reason="cancelled")]


def never_accepted(network: Network) -> list[Told]:
    listener = listen(network.actor("server"))
    near = connect(network.actor("client"), listener.address)
    far = listener.pending(near)
    listener.close()
    near.await_end()
    near.close()
    return [Told(near, OUT, ended="remote_reset"), Told(far, "close", ended="local_reset")]


def fast_opened(network: Network) -> list[Told]:
    """Asking for a cookie, with one, and with a connect() that leaves the SYN to the first send."""
    network.sysctl("net.ipv4.tcp_fastopen", 3)
    client, server = network.actor("client"), network.actor("server")
    listener = listen(server, options={"TCP_FASTOPEN": 16})
    told = []
    for at in range(3):
        if at < 2:
            near = fast_open(client, listener, 100)
        else:
            near = connect(client, listener.address, options={"TCP_FASTOPEN_CONNECT": 1})
            near.syn = near.settled = near.send(100)
        far = listener.accept()
        near.settled = replace(near.settled, mono=(0, far.opened.mono[1]), wall=(0, far.opened.wall[1]))
        near.peer, far.peer = far, near
        far.receive_all()
        close(near, far)
        told += [Told(near, OUT, ended="local_close"), Told(far, IN, ended="remote_close")]
    return told


def multipath(network: Network) -> list[Told]:
    client, server = network.actor("client"), network.actor("server")
    if client.attempt("socket", 4, "mptcp").errno:
        pytest.skip("no MPTCP in this kernel")
    network.sysctl("net.mptcp.enabled", 1)
    near, far = pair(client, listen(server, mptcp=True))
    near.send(1000)
    far.receive_all()
    close(near, far)
    return [Told(near, OUT, ended="local_close"), Told(far, IN, ended="remote_close")]


TOUR = [
    every_way_to_connect,
    threads_and_forks,
    refused,
    no_way_there,
    cancelled,
    never_accepted,
    fast_opened,
    multipath,
]


@pytest.mark.parametrize("traffic", TOUR, ids=lambda traffic: traffic.__name__)
def test_a_rung_tells_the_truth_and_what_the_best_one_tells(
    rung: Rung, trace: Trace, network: Network, traffic: Callable[[Network], list[Told]]
) -> None:
    rung.trace.restart()
    told = traffic(network)
    for each in (rung.trace, trace):
        each.tells(*told)
    assert compared(rung.trace, network) == compared(trace, network)


def compared(trace: Trace, network: Network) -> list[ConnectionEvent]:
    """The events of a namespace without what is a tracer's own: the names it gives, and measured times."""
    ours = [event for event in trace.events if isinstance(event, ConnectionEvent) and event.netns == network.inode]
    names = {conn: f"connection {at}" for at, conn in enumerate(dict.fromkeys(event.conn for event in ours))}

    def plain(event: ConnectionEvent) -> ConnectionEvent:
        measured: dict[str, Any] = {
            each.name: 0 for each in fields(event) if each.name in MEASURED and getattr(event, each.name)
        }
        path_of = event.subflow_of and names.get(event.subflow_of)
        return replace(event, conn=names[event.conn], subflow_of=path_of, **measured)

    return [plain(event) for event in ours]


@pytest.mark.parametrize("kind", ["fork", "thread"])
def test_tasks_that_were_blocked_in_accept_before(rung: Rung, kind: str) -> None:
    """A probe on a return sees none of them."""
    waiting = rung.waiting[kind]
    client = waiting.network.actor("client")
    nears = [connect(client, waiting.listener.address) for _ in waiting.workers]
    pairs = join(nears, [waiting.listener.accepted(worker, worker.finish()) for worker in waiting.workers])
    told = []
    for near, far in pairs:
        close(near, far)
        told += [Told(near, OUT, ended="local_close"), Told(far, IN, ended="remote_close")]
    rung.trace.tells(*told)


def test_what_was_open_before_has_its_owner(rung: Rung) -> None:
    near, far = rung.opened
    close(near, far)
    told = [Told(near, "close", ended="local_close"), Told(far, "close", ended="remote_close")]
    rung.trace.await_told(told)
    for each in told:
        each.end.direction = rung.trace.older_direction(each.end)
        each.facts = {"owner": "existing", "pre_existing": True}
    rung.trace.tells(*told)
