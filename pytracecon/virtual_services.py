"""What a virtual service of IPVS is set up as: its scheduler, and the real server's weight and forwarding method.

That is a later look, not part of what happened: it tells how things stand about when the event is read.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pytracecon.errors import PytraceconError, UnsupportedKernel
from pytracecon.events import ConnectionEvent, Event, State
from pytracecon.ipvs_table import namespaces
from pytracecon.meanwhile import Imports
from pytracecon.probes import is_loaded

if TYPE_CHECKING:
    from pyroute2.ipvs import IPVS

__all__ = ["Detail", "VirtualServices", "services_here"]

_FORWARDING = ("masquerading", "local_node", "tunnel", "direct_routing", "bypass")
_TRANSPORTS = {"tcp": 6, "mptcp": 6, "udp": 17}
_NETWORK = 0x40000000  # CLONE_NEWNET of linux/sched.h
_FRESH, _OLD, _PATIENCE = 1.0, 10.0, 0.2  # seconds
_MOST = 4096  # namespaces
_GONE = (FileNotFoundError, ProcessLookupError, PermissionError)

Address = tuple[str, int]


class Detail(NamedTuple):
    """Of one real server of one virtual service."""

    scheduler: str
    weight: int | None
    forwarding: str | None


Servers = dict[tuple[int, Address, Address], Detail]
"""By transport, virtual and real address."""

_NOTHING: tuple[float, Servers] = (float("-inf"), {})


class VirtualServices:
    """Asks the kernel, of each namespace once a second at most, in a thread that ends with the answer.

    Whoever asks here waits for that a fifth of a second at most; then an older answer serves, of ten seconds at most.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[float, Servers]] = {}
        self._asking: set[int] = set()
        Imports("pyroute2.ipvs")  # it takes as long as a tracer takes to start

    def fill(self, event: Event) -> None:
        """Complete a change of state whose real server is known."""
        if isinstance(event, State) and event.service is not None:
            detail = self.of(event)
            if detail is not None:
                event.service_scheduler, event.service_weight, event.service_forwarding = detail

    def of(self, event: ConnectionEvent, patience: float = _PATIENCE) -> Detail | None:
        """None if it is not known by now, or there is no such service any more."""
        if event.service is None or event.netns is None or event.remote_addr is None or event.remote_port is None:
            return None
        asked = event.remote_addr, event.remote_port
        key = _TRANSPORTS[event.proto], asked, (event.service.addr, event.service.port)
        now = time.monotonic()
        asked_at, servers = self._known.get(event.netns, _NOTHING)
        if now - asked_at > _FRESH and event.netns not in self._asking:
            self._ask(event.netns, event.pid).join(patience)
            asked_at, servers = self._known.get(event.netns, _NOTHING)
        return servers.get(key) if now - asked_at < _OLD else None

    def _ask(self, netns: int, pid: int | None) -> threading.Thread:
        if len(self._known) >= _MOST:
            self._known.clear()
        asking = threading.Thread(target=self._learn, args=(netns, pid), name="pytracecon: IPVS", daemon=True)
        self._asking.add(netns)
        asking.start()
        return asking

    def _learn(self, netns: int, pid: int | None) -> None:
        """In a thread that ends in that namespace."""
        servers: Servers = {}
        try:
            with suppress(*_GONE, PytraceconError):
                _enter(netns, pid)
                servers = services_here()
        finally:
            self._known[netns] = time.monotonic(), servers
            self._asking.discard(netns)


def _enter(netns: int, pid: int | None) -> None:
    """By way of a process that is in there: of this one, or of any."""
    inside = pid if pid is not None and _is_in(pid, netns) else namespaces().get(netns)
    if inside is None:
        raise ProcessLookupError
    handle = os.open(f"/proc/{inside}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.fstat(handle).st_ino != netns:
            raise ProcessLookupError
        if ctypes.CDLL(None, use_errno=True).setns(handle, _NETWORK):
            raise PermissionError
    finally:
        os.close(handle)


def _is_in(pid: int, netns: int) -> bool:
    with suppress(*_GONE):
        return Path(f"/proc/{pid}/ns/net").stat().st_ino == netns
    return False


def services_here() -> Servers:
    """Of the network namespace of the calling thread. UnsupportedKernel if the kernel does not answer."""
    if not is_loaded("ip_vs"):  # pyroute2 would leave its sockets open
        raise UnsupportedKernel("IPVS is not loaded, so it has no services (modprobe ip_vs)")
    from pyroute2.ipvs import IPVS, IPVSService  # noqa: PLC0415 - for those who want to know
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415

    found: Servers = {}
    try:
        with IPVS() as ipvs:
            for service in ipvs.service("dump"):
                attributes = dict(service.get_attr("IPVS_CMD_ATTR_SERVICE")["attrs"])
                if "IPVS_SVC_ATTR_ADDR" in attributes:  # else it is of a firewall's mark, and has none
                    _add(found, ipvs, IPVSService.from_message(service), attributes)
    except (NetlinkError, OSError) as error:
        raise UnsupportedKernel(f"IPVS does not tell its services: {error}; try ipvsadm -Ln") from error
    return found


def _add(found: Servers, ipvs: IPVS, service: Any, attributes: dict[str, Any]) -> None:
    virtual = attributes["IPVS_SVC_ATTR_ADDR"], attributes["IPVS_SVC_ATTR_PORT"]
    for each in ipvs.dest("dump", service=service):
        of = dict(each.get_attr("IPVS_CMD_ATTR_DEST")["attrs"])
        real = of["IPVS_DEST_ATTR_ADDR"], of["IPVS_DEST_ATTR_PORT"]
        method = of.get("IPVS_DEST_ATTR_FWD_METHOD")
        found[attributes["IPVS_SVC_ATTR_PROTOCOL"], virtual, real] = Detail(
            attributes["IPVS_SVC_ATTR_SCHED_NAME"],
            of.get("IPVS_DEST_ATTR_WEIGHT"),
            _FORWARDING[method & 7] if method is not None and method & 7 < len(_FORWARDING) else None,
        )
