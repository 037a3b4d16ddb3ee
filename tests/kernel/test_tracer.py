"""`Tracer` as its users hold it: reading, stopping, several at once, forks, exceptions, and what stays behind."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import threading
import time
from collections.abc import Callable

import pytest

from pytracecon import Close, ConnectionEvent, Event, Lost, PytraceconError, Tracer
from pytracecon.errors import InvalidValue, TracerClosed
from pytracecon.probes import NEEDS
from pytracecon.reader import NAP
from pytracecon.ring import ROOM
from traffic.actor import DEADLINE
from traffic.end import End, close, listen, pair
from traffic.leftovers import BpfId, await_gone, bpf_ids, bpf_ids_of
from traffic.network import Network
from traffic.story import Told, story
from traffic.trace import Trace

LARGEST = 200
"""Bytes of an event's record."""
OUT, IN = "connect established close", "accept close"


def talk(network: Network, amount: int = 10) -> tuple[End, End]:
    """One whole connection between processes of its own."""
    near, far = pair(network.actor("client"), listen(network.actor("server")))
    near.send(amount)
    far.receive_all()
    close(near, far)
    return near, far


def told(near: End, far: End) -> tuple[Told, Told]:
    return Told(near, OUT, ended="local_close"), Told(far, IN, ended="remote_close")


def of(network: Network, events: list[Event]) -> list[ConnectionEvent]:
    return [event for event in events if isinstance(event, ConnectionEvent) and event.netns == network.inode]


def test_tracing_is_on_when_the_constructor_returns(network: Network) -> None:
    with Tracer(netns=network.path, names=False) as tracer:
        ends = talk(network)
        Trace(tracer).tells(*told(*ends))


@pytest.mark.slow(reason="what it tells of is user space's, whatever the kernel")
def test_read_gives_a_batch_or_nothing_in_time(network: Network) -> None:
    with Tracer(netns=network.path, names=False) as tracer:
        before = time.monotonic()
        assert tracer.read(timeout=0) == []
        assert tracer.read(timeout=0.2) == []
        assert time.monotonic() - before >= 0.2
        talk(network)
        batch = tracer.read()
        assert batch
        assert all(isinstance(event, Event) for event in batch)


@pytest.mark.slow(reason="what it tells of is user space's, whatever the kernel")
def test_traffic_without_a_pause_is_read_in_batches(network: Network) -> None:
    """There is always something unread then, and it waits all the same."""
    connections, batches, told = 3000, 0, 0
    with Tracer(netns=network.path, names=False) as tracer:
        writer = network.actor("client")
        begin = time.monotonic()
        writer.begin("flood", connections, 5)
        while told < 5 * connections and time.monotonic() < begin + DEADLINE:
            told += len(of(network, tracer.read(timeout=1)))
            batches += 1
        seconds = time.monotonic() - begin
        assert writer.finish().result == connections
    assert told == 5 * connections
    full = 5 * connections * LARGEST / ROOM
    assert batches <= 2 * (seconds / NAP + full), "800 of them without a rest"


@pytest.mark.slow(reason="what it tells of is user space's, whatever the kernel")
def test_iteration_ends_after_all_that_came_before_stop(network: Network) -> None:
    with Tracer(netns=network.path, names=False) as tracer:
        talk(network)
        tracer.stop()
        assert [event.event for event in tracer] == ["connect", "established", "accept", "close", "close"]
        assert tracer.stopped
        assert tracer.read() == []
        assert list(tracer) == []


@pytest.mark.slow(reason="what it tells of is user space's, whatever the kernel")
def test_nothing_after_stop_is_told(network: Network) -> None:
    with Tracer(netns=network.path, names=False) as tracer:
        tracer.stop()
        assert list(tracer) == []
        talk(network)
        assert tracer.read(timeout=0.1) == []
        assert tracer.stats.wanted == 0


@pytest.mark.slow(reason="what it tells of is user space's, whatever the kernel")
def test_stop_from_another_thread_ends_a_blocked_read(network: Network) -> None:
    with Tracer(netns=network.path, names=False) as tracer:
        got: list[list[Event]] = []
        reader = threading.Thread(target=lambda: got.append(tracer.read()))
        reader.start()
        tracer.stop()
        reader.join(timeout=30)
        assert not reader.is_alive()
        assert got == [[]]


