"""The real server behind a virtual one of IPVS. What a client asked for stays what it was."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from socket import IPPROTO_UDP

import pytest

from pytracecon import Close, Connect, ConnectionEvent, Endpoint, Established, Failed, Flow, Retransmit, State, Tracer
from pytracecon.virtual_services import VirtualServices
from traffic import ipvs
from traffic.actor import DEADLINE, Actor
from traffic.end import begin_connect, close, connect, listen
from traffic.network import Network
from traffic.trace import Beacon, Trace

EVENTS = "connect,established,failed,close,state,retransmit,flow"
ACCEPTED, REFUSED, UNANSWERED = ("127.0.0.1", 33), ("127.0.0.1", 44), ("127.0.0.1", 55)
NOBODY = ("203.0.113.2", 1234)


@pytest.fixture(scope="module", autouse=True)
def watching(beacon: Beacon) -> Iterator[Trace]:
    """A tracer that is older than IPVS."""
    if not ipvs.unload():
        pytest.skip("no IPVS in this kernel, or no kprobes to see it")
    with Tracer(events=EVENTS, names=False) as tracer:
        trace = Trace(tracer, beacon)
        (waiting,) = [probe for probe in tracer.probes if probe.need == "services"]
        assert (waiting.attached, "ip_vs is not loaded" in waiting.detail) == (False, True)
        ipvs.load()
        assert trace.until(lambda _: all(probe.attached for probe in tracer.probes if probe.need == "services"))
        yield trace


@pytest.fixture
def trace(watching: Trace) -> Trace:
    """What is told from now on, of one tracer for all tests that ask for no other."""
    watching.restart()
    return watching


def of(trace: Trace, actor: Actor) -> list[ConnectionEvent]:
    return [event for event in trace.settle() if isinstance(event, ConnectionEvent) and event.pid == actor.pid]


def services(events: list[ConnectionEvent], *kinds: type[ConnectionEvent]) -> set[Endpoint | None]:
    return {event.service for event in events if isinstance(event, kinds)}


def an_address_that_never_answers(network: Network) -> None:
    network.ip("link add d0 type dummy", "address add 203.0.113.1/24 dev d0", "link set d0 up")


def test_an_accepted_connection_tells_who_took_it(trace: Trace, network: Network, client: Actor, server: Actor) -> None:
    listener = listen(server)
    ipvs.add(network, ACCEPTED, listener.address)  # while it is traced
    near = connect(client, ACCEPTED)
    close(near, listener.accept())
    events = of(trace, client)
    real = Endpoint(*listener.address)
    assert {(event.remote_addr, event.remote_port) for event in events} == {ACCEPTED}
    assert services(events, Established, Close) == {real}
    assert services(events, Connect) == {None}
    states = [event for event in events if isinstance(event, State)]
    assert [event.service for event in states] == [None] + [real] * (len(states) - 1)
    assert [event.meaning for event in states if event.meaning] == ["open", "closed_by_client"]
    assert services(of(trace, server), ConnectionEvent) <= {None}


def test_a_refusal_tells_who_refused(trace: Trace, network: Network, client: Actor) -> None:
    ipvs.add(network, REFUSED, ("127.0.0.1", 2345))
    client.do("refused", 1, *REFUSED)
    events = of(trace, client)
    assert services(events, Failed) == {Endpoint("127.0.0.1", 2345)}
    assert [(e.meaning, e.service) for e in events if isinstance(e, State)][-1] == (
        "refused",
        Endpoint("127.0.0.1", 2345),
    )


@pytest.mark.parametrize("method", ipvs.METHODS)
def test_an_attempt_without_an_answer_tells_who_does_not_answer(
    trace: Trace, network: Network, client: Actor, method: str
) -> None:
    an_address_that_never_answers(network)
    nobody = NOBODY if method == "masquerading" else (NOBODY[0], UNANSWERED[1])  # the others leave ports alone
    ipvs.add(network, UNANSWERED, nobody, method=method)
    attempt = begin_connect(client, UNANSWERED, how="nonblock")
    attempt.await_resent()
    real = Endpoint(*nobody)
    (first,) = [event for event in of(trace, client) if isinstance(event, State)]
    trace.tracer.complete(first)
    assert (first.new, first.service) == ("SYN_SENT", real)
    client.do("close", attempt.socket)
    events = of(trace, client)
    again = [event for event in events if isinstance(event, Retransmit)]
    assert {(event.segment, event.meaning, event.service) for event in again} == {("syn", "slow_establishing", real)}
    assert services(events, Failed) == {real}
    assert [event.meaning for event in events if isinstance(event, State)] == ["open", "gave_up"]


def test_a_service_that_is_removed_in_mid_connection_is_the_connection_s_to_its_end(
    trace: Trace, network: Network, client: Actor, server: Actor
) -> None:
    listener = listen(server)
    ipvs.add(network, ACCEPTED, listener.address)
    near = connect(client, ACCEPTED)
    far = listener.accept()
    ipvs.remove(network, ACCEPTED)
    near.reset()
    far.close()
    events = of(trace, client)
    assert services(events, Established, Close) == {Endpoint(*listener.address)}
    assert [event.event for event in events][-1] == "close"


def test_what_goes_straight_has_no_service(trace: Trace, network: Network, client: Actor, server: Actor) -> None:
    listener = listen(server)
    ipvs.add(network, ACCEPTED, listener.address)
    near = connect(client, listener.address)
    close(near, listener.accept())
    assert services(of(trace, client), ConnectionEvent) == {None}


def test_a_conversation_by_datagrams_tells_who_took_it(
    trace: Trace, network: Network, client: Actor, server: Actor
) -> None:
    """One of a socket that is connected, and sees where it sends from."""
    taker = server.do("datagram", 4)
    server.do("bind", taker.fd, "127.0.0.1", 2345)
    ipvs.add(network, REFUSED, ("127.0.0.1", 2345), protocol=IPPROTO_UDP)
    sender = client.do("datagram", 4)
    client.do("connect", sender.fd, *REFUSED)
    client.do("put", sender.fd, "68656c6c6f")
    client.do("close", sender.fd)
    assert trace.until(lambda events: any(isinstance(event, Flow) and event.pid == client.pid for event in events))
    (flow,) = [event for event in of(trace, client) if isinstance(event, Flow)]
    assert (flow.remote_addr, flow.remote_port) == REFUSED
    assert (flow.tx_packets, flow.service) == (1, Endpoint("127.0.0.1", 2345))


def test_how_the_service_is_set_up_can_be_asked_for(trace: Trace, network: Network, client: Actor) -> None:
    ipvs.add(network, REFUSED, ("127.0.0.1", 2345), method="masquerading")
    client.do("refused", 1, *REFUSED)
    services = VirtualServices()
    told = [event for event in of(trace, client) if isinstance(event, State)]
    detail = services.of(told[-1], patience=DEADLINE)
    assert detail == ("rr", 1, "masquerading")
    for event in told:
        services.fill(event)
    assert [event.service_scheduler for event in told] == [None, "rr"]


def test_two_real_servers_take_turns(trace: Trace, network: Network, client: Actor, server: Actor) -> None:
    listeners = [listen(server, how="nonblock"), listen(server, how="nonblock")]
    ipvs.add(network, ACCEPTED, *(listener.address for listener in listeners))
    for _ in range(4):
        near = connect(client, ACCEPTED)
        (far,) = [end for listener in listeners for end in listener.accept_waiting()]
        close(near, far)
    events = [event for event in of(trace, client) if isinstance(event, Established)]
    told = [event.service for event in events]
    assert told[0] != told[1]
    assert told == [told[0], told[1]] * 2
    assert {(service.addr, service.port) for service in told if service} == {each.address for each in listeners}


def test_ipv6_has_real_servers_too(trace: Trace, network: Network, client: Actor) -> None:
    network.ip("address add fd99::1/64 dev lo nodad", "address add fd99::9/64 dev lo nodad")
    ipvs.add(network, ("fd99::9", 33), ("fd99::1", 2345))
    client.do("refused", 1, "fd99::9", 33)
    assert services(of(trace, client), Failed) == {Endpoint("fd99::1", 2345)}


def test_a_connection_older_than_the_tracer_tells_who_took_it(
    traced: Callable[..., Trace], network: Network, client: Actor, server: Actor
) -> None:
    listener = listen(server)
    ipvs.add(network, ACCEPTED, listener.address)
    near = connect(client, ACCEPTED)
    far = listener.accept()
    trace = traced(netns=network.path, events="existing,close", existing=True)
    close(near, far)
    events = of(trace, client)
    assert [(event.event, event.service) for event in events] == [
        ("existing", Endpoint(*listener.address)),
        ("close", Endpoint(*listener.address)),
    ]


def test_the_same_ends_in_two_namespaces_do_not_mix(trace: Trace, networks: Callable[[], Network]) -> None:
    wanted, clients = {}, {}
    for port in (2345, 2346):
        network = networks()
        ipvs.add(network, REFUSED, ("127.0.0.1", port))
        client = clients[network] = network.actor("client")
        wanted[client.pid] = Endpoint("127.0.0.1", port)
    for client in clients.values():
        step = client.do("socket", 4)
        client.do("bind", step.fd, "127.0.0.1", 5555)
        assert client.attempt("connect", step.fd, *REFUSED).errno == "ECONNREFUSED"
    failed = [event for event in trace.settle() if isinstance(event, Failed) and event.pid in wanted]
    assert {event.pid: event.service for event in failed} == wanted


def test_ipvs_that_was_unloaded_and_comes_back_is_seen_again(trace: Trace, networks: Callable[[], Network]) -> None:
    until = time.monotonic() + DEADLINE
    while not ipvs.unload():  # the kernel takes its time to end namespaces that had services
        assert time.monotonic() < until
    ipvs.load()
    trace.settle()
    network = networks()
    ipvs.add(network, REFUSED, ("127.0.0.1", 2345))
    client = network.actor("client")
    client.do("refused", 1, *REFUSED)
    assert services(of(trace, client), Failed) == {Endpoint("127.0.0.1", 2345)}
