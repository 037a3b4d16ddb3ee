"""A connection from a real container is told with the container's id, and its name as soon as the engine told it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from pytracecon import Established, Event
from pytracecon.owners import runtimes
from traffic.actor import DEADLINE
from traffic.end import listen
from traffic.network import Network
from traffic.podman import Podman
from traffic.trace import Trace


@pytest.fixture
def podman(monkeypatch: pytest.MonkeyPatch) -> Iterator[Podman]:
    if any(" - cgroup " in line for line in Path("/proc/self/mountinfo").read_text().splitlines()):
        pytest.skip("crun starts no container where cgroup v1 is mounted too")
    podman = Podman()
    monkeypatch.setattr(runtimes, "_SOCKETS", (str(podman.socket),))
    yield podman
    podman.close()


@pytest.mark.once(reason="what an engine tells is the same everywhere; cgroups are tested in every guest")
def test_a_connection_from_a_container_has_its_id_at_once_and_soon_its_name(
    podman: Podman, network: Network, traced: Callable[..., Trace]
) -> None:
    server = network.actor("server")
    listener = listen(server, port=8080)
    shop = podman.create("shop-db", "nc", "127.0.0.1", 8080, network=f"ns:{network.path}")
    trace = traced(netns=network.path, events="established")
    deadline = time.monotonic() + DEADLINE
    while not any(event.container_name for event in established(trace)) and time.monotonic() < deadline:
        due = len(trace.events) + 1
        podman.start("shop-db")
        assert trace.until(partial(has, due))
        listener.close()  # before it was accepted: both ends are gone
        podman.await_ended("shop-db")
        listener = listen(server, port=8080)
    first, *_, last = established(trace)
    assert {event.container for event in established(trace)} == {shop}
    assert {event.comm for event in established(trace)} == {"busybox"}
    assert {event.container_name for event in established(trace)} <= {None, "shop-db"}
    assert (last.container_name, last.pod, last.unit) == ("shop-db", None, None)
    assert (first.exe, first.exe_source) == ("/bin/busybox", "exec")
    assert first.args == ["/bin/busybox", "nc", "127.0.0.1", "8080"]


def has(due: int, events: list[Event]) -> bool:
    return len(events) >= due


def established(trace: Trace) -> list[Established]:
    return [event for event in trace.events if isinstance(event, Established)]