@pytest.mark.slow(reason="what it tells of is user space's, whatever the kernel")
def test_async_iteration_yields_to_others_and_ends_after_stop(network: Network) -> None:
    async def trace() -> tuple[list[str], int]:
        turns = 0

        async def other_work() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.01)

        busy = asyncio.create_task(other_work())
        kinds = []
        with Tracer(netns=network.path, names=False) as tracer:
            asyncio.get_running_loop().call_later(0.2, talk, network)
            async for event in tracer:
                kinds.append(event.event)
                if len(kinds) == 3:
                    tracer.stop()
        busy.cancel()
        return kinds, turns

    kinds, turns = asyncio.run(asyncio.wait_for(trace(), timeout=60))
    assert kinds == ["connect", "established", "accept", "close", "close"]
    assert turns > 5, "the event loop was blocked"


def test_several_tracers_in_one_process_see_the_same(traced: Callable[..., Trace], network: Network) -> None:
    traces = [traced(), traced(family=4), traced(events=["close"], probes="tracepoint")]
    near, far = talk(network)
    for trace in traces[:2]:
        trace.tells(*told(near, far))
    traces[2].tells(Told(near, "close", ended="local_close"), Told(far, "close", ended="remote_close"))


def test_one_tracer_ends_and_another_goes_on(traced: Callable[..., Trace], network: Network) -> None:
    first, second = traced(), traced()
    before = talk(network)
    first.tells(*told(*before))
    first.tracer.close()
    after = talk(network)
    second.tells(*told(*before), *told(*after))


@pytest.mark.slow(reason="what it tells of is user space's, whatever the kernel")
def test_close_ends_everything_and_may_come_twice(network: Network) -> None:
    tracer = Tracer(netns=network.path, names=False)
    talk(network)
    tracer.close()
    tracer.close()
    for use in (tracer.read, tracer.stop, lambda: next(iter(tracer))):
        with pytest.raises(TracerClosed):
            use()
    assert tracer.stats.wanted == 5


def in_child(work: Callable[[], object]) -> str:
    """What `work` said in a forked child: the name of its exception, or what it returned."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = str(work())
        except BaseException as error:  # noqa: BLE001 (whatever it is, the parent shall see it)
            said = type(error).__name__ + ": " + str(error)
        os.write(writable, said.encode())
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


def test_a_forked_child_is_cut_off_and_the_parent_is_not(network: Network) -> None:
    with Tracer(netns=network.path, names=False) as tracer:
        first = talk(network)
        for use in (tracer.read, tracer.stop, lambda: next(iter(tracer)), lambda: tracer.stats):
            assert in_child(use).startswith("TracerClosed: "), use
        assert in_child(tracer.close) == "None", "closing is right in any process"
        assert in_child(lambda: bpf_ids_of(os.getpid())) == "set()", "a child must not keep the programs alive"
        second = talk(network)
        Trace(tracer).tells(*told(*first), *told(*second))


@pytest.mark.slow(reason="what it tells of is user space's, whatever the kernel")
def test_a_forked_child_waits_for_no_thread_of_its_parent(network: Network) -> None:
    with Tracer(netns=network.path, names=False) as tracer:
        reading = threading.Thread(target=tracer.read)
        reading.start()
        deadline = time.monotonic() + DEADLINE
        while tracer._turn.acquire(blocking=False):  # until the thread has it
            tracer._turn.release()
            assert time.monotonic() < deadline

        def read() -> object:
            signal.alarm(int(DEADLINE))  # it would wait for ever
            return tracer.read()

        assert in_child(read).startswith("TracerClosed: ")
        tracer.stop()
        reading.join()


@pytest.mark.slow(reason="what it tells of is user space's, whatever the kernel")
def test_a_forked_child_may_trace_for_itself(network: Network) -> None:
    def trace_anew() -> int:
        with Tracer(netns=network.path, names=False) as own:
            own.stop()
            return len(list(own))

    with Tracer(netns=network.path, names=False):
        assert in_child(trace_anew) == "0"


def test_an_interrupt_while_the_last_events_are_read_is_accounted_for(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ctrl-C comes while they are decoded: what was taken is told as lost, and the rest can be read."""
    with Tracer(netns=network.path, names=False) as tracer:
        talk(network)
        tracer.stop()
        with monkeypatch.context() as patched:

            def interrupted(*_: object) -> None:
                raise KeyboardInterrupt

            patched.setattr(tracer._events, "records", interrupted)
            with pytest.raises(KeyboardInterrupt):
                tracer.read()
        told = list(tracer)
        assert sum(event.count for event in told if isinstance(event, Lost) and event.where == "queue") == 5
        stats = tracer.stats
        assert stats.wanted == stats.delivered + stats.lost_ring
        assert stats.lost_queue == 5
        assert tracer.stopped


