"""Names are an extra: where they cannot be had, connections are told all the same."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator

import pytest

from traffic.actor import Actor
from traffic.end import Listener, close, listen, pair
from traffic.network import Network
from traffic.story import Told
from traffic.trace import Trace


@pytest.fixture
def listener(server: Actor) -> Listener:
    return listen(server)


@pytest.fixture
def no_more_files() -> Iterator[Callable[[], None]]:
    """From the call on, this process can open nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def forbid() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        with pytest.raises(OSError, match="Too many open files"):
            os.open("/", os.O_RDONLY)

    yield forbid
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow(reason="descriptors are user space's business, whatever the kernel")
def test_without_a_descriptor_left_to_look_for_libcs(
    traced: Callable[..., Trace],
    network: Network,
    no_more_files: Callable[[], None],
    client: Actor,
    listener: Listener,
) -> None:
    trace = traced(netns=network.path)
    client.execute("another")  # a program starts, so its libc would be looked for
    near, far = pair(client, listener)
    close(near, far)
    told = [
        Told(near, "connect established close", ended="local_close"),
        Told(far, "accept close", ended="remote_close"),
    ]
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    no_more_files()
    assert trace.await_told(told)
    trace.settle()  # it detaches, too
    resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    trace.tells(*told)
