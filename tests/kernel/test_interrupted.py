"""An interrupt brings packets while a program runs on that CPU. The kernel skips the program then; nothing gets lost.

All packets go to the client's CPU by interrupt, so it happens all the time.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

import pytest

from pytracecon import ConnectionEvent, Lost, Tracer
from pytracecon._libbpf import Link
from traffic.actor import Actor
from traffic.end import Listener, begin_connect, listen, pair
from traffic.interrupts import pin, steer
from traffic.network import Network
from traffic.trace import Trace

CONNECTIONS = 1000
EVENTS_EACH = 5
"""connect, established, accept, and a close for each end."""


def visit(trace: Trace, client: Actor, listener: Listener, server: Actor) -> int:
    """How many events are told to be missing: all that are."""
    server.begin("serve", listener.socket, CONNECTIONS, 0, 0, "last")
    client.do("visit", CONNECTIONS, *listener.address, 0, 0, "first")
    server.finish()
    trace.until(lambda events: sum(event.event == "close" for event in events) == 2 * CONNECTIONS, within=1)

    stories: dict[str, list[str]] = {}
    for event in trace.settle():
        if isinstance(event, ConnectionEvent):
            stories.setdefault(event.conn, []).append(event.event)
    kinds = Counter(tuple(story) for story in stories.values())
    stats = trace.tracer.stats
    assert stats.wanted == stats.delivered + stats.lost_ring
    assert not [story for story in kinds if "failed" in story], "none did"
    told = f"{kinds}, {stats}, skipped were {skipped(trace.tracer)}"
    assert stats.delivered + stats.lost >= EVENTS_EACH * CONNECTIONS, told
    assert stats.lost == sum(event.count for event in trace.events if isinstance(event, Lost))
    return stats.lost


def assert_to_one(trace: Trace) -> None:
    stats = trace.tracer.stats
    told = f"nothing is counted twice: {stats}, skipped were {skipped(trace.tracer)}"
    assert stats.delivered + stats.lost == EVENTS_EACH * CONNECTIONS, told


def skipped(tracer: Tracer) -> dict[str, int]:
    """How often the kernel skipped each program, and what the programs counted."""
    attached = {probe.name: tracer._loaded.object.programs[probe.name] for probe in tracer.probes if probe.attached}
    counted = {name: sum(tracer._reader._pages.column(name)) for name in ("stood_in", "unseen", "lost_map")}
    misses = {name: int(program.info().recursion_misses) for name, program in attached.items()}
    return {name: count for name, count in (misses | counted).items() if count}


several = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one CPU has nobody to be interrupted by")


@several
def test_what_an_interrupt_brings_is_told(traced: Callable[..., Trace], network: Network) -> None:
    """Where a processor is taken away in the middle of a program, the kernel skips many in a row: not three times."""
    client, server = pin(network.actor("client"), 0), pin(network.actor("server"), 1)
    listener = listen(server)
    steer(network, 1)
    missing: list[int] = []
    while not missing or (missing[-1] > CONNECTIONS // 100 and len(missing) < 3):
        trace = traced(netns=network.path)
        missing.append(visit(trace, client, listener, server))
        assert_to_one(trace)
    assert missing[-1] <= CONNECTIONS // 100, f"in three goes: {missing}"


@several
@pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.long)])
def test_an_end_that_no_program_saw_is_counted_when_the_tracer_stops(
    traced: Callable[..., Trace], network: Network, times: int
) -> None:
    """Nobody tells that the sockets are destroyed either: only a look at what is left in the table finds these ends.

    Of two entries for one piece of memory it may count both: none is missing, a few may be told twice.
    """
    client, server = pin(network.actor("client"), 0), pin(network.actor("server"), 1)
    listener = listen(server)
    steer(network, 1)
    for _ in range(times):
        trace = traced(netns=network.path)
        link_of(trace.tracer, "destroy").close()
        visit(trace, client, listener, server)


def test_ends_that_no_program_is_called_for_are_counted(
    traced: Callable[..., Trace], network: Network, client: Actor, server: Actor
) -> None:
    """The kernel has skipped none of them, so far as it says."""
    trace = traced(netns=network.path)
    near, far = pair(client, listen(server))
    for program in ("state_skipped", "state", "destroy"):
        link_of(trace.tracer, program).close()
    near.close()
    far.close()
    trace.settle()
    assert trace.tracer.stats.lost == 2
    assert [event.where for event in trace.events if isinstance(event, Lost)] == ["probe"]


def test_an_attempt_of_which_neither_success_nor_end_was_seen_is_two_events(
    traced: Callable[..., Trace], networks: Callable[[], Network]
) -> None:
    """That its socket is destroyed is seen, and that its SYN had been acknowledged by then."""
    here, there = networks(), networks()
    here.wire(there, "10.9.0.1/24", "10.9.0.2/24")
    listener = listen(there.actor("server"), "10.9.0.2")
    trace = traced(netns=here.path)
    there.ip("route add blackhole 10.9.0.1/32")
    attempt = begin_connect(here.actor("client"), listener.address)
    attempt.await_resent()
    for program in ("state_skipped", "state"):
        link_of(trace.tracer, program).close()
    there.ip("route delete blackhole 10.9.0.1/32")
    near, far = attempt.finish(), listener.accept()
    near.close()
    far.close()
    trace.settle()
    assert [event.event for event in trace.events if isinstance(event, ConnectionEvent)] == ["connect"]
    assert trace.tracer.stats.lost == 2
    assert {event.where for event in trace.events if isinstance(event, Lost)} == {"probe"}


def test_what_is_open_when_the_tracer_stops_is_nobodys_loss(
    traced: Callable[..., Trace], network: Network, client: Actor, server: Actor
) -> None:
    trace = traced(netns=network.path)
    ends = pair(client, listen(server))
    trace.settle()
    assert trace.tracer.stats.lost == 0
    for end in ends:
        end.close()


def link_of(tracer: Tracer, program: str) -> Link:
    """What attaches the program of that name, on whichever rung."""
    loaded = tracer._loaded
    names = [probe.name for probe in tracer.probes if probe.attached and probe.need not in ("existing", "libc lookups")]
    (at,) = (at for at, name in enumerate(names) if name in (f"{program}_btf", f"{program}_raw"))
    return loaded.links[at]
