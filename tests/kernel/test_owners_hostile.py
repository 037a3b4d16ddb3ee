"""Owners that are gone before anybody can look, and addresses that change while the kernel reads them.

The truth is what each process wrote down of itself, and what the kernel says of the socket. Nothing wrong is told; what
cannot be known is absent.
"""

from __future__ import annotations

import logging
import os
import shutil
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import ANY

import pytest

from pytracecon import Close, Connect, ConnectionEvent, Established, Event, Failed, Lost, Process
from traffic.actor import Actor
from traffic.datagrams import flows
from traffic.end import listen
from traffic.network import Network
from traffic.trace import Trace

FLY = struct.Struct("=IIIHBB16s16s")
TOLD = struct.Struct("=HBB")
FORKED = 0
PROGRAMS = 8
LONG = pytest.mark.long
logger = logging.getLogger(__name__)  # figures: --log-cli-level=INFO
HOW, SENT = ("block", "nonblock"), ("sendto", "sendmsg")


class Fly(NamedTuple):
    """Who a process said that it was."""

    pid: int
    tid: int
    uid: int
    port: int
    program: int
    life: int
    comm: bytes
    thread: bytes

    def who(self) -> tuple[object, ...]:
        """As an event has it."""
        comm, thread = (name.partition(b"\0")[0].decode() for name in (self.comm, self.thread))
        elsewhere = self.tid != self.pid
        return self.pid, comm, self.uid, self.tid if elsewhere else None, thread if elsewhere else None


class Program(NamedTuple):
    exe: str
    args: list[Any]


def words_of(pid: int) -> list[str]:
    return [os.fsdecode(word) for word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]]


def who(event: ConnectionEvent) -> tuple[object, ...]:
    return event.pid, event.comm, event.uid, event.tid, event.thread


def outbound(events: list[Event], actor: Actor) -> Iterator[ConnectionEvent]:
    for event in events:
        if isinstance(event, ConnectionEvent) and event.netns == actor.netns and event.direction == "out":
            yield event


def await_all(trace: Trace, actor: Actor, kind: type[Event], count: int) -> None:
    """Until so many were told of the actor's, or a loss; each is looked at once."""
    looked = told = 0

    def complete(events: list[Event]) -> bool:
        nonlocal looked, told
        new = events[looked:]
        looked += len(new)
        told += sum(isinstance(each, kind) for each in outbound(new, actor))
        return told >= count or any(isinstance(each, Lost) for each in new)

    assert trace.until(complete, within=200), f"{told} of {count} after {looked} events: {trace.tracer.stats}"


@pytest.mark.parametrize("count", [60, pytest.param(10_000, marks=LONG)])
def test_processes_that_live_for_a_millisecond_are_who_they_were(
    trace: Trace, client: Actor, server: Actor, program: Path, tmp_path: Path, count: int
) -> None:
    """Forked, with the number of another, as another user, in a thread, and of programs that became others."""
    for at in range(PROGRAMS):
        shutil.copy2(program, tmp_path / f"p{at}")
    log = tmp_path / "log"
    log.touch()
    listener = listen(server, backlog=128)
    server.begin("take", listener.socket, count)
    client.begin("mayflies", count, *listener.address, tmp_path, log)
    await_all(trace, client, Close, count)
    lived, taken = client.finish(), server.finish()
    assert (lived.result, taken.result) == (count, count), lived
    events = list(trace.settle())
    assert [event for event in events if isinstance(event, Lost)] == []
    flies = [Fly(*each) for each in FLY.iter_unpack(log.read_bytes())]
    # One after the other, and so told; a port may come again.
    conns = [event.conn for event in outbound(events, client) if isinstance(event, Connect)]
    lives = {conn: (number, fly) for number, (conn, fly) in enumerate(zip(conns, flies, strict=True))}
    assert len(lives) == count
    own = Program(str(Path(f"/proc/{client.pid}/exe").readlink()), words_of(client.pid))
    seen, absent = Counter[type[Event]](), Counter[str]()
    for event in outbound(events, client):
        number, fly = lives[event.conn]
        seen[type(event)] += 1
        assert (event.local_port, *who(event)) == (fly.port, *fly.who()), event
        program_run = own
        if fly.life != FORKED:
            path = str(tmp_path / f"p{fly.program}")
            words = [path, "mayfly", str(fly.life), str(number), str(count), ANY, *map(str, listener.address), ""]
            program_run = Program(path, words)
        process = event.process or Process()
        assert process.exe in (None, program_run.exe), event
        assert process.args in (None, program_run.args), event
        assert process.parents is None or process.parents[0] == client.pid, event
        absent.update(name for name in ("exe", "args", "parents") if getattr(process, name) is None)
    assert seen == {Connect: count, Established: count, Close: count}
    accepted = [
        event
        for event in events
        if isinstance(event, ConnectionEvent) and event.netns == server.netns and event.direction == "in"
    ]
    assert {event.pid for event in accepted} == {server.pid}
    logger.info("%s with the number of another before", lived.extra["reused"])
    assert not absent, "the kernel side tells of all that start while it looks"


