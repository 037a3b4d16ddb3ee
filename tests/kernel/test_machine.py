"""What an administrator does to the whole machine while, or before, it is traced: in guests, which nobody else uses."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from pytracecon import Close, ConnectionEvent, Established, Event
from traffic.end import close, listen, pair
from traffic.network import Network
from traffic.trace import Trace

EVENTS_EACH = 5
HOUR = 3600 * 10**9
SLACK = 10**7
OTHER_CPU = Path("/sys/devices/system/cpu/cpu1")


@pytest.fixture(autouse=True)
def in_a_guest() -> None:
    if "virtme" not in Path("/proc/cmdline").read_text():
        pytest.skip("it would change this whole machine, and others use it too")


@contextmanager
def sysctl(name: str, value: int) -> Iterator[None]:
    file = Path("/proc/sys", *name.split("."))
    before = file.read_text()
    file.write_text(str(value))
    try:
        yield
    finally:
        file.write_text(before)


def test_a_hardened_kernel_tells_all_the_same(traced: Callable[..., Trace], network: Network) -> None:
    with ExitStack() as hardened:
        hardened.enter_context(sysctl("kernel.kptr_restrict", 2))
        hardened.enter_context(sysctl("kernel.perf_event_paranoid", 4))
        hardened.enter_context(sysctl("net.core.bpf_jit_harden", 2))
        new = traced(netns=network.path)
        assert network.actor("flood").do("flood", 20, 5).result == 20
        events = new.settle()
    assert len(events) == 20 * EVENTS_EACH == new.tracer.stats.wanted


@pytest.mark.long
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one CPU cannot be taken away")
def test_a_cpu_that_goes_and_comes_under_load_takes_no_event_with_it(trace: Trace, network: Network) -> None:
    flood, lost = network.actor("flood"), trace.tracer.stats.lost
    for _ in range(2):
        os.sched_setaffinity(flood.pid, {1})
        flood.begin("flood", 150, 5)
        (OTHER_CPU / "online").write_text("0")
        (OTHER_CPU / "online").write_text("1")
        flood.finish()
    told = [event for event in trace.settle() if isinstance(event, ConnectionEvent) and event.netns == network.inode]
    assert len(told) == 2 * 150 * EVENTS_EACH
    assert trace.tracer.stats.lost == lost


@pytest.mark.once
@pytest.mark.parametrize("step", [HOUR, -2 * HOUR], ids=["forward", "back"])
def test_a_clock_that_is_set_moves_times_and_no_duration(trace: Trace, network: Network, step: int) -> None:
    """A time is that of the wall clock as it stands when the event is read."""
    near, far = pair(network.actor("client"), listen(network.actor("server")))
    trace.until(lambda events: any(isinstance(event, Established) for event in of(network, events)))
    began = time.monotonic_ns()
    before = time.time_ns()
    time.clock_settime_ns(time.CLOCK_REALTIME, before + step)
    try:
        close(near, far)
        trace.until(lambda events: sum(isinstance(event, Close) for event in of(network, events)) == 2)
        now = time.time_ns()
    finally:
        time.clock_settime_ns(time.CLOCK_REALTIME, before + time.monotonic_ns() - began)
    (opened,) = [event for event in of(network, trace.events) if isinstance(event, Established)]
    closes = [event for event in of(network, trace.events) if isinstance(event, Close)]
    assert len(closes) == 2
    assert opened.time_ns <= before
    for event in closes:
        assert before + step - SLACK <= event.time_ns <= now + SLACK
        assert event.duration_ns is not None
        # From when it was opened to when it was closed, as the other clock has it.
        assert abs(event.duration_ns - (event.time_ns - step - opened.time_ns)) < 10**9


def of(network: Network, events: list[Event]) -> list[ConnectionEvent]:
    return [event for event in events if isinstance(event, ConnectionEvent) and event.netns == network.inode]
