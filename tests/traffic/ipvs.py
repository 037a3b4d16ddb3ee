"""Virtual servers of IPVS, in a namespace of the test's own."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from socket import AF_INET, AF_INET6, IPPROTO_TCP, inet_ntoa

from pytracecon.probes import has_kprobes
from traffic.network import Network

METHODS = {"masquerading": 0, "tunnel": 2, "direct routing": 3}

Address = tuple[str, int]

_NETWORK = 0x40000000  # CLONE_NEWNET


def unload() -> bool:
    """Whether this kernel has IPVS, and lets a probe see what it does. It is not loaded after this."""
    return has_kprobes() and _modprobe("--dry-run", "ip_vs") and _modprobe("--remove", "ip_vs_rr", "ip_vs")


def load() -> None:
    assert _modprobe("--all", "ip_vs", "ip_vs_rr")


def _modprobe(*arguments: str) -> bool:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    done = subprocess.run(["modprobe", *arguments], check=False, capture_output=True, env={**os.environ, "PATH": path})
    return done.returncode == 0


def add(
    network: Network, virtual: Address, *real: Address, method: str = "masquerading", protocol: int = IPPROTO_TCP
) -> None:
    """A virtual server that takes its real ones in turn."""
    with ThreadPoolExecutor(1) as inside:
        inside.submit(enter, network).result()
        inside.submit(_add, virtual, real, METHODS[method], protocol).result()


def remove(network: Network, virtual: Address) -> None:
    """What still goes to its real servers is dropped from then on."""
    with ThreadPoolExecutor(1) as inside:
        inside.submit(enter, network).result()
        inside.submit(_remove, virtual).result()


def enter(network: Network) -> None:
    """Only the calling thread, which ends in there."""
    handle = os.open(network.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(handle, _NETWORK):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(handle)


def _without_the_rest_of_pyroute2() -> None:
    """Its package imports all that it has, four times as much as IPVS takes."""
    if "pyroute2" not in sys.modules:
        spec = importlib.util.find_spec("pyroute2")
        assert spec is not None
        sys.modules["pyroute2"] = importlib.util.module_from_spec(spec)


def _family(addr: str) -> int:
    return AF_INET6 if ":" in addr else AF_INET


def _remove(virtual: Address) -> None:
    from pyroute2.ipvs import IPVS, IPVSService  # noqa: PLC0415 - as below

    with IPVS() as ipvs:
        service = IPVSService(af=_family(virtual[0]), addr=virtual[0], port=virtual[1], protocol=IPPROTO_TCP)
        ipvs.service("del", service=service)


def _add(virtual: Address, real: tuple[Address, ...], method: int, protocol: int) -> None:
    _without_the_rest_of_pyroute2()
    from pyroute2.ipvs import IPVS, IPVSDest, IPVSService  # noqa: PLC0415 - it takes a guest long

    family = _family(virtual[0])
    with IPVS() as ipvs:
        # Of IPv6 the length of a prefix, a number, goes by as an address.
        mask = {"netmask": inet_ntoa(struct.pack("=I", 128))} if family == AF_INET6 else {}
        service = IPVSService(af=family, addr=virtual[0], port=virtual[1], protocol=protocol, sched_name="rr", **mask)
        ipvs.service("add", service=service)
        for addr, port in real:
            dest = IPVSDest(addr_family=_family(addr), addr=addr, port=port, fwd_method=method)
            ipvs.dest("add", service=service, dest=dest)