class Both(NamedTuple):
    """Addresses that a thread puts into the place of each other."""

    one: str
    other: str
    family: str


BOTH = [Both("127.0.0.1", "127.0.0.2", "v4"), Both("::ffff:127.0.0.1", "::ffff:127.0.0.2", "mapped")]


def told_in(log: Path) -> list[tuple[int, int, int]]:
    return list(TOLD.iter_unpack(log.read_bytes()))


@pytest.mark.parametrize("both", BOTH, ids=lambda both: both.family)
@pytest.mark.parametrize(
    ("how", "count"), [("block", 400), ("nonblock", 400), *(pytest.param(how, 25_000, marks=LONG) for how in HOW)]
)
def test_an_address_that_changes_in_memory_during_connect_is_not_believed(
    trace: Trace, client: Actor, tmp_path: Path, both: Both, how: str, count: int
) -> None:
    log = tmp_path / "log"
    log.touch()
    client.begin("swap-connect", both.one, 0, both.other, 0, count, log, how)
    await_all(trace, client, Close, count)
    step = client.finish()
    assert step.result == count, step
    events = trace.settle()
    assert [event for event in events if isinstance(event, Lost)] == []
    truth = [(port, ("127.0.0.1", "127.0.0.2")[which]) for port, which, _ in told_in(log)]
    for kind in (Connect, Established, Close):
        told = [(each.local_port, each.remote_addr) for each in outbound(events, client) if isinstance(each, kind)]
        assert told == truth, kind
    logger.info("%s ended with another address in memory", sum(changed for _, _, changed in told_in(log)))


@pytest.mark.parametrize("count", [400, pytest.param(50_000, marks=LONG)])
def test_an_attempt_that_ends_at_once_names_the_address_that_the_kernel_tried(
    trace: Trace, client: Actor, tmp_path: Path, count: int
) -> None:
    """The error says which of the two it was: of one the port is closed, to the other there is no way."""
    log = tmp_path / "log"
    log.touch()
    client.begin("swap-fail", "127.0.0.1", 9, "203.0.113.1", 9, count, log)
    await_all(trace, client, Failed, count)
    step = client.finish()
    assert step.result == count, step
    events = trace.settle()
    assert [event for event in events if isinstance(event, Lost)] == []
    failed = [event for event in outbound(events, client) if isinstance(event, Failed)]
    tried = {0: ("127.0.0.1", "ECONNREFUSED"), 1: ("203.0.113.1", "ENETUNREACH")}
    assert [(event.remote_addr, event.error) for event in failed] == [tried[which] for _, which, _ in told_in(log)]
    logger.info("tried: %s", dict(Counter(event.remote_addr for event in failed)))


@pytest.mark.parametrize("both", BOTH, ids=lambda both: both.family)
@pytest.mark.parametrize(
    ("how", "count"), [("sendto", 400), ("sendmsg", 400), *(pytest.param(how, 25_000, marks=LONG) for how in SENT)]
)
def test_an_address_that_changes_in_memory_during_sendto_is_not_believed(
    traced: Callable[..., Trace], network: Network, both: Both, how: str, count: int
) -> None:
    client = network.actor("client")
    trace = traced(events="flow", ring_size="64M")
    step = client.do("swap-datagrams", both.one, 0, both.other, 0, count, how)
    heard = dict(zip(("127.0.0.1", "127.0.0.2"), step.extra["heard"], strict=True))
    assert sum(heard.values()) == step.result == count
    trace.until(lambda events: len(flows(events, network)) >= 2 * sum(map(bool, heard.values())), within=10)
    told = Counter[str]()
    for flow in flows(trace.settle(), network):
        if flow.remote_port == step.extra["port"]:
            told[flow.remote_addr or ""] += flow.tx_packets or 0
    assert told == {addr: times for addr, times in heard.items() if times}
    logger.info("heard: %s", heard)
