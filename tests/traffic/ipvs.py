"""Virtual servers of IPVS, in a namespace of the test's own: `python ipvs.py WHAT AS-JSON`, run inside."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from socket import AF_INET, AF_INET6, IPPROTO_TCP, inet_ntoa
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from traffic.network import Network

METHODS = {"masquerading": 0, "tunnel": 2, "direct routing": 3}

Address = tuple[str, int]


def is_there() -> bool:
    """Whether this kernel has IPVS, and lets a probe see what it does."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    command = ["modprobe", "-a", "ip_vs", "ip_vs_rr"]
    loaded = subprocess.run(command, check=False, capture_output=True, env={**os.environ, "PATH": path})
    if loaded.returncode:
        return False
    with open("/proc/kallsyms", encoding="ascii") as symbols:
        return any(" ip_vs_conn_new" in line for line in symbols)


def add(network: Network, virtual: Address, *real: Address, method: str = "masquerading") -> None:
    """A virtual server that takes its real ones in turn."""
    said = json.dumps({"virtual": virtual, "real": real, "method": METHODS[method]})
    network.run(sys.executable, __file__, said)


def _family(addr: str) -> int:
    return AF_INET6 if ":" in addr else AF_INET


def _add(virtual: Address, real: list[Address], method: int) -> None:
    from pyroute2 import IPVS, IPVSDest, IPVSService  # noqa: PLC0415 - inside the namespace only

    family = _family(virtual[0])
    with IPVS() as ipvs:
        # Of IPv6 the length of a prefix, a number, goes by as an address.
        mask = {"netmask": inet_ntoa(struct.pack("=I", 128))} if family == AF_INET6 else {}
        service = IPVSService(
            af=family, addr=virtual[0], port=virtual[1], protocol=IPPROTO_TCP, sched_name="rr", **mask
        )
        ipvs.service("add", service=service)
        for addr, port in real:
            dest = IPVSDest(addr_family=_family(addr), addr=addr, port=port, fwd_method=method)
            ipvs.dest("add", service=service, dest=dest)


if __name__ == "__main__":
    given: dict[str, Any] = json.loads(sys.argv[1])
    _add(given["virtual"], given["real"], given["method"])
