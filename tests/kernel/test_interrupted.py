"""An interrupt brings packets while a program runs on that CPU. The kernel skips the program then; nothing gets lost.

The namespace's loopback hands all packets to the client's CPU by interrupt (RPS), so it happens all the time.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

import pytest

from pytracecon import ConnectionEvent
from traffic.actor import Actor
from traffic.end import Listener, listen
from traffic.network import Network
from traffic.trace import Trace

CONNECTIONS = 1000
STEER = "mount -t sysfs sysfs /sys && echo {} > /sys/class/net/lo/queues/rx-0/rps_cpus"
WHOLE = {("connect", "established", "close"), ("accept", "close")}


def pin(actor: Actor, cpu: int) -> Actor:
    os.sched_setaffinity(actor.pid, {cpu})
    return actor


def steer(network: Network, cpus: int) -> None:
    """All packets to these processors; to none: each stays where it is."""
    network.run("unshare", "--mount", "sh", "-c", STEER.format(cpus))


def missing(trace: Trace, network: Network, client: Actor, listener: Listener, server: Actor) -> int:
    """How many of the connections' ends are not told as they should be; all of them are counted.

    An end that nobody saw is found out when the socket's memory serves another connection: without interrupts there
    are as many again.
    """
    for cpus in (1, 0):
        steer(network, cpus)
        server.begin("serve", listener.socket, CONNECTIONS, 0, 0, "last")
        client.do("visit", CONNECTIONS, *listener.address, 0, 0, "first")
        server.finish()
    trace.until(lambda events: sum(event.event == "close" for event in events) == 4 * CONNECTIONS, within=10)

    stories: dict[str, list[str]] = {}
    for event in trace.settle():
        if isinstance(event, ConnectionEvent):
            stories.setdefault(event.conn, []).append(event.event)
    kinds = Counter(tuple(story) for story in stories.values())
    stats = trace.tracer.stats
    assert stats.wanted == stats.delivered + stats.lost_ring
    untold = 4 * CONNECTIONS - sum(count for story, count in kinds.items() if story in WHOLE)
    assert untold <= stats.lost, f"what is not told is counted: {kinds}, {stats}"
    return untold


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one CPU has nobody to be interrupted by")
def test_what_an_interrupt_brings_is_told(traced: Callable[..., Trace], network: Network) -> None:
    """Where a processor is taken away in the middle of a program, the kernel skips many in a row: not three times."""
    client, server = pin(network.actor("client"), 0), pin(network.actor("server"), 1)
    listener = listen(server)
    few = CONNECTIONS // 100
    assert any(missing(traced(netns=network.path), network, client, listener, server) <= few for _ in range(3))
