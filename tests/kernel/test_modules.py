"""What says that a kernel module came. test_services.py has one that does."""

from __future__ import annotations

import select
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from pytracecon.modules import Modules
from pytracecon.probes import is_loaded
from traffic.ipvs import enter
from traffic.network import Network


def nobody(*_: object) -> None:
    raise AssertionError("nothing was to be attached")


def test_news_of_other_things_are_read_and_do_not_wake_again(network: Network) -> None:
    """A host that starts containers has them all the time."""
    with ThreadPoolExecutor(1) as inside:
        inside.submit(enter, network).result()
        modules = inside.submit(Modules, {"no_such_module": []}, (), nobody).result()
    with closing(modules):
        assert modules.fd is not None
        readable = select.poll()
        readable.register(modules.fd, select.POLLIN)
        network.ip("link add v0 type veth peer name v1")
        assert readable.poll(10_000)
        modules.look()
        assert not readable.poll(0)
        assert modules.deadline is None


def test_a_module_is_there_or_not() -> None:
    assert not is_loaded("no_such_module")
    assert is_loaded("tcp_cubic") or is_loaded("kernel"), "one of those that are built in"
