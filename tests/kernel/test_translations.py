"""Where a connection really goes: behind the rules of a packet filter. What it was asked for stays what it was."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from pytracecon import Close, Connect, ConnectionEvent, Endpoint, Established, Failed
from traffic.actor import Actor, TrafficError
from traffic.end import End, begin_connect, close, connect, listen
from traffic.network import Network
from traffic.peers import Ours, tracing
from traffic.story import Told
from traffic.trace import Trace

VIRTUAL = {4: "10.99.0.9", 6: "fd99::9"}
REAL = {4: "10.99.0.1", 6: "fd99::1"}
FAMILY = {4: "ip", 6: "ip6"}


@pytest.fixture
def virtual(network: Network) -> Callable[[int, int, int], tuple[str, int]]:
    """An address of that family that nobody has, and a rule that leads from there to a port of this namespace."""

    def make(family: int, port: int, to: int) -> tuple[str, int]:
        prefix = {4: 24, 6: 64}[family]
        network.ip(f"address replace {REAL[family]}/{prefix} dev lo{' nodad' if family == 6 else ''}")
        if family == 6:
            network.ip(f"route replace {VIRTUAL[6]}/128 dev lo")
        name = FAMILY[family]
        real = f"[{REAL[6]}]" if family == 6 else REAL[4]
        rule = f"{name} daddr {VIRTUAL[family]} tcp dport {port} dnat to {real}:{to}"
        network.run(
            "nft",
            f"add table {name} t; add chain {name} t out {{ type nat hook output priority -100; }}; "
            f"add rule {name} t out {rule}",
        )
        return VIRTUAL[family], port

    return make


def of(trace: Trace, end: End) -> list[ConnectionEvent]:
    return [event for event in trace.events if isinstance(event, ConnectionEvent) and event.pid == end.actor.pid]


@pytest.mark.parametrize("family", [4, 6])
def test_the_rule_of_a_packet_filter_is_told_from_the_first_answer_on(
    trace: Trace,
    client: Actor,
    server: Actor,
    virtual: Callable[[int, int, int], tuple[str, int]],
    family: int,
) -> None:
    listener = listen(server, {4: "0.0.0.0", 6: "::"}[family])
    to = virtual(family, 80, listener.address[1])
    near = connect(client, to)
    far = listener.accept()
    close(near, far)
    trace.settle()
    ours = of(trace, near)
    real = Endpoint(REAL[family], listener.address[1])
    assert {(event.remote_addr, event.remote_port) for event in ours} == {to}
    assert {event.nat for event in ours if isinstance(event, (Established, Close))} == {real}
    assert {event.nat for event in ours if isinstance(event, Connect)} == {None}
    assert {event.service for event in trace.events if isinstance(event, ConnectionEvent)} == {None}
    assert {event.nat for event in of(trace, far)} == {None}


def test_a_refusal_behind_a_rule_tells_who_refused(
    trace: Trace, client: Actor, virtual: Callable[[int, int, int], tuple[str, int]]
) -> None:
    to = virtual(4, 80, 9)
    client.do("refused", 2, *to)
    failed = [event for event in trace.settle() if isinstance(event, Failed) and event.pid == client.pid]
    assert [(event.reason, event.nat) for event in failed] == [("refused", Endpoint(REAL[4], 9))] * 2


@pytest.mark.once(reason="no IPsec outside, and a tracer with names")
def test_what_ipsec_wraps_goes_where_it_was_sent(traced: Callable[..., Trace], networks: Callable[[], Network]) -> None:
    """No port stands in such a packet where one is looked for; and its SYN is one all the same."""
    here, there = networks(), networks()
    here.wire(there, "10.9.0.1/24", "10.9.0.2/24")
    ways = ("src 10.9.0.1 dst 10.9.0.2", "src 10.9.0.2 dst 10.9.0.1")
    keyless = 'mode transport enc ecb(cipher_null) "" auth digest_null ""'
    try:
        for network, (out, back) in ((here, ways), (there, ways[::-1])):
            network.ip(
                *(f"xfrm state add {way} proto esp spi 0x{100 + ways.index(way)} {keyless}" for way in ways),
                f"xfrm policy add {out} dir out tmpl {out} proto esp mode transport",
                f"xfrm policy add {back} dir in tmpl {back} proto esp mode transport",
            )
    except TrafficError:
        pytest.skip("no IPsec in this kernel")
    trace = traced(netns=here.path, probes="tracepoint", names=True)
    listener = listen(there.actor("server"), "10.9.0.2")
    near = connect(here.actor("client"), listener.address)
    close(near, listener.accept())
    trace.tells(Told(near, "connect established close", ended="local_close"))
    assert {event.nat for event in of(trace, near)} == {None}


def test_the_same_ends_in_two_namespaces_do_not_mix(trace: Trace, networks: Callable[[], Network]) -> None:
    wanted = {}
    clients = {}
    for port in (9, 10):
        network = networks()
        network.ip(f"address replace {REAL[4]}/24 dev lo")
        network.run(
            "nft",
            "add table ip t; add chain ip t out { type nat hook output priority -100; }; "
            f"add rule ip t out ip daddr {VIRTUAL[4]} tcp dport 80 dnat to {REAL[4]}:{port}",
        )
        client = clients[network] = network.actor("client")
        wanted[client.pid] = Endpoint(REAL[4], port)
    for client in clients.values():
        step = client.do("socket", 4)
        client.do("bind", step.fd, REAL[4], 5555)
        assert client.attempt("connect", step.fd, VIRTUAL[4], 80).errno == "ECONNREFUSED"
    failed = [event for event in trace.settle() if isinstance(event, Failed) and event.pid in wanted]
    assert {event.pid: event.nat for event in failed} == wanted
    assert {event.local_port for event in failed} == {5555}


@pytest.mark.slow(reason="one more tracer with names; no kernel has a say in what JSON looks like")
def test_json_has_it_as_an_object_and_what_goes_straight_has_none(
    traced: Callable[..., Trace], network: Network, client: Actor, virtual: Callable[[int, int, int], tuple[str, int]]
) -> None:
    to = virtual(4, 80, 9)
    tracer = traced(netns=network.path, names=True, events="failed").tracer
    client.do("refused", 1, *to)
    client.do("refused", 1, REAL[4], 9)
    tracer.stop()
    lines = []
    while batch := tracer.read_json(timeout=10).data:
        lines += [json.loads(line) for line in batch.splitlines()]
    assert [line.get("nat") for line in lines] == [{"addr": REAL[4], "port": 9}, None]


@pytest.mark.slow(reason="starts a Python for each; the kernel side tells the same of every verb")
def test_states_have_it_from_the_first_row_on(
    network: Network, client: Actor, server: Actor, virtual: Callable[[int, int, int], tuple[str, int]]
) -> None:
    """Of one that is answered, and of one that waits for it."""
    listener = listen(server, "0.0.0.0")
    real = f"{REAL[4]}:{listener.address[1]}"
    answered = virtual(4, 80, listener.address[1])
    network.run("nft", "add rule ip t out ip daddr 10.99.0.9 tcp dport 81 dnat to 10.99.0.1:81")
    network.run("nft", "add table ip f; add chain ip f in { type filter hook input priority 0; }")
    network.run("nft", "add rule ip f in tcp dport 81 drop")
    options = f"--service --direction out --netns {network.path}"
    table, lines = Ours("states", options), Ours("states", f"--format json {options}")
    with tracing([table, lines]):
        close(connect(client, answered), listener.accept())
        attempt = begin_connect(client, (VIRTUAL[4], 81), how="nonblock")
        attempt.await_resent()
        rows = [line.split()[7:] for line in table.lines()[1:]]
        events = [json.loads(line) for line in lines.lines()]
    assert [row[:3] for row in rows] == [[event["old"], "->", event["new"]] for event in events]
    assert rows[0] == ["CLOSE", "->", "SYN_SENT", "0.000", real, "open"]
    assert rows[-1] == ["CLOSE", "->", "SYN_SENT", "0.000", f"{REAL[4]}:81", "open"]
    assert {row[4] for row in rows[:-1]} == {real}
    assert [event["nat"]["port"] for event in events] == [listener.address[1]] * (len(events) - 1) + [81]