class UsersOwnError(Exception):
    pass


def test_an_exception_in_the_users_loop_leaves_nothing(network: Network) -> None:
    def trace_badly() -> None:
        with Tracer(netns=network.path, names=False) as tracer:
            held.update(bpf_ids_of(os.getpid()) - before)
            talk(network)
            for _ in tracer:
                raise UsersOwnError

    before, held = bpf_ids_of(os.getpid()), set[BpfId]()
    with pytest.raises(UsersOwnError):
        trace_badly()
    assert {kind for kind, _ in held} == {"prog", "map", "link"}
    assert await_gone(held) == set()
    assert bpf_ids_of(os.getpid()) == before


def test_a_refused_value_leaves_nothing() -> None:
    before = bpf_ids()
    for wrong in ({"port": 0}, {"remote": "10.0.0.1/8"}, {"nonsense": 1}, {"ring_size": "5K"}, {"uid": "no such user"}):
        with pytest.raises((InvalidValue, TypeError)):
            Tracer(**wrong)
    assert not (bpf_ids() - before) & bpf_ids_of(os.getpid())


@pytest.mark.slow(reason="what it tells of is user space's, whatever the kernel")
def test_descriptors_and_memory_maps_are_given_back(network: Network) -> None:
    def own() -> tuple[int, int]:
        with open("/proc/self/maps") as maps:
            return len(os.listdir("/proc/self/fd")), sum("bpf" in line for line in maps)

    Tracer(netns=network.path, names=False).close()
    before = own()
    for _ in range(5):
        Tracer(netns=network.path, names=False).close()
    assert own() == before


@pytest.mark.slow(reason="what it tells of is user space's, whatever the kernel")
def test_the_books_balance(network: Network) -> None:
    with Tracer(netns=network.path, names=False) as tracer:
        for _ in range(5):
            talk(network)
        tracer.stop()
        events = list(tracer)
        stats = tracer.stats
    assert len(events) == 25
    assert (stats.wanted, stats.delivered, stats.handed) == (25, 25, 25)
    assert (stats.lost_ring, stats.lost_map, stats.lost_probe) == (0, 0, 0)


def test_probes_say_what_is_attached_and_why_not(everything: Trace) -> None:
    probes = everything.tracer.probes
    modules = [need.name for need in NEEDS if need.module is not None]  # that may not be there
    for need, tried in itertools.groupby(sorted(probes, key=lambda probe: probe.need), key=lambda probe: probe.need):
        assert any(probe.attached for probe in tried) or need in modules, f"nothing meets the need of {need}"
    for probe in probes:
        assert probe.rung in {"fentry", "kprobe", "tracepoint", "iterator", "uprobe"}
        assert probe.attached or probe.detail, probe


def test_events_come_in_the_order_of_time(trace: Trace, network: Network) -> None:
    for _ in range(20):
        talk(network)
    ours = of(network, trace.settle())
    assert len(ours) == 100
    times = [event.time_ns for event in ours]
    assert times == sorted(times)


def test_both_ends_of_a_loopback_connection_have_names_of_their_own(trace: Trace, network: Network) -> None:
    near, far = talk(network)
    trace.tells(*told(near, far))
    names = [{event.conn for event in story(trace.events, end)} for end in (near, far)]
    assert all(len(name) == 1 for name in names)
    assert names[0] != names[1]
    assert all(len(conn) == 16 and int(conn, 16) for conn in names[0] | names[1])


@pytest.mark.slow(reason="what it tells of is user space's, whatever the kernel")
def test_the_tracers_own_connections_are_told_like_everybodys(traced: Callable[..., Trace]) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        trace = traced(pid=os.getpid())
        with socket.create_connection(listener.getsockname()) as near, listener.accept()[0] as far:
            ports = {near.getsockname()[1], far.getsockname()[1]}
        closes = [event for event in trace.settle() if isinstance(event, Close)]
    assert {event.local_port for event in closes} == ports
    assert {event.pid for event in closes} == {os.getpid()}


def test_every_error_is_one_of_ours() -> None:
    assert issubclass(TracerClosed, PytraceconError)
